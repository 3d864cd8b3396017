"""What a plain dump says about itself, learnt from all of it before psql sees a byte; and the same dump under another name.

Outside of rows, strings and bodies a dump is read line by line: pg_dump begins every statement on a line of its own.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from safe_compose.methods.lexer import BadDump
from safe_compose.methods.postgres.scan import Scanner, text

_IDENT = rb'(?:"(?:[^"]|"")*+"|[^\s";,()]+)'
_ON_DATABASE = re.compile(
    rb"((?:CREATE|ALTER|COMMENT ON) DATABASE |ALTER ROLE " + _IDENT + rb" IN DATABASE |SECURITY LABEL FOR " + _IDENT
    + rb" ON DATABASE |(?:GRANT|REVOKE)(?: GRANT OPTION FOR)? [A-Z, ]+ ON DATABASE )(" + _IDENT + rb")(.*)", re.S
)  # fmt: skip
"""Every statement about a database as a whole that pg_dump writes (pg_dump.c: dumpDatabase, dumpDatabaseConfig, ACL)."""
_PSQL = re.compile(rb"\\(?:connect|restrict|unrestrict|encoding)[ \n]")
"""What pg_dump has psql do; `\\encoding` stands before a `\\connect` to a name that needs quotes (appendPsqlMetaConnect)."""
_DROP = re.compile(rb"DROP |ALTER TABLE (?:IF EXISTS )?(?:ONLY )?\S+ DROP CONSTRAINT ")
"""What `pg_dump --clean` writes before it makes anything; the schema public is made anew by such a dump."""
_DROP_PUBLIC = re.compile(rb"DROP SCHEMA (?:IF EXISTS )?public\b")
_EXTENSION = re.compile(rb"CREATE EXTENSION (?:IF NOT EXISTS )?(" + _IDENT + rb")")
_ROLE = re.compile(
    rb"(?:ALTER .* OWNER|GRANT .*) TO (" + _IDENT + rb")(?: WITH GRANT OPTION)?;\n?\Z|REVOKE .* FROM (" + _IDENT + rb");\n?\Z"
    rb"|ALTER DEFAULT PRIVILEGES FOR ROLE (" + _IDENT + rb") |SET SESSION AUTHORIZATION (" + _IDENT + rb");"
)  # fmt: skip
_VERSION = re.compile(rb"-- Dumped (from database|by pg_dump) version (\d+(?:\.\d+)*)")
_BEGINNINGS = (
    rb"(?:\\|COPY |CREATE (?:DATABASE|EXTENSION) |ALTER |COMMENT ON DATABASE |SECURITY LABEL |GRANT |REVOKE |DROP |UPDATE "
    rb"|SET SESSION |-- Dumped |-- PostgreSQL |-- Database \")"
)
_TELLING = re.compile(_BEGINNINGS)
_NEXT_TELLING = re.compile(rb"\n(?=" + _BEGINNINGS + rb")")
BEGINS_CLUSTER = b"-- PostgreSQL database cluster dump\n"


class Scanning(Protocol):
    """What follows a dump: a Scanner, or several of them in turn."""

    @property
    def at_top(self) -> bool: ...

    @property
    def in_rows(self) -> bool: ...

    def feed(self, block: bytes) -> None: ...


class NotOne(BadDump):
    """It may be whole, but is not, or not only, the dump of one database."""


@dataclass(slots=True)
class Said:
    """What is known of a dump once it was read to its end."""

    server: str = ""
    """Version of the server that it was made from: `15.18`; empty where it does not say."""
    client: str = ""
    """Version of the pg_dump that made it."""
    database: str | None = None
    """The name it was made under, where it makes the database itself."""
    extensions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    """Roles that it names as owners or in grants."""
    restricted: bool = False
    """It has `\\restrict`, which only the psql of releases since August 2025 knows."""
    size: int = 0
    """Bytes of the script."""
    part: str = ""
    """Its name within a dump of a whole server; empty where it is a dump of its own."""
    globals: bytes = b""
    """The script of the server's roles that came with it; empty where none did."""
    scanner: Scanner = field(default_factory=Scanner)
    """Rows of each COPY and large objects."""

    @property
    def rows(self) -> int:
        return sum(self.scanner.rows.values())

    def tables(self) -> tuple[tuple[tuple[str, str], int], ...]:
        return tuple(sorted(self.scanner.rows.items()))


def said(blocks: Iterable[bytes]) -> Said:
    """Read a dump to its end. Raises BadDump for one that is cut; NotOne for one that holds more than one database, or asks
    psql for more than a dump does."""
    found = Said()
    for _ in _read(blocks, found):
        continue
    return found


