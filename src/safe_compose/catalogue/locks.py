"""Locks of the store: files that one process at a time holds, and that say who it is."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.durable import Access, told, write_all
from safe_compose.errors import BackupFailed, LookAgain
from safe_compose.process import Process, stamp, utc_now

if TYPE_CHECKING:  # 10 ms, and reading the store needs no lock
    from filelock import BaseFileLock

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks answers: network file systems differ in the word."""


@contextmanager
def held(
    path: Path, what: str, *, access: Access, wait: float, command: Sequence[str] = (), must_sign: bool = True
) -> Iterator[None]:
    """Hold the lock file at `path` during the block.

    what: what is locked, in words, for the message. wait: seconds. command: who we are, already without secrets.
    must_sign: False for what makes room: on a full disk it is held unsigned, and others are not told by whom.
    Raises LookAgain that names the holder, BackupFailed where the file system has no locks. The file stays: removing it
    would let two processes hold two files of one name.
    """
    if not _acquired(lock := _lock(path, access, wait), what):
        raise LookAgain(
            f"another safe-compose holds {what}: {_holder(path)}; nothing was done",
            next_step="wait until it has ended, then run the command again",
        )
    try:
        with told(f"lock {what}"):
            try:
                _sign(path, access, command)
            except OSError as error:
                if must_sign or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
        yield
    finally:
        with suppress(OSError):  # only who holds it is told by the text, not whether it is held
            os.truncate(path, 0)
        lock.release()


def try_hold(path: Path, *, access: Access) -> "BaseFileLock | None":
    """Take a lock without waiting and without signing it; None when it is held. Raises BackupFailed."""
    lock = _lock(path, access, 0)
    return lock if _acquired(lock, path.name) else None


def _lock(path: Path, access: Access, wait: float) -> "BaseFileLock":
    from filelock import FileLock

    # A lock by mere existence, filelock's fallback, would outlive a killed holder: rather no lock than that one.
    return FileLock(path, timeout=wait, mode=access.files, fallback_to_soft=False)


def _acquired(lock: "BaseFileLock", what: str) -> bool:
    from filelock import Timeout

    with told(f"lock {what}"):
        try:
            lock.acquire()
        except (Timeout, RuntimeError):  # Timeout is an OSError; RuntimeError: this very thread holds it
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), lock.lock_file) from error
            raise
    return True


def signer(path: Path) -> Process | None:
    """The process that signed a lock file last; None when it is not signed or damaged."""
    found = _read(path).get("process")
    return Process.read(found) if isinstance(found, dict) else None


def _sign(path: Path, access: Access, command: Sequence[str]) -> None:
    text = json.dumps({"process": Process.current().facts(), "since": stamp(utc_now()), "command": list(command)})
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if access.owner is not None and os.geteuid() == 0:
            os.fchown(descriptor, *access.owner)
        write_all(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BackupFailed(f"cannot read the lock {path}: {error.strerror}") from error
    except ValueError:
        return {}  # being written this moment, or damaged: it then names nobody
    return found if isinstance(found, dict) else {}


def _holder(path: Path) -> str:
    said, process = _read(path), signer(path)
    if process is None:
        return "it has not said who it is"
    words = said.get("command")
    command = " ".join(str(word) for word in words) if isinstance(words, list) and words else "an unnamed command"
    host = f" on {process.host}" if process.host != os.uname().nodename else ""
    return f"process {process.pid}{host}, `{command}`, since {said.get('since', '?')}"
