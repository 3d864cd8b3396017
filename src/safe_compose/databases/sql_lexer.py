"""The common part of the dump lexers, which read a dump as its client does, block by block."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable

HEADER_LIMIT = 1 << 20
"""Largest size in bytes of a comment or of the head of a table's rows: those of a table with as
many columns, with names as long, as any of these databases accepts are a tenth of it.
"""


class BadDump(Exception):
    """The stream is not one whole dump; the message says why."""


class NotADump(BadDump):
    """The file may be complete, but is not, or not only, the dump of one database."""

    def __init__(self, message: str, next_step: str | None = None) -> None:
        """Make the fault with an optional command for the user."""
        super().__init__(message)
        self.next_step = next_step
        """Command that helps with this dump; None for the general one."""


class Lexer(ABC):
    """A lexer that is fed with a dump block by block; `finish` checks the end.

    Memory: a block, and the unfinished part at its end.
    """

    def __init__(self, trailer: re.Pattern[bytes]) -> None:
        """Begin a dump whose last line matches `trailer`."""
        self.rows: dict[tuple[str, str], int] = {}
        """Number of rows by (schema, or MySQL's database, table)."""
        self._state: Callable[[], bool] = self._top
        self._data = b"\n"
        """The unread bytes; the byte before `_at` is kept, because the meaning of a token depends
        on it.
        """
        self._at = 1
        self._until = b""
        self._trailer = trailer

    def feed(self, block: bytes) -> None:
        """Lex the next bytes of a dump.

        Raises:
            BadDump: The dump is damaged.
        """
        self._data = self._data[self._at - 1 :] + block
        self._at = 1
        while self._state():
            pass

    @abstractmethod
    def finish(self) -> None:
        """End the dump.

        Raises:
            BadDump: The dump is incomplete.
        """

    # Each state reads from `_at`. True means to go on, perhaps in another state; False means that
    # more bytes are needed.

    @abstractmethod
    def _top(self) -> bool:
        """Find the next token in a statement, or between two statements."""

    @abstractmethod
    def _tail(self) -> bool:
        """Read after the line that completes a dump."""

    def _inside(self) -> bool:
        """Skip to the end of a string, a quoted name, a body or a command of the client."""
        end = self._data.find(self._until, self._at)
        if end < 0:
            self._at = max(self._at, len(self._data) - len(self._until) + 1)
            return False
        # A line's end is kept: the next token may have to be at the beginning of a line.
        self._at = end + len(self._until) if self._until != b"\n" else end
        self._state = self._top
        return True

    def _comment(self) -> bool:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            return self._unfinished("a comment has no end")
        whole = self._data[self._at - 1] == 0x0A and self._trailer.fullmatch(
            self._data, self._at, end
        )
        self._at = end + 1 if whole else end  # as in `_inside`
        self._state = self._tail if whole else self._top
        return True

    def _unfinished(self, otherwise: str) -> bool:
        """Ask for more bytes, unless too many were read already.

        Raises:
            BadDump: The message is `otherwise`.
        """
        if len(self._data) - self._at > HEADER_LIMIT:
            raise BadDump(otherwise)
        return False
