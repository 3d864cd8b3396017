"""What is in a tar stream, and whether it is what a list says: read strictly, in bounded memory.

The standard library's tarfile is not used to judge: in a stream it takes a damaged header after the first member, and a
missing end, for the end of the archive, and it keeps every member.
"""

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

RECORD = 512
HEAD = 16
"""Bytes at the beginning of a file that tell some kinds."""
_ZERO = bytes(RECORD)
_TYPES = {b"0": "f", b"\0": "f", b"7": "f", b"1": "h", b"2": "l", b"3": "c", b"4": "b", b"5": "d", b"6": "p"}
"""tar's type flags as `find -printf %y` writes them; `h` is a hard link to an earlier member."""
_PAX_LIMIT = 16 << 20


class BadTar(Exception):
    """The stream is not one whole tar archive of a folder called `volume`; the text says why."""


class Member(NamedTuple):
    """One entry of a volume; as a list knows it when `link` is empty."""

    type: str
    """`f` file, `d` folder, `l` symbolic link, `h` hard link, `p` fifo, `c` and `b` devices, `s` socket."""
    size: int
    """Bytes of a file, or of a symbolic link's target; else 0."""
    mode: int
    uid: int
    gid: int
    path: bytes
    """Relative to the volume's root, which itself is empty."""
    link: bytes = b""
    """For `h`: the path of the member that holds the content."""

    def record(self) -> bytes:
        """One entry of a list: `type size mode uid gid path`, the mode octal; entries end with a NUL."""
        return b"%s %d %o %d %d %s" % (self.type.encode(), self.size, self.mode, self.uid, self.gid, self.path)


class _Reader:
    """Exact reads from blocks of any length."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._block = b""
        self._at = 0

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes; raises BadTar when the stream ends before."""
        if self._at + count <= len(self._block):  # nearly always
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


def members(blocks: Iterable[bytes], look: Callable[[Member, bytes], None] | None = None) -> Iterator[Member]:
    """Every member of a tar stream (POSIX with PAX records, as GNU tar and the engine write it), the whole stream read.

    `look` gets each file with its first HEAD bytes (fewer of a shorter one).

    Sparse files (PAX 0.x and 1.0) come with their real names and sizes. Raises BadTar for a wrong checksum, an unknown type, a
    member outside of `volume/`, a missing end (two zero records) and for anything after it but zeros. Raises what `blocks` does.
    """
    reader = _Reader(blocks)
    everywhere: dict[bytes, bytes] = {}
    pax: dict[bytes, bytes] = {}
    while (header := reader.read(RECORD)) != _ZERO:
        _check(header)
        flag = header[156:157]
        size = _number(header[124:136])
        if flag in b"xg":
            if size > _PAX_LIMIT:
                raise BadTar("a PAX header is too long")
            records = _pax_records(reader.read(size))
            reader.skip(-size % RECORD)
            if flag == b"g":
                everywhere.update(records)
            else:
                pax = records
            continue
        facts = {**everywhere, **pax}
        pax = {}
        size = int(facts.get(b"size", size))
        kind = _TYPES.get(flag)
        if kind is None:
            raise BadTar(f"a member of an unknown type {flag!r}")
        prefix = _text(header[345:500])
        name = facts.get(b"path") or (prefix + b"/" if prefix else b"") + _text(header[:100])
        name = facts.get(b"GNU.sparse.name", name)
        link = facts.get(b"linkpath") or _text(header[157:257])
        mode = _number(header[100:108]) & 0o7777
        uid = int(facts.get(b"uid", b"-1")) if b"uid" in facts else _number(header[108:116])
        gid = int(facts.get(b"gid", b"-1")) if b"gid" in facts else _number(header[116:124])
        if kind == "f":
            real = int(facts.get(b"GNU.sparse.realsize") or facts.get(b"GNU.sparse.size") or size)
            member = Member("f", real, mode, uid, gid, _inside(name))
            taken = 0
            if look is not None:
                head, taken = _sparse_head(reader, size) if b"GNU.sparse.major" in facts else _head(reader, size)
                look(member, head)
            reader.skip(size - taken + -size % RECORD)
            yield member
        elif kind == "l":
            yield Member("l", len(link), mode, uid, gid, _inside(name))
        elif kind == "h":
            yield Member("h", 0, mode, uid, gid, _inside(name), _inside(link))
        else:
            yield Member(kind, 0, mode, uid, gid, _inside(name))
    if pax:
        raise BadTar("a PAX header without a member")
    if reader.read(RECORD) != _ZERO:
        raise BadTar("the end of the archive is damaged")
    for block in reader.rest():
        if block.count(0) != len(block):
            raise BadTar("something follows the end of the archive")


def _head(reader: _Reader, size: int) -> tuple[bytes, int]:
    head = reader.read(min(size, HEAD))
    return head, len(head)


