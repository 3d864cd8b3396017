"""A lexer that splits a plain dump as psql does: statements, comments, rows of a COPY, commands.

psql takes the end of a file for the end of COPY data, and exits with 0 (tried): no file may be fed
to it that was not read to its end here before. Everything that psql would take for a command of its
own (a backslash outside of strings, quoted names, bodies, comments and rows) is found wherever it
is. If psql and the server, or two releases of psql, could disagree about the end of a string, the
dump is refused: pg_dump writes nothing of that kind.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from safe_compose.databases.postgres.encodings import UTF8, decode_name
from safe_compose.databases.sql_lexer import HEADER_LIMIT, BadDump, NotADump

_NAME = rb'(?:"(?:[^"]|"")*+"|[a-z0-9_\x80-\xff]++)'
_NAMES = rb"\(" + _NAME + rb"(?:, " + _NAME + rb")*+\)"
_COPY = re.compile(rb"COPY (%b)\.(%b) (?:%b)? ?FROM stdin;" % (_NAME, _NAME, _NAMES))
_LITERAL = (
    rb"(?:'(?:[^'\\]|''|\\(?!'))*+'|[EBX]'(?:[^'\\]|'')*+'"
    rb"|-?[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?|NULL|true|false|DEFAULT)"
)
_INSERTS = re.compile(
    rb"(?:INSERT INTO %b\.%b (?:%b )?VALUES \(%b(?:, %b)*+\);\n)++"
    % (_NAME, _NAME, _NAMES, _LITERAL, _LITERAL)
)
"""Rows as `pg_dump --inserts` writes them; strings with escapes, or with a backslash at their end,
are left to the slow path.
"""
_BLANK = re.compile(rb"[ \t\n\v\f]*+")
_TOKEN = re.compile(rb"['\"$;()\\\r]|--|/\*")
_DOLLAR = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?\$")
_TAG_LIMIT = 140
"""Largest length of a dollar quote's tag in bytes: an identifier (63 bytes, more in unusual builds)
between two signs.
"""
_IN_ESCAPED = re.compile(rb"['\\]")
_IN_COMMENT = re.compile(rb"\*/|/\*")
_AFTER_ESCAPED = re.compile(rb"(?:[ \t\n\v\f]|--[^\n\r]*+\n)*+")
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_$") | frozenset(
    range(0x80, 0x100)
)
_CODE_LIMIT = 16 << 20
"""Largest size in bytes of a statement without its strings and bodies."""
_HELD = 1 << 20
"""Bytes of a statement that are kept until its end is seen; a longer one is returned in parts."""


class PieceKind(Enum):
    """The kind of a piece of a dump."""

    BLANK = "blank"
    COMMENT = "comment"
    """A line that begins with `--`, between statements, without its end."""
    STATEMENT = "statement"
    """A whole statement with its semicolon."""
    PART = "part"
    """A part of a long statement, but not its end."""
    LAST = "last"
    """The end of a long statement; `code` is that of the whole statement."""
    INSERTS = "inserts"
    """Rows as `pg_dump --inserts` writes them, each a statement and a line."""
    COPY = "copy"
    """The head of a table's rows, with the end of its line."""
    ROWS = "rows"
    END_OF_ROWS = "end of rows"
    COMMAND = "command"
    """A line for psql itself, with its end."""


class DumpPiece(NamedTuple):
    """A part of a dump; all pieces together are the dump."""

    kind: PieceKind
    raw: bytes
    line: int
    """Line number of its beginning."""
    code: bytes = b""
    """Code of a statement without comments, with each string or body as `''` and each blank as one
    space; of a PART the code read so far.
    """
    ambiguous: bool = False
    """The piece has a string that ends elsewhere if `standard_conforming_strings` is off."""


def excerpt(raw: bytes) -> str:
    """Return the beginning of a part of a dump, safe for a terminal."""
    words = raw[:60].decode("utf-8", "backslashreplace").split()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(words))[:60]


