"""The file systems on which a database may lose what it wrote.

This module is pure.
"""

from collections.abc import Collection

from safe_compose.core.observed import IN_MEMORY

_SHARED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "davfs", "glusterfs", "lustre", "gfs2"}
)
_VIRTUAL = frozenset({"9p", "virtiofs", "vboxsf", "prl_fs", "vmhgfs", "drvfs"})
"""Folders of the machine around a virtual one; WSL has Windows' disks so."""
_PLAIN = frozenset({"vfat", "msdos", "exfat"})
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.lxcfs"})
_NO_BARRIER = frozenset({"nobarrier", "barrier=0"})


def explain_unsafe(type_: str, options: Collection[str] = ()) -> str | None:
    """Return why a database should not be on a file system, or None.

    PostgreSQL and SQLite count on fsync and on locks (PostgreSQL's manual, "File Systems"; SQLite's
    "How To Corrupt An SQLite Database File", section 2).

    Args:
        type_: The type, as in /proc/self/mountinfo.
        options: Its options there.
    """
    if type_ in IN_MEMORY:
        return "which is in memory: it ends when this machine restarts"
    if type_ in _SHARED:
        return "a network share, where locks and synced writes may not hold"
    if type_ in _VIRTUAL:
        return "a folder of another system, where locks and synced writes may not hold"
    if type_ in _PLAIN:
        return "which has no journal and no owners of files"
    if type_.startswith("fuse.") and type_ not in _LOCAL_FUSE:
        return "a file system of a program, where locks and synced writes may not hold"
    if _NO_BARRIER & set(options):
        return "mounted without write barriers, so that synced writes may be lost"
    return None
