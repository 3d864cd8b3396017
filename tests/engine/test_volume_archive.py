"""Archives of real volumes: everything comes back as it was, and nothing that is damaged passes."""

import dataclasses
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from safe_compose.core.backup import Artifact
from safe_compose.engine import Engine
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import OperationFailed, StateChanged, VerificationFailed
from safe_compose.volumes import archive, extraction, gzip_stream, single_path
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.tar import read_members, resolve_links
from testing.disks import mounting
from testing.no_program import python_without_program

pytestmark = pytest.mark.engine
GNU = "postgres:15"
"""An image with GNU tar and find, to fill volumes with and to look into them: ours must agree with
them.
"""
EVERYTHING = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN")


@pytest.fixture
def make_volume(engine: Engine) -> Iterator["Maker"]:
    maker = Maker(engine)
    yield maker
    for name in maker.names:
        engine.docker.remove_volume(name)


class Maker:
    """Makes volumes with names that nobody else has."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.names: list[str] = []

    def __call__(self, content: bytes | None = None) -> str:
        """A new volume, filled from a tar with members `volume/...`."""
        name = f"Test_{uuid.uuid4().hex[:10]}.x"
        self._engine.docker.create_volume(name)
        self.names.append(name)
        if content is not None:
            argv = (
                "tar",
                "-x",
                "-p",
                "--same-owner",
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "--acls",
                "-C",
                "/",
            )
            self._engine.helpers.run(
                Helper(
                    image=_id(self._engine, GNU),
                    argv=argv,
                    volumes=((name, "/volume", False),),
                    user="0:0",
                    capabilities=EVERYTHING,
                ),
                stdin=content,
            )
        return name


def _id(engine: Engine, reference: str) -> str:
    image = engine.docker.image(reference)
    assert image is not None
    return image.id


def _content(*, modern: bool = True) -> bytes:
    """A tar with one of everything that a volume may hold; `modern`: also of what older releases
    could not keep.
    """
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as made:

        def add(path: str, data: bytes = b"", **facts: object) -> None:
            info = tarfile.TarInfo(f"volume/{path}" if path else "volume")
            info.size = len(data)
            info.mode, info.uid, info.gid = 0o640, 1234, 4321
            for key, value in facts.items():
                setattr(info, key, value)
            made.addfile(info, io.BytesIO(data))

        add(
            "",
            type=tarfile.DIRTYPE,
            mode=0o3751,
            uid=1234,
            gid=3_000_000_000,
            pax_headers={"mtime": "1234567890.123456789"},
        )
        add("plain", b"plain" * 1000, pax_headers={"mtime": "1600000000.987654321"})
        add("set-uid", b"x", mode=0o4755, uid=0)
        add(
            "attributes",
            b"x",
            pax_headers={"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.user.lines": "a=b\nc"},
        )
        if modern:
            add(
                "of an engine inside",
                type=tarfile.DIRTYPE,
                pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"},
            )
            add(
                "labelled",
                b"x",
                pax_headers={
                    "SCHILY.xattr.security.selinux": "system_u:object_r:container_file_t:s0\0"
                },
            )
        add(
            "acl",
            b"x",
            pax_headers={
                "SCHILY.acl.access": "user::rw-\nuser:77:r--\ngroup::r--\nmask::r--\nother::---\n"
            },
        )
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
    """Everything about a volume, as one sorted tar; `plain` leaves out what the engine's own
    archive loses.
    """
    more = ("--mtime=@0",) if plain else ("--sparse", "--xattrs", "--xattrs-include=*", "--acls")
    pax = "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f"
    argv = (
        "tar",
        "-c",
        "--format=posix",
        "--sort=name",
        "--numeric-owner",
        pax,
        *more,
        "-C",
        "/",
        "volume",
    )
    helper = Helper(
        image=_id(engine, GNU),
        argv=argv,
        volumes=((volume, "/volume", True),),
        user="0:0",
        capabilities=("DAC_READ_SEARCH", "SYS_ADMIN"),
    )
    return engine.helpers.run(helper)


def _make_hole(engine: Engine, volume: str) -> None:
    helper = Helper(
        image=_id(engine, GNU),
        argv=("dd", "if=/dev/zero", "of=/volume/sparse", "bs=4096", "count=1", "seek=20000"),
        volumes=((volume, "/volume", False),),
        user="0:0",
        capabilities=("default",),
    )
    engine.helpers.run(helper)


def _archived(
    engine: Engine, name: str, folder: Path, *, live: bool = False
) -> tuple[Artifact, ...]:
    volume = engine.docker.volume(name)
    assert volume is not None
    return archive.archive(EngineLocation(engine, volume.name), into=folder, live=live)


def _kept(
    folder: Path, kind: str, file: str, blocks: Iterable[bytes], detail: dict[str, str]
) -> Artifact:
    """A file of an archive that another release made."""
    sums = gzip_stream.pack(blocks, folder / file, subject="v", stage=kind)
    return Artifact(
        file, kind, sums.bytes, sums.sha256, sums.uncompressed_bytes, "v", detail=detail
    )


def _by_gnu_tar(engine: Engine, name: str, folder: Path) -> tuple[Artifact, ...]:
    """As releases without a program of our own archived a volume where an image had GNU tar and
    find.
    """
    helper = Helper(
        image=_id(engine, GNU),
        argv=(),
        volumes=((name, "/volume", True),),
        user="0:0",
        capabilities=("DAC_READ_SEARCH",),
    )
    attributes = ("--xattrs", "--xattrs-include=*", "--xattrs-exclude=security.selinux", "--acls")
    pax = "--pax-option=delete=atime,delete=ctime"
    words = (
        "tar",
        "--create",
        "--format=posix",
        pax,
        "--numeric-owner",
        "--sparse",
        *attributes,
        "--one-file-system",
        "--file=-",
    )
    tar = engine.helpers.run(
        replace(helper, argv=(*words, "--blocking-factor=128", "-C", "/", "volume"))
    )
    found = engine.helpers.run(
        replace(helper, argv=("find", "/volume", "-xdev", "-printf", r"%y %s %m %U %G %P\0"))
    )
    members = str(found.count(b"\0"))
    return (
        _kept(
            folder,
            "archive",
            "old.tar.gz",
            [tar],
            {"tar": "gnu", "list": "find", "image": GNU, "members": members},
        ),
        _kept(folder, "list", "old.list.gz", [found], {"from": "find", "members": members}),
    )


def _by_the_engine(engine: Engine, name: str, folder: Path) -> tuple[Artifact, ...]:
    """As it was, and is, archived where no program can run."""
    with engine.archives.stream(name) as chunks:
        tar = b"".join(chunks)
    entries = [m.record() + b"\0" for m in resolve_links(lambda: read_members([tar]))]
    detail = {"tar": "engine", "list": "archive", "members": str(len(entries))}
    return _kept(folder, "archive", "old.tar.gz", [tar], detail), _kept(
        folder, "list", "old.list.gz", [b"".join(entries)], {}
    )


@pytest.mark.thorough
def test_everything_in_a_volume_comes_back_byte_for_byte(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    old, new = make_volume(_content()), make_volume()
    _make_hole(engine, old)
    artifacts = _archived(engine, old, tmp_path)
    tar, listing = artifacts
    assert tar.detail == {"tar": "helper", "list": "helper", "live": "false", "members": "17"}
    assert tar.bytes < 1 << 20, "the hole was stored"
    evidence = archive.verify(tmp_path, artifacts)
    assert (evidence.level, evidence.subject) == ("L2", tar.file)
    assert "17 members equal the list" in evidence.what and "taken from it" not in evidence.what
    assert extraction.extract(EngineLocation(engine, new), tmp_path, artifacts) == ""
    before = _fingerprint(engine, old)
    assert _fingerprint(engine, new) == before
    for witness in (
        *(
            b"user.note=kept",
            b"user.lines=a=b\nc",
            b"trusted.overlay.opaque=y",
            b"security.selinux=system_u",
            b"user:77:r--",
        ),
        *(b"mtime=1600000000.987654321", b"mtime=1234567890.123456789"),
    ):
        assert witness in before, witness
    assert stat.S_IMODE((tmp_path / listing.file).stat().st_mode) == 0o600


@pytest.mark.thorough
def test_gnu_tar_restores_an_archive_by_hand_as_we_do(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    old = make_volume(_content())
    _make_hole(engine, old)
    tar = _archived(engine, old, tmp_path)[0]
    by_hand = make_volume(b"".join(gzip_stream.unpack(tmp_path, tar)))
    assert _fingerprint(engine, by_hand) == _fingerprint(engine, old)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("made", "plain"), [(_by_gnu_tar, False), (_by_the_engine, True)], ids=["gnu tar", "engine"]
)
def test_what_an_older_release_archived_is_verified_and_comes_back(
    engine: Engine,
    make_volume: Maker,
    tmp_path: Path,
    made: Callable[..., tuple[Artifact, ...]],
    plain: bool,
) -> None:
    old, new = make_volume(_content(modern=False)), make_volume()
    _make_hole(engine, old)
    artifacts = made(engine, old, tmp_path)
    assert "15 members equal the list" in archive.verify(tmp_path, artifacts).what
    assert extraction.extract(EngineLocation(engine, new), tmp_path, artifacts) == ""
    assert _fingerprint(engine, new, plain=plain) == _fingerprint(engine, old, plain=plain)


@pytest.mark.thorough
def test_what_is_back_outlives_a_power_cut(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    artifacts = _archived(engine, make_volume(_content()), tmp_path)
    names = [f"test-disk-{uuid.uuid4().hex[:10]}" for _ in range(3)]

    def on(path: Path, name: str) -> str:
        return engine.docker.create_volume(
            name, options={"type": "none", "o": "bind", "device": str(path)}
        ).name

    try:
        with mounting(tmp_path / "disk", tmp_path / "before") as before:
            (before / "lost+found").rmdir()
            extraction.extract(EngineLocation(engine, on(before, names[0])), tmp_path, artifacts)
            extraction.sync(EngineLocation(engine, names[0]))
            for name in names[1:]:
                if name == names[2]:
                    piece = single_path.plan_path(
                        EngineLocation(engine, names[0]), "plain", "token"
                    )
                    piece.place(tmp_path, artifacts)
                shutil.copy(tmp_path / "disk", tmp_path / name)
                with mounting(tmp_path / name, tmp_path / "after") as after:
                    assert _fingerprint(engine, on(after, name)) == _fingerprint(engine, names[0])
    finally:
        for name in names:
            engine.docker.remove_volume(name)


WITHOUT = """
import json, os, sys
from pathlib import Path
from safe_compose.engine import connect
from safe_compose.errors import OperationFailed
from safe_compose.volumes import archive, extraction, single_path
from safe_compose.volumes.engine_location import EngineLocation
docker, run_id, old, new, folder = sys.argv[1:]
found = {}
with connect(docker, (), environ=os.environ, run_id=run_id) as engine:
    artifacts = archive.archive(EngineLocation(engine, old), into=Path(folder))
    found["detail"], found["what"] = artifacts[0].detail, archive.verify(Path(folder), artifacts).what
    volume = EngineLocation(engine, new)
    extraction.extract(volume, Path(folder), artifacts)
    extraction.sync(volume)
    for name, words in (("plan_path", (volume, "plain", "x")), ("clear", (volume,))):
        try:
            getattr(single_path if name == "plan_path" else extraction, name)(*words)
        except OperationFailed as fault:
            found[name] = fault.message
