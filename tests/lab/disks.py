"""File systems that are too small, or read-only. Needs root, as the engine does."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `path`, mode 0700, with mount's options (`size=3m`), for the length of a block."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
