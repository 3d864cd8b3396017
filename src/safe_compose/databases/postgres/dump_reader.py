"""The facts in a plain dump, which is read completely before psql gets a byte, and its renaming."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from safe_compose.databases.postgres.dump_lexer import DumpPiece, PieceKind, excerpt, split_dump
from safe_compose.databases.postgres.dump_loading import Loading, Paths
from safe_compose.databases.postgres.dump_scanner import CONNECT, PostgresScanner, is_known_command
from safe_compose.databases.postgres.encodings import decode_name
from safe_compose.databases.postgres.statement_forms import ON_DATABASE, SUPERUSERS_EXTENSIONS
from safe_compose.databases.postgres.statement_router import (
    StatementRoute,
    StatementRouter,
    list_roles,
)
from safe_compose.databases.sql_lexer import NotADump

_IDENT = rb'(?:"(?:[^"]|"")*+"|[^\s";,()]+)'
_MAKES_DATABASE = re.compile(rb"CREATE DATABASE ")
_EXTENSION = re.compile(
    rb"CREATE EXTENSION (?:IF NOT EXISTS )?(" + _IDENT + rb")(?: WITH SCHEMA (" + _IDENT + rb"))?;"
)
_ROLE_SETTING = re.compile(
    rb"ALTER ROLE " + _IDENT + rb" IN DATABASE " + _IDENT + rb" SET (.*)", re.S
)
_DATABASE_SETTING = re.compile(rb"ALTER DATABASE " + _IDENT + rb" SET (.*)", re.S)
_SCHEMA = re.compile(rb"CREATE SCHEMA (" + _IDENT + rb");")
_THERE = ("public", "pg_catalog", "information_schema")
"""Schemas that every new database has."""
_VERSION = re.compile(rb"-- Dumped (from database|by pg_dump) version (\d+(?:\.\d+)*)")
BEGINS_CLUSTER = b"-- PostgreSQL database cluster dump"
_NO_ROLES = frozenset({"PUBLIC", "CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", "DEFAULT"})


@dataclass(slots=True)
class DumpSummary:
    """The facts about a dump that was read to its end."""

    server: str = ""
    """Version of the server that it was made from: `15.18`; empty if the dump does not contain it.
    """
    client: str = ""
    """Version of the pg_dump that made it."""
    database: str | None = None
    """Name of its database if the dump creates that itself."""
    extensions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    """Roles that it names as owners or in grants."""
    restricted: bool = False
    r"""It has `\restrict`: its pg_dump was of a release since August 2025."""
    ambiguous: int | None = None
    """Line of a string that ends elsewhere if `standard_conforming_strings` is off."""
    encoding: bytes = b""
    """The statement that sets its encoding."""
    creation: bytes = b""
    """The statement that creates its database."""
    schemas: tuple[bytes, ...] = ()
    """Schemas, as the dump writes them, that the superuser creates for such a role."""
    before: tuple[bytes, ...] = ()
    """Statements for the superuser before a role that owns a single database loads it: schemas and
    extensions.
    """
    paths: Paths = field(default_factory=Paths)
    """Its settings of the search_path."""
    prefixes: tuple[str, ...] = ()
    """Prefixes of settings that belong to no library: `app` of `app.tenant`."""
    left_out: tuple[str, ...] = ()
    """Event triggers that a restore does not create."""
    own: bool = False
    """It is a backup of ours, not a file from any source."""
    needs_superuser: str | None = None
    """The statement because of which the superuser has to load a backup of ours; None if a role
    that owns a single database can.
    """
    tablespaces: tuple[bytes, ...] = ()
    """Those that a backup of ours has tables or indexes in."""
    settings: tuple[bytes, ...] = ()
    """The statements with which a backup of ours makes the settings of its database, for whoever
    connects.
    """
    size: int = 0
    """Size of the script in bytes."""
    part: str = ""
    """Its name within a dump of a whole server; empty if it is a dump of its own."""
    globals: bytes = b""
    """The script of the server's roles that came with it; empty if there is none."""
    scanner: PostgresScanner = field(default_factory=PostgresScanner)
    """Number of rows of each COPY, and of large objects."""

    @property
    def rows(self) -> int:
        """Number of rows in all tables."""
        return sum(self.scanner.rows.values())

    def tables(self) -> tuple[tuple[tuple[str, str], int], ...]:
        """Return ((schema, table), number of rows) of all tables in order."""
        return tuple(sorted(self.scanner.rows.items()))


def summarize(blocks: Iterable[bytes], *, own: bool = False) -> DumpSummary:
    """Read a dump to its end and return its facts; `own` marks a backup of ours.

    Raises:
        BadDump: The dump is damaged or truncated.
        NotADump: It holds more than one database, or more than a dump of one needs.
    """
    return summarize_pieces(split_dump(blocks), own=own)


