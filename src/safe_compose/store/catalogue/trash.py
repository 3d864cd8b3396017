"""The trash of the store: a forgotten backup moves to `.trash` by one rename and is removed there.

The rename makes the backup disappear as a whole.
"""

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.errors import StateChanged
from safe_compose.store.catalogue.folder import COUNTER, TRASH, StoreFolder
from safe_compose.store.catalogue.reader import BackupReader
from safe_compose.system.files import reporting, sync_folder

if TYPE_CHECKING:
    from safe_compose.core.backup import Backup


class BackupTrash:
    """The removal of backups from a store."""

    def __init__(self, reader: BackupReader) -> None:
        """Remove backups from the store of this reader."""
        self._folder: StoreFolder = reader.folder
        self._reader = reader

    def forget(
        self, chosen: Collection[str], may_go: Callable[[Sequence["Backup"]], Collection[str]]
    ) -> list["Backup"]:
        """Move backups to the trash, each by one rename, also on a full disk.

        `finish_forgetting` then frees their space.

        Args:
            chosen: The paths of the backups.
            may_go: Returns the paths that may be forgotten, of all backups. It is called once more
                while no backup can be added or found broken.

        Returns:
            The forgotten backups.

        Raises:
            StateChanged: One may not be forgotten any more; then none was.
            OperationFailed: The store cannot be used or changed.
        """
        folder = self._folder
        folder.refuse_unsafe()
        with reporting(f"read {folder.root / COUNTER}"):
            folder.counter()
        with (
            folder.holding("store", must_sign=False),
            folder.holding("verification", must_sign=False),
        ):
            now = {b.path: b for b in self._reader.backups(bare=True)}
            allowed = may_go(list(now.values()))
            doubted = sorted(
                Path(path).name for path in chosen if path not in now or path not in allowed
            )
            if doubted:
                raise StateChanged(
                    f"the store has changed since the plan: {', '.join(doubted)} must be looked at"
                    " again; nothing was forgotten",
                    next_step="safe-compose forget --dry-run",
                )
            with reporting("take a backup out of the store"):
                folder.prepare_trash()
                for path in chosen:
                    take(folder.root, Path(path))
        return [now[path] for path in chosen]

    def finish_forgetting(self) -> int:
        """Remove the forgotten backups, also those of a killed run; return how many were removed.

        Raises:
            OperationFailed: One of them cannot be removed.
        """
        removed = 0
        with reporting(f"empty {self._folder.root / TRASH}"):
            for path in list_waiting(self._folder.root):
                # Lock for one backup at a time, so that others can number and name theirs in
                # between. One that is gone was removed by another run.
                with self._folder.holding("store", must_sign=False), suppress(FileNotFoundError):
                    remove(path)
                    removed += 1
        return removed


def take(root: Path, backup: Path) -> None:
    """Move a backup to the trash, synced to disk.

    Raises:
        OSError: The backup cannot be moved.
    """
    backup.rename(root / TRASH / f"{backup.name}-{os.urandom(4).hex()}")
    sync_folder(backup.parent)
    sync_folder(root / TRASH)


def list_waiting(root: Path) -> Iterator[Path]:
    """Yield the forgotten backups that are still on disk.

    Raises:
        OSError: The trash cannot be listed.
    """
    path = root / TRASH
    if path.is_symlink() or not path.is_dir():
        return
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries)
    yield from (path / name for name in names)


def remove(path: Path) -> None:
    """Remove one forgotten backup; of a symbolic link, only the link itself.

    Raises:
        OSError: It cannot be removed.
    """
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()
