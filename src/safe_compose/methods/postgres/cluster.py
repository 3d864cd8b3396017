"""A dump of a whole server (pg_dumpall), taken apart: the script of its roles, and the dump of each database by itself."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from safe_compose.methods.lexer import BadDump
from safe_compose.methods.postgres.said import BEGINS_CLUSTER, NotOne, Said, pieces, said
from safe_compose.methods.postgres.scan import CLUSTER_TRAILER, DATABASE_TRAILER, Scanner, text

_DATABASE = re.compile(rb'-- Database "(.*)" dump\n', re.S)
"""What pg_dumpall writes before each database since release 12 (pg_dumpall.c: dumpDatabases)."""
_LARGEST_HEAD = 16 << 20
"""Bytes of the script of roles and tablespaces that are held in memory."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a dump of a whole server holds, once it was read to its end."""

    globals: bytes
    """The script that makes roles and tablespaces."""
    databases: dict[str, Said]
    others: dict[str, str]
    """Those that cannot be restored by themselves -> why: `template1`, when it was made with --clean."""


def is_cluster(head: bytes) -> bool:
    """By its first bytes."""
    return BEGINS_CLUSTER in head


def survey(blocks: Iterable[bytes]) -> Cluster:
    """Read all of it. Raises BadDump for one that is cut."""
    head = b""
    databases: dict[str, Said] = {}
    others: dict[str, str] = {}
    for (_, name), part in groupby(_parts(blocks), key=lambda piece: piece[0]):
        if name is not None:
            if name in databases or name in others:
                raise BadDump(f"database {name} comes twice")
            try:
                databases[name] = said(piece for _, piece in part)
                databases[name].part = name
            except NotOne as fault:
                others[name] = str(fault)  # the rest of it is read on, for its end
        elif not databases and not others:
            for _, piece in part:
                head += piece
                if len(head) > _LARGEST_HEAD:
                    raise BadDump("the script of its roles has no end")
    if not databases:
        raise BadDump("no database can be told apart in it")
    return Cluster(head, databases, others)


def one(blocks: Iterable[bytes], database: str) -> Iterator[bytes]:
    """The dump of one of its databases. Raises BadDump."""
    for (_, name), piece in _parts(blocks):
        if name == database:
            yield piece


class _Scanning:
    """A scanner that can be changed for another one between two pieces."""

    def __init__(self) -> None:
        self.now = Scanner(CLUSTER_TRAILER)

    @property
    def at_top(self) -> bool:
        return self.now.at_top

    @property
    def in_rows(self) -> bool:
        return self.now.in_rows

    def feed(self, block: bytes) -> None:
        self.now.feed(block)


def _parts(blocks: Iterable[bytes]) -> Iterator[tuple[tuple[int, str | None], bytes]]:
    """All of it in pieces, each with the number of its part and the database that the part is of; None: of the server."""
    scanning, number, name, ended = _Scanning(), 0, None, False
    for begins, piece in pieces(blocks, scanning):
        found = _DATABASE.fullmatch(piece) if begins and (name is None or ended) else None
        if found is not None:
            number, name, ended = number + 1, text(found[1]), False
            scanning.now = Scanner()
        elif name is None or not ended:
            yield (number, name), piece
            if name is not None and begins and piece.rstrip(b"\n") == DATABASE_TRAILER:
                yield (number, name), b"--\n"
                ended, scanning.now = True, Scanner(CLUSTER_TRAILER)
        elif begins and piece.startswith(b"\\unrestrict "):
            yield (number, name), piece
    if name is not None and not ended:
        raise BadDump(f"it ends within the dump of database {name}")
    scanning.now.finish()