def _sparse_head(reader: _Reader, size: int) -> tuple[bytes, int]:
    """The first bytes of a sparse file, and how many bytes were taken for that. Before its content stands, in whole records, a
    map: how many pieces, then offset and length of each, one number on a line (GNU tar's PAX format 1.0)."""
    text = b""
    while len(text) + RECORD + HEAD <= size and len(text) < 64 * RECORD:
        text += reader.read(RECORD)
        numbers = text.split(b"\n")[:-1]
        if numbers and numbers[0].isdigit() and len(numbers) > 2 * int(numbers[0]) > 0:
            head = reader.read(HEAD) if numbers[1] == b"0" else b""
            return head, len(text) + len(head)
    return b"", len(text)


def _check(header: bytes) -> None:
    try:
        stored = int(_text(header[148:156]).strip() or b"-1", 8)
    except ValueError:
        stored = -1
    if sum(header[:148]) + 8 * 32 + sum(header[156:]) != stored:
        raise BadTar("a header is damaged (wrong checksum)")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary form for what they cannot hold."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(_text(field).strip() or b"0", 8)
    except ValueError:
        raise BadTar("a header holds a number that is none") from None


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """`LENGTH KEY=VALUE\\n` again and again; the length counts the whole record, and the value may hold anything."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 20)
        try:
            end = at + int(data[at:blank])
        except ValueError:
            raise BadTar("a PAX header is damaged") from None
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if blank < 0 or end <= blank or end > len(data) or not equals or data[end - 1 : end] != b"\n":
            raise BadTar("a PAX header is damaged")
        found[key] = value
        at = end
    return found


def _inside(name: bytes) -> bytes:
    """The path below `volume`; nothing else is ever extracted."""
    first, _, rest = name.partition(b"/")
    path = rest.rstrip(b"/")
    if first != b"volume" or b".." in path.split(b"/"):
        raise BadTar(f"a member outside of the volume: {name!r}")
    return path


def resolved(tar: Callable[[], Iterable[Member]]) -> Iterator[Member]:
    """The members with every hard link as the file that it is (these last), as a list of a folder shows them.

    `tar` is read a second time when there are any. Raises BadTar for a link to nothing.
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


def listed(blocks: Iterable[bytes]) -> Iterator[Member]:
    """The entries of a list (see `Member.record`); a folder's own size is ignored. Raises BadTar."""
    carry = b""
    for block in blocks:
        *whole, carry = (carry + block).split(b"\0")
        yield from map(_entry, whole)
    if carry:
        raise BadTar("the list ends within an entry")


def _entry(record: bytes) -> Member:
    try:
        kind, size, mode, uid, gid, path = record.split(b" ", 5)
        return Member(kind.decode(), int(size) if kind in b"fl" else 0, int(mode, 8), int(uid), int(gid), path)
    except ValueError:
        raise BadTar("the list holds an entry that is none") from None


def compare(tar: Callable[[], Iterable[Member]], entries: Callable[[], Iterable[Member]]) -> int:
    """Hold an archive against a list; both are read once, and once more to name what differs.

    The order may differ, so the entries are added up: equal sums of 256-bit hashes, and equal numbers, mean equal sets. Only
    hard links are remembered. Sockets, which no tar can hold, are left out.

    Returns how many members there are; raises BadTar naming some that differ.
    """
    count = total = 0
    links: dict[bytes, Member] = {}
    for member in tar():
        count += 1
        if member.type == "h":
            links[member.path] = member
        else:
            total += _hash(member)
    targets: dict[bytes, Member | None] = {member.link: None for member in links.values()}
    linked: list[Member] = []
    rest = count
    for entry in entries():
        if entry.type == "s":
            continue
        rest -= 1
        if entry.path in targets:
            targets[entry.path] = entry
        if entry.path in links:
            linked.append(entry)
        else:
            total -= _hash(entry)
    if rest == 0 and total == 0 and len(linked) == len(links) and all(_same(e, links[e.path], targets) for e in linked):
        return count
    raise BadTar("; ".join(_differences(tar, entries)) or "hard links differ from the list")


def _same(entry: Member, member: Member, targets: dict[bytes, Member | None]) -> bool:
    target = targets[member.link]
    if target is None:
        return False
    return (entry.type, entry.size, entry.mode, entry.uid, entry.gid) == (
        target.type,
        target.size,
        target.mode,
        target.uid,
        target.gid,
    )


def _hash(member: Member) -> int:
    return int.from_bytes(blake2b(member.record(), digest_size=32).digest(), "big")


def _differences(tar: Callable[[], Iterable[Member]], entries: Callable[[], Iterable[Member]]) -> Iterator[str]:
    """At most three of each side, in words. Only walked when something is wrong: it keeps a small number per entry."""
    links = {m.path for m in tar() if m.type == "h"}
    sides = (
        (tar, entries, "is in the archive, but not so in the list"),
        (entries, tar, "is in the list, but not so in the archive"),
    )
    for left, right, what in sides:
        known = {hash(m.record()) for m in right()}
        shown = 0
        for member in left():
            if member.type != "s" and member.path not in links and hash(member.record()) not in known:
                yield f"{member.path.decode('utf-8', 'backslashreplace') or 'the root'} ({member.type}) {what}"
                shown += 1
                if shown == 3:
                    break