def elsewhere(blocks: Iterable[bytes], database: str, again: Said) -> Iterator[bytes]:
    """The same dump for a database of another name (plain letters, so that nothing needs a quote), which it makes where it
    made its own. What it would drop first becomes a comment: there is nothing yet, and psql connects to more than one database.

    `again` is filled as `said` does; raises as that, at the latest after the last piece.
    """
    name = database.encode("ascii")
    for begins, piece in _read(blocks, again):
        if not begins:
            yield piece
        elif (found := _ON_DATABASE.match(piece)) is not None:
            yield found[1] + b'"' + name + b'"' + found[3]
        elif piece.startswith(b"\\connect "):
            yield b"\\connect " + name + b"\n"
        elif _DROP.match(piece) and not _DROP_PUBLIC.match(piece):
            yield b"-- nothing to drop: " + piece
        else:
            yield piece


def _read(blocks: Iterable[bytes], found: Said) -> Iterator[tuple[bool, bytes]]:
    """The pieces of a dump, each with whether a statement, or a line of psql's own, may begin with it."""
    roles: dict[str, None] = {}
    extensions: dict[str, None] = {}
    connected = None
    for begins, piece in pieces(blocks, found.scanner):
        found.size += len(piece)
        if begins:
            if piece == BEGINS_CLUSTER:
                raise NotOne("it is a dump of a whole server (pg_dumpall), not of one database")
            if piece.startswith(b"-- Dumped") and (version := _VERSION.match(piece)):
                if version[1] == b"by pg_dump":
                    found.client = version[2].decode()
                else:
                    found.server = version[2].decode()
            elif piece.startswith(b"\\"):
                if not _PSQL.match(piece):
                    raise NotOne(f"it asks psql for what no dump needs: {text(piece.strip())[:60]}")
                found.restricted = found.restricted or piece.startswith(b"\\restrict")
                if piece.startswith(b"\\connect ") and connected not in (None, piece):
                    raise NotOne("it holds more than one database")
                connected = piece if piece.startswith(b"\\connect ") else connected
            elif piece.startswith(b"CREATE DATABASE ") and (of := _ON_DATABASE.match(piece)) is not None:
                if found.database not in (None, _name(of[2])):
                    raise NotOne("it holds more than one database")
                found.database = _name(of[2])
            elif (extension := _EXTENSION.match(piece)) is not None:
                extensions[_name(extension[1])] = None
            elif piece.startswith((b"UPDATE pg_catalog.", b"ALTER SYSTEM ")):
                raise NotOne(f"it changes the server itself: {text(piece.strip())[:60]}")
            elif (role := _ROLE.match(piece)) is not None:
                roles[_name(next(g for g in role.groups() if g is not None))] = None
        yield begins, piece
    found.scanner.finish()
    found.extensions = tuple(sorted(extensions))
    found.roles = tuple(sorted(r for r in roles if r.upper() not in ("PUBLIC", "CURRENT_USER", "SESSION_USER", "DEFAULT")))


def pieces(blocks: Iterable[bytes], scanner: Scanning) -> Iterator[tuple[bool, bytes]]:
    """The lines that may tell something one by one; all between them, and the rows of a COPY, in pieces as large as they come:
    with INSERTs a line for each row would take a hundred times as long."""
    data = b""
    for block in blocks:
        data += block
        at = 0
        while at < len(data):
            begins = scanner.at_top
            if scanner.in_rows:
                end = _end_of_rows(data, at)
            elif _TELLING.match(data, at):
                end = data.find(b"\n", at) + 1
            else:
                begins = False
                telling = _NEXT_TELLING.search(data, at)
                end = telling.end() if telling is not None else data.rfind(b"\n", at) + 1
            if end <= at:
                break
            piece = data[at:end]
            scanner.feed(piece)
            yield begins, piece
            at = end
        data = data[at:]
    if data:
        begins = scanner.at_top
        scanner.feed(data)
        yield begins, data


def _end_of_rows(data: bytes, at: int) -> int:
    """Behind the end of the rows, else behind the last whole line; pieces always begin with a line."""
    if data.startswith(b"\\.\n", at):
        return at + 3
    end = data.find(b"\n\\.\n", at)
    return end + 4 if end >= 0 else data.rfind(b"\n", at) + 1


def _name(identifier: bytes) -> str:
    if identifier.startswith(b'"'):
        identifier = identifier[1:-1].replace(b'""', b'"')
    return text(identifier)
