"""The store of backups on disk: one folder per backup, which appears by one rename.

- `folder`       its folder, safe and locked (`locks`)
- `reader`       the backups in it, listed (`index`), found and read (`schema`)
- `writer`       adds backups and later findings; `draft` is a backup in the making, and `manifest`
                 and `restore_md` write the files that describe it
- `trash`        takes backups out
- `protections`  which volumes are protected
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from safe_compose.store.catalogue.draft import Draft, IncomingCopy
from safe_compose.store.catalogue.folder import FreeSpace, StoreFolder, measure_free_space
from safe_compose.store.catalogue.protections import ProtectionRegistry
from safe_compose.store.catalogue.reader import BackupReader, read_copy
from safe_compose.store.catalogue.trash import BackupTrash
from safe_compose.store.catalogue.writer import BackupWriter
from safe_compose.system.files import PRIVATE, Access
from safe_compose.system.process import read_clock

__all__ = ["Catalogue", "Draft", "FreeSpace", "IncomingCopy", "measure_free_space", "read_copy"]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """A store of backups.

    Reading works for one that does not exist; writing begins with `folder.ensure`.
    """

    folder: StoreFolder
    reader: BackupReader
    writer: BackupWriter
    trash: BackupTrash
    protections: ProtectionRegistry

    @classmethod
    def at(
        cls, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = read_clock
    ) -> Self:
        """Return the store in a folder."""
        folder = StoreFolder(root, access, clock=clock)
        reader = BackupReader(folder)
        return cls(
            folder, reader, BackupWriter(reader), BackupTrash(reader), ProtectionRegistry(folder)
        )

    @property
    def root(self) -> Path:
        """Return the folder of the store."""
        return self.folder.root
