"""A named pipe of this host, mounted into a helper: its bytes then go from kernel to kernel, not through the daemon.

The stream of an attached container costs the daemon, its shim and the client most of two cores, at some 250 MB/s; a pipe does
1.4 GB/s (lab.md, section 4, run). It needs a daemon that shares our file system and our kernel, which only trying can tell.
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
from pathlib import Path
from typing import IO, Any

AT = "/safe-compose.pipe"
"""Where a helper finds it. In no folder with a sticky bit: there the kernel may refuse it (sysctl fs.protected_fifos)."""
CAPACITY = 1 << 20
"""Bytes; what the kernel allows to everybody (pipe(7), pipe-max-size)."""
_LITTLE = 32 << 10
"""Bytes. What brings less at a time is left alone for a moment (`_Gathering`)."""
_NAP = 0.002
"""Seconds: too short for the pipe to fill up, which takes the fastest of those writers (pg_dump) four times as long."""
_SMALL = 64 << 10
"""Of the buffer for whoever reads lines; larger reads go by it."""
_LOOK = 0.1
"""Seconds after which it is looked again whether the helper still lives."""


class NeverOpened(Exception):
    """The helper has ended, or took too long, and not opened its side: no byte has gone through."""


class Pipe:
    """One pipe for one helper, in a folder that only we can enter; `remove` it in every outcome."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="safe-compose-")  # mkdtemp makes it 0700
        self.path = f"{self._folder}/pipe"
        try:
            os.mkfifo(self.path)
            Path(self.path).chmod(0o666)  # the helper may be any user, and has no capability to get around that
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take its name away; both sides that are open stay so."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def reader(self, ended: Callable[[], bool], patience: float | None) -> IO[bytes]:
        """Our side of a pipe that the helper writes into, once it does; its end comes when the helper closes its own.

        `ended` tells whether the helper has gone, `patience` is in seconds. Raises NeverOpened.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            large = _enlarge(descriptor)
            until = _end(patience)
            watched = select.poll()
            # Data, or the hang-up of somebody who had opened it: neither is there before anybody has (Linux, fs/pipe.c).
            watched.register(descriptor, select.POLLIN)
            while True:
                gone = ended()
                if watched.poll(0 if gone else _LOOK * 1000):
                    break
                if gone or time.monotonic() > until:
                    raise NeverOpened
            os.set_blocking(descriptor, True)
            return io.BufferedReader(_Gathering(descriptor) if large else io.FileIO(descriptor), _SMALL)
        except BaseException:
            os.close(descriptor)
            raise

    def writer(self, ended: Callable[[], bool], patience: float | None) -> IO[bytes]:
        """Our side of a pipe that the helper reads from, once it does; closing it is the end of its input. As `reader`."""
        until = _end(patience)
        while True:
            gone = ended()
            try:
                descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                break
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads yet
                    raise
            if gone or time.monotonic() > until:
                raise NeverOpened
            time.sleep(_LOOK / 10)  # opening is the only way to learn it; the end is bounded
        try:
            _enlarge(descriptor)
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "wb")
        except BaseException:
            os.close(descriptor)
            raise


class _Gathering(io.FileIO):
    """Our side of a large pipe that lets some more come after a little.

    A program that writes 4 KiB at a time, as pg_dump does, would wake us for each of them, and be itself put aside every time:
    that cost a fifth of a dump (run).
    """

    def readinto(self, buffer: Any, /) -> int | None:
        count = super().readinto(buffer)
        if count and count < _LITTLE:
            time.sleep(_NAP)
        return count


def _end(patience: float | None) -> float:
    return float("inf") if patience is None else time.monotonic() + patience


def _enlarge(descriptor: int) -> bool:
    """Whether it could be: a user with many pipes keeps the usual 64 KiB."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CAPACITY) >= CAPACITY
    return False
