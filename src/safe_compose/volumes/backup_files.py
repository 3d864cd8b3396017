"""New files and folders of a backup; their faults name the volume and the stage."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from safe_compose.core.observed import describe_location
from safe_compose.errors import OperationFailed

_FULL = (errno.ENOSPC, errno.EDQUOT)


class MeasuredFile:
    """A new file that is measured and hashed while it is written."""

    def __init__(self, descriptor: int, path: Path, subject: str, stage: str) -> None:
        """Write to an open descriptor of the file at `path`.

        `subject` (the volume) and `stage` only serve messages.
        """
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._place = path, subject, stage
        self._hash = sha256()
        self.size = 0
        """Number of bytes written so far."""

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the bytes written so far."""
        return self._hash.hexdigest()

    def write(self, piece: bytes, /) -> None:
        """Write all of these bytes.

        Raises:
            OperationFailed: They cannot be written.
        """
        self._hash.update(piece)
        self.size += len(piece)
        view = memoryview(piece)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise make_write_fault(error, *self._place) from error

    def close(self) -> None:
        """Flush the file to the disk and close it.

        Raises:
            OperationFailed: The file cannot be synced or closed.
        """
        try:
            os.fsync(self._file.fileno())
            self._file.close()  # network file systems and quotas report their errors here
        except OSError as error:
            raise make_write_fault(error, *self._place) from error

    def abandon(self) -> None:
        """Close the file, whatever its state."""
        with suppress(OSError):
            self._file.close()


@contextmanager
def creating(path: Path, subject: str, stage: str) -> Iterator[MeasuredFile]:
    """Open a file that must not exist yet; remove it unless the block finishes.

    Raises:
        OperationFailed: The file cannot be created.
    """
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        raise make_write_fault(error, path, subject, stage) from error
    file = MeasuredFile(descriptor, path, subject, stage)
    done = False
    try:
        yield file
        done = True
    finally:
        file.abandon()
        if not done:
            with suppress(OSError):
                path.unlink()


@contextmanager
def removing_on_fault(path: Path) -> Iterator[None]:
    """Remove the file that a block makes if the block fails.

    The source of the data may report only after the last byte that it was incomplete. A file that
    existed before is not touched.
    """
    before = os.path.lexists(path)
    try:
        yield
    except BaseException:
        if not before:
            with suppress(OSError):
                path.unlink()
        raise


@contextmanager
def removing_new_files(folder: Path) -> Iterator[None]:
    """Remove the files that a block makes in a folder if the block fails.

    Files that existed before are not touched.
    """
    before = set(folder.iterdir())
    try:
        yield
    except BaseException:
        for path in set(folder.iterdir()) - before:
            with suppress(OSError):
                path.unlink()
        raise


def new_folder(path: Path, *, subject: str, stage: str) -> None:
    """Make a folder (0700) and its missing parents.

    Raises:
        OperationFailed: The folder cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise make_write_fault(error, path, subject, stage) from error


def sync_folder(path: Path, *, subject: str, stage: str) -> None:
    """Flush the names in a folder to the disk.

    Raises:
        OperationFailed: The file system refuses.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise make_write_fault(error, path, subject, stage) from error


def make_write_fault(error: OSError, path: Path, subject: str, stage: str) -> OperationFailed:
    """Make the fault of a file of a backup that cannot be written."""
    cause = error.strerror or str(error)
    action = "make room on" if error.errno in _FULL else "look at"
    return OperationFailed(
        f"{describe_location(subject)}: {stage}: {path.name} could not be written: {cause}",
        next_step=f"{action} the file system of {path.parent}, or choose another store with"
        " SAFE_COMPOSE_HOME",
    )
