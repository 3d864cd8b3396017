"""Dump files of MySQL or MariaDB, and the commands to load one next to the current database.

None replaces a database in use. Neither server can rename a database; renaming its tables one by
one leaves triggers, views and routines behind (MariaDB: a table with triggers cannot change
databases), and a partial database is worse than none.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from safe_compose.databases.mysql.dump_scanner import TRAILER
from safe_compose.databases.mysql.statements import (
    CHOOSES,
    SANDBOX,
    StatementReader,
    UntrustedStatement,
)

_KIND = re.compile(rb"-- (MariaDB|MySQL) dump ")
_SERVER = re.compile(rb"-- Server version\s+(\S+)")
_NAMED = re.compile(rb"-- Host: [^\n]*? Database: ([^\n]*)\n")
_CHOOSES = re.compile(rb"(?m)^(?:" + CHOOSES.pattern + rb")$")
_WITHOUT = r"sed -E '/^CREATE DATABASE \/\*!32312 IF NOT EXISTS\*\/ `/d; /^USE `[^`]*`;$/d'"
OLDER_CLIENTS = r"LC_ALL=C sed '1{/^\/\*M*!999999\\- enable the sandbox mode/d;}'"
r"""Removes the line that makes a client run no program: a client that does not know it stops there,
with `Unknown command '\-'`. The option `--loose-sandbox` does the same, and is skipped by clients
that do not know it.
"""
_PLAIN = re.compile(r"[A-Za-z0-9_]+")
_LONGEST = 8 << 20
"""Bytes of a line that are kept in memory; a longer line holds rows."""
_HEAD, _END = 4096, 512
"""Bytes that contain the line about the dump program, and bytes that contain the last line."""


@dataclass(frozen=True, slots=True)
class ForeignDump:
    """A dump file of any source, by its own lines."""

    title: str
    """As in `MariaDB 10.11.6`."""
    databases: tuple[str, ...]
    chooses: bool
    """The dump selects its database itself, and so overwrites the one of that name."""
    whole: bool
    """The last line is there."""
    fault: str = ""
    """Why the dump does more than fill one database; empty if nothing of that kind was found."""
    programs: int = 0
    """Number of triggers, events and routines in the dump."""
    sandboxed: bool = False
    """The dump begins with the line that makes the client run no program."""

    @property
    def words(self) -> str:
        """A description of the dump for a message."""
        of = (
            f"of database{'s' * (len(self.databases) > 1)} {', '.join(self.databases)}"
            if self.databases
            else "of a database"
        )
        return f"a dump {of} by {self.title}{'' if self.whole else ', cut off before its end'}"

    def next_step(self, path: Path, *, zipped: bool, container: str, password: str) -> str:
        """Return the commands to load the dump under another name, or what to do instead.

        `password`: the variable in the container that holds root's password.
        """
        if not self.whole:
            return "make the dump again; the client would take one that is cut without a word"
        if self.fault:
            return (
                "look at that line; make the dump of one database, with mysqldump or mariadb-dump"
                " and no other options: NAME"
            )
        if len(self.databases) > 1 or not self.databases or not _PLAIN.fullmatch(self.databases[0]):
            return "make a dump of the one database: mariadb-dump NAME, without --databases"
        new = f"{self.databases[0]}_restored"
        secret = f'MYSQL_PWD="${password}" ' if password else ""
        client = (
            f'{secret}exec "$(command -v mariadb || command -v mysql)" --loose-sandbox'
            " --binary-mode -u root"
        )
        makes = client + f' -e "CREATE DATABASE {new}"'
        made = f"docker exec {quote(container)} sh -c {quote(makes)}"
        source = f"gzip -dc {quote(str(path))}" if zipped else f"cat {quote(str(path))}"
        without = f" | {OLDER_CLIENTS}" * self.sandboxed + f" | {_WITHOUT}" * self.chooses
        loaded = (
            f"{source}{without} | docker exec -i {quote(container)} sh -c"
            f" {quote(client + ' ' + new)}"
        )
        brings = (
            f"read its {self.programs} triggers, events and routines first, which run with their"
            " definers' rights; then "
        )
        steps = (
            f"load it next to the current one: {made} && {loaded}; then look at {new}, and have the"
            " service use it"
        )
        return brings * bool(self.programs) + steps


def summarize(blocks: Iterable[bytes]) -> ForeignDump:
    """Read a dump file to its end and describe it."""
    head, tail, chosen, chooses, reader, fault = (
        b"",
        b"",
        dict[str, None](),
        False,
        StatementReader(),
        "",
    )
    for lines in _lines(blocks):
        head += lines[: _HEAD - len(head)]
        for found in _CHOOSES.finditer(lines):
            chooses = True
            if found["used"] is not None:
                chosen[_text(found["used"].replace(b"``", b"`"))] = None
        tail = (tail + lines[-_END:])[-_END:]
        fault = fault or _read(reader, lines)
    fault = fault or _read(reader, None)
    kind, server, named = (
        _text(m[1].strip()) if (m := p.search(head)) else "" for p in (_KIND, _SERVER, _NAMED)
    )
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    databases = tuple(chosen) if chooses else (named,) if named else ()
    whole = TRAILER.fullmatch(last) is not None
    title, sandboxed = f"{kind or 'MySQL'} {server}".strip(), SANDBOX.match(head) is not None
    return ForeignDump(title, databases, chooses, whole, fault, reader.programs, sandboxed)


def _read(reader: StatementReader, lines: bytes | None) -> str:
    try:
        reader.finish() if lines is None else reader.feed(lines)
    except UntrustedStatement as fault:
        return str(fault)
    return ""


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield whole lines, as many at a time as a block holds."""
    rest: list[bytes] = []
    size = 0
    for block in blocks:
        head, end, tail = block.rpartition(b"\n")
        if end or size > _LONGEST:
            yield b"".join((*rest, head, end))
            rest, size = [], 0
        rest.append(tail)
        size += len(tail)
    if size:
        yield b"".join(rest)
