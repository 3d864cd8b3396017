"""A private folder next to the backup in which copies of databases are checked."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safe_compose.core.backup import OWNER, WORKPLACE
from safe_compose.errors import OperationFailed
from safe_compose.system.process import Process
from safe_compose.volumes import encryption


class NotEnoughSpace(OperationFailed):
    """Copies cannot be written for a check."""


@contextmanager
def making_workplace(folder: Path, need: int) -> Iterator[Path]:
    """Make a private folder for `need` bytes next to the backup, and remove it after the block.

    User data lies nowhere else. The folder names its process, so that the store's next cleanup
    recognizes one that a killed run left. The system's temporary folder is used only if backups are
    encrypted (no plain data may lie next to them) or the store is not writable.

    Raises:
        NotEnoughSpace: The folder, or a file in it, cannot be written.
    """
    private = encryption.is_set() or not os.access(folder.parent, os.W_OK)
    try:
        with tempfile.TemporaryDirectory(
            prefix=WORKPLACE, dir=None if private else folder.parent
        ) as made:
            Path(made, OWNER).write_text(
                json.dumps({"process": Process.current().facts()}), "ascii"
            )
            yield Path(made)
    except OSError as error:
        where = (
            "in the system's temporary folder (or set TMPDIR to one with more)"
            if private
            else f"next to {folder}"
        )
        raise NotEnoughSpace(
            f"there is no space to inspect SQLite databases ({need >> 20} MiB are needed):"
            f" {error.strerror or error}",
            next_step=f"make room {where}",
        ) from error
