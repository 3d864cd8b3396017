"""SQLite databases in any volume, found by their first bytes in the archive that was just made."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safe_compose.core.backup import Artifact
from safe_compose.core.text import make_visible
from safe_compose.fastpath.layer_data import SQLITE_LOGS
from safe_compose.volumes.gzip_stream import make_damage_fault, unpack
from safe_compose.volumes.tar import BadTar, Member, read_members

MAGIC = b"SQLite format 3\0"
SIDE_FILES = tuple(end.encode() for end in SQLITE_LOGS)
"""Suffixes of the files that belong to a database; `-shm` is rebuilt from the first of them."""
SMALLEST = 100
"""Size of a database's header in bytes."""
MOST = 20_000
"""Largest number of databases of one volume that are opened or copied."""


@dataclass(slots=True)
class Finder:
    """A callback for `read_members` that remembers the files which begin like SQLite databases."""

    found: dict[bytes, Member] = field(default_factory=dict)
    side_files: dict[bytes, int] = field(default_factory=dict)
    """Size of each file that is named like the log or the journal of a database."""
    more: int = 0
    """Number of further databases, which were too many to remember."""

    def __call__(self, member: Member, head: bytes) -> None:
        """Remember a file that is a database, or named like a log or journal."""
        if head == MAGIC and member.size >= SMALLEST:
            if len(self.found) < MOST:
                self.found[member.path] = member
            else:
                self.more += 1
        elif member.path.endswith(SIDE_FILES) and len(self.side_files) < 2 * MOST:
            self.side_files[member.path] = member.size

    def bytes_of(self, path: bytes) -> int:
        """Return the size of a database that was found, with the files next to it."""
        return self.found[path].size + sum(self.side_files.get(path + end, 0) for end in SIDE_FILES)


def make_readable(path: bytes) -> str:
    """Return a path as text; different paths have different texts."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def describe(path: bytes) -> str:
    """Return a path for one line of a message."""
    return make_visible(make_readable(path))


def find(folder: Path, artifacts: Sequence[Artifact]) -> dict[bytes, Member]:
    """Return the SQLite databases in an archive that was just made, by path.

    Raises:
        VerificationFailed: The archive is damaged.
    """
    archive = find_archive(artifacts)
    finder = Finder()
    if archive is not None:
        try:
            for _ in read_members(unpack(folder, archive), finder):
                continue
        except BadTar as error:
            raise make_damage_fault(archive, str(error)) from error
    return finder.found


def find_archive(artifacts: Sequence[Artifact]) -> Artifact | None:
    """Return the archive among the artifacts of a volume; None if there is none."""
    return next((a for a in artifacts if a.kind == "archive"), None)