print(json.dumps(found))
"""


@pytest.mark.thorough
def test_without_our_program_the_engine_archives_and_says_what_it_loses(
    engine: Engine, make_volume: Maker, tmp_path: Path, real_docker: str
) -> None:
    old, new = make_volume(_content()), make_volume()
    (tmp_path / "made").mkdir()
    words = (real_docker, f"{engine.run_id}-x", old, new, str(tmp_path / "made"))
    found = json.loads(python_without_program(tmp_path / "package", WITHOUT, *words))
    assert (found["detail"]["tar"], found["detail"]["list"]) == ("engine", "archive")
    assert "extended attributes" in found["detail"]["lost"]
    assert (
        "the engine itself made it, since this installation came without the volume helper"
        in found["detail"]["lost"]
    )
    assert "17 members equal the list taken from it" in found["what"]
    assert (
        "without the volume helper" in found["plan_path"]
        and "nothing was restored" in found["plan_path"]
    )
    assert "without the volume helper" in found["clear"]
    assert _fingerprint(engine, new, plain=True) == _fingerprint(engine, old, plain=True)


FILL = """
import json, os, sys
from pathlib import Path
from safe_compose.core.backup import Artifact
from safe_compose.engine import connect
from safe_compose.volumes import extraction
from safe_compose.volumes.engine_location import EngineLocation
docker, run_id, new, folder, artifacts = sys.argv[1:]
with connect(docker, (), environ=os.environ, run_id=run_id) as engine:
    found = [Artifact(**told) for told in json.loads(artifacts)]
    print(extraction.extract(EngineLocation(engine, new), Path(folder), found))
