"""The key that marks what a store creates on an engine.

With it, a store can tell its own objects from others with the same labels.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from safe_compose.errors import SafeComposeError
from safe_compose.system.files import (
    Access,
    acting_as_owner,
    make_folders,
    sync_folder,
    write,
)

_BYTES = 32


def mark_key(store: Path, access: Access, begin: Callable[[], None] | None) -> bytes | None:
    """Return the key of a store, created where there is none.

    Args:
        store: The folder of the store.
        access: Modes and owner of the store's files.
        begin: Creates the store. None: nothing may be written, so a key is only read.

    Returns:
        None where there is no key, or where others can read it. Then no leftover of a dead run is
        recognized as the store's own, and a person has to remove it.
    """
    path = store / "journal" / ".mark-key"
    with acting_as_owner(access):
        found = _read(path)
    if found is None and begin is not None:
        # an unusable store is reported by the code that needs it
        with suppress(OSError, SafeComposeError), acting_as_owner(access):
            begin()
            make_folders(path.parent, access)
            _create(path, access)
        with acting_as_owner(access):
            found = _read(path)
    return found


def _create(path: Path, access: Access) -> None:
    """Create the key in one step; one that another run has just created stays.

    Raises:
        OSError: It exists, or cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        draft.unlink()  # left by a process with the same number that died here
    try:
        write(draft, secrets.token_bytes(_BYTES), replace(access, files=0o600))
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            _require_absent(path)
            draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _require_absent(path: Path) -> None:
    """Require that nothing has the name, as a hard link would.

    Another run that creates the key between this and the rename loses its own: what it leaves
    behind when it dies is then a person's to remove.

    Raises:
        FileExistsError: Something has it.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        data = (
            os.read(descriptor, _BYTES + 1)
            if stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077
            else b""
        )
    finally:
        os.close(descriptor)
    return data if len(data) == _BYTES else None
