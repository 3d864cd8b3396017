"""What a plain dump holds, counted while it streams by: rows of every COPY, large objects, and the line that proves its end.

psql takes the end of a file for the end of COPY data, and exits with 0 (proved): nothing may be fed to it that was not read
through here to the end first. The text is lexed as psql lexes it, so a function body that looks like a COPY is none.
"""

import re
from collections.abc import Iterator

from safe_compose.methods.lexer import BadDump, Lexer

_IDENTIFIER = rb'(?:"(?:[^"]|"")*+"|[a-z0-9_\x80-\xff]++)'
_HEADER = re.compile(
    rb"COPY (" + _IDENTIFIER + rb")\.(" + _IDENTIFIER + rb") (?:\(" + _IDENTIFIER + rb"(?:, " + _IDENTIFIER + rb")*+\))?"
    rb" ?FROM stdin;\n"
)

_TOKEN = re.compile(
    rb"(?<=\n)COPY |(?<=\n)\\|(?<=\n)SELECT pg_catalog\.lo_create\('|--|(?<![A-Za-z0-9_$\x80-\xff])[eE]'|'|\""
    rb"|(?<![A-Za-z0-9_$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$"
)
_TOKEN_LIMIT = 140
"""Bytes that a token may have: a dollar tag is an identifier (63 bytes, more in odd builds) between two signs."""

_IN_ESCAPED = re.compile(rb"['\\]")
_END_OF_COPY = b"\n\\.\n"
DATABASE_TRAILER = b"-- PostgreSQL database dump complete"
CLUSTER_TRAILER = b"-- PostgreSQL database cluster dump complete"
_AFTER_TRAILER = re.compile(rb"--\n\s*(?:\\unrestrict [A-Za-z0-9]+\s*)?")
"""The frame of the trailer's comment; releases from August 2025 on close `\\restrict` behind it."""


class Scanner(Lexer):
    """Of one database's dump, or of that of the globals: the trailer tells."""

    def __init__(self, trailer: bytes = DATABASE_TRAILER) -> None:
        super().__init__(re.compile(re.escape(trailer)))
        self.large_objects = 0
        self._table = ("", "")

    @property
    def at_top(self) -> bool:
        """Between statements, or within one, but in no string, name or body."""
        return self._state == self._top

    @property
    def in_rows(self) -> bool:
        """Within the rows of a COPY, at their beginning or after any of them."""
        return self._state == self._data_rows

    def finish(self) -> None:
        if self._state == self._data_rows:
            raise BadDump(f"it ends within the rows of {'.'.join(self._table)}")
        if self._state != self._tail or not _AFTER_TRAILER.fullmatch(self._data, self._at):
            raise BadDump("it does not end with pg_dump's last line")

    def _top(self) -> bool:
        found = _TOKEN.search(self._data, self._at)
        if found is None:
            self._at = max(self._at, len(self._data) - _TOKEN_LIMIT)
            return False
        token = found.group()
        if token == b"COPY ":
            self._at = found.start()
            self._state = self._header
        elif token == b"--":
            self._at = found.start()
            self._state = self._comment
        elif token == b"\\":
            self._at = found.start()
            self._until, self._state = b"\n", self._inside
        elif token in (b"e'", b"E'"):
            self._at = found.end()
            self._state = self._escaped
        else:
            if token.startswith(b"SELECT"):
                self.large_objects += 1
            self._at = found.end()
            # A doubled quote ends one string and begins the next: the same outcome.
            self._until, self._state = (token if token[:1] == b"$" else token[-1:]), self._inside
        return True

    def _escaped(self) -> bool:
        found = _IN_ESCAPED.search(self._data, self._at)
        if found is None:
            self._at = len(self._data)
            return False
        if found.end() == len(self._data):  # what follows the sign decides
            self._at = found.start()
            return False
        if found.group() == b"\\" or self._data[found.end()] == 0x27:
            self._at = found.end() + 1
        else:
            self._at = found.end()
            self._state = self._top
        return True

    def _header(self) -> bool:
        found = _HEADER.match(self._data, self._at)
        if found is None:
            return self._unfinished("a COPY line does not read")
        self._table = (_name(found.group(1)), _name(found.group(2)))
        if self._table in self.rows:
            raise BadDump(f"the rows of {'.'.join(self._table)} come twice")
        self.rows[self._table] = 0
        self._at = found.end()
        self._state = self._data_rows
        return True

    def _data_rows(self) -> bool:
        end = self._data.find(_END_OF_COPY, self._at - 1)
        if end < 0:
            stop = max(self._at, len(self._data) - len(_END_OF_COPY) + 1)
            self.rows[self._table] += self._data.count(b"\n", self._at, stop)
            self._at = stop
            return False
        # Newlines within values are written as \n: every real one ends a row.
        self.rows[self._table] += self._data.count(b"\n", self._at, end + 1)
        self._at = end + len(_END_OF_COPY)
        self._state = self._top
        return True

    def _tail(self) -> bool:
        if len(self._data) - self._at > 4096:
            raise BadDump("something follows pg_dump's last line")
        return False


def _name(identifier: bytes) -> str:
    if identifier.startswith(b'"'):
        identifier = identifier[1:-1].replace(b'""', b'"')
    return text(identifier)


def text(raw: bytes) -> str:
    """Bytes in the database's own encoding as text that can be stored; the same bytes always give the same text."""
    return raw.decode("utf-8", "backslashreplace")


def top_level_lines(script: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a small script, with where they begin, that do not begin within a string or a body."""
    scanner = Scanner()
    at = 0
    for line in script.split(b"\n"):
        if scanner.at_top:
            yield at, line
        scanner.feed(line + b"\n")
        at += len(line) + 1
