"""Strict reading of tar streams and comparison with lists, in bounded memory.

The standard library's tarfile is not used to verify: in a stream it takes a damaged header after
the first member, and a missing end, for the end of the archive, and it keeps every member in
memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from safe_compose.engine.tar_top import PAX_LIMIT, RECORD

HEAD = 16
"""Bytes at the beginning of a file that identify some file types."""
_ZERO = bytes(RECORD)
_TYPES = {
    b"0": "f",
    b"\0": "f",
    b"7": "f",
    b"1": "h",
    b"2": "l",
    b"3": "c",
    b"4": "b",
    b"5": "d",
    b"6": "p",
}
"""tar's type flags and the letters of `find -printf %y`; `h` is a hard link to an earlier member.
"""
_KINDS = frozenset("fdlpcbs")
_ENTRY_LIMIT = 16 << 20
"""Bytes of one entry of a list: more than the longest path that a folder of a folder of a folder
can have.
"""
_NUMBER_LIMIT = 1 << 62
_PIECE = 256 << 10
_KNOWN = frozenset(
    {b"path", b"linkpath", b"size", b"uid", b"gid"}
    | {b"GNU.sparse.name", b"GNU.sparse.realsize", b"GNU.sparse.size", b"GNU.sparse.major"}
)
"""PAX records that are read; the others (attributes, times) are dropped."""


class BadTar(Exception):
    """The stream is not one whole tar archive of a folder called `volume`; the message says why."""


class Member(NamedTuple):
    """One entry of a volume; if `link` is empty, as a list describes it."""

    type: str
    """`f` file, `d` folder, `l` symbolic link, `h` hard link, `p` fifo, `c` and `b` devices, `s`
    socket.
    """
    size: int
    """Bytes of a file, or of a symbolic link's target; otherwise 0."""
    mode: int
    uid: int
    gid: int
    path: bytes
    """Relative to the volume's root, whose own path is empty."""
    link: bytes = b""
    """For `h`: the path of the member that holds the content."""

    def record(self) -> bytes:
        """Format the entry as in a list: `type size mode uid gid path`, with an octal mode.

        A list ends each entry with a NUL.
        """
        return b"%s %d %o %d %d %s" % (
            self.type.encode(),
            self.size,
            self.mode,
            self.uid,
            self.gid,
            self.path,
        )


