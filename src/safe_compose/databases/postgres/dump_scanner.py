"""A scanner that counts the rows and large objects of a plain dump while it streams."""

import re

from safe_compose.databases.postgres.dump_lexer import (
    DumpPiece,
    PieceKind,
    PsqlLexer,
    excerpt,
    read_head,
)
from safe_compose.databases.postgres.encodings import UTF8, find_codec
from safe_compose.databases.sql_lexer import BadDump, NotADump

_LARGE_OBJECT = b"SELECT pg_catalog.lo_create("
DATABASE_TRAILER = b"-- PostgreSQL database dump complete"
CLUSTER_TRAILER = b"-- PostgreSQL database cluster dump complete"


class PostgresScanner:
    """A scanner of one database's dump, or of a script of the globals."""

    def __init__(self, trailer: bytes = DATABASE_TRAILER) -> None:
        """Scan for a dump that ends with `trailer`."""
        self.rows: dict[tuple[str, str], int] = {}
        """Number of rows by (schema, table)."""
        self.large_objects = 0
        self._lexer = PsqlLexer()
        self._table = ("", "")
        self._codec = UTF8
        self._trailer = trailer
        self.ended = False
        """The last line was read."""
        self._framed = False

    def feed(self, block: bytes) -> None:
        """Scan the next bytes of a dump.

        Raises:
            BadDump: The dump is damaged.
        """
        for piece in self._lexer.feed(block):
            self.take(piece)

    def finish(self) -> None:
        """Require that the dump is complete.

        Raises:
            BadDump: The last line is missing.
        """
        for piece in self._lexer.end():
            self.take(piece)
        self.close()

    def close(self) -> None:
        """Require that the last piece of a dump was one that ends it.

        Raises:
            BadDump: It was not.
        """
        if not self._framed:
            raise BadDump("it does not end with pg_dump's last line")

    def take(self, piece: DumpPiece) -> None:
        """Count the rows or the large object in one piece of a dump.

        Raises:
            BadDump: The dump is damaged.
        """
        kind = piece.kind
        if kind is PieceKind.ROWS:
            # Newlines within values are written as \n: every real one ends a row.
            self.rows[self._table] += piece.raw.count(b"\n")
        elif kind is PieceKind.COPY:
            self._table = read_head(piece.raw, self._codec)
            if self._table in self.rows:
                raise BadDump(f"the rows of {'.'.join(self._table)} come twice")
            self.rows[self._table] = 0
        elif kind is PieceKind.COMMENT and piece.raw == self._trailer:
            self.ended = True
            return
        elif kind is PieceKind.COMMAND and not is_known_command(piece.raw):
            raise NotADump(
                f"line {piece.line}: it asks psql for what no dump needs: {excerpt(piece.raw)}"
            )
        elif kind is PieceKind.STATEMENT and piece.raw.startswith(_LARGE_OBJECT):
            self.large_objects += 1
        elif (
            kind is PieceKind.STATEMENT
            and (spoken := _CLIENT_ENCODING.fullmatch(piece.raw)) is not None
        ):
            self._codec = find_codec(spoken[1].decode("ascii"))
        if self.ended:
            if not _is_trailer_frame(piece):
                raise BadDump(f"line {piece.line}: something follows pg_dump's last line")
            self._framed = self._framed or piece.kind is PieceKind.COMMENT


CONNECT = re.compile(
    rb"\\connect (?:[a-z_][a-z0-9_]*+|\"(?:[^\"\n]|\"\")++\""
    rb"|-reuse-previous=on \"dbname='(?:[^\"\n'\\]|\"\"|\\[\\'])++'\")\n"
)
r"""`\connect` as pg_dump and pg_dumpall write it (string_utils.c: appendPsqlMetaConnect)."""
RESTRICT = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\n")
ENCODING = re.compile(rb"\\encoding SQL_ASCII\n")


def is_known_command(raw: bytes) -> bool:
    """Return whether a line for psql is one that pg_dump writes."""
    return any(form.fullmatch(raw) for form in (CONNECT, RESTRICT, ENCODING))


def _is_trailer_frame(piece: DumpPiece) -> bool:
    r"""Return whether a piece belongs to the frame of the trailer's comment.

    Releases from August 2025 on close `\restrict` after it.
    """
    if piece.kind is PieceKind.COMMAND:
        return piece.raw.startswith(b"\\unrestrict ")
    return piece.kind is PieceKind.BLANK or (piece.kind is PieceKind.COMMENT and piece.raw == b"--")


_CLIENT_ENCODING = re.compile(rb"SET client_encoding = '([A-Za-z0-9_]{1,40})';")
"""The encoding of everything after it, as pg_dump writes it (pg_backup_archiver.c)."""
