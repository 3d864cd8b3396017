"""Checks of SQLite databases that may be hostile, in a child process that can be killed."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safe_compose.core.backup import TableCount
from safe_compose.databases.sqlite import judge
from safe_compose.fastpath.layer_data import SQLITE_LOGS

SECONDS = 15.0
"""Time limit for the check of one database, besides the time for its bytes."""
TOTAL_SECONDS = 90.0
"""Time limit for all databases of one volume: services may be stopped meanwhile."""
BYTES_A_SECOND = 8 << 20
"""Read rate of a slow disk; larger databases get more time."""
_FILE_SLACK = 64 << 20
_ANSWER_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class JudgedDatabase:
    """The findings of this host's SQLite about one database."""

    tables: tuple[TableCount, ...]
    fault: str | None = None
    """Why the database is damaged: the first words of `PRAGMA integrity_check`."""
    unsure: str | None = None
    """Why the database cannot be checked here."""
    counts: tuple[int | None, ...] = ()
    """Result of each additional query; None if the database has no such table or column."""

    @property
    def rows(self) -> int:
        """Number of rows in all tables."""
        return sum(t.rows for t in self.tables)


class _Ended(Exception):
    """The child process did not answer; the message says why."""


class Checker:
    """A checker of databases in a child process, which is restarted if a database ended it.

    It is a context manager: leaving it, also by an exception, kills the child at once.
    """

    def __init__(self, *, seconds: float = SECONDS, total: float = TOTAL_SECONDS) -> None:
        """Set the time limits in seconds, for one database and for all together."""
        self._seconds = seconds
        self._left = total
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Return the checker; the child process starts with the first database."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill the child process."""
        self._end()

    def judge(self, path: Path, counts: Sequence[str] = ()) -> JudgedDatabase:
        """Check a database and count the rows of its tables.

        The database is a copy of ours: a journal or log next to it is rolled back or written back
        into it. `counts` are queries of ours that each return one number. The content of the
        database never makes this raise.
        """
        size = sum(
            at.stat().st_size
            for at in (path, *(Path(f"{path}{end}") for end in SQLITE_LOGS))
            if at.exists()
        )
        extra = size / BYTES_A_SECOND
        if self._left <= 0:
            return JudgedDatabase(
                (), unsure="the time for checks of this volume's databases is over"
            )
        begun = time.monotonic()
        try:
            result = self._ask_child(path, min(self._seconds, self._left) + extra, size, counts)
        except _Ended as reason:
            self._end()
            return JudgedDatabase((), unsure=f"the check was not finished: {reason}")
        finally:
            self._left -= max(0.0, time.monotonic() - begun - extra)
        return _parse_result(result)

    def _ask_child(self, path: Path, seconds: float, size: int, counts: Sequence[str]) -> object:
        if self._child is None or self._child.poll() is not None:
            self._child = _start()
        asked = {
            "path": str(path),
            "seconds": seconds,
            "bytes": size + _FILE_SLACK,
            "counts": list(counts),
        }
        child = self._child
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            raise _Ended(_explain_end(child)) from None
        line = _line(child, time.monotonic() + seconds + 5)
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise _Ended("its answer does not read") from None

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _start() -> subprocess.Popen[bytes]:
    # Its own process group: a Ctrl-C at the terminal is handled by us. Without site packages it
    # starts in 20 ms.
    argv = [sys.executable, "-I", "-S", str(Path(judge.__file__).resolve()), str(os.getpid())]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd="/", process_group=0
    )


def _line(child: subprocess.Popen[bytes], until: float) -> bytes:
    """Return one line of the child's answer.

    Raises:
        _Ended: The child died, or was silent until the time limit.
    """
    assert child.stdout is not None
    parts: list[bytes] = []
    size = 0
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while not parts or not parts[-1].endswith(b"\n"):
            if not ready.select(max(0.0, until - time.monotonic())):
                raise _Ended("it took too long")
            parts.append(os.read(child.stdout.fileno(), 1 << 16))
            if not parts[-1]:
                raise _Ended(_explain_end(child))
            size += len(parts[-1])
            if size > _ANSWER_LIMIT:
                raise _Ended("its answer is endless")
    return b"".join(parts)


def _explain_end(child: subprocess.Popen[bytes]) -> str:
    """Describe why a child process ended."""
    code = child.wait()
    if code == -signal.SIGXCPU:
        return "it took too long"
    return (
        f"the process that checked it ended by signal {-code}"
        if code < 0
        else f"the process that checked it ended with {code}"
    )


def _parse_result(result: Any) -> JudgedDatabase:
    fault, unsure = result.get("fault"), result.get("unsure")
    tables = tuple(TableCount("", str(name), int(rows)) for name, rows in result.get("tables", ()))
    counts = tuple(None if number is None else int(number) for number in result.get("counts", ()))
    return JudgedDatabase(
        tables,
        str(fault) if fault is not None else None,
        str(unsure) if unsure is not None else None,
        counts,
    )
