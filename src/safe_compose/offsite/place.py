"""An open destination for copies of backups: a folder, an SFTP server, an S3 bucket."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, runtime_checkable

from safe_compose.core.destination import Destination
from safe_compose.errors import OperationFailed

MANIFEST, SUMS, RECIPE = "manifest.json", "SHA256SUMS", "RESTORE.md"
PARTIAL = ".partial-"
BLOCK = 1 << 20
"""Bytes of one block."""

Data = bytes
"""An alias, because a field is called `bytes`."""
Progress = Callable[[int], None]
"""Called with the number of bytes transferred since the last call."""


class Place(Protocol):
    """An open destination, which is not trusted.

    Names are relative, `/` separated, and chosen by us; callers check the names that it lists.
    Every error is an OperationFailed, a missing file a `FileMissing`.
    """

    title: str
    """`off-site NAME`, for messages."""

    def check(self, need: int, /) -> None:
        """Check that it exists and has space for `need` bytes, as far as it can tell."""

    def copies(self) -> list[str]:
        """Return `<project>/<id>` of every folder that has a manifest under its own name."""

    def files(self, folder: str) -> dict[str, int]:
        """Return the name below the folder -> size of every file in it.

        Empty where there is no such folder.
        """

    def put(self, name: str, blocks: Iterable[bytes], size: int, /) -> None:
        """Write a file, synced where possible.

        It appears, or replaces an old one, only when it is complete.
        """

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file."""

    def close(self) -> None:
        """Release the connection."""
        ...


@runtime_checkable
class Staging(Place, Protocol):
    """A place where a copy is made under another name and then renamed.

    At other places the manifest, which is sent last, completes the copy.
    """

    def rename(self, old: str, new: str) -> None:
        """Rename a folder."""


class FileMissing(Exception):
    """An error about a missing file at a destination."""


def make_fault(
    destination: Destination, why: str, *, next_step: str | None = None
) -> OperationFailed:
    """Return an error of one destination."""
    return OperationFailed(f"off-site {destination.name}: {why}", next_step=next_step)
