"""A program that checks SQLite databases that may be hostile, with limits of its resources.

It is run as a file (`python -I -S judge.py PARENT`), so it imports nothing but the standard
library. It reads one request per line on stdin (`{"path", "seconds", "bytes", "counts"}`) and
answers each with one line of JSON on stdout. The limits are of time, memory and file size. SQLite's
progress handler does not see the time within one step (one LIKE of one row): then the kernel ends
this process, and `check` starts another one.
"""

import json
import os
import re
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

MEMORY = 512 << 20
"""Bytes of address space; SQLite's heap gets half of it. A whole check of an intact database of a
terabyte needs 32 MiB.
"""
MOST_TABLES = 20_000
MOST_NAMES = 4 << 20
"""Largest total size in bytes of the table names that are returned."""
_STEPS = 20_000
"""Instructions of SQLite's virtual machine between two looks at the clock."""
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_OVER = (
    "interrupted",
    "out of memory",
    "string or blob too big",
    "database or disk is full",
    "disk I/O error",
    "too many",
    "too large",
    "parser stack overflow",
)
"""Parts of the errors of a database that reached one of our limits."""
_UNKNOWN = (
    "no such",
    "unknown",
    "unsupported file format",
    "not authorized",
    "unsafe use",
    "unsupported use of",
    "syntax error",
    "unrecognized token",
)
"""Parts of the errors of a database that is intact but needs functions, collations or modules of
its application, or a newer SQLite: its schema is read at each opening, and `->>` is a syntax error
up to SQLite 3.37.
"""
_UNSAFE_JSON = re.compile(r"unsafe use of (?:json\w*|->>?)\(\)")
"""SQLite 3.40's message about JSON in an untrusted schema, although JSON does no harm. The schema
is trusted then: no trigger and no view of it runs, and this process has no function that could do
more.
"""

_LIMITS = {
    "LENGTH": 128 << 20,
    "SQL_LENGTH": 1 << 20,
    "EXPR_DEPTH": 400,
    "VDBE_OP": 2_500_000,
    "ATTACHED": 0,
}
"""Limits for sqlite3_limit: more than a sound schema needs. LENGTH is that of one value: larger
ones are not read.
"""


def answer(path: str, seconds: float, parent: int, counts: Sequence[str] = ()) -> dict[str, Any]:
    """Check one database and count the rows of its tables.

    The database is a copy of ours: what a writer left in the files next to it is rolled back or
    written back. `counts` are queries of ours that each return one number.

    Returns:
        `tables` (name and rows of each) and the answers as `counts` (None where the database has no
        such table or column), or `fault` (why it is damaged), or `unsure` (why it cannot be checked
        here).
    """
    if _names_another_journal(path + "-journal"):
        return {"unsure": "it was left in the middle of a transaction over several databases"}
    until = time.monotonic() + seconds
    result = _judge(path, until, parent, counts, trusted=False)
    if _UNSAFE_JSON.search(result.get("unsure", "")):
        return _judge(path, until, parent, counts, trusted=True)
    return result


def _judge(
    path: str, until: float, parent: int, counts: Sequence[str], *, trusted: bool
) -> dict[str, Any]:
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as opened:
            opened.text_factory = lambda text: text.decode("utf-8", "backslashreplace")
            opened.set_progress_handler(
                lambda: time.monotonic() > until or os.getppid() != parent, _STEPS
            )
            _harden(opened)
            opened.execute(f"PRAGMA trusted_schema = {'ON' if trusted else 'OFF'}")
            return {
                **(result := _check(opened)),
                **({"counts": _answer_counts(opened, counts)} if "tables" in result else {}),
            }
    except MemoryError:
        return {"unsure": "it needs more memory than is given to such a check"}
    except (sqlite3.Error, OverflowError, ValueError) as error:
        words = " ".join(str(error).split())[:300]
        if any(over in words for over in _OVER):
            late = " in time" if "interrupted" in words else ""
            return {"unsure": f"the check was not finished{late}: {words}"}
        return (
            {"unsure": words} if any(unknown in words for unknown in _UNKNOWN) else {"fault": words}
        )


def _names_another_journal(path: str) -> bool:
    """Return whether a journal names a super-journal.

    To roll it back SQLite reads that file, wherever it is, and may remove it (pager.c,
    pager_delsuper).
    """
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_JOURNAL_MAGIC)))
            return size >= 16 and file.read() == _JOURNAL_MAGIC
    except FileNotFoundError:
        return False


def _harden(opened: sqlite3.Connection) -> None:
    for name, limit in _LIMITS.items():
        opened.setlimit(getattr(sqlite3, f"SQLITE_LIMIT_{name}"), limit)
    if hasattr(opened, "setconfig"):  # Python 3.12
        opened.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)  # type: ignore[attr-defined,unused-ignore]
        opened.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)  # type: ignore[attr-defined,unused-ignore]
    for setting in (
        "cell_size_check = ON",
        "mmap_size = 0",
        "temp_store = MEMORY",
        "recursive_triggers = OFF",
    ):
        opened.execute(f"PRAGMA {setting}")
    opened.execute(f"PRAGMA hard_heap_limit = {MEMORY // 2}")


def _check(opened: sqlite3.Connection) -> dict[str, Any]:
    answers = [str(row[0]) for row in opened.execute("PRAGMA integrity_check(3)")]
    if answers != ["ok"]:
        words = "; ".join(" ".join(line.split()) for line in answers)[:300]
        sure = not all(any(unknown in line for unknown in _UNKNOWN) for line in answers)
        return {"fault" if sure else "unsure": words}
    names = opened.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE"
        " 'sqlite\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name LIMIT"
        f" {MOST_TABLES + 1}"
    ).fetchall()
    if len(names) > MOST_TABLES or sum(len(name) for (name,) in names) > MOST_NAMES:
        return {"unsure": f"it has more than {MOST_TABLES} tables, or endless names"}
    tables = [[name, _count(opened, name)] for (name,) in names]
    opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return {"tables": tables}


def _answer_counts(opened: sqlite3.Connection, counts: Sequence[str]) -> list[int | None]:
    found: list[int | None] = []
    for query in counts:
        try:
            found.append(int(opened.execute(query).fetchone()[0]))
        except sqlite3.OperationalError as error:
            if "no such" not in str(error):
                raise
            found.append(None)
    return found


def _count(opened: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(opened.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])


def _limit(seconds: float, size: int) -> None:
    """Set the limits of this process for the next database.

    The limit of processor time is the time used so far plus the seconds of this database.
    """
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    wanted = {"CPU": int(used + seconds) + 2, "FSIZE": size, "AS": MEMORY, "CORE": 0}
    for name, limit in wanted.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            with suppress(ValueError, OSError):  # macOS has no effective RLIMIT_AS
                hard = resource.getrlimit(number)[1]
                resource.setrlimit(
                    number, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
                )


def main(parent: int) -> None:
    """Answer requests until stdin ends or the parent process is gone."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails, and SQLite reports it
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        _limit(asked["seconds"], asked["bytes"])
        result = answer(asked["path"], asked["seconds"], parent, asked.get("counts", ()))
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
