"""A scanner that counts the content of a dump while it streams.

It counts the tuples of every INSERT and the stored programs, and requires the line that marks the
end. A client takes the end of a file for the end of its work, wherever that is: no file may be fed
to a client before it was read to the end here. The text is lexed as the client lexes it, so a
procedure whose body looks like an INSERT is none.

The scanner relies on facts of mysqldump and mariadb-dump (read in what they wrote): newlines and
quotes within values are escaped with a backslash, whatever the server's sql_mode; binary values are
hexadecimal (`--hex-blob`); the rows of a table are between its LOCK TABLES and UNLOCK TABLES;
stored programs are between `DELIMITER ;;` and `DELIMITER ;`.
"""

import re

from safe_compose.databases.mysql.statements import NAME
from safe_compose.databases.sql_lexer import BadDump, Lexer

_USE = re.compile(rb"USE (" + NAME + rb");\n")
_LOCK = re.compile(rb"LOCK TABLES (" + NAME + rb") WRITE;\n")
_INSERT = re.compile(
    rb"INSERT INTO (" + NAME + rb")(?: \(" + NAME + rb"(?:, ?" + NAME + rb")*+\))? VALUES(?= |\n)"
)

_TOKEN = re.compile(
    rb"(?<=\n)(?:INSERT INTO |LOCK TABLES |UNLOCK TABLES;|USE `|DELIMITER ;;[0-9]*\n)|/\*M?!|/\*"
    rb"|--[ \n]|#|['\"`]"
)
_TOKEN_LIMIT = 24
"""Largest length of a token in bytes; if a body holds `;;`, the delimiter of an event has a number
after it.
"""

_IN_QUOTES = {quote: re.compile(rb"[" + quote + rb"\\]") for quote in (b"'", b'"')}
_END_OF_ROWS = b";\n"
_END_OF_PROGRAM = b"\nDELIMITER ;\n"
_SLICE = 256 << 10
"""Bytes of rows that are processed at once, so that splitting them takes little memory."""

_IN_ROWS = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_+-.,() \n"
"""Everything between the strings of an INSERT's rows: numbers, hexadecimal values, NULL, _binary,
signs, parentheses.
"""

TRAILER = re.compile(
    rb"-- Dump completed(?: on [0-9]{4}-[0-9]{2}-[0-9]{2} {1,2}[0-9]{1,2}:[0-9]{2}:[0-9]{2})?"
)
ACCOUNTS_TRAILER = re.compile(rb"-- accounts end here")


