"""A dump read as its client would read it, wherever the blocks are cut: what is the same for every dialect."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable

HEADER_LIMIT = 1 << 20
"""Bytes that a comment or the head of a table's rows may have: those of a table with as many columns, with names as long, as any
of these databases takes are a tenth of it."""


class BadDump(Exception):
    """The stream is not one whole dump; the text says why."""


class Lexer(ABC):
    """Fed with a dump block by block; `finish` judges the end.

    Memory: a block and what is unfinished at its end.
    """

    def __init__(self, trailer: re.Pattern[bytes]) -> None:
        self.rows: dict[tuple[str, str], int] = {}
        """(schema, or MySQL's database, table) -> rows."""
        self._state: Callable[[], bool] = self._top
        self._data = b"\n"
        """What is not consumed; the byte before `_at` is kept, because what a token is depends on it."""
        self._at = 1
        self._until = b""
        self._trailer = trailer

    def feed(self, block: bytes) -> None:
        """Take the next bytes. Raises BadDump."""
        self._data = self._data[self._at - 1 :] + block
        self._at = 1
        while self._state():
            pass

    @abstractmethod
    def finish(self) -> None:
        """No more bytes come: raises BadDump unless the dump is whole."""

    # Each state consumes from `_at`; True: go on (perhaps in another state), False: more bytes are needed.

    @abstractmethod
    def _top(self) -> bool:
        """Find what comes next in a statement, or between two."""

    @abstractmethod
    def _tail(self) -> bool:
        """Behind the line that completes a dump."""

    def _inside(self) -> bool:
        """Skip to what ends a string, a quoted name, a body or a line of the client's own."""
        end = self._data.find(self._until, self._at)
        if end < 0:
            self._at = max(self._at, len(self._data) - len(self._until) + 1)
            return False
        # A line's end is left standing: the next token may have to stand at the beginning of a line.
        self._at = end + len(self._until) if self._until != b"\n" else end
        self._state = self._top
        return True

    def _comment(self) -> bool:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            return self._unfinished("a comment has no end")
        whole = self._data[self._at - 1] == 0x0A and self._trailer.fullmatch(self._data, self._at, end)
        self._at = end + 1 if whole else end  # as in `_inside`
        self._state = self._tail if whole else self._top
        return True

    def _unfinished(self, otherwise: str) -> bool:
        """More bytes are needed, as long as not too many have come already."""
        if len(self._data) - self._at > HEADER_LIMIT:
            raise BadDump(otherwise)
        return False
