"""What an RDB file holds, read from its first byte to its last: keys counted in each database, nothing of them kept.

Structure only; the CRC64 at its end is `redis-check-rdb`'s to judge when the file is made, our sha256's from then on. After
rdb.h and rdb.c of Redis 7.4 and of Valkey 9.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

_MAGIC = re.compile(rb"(?:REDIS(\d{4})|VALKEY(\d{3}))")
_AUX_LIMIT = 1 << 20

# How the value of a key is laid out: one string, or a length and so many strings for each element.
_ONE_STRING = frozenset({0, 9, 10, 11, 12, 13, 16, 17, 20})
_STRINGS = {1: 1, 2: 1, 4: 2, 14: 1}
_STREAMS = {15: 1, 19: 2, 21: 3}
"""Type -> which version of streams."""


class BadRdb(Exception):
    """The bytes are not one whole RDB file, or one that is newer than what is known here; the text says why."""


@dataclass(slots=True)
class Keys:
    """How many keys one database holds."""

    lasting: int = 0
    expiring: int = 0
    """With a time to live, of their own or on some of their fields: they may be gone when somebody looks again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was in one RDB file."""

    databases: dict[int, Keys]
    made: int | None
    """When its server began to write it, in seconds since 1970 by that server's clock; None where it does not say."""
    bytes: int


