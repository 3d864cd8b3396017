"""Archives of real volumes: everything comes back as it was, and nothing that is damaged passes."""

import io
import shutil
import stat
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.disks import mounted
from safe_compose.artifacts import Artifact
from safe_compose.engine import Engine, Helper
from safe_compose.errors import BackupFailed, LookAgain, VerifyFailed
from safe_compose.methods import archive, stream

pytestmark = pytest.mark.engine
DATABASE = "postgres:15"
"""An image with GNU tar and find."""
BARE = "busybox:latest"
"""One without."""


@pytest.fixture
def make_volume(engine: Engine) -> Iterator["Maker"]:
    maker = Maker(engine)
    yield maker
    for name in maker.names:
        engine.remove_volume(name)


class Maker:
    """Makes volumes with names that nobody else has."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.names: list[str] = []

    def __call__(self, content: bytes | None = None) -> str:
        """A new volume, filled from a tar with members `volume/...`."""
        name = f"Test_{uuid.uuid4().hex[:10]}.x"
        self._engine.create_volume(name)
        self.names.append(name)
        if content is not None:
            argv = ("tar", "-x", "-p", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-C", "/")
            self._engine.run(
                Helper(
                    image=_id(self._engine, DATABASE),
                    argv=argv,
                    volumes=((name, "/volume", False),),
                    user="0:0",
                    capabilities=("default",),
                ),
                stdin=content,
            )
        return name


def _id(engine: Engine, reference: str) -> str:
    image = engine.image(reference)
    assert image is not None
    return image.id


def _content() -> bytes:
    """A tar with one of everything that a volume may hold."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as made:

        def add(path: str, data: bytes = b"", **facts: object) -> None:
            info = tarfile.TarInfo(f"volume/{path}" if path else "volume")
            info.size = len(data)
            info.mode, info.uid, info.gid = 0o640, 1234, 4321
            for key, value in facts.items():
                setattr(info, key, value)
            made.addfile(info, io.BytesIO(data))

        add("", type=tarfile.DIRTYPE, mode=0o3751, uid=1234, gid=3_000_000_000, pax_headers={"mtime": "1234567890.123456789"})
        add("plain", b"plain" * 1000, pax_headers={"mtime": "1600000000.987654321"})
        add("set-uid", b"x", mode=0o4755, uid=0)
        add("attributes", b"x", pax_headers={"SCHILY.xattr.user.note": "kept"})
        add("acl", b"x", pax_headers={"SCHILY.acl.access": "user::rw-\nuser:77:r--\ngroup::r--\nmask::r--\nother::---\n"})
        add("hard", type=tarfile.LNKTYPE, linkname="volume/plain")
        add("dangling", type=tarfile.SYMTYPE, linkname="/no/where")
        add("fifo", type=tarfile.FIFOTYPE)
        add("locked", type=tarfile.DIRTYPE, mode=0o700, uid=999)
        add("locked/" + "n" * 200, b"deep", mode=0o000, uid=999)
        add("new\nline", b"1")
        add("-rf --help", b"2")
        add("grüße", b"3")
        add("bad\udcff\udcfename", b"4")
        add("sparse", b"")
    return out.getvalue()


def _fingerprint(engine: Engine, volume: str, *, plain: bool = False) -> bytes:
    """Everything about a volume, as one sorted tar; `plain` leaves out what the engine's own archive loses."""
    more = ("--mtime=@0",) if plain else ("--sparse", "--xattrs", "--xattrs-include=*", "--acls")
    pax = "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f"
    argv = ("tar", "-c", "--format=posix", "--sort=name", "--numeric-owner", pax, *more, "-C", "/", "volume")
    helper = Helper(
        image=_id(engine, DATABASE),
        argv=argv,
        volumes=((volume, "/volume", True),),
        user="0:0",
        capabilities=("DAC_READ_SEARCH",),
    )
    return engine.run(helper)


def _make_hole(engine: Engine, volume: str) -> None:
    helper = Helper(
        image=_id(engine, DATABASE),
        argv=("dd", "if=/dev/zero", "of=/volume/sparse", "bs=4096", "count=1", "seek=20000"),
        volumes=((volume, "/volume", False),),
        user="0:0",
        capabilities=("default",),
    )
    engine.run(helper)