def summarize_pieces(pieces: Iterable[DumpPiece], *, own: bool = False) -> DumpSummary:
    """Read the pieces of a dump to their end and return its facts; `own` marks a backup of ours.

    Raises:
        BadDump: The dump is damaged or truncated.
        NotADump: It holds more than one database, or more than a dump of one needs.
    """
    found = DumpSummary()
    for _ in read(pieces, found, own=own):
        continue
    return found


def prepare_loading(
    key: str | None, path: bytes = b"", *, superuser: bool = True, major: int = 0
) -> Loading:
    """Prepare loading by a psql restricted by `key`, with or without the database's search_path.

    `major`: the major version of the server that loads it; 0 if unknown.
    """
    return Loading(*make_restrict_lines(key), path, superuser, major)


def rename_database(
    blocks: Iterable[bytes],
    database: str,
    again: DumpSummary,
    key: str | None = None,
    how: Loading | None = None,
) -> Iterator[bytes]:
    """Yield a dump of ours for a database of another name.

    The name has plain letters only, so that it needs no quotes. The dump creates the new database
    where it created its own. A statement that would drop something becomes a comment: there is
    nothing to drop, and psql connects to more than one database.

    `key` is that of psql's restricted mode, in which it takes no command from the dump; None if
    psql does not know it. `again` is filled as by `summarize`. `how` changes the loading; by
    default the dump is unchanged. Raises like `summarize`, after the last piece at the latest.
    """
    name = database.encode("ascii")
    how = how or prepare_loading(key)
    begins, ends = how.begins, how.ends
    yield begins
    for piece, route in read(split_dump(blocks), again, own=True):
        if piece.kind is PieceKind.COMMAND:
            connects = piece.raw.startswith(b"\\connect ")
            yield (
                how.send(piece, ends + b"\\connect " + name + b"\n" + begins) if connects else b"\n"
            )
        elif route is StatementRoute.NOWHERE:
            yield b"-- nothing to drop: " + b" ".join(piece.raw.split())
        else:
            yield how.send(piece, _rename_in_piece(piece, name))
    yield from how.last()
    yield ends


def extract_database(
    pieces: Iterable[DumpPiece],
    database: str,
    known: DumpSummary,
    again: DumpSummary,
    afterwards: IO[bytes],
    key: str | None = None,
    how: Loading | None = None,
) -> Iterator[bytes]:
    """Yield the part of a dump for a role that owns the database `database` and nothing else.

    It creates no database and gives psql no commands. The superuser's statements are written to
    `afterwards` meanwhile. The other arguments are those of `rename_database`.
    """
    name, how = database.encode("ascii"), how or prepare_loading(key, superuser=False)
    begins, ends, made = how.begins, how.ends, frozenset(known.schemas)
    yield begins
    for piece, route in read(pieces, again, own=known.own):
        script = _rename_in_piece(piece, name)
        if piece.kind is PieceKind.COMMAND or route in (
            StatementRoute.BEFORE,
            StatementRoute.NOWHERE,
        ):
            yield b"\n"
        elif route is StatementRoute.AFTERWARDS and known.own:
            afterwards.write(how.send(piece, script) + b"\n")
            yield b"\n"
        elif route is StatementRoute.AFTERWARDS:
            afterwards.write(script + b"\n")
            # Whether such a setting is allowed is decided by a role that may only change its own.
            allowed, own = _ROLE_SETTING.match(script), _DATABASE_SETTING.match(script)
            yield (
                b"SET LOCAL " + allowed[1] + b"\n"
                if allowed is not None
                else b"SET " + own[1] + b"\n"
                if own
                else b"\n"
            )
        elif (schema := _SCHEMA.match(piece.raw)) is not None and schema[1] in made:
            yield b"\n"
        else:
            yield how.send(piece, script)
    yield from how.last()
    yield ends


def restrict_script(
    blocks: Iterable[bytes], key: str | None, how: Loading | None = None
) -> Iterator[bytes]:
    """Yield a script of ours for a fresh server of ours, for a psql restricted by `key`.

    `key` is None if psql does not know the restricted mode. Of the commands for psql only the one
    that connects to the created database remains.

    Raises:
        BadDump: The script is damaged, or has another command.
    """
    how = how or prepare_loading(key)
    begins, ends = how.begins, how.ends
    yield begins
    for piece in split_dump(blocks):
        if piece.kind is not PieceKind.COMMAND:
            yield how.send(piece, piece.raw)
        elif CONNECT.fullmatch(piece.raw):
            yield how.send(piece, ends + piece.raw + begins)
        elif not is_known_command(piece.raw):
            raise NotADump(
                f"line {piece.line}: it asks psql for what no dump needs: {excerpt(piece.raw)}"
            )
    yield from how.last()
    yield ends


def make_restrict_lines(key: str | None) -> tuple[bytes, bytes]:
    """Return the lines that begin and end psql's restricted mode; empty without a key."""
    return (
        (f"\\restrict {key}\n".encode(), f"\\unrestrict {key}\n".encode())
        if key is not None
        else (b"", b"")
    )


