"""Private files that survive a power cut: made with a fixed mode whatever the umask, synced, replaced in one step."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from safe_compose.errors import BackupFailed

_CAUSES = {
    errno.ENOSPC: "no space is left on that file system",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than its limit allows",
    errno.EROFS: "that file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EEXIST: "a file is in the way",
    errno.ENOTDIR: "a file is in the way",
    errno.EISDIR: "a folder is in the way",
    errno.ELOOP: "a symbolic link is in the way",
    errno.EIO: "the disk reports an input/output error",
    errno.ENAMETOOLONG: "the name is too long for that file system",
    errno.ENOLCK: "that file system has no locks",
    errno.ENOSYS: "that file system has no locks",
    errno.EOPNOTSUPP: "that file system does not support it",
    errno.ESTALE: "the network file system has lost it",
}

_NEXT_STEPS = {
    errno.ENOSPC: "make room there, or set SAFE_COMPOSE_HOME to a folder with more room",
    errno.EDQUOT: "make room there, or set SAFE_COMPOSE_HOME to a folder with more room",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read what a room writes."""

    folders: int = 0o700
    files: int = 0o600
    owner: tuple[int, int] | None = None
    """uid and gid that everything is given to; None: whoever runs."""


PRIVATE = Access()
SHARED = Access(folders=0o2770, files=0o660)


def cause(error: OSError) -> str:
    """The cause of a file fault in words."""
    return _CAUSES.get(error.errno or 0, error.strerror or type(error).__name__)


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn a file fault inside the block into BackupFailed: "cannot DOING: no space is left on that file system (PATH)"."""
    try:
        yield
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
        step = _NEXT_STEPS.get(error.errno or 0, "correct that, or set SAFE_COMPOSE_HOME to another folder")
        raise BackupFailed(f"cannot {doing}: {cause(error)}{where}", next_step=step) from error


def sync_folder(path: Path) -> None:
    """Force the names in a folder to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, access: Access = PRIVATE) -> None:
    """Make a folder with exactly that mode and sync its parent. Raises FileExistsError and other OSErrors."""
    path.mkdir(mode=0o700)
    path.chmod(0o700)  # under a umask that takes everything away we could not even open it below
    own(path, access, folder=True)
    sync_folder(path.parent)


def make_folders(path: Path, access: Access = PRIVATE) -> None:
    """Make a folder and what is missing above it; nothing when it is there. Raises OSError."""
    for missing in reversed([p for p in (path, *path.parents) if not os.path.lexists(p)]):
        with suppress(FileExistsError):  # another run makes it this moment
            make_folder(missing, access if missing == path else Access(owner=access.owner))


def own(path: Path, access: Access, *, folder: bool) -> None:
    """Give one file or folder its mode and owner, whatever the umask was. Never follows a symbolic link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_DIRECTORY if folder else 0)
    descriptor = os.open(path, flags)
    try:
        own_open(descriptor, access, folder=folder)
    finally:
        os.close(descriptor)


def read_regular(path: str | Path) -> bytes:
    """The bytes of a regular file: a symbolic link is not followed, a pipe or device not waited for. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            raise OSError(errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL, "it is no regular file", str(path))
        return file.read()


def write(path: Path, data: bytes, access: Access = PRIVATE) -> None:
    """Write a file that does not exist yet, synced. The caller syncs the folder. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, access.files & 0o600)
    try:
        own_open(descriptor, access, folder=False)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)  # network file systems and quotas report at close: that is a fault like any other


def replace(path: Path, data: bytes, access: Access = PRIVATE) -> None:
    """Put `data` in the place of a file in one step: a reader, or a power cut, finds the old or the new. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        draft.unlink()  # of a process that had our number and died here
    try:
        write(draft, data, access)
        draft.rename(path)
    except BaseException:
        with suppress(OSError):  # the first fault is the one to tell
            draft.unlink()
        raise
    sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """`os.write` until everything is written. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def own_open(descriptor: int, access: Access, *, folder: bool) -> None:
    """The same for an open file or folder. Raises OSError."""
    if access.owner is not None and os.geteuid() == 0:
        os.fchown(descriptor, *access.owner)  # before the mode: chown clears set-gid
    os.fchmod(descriptor, access.folders if folder else access.files)
