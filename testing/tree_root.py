"""Run a program whose root folder is a tree of another Debian release: that release's dockerd.

python3 testing/tree_root.py TREE PROGRAM [ARGUMENT...]        (as root)

The program's binaries, libraries and /etc are the tree's. All other folders are the machine's, at
the same paths, and mounts in them are shared both ways: what a test mounts is seen by the engine, and
what the engine mounts by the test, as with an engine of the machine itself.

It must be pivot_root in a mount namespace of its own. With `chroot` a dockerd starts as well, but it
cannot load images ("remount /, flags: 0x84000: invalid argument"), and its `docker exec` ends up in
the root of the machine (tried with 28.5.2).
"""

import ctypes
import os
import sys
from pathlib import Path

TREE_FOLDERS = frozenset({"bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr"})
"""Not taken from the machine. `/lost+found` and links such as /bin are not taken either."""

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
AT_FDCWD = -100
OPEN_TREE_CLONE, AT_RECURSIVE = 1, 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 4
SYS_OPEN_TREE, SYS_MOVE_MOUNT = 428, 429
"""On every architecture; glibc has functions for them since 2.36 only."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(answer: int, what: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return answer


def _mount(source: str | None, target: Path, flags: int) -> None:
    origin = source.encode() if source is not None else None
    answer = _libc.mount(origin, os.fsencode(target), None, ctypes.c_ulong(flags), None)
    _check(answer, f"mount {target}")


def _clone(folder: Path) -> int:
    """Return a detached copy of the mounts at `folder`, which shares what its original shares."""
    flags = OPEN_TREE_CLONE | AT_RECURSIVE
    answer = _libc.syscall(
        ctypes.c_long(SYS_OPEN_TREE), AT_FDCWD, os.fsencode(folder), ctypes.c_uint(flags)
    )
    return _check(answer, f"open_tree {folder}")


def _attach(mounts: int, target: Path) -> None:
    flags = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)
    answer = _libc.syscall(
        ctypes.c_long(SYS_MOVE_MOUNT), mounts, b"", AT_FDCWD, os.fsencode(target), flags
    )
    _check(answer, f"move_mount {target}")
    os.close(mounts)


def machine_folders() -> list[Path]:
    """The folders of the machine's root that the program sees as they are."""
    return [
        folder
        for folder in sorted(Path("/").iterdir())
        if folder.name not in TREE_FOLDERS | {"lost+found"}
        and folder.is_dir()
        and not folder.is_symlink()
    ]


def enter(tree: Path) -> None:
    """Make `tree` the root of this process, in a mount namespace of its own."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    folders = {folder: _clone(folder) for folder in machine_folders()}
    # Only now: a copy of a mount that is private would be private too.
    _mount(None, Path("/"), MS_REC | MS_PRIVATE)
    _mount(str(tree), tree, MS_BIND)
    for folder, mounts in folders.items():
        target = tree / folder.name
        target.mkdir(exist_ok=True)
        _attach(mounts, target)
    resolver, own = Path("/etc/resolv.conf"), tree / "etc" / "resolv.conf"
    if resolver.exists():
        own.touch()
        _mount(str(resolver.resolve()), own, MS_BIND)
    os.chdir(tree)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


if __name__ == "__main__":
    enter(Path(sys.argv[1]).resolve())
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.execvp(sys.argv[2], sys.argv[2:])