def _rename_in_piece(piece: DumpPiece, name: bytes) -> bytes:
    return rename_in_statement(piece.raw, name) if piece.kind is PieceKind.STATEMENT else piece.raw


def rename_in_statement(statement: bytes, name: bytes) -> bytes:
    """Return a statement about a database with the name in it changed; others are unchanged."""
    found = ON_DATABASE.match(statement)
    return found[1] + b'"' + name + b'"' + found[3] if found is not None else statement


def read(
    pieces: Iterable[DumpPiece], found: DumpSummary, *, own: bool
) -> Iterator[tuple[DumpPiece, StatementRoute]]:
    """Yield the pieces of a dump with their routes, and fill `found` meanwhile.

    Raises:
        BadDump: The dump is damaged or truncated.
        NotADump: It holds more than one database, or more than a dump of one needs.
    """
    router, reader = StatementRouter(own=own), _SummaryReader(found, own=own)
    for piece in pieces:
        found.size += len(piece.raw)
        found.scanner.take(piece)
        found.paths.take(piece)
        if piece.ambiguous and found.ambiguous is None:
            found.ambiguous = piece.line
        route = router.route(piece)
        reader.take(piece, router.database)
        yield piece, route
    router.close()
    found.scanner.close()
    reader.finish(router)


class _SummaryReader:
    """A reader that fills a `DumpSummary` from the comments, commands and statements of a dump."""

    def __init__(self, found: DumpSummary, *, own: bool) -> None:
        """Begin before the first piece of a dump."""
        found.own = own
        self._found = found
        self._roles: dict[str, None] = {}
        self._extensions: dict[str, bytes] = {}
        self._named_schemas: dict[bytes, None] = {}
        """Schemas that statements for extensions name."""
        self._created_schemas: dict[bytes, None] = {}
        self._settings: list[bytes] = []
        self._connect = b""
        """The command that connects to the dump's database."""

    def take(self, piece: DumpPiece, database: str | None) -> None:
        """Take the facts from a piece; `database` is the dump's database, if it is known by then.

        Raises:
            NotADump: The dump holds more than one database.
        """
        if piece.kind is PieceKind.COMMENT:
            _comment(piece.raw, self._found)
        elif piece.kind is PieceKind.COMMAND:
            self._command(piece)
        elif piece.kind is PieceKind.STATEMENT:
            self._statement(piece.raw, database)
            self._roles.update(dict.fromkeys(list_roles(piece)))

    def _command(self, piece: DumpPiece) -> None:
        self._found.restricted = self._found.restricted or piece.raw.startswith(b"\\restrict")
        if piece.raw.startswith(b"\\connect "):
            if self._connect not in (b"", piece.raw):
                raise NotADump(f"line {piece.line}: it holds more than one database")
            self._connect = piece.raw

    def _statement(self, raw: bytes, database: str | None) -> None:
        own = self._found.own
        if raw.startswith(b"SET client_encoding = "):
            self._found.encoding = raw
        elif _MAKES_DATABASE.match(raw):
            self._found.creation, self._found.database = raw, database
        elif (extension := _EXTENSION.match(raw)) is not None:
            name = decode_name(extension[1])
            self._extensions[name] = raw
            if name in SUPERUSERS_EXTENSIONS and extension[2] and not own:
                self._named_schemas[extension[2]] = None
        elif (schema := _SCHEMA.fullmatch(raw)) is not None:
            self._created_schemas[schema[1]] = None
        elif own and _DATABASE_SETTING.fullmatch(raw) is not None:
            self._settings.append(raw)

    def finish(self, router: StatementRouter) -> None:
        """Fill in what is known at the end of the dump only."""
        found = self._found
        found.prefixes, found.left_out = tuple(router.prefixes), tuple(router.left_out)
        found.needs_superuser, found.tablespaces = router.needs_superuser, tuple(router.tablespaces)
        found.settings = tuple(self._settings)
        found.extensions = tuple(sorted(self._extensions))
        found.roles = tuple(sorted(r for r in self._roles if r.upper() not in _NO_ROLES))
        by_superuser = tuple(
            raw
            for name, raw in self._extensions.items()
            if found.own or name in SUPERUSERS_EXTENSIONS
        )
        schemas = self._named_schemas
        if by_superuser:  # the script of an extension may create such a schema where it is missing
            schemas = schemas | self._created_schemas
        found.schemas = tuple(schema for schema in schemas if decode_name(schema) not in _THERE)
        found.before = (
            *(b"CREATE SCHEMA " + schema + b";" for schema in found.schemas),
            *by_superuser,
        )


def _comment(line: bytes, found: DumpSummary) -> None:
    if line == BEGINS_CLUSTER:
        raise NotADump("it is a dump of a whole server (pg_dumpall), not of one database")
    if (version := _VERSION.match(line)) is not None:
        if version[1] == b"by pg_dump":
            found.client = version[2].decode()
        else:
            found.server = version[2].decode()
