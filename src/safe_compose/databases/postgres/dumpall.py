"""A reader of dumps of whole servers (pg_dumpall): the roles, and the dump of each database."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from safe_compose.databases.postgres.dump_lexer import DumpPiece, PieceKind, split_dump
from safe_compose.databases.postgres.dump_reader import (
    BEGINS_CLUSTER,
    DumpSummary,
    summarize_pieces,
)
from safe_compose.databases.postgres.dump_scanner import (
    CLUSTER_TRAILER,
    DATABASE_TRAILER,
    PostgresScanner,
)
from safe_compose.databases.postgres.encodings import text
from safe_compose.databases.sql_lexer import BadDump, NotADump

_DATABASE = re.compile(rb'-- Database "(.*)" dump', re.S)
"""The line that pg_dumpall writes before each database since release 12 (pg_dumpall.c:
dumpDatabases).
"""
_LARGEST_HEAD = 16 << 20
"""Largest script of roles and tablespaces, in bytes, that is kept in memory."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The content of a dump of a whole server that was read to its end."""

    globals: bytes
    """The script that creates roles and tablespaces."""
    databases: dict[str, DumpSummary]
    others: dict[str, str]
    """Databases that cannot be restored alone, mapped to the reason: `template1`, when it was made
    with --clean.
    """


def is_cluster(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a dump of a whole server."""
    return BEGINS_CLUSTER in head


def survey(blocks: Iterable[bytes]) -> Cluster:
    """Read a dump of a whole server to its end and describe its parts.

    Raises:
        BadDump: The dump is damaged or truncated.
    """
    head = bytearray()
    databases: dict[str, DumpSummary] = {}
    others: dict[str, str] = {}
    for (_, name), part in groupby(_parts(blocks), key=lambda piece: piece[0]):
        if name is not None:
            if name in databases or name in others:
                raise BadDump(f"database {name} comes twice")
            try:
                databases[name] = summarize_pieces(piece for _, piece in part)
                databases[name].part = name
            except NotADump as fault:
                others[name] = str(fault)  # its remaining pieces are read on, to find its end
        elif not databases and not others:
            for _, piece in part:
                head += piece.raw
                if len(head) > _LARGEST_HEAD:
                    raise BadDump("the script of its roles has no end")
    if not databases:
        raise BadDump("no database can be told apart in it")
    return Cluster(bytes(head), databases, others)


def extract_pieces(blocks: Iterable[bytes], database: str) -> Iterator[DumpPiece]:
    """Yield the pieces of one database's dump.

    Raises:
        BadDump: The dump is damaged or truncated.
    """
    return (piece for (_, name), piece in _parts(blocks) if name == database)


def _parts(blocks: Iterable[bytes]) -> Iterator[tuple[tuple[int, str | None], DumpPiece]]:
    """Yield all pieces with the number and the database of their part.

    The database is None for a part of the server.

    Raises:
        BadDump: The dump is damaged or truncated.
    """
    scanner, number, name, ended = PostgresScanner(CLUSTER_TRAILER), 0, None, False
    for piece in split_dump(blocks):
        between = piece.kind is PieceKind.COMMENT and not scanner.ended and (name is None or ended)
        if between and (found := _DATABASE.fullmatch(piece.raw)) is not None:
            number, name, ended = number + 1, text(found[1]), False
            continue
        if between and name is not None and piece.raw == CLUSTER_TRAILER:
            number, name = number + 1, None
        if name is None:
            scanner.take(piece)
        yield (number, name), piece
        ended = ended or (piece.kind is PieceKind.COMMENT and piece.raw == DATABASE_TRAILER)
    if name is not None and not ended:
        raise BadDump(f"it ends within the dump of database {name}")
    scanner.close()
