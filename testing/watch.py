"""The command lines of every process of this machine, while something runs that must not show a
secret there.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_YOUNG = 3.0
"""Seconds in which a process is looked at again and again: between fork and exec it has another's
command line.
"""
_ROUND = 0.25
"""Seconds after which everybody is looked at again."""


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Every command line that any process of this machine has during the block, for more than a few
    milliseconds.
    """
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        first: dict[str, float] = {}
        everybody = 0.0
        while not over.wait(0.003):
            now = time.monotonic()
            whole = now >= everybody
            if whole:
                everybody = now + _ROUND
            there = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
            first = {name: first.get(name, now) for name in there}
            for name in there:
                if whole or now - first[name] < _YOUNG:
                    with suppress(OSError):
                        seen.add(Path("/proc", name, "cmdline").read_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