"""


@pytest.mark.thorough
def test_without_our_program_what_does_not_come_back_of_an_archive_of_ours_is_said(
    engine: Engine, make_volume: Maker, tmp_path: Path, real_docker: str
) -> None:
    (tmp_path / "made").mkdir()
    artifacts = _archived(engine, make_volume(_content()), tmp_path / "made")
    told = json.dumps([dataclasses.asdict(artifact) for artifact in artifacts])
    words = (real_docker, f"{engine.run_id}-x", make_volume(), str(tmp_path / "made"), told)
    said = python_without_program(tmp_path / "package", FILL, *words)
    assert (
        said.startswith("ACLs and holes in sparse files")
        and "came without the volume helper" in said
    )


@pytest.mark.thorough
def test_where_a_file_system_knows_no_attributes_the_rest_comes_back_and_that_is_said(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    artifacts = _archived(engine, make_volume(_content()), tmp_path)
    place, name = tmp_path / "place", f"test-disk-{uuid.uuid4().hex[:10]}"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", place], check=True)
    try:
        engine.docker.create_volume(
            name, options={"type": "none", "o": "bind", "device": str(place)}
        )
        lost = extraction.extract(EngineLocation(engine, name), tmp_path, artifacts)
        assert "5 extended attributes were not taken" in lost
        assert (place / "plain").read_bytes() == b"plain" * 1000 and (
            place / "set-uid"
        ).stat().st_mode & 0o7777 == 0o4755
        assert os.listxattr(place / "attributes") == []
    finally:
        engine.docker.remove_volume(name)
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.thorough
def test_an_empty_volume_is_archived_and_restored(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    old, new = make_volume(), make_volume()
    artifacts = _archived(engine, old, tmp_path)
    assert "1 members" in archive.verify(tmp_path, artifacts).what
    extraction.extract(EngineLocation(engine, new), tmp_path, artifacts)
    assert _fingerprint(engine, new) == _fingerprint(engine, old)


def test_the_files_stand_under_the_slug_of_the_volume(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    name = make_volume()
    files = [a.file for a in _archived(engine, name, tmp_path)]
    folder = files[0].partition("/")[0]
    assert files == [f"{folder}/data.tar.gz", f"{folder}/data.list.gz"]
    assert folder.startswith(name.lower()[:10]) and folder != name


def test_a_volume_that_is_not_empty_is_never_extracted_into(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    old = make_volume(_content())
    artifacts = _archived(engine, old, tmp_path)
    before = _fingerprint(engine, old)
    with pytest.raises(StateChanged, match="not empty"):
        extraction.extract(EngineLocation(engine, old), tmp_path, artifacts)
    assert _fingerprint(engine, old) == before


def test_emptying_a_volume_keeps_the_volume_itself(engine: Engine, make_volume: Maker) -> None:
    name = make_volume(_content())
    before = engine.docker.volume(name)
    extraction.clear(EngineLocation(engine, name))
    assert engine.archives.list_root(name) == []
    after = engine.docker.volume(name)
    assert before is not None and after is not None
    assert replace(after, created_at=before.created_at) == before


def test_a_damaged_archive_is_rejected_before_a_byte_reaches_the_volume(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    old, new = make_volume(_content()), make_volume()
    artifacts = _archived(engine, old, tmp_path)
    file = tmp_path / artifacts[0].file
    raw = file.read_bytes()
    damaged = bytearray(raw)
    damaged[len(raw) // 2] ^= 4
    for bad in (
        *(raw[:cut] for cut in range(0, len(raw), 97)),
        raw[:-1],
        raw + b"\0",
        bytes(damaged),
    ):
        file.write_bytes(bad)
        with pytest.raises(VerificationFailed):
            archive.verify(tmp_path, artifacts)
    with pytest.raises(VerificationFailed):
        extraction.extract(EngineLocation(engine, new), tmp_path, artifacts)
    assert engine.archives.list_root(new) == []


def test_an_archive_of_something_else_than_the_list_is_rejected(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    whole = _archived(engine, make_volume(_content()), tmp_path / "one")
    other = _archived(engine, make_volume(), tmp_path / "two")
    sums = gzip_stream.pack(
        gzip_stream.unpack(tmp_path / "two", other[1]),
        tmp_path / "one" / "forged.gz",
        subject="v",
        stage="t",
    )
    forged = Artifact("forged.gz", "list", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")
    with pytest.raises(VerificationFailed, match="in the archive, but not so in the list"):
        archive.verify(tmp_path / "one", (whole[0], replace(forged, volume=whole[0].volume)))


@pytest.mark.thorough
def test_a_file_that_changes_while_it_is_read_fails_unless_live(
    engine: Engine, make_volume: Maker, tmp_path: Path, real_docker: str
) -> None:
    name = make_volume()
    writer = subprocess.run(
        [real_docker, "run", "-d", "--rm", "-v", f"{name}:/v", "--entrypoint", "sh", GNU, "-c",
         "i=0; while :; do i=$((i+1)); head -c 200000 /dev/zero >>/v/grows; echo >/v/new$((i%50)); done"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    try:
        while not engine.archives.list_root(name):
            continue
        with pytest.raises((OperationFailed, VerificationFailed)):
            archive.verify(tmp_path, _archived(engine, name, tmp_path))
        artifacts = _archived(engine, name, tmp_path / "live", live=True)
    finally:
        subprocess.run([real_docker, "rm", "-f", writer], capture_output=True, check=True)
    assert artifacts[0].detail["live"] == "true"
    assert archive.verify(tmp_path / "live", artifacts).level == "L2"


def test_an_interruption_leaves_no_container_and_no_half_file(
    engine: Engine, make_volume: Maker, tmp_path: Path
) -> None:
    volume = engine.docker.volume(make_volume(_content()))
    assert volume is not None

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.archive(EngineLocation(engine, volume.name), into=tmp_path, progress=interrupt)
    assert engine.helpers.leftovers() == ()
    assert not list(tmp_path.rglob("data.tar.gz"))


def test_a_folder_of_the_host_is_archived_through_the_engine_and_nothing_around_it_is_seen(
    engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / 'odd, "name"'
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "one").write_bytes(b"a photo")
    (tmp_path / "outside").write_text("of somebody else")
    kept = tmp_path / "kept"
    kept.mkdir()
    artifacts = archive.archive(EngineLocation(engine, str(folder)), into=kept)
    evidence = archive.verify(kept, artifacts)
    assert evidence.level == "L2" and "3 members" in evidence.what
    tar, _ = archive.archive_and_list(artifacts)
    names = [member.path for member in read_members(gzip_stream.unpack(kept, tar))]
    assert sorted(names) == [b"", b"photos", b"photos/one"], names
    with pytest.raises(OperationFailed, match="missing"):
        archive.archive(EngineLocation(engine, str(tmp_path / "missing")), into=kept)
    assert not (tmp_path / "missing").exists()
