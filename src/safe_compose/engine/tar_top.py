"""The engine's archive of a folder, with another name for its top folder.

This module is pure.

The engine names the top folder after the requested one; our archives always name it
`volume`. The stream is read strictly: anything but a tar as Go's archive/tar writes it (PAX)
raises, so that no unknown content is passed on.
"""

from collections.abc import Iterable, Iterator

RECORD = 512
PAX_LIMIT = 16 << 20


class BadStream(ValueError):
    """An error that says why a stream is no such archive."""


def rename_top(chunks: Iterable[bytes], old: str, new: str) -> Iterator[bytes]:
    """Yield the stream with the top folder `old` renamed to `new`.

    Exceptions of `chunks` pass through.

    Raises:
        BadStream: The stream is no such archive.
    """
    source = _TarSource(chunks)
    pax: dict[bytes, bytes] = {}
    while (header := source.read(RECORD)) != bytes(RECORD):
        flag, size = header[156:157], _number(header[124:136])
        if flag == b"x":
            if size > PAX_LIMIT:
                raise BadStream("a PAX header is too long")
            pax = _records(source.read(size))
            source.read(-size % RECORD)
            continue
        if flag not in b"0\x007123456" or not flag:
            raise BadStream(f"a member of the type {flag!r}")
        size = int(pax[b"size"]) if b"size" in pax else size
        yield _header(header, pax, old.encode("utf-8", "surrogateescape"), new.encode())
        yield from source.pieces(size + -size % RECORD)
        pax = {}
    if pax:
        raise BadStream("a PAX header without a member")
    yield header
    yield from source.rest()


def _header(header: bytes, pax: dict[bytes, bytes], old: bytes, new: bytes) -> bytes:
    """Return a member's header with the new name, after a PAX header where one is needed."""
    prefix, field = _text(header[345:500]), _text(header[:100])
    name = _rename(pax.get(b"path") or (prefix + b"/" if prefix else b"") + field, old, new)
    records = {**pax, b"path": name} if b"path" in pax or len(name) > 100 else dict(pax)
    made = bytearray(header)
    made[:100] = name[:100].ljust(100, b"\0")
    made[345:500] = bytes(155)
    if header[156:157] == b"1":
        link = _rename(pax.get(b"linkpath") or _text(header[157:257]), old, new)
        made[157:257] = link[:100].ljust(100, b"\0")
        if b"linkpath" in pax or len(link) > 100:
            records[b"linkpath"] = link
    return _pax(records) + _add_checksum(made)


def _rename(name: bytes, old: bytes, new: bytes) -> bytes:
    top, slash, rest = name.partition(b"/")
    if top != old:
        raise BadStream(f"{name[:100]!r} is not below the folder that was asked for")
    return new + slash + rest


def _pax(records: dict[bytes, bytes]) -> bytes:
    if not records:
        return b""
    lines = b"".join(_record(key, value) for key, value in records.items())
    head = bytearray(RECORD)
    head[:10] = b"PaxHeaders"
    head[100:108], head[108:116], head[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    head[124:136], head[136:148] = b"%011o\0" % len(lines), b"00000000000\0"
    head[156:157], head[257:265] = b"x", b"ustar\x0000"
    return _add_checksum(head) + lines + bytes(-len(lines) % RECORD)


def _record(key: bytes, value: bytes) -> bytes:
    """Return `LENGTH KEY=VALUE` and a line feed; the length counts itself."""
    body = b" %s=%s\n" % (key, value)
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d%s" % (length, body)


def _records(data: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 20)
        digits = data[at:blank] if blank > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if end <= blank or end > len(data) or not equals:
            raise BadStream("a PAX header is damaged")
        found[key] = value
        at = end
    return found


def _add_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = _text(field).strip()
    try:
        return int(digits or b"0", 8)
    except ValueError as error:
        raise BadStream("a header holds a number that is none") from error


class _TarSource:
    """A reader of exact lengths from chunks of any length."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        """Read from `chunks`."""
        self._chunks = iter(chunks)
        self._left = b""

    def read(self, count: int) -> bytes:
        """Return exactly `count` bytes.

        Raises:
            BadStream: The stream ends before that.
        """
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[bytes]:
        """Yield exactly `count` bytes in pieces.

        Raises:
            BadStream: The stream ends before that.
        """
        while count:
            if not self._left:
                self._left = next(self._chunks, b"")
                if not self._left:
                    raise BadStream("it ends too early")
            piece, self._left = self._left[:count], self._left[count:]
            count -= len(piece)
            yield piece

    def rest(self) -> Iterator[bytes]:
        """Yield the rest of the stream."""
        yield self._left
        yield from self._chunks
