"""Archives and lists that nobody honest wrote: each is one sentence, in bounded time and memory,
and never another exception.
"""

import base64
import json
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from safe_compose.engine import volume_entries
from safe_compose.volumes.tar import BadTar, Member, read_list, read_members

END = bytes(1024)
FOLDER, FILE, LINK, HARD, PAX, GLOBAL = b"5", b"0", b"2", b"1", b"x", b"g"


def header(
    name: bytes,
    kind: bytes = FILE,
    *,
    size: bytes = b"0",
    link: bytes = b"",
    mode: bytes = b"644",
    uid: bytes = b"0",
) -> bytes:
    """One ustar header with whatever stands in its fields, and a right checksum."""
    made = bytearray(512)

    def put(at: int, text: bytes) -> None:
        made[at : at + len(text)] = text

    put(0, name)
    put(100, mode)
    put(108, uid)
    put(116, b"0")
    put(124, size)
    put(136, b"0")
    put(156, kind)
    put(157, link)
    put(257, b"ustar\x0000")
    put(148, b" " * 8)
    put(148, b"%06o\0 " % sum(made))
    return bytes(made)


def records(*pairs: tuple[bytes, bytes], kind: bytes = PAX) -> bytes:
    data = b""
    for key, value in pairs:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body)
        while len(b"%d" % length) + len(body) != length:
            length = len(b"%d" % length) + len(body)
        data += b"%d" % length + body
    return raw(data, kind)


def raw(data: bytes, kind: bytes = PAX) -> bytes:
    return header(b"pax", kind, size=b"%o" % len(data)) + data + bytes(-len(data) % 512)


ROOT = header(b"volume/", FOLDER, mode=b"755")
TARS: dict[str, bytes] = {
    "no member at all": END,
    "the root is a file": header(b"volume") + END,
    "the root is a link": header(b"volume", LINK, link=b"/etc") + END,
    "the root is a hard link": header(b"volume", HARD, link=b"volume/x") + END,
    "the root comes later": header(b"volume/x") + ROOT + END,
    "the root twice": ROOT + ROOT + END,
    "a size of minus one record": ROOT + header(b"volume/x", size=b"-1000") + END,
    "a size that is no number": ROOT + header(b"volume/x", size=b"12x") + END,
    "a size with a sign": ROOT + header(b"volume/x", size=b"+12") + bytes(512) + END,
    "an owner below zero": ROOT + header(b"volume/x", uid=b"-1") + END,
    "a mode below zero": ROOT + header(b"volume/x", mode=b"-1") + END,
    "a negative binary size": ROOT + header(b"volume/x", size=b"\xff" * 11 + b"\x00") + END,
    "a binary size of exabytes": ROOT + header(b"volume/x", size=b"\x80" + b"\x7f" * 11) + END,
    "a PAX size below zero": ROOT + records((b"size", b"-512")) + header(b"volume/x") + END,
    "a PAX size that is no number": ROOT + records((b"size", b"many")) + header(b"volume/x") + END,
    "a PAX size of ten thousand digits": (
        ROOT + records((b"size", b"9" * 10_000)) + header(b"volume/x") + END
    ),
    "a PAX owner that is no number": ROOT + records((b"uid", b"root")) + header(b"volume/x") + END,
    "a PAX group below zero": ROOT + records((b"gid", b"-1")) + header(b"volume/x") + END,
    "a real size below zero": (
        ROOT + records((b"GNU.sparse.realsize", b"-1536")) + header(b"volume/x") + END
    ),
    "a real size that is no number": (
        ROOT + records((b"GNU.sparse.size", b"0x10")) + header(b"volume/x") + END
    ),
    "a record longer than its header": (
        ROOT + raw(b"99 path=volume/x\n") + header(b"volume/x") + END
    ),
    "a record without a length": ROOT + raw(b"path=volume/x\n") + header(b"volume/x") + END,
    "a record of a negative length": ROOT + raw(b"-9 path=x\n") + header(b"volume/x") + END,
    "a record without its line's end": ROOT + raw(b"17 path=volume/x ") + header(b"volume/x") + END,
    "a name with a NUL": ROOT + records((b"path", b"volume/x\0y")) + header(b"volume/x") + END,
    "an empty part in a name": ROOT + header(b"volume//x") + END,
    "a dot in a name": ROOT + header(b"volume/./x") + END,
    "two dots in a name": ROOT + header(b"volume/../x") + END,
    "an absolute name": ROOT + header(b"/volume/x") + END,
    "a hard link that leads out": ROOT + header(b"volume/x", HARD, link=b"../etc/passwd") + END,
    "a hard link to an absolute name": ROOT + header(b"volume/x", HARD, link=b"/etc/passwd") + END,
    "a hard link to the root": ROOT + header(b"volume/x", HARD, link=b"volume/") + END,
    "a type that nobody knows": ROOT + header(b"volume/x", b"Z") + END,
    "a PAX header at the end": ROOT + records((b"path", b"volume/x")) + END,
    "a long PAX header": ROOT + header(b"pax", PAX, size=b"7777777777") + END,
    "one record of zeros at the end": ROOT + bytes(512) + header(b"volume/x") + END,
    "an end that is cut": ROOT + bytes(512),
}


