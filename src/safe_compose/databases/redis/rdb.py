"""A reader of RDB files that counts the keys of each database and keeps none of them.

It reads the structure from the first byte to the last. The CRC64 at the end is checked by
`redis-check-rdb` when the file is made, and from then on by our own SHA-256. The format is that of
rdb.h and rdb.c of Redis 7.4 and of Valkey 9.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

_MAGIC = re.compile(rb"(?:REDIS(\d{4})|VALKEY(\d{3}))")
_AUX_LIMIT = 1 << 20

# Layout of the value of a key: one string, or a length and a number of strings per element.
_ONE_STRING = frozenset({0, 9, 10, 11, 12, 13, 16, 17, 20})
_STRINGS = {1: 1, 2: 1, 4: 2, 14: 1}
_STREAMS = {15: 1, 19: 2, 21: 3}
"""Type of a stream, mapped to the version of its format."""
_EXPIRING_HASHES = frozenset({(22, True), (24, False), (25, False)})
"""Types of hashes whose fields have a time to live, and whether the server is Valkey."""
_EXPIRY_BYTES = {252: 8, 253: 4}
"""Opcode before a key with a time to live, mapped to the size of that time."""


class BadRdb(Exception):
    """The bytes are not one whole RDB file, or of a newer format; the message says why."""


@dataclass(slots=True)
class KeyCounts:
    """Numbers of keys in one database."""

    lasting: int = 0
    expiring: int = 0
    """Keys with a time to live, of their own or of some of their fields: they may be gone later."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The content of one RDB file."""

    databases: dict[int, KeyCounts]
    made: int | None
    """Time when the server began to write it, in seconds since 1970 by its own clock; None if it is
    not recorded.
    """
    bytes: int


class _RdbReader:
    """A reader of exact byte counts from blocks of any length."""

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
        if end <= len(self._block):  # the usual case
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
        """Skip a string and return how many bytes it took after its own length."""
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
        """Read a short string; integers become their digits, a compressed one becomes empty."""
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
        """Read to the end and return how many bytes followed."""
        return len(self._block) - self._at + sum(map(len, self._blocks))

    def _next(self) -> None:
        """Load the next block; skipped bytes may reach into it."""
        self._before += len(self._block)
        self._at -= len(self._block)
        self._block = next(self._blocks, b"")
        if not self._block:
            raise BadRdb("it ends too early")


def read(blocks: Iterable[bytes], *, mark: int = 0) -> Snapshot:
    """Read a whole RDB file and count its keys.

    Either none or `mark` bytes may follow it. Faults of `blocks` pass through.

    Raises:
        BadRdb: The file is damaged, incomplete or of a newer format.
    """
    reader = _RdbReader(blocks)
    head = reader.take(9)
    magic = _MAGIC.fullmatch(head)
    if magic is None:
        raise BadRdb("it does not begin like an RDB file")
    valkey = magic[1] is None
    databases: dict[int, KeyCounts] = {}
    made: int | None = None
    here: KeyCounts | None = None
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
            here = databases.setdefault(reader.length(), KeyCounts())
        elif opcode in _EXPIRY_BYTES:
            reader.skip(_EXPIRY_BYTES[opcode])
            expires = True
        elif opcode == 250:
            name, value = reader.text(), reader.text()
            if name == b"ctime" and value.isdigit():
                made = int(value)
        else:
            _pass_over(reader, opcode)
    if int(magic[1] or magic[2]) >= 5:
        reader.skip(7)
        reader.byte()  # the last of the checksum's eight bytes must be there
    size = reader.position
    if reader.rest() not in (0, mark):
        raise BadRdb("something follows its end")
    return Snapshot(
        {number: keys for number, keys in databases.items() if keys.lasting or keys.expiring},
        made,
        size,
    )


def _pass_over(reader: _RdbReader, opcode: int) -> None:
    """Skip a record that does not belong to a key."""
    if opcode == 251:  # sizes of the hash tables
        reader.length()
        reader.length()
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
        _refuse_unknown("opcode", opcode)


def _value(reader: _RdbReader, kind: int, *, valkey: bool) -> bool:
    """Skip one value; return True if its fields have a time to live."""
    expires = False
    if kind in _ONE_STRING:
        reader.string()
    elif kind in _STRINGS:
        for _ in range(reader.length() * _STRINGS[kind]):
            reader.string()
    elif kind in (3, 5):
        _skip_sorted_set(reader, kind)
    elif kind == 18:  # a list of lists, each with its encoding
        for _ in range(reader.length()):
            reader.length()
            reader.string()
    elif kind in _STREAMS:
        _stream(reader, _STREAMS[kind])
    elif kind == 7:
        _module(reader)
    elif expires := (kind, valkey) in _EXPIRING_HASHES:
        _skip_expiring_hash(reader, kind)
    else:
        _refuse_unknown("type of value", kind)
    return expires


def _skip_sorted_set(reader: _RdbReader, kind: int) -> None:
    """Skip a sorted set, whose scores are text (3) or binary (5)."""
    for _ in range(reader.length()):
        reader.string()
        size = reader.byte() if kind == 3 else 8
        reader.skip(size if size < 253 else 0)


def _skip_expiring_hash(reader: _RdbReader, kind: int) -> None:
    """Skip a hash whose fields have a time to live."""
    if kind == 22:
        for _ in range(reader.length()):
            reader.string()
            reader.string()
            reader.skip(8)
        return
    reader.skip(8)
    if kind == 25:
        reader.string()
        return
    for _ in range(reader.length()):
        reader.length()
        reader.string()
        reader.string()


def _stream(reader: _RdbReader, version: int) -> None:
    for _ in range(reader.length()):
        reader.string()
        reader.string()
    # Length and last id; later also first id, highest deleted id, entries added.
    for _ in range(3 if version == 1 else 8):
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


def _module(reader: _RdbReader) -> None:
    """Skip the data of a module: its id, then pieces that each begin with their type."""
    reader.length()
    while (piece := reader.length()) != 0:
        if piece in (1, 2):
            reader.length()
        elif piece in (3, 4):
            reader.skip(4 if piece == 3 else 8)
        elif piece == 5:
            reader.string()
        else:
            _refuse_unknown("piece of a module", piece)


def _refuse_unknown(kind: str, number: int) -> NoReturn:
    raise BadRdb(
        f"it holds a {kind} that is not known here ({number}): its server is newer than this"
        " safe-compose"
    )
