"""Restore a folder of the engine's host: fill a new folder next to it, then exchange the two.

A helper gets the folder above mounted, so this works on a daemon of another machine and needs no
rights of ours on its host. Everything is renamed within that one folder: nobody sees half of the
content, and what was there stays under another name.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from safe_compose.core.text import shell_quote
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.extraction import sync
from safe_compose.volumes.helper_program import MOUNT, naming_fault, read_last_words
from safe_compose.volumes.tar import BadTar, read_list

_MOUNTED = "something is mounted there"
"""Our helper program's words about a mount (native/entries.c, `fault`)."""
_SECONDS = 60.0


class FolderState(StrEnum):
    """What is at the path of a folder now."""

    MISSING = "missing"
    FOLDER = "folder"
    MOUNT = "mount"
    """Something is mounted there, so it cannot be renamed."""
    FILE = "file"
    OTHER = "other"
    """A link, a socket or the like."""


@dataclass(frozen=True, slots=True)
class FolderSwap:
    """A folder of the host, the new one that is filled next to it, and the name of the old one.

    A single file is filled within a folder of ours, and leaves that when it is renamed.
    """

    parent: EngineLocation
    """The folder above, in which all three are."""
    name: str
    staging_name: str
    old_name: str
    is_file: bool = False

    @classmethod
    def of(cls, folder: EngineLocation, token: str, *, is_file: bool = False) -> "FolderSwap":
        """Return the swap for a folder or file; `token` makes the names of a run unique."""
        path = PurePosixPath(folder.name)
        return cls(
            EngineLocation(folder.engine, str(path.parent)),
            path.name,
            f".{path.name[:100]}.safe-compose-{token}",
            f"{path.name}.before-{token}",
            is_file,
        )

    @property
    def filled_name(self) -> str:
        """The name of the new folder or file until it is renamed, relative to the parent."""
        return f"{self.staging_name}/{self.name}" if self.is_file else self.staging_name

    @property
    def staging(self) -> str:
        """The path of the new folder while it is filled."""
        return str(PurePosixPath(self.parent.name, self.staging_name))

    @property
    def old_path(self) -> str:
        """The path that the current folder is renamed to."""
        return str(PurePosixPath(self.parent.name, self.old_name))

    def make_staging(self) -> None:
        """Create the empty folder that is filled, with a mode that keeps others out.

        Raises:
            OperationFailed: It cannot be created.
        """
        self._run_helper("make", "mkdir", MOUNT, self.staging_name, "0700")

    def swap_in(self, *, existed: bool) -> None:
        """Rename the current folder, if there is one, and then the filled one into its place.

        Raises:
            OperationFailed: A rename failed; `revert` can be called next.
        """
        EngineLocation(self.parent.engine, self.staging).require_in_place()
        if existed:
            self._rename(self.name, self.old_name)
        self._rename(self.filled_name, self.name)
        if self.is_file:
            self.remove_staging()
        sync(self.parent)

    def revert(self, *, existed: bool) -> None:
        """Make everything as it was before `make_staging`, wherever the swap was left.

        This is for its own process, and for one that knows that nothing has run on it since.

        Raises:
            OperationFailed: It could not be done.
        """
        current, staged, old = self.find_names()
        if current and not staged and (old or not existed):
            if self.is_file and not self._has(self.staging_name):
                self.make_staging()
            self._rename(self.name, self.filled_name)
        if existed and old:
            self._rename(self.old_name, self.name)
        self.remove_staging()

    def remove_staging(self) -> None:
        """Remove the folder that is filled, if it is there.

        A read-only file system refuses to remove even what is not there.

        Raises:
            OperationFailed: It could not be removed.
        """
        if self._has(self.staging_name):
            remove(self.parent, self.staging_name)

    def find_names(self) -> tuple[bool, bool, bool]:
        """Return whether something is at the path, and whether the new and old content are there.

        Raises:
            OperationFailed: Nobody can look there.
        """
        names = (self.name, self.filled_name, self.old_name)
        current, staged, old = map(self._has, names)
        return current, staged, old

    def remove_old(self) -> None:
        """Remove the folder that was there before.

        Raises:
            OperationFailed: It could not be removed.
        """
        remove(self.parent, self.old_name)

    def _has(self, name: str) -> bool:
        self.parent.require_in_place()
        with naming_fault(self.parent.name, "look"):
            answer = self.parent.engine.helpers.run(
                self.parent.read_only_helper("stat", MOUNT, name), timeout=_SECONDS
            )
        return answer != b"- \0"

    def _rename(self, name: str, new_name: str) -> None:
        self._run_helper("rename", "rename", MOUNT, name, new_name)

    def _run_helper(self, stage: str, *words: str) -> None:
        self.parent.require_in_place()
        with naming_fault(str(PurePosixPath(self.parent.name, self.name)), stage):
            self.parent.engine.helpers.run(self.parent.changing_helper(*words), timeout=_SECONDS)


def inspect_folder(folder: EngineLocation) -> FolderState:
    """Return what is at a path of the engine's host.

    Raises:
        StateChanged: The folder above is not there; nothing is made.
        OperationFailed: Our helper program does not run, or cannot look there.
    """
    engine, path = folder.engine, folder.name
    place = PurePosixPath(path)
    require_program(folder)
    try:
        answer = engine.helpers.run(
            EngineLocation(engine, str(place.parent)).read_only_helper("stat", MOUNT, place.name),
            timeout=_SECONDS,
        )
        if answer == b"- \0":
            return FolderState.MISSING
        kind = next(read_list([answer])).type
    except HelperFailed as error:
        words = read_last_words(error)
        if _MOUNTED in words:
            return FolderState.MOUNT
        if "does not exist" in words:  # docker's own message about the source of a bind mount
            raise StateChanged(
                f"the folder {place.parent} is not there, so {path} cannot be made in it; nothing"
                " was restored",
                next_step=f"make it: mkdir -p {shell_quote(str(place.parent))}; then run it again",
            ) from error
        raise OperationFailed(f"folder {path}: look: {words}") from error
    except (BadTar, StopIteration) as error:
        raise OperationFailed(f"folder {path}: look: it cannot be told what it is") from error
    return {"d": FolderState.FOLDER, "f": FolderState.FILE}.get(kind, FolderState.OTHER)


def require_program(folder: EngineLocation) -> None:
    """Check that our helper program runs on the engine.

    Raises:
        OperationFailed: It does not.
    """
    try:
        folder.engine.images.own_image()
    except NoOwnImage as error:
        raise OperationFailed(
            f"folder {folder.name}: no folder of the host can be written here: {error.message}",
            next_step="restore it into a volume for a look: --into scratch",
        ) from error


def remove(parent: EngineLocation, name: str) -> None:
    """Remove an entry of a folder of the host with everything below it.

    Raises:
        OperationFailed: It could not be removed, as where something is mounted in it.
    """
    with naming_fault(parent.name, f"remove {name}"):
        parent.engine.helpers.run(parent.changing_helper("remove", MOUNT, name))
