"""The strict tar reader and the comparison with a list: held against GNU tar and find, and against
damage.
"""

import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.volumes.comparison import compare
from safe_compose.volumes.tar import BadTar, Member, read_list, read_members, resolve_links


def _blocks(data: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("members") / "volume"
    root.mkdir()
    (root / "plain").write_bytes(b"x" * 1000)
    (root / "empty").touch()
    os.link(root / "plain", root / "hard link")
    (root / "dangling").symlink_to("/nowhere/" + "y" * 150)
    os.mkfifo(root / "fifo")
    deep = root / ("d" * 200)
    deep.mkdir(0o700)
    (deep / ("e" * 220)).write_bytes(b"z")
    (root / "new\nline").write_bytes(b"1")
    (root / "grüße").write_bytes(b"2")
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff\xfename")).write_bytes(b"3")
    with (root / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(20 << 20)
        file.write(b"island")
    root.chmod(0o2751)
    return root


@pytest.fixture(scope="module")
def tar(volume: Path) -> bytes:
    argv = [
        "tar",
        "--create",
        "--format=posix",
        "--numeric-owner",
        "--sparse",
        "-C",
        str(volume.parent),
        "volume",
    ]
    return subprocess.run(argv, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def entries(volume: Path) -> bytes:
    argv = ["find", str(volume), "-xdev", "-printf", r"%y %s %m %U %G %P\0"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def _compare(tar: bytes, entries: bytes) -> int:
    return compare(lambda: read_members(_blocks(tar)), lambda: read_list(_blocks(entries, 100)))


def test_an_archive_equals_the_list_that_find_made(tar: bytes, entries: bytes) -> None:
    assert _compare(tar, entries) == 12


def test_sparse_files_links_and_odd_names_are_read_as_they_are(tar: bytes) -> None:
    found = {m.path: m for m in read_members(_blocks(tar, 777))}
    assert found[b"sparse"].size == 64 << 20
    assert found[b""].mode == 0o2751
    assert found[b"bad\xff\xfename"].size == found[b"new\nline"].size == 1
    assert {m.link for m in found.values() if m.type == "h"} <= {b"plain", b"hard link"}
    assert found[b"d" * 200 + b"/" + b"e" * 220].type == "f"


def test_a_list_from_the_archive_itself_is_the_same_list(tar: bytes, entries: bytes) -> None:
    made = b"".join(m.record() + b"\0" for m in resolve_links(lambda: read_members(_blocks(tar))))
    assert sorted(read_list([made])) == sorted(read_list([entries]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"f 1000 644", b"f 1001 644"),
        (b"f 0 644", b"f 0 600"),
        (b" empty\0", b" emptx\0"),
        (b"p 0 ", b"c 0 "),
        (b" dangling\0", b" dangling\0f 1 644 0 0 more\0"),
    ],
)
def test_any_difference_from_the_list_is_found_and_named(
    tar: bytes, entries: bytes, old: bytes, new: bytes
) -> None:
    assert entries.count(old) >= 1
    with pytest.raises(BadTar, match="list"):
        _compare(tar, entries.replace(old, new))


def test_a_hard_link_to_another_content_is_found(tar: bytes, entries: bytes) -> None:
    both = [e for e in read_list([entries]) if e.path in (b"plain", b"hard link")]
    for one in both:
        wrong = entries.replace(one.record() + b"\0", one._replace(uid=4711).record() + b"\0")
        with pytest.raises(BadTar):
            _compare(tar, wrong)


def test_sockets_in_the_list_are_no_difference(tar: bytes, entries: bytes) -> None:
    assert _compare(tar, entries + b"s 0 755 0 0 run/socket\0") == 12


def test_every_cut_before_the_end_marker_is_rejected(tar: bytes) -> None:
    end = len(tar.rstrip(b"\0"))
    end += -end % 512
    for cut in [*range(0, end + 1024, 512), *range(1, end, 4099)]:
        with pytest.raises(BadTar):
            list(read_members(_blocks(tar[:cut])))
    assert list(read_members(_blocks(tar[: end + 1024])))


def test_a_damaged_header_anywhere_is_rejected(tar: bytes) -> None:
    for at in range(0, len(tar.rstrip(b"\0")), 512):
        if tar[at + 257 : at + 262] == b"ustar":
            damaged = bytearray(tar)
            damaged[at + 110] ^= 1
            with pytest.raises(BadTar):
                list(read_members(_blocks(bytes(damaged))))


def test_something_after_the_end_is_rejected(tar: bytes) -> None:
    with pytest.raises(BadTar, match="follows"):
        list(read_members(_blocks(tar + b"more")))


@pytest.mark.parametrize("name", ["etc/passwd", "volume/../etc/passwd", "/volume/x", "volumes/x"])
def test_a_member_outside_of_the_volume_is_rejected(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("volume/ok")
        info.name = name
        made.addfile(info)
    with pytest.raises(BadTar, match="outside"):
        list(read_members([(tmp_path / "x.tar").read_bytes()]))


def test_large_numbers_are_read_from_pax_and_from_gnu_headers(tmp_path: Path) -> None:
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=format) as made:
            root = tarfile.TarInfo("volume")
            root.type = tarfile.DIRTYPE
            made.addfile(root)
            info = tarfile.TarInfo("volume/x")
            info.uid = info.gid = 3_000_000_000
            made.addfile(info)
        _, found = read_members([(tmp_path / "x.tar").read_bytes()])
        assert found == Member("f", 0, 0o644, 3_000_000_000, 3_000_000_000, b"x")


def test_a_hundred_thousand_members_need_little_memory(tmp_path: Path) -> None:
    block = tarfile.TarInfo("volume/x").tobuf(tarfile.USTAR_FORMAT)

    def stream() -> Iterator[bytes]:
        root = tarfile.TarInfo("volume")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        yield root.tobuf(tarfile.USTAR_FORMAT)
        for start in range(0, 100_000, 1000):
            yield b"".join(_numbered(start + i) for i in range(1000))
        yield bytes(1024)

    def _numbered(number: int) -> bytes:
        header = bytearray(block)
        header[:100] = f"volume/{number:06}".encode().ljust(100, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header)

    entries = (
        b"".join(b"f 0 644 0 0 %06d\0" % i for i in reversed(range(100_000))) + b"d 0 755 0 0 \0"
    )
    tracemalloc.start()
    try:
        assert (
            compare(lambda: read_members(stream()), lambda: read_list(_blocks(entries))) == 100_001
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