class MySQLDumpScanner(Lexer):
    """A scanner of the dump of all databases, or of that of the accounts.

    A value of any size passes in pieces.
    """

    def __init__(self, trailer: re.Pattern[bytes] = TRAILER) -> None:
        """Scan for a dump that ends with `trailer`."""
        super().__init__(trailer)
        self.databases: set[str] = set()
        self.programs = 0
        """Number of procedures, functions, triggers and events."""
        self._quote = b"'"
        self._in_string = False
        self._opened = self._closed = 0
        self._database = ""
        self._table: tuple[str, str] | None = None

    def finish(self) -> None:
        """Require that the dump is complete.

        Raises:
            BadDump: The last line is missing.
        """
        if self._state == self._values:
            raise BadDump(f"it ends within the rows of {'.'.join(self._table or ())}")
        if self._state != self._tail:
            raise BadDump("it does not end with the line that completes a dump")

    def _top(self) -> bool:
        found = _TOKEN.search(self._data, self._at)
        if found is None or (found.end() == len(self._data) and found.group() in (b"/*", b"#")):
            stop = len(self._data) - _TOKEN_LIMIT if found is None else found.start()
            self._at = max(self._at, stop)
            return False
        token, self._at = found.group(), found.start()
        if token == b"`":
            self._at = found.end()
            # A doubled backtick ends a name and begins the next, with the same result.
            self._until, self._state = b"`", self._inside
        elif token in (b"'", b'"'):
            self._at = found.end()
            self._quote, self._state = token, self._string
        elif token[:2] == b"--" or token == b"#":
            self._state = self._comment
        elif token == b"/*":
            if (
                self._data[found.end() : found.end() + 1] == b"M"
                and len(self._data) < found.end() + 2
            ):
                return False  # the next byte decides
            self._at = found.end()
            self._until, self._state = b"*/", self._inside
        elif token[:2] == b"/*":
            # The server runs its content, so it is read like everything else.
            self._at = found.end()
        elif token.startswith(b"DELIMITER"):
            self.programs += 1
            self._at = found.end() - 1
            self._until, self._state = _END_OF_PROGRAM, self._inside
        elif token == b"UNLOCK TABLES;":
            self._at = found.end()
            self._table = None
        else:
            self._state = self._header
        return True

    def _string(self) -> bool:
        found = _IN_QUOTES[self._quote].search(self._data, self._at)
        if found is None:
            self._at = len(self._data)
            return False
        if found.group() == b"\\":
            if found.end() == len(self._data):
                self._at = found.start()
                return False
            self._at = found.end() + 1
        else:
            self._at = found.end()
            self._state = self._top
        return True

    def _header(self) -> bool:
        found = next(
            filter(None, (form.match(self._data, self._at) for form in (_INSERT, _LOCK, _USE))),
            None,
        )
        if found is None:
            return self._unfinished("an INSERT, a LOCK TABLES or a USE does not read")
        name = _name(found.group(1))
        if found.re is _USE:
            self._database = name
            self.databases.add(name)
        elif found.re is _LOCK:
            self._table = self._database, name
            if self._table in self.rows:
                raise BadDump(f"the rows of {'.'.join(self._table)} come twice")
            self.rows[self._table] = 0
        elif self._table != (self._database, name):
            raise BadDump(f"rows of {name} come where they do not belong")
        # The end of the line stays: the next token may have to begin at it.
        self._at = found.end() if found.re is _INSERT else found.end() - 1
        self._state = self._values if found.re is _INSERT else self._top
        return True

    def _values(self) -> bool:
        """Count the tuples of one INSERT.

        Outside of strings, each has one opening and one closing parenthesis.
        """
        assert self._table is not None
        end = self._data.find(_END_OF_ROWS, self._at, self._at + _SLICE)
        stop = end if end >= 0 else min(len(self._data) - 1, self._at + _SLICE - 1)
        piece = self._data[self._at : stop]
        if len(piece) - len(piece.rstrip(b"\\")) & 1:
            piece = piece[:-1]  # a backslash belongs to the character after it
        if not piece and stop != end:
            return False
        self._at += len(piece)
        # Remove pairs of backslashes first, from the left: a backslash left before a quote escapes
        # it.
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b"\\'", b"")
        parts = piece.split(b"'")
        outside = b"".join(parts[1::2] if self._in_string else parts[::2])
        self._in_string ^= not len(parts) & 1
        self._opened += outside.count(b"(")
        self._closed += outside.count(b")")
        if outside.translate(None, _IN_ROWS):
            raise BadDump(f"the rows of {'.'.join(self._table)} do not read")
        if stop != end or self._at != end:
            return True
        if self._in_string:
            raise BadDump(f"a value of {'.'.join(self._table)} does not read")
        if self._opened != self._closed or not self._opened:
            raise BadDump(f"the rows of {'.'.join(self._table)} do not add up")
        self.rows[self._table] += self._opened
        self._opened = self._closed = 0
        self._at = end + 1
        self._state = self._top
        return True

    def _tail(self) -> bool:
        if self._at != len(self._data):
            raise BadDump("something follows the line that completes a dump")
        return False


def _name(quoted: bytes) -> str:
    return quoted[1:-1].replace(b"``", b"`").decode("utf-8", "backslashreplace")
