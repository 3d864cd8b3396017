"""Private files that survive a power cut.

They have a fixed mode whatever the umask, are synced, and are replaced in one step.
"""

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import replace as replace_in
from pathlib import Path

from safe_compose.errors import OperationFailed

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

MAKE_SPACE = "make room there, or set SAFE_COMPOSE_HOME to a folder with more room"
"""The next step where the store's disk is full."""
_NEXT_STEPS = {
    errno.ENOSPC: MAKE_SPACE,
    errno.EDQUOT: MAKE_SPACE,
}


@dataclass(frozen=True, slots=True)
class Access:
    """The modes and the owner of files that are written."""

    folders: int = 0o700
    files: int = 0o600
    owner: tuple[int, int] | None = None
    """uid and gid of everything that is written; None: the running user."""
    acts: bool = False
    """Whether files are written with the owner's rights alone: that user named the folder, and root
    runs."""


PRIVATE = Access()
SHARED = Access(folders=0o2770, files=0o660)


@contextmanager
def acting_as_owner(access: Access) -> Iterator[None]:
    """Give this thread only the owner's rights for files during the block.

    It has an effect only where `access` says so and root runs. A user who calls sudo names the
    store, and may put a link into it at any moment: with that user's own rights it leads nowhere
    else. Only the rights for files change (setfsuid), and only of this thread: the engine's socket
    is used, and children run, as root.
    """
    if not access.acts or access.owner is None or os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    before = libc.setfsgid(access.owner[1]), libc.setfsuid(access.owner[0])
    if libc.setfsuid(-1) != access.owner[0]:
        raise PermissionError(errno.EPERM, "the rights of the invoking user cannot be taken on")
    try:
        yield
    finally:
        libc.setfsuid(before[1])
        libc.setfsgid(before[0])


def explain_error(error: OSError) -> str:
    """Return the cause of a file error in words."""
    return _CAUSES.get(error.errno or 0, error.strerror or type(error).__name__)


@contextmanager
def reporting(doing: str) -> Iterator[None]:
    """Turn a file error inside the block into OperationFailed.

    Its message is "cannot DOING: no space is left on that file system (PATH)".
    """
    try:
        yield
    except OSError as error:
        where = (
            f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
        )
        step = _NEXT_STEPS.get(
            error.errno or 0, "correct that, or set SAFE_COMPOSE_HOME to another folder"
        )
        raise OperationFailed(
            f"cannot {doing}: {explain_error(error)}{where}", next_step=step
        ) from error


def sync_folder(path: Path) -> None:
    """Force the names in a folder to disk.

    Raises:
        OSError: The folder cannot be synced.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_real_path(path: str | Path) -> str:
    """Return a path without symbolic links, as far as that can be seen.

    Never raises: others name the path, and pathlib raises an error for a name that is too long, has
    a loop of links, or lies in another user's home.
    """
    text = str(path)
    return text if "\0" in text else os.path.realpath(text)


def make_folder(path: Path, access: Access = PRIVATE) -> None:
    """Create a folder with exactly the mode of `access` and sync its parent.

    Raises:
        FileExistsError: It exists.
        OSError: It cannot be created.
    """
    with acting_as_owner(access):
        path.mkdir(mode=0o700)
        path.chmod(0o700)  # under a umask that removes all bits it could not even be opened below
        set_owner(path, access, folder=True)
        sync_folder(path.parent)


def make_folders(path: Path, access: Access = PRIVATE) -> None:
    """Create a folder and its missing parents; do nothing when it exists.

    Raises:
        OSError: A folder cannot be created.
    """
    for missing in reversed([p for p in (path, *path.parents) if not os.path.lexists(p)]):
        with suppress(FileExistsError):  # another run has just created it
            make_folder(
                missing,
                access if missing == path else replace_in(access, folders=0o700, files=0o600),
            )


def set_owner(path: Path, access: Access, *, folder: bool) -> None:
    """Set mode and owner of one file or folder, whatever the umask was.

    A symbolic link is never followed.

    Raises:
        OSError: The file cannot be opened or changed.
    """
    flags = (
        os.O_RDONLY
        | os.O_NOFOLLOW
        | os.O_CLOEXEC
        | os.O_NONBLOCK
        | (os.O_DIRECTORY if folder else 0)
    )
    descriptor = os.open(path, flags)
    try:
        set_owner_of_open(descriptor, access, folder=folder)
    finally:
        os.close(descriptor)


def place_on_its_file_system(path: Path) -> str:
    """Return a path below the root of its own file system.

    Empty where the kernel does not report it.

    In a container that is the path on the host's disk (proc_pid_mountinfo(5), the fields `root` and
    `mount point`).
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    found, longest = "", -1
    for fields in (
        line.split(" ") for line in mounts.split("\n") if line
    ):  # a name may hold what else ends a line of text
        root, at = (
            re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)
            for field in fields[3:5]
        )
        if len(at) >= longest and path.is_relative_to(at):
            found, longest = f"{root.rstrip('/')}/{path.relative_to(at)}", len(at)
    return found.removesuffix("/.")


