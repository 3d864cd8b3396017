"""Restore one file or folder of an archive into a volume in use, and revert it."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safe_compose.core.backup import Artifact
from safe_compose.core.observed import describe_location
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.errors import OperationFailed
from safe_compose.volumes.archive import archive_and_list, select_storable
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.extraction import sync
from safe_compose.volumes.gzip_stream import make_damage_fault, show_nothing, unpack
from safe_compose.volumes.helper_program import (
    MOUNT,
    feed,
    naming_fault,
)
from safe_compose.volumes.tar import BadTar, read_list, read_members

_ARGV = 256 << 10
"""Characters of names that are passed to one program; Linux takes 2 MiB, of bytes and pointers."""


@dataclass(frozen=True, slots=True)
class SinglePath:
    """One path of an archive that is extracted into a volume in use and then renamed into place."""

    location: EngineLocation
    path: str
    """Relative to the volume's root."""
    staging: str
    """A folder of ours at the volume's root that exists while the path is extracted."""
    old_path: str
    """The path that the current content is renamed to."""

    def has_real_parent(self) -> bool:
        """Return whether the parent folder of the path exists and is reached without any link.

        Raises:
            OperationFailed: The volume cannot be read.
        """
        parent = self.path.rpartition("/")[0]
        return not parent or self._find_type(parent) == "d"

    def exists(self) -> bool:
        """Return whether the volume has the path; a dangling link counts.

        Raises:
            OperationFailed: The volume cannot be read.
        """
        return self._find_type(self.path) is not None

    def place(
        self,
        folder: Path,
        artifacts: Sequence[Artifact],
        progress: Callable[[int], None] = show_nothing,
    ) -> None:
        """Extract one path of a verified archive into a staging folder and rename it into place.

        What is there now is renamed to `old_path` first; the volume is synced at the end. Call
        `settle` afterwards, whatever the outcome.

        Raises:
            OperationFailed: The path cannot be extracted or renamed.
            VerificationFailed: The archive is damaged.
        """
        artifact, _ = archive_and_list(artifacts)
        staged = f"{self.staging}/volume"
        with naming_fault(self.location.name, f"extract {self.path}"):
            self._run_helper("mkdir", MOUNT, self.staging, "0700")
            self._run_helper("mkdir", MOUNT, staged, "0700")
            names = [
                f"volume/{path}"
                for path in (self.path, *_list_other_names(folder, artifact, self.path))
            ]
            only = [word for name in names for word in ("--member", name)]
            helper = self.location.unpacking_helper(*only, f"{MOUNT}/{staged}")
            with self.location.engine.helpers.stream(helper, stdin=subprocess.PIPE) as filled:
                feed(unpack(folder, artifact, progress=progress), filled.stdin)
            if self.exists():
                self._run_helper("rename", MOUNT, self.path, self.old_path)
            self._run_helper("rename", MOUNT, f"{staged}/{self.path}", self.path)
        sync(self.location)

    def settle(self, *, existed: bool) -> bool:
        """Finish or revert the restore of one path, and return whether the new content is in place.

        If it is not, everything is as it was before. `existed` says whether the path existed
        before.

        Raises:
            OperationFailed: The volume cannot be read or changed.
        """
        new, old = self.exists(), self._find_type(self.old_path) is not None
        with naming_fault(self.location.name, f"tidy up after {self.path}"):
            if old and not new:
                self._run_helper("rename", MOUNT, self.old_path, self.path)
            self.location.engine.helpers.run(
                self.location.changing_helper("remove", MOUNT, self.staging), timeout=600
            )
        return new and (old or not existed)

    def _run_helper(self, *words: str) -> None:
        self.location.engine.helpers.run(self.location.changing_helper(*words), timeout=60)

    def _find_type(self, path: str) -> str | None:
        """Return the type letter of a path (`f`, `d`, `l`, ...); None if missing or behind a link.

        Raises:
            OperationFailed: The volume cannot be read.
        """
        with naming_fault(self.location.name, "look"):
            answer = self.location.engine.helpers.run(
                self.location.read_only_helper("stat", MOUNT, path), timeout=60
            )
            try:
                return None if answer == b"- \0" else next(read_list([answer])).type
            except (BadTar, StopIteration) as error:
                raise OperationFailed(
                    f"{describe_location(self.location.name)}: look: {path} cannot be told"
                ) from error


def plan_path(location: EngineLocation, path: str, token: str) -> SinglePath:
    """Plan the restore of one path.

    Raises:
        OperationFailed: Our own helper program does not run on this engine.
    """
    try:
        location.engine.images.own_image()
    except NoOwnImage as error:
        raise OperationFailed(
            f"{describe_location(location.name)}: one piece of an archive cannot be taken out here:"
            f" {error.message}; nothing was restored",
            next_step="restore the whole volume for a look: --into scratch instead of --path",
        ) from error
    return SinglePath(location, path, f".safe-compose-{token}", f"{path}.before-{token}")


def count_entries_below(folder: Path, artifacts: Sequence[Artifact], path: str) -> int:
    """Count the entries of an archive at or below a path.

    Raises:
        VerificationFailed: The list is missing or damaged.
    """
    wanted = path.encode("utf-8", "surrogateescape")
    _, listing = archive_and_list(artifacts)
    return sum(_is_within(m.path, wanted) for m in select_storable(folder, listing))


def _list_other_names(folder: Path, artifact: Artifact, path: str) -> list[str]:
    """List the members outside of a path that hold the content of hard links at or below it.

    They are extracted with the path, and removed with the staging folder.

    Raises:
        VerificationFailed: The archive is damaged.
        OperationFailed: They are more than an argument list holds.
    """
    wanted = path.encode("utf-8", "surrogateescape")
    try:
        links = {
            m.link
            for m in read_members(unpack(folder, artifact))
            if m.link and _is_within(m.path, wanted)
        }
    except BadTar as error:
        raise make_damage_fault(artifact, str(error)) from error
    others = [
        link.decode("utf-8", "surrogateescape")
        for link in sorted(links)
        if not _is_within(link, wanted)
    ]
    if sum(map(len, others)) > _ARGV:
        raise OperationFailed(
            f"{path} has hard links to {len(others)} files outside of it, too many to take it out"
            " alone; nothing was restored",
            next_step="restore the whole volume for a look: --into scratch instead of --path",
        )
    return others


def _is_within(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")
