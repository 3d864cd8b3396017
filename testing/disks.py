"""File systems that are too small, read-only, or lose their power. Needs root, as the engine does."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `path`, mode 0700, with mount's options (`size=3m`), for the
    length of a block.
    """
    path.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", path], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def mounting(image: Path, path: Path) -> Iterator[Path]:
    """The ext4 in a file, made where there is none, mounted at `path` for the length of a block. A
    copy of the file tells what would be left of it after a power cut: what the kernel still holds
    back is not in it.
    """
    if not image.exists():
        subprocess.run(["mke2fs", "-q", "-t", "ext4", image, "64m"], check=True)
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@contextmanager
def showing(folder: Path, path: Path) -> Iterator[Path]:
    """A folder of this machine, also at `path`, for the length of a block; nobody writes there.

    An engine that runs in a tree of packages (`tree_root`) has a /usr of its own at /usr.
    """
    path.mkdir()
    subprocess.run(["mount", "-o", "bind,ro", folder, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
        path.rmdir()
