"""A dump of MySQL or MariaDB that anybody made: what it is, and how a person loads it beside what lives.

None is put in the place of a living database. Neither server can rename one; renaming its tables one by one leaves triggers,
views and routines behind (MariaDB: a table with triggers cannot change databases), and a part is worse than nothing.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from safe_compose.methods.mysql.scan import TRAILER

_KIND = re.compile(rb"-- (MariaDB|MySQL) dump ")
_SERVER = re.compile(rb"-- Server version\s+(\S+)")
_NAMED = re.compile(rb"-- Host: [^\n]*? Database: ([^\n]*)\n")
_CHOOSES = re.compile(rb"(?m)^(?:CREATE DATABASE /\*!32312 IF NOT EXISTS\*/ `(?:[^`]|``)+` [^\n]*|USE `((?:[^`]|``)+)`;)$")
"""The two lines with which a dump goes into a database of its own choice (mysqldump.c: init_dumping)."""
_WITHOUT = r"sed -E '/^CREATE DATABASE \/\*!32312 IF NOT EXISTS\*\/ `/d; /^USE `[^`]*`;$/d'"
_PLAIN = re.compile(r"[A-Za-z0-9_]+")
_HEAD, _END = 4096, 512
"""Bytes in which it says who made it, and in which its last line stands."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """What one says of itself."""

    title: str
    """`MariaDB 10.11.6`"""
    databases: tuple[str, ...]
    chooses: bool
    """It says itself which database it goes into, and so writes over the one of that name."""
    whole: bool
    """Its last line is there."""

    @property
    def words(self) -> str:
        of = f"of database{'s' * (len(self.databases) > 1)} {', '.join(self.databases)}" if self.databases else "of a database"
        return f"a dump {of} by {self.title}{'' if self.whole else ', cut off before its end'}"

    def next_step(self, path: Path, *, zipped: bool, container: str, password: str) -> str:
        """What a person types to load it under another name. password: the variable in the container that has root's."""
        if not self.whole:
            return "make the dump again; the client would take one that is cut without a word"
        if len(self.databases) > 1 or not self.databases or not _PLAIN.fullmatch(self.databases[0]):
            return "make a dump of the one database: mariadb-dump NAME, without --databases"
        new = f"{self.databases[0]}_restored"
        secret = f'MYSQL_PWD="${password}" ' if password else ""
        client = f'{secret}exec "$(command -v mariadb || command -v mysql)" -u root'
        makes = client + f' -e "CREATE DATABASE {new}"'
        made = f"docker exec {quote(container)} sh -c {quote(makes)}"
        source = f"gzip -dc {quote(str(path))}" if zipped else f"cat {quote(str(path))}"
        without = "" if not self.chooses else f" | {_WITHOUT}"
        loaded = f"{source}{without} | docker exec -i {quote(container)} sh -c {quote(client + ' ' + new)}"
        return f"load it beside the living one: {made} && {loaded}; then look at {new}, and have the service use it"


def said(blocks: Iterable[bytes]) -> Foreign:
    """Read it to its end."""
    head, tail, chosen, chooses = b"", b"", dict[str, None](), False
    for lines in _lines(blocks):
        head += lines[: _HEAD - len(head)]
        for found in _CHOOSES.finditer(lines):
            chooses = True
            if found[1] is not None:
                chosen[_text(found[1].replace(b"``", b"`"))] = None
        tail = (tail + lines)[-_END:]
    kind, server, named = (_text(m[1].strip()) if (m := p.search(head)) else "" for p in (_KIND, _SERVER, _NAMED))
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    databases = tuple(chosen) if chooses else (named,) if named else ()
    return Foreign(f"{kind or 'MySQL'} {server}".strip(), databases, chooses, TRAILER.fullmatch(last) is not None)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines, as many at a time as come."""
    rest = b""
    for block in blocks:
        head, end, tail = (rest + block).rpartition(b"\n")
        if end:
            yield head + end
        rest = tail
    if rest:
        yield rest
