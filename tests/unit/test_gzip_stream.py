"""The one pass that writes files, and the reading back that judges them."""

import errno
import gzip
import hashlib
import itertools
import os
import random
import resource
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from safe_compose.core.backup import Artifact
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.volumes import gzip_stream
from safe_compose.volumes.backup_files import MeasuredFile, removing_on_fault

TEXT = b"".join(b"%d\tsome words %d\n" % (i, i * 7919 % 10007) for i in range(20000))


def _blocks(data: bytes, size: int = 65536) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def _packed(folder: Path, data: bytes = TEXT) -> Artifact:
    sums = gzip_stream.pack(_blocks(data), folder / "x.gz", subject="v", stage="test")
    return Artifact("x.gz", "archive", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")


def test_what_is_packed_is_an_ordinary_gzip_file_with_the_measured_sums(tmp_path: Path) -> None:
    artifact = _packed(tmp_path)
    raw = (tmp_path / "x.gz").read_bytes()
    assert gzip.decompress(raw) == TEXT
    assert (artifact.bytes, artifact.sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
    assert artifact.uncompressed_bytes == len(TEXT)
    assert subprocess.run(["gzip", "--test", tmp_path / "x.gz"], check=False).returncode == 0


def test_the_header_tells_no_time_and_the_mode_is_private_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _packed(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "x.gz").read_bytes()[4:8] == bytes(4)
    assert (tmp_path / "x.gz").stat().st_mode & 0o7777 == 0o600


def test_an_empty_stream_and_one_larger_than_its_file_come_back_whole(tmp_path: Path) -> None:
    for number, data in enumerate((b"", bytes(50 << 20))):
        folder = tmp_path / str(number)
        folder.mkdir()
        artifact = _packed(folder, data)
        blocks = list(gzip_stream.unpack(folder, artifact))
        assert b"".join(blocks) == data
        assert max(map(len, blocks), default=0) <= gzip_stream.BLOCK


def test_blocks_of_any_size_become_one_gzip_member_that_every_reader_takes(tmp_path: Path) -> None:
    chance = random.Random(7)
    data = TEXT * 12 + chance.randbytes(3 << 20) + bytes(2 << 20)
    cuts = [
        0,
        1,
        2,
        40,
        gzip_stream.WINDOW - 1,
        3 * gzip_stream.WINDOW,
        *sorted(chance.choices(range(len(data)), k=30)),
        len(data),
    ]
    blocks = (data[start:end] for start, end in itertools.pairwise(sorted(cuts)))
    sums = gzip_stream.pack(blocks, tmp_path / "x.gz", subject="v", stage="test")
    assert sums.uncompressed_bytes == len(data)
    assert (
        subprocess.run(
            ["gzip", "--decompress", "--stdout", tmp_path / "x.gz"], capture_output=True, check=True
        ).stdout
        == data
    )
    member = zlib.decompressobj(31)
    assert member.decompress((tmp_path / "x.gz").read_bytes()) == data
    assert member.eof and not member.unused_data
    artifact = Artifact("x.gz", "archive", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")
    assert b"".join(gzip_stream.unpack(tmp_path, artifact)) == data


def test_memory_does_not_grow_with_the_stream(tmp_path: Path) -> None:
    script = (
        "import re, sys; from pathlib import Path\nfrom safe_compose.core.backup import Artifact;"
        " from safe_compose.volumes import gzip_stream\nfolder, blocks = Path(sys.argv[1]),"
        " (bytes([n & 255]) * gzip_stream.BLOCK for n in range(200))\nsums ="
        " gzip_stream.pack(blocks, folder / 'x.gz', subject='v', stage='s')\nartifact ="
        " Artifact('x.gz', 'list', sums.bytes, sums.sha256, sums.uncompressed_bytes, 'v')\nsize ="
        " sum(map(len, gzip_stream.unpack(folder, artifact)))\nprint(size >> 20,"
        " int(re.search(r'VmHWM: +(\\d+)', Path('/proc/self/status').read_text().expandtabs())[1])"
        " >> 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    mebibytes, high_mark = map(int, done.stdout.split())
    assert mebibytes == 400
    assert high_mark < 80


@pytest.mark.parametrize("level", [1, 9])
def test_a_stream_that_comes_compressed_is_kept_as_it_is_and_measured(
    tmp_path: Path, level: int
) -> None:
    data = TEXT + bytes(40 << 20)
    packed, seen = gzip.compress(data, level, mtime=0), [0]
    sums = gzip_stream.write_stream(
        _blocks(packed, 1000), tmp_path / "x.gz", subject="v", stage="test", progress=seen.append
    )
    assert (tmp_path / "x.gz").read_bytes() == packed
    assert sums == gzip_stream.Sums(len(packed), hashlib.sha256(packed).hexdigest(), len(data))
    assert seen == sorted(seen) and seen[-1] == len(data)
    artifact = Artifact("x.gz", "database", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")
    assert (
        hashlib.sha256(b"".join(gzip_stream.unpack(tmp_path, artifact))).digest()
        == hashlib.sha256(data).digest()
    )


def test_a_stream_that_came_compressed_and_cut_or_with_more_behind_it_proves_nothing(
    tmp_path: Path,
) -> None:
    packed = gzip.compress(TEXT, mtime=0)
    for came, why in [(packed[:cut], "too early") for cut in (3, 500, len(packed) - 1)] + [
        (packed * 2, "follows")
    ]:
        (tmp_path / "x.gz").unlink(missing_ok=True)
        sums = gzip_stream.write_stream([came], tmp_path / "x.gz", subject="v", stage="test")
        artifact = Artifact(
            "x.gz", "database", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v"
        )
        with pytest.raises(VerificationFailed, match=why):
            list(gzip_stream.unpack(tmp_path, artifact))


def test_what_only_begins_like_a_compressed_stream_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="volume v: dump: what came is no gzip stream"):
        gzip_stream.write_stream(
            [gzip_stream.GZIP + TEXT], tmp_path / "x.gz", subject="v", stage="dump"
        )
    assert not (tmp_path / "x.gz").exists()


def test_progress_ends_at_the_size(tmp_path: Path) -> None:
    reported = [0]
    gzip_stream.pack(
        _blocks(TEXT), tmp_path / "x.gz", subject="v", stage="t", progress=reported.append
    )
    assert reported == sorted(reported) and reported[-1] == len(TEXT)


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(b"old")
    with pytest.raises(OperationFailed, match=r"volume v: test: x\.gz"):
        _packed(tmp_path)
    with pytest.raises(OperationFailed), removing_on_fault(tmp_path / "x.gz"):
        _packed(tmp_path)
    assert (tmp_path / "x.gz").read_bytes() == b"old"


def test_a_full_disk_is_named_with_volume_stage_and_what_to_do() -> None:
    # /dev/full answers every write with ENOSPC; a real path to it would be refused, so only the
    # writing is driven here
    file = MeasuredFile(os.open("/dev/full", os.O_WRONLY), Path("/store/v/x.gz"), "v", "dump")
    with pytest.raises(OperationFailed, match=r"volume v: dump: .*space") as fault:
        file.write(b"x")
    file.abandon()
    assert fault.value.code == 73
    assert fault.value.next_step is not None and "SAFE_COMPOSE_HOME" in fault.value.next_step


def test_a_file_size_limit_ends_the_backup_and_removes_the_part(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path; from safe_compose.volumes import"
        " gzip_stream\nfrom safe_compose.errors import"
        " OperationFailed\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\ntry:"
        " gzip_stream.pack((os.urandom(1 << 16) for _ in range(64)), Path(sys.argv[1]),"
        " subject='v', stage='s')\nexcept OperationFailed as fault: print(fault.code,"
        " fault.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "x.gz"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(
        "73 volume v: s: x.gz could not be written: " + os.strerror(errno.EFBIG)
    )
    assert not (tmp_path / "x.gz").exists()


def test_a_source_that_fails_leaves_no_half_file(tmp_path: Path) -> None:
    def source() -> Iterator[bytes]:
        yield TEXT
        raise RuntimeError("the source died")

    with pytest.raises(RuntimeError, match="the source died"):
        gzip_stream.pack(source(), tmp_path / "x.gz", subject="v", stage="t")
    assert not (tmp_path / "x.gz").exists()


def _rejects(folder: Path, artifact: Artifact) -> None:
    with pytest.raises(VerificationFailed):
        gzip_stream.check(folder, artifact)
    with pytest.raises(VerificationFailed):
        for _ in gzip_stream.unpack(folder, artifact):
            pass


def test_every_proper_prefix_is_rejected(tmp_path: Path) -> None:
    artifact = _packed(tmp_path, TEXT[:30000])
    raw = (tmp_path / "x.gz").read_bytes()
    for cut in [*range(0, len(raw), 211), *range(len(raw) - 20, len(raw))]:
        (tmp_path / "x.gz").write_bytes(raw[:cut])
        _rejects(tmp_path, artifact)


def test_a_cut_gzip_is_rejected_although_its_size_and_sum_were_recorded(tmp_path: Path) -> None:
    artifact = _packed(tmp_path, TEXT[:30000])
    raw = (tmp_path / "x.gz").read_bytes()
    for cut in (0, 5, 10, 500, len(raw) - 9, len(raw) - 8, len(raw) - 1):
        (tmp_path / "x.gz").write_bytes(raw[:cut])
        forged = replace(artifact, bytes=cut, sha256=hashlib.sha256(raw[:cut]).hexdigest())
        with pytest.raises(VerificationFailed, match="too early"):
            list(gzip_stream.unpack(tmp_path, forged))


def test_one_flipped_bit_anywhere_is_rejected(tmp_path: Path) -> None:
    artifact = _packed(tmp_path, TEXT[:30000])
    raw = (tmp_path / "x.gz").read_bytes()
    for at in [*range(10), *range(10, len(raw) - 8, 307), *range(len(raw) - 8, len(raw))]:
        damaged = bytearray(raw)
        damaged[at] ^= 1 << at % 8
        (tmp_path / "x.gz").write_bytes(damaged)
        _rejects(tmp_path, artifact)


def test_what_rots_after_its_check_is_still_seen_by_gzips_own_sum(tmp_path: Path) -> None:
    artifact = _packed(tmp_path, TEXT[:30000])
    with gzip_stream.checking(tmp_path, artifact, artifact) as proved:
        proved()
    assert b"".join(gzip_stream.unpack(tmp_path, artifact, checked=True)) == TEXT[:30000]
    raw = (tmp_path / "x.gz").read_bytes()
    for at in range(10, len(raw), 211):
        (tmp_path / "x.gz").write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        with pytest.raises(VerificationFailed):
            list(gzip_stream.unpack(tmp_path, artifact, checked=True))
        with gzip_stream.checking(tmp_path, artifact) as proved, pytest.raises(VerificationFailed):
            proved()


def test_other_bytes_than_came_are_rejected_although_their_sum_was_recorded(tmp_path: Path) -> None:
    """A fault of compressing itself: the checksum was taken of what came."""
    artifact = _packed(tmp_path)
    other = gzip.compress(TEXT[::-1], mtime=0)
    crc_and_size = (tmp_path / "x.gz").read_bytes()[-8:]
    (tmp_path / "x.gz").write_bytes(other[:-8] + crc_and_size)
    raw = (tmp_path / "x.gz").read_bytes()
    forged = replace(artifact, bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    with pytest.raises(VerificationFailed, match="damaged"):
        list(gzip_stream.unpack(tmp_path, forged))


def test_whatever_follows_the_gzip_stream_is_rejected(tmp_path: Path) -> None:
    artifact = _packed(tmp_path)
    raw = (tmp_path / "x.gz").read_bytes()
    for more in (b"\0", b"junk", gzip.compress(b"a second member")):
        (tmp_path / "x.gz").write_bytes(raw + more)
        forged = replace(
            artifact, bytes=len(raw + more), sha256=hashlib.sha256(raw + more).hexdigest()
        )
        with pytest.raises(VerificationFailed, match="follows"):
            list(gzip_stream.unpack(tmp_path, forged))


def test_a_missing_file_a_folder_and_a_pipe_are_no_artifacts(tmp_path: Path) -> None:
    artifact = _packed(tmp_path)
    (tmp_path / "x.gz").unlink()
    _rejects(tmp_path, artifact)
    (tmp_path / "x.gz").mkdir()
    _rejects(tmp_path, artifact)


def test_without_isal_the_standard_library_writes_the_same_kind_of_file(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['isal'] = None\nfrom pathlib import Path; from"
        " safe_compose.core.backup import Artifact; from safe_compose.volumes import"
        " gzip_stream\nfolder = Path(sys.argv[1]); sums = gzip_stream.pack([b'text' * 9999] * 2,"
        " folder / 'x.gz', subject='v', stage='s')\nartifact = Artifact('x.gz', 'list', sums.bytes,"
        " sums.sha256, sums.uncompressed_bytes, 'v')\nprint(gzip_stream.zlib.__name__,"
        " b''.join(gzip_stream.unpack(folder, artifact)) == b'text' * 19998)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "zlib True\n"
    assert gzip.decompress((tmp_path / "x.gz").read_bytes()) == b"text" * 19998