class _TarReader:
    """A reader of exact byte counts from blocks of any length."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._block = b""
        self._at = 0

    def read(self, count: int) -> bytes:
        """Return exactly `count` bytes.

        Raises:
            BadTar: The stream ends before.
        """
        if self._at + count <= len(self._block):  # the usual case
            piece = self._block[self._at : self._at + count]
            self._at += count
            return piece
        parts = []
        while count:
            if self._at == len(self._block):
                self._next()
            piece = self._block[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            parts.append(piece)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        while count:
            if self._at == len(self._block):
                self._next()
            step = min(count, len(self._block) - self._at)
            self._at += step
            count -= step

    def rest(self) -> Iterator[bytes]:
        yield self._block[self._at :]
        yield from self._blocks

    def _next(self) -> None:
        self._block = b""
        self._at = 0
        while not self._block:
            try:
                self._block = next(self._blocks)
            except StopIteration:
                raise BadTar("the archive ends too early") from None


def read_members(
    blocks: Iterable[bytes],
    look: Callable[[Member, bytes], None] | None = None,
    *,
    digests: bool = False,
) -> Iterator[Member]:
    """Yield every member of a tar stream and read the stream to its end.

    The format is POSIX with PAX records, as our own helper program, GNU tar and the engine write
    it. Sparse files (PAX 0.x and 1.0) have their real names and sizes.

    `look` gets each file with its first HEAD bytes (fewer if the file is shorter). With `digests`
    it gets each file with the SHA-256 of everything stored for it, the map of a sparse file
    included, and each symbolic link with its target.

    Raises:
        BadTar: A checksum is wrong, a type is unknown, a number cannot be parsed, the first member
            is not the folder `volume/` (or a second one is), a name lies outside of it or is not in
            its normal form, the end (two zero records) is missing, or anything but zeros follows
            it.

    Faults of `blocks` pass through.
    """
    for number, member in enumerate(_members(_TarReader(blocks), look, digests=digests)):
        if (not member.path) != (number == 0) or (number == 0 and member.type != "d"):
            raise BadTar(
                "its first member is not the volume's folder"
                if number == 0
                else "it holds the volume's folder twice"
            )
        yield member


def _members(
    reader: _TarReader, look: Callable[[Member, bytes], None] | None, *, digests: bool
) -> Iterator[Member]:
    found = 0
    for header, facts in _headers(reader):
        found += 1
        member = _read_member(header, facts)
        if member.type == "f":
            size, taken = _data_size(header, facts), 0
            if look is not None:
                take = (
                    _digest if digests else _sparse_head if b"GNU.sparse.major" in facts else _head
                )
                content, taken = take(reader, size)
                look(member, content)
            reader.skip(size - taken + -size % RECORD)
        elif member.type == "l" and digests and look is not None:
            look(member, _names(header, facts)[1])
        yield member
    if not found:
        raise BadTar("it holds nothing at all")
    _require_end(reader)


def _headers(reader: _TarReader) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    """Yield the header of each member with the PAX records that apply to it.

    The caller reads or skips the data of a file before it asks for the next one.
    """
    everywhere: dict[bytes, bytes] = {}
    pax: dict[bytes, bytes] = {}
    while (header := reader.read(RECORD)) != _ZERO:
        _check(header)
        flag, size = header[156:157], _number(header[124:136])
        if flag not in b"xg":
            facts = {**everywhere, **pax}
            pax = {}
            yield header, facts
            continue
        if size > PAX_LIMIT:
            raise BadTar("a PAX header is too long")
        records = _pax_records(reader.read(size))
        reader.skip(-size % RECORD)
        if flag == b"g":
            everywhere.update(records)
        else:
            pax = records
    if pax:
        raise BadTar("a PAX header without a member")


def _read_member(header: bytes, facts: Mapping[bytes, bytes]) -> Member:
    """Return the member that a header describes.

    Raises:
        BadTar: It has another type than backups hold, or the header is damaged.
    """
    flag, size, target = header[156:157], _data_size(header, facts), b""
    kind = _TYPES.get(flag)
    if kind is None:
        raise BadTar(f"a member of an unknown type {flag!r}")
    name, link = _names(header, facts)
    mode = _number(header[100:108]) & 0o7777
    uid = _decimal(facts[b"uid"]) if b"uid" in facts else _number(header[108:116])
    gid = _decimal(facts[b"gid"]) if b"gid" in facts else _number(header[116:124])
    if kind == "f":
        real = facts.get(b"GNU.sparse.realsize") or facts.get(b"GNU.sparse.size")
        size = _decimal(real) if real else size
    else:
        size = len(link) if kind == "l" else 0
    if kind == "h" and not (target := _normalize_path(link)):
        raise BadTar(f"a hard link to the volume's folder: {name[:100]!r}")
    return Member(kind, size, mode, uid, gid, _normalize_path(name), target)


def _data_size(header: bytes, facts: Mapping[bytes, bytes]) -> int:
    """Return the number of bytes that follow the header of a file."""
    return _decimal(facts[b"size"]) if b"size" in facts else _number(header[124:136])


def _names(header: bytes, facts: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return a member's name and link target, PAX records included."""
    prefix = _text(header[345:500])
    name = facts.get(b"path") or (prefix + b"/" if prefix else b"") + _text(header[:100])
    return facts.get(b"GNU.sparse.name", name), facts.get(b"linkpath") or _text(header[157:257])


def _require_end(reader: _TarReader) -> None:
    """Require that nothing but zeros follows the first empty record.

    Raises:
        BadTar: Something else follows.
    """
    if reader.read(RECORD) != _ZERO:
        raise BadTar("the end of the archive is damaged")
    for block in reader.rest():
        if block.count(0) != len(block):
            raise BadTar("something follows the end of the archive")


def _head(reader: _TarReader, size: int) -> tuple[bytes, int]:
    head = reader.read(min(size, HEAD))
    return head, len(head)


def _digest(reader: _TarReader, size: int) -> tuple[bytes, int]:
    digest = sha256()
    for at in range(0, size, _PIECE):
        digest.update(reader.read(min(_PIECE, size - at)))
    return digest.digest(), size


