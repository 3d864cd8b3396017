"""A folder as destination: another disk, a mounted share.

Other users may write there. So no symbolic link below it is followed, no pipe or device is opened,
a file with another name elsewhere (a hard link) is not taken for a copy, and existing files are
never written into: each file is newly written and renamed.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safe_compose.core.destination import Destination
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.offsite.limits import Deadline
from safe_compose.offsite.place import BLOCK, MANIFEST, PARTIAL, FileMissing, make_fault
from safe_compose.system.files import explain_error, open_below, write_all

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
DEEPEST = 8
"""Most folders below each other in a copy; ours have two."""


class Folder:
    """An open folder that holds copies.

    Its base must exist: where a disk is not mounted, nothing is written to the empty folder at its
    mount point.
    """

    def __init__(self, destination: Destination) -> None:
        """Use the folder of a destination.

        Raises:
            OperationFailed: The folder does not exist.
        """
        self._to = destination
        self.title = f"off-site {destination.name}"
        self._base = Path(destination.path)
        if not self._base.is_dir():
            raise make_fault(
                destination,
                f"there is no folder {self._base}",
                next_step="mount that disk, or make the folder, and try again",
            )

    def check(self, need: int) -> None:
        """Check that the folder has `need` bytes of free space.

        Raises:
            OperationFailed: It has less, or cannot be measured.
        """
        try:
            free = os.statvfs(self._base)
        except OSError as error:
            raise self._make_fault("measured", error) from error
        left = free.f_bavail * free.f_frsize
        if left < need:
            raise make_fault(
                self._to,
                f"no space: {need >> 20} MiB are needed, {left >> 20} MiB are free in {self._base}",
                next_step="make room there and try again",
            )

    def copies(self) -> list[str]:
        """Return `<project>/<id>` of every folder that holds a manifest.

        Raises:
            OperationFailed: A folder cannot be listed.
            PlaceUnusable: There are too many names, or the listing takes too long.
        """
        looking = Deadline(self.title)
        found = []
        try:
            for project in self._folders(self._base, looking):
                for name in self._folders(self._base / project, looking):
                    if not name.startswith(PARTIAL) and os.path.lexists(
                        self._base / project / name / MANIFEST
                    ):
                        found.append(f"{project}/{name}")
        except OSError as error:
            raise self._make_fault("listed", error) from error
        return found

    def files(self, folder: str) -> dict[str, int]:
        """Return the path below the folder -> size of every file in it.

        Symbolic links, special files and files with another name are left out.

        Raises:
            OperationFailed: A folder cannot be listed.
            PlaceUnusable: There are too many names, or the listing takes too long.
            VerificationFailed: The folders are nested deeper than those of a backup.
        """
        looking = Deadline(self.title)
        found: dict[str, int] = {}
        waiting = [("", 0)]
        try:
            while waiting:
                below, depth = waiting.pop()
                if depth > DEEPEST:
                    raise VerificationFailed(
                        f"{self.title}: {folder} has more folders below each other than a backup;"
                        " nothing was kept"
                    )
                for entry in self._entries(self._base / folder / below, looking):
                    kind = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(kind.st_mode):
                        waiting.append((f"{below}{entry.name}/", depth + 1))
                    elif stat.S_ISREG(kind.st_mode) and kind.st_nlink == 1:
                        found[f"{below}{entry.name}"] = kind.st_size
        except OSError as error:
            raise self._make_fault("listed", error) from error
        return found

    def put(self, name: str, blocks: Iterable[bytes], _size: int) -> None:
        """Write a file, synced; it appears, or replaces an old one, only when it is complete.

        Raises:
            OperationFailed: The file cannot be written.
        """
        parent, _, plain = name.rpartition("/")
        draft = f".{plain}.new"
        try:
            with self._opening(parent, make=True) as folder:
                with suppress(FileNotFoundError):
                    # left by an interrupted run, or put there by others: it is not written into
                    os.unlink(draft, dir_fd=folder)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(draft, flags, 0o600, dir_fd=folder)
                try:
                    for block in blocks:
                        write_all(descriptor, block)
                    os.fsync(descriptor)
                    # so that reading it back reads the disk
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)
                os.rename(draft, plain, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
        except OSError as error:
            raise self._make_fault("written", error) from error

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file.

        Raises:
            FileMissing: There is no such file.
            VerificationFailed: It is a link or a special file, or has another name.
            OperationFailed: It cannot be read.
        """
        try:
            with os.fdopen(open_below(self._base, name, single=True), "rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    yield block
        except FileNotFoundError as error:
            raise FileMissing(name) from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.ENXIO):
                raise VerificationFailed(
                    f"{self.title}: {name} is no file of its own there ({explain_error(error)});"
                    " nothing of it is used"
                ) from error
            raise self._make_fault("read", error) from error

    def rename(self, old: str, new: str) -> None:
        """Rename a folder.

        Raises:
            OperationFailed: It cannot be renamed.
        """
        (above, _, was), (parent, _, name) = old.rpartition("/"), new.rpartition("/")
        try:
            with self._opening(above) as source, self._opening(parent) as target:
                os.rename(was, name, src_dir_fd=source, dst_dir_fd=target)
                os.fsync(target)
            with self._opening("") as base:
                os.fsync(base)
        except OSError as error:
            raise self._make_fault("written", error) from error

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _folders(self, folder: Path, looking: Deadline) -> list[str]:
        """Return the names of the folders in a folder, without symbolic links."""
        return [e.name for e in self._entries(folder, looking) if e.is_dir(follow_symlinks=False)]

    def _entries(self, folder: Path, looking: Deadline) -> "Iterator[os.DirEntry[str]]":
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    looking.count()
                    yield entry
        except FileNotFoundError:
            return

    @contextmanager
    def _opening(self, name: str, *, make: bool = False) -> Iterator[int]:
        """Open a folder below the base without following symbolic links.

        With `make`, missing folders are created.
        """
        at = os.open(self._base, _FOLDER)
        try:
            for part in name.split("/") if name else ():
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=at)
                        os.fsync(at)
                below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    def _make_fault(self, done: str, error: OSError) -> OperationFailed:
        where = (
            f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
        )
        return make_fault(
            self._to,
            f"cannot be {done}: {explain_error(error)}{where}",
            next_step="correct that, then try again",
        )