def _archived(engine: Engine, name: str, folder: Path, *images: str, live: bool = False) -> tuple[Artifact, ...]:
    volume = engine.volume(name)
    assert volume is not None
    return archive.archive(engine, volume, image_ids=[_id(engine, i) for i in images], into=folder, live=live)


def test_everything_in_a_volume_comes_back_byte_for_byte(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    old, new = make_volume(_content()), make_volume()
    _make_hole(engine, old)
    artifacts = _archived(engine, old, tmp_path, BARE, DATABASE)
    tar, listing = artifacts
    assert tar.detail["tar"] == "gnu" and tar.detail["list"] == "find"
    assert tar.bytes < 1 << 20, "the hole was stored"
    evidence = archive.verify(tmp_path, artifacts)
    assert (evidence.level, evidence.subject) == ("L2", tar.file)
    assert "15 members equal the list" in evidence.what
    archive.extract(engine, tmp_path, artifacts, new, [_id(engine, DATABASE)])
    before = _fingerprint(engine, old)
    assert _fingerprint(engine, new) == before
    for witness in (b"user.note=kept", b"user:77:r--", b"mtime=1600000000.987654321", b"mtime=1234567890.123456789"):
        assert witness in before
    assert stat.S_IMODE((tmp_path / listing.file).stat().st_mode) == 0o600


def test_what_is_back_outlives_a_power_cut(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    artifacts = _archived(engine, make_volume(_content()), tmp_path, DATABASE)
    names = [f"test-disk-{uuid.uuid4().hex[:10]}" for _ in range(3)]

    def on(path: Path, name: str) -> str:
        return engine.create_volume(name, options={"type": "none", "o": "bind", "device": str(path)}).name

    try:
        with mounted(tmp_path / "disk", tmp_path / "before") as before:
            (before / "lost+found").rmdir()
            images = [_id(engine, DATABASE)]
            archive.extract(engine, tmp_path, artifacts, on(before, names[0]), images)
            archive.sync(engine, names[0], images)
            for name in names[1:]:
                if name == names[2]:
                    archive.place(engine, tmp_path, artifacts, archive.piece_of(engine, names[0], "plain", "token", images))
                shutil.copy(tmp_path / "disk", tmp_path / name)
                with mounted(tmp_path / name, tmp_path / "after") as after:
                    assert _fingerprint(engine, on(after, name)) == _fingerprint(engine, names[0])
    finally:
        for name in names:
            engine.remove_volume(name)


def test_without_gnu_tar_the_engine_archives_and_says_what_it_loses(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    old, new = make_volume(_content()), make_volume()
    artifacts = _archived(engine, old, tmp_path, BARE)
    assert artifacts[0].detail["tar"] == "engine"
    assert "extended attributes" in artifacts[0].detail["lost"]
    assert artifacts[0].detail["list"] == "archive"
    archive.verify(tmp_path, artifacts)
    archive.extract(engine, tmp_path, artifacts, new, [_id(engine, BARE)])
    assert _fingerprint(engine, new, plain=True) == _fingerprint(engine, old, plain=True)


@pytest.mark.parametrize("image", [DATABASE, BARE])
def test_an_empty_volume_is_archived_and_restored(engine: Engine, make_volume: Maker, tmp_path: Path, image: str) -> None:
    old, new = make_volume(), make_volume()
    artifacts = _archived(engine, old, tmp_path, image)
    assert "1 members" in archive.verify(tmp_path, artifacts).what
    archive.extract(engine, tmp_path, artifacts, new, [_id(engine, image)])
    assert _fingerprint(engine, new, plain=True) == _fingerprint(engine, old, plain=True)


def test_the_files_stand_under_the_slug_of_the_volume(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    name = make_volume()
    files = [a.file for a in _archived(engine, name, tmp_path, DATABASE)]
    folder = files[0].partition("/")[0]
    assert files == [f"{folder}/data.tar.gz", f"{folder}/data.list.gz"]
    assert folder.startswith(name.lower()[:10]) and folder != name


def test_a_volume_that_is_not_empty_is_never_extracted_into(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    old = make_volume(_content())
    artifacts = _archived(engine, old, tmp_path, DATABASE)
    before = _fingerprint(engine, old)
    with pytest.raises(LookAgain, match="not empty"):
        archive.extract(engine, tmp_path, artifacts, old, [_id(engine, DATABASE)])
    assert _fingerprint(engine, old) == before


@pytest.mark.parametrize("image", [DATABASE, BARE])
def test_emptying_a_volume_keeps_the_volume_itself(engine: Engine, make_volume: Maker, image: str) -> None:
    name = make_volume(_content())
    before = engine.volume(name)
    archive.empty(engine, name, [_id(engine, image)])
    assert engine.list_root(name) == []
    after = engine.volume(name)
    assert before is not None and after is not None
    assert replace(after, created_at=before.created_at) == before


def test_a_damaged_archive_is_rejected_before_a_byte_reaches_the_volume(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    old, new = make_volume(_content()), make_volume()
    artifacts = _archived(engine, old, tmp_path, DATABASE)
    file = tmp_path / artifacts[0].file
    raw = file.read_bytes()
    damaged = bytearray(raw)
    damaged[len(raw) // 2] ^= 4
    for bad in (*(raw[:cut] for cut in range(0, len(raw), 97)), raw[:-1], raw + b"\0", bytes(damaged)):
        file.write_bytes(bad)
        with pytest.raises(VerifyFailed):
            archive.verify(tmp_path, artifacts)
    with pytest.raises(VerifyFailed):
        archive.extract(engine, tmp_path, artifacts, new, [_id(engine, DATABASE)])
    assert engine.list_root(new) == []


def test_an_archive_of_something_else_than_the_list_is_rejected(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    whole = _archived(engine, make_volume(_content()), tmp_path / "one", DATABASE)
    other = _archived(engine, make_volume(), tmp_path / "two", DATABASE)
    sums = stream.pack(stream.unpack(tmp_path / "two", other[1]), tmp_path / "one" / "forged.gz", subject="v", stage="t")
    forged = Artifact("forged.gz", "list", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")
    with pytest.raises(VerifyFailed, match="in the archive, but not so in the list"):
        archive.verify(tmp_path / "one", (whole[0], replace(forged, volume=whole[0].volume)))


def test_a_file_that_changes_while_it_is_read_fails_unless_live(
    engine: Engine, make_volume: Maker, tmp_path: Path, real_docker: str
) -> None:
    name = make_volume()
    writer = subprocess.run(
        [real_docker, "run", "-d", "--rm", "-v", f"{name}:/v", "--entrypoint", "sh", DATABASE, "-c",
         "i=0; while :; do i=$((i+1)); head -c 200000 /dev/zero >>/v/grows; echo >/v/new$((i%50)); done"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    try:
        while not engine.list_root(name):
            continue
        with pytest.raises((BackupFailed, VerifyFailed)):
            archive.verify(tmp_path, _archived(engine, name, tmp_path, DATABASE))
        artifacts = _archived(engine, name, tmp_path / "live", DATABASE, live=True)
    finally:
        subprocess.run([real_docker, "rm", "-f", writer], capture_output=True, check=True)
    assert artifacts[0].detail["live"] == "true"
    assert archive.verify(tmp_path / "live", artifacts).level == "L2"


def test_an_interruption_leaves_no_container_and_no_half_file(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    volume = engine.volume(make_volume(_content()))
    assert volume is not None

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.archive(engine, volume, image_ids=[_id(engine, DATABASE)], into=tmp_path, progress=interrupt)
    assert engine.leftovers() == ()
    assert not list(tmp_path.rglob("data.tar.gz"))


def test_a_volume_without_any_usable_image_fails_and_says_what_to_do(engine: Engine, make_volume: Maker, tmp_path: Path) -> None:
    volume = engine.volume(make_volume())
    assert volume is not None
    with pytest.raises(BackupFailed, match="no local image") as fault:
        archive.archive(engine, volume, image_ids=["sha256:" + "0" * 64], into=tmp_path)
    assert fault.value.next_step