@pytest.mark.parametrize("tar", TARS.values(), ids=TARS.keys())
@pytest.mark.parametrize(
    "look", [None, lambda member, head: None], ids=["read", "read with beginnings"]
)
def test_a_hostile_archive_is_one_sentence(
    tar: bytes, look: Callable[[Member, bytes], None] | None
) -> None:
    with pytest.raises(BadTar) as fault:
        list(read_members([tar], look))
    assert len(str(fault.value)) < 300


def test_what_these_are_made_of_is_read_when_it_is_honest() -> None:
    facts = ((b"size", b"3"), (b"uid", b"3000000000"), (b"path", b"volume/l\xc3\xa4nger"))
    tar = ROOT + records(*facts) + header(b"volume/x") + b"abc" + bytes(509)
    tar += header(b"volume/y", HARD, link=b"volume/l\xc3\xa4nger") + END
    assert [m.path for m in read_members([tar])] == [b"", b"l\xc3\xa4nger", b"y"]


def test_global_records_without_end_take_no_memory() -> None:
    def stream() -> Iterator[bytes]:
        yield ROOT
        for number in range(3000):
            yield records((b"x%d" % number, b"y" * 20_000), kind=GLOBAL)
        yield END

    tracemalloc.start()
    try:
        assert len(list(read_members(stream()))) == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20, f"{peak >> 20} MiB"


LISTS: dict[str, bytes] = {
    "an entry that is cut": b"d 0 755 0 0 \0f 1 644 0 0 x",
    "a size that is no number": b"f x 644 0 0 x\0",
    "a size below zero": b"f -1536 644 0 0 x\0",
    "a size of ten thousand digits": b"f " + b"9" * 10_000 + b" 644 0 0 x\0",
    "an owner below zero": b"f 1 644 -1 0 x\0",
    "a mode that is no octal number": b"f 1 999 0 0 x\0",
    "a type that nobody knows": b"D 1 644 0 0 x\0",
    "no type": b" 1 644 0 0 x\0",
    "a type that is no letter": b"\xff 1 644 0 0 x\0",
    "too few words": b"f 1 644\0",
    "nothing": b"\0",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS.keys())
def test_a_hostile_list_is_one_sentence(text: bytes) -> None:
    with pytest.raises(BadTar) as fault:
        list(read_list([text]))
    assert len(str(fault.value)) < 300


def test_a_list_without_an_end_of_entry_is_given_up_soon() -> None:
    def stream() -> Iterator[bytes]:
        yield b"f 1 644 0 0 "
        for _ in range(1 << 20):
            yield b"x" * 256

    begun = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(BadTar, match="too long"):
            list(read_list(stream()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20 and time.monotonic() - begun < 20


@pytest.mark.parametrize("ends", ["at the limit", "within the file"])
def test_a_file_of_an_exbibyte_at_the_root_of_a_volume_is_not_waited_for(ends: str) -> None:
    top, huge = tarfile.TarInfo("volume"), tarfile.TarInfo("volume/huge")
    top.type, huge.size = tarfile.DIRTYPE, 1 << 60
    sent = (
        top.tobuf()
        + huge.tobuf(tarfile.GNU_FORMAT)
        + bytes((9 << 20) if ends == "at the limit" else 5000)
    )
    began = time.monotonic()
    listing = volume_entries.list_archive(volume_entries.Chunks(iter([sent]), 8 << 20), None)
    assert listing.names == ("huge",) and not listing.whole and time.monotonic() - began < 10


@pytest.mark.parametrize("mtime", [-62135596800, 253402300799, 1 << 62])
def test_a_file_of_an_impossible_time_at_the_root_of_a_volume_is_listed(mtime: int) -> None:
    top, file = tarfile.TarInfo("volume"), tarfile.TarInfo("volume/file")
    top.type, file.mtime = tarfile.DIRTYPE, mtime
    sent = top.tobuf(tarfile.GNU_FORMAT) + file.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    listing = volume_entries.list_archive(volume_entries.Chunks(iter([sent]), 8 << 20), None)
    assert listing.names == ("file",)


@pytest.mark.parametrize("time_zone", ["+05:00", "-05:00"])
@pytest.mark.parametrize("year", ["0001-01-01T00:00:00", "9999-12-31T23:59:59"])
def test_the_time_of_a_mounted_folder_may_be_any_that_an_engine_sends(
    year: str, time_zone: str
) -> None:
    header = base64.b64encode(
        json.dumps({"mode": 0o644, "size": 3, "mtime": year + time_zone}).encode()
    ).decode()
    found = volume_entries._entry(header)
    assert found.size == 3 and (found.changed is None or found.changed.year in (1, 9999))
