"""A named pipe of this host, mounted into a helper, so that its bytes do not go through the daemon.

The stream of an attached container costs the daemon, its shim and the client most of two cores, at
some 250 MB/s; a pipe does 1.4 GB/s (lab.md, section 4, run). It needs a daemon that shares our file
system and our kernel, which only trying can show.
"""

import contextlib
import errno
import fcntl
import io
import os
import select
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

AT = "/safe-compose.pipe"
"""The pipe's path in a helper. It is not in a folder with a sticky bit, where the kernel may refuse
it (sysctl fs.protected_fifos)."""
CAPACITY = 1 << 20
"""Bytes; the size that the kernel allows every user (pipe(7), pipe-max-size)."""
_LITTLE = 32 << 10
"""Bytes; after a smaller read, the reader pauses (`_Gathering`)."""
_NAP = 0.002
"""Seconds; too short for the pipe to fill up, which takes the fastest of those writers (pg_dump)
four times as long."""
_SMALL = 64 << 10
"""Size of the buffer for readers of lines; larger reads bypass it."""
_LOOK = 0.1
"""Seconds between checks whether the helper still runs."""


class NeverOpened(Exception):
    """An error about a helper that never opened its side of a pipe; no byte was transferred."""


Ending = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""Makes a block that another thread may end, by the function that it is given."""


def never_end(_: Callable[[], None]) -> AbstractContextManager[None]:
    """Return a block that no other thread ends."""
    return nullcontext()


class Pipe:
    """A pipe for one helper, in a private folder; call `remove` in every outcome."""

    def __init__(self) -> None:
        """Create the pipe."""
        self._folder = tempfile.mkdtemp(prefix="safe-compose-")  # mkdtemp makes it 0700
        self.path = f"{self._folder}/pipe"
        try:
            os.mkfifo(self.path)
            # the helper may run as any user, without a capability to bypass the mode
            Path(self.path).chmod(0o666)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove the pipe's name; sides that are open stay open."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def reader(self, ended: Callable[[], bool], patience: float | None) -> IO[bytes]:
        """Return our side of a pipe that the helper writes into, once it does.

        The stream ends when the helper closes its side.

        Args:
            ended: Tells whether the helper has ended.
            patience: Seconds to wait; None: without limit.

        Raises:
            NeverOpened: The helper ended, or took too long, without opening its side.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            large = _enlarge(descriptor)
            until = _end(patience)
            watched = select.poll()
            # Data, or the hang-up of a process that had opened it: neither exists before (Linux,
            # fs/pipe.c).
            watched.register(descriptor, select.POLLIN)
            while True:
                gone = ended()
                if watched.poll(0 if gone else _LOOK * 1000):
                    break
                if gone or time.monotonic() > until:
                    raise NeverOpened
            os.set_blocking(descriptor, True)
            return io.BufferedReader(
                _Gathering(descriptor) if large else io.FileIO(descriptor), _SMALL
            )
        except BaseException:
            os.close(descriptor)
            raise

    def writer(self, ended: Callable[[], bool], patience: float | None) -> IO[bytes]:
        """Return our side of a pipe that the helper reads from, once it does.

        Closing it ends the helper's input.

        Args:
            ended: Tells whether the helper has ended.
            patience: Seconds to wait; None: without limit.

        Raises:
            NeverOpened: The helper ended, or took too long, without opening its side.
        """
        until = _end(patience)
        while True:
            gone = ended()
            try:
                descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                break
            except OSError as error:
                if error.errno != errno.ENXIO:  # no reader yet
                    raise
            if gone or time.monotonic() > until:
                raise NeverOpened
            time.sleep(_LOOK / 10)  # only an attempt to open can show it; the wait is bounded
        try:
            _enlarge(descriptor)
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "wb")
        except BaseException:
            os.close(descriptor)
            raise


class _Gathering(io.FileIO):
    """A reader of a large pipe that pauses after a small read so that more data arrives.

    A program that writes 4 KiB at a time, as pg_dump does, would wake us for each write, and be
    suspended itself every time: that cost a fifth of a dump (run).
    """

    def readinto(self, buffer: Any, /) -> int | None:
        """Read into the buffer, and pause if it was little."""
        count = super().readinto(buffer)
        if count and count < _LITTLE:
            time.sleep(_NAP)
        return count


def _end(patience: float | None) -> float:
    return float("inf") if patience is None else time.monotonic() + patience


def _enlarge(descriptor: int) -> bool:
    """Enlarge a pipe; return whether that worked.

    A user with many pipes keeps the usual 64 KiB.
    """
    with contextlib.suppress(OSError):
        return fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CAPACITY) >= CAPACITY
    return False
