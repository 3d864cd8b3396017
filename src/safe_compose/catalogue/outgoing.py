"""The way out: a backup leaves by one rename into `.trash`, so that it is there whole or not at all, and is removed there."""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from safe_compose.durable import Access, make_folder, sync_folder
from safe_compose.errors import BackupFailed

NAME = ".trash"


def prepare(root: Path, access: Access) -> None:
    """Make the folder, while there is room for it. Raises OSError, BackupFailed when something else has its name."""
    path = root / NAME
    try:
        make_folder(path, access)
    except FileExistsError as error:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise BackupFailed(
                f"{path} is no folder; nothing was forgotten", next_step=f"look at it, then move it away: mv {path} {path}.odd"
            ) from error


def take(root: Path, backup: Path) -> None:
    """Take a backup out of the store. On disk when this returns. Raises OSError."""
    backup.rename(root / NAME / f"{backup.name}-{secrets.token_hex(4)}")
    sync_folder(backup.parent)
    sync_folder(root / NAME)


def waiting(root: Path) -> Iterator[Path]:
    """What was taken out and is still on the disk. Raises OSError."""
    path = root / NAME
    if path.is_symlink() or not path.is_dir():
        return
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries)
    yield from (path / name for name in names)


def remove(path: Path) -> None:
    """Remove one of those. A symbolic link goes itself, never what it leads to. Raises OSError."""
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()
