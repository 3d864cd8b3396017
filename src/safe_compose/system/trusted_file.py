"""Trust in a file: who can have written it, or can replace it."""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

_MOST_LINKS = 40
"""Most symbolic links in one path, as many as Linux follows (path_resolution(7))."""
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
"""Also set for a file that an access list lets others write: its mask is in the group's bits
(acl(5))."""
_ACCESS_LIST = "system.posix_acl_access"
_KINDS = {
    stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrustedContent:
    """The content of a file, and why it must not be obeyed."""

    data: bytes | None
    """None where no content can be read: a pipe, a device, a file that is too large."""
    distrust: str | None = None
    """An explanation with the remedy; None: only its owner, this user or root can have written
    it."""


def read(path: Path, owners: Set[int], largest: int) -> TrustedContent | None:
    """Return the content of a file and whether users other than `owners` can have written it.

    Never waits for a pipe or a device, and reads the descriptor whose owner and mode it checked.
    Each folder from / on must be closed to others as well: in a folder that others may write to
    they can replace a file. In a sticky folder (/tmp) only our own entries count. Folders are
    checked from the top, so only the owners can exchange one that was checked.

    Group-writable counts as closed where the group is an owner's private one, as with umask 002 on
    Ubuntu and Fedora.

    Args:
        path: The file.
        owners: Ids of the users whose files are obeyed.
        largest: Bytes; a larger file is not read.

    Returns:
        None when the file does not exist.

    Raises:
        OSError: It exists and cannot be read.
    """
    try:
        real, entry, distrust, dangles = _walk(path, owners)
        if entry is None:
            return (
                TrustedContent(None, "it is behind a link that leads to nothing")
                if dangles
                else None
            )
        if stat.S_IFMT(entry.st_mode) in _KINDS:
            return TrustedContent(None, f"it is {_KINDS[stat.S_IFMT(entry.st_mode)]}, not a file")
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            return TrustedContent(None, "it is not a file")
        data = _content(descriptor, largest)
        distrust = distrust or _fault_of(path, found, descriptor, owners)
    finally:
        os.close(descriptor)
    if data is None:
        return TrustedContent(None, f"it is larger than {largest} bytes")
    return TrustedContent(data, distrust)


def _content(descriptor: int, largest: int) -> bytes | None:
    data = b""
    while len(data) <= largest and (piece := os.read(descriptor, largest + 1 - len(data))):
        data += piece
    return data if len(data) <= largest else None


def explain_unsafe(path: Path) -> str | None:
    """Explain who besides this user and root could change the entry at a path, or return None.

    The folders above it are judged as in `read`. A missing entry is as safe as the folder above it.
    """
    owners = frozenset({0, os.geteuid()})
    try:
        real, entry, distrust, _ = _walk(path, owners)
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}"
    if distrust is not None or entry is None:
        return distrust
    if entry.st_uid not in owners:
        return f"{real} belongs to {_name(entry.st_uid)}"
    if _is_writable_by_others(entry, real, owners):
        return f"others may write to {real} (mode {stat.S_IMODE(entry.st_mode):04o})"
    return None


def _walk(path: Path, owners: Set[int]) -> tuple[str, os.stat_result | None, str | None, bool]:
    """Follow a path from / on, and judge each folder.

    It ends at the first name that is missing, or that is no folder although more names follow.

    Returns:
        The path without symbolic links, the entry there or None, why a folder on the way must not
        be trusted, and whether a link leads to nothing.

    Raises:
        OSError: An entry cannot be examined, or there are more links than Linux follows.
    """
    at, entry, links, distrust = "/", os.lstat("/"), 0, None
    behind: list[int] = []
    """For each link, the number of names in the path that follow it."""
    # `resolve` would follow the links unseen
    pending = os.path.abspath(path).split("/")[:0:-1]  # noqa: PTH100
    while pending:
        name = pending.pop()
        if name in ("", "."):
            continue
        if not stat.S_ISDIR(entry.st_mode):
            return at, None, distrust, False
        if name == "..":
            at = os.path.dirname(at)  # noqa: PTH120  (`at` holds no symbolic link)
            entry = os.lstat(at)
            continue
        folder, here = entry, f"{at.rstrip('/')}/{name}"
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            dangles = any(len(pending) >= names for names in behind)
            return here, None, distrust or _fault_of_folder(at, folder, None, owners), dangles
        distrust = distrust or _fault_of_folder(at, folder, found, owners)
        if not stat.S_ISLNK(found.st_mode):
            at, entry = here, found
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = os.readlink(here)  # noqa: PTH115
        if target.startswith("/"):
            at, entry = "/", os.lstat("/")
        behind.append(len(pending))
        pending += target.split("/")[::-1]
    return at, entry, distrust, False


def _fault_of_folder(
    path: str, folder: os.stat_result, entry: os.stat_result | None, owners: Set[int]
) -> str | None:
    if folder.st_uid not in owners:
        return f"the folder {path} belongs to {_name(folder.st_uid)}"
    if not _is_writable_by_others(folder, path, owners):
        return None
    # In a sticky folder others can neither rename nor remove our entries, but they can put a second
    # name of one of our files there. Any user can create a missing entry.
    ours = (
        entry is not None
        and entry.st_uid in owners
        and not (stat.S_ISREG(entry.st_mode) and entry.st_nlink > 1)
    )
    if folder.st_mode & stat.S_ISVTX and ours:
        return None
    return f"others may write to the folder {path} (mode {stat.S_IMODE(folder.st_mode):04o})"


def _fault_of(path: Path, found: os.stat_result, descriptor: int, owners: Set[int]) -> str | None:
    if found.st_uid not in owners:
        return f"it belongs to {_name(found.st_uid)}"
    if _is_writable_by_others(found, descriptor, owners):
        return f"others may write to it (mode {stat.S_IMODE(found.st_mode):04o}): chmod go-w {path}"
    return None


def _is_writable_by_others(found: os.stat_result, at: str | int, owners: Set[int]) -> bool:
    """Return whether the mode of a file or folder lets users other than the owners write.

    `at` is its path without links, or its descriptor.
    """
    if not found.st_mode & _WRITABLE:
        return False
    return (
        bool(found.st_mode & stat.S_IWOTH)
        or not _is_private(found.st_gid, owners)
        or _has_access_list(at)
    )


def _is_private(gid: int, owners: Set[int]) -> bool:
    """Return whether a group is private to an owner.

    It must be the primary group of that user, with the same name and without other members.

    Never group 0, which `docker run --user 1000` gives to its process.
    """
    try:
        group = grp.getgrgid(gid)
        owner = pwd.getpwnam(group.gr_name)
    except KeyError:
        return False
    alone = set(group.gr_mem) <= {owner.pw_name} and all(
        u.pw_uid == owner.pw_uid for u in pwd.getpwall() if u.pw_gid == gid
    )
    return gid != 0 and owner.pw_uid in owners and owner.pw_gid == gid and alone


def _has_access_list(at: str | int) -> bool:
    """Return whether there is an access list, or it is unknown."""
    try:
        os.getxattr(at, _ACCESS_LIST)
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
    return True


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