class PsqlLexer:
    """A lexer that is fed with a dump block by block and returns its pieces.

    Memory: a block, the unfinished part at its end, and 1 MiB of a statement.
    """

    def __init__(self) -> None:
        """Begin before the first line of a dump."""
        self._ambiguous = False
        self._data = b"\n\n"
        """The unread bytes; two bytes before `_at` are kept, because the meaning of a quote depends
        on them.
        """
        self._at = self._begin = 2
        self._held: list[bytes] = []
        self._held_size = 0
        self._line = 1
        self._pieces: list[DumpPiece] = []
        self._state: Callable[[], bool] = self._between
        self._code: list[bytes] = []
        self._code_size = 0
        self._depth = self._nested = 0
        self._parted = False
        self._until = b""
        self._table = ("", "")

    def feed(self, block: bytes) -> list[DumpPiece]:
        """Lex the next bytes and return the pieces that are complete.

        Raises:
            BadDump: The dump is damaged.
        """
        if b"\0" in block:
            raise BadDump(
                f"line {self._line + self._ahead(block)}: it holds a NUL byte, at which psql would"
                " stop reading"
            )
        self._hold()
        self._data = self._data[self._at - 2 :] + block
        self._at = self._begin = 2
        while self._state():
            pass
        pieces, self._pieces = self._pieces, []
        return pieces

    def end(self) -> list[DumpPiece]:
        """End the dump, and return an empty list if nothing is unfinished.

        Raises:
            BadDump: The dump ends within rows, a statement or a line.
        """
        cut = self._begin < len(self._data) or bool(self._held)
        if self._state == self._rows:
            raise BadDump(f"it ends within the rows of {'.'.join(self._table)}")
        if cut or self._state != self._between:
            self.feed(b"\n")  # the fault of the last line says more
            raise BadDump("it does not end with pg_dump's last line, but within another")
        return []

    def _ahead(self, block: bytes) -> int:
        return (
            self._data.count(b"\n", self._begin)
            + b"".join(self._held).count(b"\n")
            + block[: block.index(b"\0")].count(b"\n")
        )

    def _hold(self) -> None:
        """Keep the bytes that were read of an unfinished piece."""
        if self._at > self._begin:
            self._held.append(self._data[self._begin : self._at])
            self._held_size += self._at - self._begin
            self._begin = self._at
        if self._held_size > _HELD:
            code = self._normal()
            if code[:4].upper() == b"COPY":
                raise BadDump(f"line {self._line}: a COPY line does not read")
            self._hand_out(PieceKind.PART, code)
            self._parted = True

    def _hand_out(self, kind: PieceKind, code: bytes = b"") -> None:
        raw = self._data[self._begin : self._at]
        if self._held:
            raw = b"".join((*self._held, raw))
            self._held, self._held_size = [], 0
        self._begin = self._at
        if raw:
            self._pieces.append(DumpPiece(kind, raw, self._line, code, self._ambiguous))
            self._line += raw.count(b"\n")
            self._ambiguous = False

    def _normal(self) -> bytes:
        return b" ".join(b"".join(self._code).split())

    def _fault(self, words: str) -> BadDump:
        line = (
            self._line
            + sum(piece.count(b"\n") for piece in self._held)
            + self._data.count(b"\n", self._begin, self._at)
        )
        return BadDump(f"line {line}: {words}")

    # Each state reads from `_at`. True means to go on, perhaps in another state; False means that
    # more bytes are needed.

    def _between(self) -> bool:
        """Read what is between two statements."""
        data = self._data
        blank = _BLANK.match(data, self._at)
        if blank is not None and blank.end() > self._at:
            self._at = blank.end()
            self._hand_out(PieceKind.BLANK)
        at = self._at
        if at == len(data) or (data[at] in b"-/" and at + 1 == len(data)):
            return False
        first = data[at]
        if first == 0x2D and data[at + 1] == 0x2D:
            self._state = self._comment
        elif first == 0x5C:
            if data[at - 1] != 0x0A and not self._cut(at):
                raise self._backslash(at)
            if data[at - 1] != 0x0A:
                return False
            self._state = self._command
        elif (
            first == 0x49
            and data[at - 1] == 0x0A
            and (rows := _INSERTS.match(data, at)) is not None
        ):
            self._at = rows.end()
            self._hand_out(PieceKind.INSERTS)
        else:
            self._code, self._code_size, self._depth, self._parted = [], 0, 0, False
            self._state = self._statement
        return True

    def _cut(self, at: int) -> bool:
        """Return whether more bytes are needed to show what a backslash asks for."""
        return len(self._data) - at < 64 and b"\n" not in self._data[at:]

    def _backslash(self, at: int) -> BadDump:
        self._at = at
        end = self._data.find(b"\n", at)
        seen = excerpt(self._data[at : end if end >= 0 else None])
        return NotADump(str(self._fault(f"it asks psql for what no dump needs: {seen}")))

    def _comment(self) -> bool:
        found = self._line_end("a comment has no end")
        if found < 0:
            return False
        own_line = self._data[self._at - 1] == 0x0A
        self._at = found
        self._hand_out(PieceKind.COMMENT if own_line else PieceKind.BLANK)
        self._state = self._between
        return True

    def _command(self) -> bool:
        found = self._line_end("a command for psql has no end")
        if found < 0:
            return False
        self._at = found + 1
        self._hand_out(PieceKind.COMMAND)
        self._state = self._between
        return True

    def _line_end(self, otherwise: str) -> int:
        end = self._data.find(b"\n", self._at)
        if end < 0 and len(self._data) - self._at > HEADER_LIMIT:
            raise self._fault(otherwise)
        if b"\r" in self._data[self._at : end if end >= 0 else None]:
            raise self._fault("a line ends with a carriage return; a dump has line feeds alone")
        return end

    def _add(self, code: bytes) -> None:
        if code:
            self._code.append(code)
            self._code_size += len(code)
            if self._code_size > _CODE_LIMIT:
                raise self._fault("a statement has no end")

    def _statement(self) -> bool:
        data, at = self._data, self._at
        found = _TOKEN.search(data, at)
        if found is None:
            stop = len(data) - (data[-1] in b"-/" and at < len(data))
            self._add(data[at:stop])
            self._at = stop
            return False
        token, begin = data[found.start()], found.start()
        self._add(data[at:begin])
        self._at = begin
        if token == 0x27:
            self._state = self._open_string()
        elif token == 0x22:
            self._at, self._state = begin + 1, self._quoted
            self._add(b'"')
        elif token == 0x24:
            return self._dollar()
        elif token == 0x3B:
            return self._semicolon()
        elif token == 0x5C:
            if self._cut(begin):
                return False
            raise self._backslash(begin)
        elif token == 0x0D:
            raise self._fault("a line ends with a carriage return; a dump has line feeds alone")
        elif token == 0x2D:
            self._at, self._state = begin + 2, self._line_comment
            self._add(b" ")
        elif token == 0x2F:
            self._at, self._state, self._nested = begin + 2, self._block_comment, 1
            self._add(b" ")
        else:
            self._depth = self._depth + 1 if token == 0x28 else max(self._depth - 1, 0)
            self._add(b"(" if token == 0x28 else b")")
            self._at = begin + 1
        return True

    def _open_string(self) -> Callable[[], bool]:
        before, further = self._data[self._at - 1], self._data[self._at - 2]
        escaped = before in b"eE"
        if before in _WORD and (further in _WORD or not (escaped or before in b"bBxXnN")):
            raise self._fault(
                "a string begins where psql and the server may not agree that it does"
            )
        self._at += 1
        self._add(b"'")
        return self._escaped if escaped else self._string

    def _string(self) -> bool:
        end = self._data.find(b"'", self._at)
        if end < 0:
            self._at = len(self._data)
            return False
        if self._data[end - 1] == 0x5C:
            self._ambiguous = True
        # A doubled quote ends one string and begins the next, with the same result.
        self._at = end + 1
        self._add(b"'")
        self._state = self._statement
        return True

    def _escaped(self) -> bool:
        found = _IN_ESCAPED.search(self._data, self._at)
        if found is None:
            self._at = len(self._data)
            return False
        if found.end() == len(self._data):  # the character after the sign decides
            self._at = found.start()
            return False
        if found.group() == b"\\" or self._data[found.end()] == 0x27:
            self._at = found.end() + 1
        else:
            self._at = found.end()
            self._add(b"'")
            self._state = self._after_escaped
        return True

    def _after_escaped(self) -> bool:
        """Check the end of a string with escapes.

        The server continues the string after a line's end, with its escapes; psql begins a plain
        one.
        """
        found = _AFTER_ESCAPED.match(self._data, self._at)
        end = found.end() if found is not None else self._at
        next_two = self._data[end : end + 2]
        if next_two in (b"", b"-") or (next_two == b"--" and b"\r" not in self._data[end:]):
            if len(self._data) - self._at > HEADER_LIMIT:
                raise self._fault("a comment has no end")
            return False
        if self._data[end] == 0x27:
            raise self._fault(
                "a string goes on where psql and the server may not agree that it does"
            )
        self._state = self._statement
        return True

    def _quoted(self) -> bool:
        end = self._data.find(b'"', self._at)
        stop = end + 1 if end >= 0 else len(self._data)
        self._add(self._data[self._at : stop])
        self._at = stop
        if end < 0:
            return False
        self._state = self._statement
        return True

    def _dollar(self) -> bool:
        data, at = self._data, self._at
        if data[at - 1] in _WORD:
            raise self._fault(
                "a dollar sign stands where psql and the server may not agree what it is"
            )
        found = _DOLLAR.match(data, at)
        if found is None:
            if at + 1 < len(data) and data[at + 1] in b"0123456789":  # a parameter
                self._add(b"$")
                self._at = at + 1
                return True
            if len(data) - at < _TAG_LIMIT and not re.search(
                rb"[^A-Za-z0-9_\x80-\xff]", data[at + 1 :]
            ):
                return False
            raise self._fault("a dollar sign stands where no dump has one")
        self._until, self._at = found.group(), found.end()
        self._state = self._body
        return True

    def _body(self) -> bool:
        end = self._data.find(self._until, self._at)
        if end < 0:
            self._at = max(self._at, len(self._data) - len(self._until) + 1)
            return False
        self._at = end + len(self._until)
        self._add(b"''")
        self._state = self._statement
        return True

    def _line_comment(self) -> bool:
        end = self._data.find(b"\n", self._at)
        stop = end if end >= 0 else len(self._data)
        returned = self._data.find(b"\r", self._at, stop)
        if returned >= 0:
            raise self._fault("a comment ends with a carriage return; a dump has line feeds alone")
        self._at = stop
        if end < 0:
            return False
        self._state = self._statement
        return True

    def _block_comment(self) -> bool:
        found = _IN_COMMENT.search(self._data, self._at)
        if found is None:
            self._at = max(self._at, len(self._data) - 1)
            return False
        self._at = found.end()
        self._nested += 1 if found.group() == b"/*" else -1
        if not self._nested:
            self._state = self._statement
        return True

    def _semicolon(self) -> bool:
        if self._depth:
            self._add(b";")
            self._at += 1
            return True
        code = self._normal()
        is_copy = code[:4].upper() == b"COPY"
        if is_copy and self._at + 1 == len(self._data):
            return False  # the end of its line decides
        self._at += 1
        self._state = self._between
        if not is_copy:
            self._hand_out(PieceKind.LAST if self._parted else PieceKind.STATEMENT, code + b";")
            return True
        head = _COPY.fullmatch(b"".join((*self._held, self._data[self._begin : self._at])))
        if head is None or self._data[self._at] != 0x0A:
            raise NotADump(str(self._fault(f"a COPY that no dump has: {excerpt(code)}")))
        self._table = (decode_name(head.group(1)), decode_name(head.group(2)))
        self._at += 1
        self._hand_out(PieceKind.COPY)
        self._state = self._rows
        return True

    def _rows(self) -> bool:
        end = self._data.find(b"\n\\.", self._at - 1)
        if end < 0 or end + 3 == len(self._data):
            self._at = max(self._at, len(self._data) - 2) if end < 0 else end + 1
            self._hand_out(PieceKind.ROWS)
            return False
        self._at = end + 1
        self._hand_out(PieceKind.ROWS)
        if self._data[end + 3] != 0x0A:
            raise self._fault(f"the rows of {'.'.join(self._table)} have an end that is none")
        self._at = end + 4
        self._hand_out(PieceKind.END_OF_ROWS)
        self._state = self._between
        return True


def read_head(copy: bytes, codec: str = UTF8) -> tuple[str, str]:
    """Return schema and table of the head of a table's rows."""
    found = _COPY.match(copy)
    assert found is not None  # the lexer matched it before
    return decode_name(found.group(1), codec), decode_name(found.group(2), codec)


def split_dump(blocks: Iterable[bytes]) -> Iterator[DumpPiece]:
    """Split a dump into pieces, to its end.

    Raises:
        BadDump: The dump is damaged or incomplete.
    """
    lexer = PsqlLexer()
    for block in blocks:
        yield from lexer.feed(block)
    yield from lexer.end()
