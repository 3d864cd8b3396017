"""Locks of the store: files that one process at a time holds and that name their holder."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.core.quantities import format_stamp
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.system.files import Access, acting_as_owner, read_regular, reporting, write_all
from safe_compose.system.process import Process, read_clock, stamp

if TYPE_CHECKING:  # 10 ms, and reading the store needs no lock
    from filelock import BaseFileLock

LARGEST = 1 << 20
"""Largest size in bytes of the holder's signature."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems without locks; network file systems differ in which one they return."""


@contextmanager
def holding(
    path: Path,
    what: str,
    *,
    access: Access,
    wait: float,
    command: Sequence[str] = (),
    must_sign: bool = True,
) -> Iterator[None]:
    """Hold the lock file at `path` during the block.

    The file stays: removing it would let two processes hold two files of the same name.

    Args:
        path: The lock file.
        what: The locked object, for the message.
        access: Modes and owner of the file.
        wait: Seconds to wait for the lock.
        command: The command of this process, already without secrets.
        must_sign: False for operations that free space: on a full disk the lock is held unsigned,
            so that others cannot see by whom.

    Raises:
        StateChanged: Another process, which the message names, holds the lock.
        OperationFailed: The file system has no locks, or the file cannot be written.
    """
    if not _acquire(lock := _lock(path, access, wait), what, access):
        raise StateChanged(
            f"another safe-compose holds {what}: {_holder(path)}; nothing was done",
            next_step="wait until it has ended, then run the command again",
        )
    try:
        with reporting(f"lock {what}"):
            try:
                _sign(path, access, command)
            except OSError as error:
                if must_sign or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
        yield
    finally:
        # the text only names the holder; the kernel holds the lock
        with suppress(OSError), acting_as_owner(access):
            os.truncate(path, 0)
        lock.release()


def try_hold(path: Path, *, access: Access) -> "BaseFileLock | None":
    """Take a lock without waiting and without signing it; None when it is held.

    Raises:
        OperationFailed: The lock file cannot be opened.
    """
    lock = _lock(path, access, 0)
    return lock if _acquire(lock, path.name, access) else None


def _lock(path: Path, access: Access, wait: float) -> "BaseFileLock":
    from filelock import FileLock

    # filelock's fallback, a lock by mere existence, would outlive a killed holder: prefer no lock
    # at all.
    return FileLock(path, timeout=wait, mode=access.files, fallback_to_soft=False)


def _acquire(lock: "BaseFileLock", what: str, access: Access) -> bool:
    from filelock import Timeout

    with reporting(f"lock {what}"):
        try:
            with acting_as_owner(access):
                lock.acquire()
        # Timeout is an OSError; RuntimeError: this very thread holds it
        except (Timeout, RuntimeError):
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), lock.lock_file) from error
            raise
    return True


def read_holder(path: Path) -> Process | None:
    """Return the process that signed a lock file last; None when it is unsigned or damaged.

    Raises:
        OperationFailed: The file cannot be read.
    """
    found = _read(path).get("process")
    return Process.read(found) if isinstance(found, dict) else None


def _sign(path: Path, access: Access, command: Sequence[str]) -> None:
    text = json.dumps(
        {
            "process": Process.current().facts(),
            "since": stamp(read_clock()),
            "command": list(command),
        }
    )
    with acting_as_owner(access):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if access.owner is not None and os.geteuid() == 0:
            os.fchown(descriptor, *access.owner)
        write_all(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(read_regular(path, LARGEST))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OperationFailed(f"cannot read the lock {path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        return {}  # just being written, or damaged: it names no holder
    return found if isinstance(found, dict) else {}


def _holder(path: Path) -> str:
    signature, process = _read(path), read_holder(path)
    if process is None:
        return "it has not said who it is"
    words = signature.get("command")
    command = (
        " ".join(str(word) for word in words)
        if isinstance(words, list) and words
        else "an unnamed command"
    )
    since = format_stamp(str(signature.get("since", "?")))
    host = f" on {process.host}" if process.host != os.uname().nodename else ""
    return f"process {process.pid}{host}, `{command}`, since {since}"