class _Reader:
    """Exact reads from blocks of any length."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._block = b""
        self._at = 0
        self._before = 0

    @property
    def position(self) -> int:
        return self._before + self._at

    def byte(self) -> int:
        while self._at >= len(self._block):
            self._next()
        self._at += 1
        return self._block[self._at - 1]

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end <= len(self._block):  # nearly always
            piece = self._block[self._at : end]
            self._at = end
            return piece
        parts = []
        while count:
            if self._at >= len(self._block):
                self._next()
            piece = self._block[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            parts.append(piece)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        self._at += count
        while self._at > len(self._block):
            self._next()

    def length(self) -> int:
        first = self.byte()
        if first < 64:
            return first
        if first < 128:
            return (first & 63) << 8 | self.byte()
        if first in (0x80, 0x81):
            return int.from_bytes(self.take(4 if first == 0x80 else 8), "big")
        raise BadRdb("a length that is none")

    def string(self) -> int:
        """Pass over a string; how many bytes it took after its own length."""
        first = self.byte()
        if first < 64:
            size = first
        elif first < 128:
            size = (first & 63) << 8 | self.byte()
        elif first in (0x80, 0x81):
            size = int.from_bytes(self.take(4 if first == 0x80 else 8), "big")
        elif first in (0xC0, 0xC1, 0xC2):  # an integer of 1, 2 or 4 bytes
            size = 1 << (first & 3)
        elif first == 0xC3:  # compressed: its length, then that of the plain text
            size = self.length()
            self.length()
        else:
            raise BadRdb("a string that is none")
        self.skip(size)
        return size

    def text(self) -> bytes:
        """A short string that is wanted; integers as their digits, a compressed one as nothing."""
        first = self.byte()
        if first in (0xC0, 0xC1, 0xC2):
            return str(int.from_bytes(self.take(1 << (first & 3)), "little", signed=True)).encode()
        if first == 0xC3:
            size = self.length()
            self.length()
            self.skip(size)
            return b""
        if first < 64:
            size = first
        elif first < 128:
            size = (first & 63) << 8 | self.byte()
        elif first == 0x80:
            size = int.from_bytes(self.take(4), "big")
        else:
            raise BadRdb("a string that is none")
        if size > _AUX_LIMIT:
            raise BadRdb("a fact about the file is too long")
        return self.take(size)

    def rest(self) -> int:
        """How many bytes follow."""
        return len(self._block) - self._at + sum(map(len, self._blocks))

    def _next(self) -> None:
        """The next block. What was skipped may reach into it."""
        self._before += len(self._block)
        self._at -= len(self._block)
        self._block = next(self._blocks, b"")
        if not self._block:
            raise BadRdb("it ends too early")


def read(blocks: Iterable[bytes], *, mark: int = 0) -> Snapshot:
    """Read a whole RDB file. `mark` bytes may follow it, all or none. Raises BadRdb, and what `blocks` does."""
    reader = _Reader(blocks)
    head = reader.take(9)
    magic = _MAGIC.fullmatch(head)
    if magic is None:
        raise BadRdb("it does not begin like an RDB file")
    valkey = magic[1] is None
    databases: dict[int, Keys] = {}
    made: int | None = None
    here: Keys | None = None
    expires = False
    while (opcode := reader.byte()) != 255:
        if opcode < 128:
            if here is None:
                raise BadRdb("a key outside of any database")
            reader.string()
            if _value(reader, opcode, valkey=valkey) or expires:
                here.expiring += 1
            else:
                here.lasting += 1
            expires = False
        elif opcode == 254:
            here = databases.setdefault(reader.length(), Keys())
        elif opcode == 252:
            reader.skip(8)
            expires = True
        elif opcode == 253:
            reader.skip(4)
            expires = True
        elif opcode == 251:  # how large the tables will be
            reader.length()
            reader.length()
        elif opcode == 250:
            name, value = reader.text(), reader.text()
            if name == b"ctime" and value.isdigit():
                made = int(value)
        elif opcode == 249:
            reader.skip(1)
        elif opcode == 248:
            reader.length()
        elif opcode == 247:
            reader.length()
            _module(reader)
        elif opcode == 245:  # a library of functions
            reader.string()
        elif opcode == 244:  # a slot of a cluster
            for _ in range(3):
                reader.length()
        else:
            _unknown("opcode", opcode)
    if int(magic[1] or magic[2]) >= 5:
        reader.skip(7)
        reader.byte()  # of the checksum's eight bytes the last one must be there
    size = reader.position
    if reader.rest() not in (0, mark):
        raise BadRdb("something follows its end")
    return Snapshot({number: keys for number, keys in databases.items() if keys.lasting or keys.expiring}, made, size)


def _value(reader: _Reader, kind: int, *, valkey: bool) -> bool:
    """Pass over one value; True where fields of it have a time to live."""
    if kind in _ONE_STRING:
        reader.string()
    elif kind in _STRINGS:
        for _ in range(reader.length() * _STRINGS[kind]):
            reader.string()
    elif kind == 5:  # a sorted set with binary scores
        for _ in range(reader.length()):
            reader.string()
            reader.skip(8)
    elif kind == 3:  # with scores as text
        for _ in range(reader.length()):
            reader.string()
            size = reader.byte()
            reader.skip(size if size < 253 else 0)
    elif kind == 18:  # a list of lists, each with how it is packed
        for _ in range(reader.length()):
            reader.length()
            reader.string()
    elif kind in _STREAMS:
        _stream(reader, _STREAMS[kind])
    elif kind == 7:
        _module(reader)
    elif kind == 22 and valkey:  # a hash whose fields expire
        for _ in range(reader.length()):
            reader.string()
            reader.string()
            reader.skip(8)
        return True
    elif kind == 24 and not valkey:
        reader.skip(8)
        for _ in range(reader.length()):
            reader.length()
            reader.string()
            reader.string()
        return True
    elif kind == 25 and not valkey:
        reader.skip(8)
        reader.string()
        return True
    else:
        _unknown("type of value", kind)
    return False


def _stream(reader: _Reader, version: int) -> None:
    for _ in range(reader.length()):
        reader.string()
        reader.string()
    for _ in range(3 if version == 1 else 8):  # length and last id; later also first id, highest deleted id, entries added
        reader.length()
    for _ in range(reader.length()):  # consumer groups
        reader.string()
        for _ in range(2 if version == 1 else 3):
            reader.length()
        for _ in range(reader.length()):  # delivered, not acknowledged: id, time, count
            reader.skip(24)
            reader.length()
        for _ in range(reader.length()):  # consumers
            reader.string()
            reader.skip(8 if version < 3 else 16)
            reader.skip(16 * reader.length())


def _module(reader: _Reader) -> None:
    """What a module wrote: its id, then pieces that say themselves what they are."""
    reader.length()
    while (piece := reader.length()) != 0:
        if piece in (1, 2):
            reader.length()
        elif piece in (3, 4):
            reader.skip(4 if piece == 3 else 8)
        elif piece == 5:
            reader.string()
        else:
            _unknown("piece of a module", piece)


def _unknown(what: str, number: int) -> NoReturn:
    raise BadRdb(f"it holds a {what} that is not known here ({number}): its server is newer than this safe-compose")