def _sparse_head(reader: _TarReader, size: int) -> tuple[bytes, int]:
    """Return the first bytes of a sparse file, and how many bytes were read for that.

    Its content begins with a map in whole records: the number of pieces, then the offset and length
    of each, one number per line (GNU tar's PAX format 1.0).
    """
    text = b""
    while len(text) + RECORD + HEAD <= size and len(text) < 64 * RECORD:
        text += reader.read(RECORD)
        numbers = text.split(b"\n")[:-1]
        if numbers and numbers[0].isdigit() and len(numbers) > 2 * int(numbers[0]) > 0:
            head = reader.read(HEAD) if numbers[1] == b"0" else b""
            return head, len(text) + len(head)
    return b"", len(text)


def _check(header: bytes) -> None:
    stored = _text(header[148:156]).strip()
    if not stored.isdigit() or sum(header[:148]) + 8 * 32 + sum(header[156:]) != _octal(stored):
        raise BadTar("a header is damaged (wrong checksum)")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Parse octal digits, or GNU's binary form for larger numbers."""
    if field[0] & 0x80:
        return _require_bounded(int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big"))
    digits = _text(field).strip()
    return _octal(digits) if digits else 0


def _octal(digits: bytes) -> int:
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise BadTar(f"a header holds a number that is none: {digits[:20]!r}")
    return int(digits, 8)


def _decimal(digits: bytes) -> int:
    """Parse a number of a PAX record or a list; negative and overlong ones are refused."""
    if not digits.isdigit() or len(digits) > 20:
        raise BadTar(f"a number that is none: {digits[:20]!r}")
    return _require_bounded(int(digits))


def _require_bounded(number: int) -> int:
    if number > _NUMBER_LIMIT:
        raise BadTar(f"a number that is too large: {number:e}")
    return number


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    r"""Return the relevant records of a PAX header, a sequence of `LENGTH KEY=VALUE\n`.

    The length counts the whole record, and the value may hold any bytes.
    """
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 20)
        digits = data[at:blank] if blank > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if end <= blank or end > len(data) or not equals or data[end - 1 : end] != b"\n":
            raise BadTar("a PAX header is damaged")
        if key in _KNOWN:
            found[key] = value
        at = end
    return found


def _normalize_path(name: bytes) -> bytes:
    """Return a path relative to `volume` in its one normal form; nothing else is ever extracted."""
    first, _, rest = name.removesuffix(b"/").partition(b"/")
    parts = rest.split(b"/")
    if first != b"volume" or b".." in parts:
        raise BadTar(f"a member outside of the volume: {name[:100]!r}")
    if b"\0" in rest or (rest and (b"" in parts or b"." in parts)):
        raise BadTar(f"a member's name is not in its normal form: {name[:100]!r}")
    return rest


def resolve_links(tar: Callable[[], Iterable[Member]]) -> Iterator[Member]:
    """Yield the members with every hard link as a file, as a listing of the folder shows them.

    Links come last. `tar` is read a second time if there are any.

    Raises:
        BadTar: A link points to nothing.
    """
    links: list[Member] = []
    for member in tar():
        if member.type == "h":
            links.append(member)
        else:
            yield member
    wanted = {m.link for m in links}
    targets = {m.path: m for m in tar() if m.path in wanted and m.type != "h"} if wanted else {}
    for link in links:
        if link.link not in targets:
            raise BadTar(f"a hard link to nothing: {link.path!r}")
        yield targets[link.link]._replace(path=link.path)


def read_list(blocks: Iterable[bytes]) -> Iterator[Member]:
    """Yield the entries of a list (see `Member.record`); a folder's own size is ignored.

    Raises:
        BadTar: The list is damaged.
    """
    carry: list[bytes] = []
    size = 0
    for block in blocks:
        first, *others = block.split(b"\0")
        carry.append(first)
        size += len(first)
        if size > _ENTRY_LIMIT:
            raise BadTar("the list holds an entry that is too long")
        if others:
            yield _entry(b"".join(carry))
            *whole, last = others
            yield from map(_entry, whole)
            carry, size = [last], len(last)
    if size:
        raise BadTar("the list ends within an entry")


def _entry(record: bytes) -> Member:
    try:
        kind, size, mode, uid, gid, path = record.split(b" ", 5)
        letter = kind.decode("ascii")
    except ValueError:
        letter = ""
    if letter not in _KINDS:
        raise BadTar(f"the list holds an entry that is none: {record[:60]!r}")
    return Member(
        letter,
        _decimal(size) if letter in "fl" else 0,
        _octal(mode),
        _decimal(uid),
        _decimal(gid),
        path,
    )
