"""Restore a folder of the engine's host: fill a new folder next to it, then exchange the two.

A helper gets the folder above mounted, so this works on a daemon of another machine and needs no
rights of ours on its host. Everything is renamed within that one folder: nobody sees half of the
content, and what was there stays under another name.
"""

from enum import StrEnum
from pathlib import PurePosixPath
from typing import NamedTuple

from safe_compose.core.observed import FOLDER
from safe_compose.core.text import shell_quote
from safe_compose.engine import Engine, HelperFailed, NoOwnImage
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.volumes.engine_volume import EngineVolume
from safe_compose.volumes.extraction import sync
from safe_compose.volumes.helper_program import (
    MOUNT,
    naming_fault,
    read_last_words,
)
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
    OTHER = "other"
    """A file, or a link."""


class FolderSwap(NamedTuple):
    """A folder of the host, the new one that is filled next to it, and the name of the old one."""

    parent: str
    name: str
    staging_name: str
    old_name: str

    @classmethod
    def of(cls, path: str, token: str) -> "FolderSwap":
        """Return the swap for a folder; `token` makes the names of a run unique."""
        place = PurePosixPath(path)
        return cls(
            str(place.parent),
            place.name,
            f".{place.name[:100]}.safe-compose-{token}",
            f"{place.name}.before-{token}",
        )

    @property
    def staging(self) -> str:
        """The path of the new folder while it is filled."""
        return str(PurePosixPath(self.parent, self.staging_name))

    @property
    def old_path(self) -> str:
        """The path that the current folder is renamed to."""
        return str(PurePosixPath(self.parent, self.old_name))


def inspect_folder(engine: Engine, path: str) -> FolderState:
    """Return what is at a path of the engine's host.

    Raises:
        StateChanged: The folder above is not there; nothing is made.
        OperationFailed: Our helper program does not run, or cannot look there.
    """
    place = PurePosixPath(path)
    require_program(engine, path)
    try:
        answer = engine.helpers.run(
            EngineVolume(engine, str(place.parent)).read_only_helper("stat", MOUNT, place.name),
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
    return FolderState.FOLDER if kind == "d" else FolderState.OTHER


def require_program(engine: Engine, path: str) -> None:
    """Check that our helper program runs on the engine.

    Raises:
        OperationFailed: It does not.
    """
    try:
        engine.images.own_image()
    except NoOwnImage as error:
        raise OperationFailed(
            f"folder {path}: no folder of the host can be written here: {error.message}",
            next_step="restore it into a volume for a look: --into scratch",
        ) from error


def make_staging(engine: Engine, swap: FolderSwap) -> None:
    """Create the empty folder that is filled, with a mode that keeps others out.

    Raises:
        OperationFailed: It cannot be created.
    """
    _act(engine, swap, "make", "mkdir", MOUNT, swap.staging_name, "0700")


def swap_in(engine: Engine, swap: FolderSwap, *, existed: bool) -> None:
    """Rename the current folder, if there is one, and then the filled one into its place.

    Raises:
        OperationFailed: A rename failed; `revert` can be called next.
    """
    if existed:
        _act(engine, swap, "rename", "rename", MOUNT, swap.name, swap.old_name)
    _act(engine, swap, "rename", "rename", MOUNT, swap.staging_name, swap.name)
    sync(EngineVolume(engine, swap.parent))


def revert(engine: Engine, swap: FolderSwap, *, existed: bool) -> None:
    """Make everything as it was before `make_staging`, wherever the swap was left.

    Only its own process calls this, while nothing runs on the folder.

    Raises:
        OperationFailed: It could not be done.
    """
    names = (swap.name, swap.staging_name, swap.old_name)
    current, staged, old = (_has(engine, swap, name) for name in names)
    if current and not staged and (old or not existed):
        _act(engine, swap, "rename", "rename", MOUNT, swap.name, swap.staging_name)
    if existed and old:
        _act(engine, swap, "rename", "rename", MOUNT, swap.old_name, swap.name)
    remove(engine, swap.parent, swap.staging_name)


def remove(engine: Engine, parent: str, name: str) -> None:
    """Remove an entry of a folder of the host with everything below it.

    Raises:
        OperationFailed: It could not be removed, as where something is mounted in it.
    """
    with naming_fault(parent, f"remove {name}"):
        engine.helpers.run(EngineVolume(engine, parent).changing_helper("remove", MOUNT, name))


def _has(engine: Engine, swap: FolderSwap, name: str) -> bool:
    with naming_fault(swap.parent, "look"):
        answer = engine.helpers.run(
            EngineVolume(engine, swap.parent).read_only_helper("stat", MOUNT, name),
            timeout=_SECONDS,
        )
    return answer != b"- \0"


def _act(engine: Engine, swap: FolderSwap, stage: str, *words: str) -> None:
    with naming_fault(f"{swap.parent.rstrip(FOLDER)}/{swap.name}", stage):
        engine.helpers.run(
            EngineVolume(engine, swap.parent).changing_helper(*words), timeout=_SECONDS
        )