LARGEST_TEXT = 64 << 20
"""Most bytes of one of our files that is read at once."""


def read_regular(path: str | Path, largest: int = LARGEST_TEXT) -> bytes:
    """Return the bytes of a regular file.

    A symbolic link is not followed, a pipe or device not waited for.

    Raises:
        OSError: It cannot be read, or has more than `largest` bytes (EFBIG).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            raise OSError(
                errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL,
                "it is no regular file",
                str(path),
            )
        data = file.read(largest + 1)
        while len(data) <= largest and (more := file.read(largest + 1 - len(data))):
            data += more
        if len(data) > largest:
            raise OSError(errno.EFBIG, "it is larger than any file of ours", str(path))
        return data


def open_below(folder: str | Path, name: str, *, single: bool = False) -> int:
    """Return a descriptor of a regular file below a folder.

    No symbolic link below the folder is followed, no pipe or device waited for.

    Args:
        folder: The folder.
        name: The path below it: relative, `/` separated, without `..`.
        single: Also refuse a file that has a second name (a hard link).

    Raises:
        OSError: It cannot be opened, or is no such file.
    """
    *folders, file = name.split("/")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = os.open(
                part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at
            )
            os.close(at)
            at = below
        descriptor = os.open(
            file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at
        )
    finally:
        os.close(at)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or (single and found.st_nlink > 1):
        os.close(descriptor)
        raise OSError(
            errno.EINVAL,
            "it is no regular file of its own (a link, a pipe or a device)",
            f"{folder}/{name}",
        )
    return descriptor


def read_own(path: Path, largest: int) -> bytes:
    """Return the bytes of a regular file that belongs to this user alone.

    Raises:
        PermissionError: It has another owner, others may read or write it, or it has a second name.
        OSError: It is a link, pipe or device, or has more than `largest` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > largest:
            raise OSError(errno.EINVAL, "it is no regular file of that size", str(path))
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or found.st_nlink != 1:
            raise PermissionError(errno.EPERM, "it is not ours alone", str(path))
        return file.read(largest + 1)


def write(path: Path, data: bytes, access: Access = PRIVATE) -> None:
    """Write a file that does not exist yet, synced; the caller syncs the folder.

    Raises:
        OSError: It exists, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with acting_as_owner(access):
        descriptor = os.open(path, flags, access.files & 0o600)
    try:
        set_owner_of_open(descriptor, access, folder=False)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)  # network file systems and quotas report errors at close


def replace(path: Path, data: bytes, access: Access = PRIVATE) -> None:
    """Replace a file in one step: a reader, or a power cut, finds the old or the new content.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    with acting_as_owner(access):
        with suppress(FileNotFoundError):
            draft.unlink()  # left by a process with the same number that died here
        try:
            write(draft, data, access)
            draft.rename(path)
        except BaseException:
            with suppress(OSError):  # report the first error
                draft.unlink()
            raise
        sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, with as many calls of `os.write` as needed.

    Raises:
        OSError: They cannot be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def set_owner_of_open(descriptor: int, access: Access, *, folder: bool) -> None:
    """Set mode and owner of an open file or folder.

    In a shared store it may be that of another member, who alone could set its mode again.

    Raises:
        OSError: They cannot be changed.
    """
    if access.owner is not None and os.geteuid() == 0:
        os.fchown(descriptor, *access.owner)  # before the mode: chown clears set-gid
    mode = access.folders if folder else access.files
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        os.fchmod(descriptor, mode)
