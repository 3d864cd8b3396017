"""The engine's disk is full, which is why people prune: what can be read is backed up, and safe
ways to make room are named.
"""

import io
import re
import shlex
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from safe_compose.core.observed import Container, Mount, Volume
from safe_compose.engine import full_disk, tar_top
from safe_compose.engine.volume_archives import find_whole_mount
from safe_compose.grammar import parser
from safe_compose.volumes.tar import read_members
from testing.disks import mounting
from testing.fixtures import SafeCompose
from testing.private_engine import PrivateEngine, private_engine
from testing.projects import require_success

CAPABILITY = "SCHILY.xattr.security.capability"
JOB = ("--non-interactive", "--backup-first")
SHOP = """
name: shop
services:
  app:
    image: busybox:latest
    init: true
    network_mode: none
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads", "cache:/app/cache"]
volumes: {uploads: , cache: }
"""
END_WITH_SOME = ("busybox:latest", "dd", "if=/dev/zero", "of=/small", "bs=64k", "count=8")
LONG = f"{'a' * 90}/{'é' * 40}"
FILL = (
    f"umask 027; mkdir -p /app/uploads/{LONG}; cd /app/uploads; echo photo >one.jpg; ln one.jpg"
    f" {LONG}/same; ln -s {LONG} link; chown 1234:4321 one.jpg; mkfifo pipe; echo more >{LONG}/two"
)
LOOK = (
    "cd /app/uploads; find . -exec stat -c '%n %f %u %g' {} +; cat one.jpg link/same link/two;"
    " readlink link"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, lab: None) -> Iterator[PrivateEngine]:
    """An engine of this module alone, on a disk of 64 MB; it needs a third of that."""
    folder = tmp_path_factory.mktemp("small")
    with (
        mounting(folder / "disk", folder / "mounted") as disk,
        private_engine(["busybox:latest"], disk / "data") as engine,
    ):
        yield engine


def fill(disk: Path, *, spare: int = 0) -> Path:
    """Leave not one block of a disk free, besides some spare bytes."""
    file = disk / "fill"
    with file.open("wb", buffering=0) as out, suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    out.write(bytes(size))
        out.truncate(out.tell() - spare)
    return file


def run(engine: PrivateEngine, *words: str) -> None:
    engine.docker("run", "--network", "none", *words)


def remove_own_images(engine: PrivateEngine) -> None:
    """Leave the engine as one that safe-compose has never used."""
    ours = engine.docker("images", "--quiet", "--filter", "reference=safe-compose/*").stdout.split()
    if ours:
        engine.docker("rmi", *ours)


def data(engine: PrivateEngine) -> Path:
    return Path(engine.docker("info", "--format", "{{.DockerRootDir}}").stdout.strip())


@pytest.mark.engine
@pytest.mark.thorough
def test_a_prune_that_takes_one_volume_half_is_told_and_undone(
    small: PrivateEngine, safe_compose: SafeCompose
) -> None:
    env = {"DOCKER_HOST": small.host}
    for name in ("one", "half", "two"):
        small.docker("volume", "create", name)
        run(
            small,
            "--rm",
            "-v",
            f"{name}:/v",
            "busybox:latest",
            "sh",
            "-c",
            "echo a >/v/a; echo b >/v/b",
        )
    held = data(small) / "volumes/half/_data/a"
    subprocess.run(["chattr", "+i", held], check=True)
    try:
        answer = safe_compose(*JOB, "volume", "prune", "-f", *small.all_volumes, env=env)
        assert answer.returncode == 0 and small.volumes() == {"half"}
        assert (
            "docker deleted a part of volume half: 1 of 2 files and folders are missing (b)"
            in answer.stderr
        )
        assert re.search(
            r"deleted 2 volumes, with a copy in backup \S+: one, two\n", answer.stderr
        ) and answer.stderr.rstrip().endswith("safe-compose undo")
        require_success(safe_compose("undo", env=env))
        for name in ("one", "half", "two"):
            folder = data(small) / "volumes" / name / "_data"
            assert {p.name: p.read_text() for p in folder.iterdir()} == {"a": "a\n", "b": "b\n"}
    finally:
        subprocess.run(["chattr", "-i", held], check=True)
        small.docker("volume", "rm", "one", "half", "two")


@pytest.mark.thorough
@pytest.mark.engine
def test_on_a_full_disk_the_project_is_backed_up_through_its_containers_and_comes_back(
    small: PrivateEngine, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text(SHOP)
    small.docker("compose", "up", "-d", "--pull", "never", cwd=tmp_path)
    small.docker("exec", "shop-app-1", "sh", "-c", FILL)
    before = small.docker("exec", "shop-app-1", "sh", "-c", LOOK).stdout
    small.docker("volume", "create", "orphan")
    run(small, "--rm", "-v", "orphan:/v", "busybox:latest", "touch", "/v/x")
    run(small, "--name", "ended", *END_WITH_SOME)
    # An engine makes a few folders to read from a container, more at the first time. A container
    # that it cannot make for want of space takes the last of that; an image that it cannot does not.
    small.docker("cp", "shop-app-1:/app/uploads/one.jpg", str(tmp_path / "copy.jpg"))
    remove_own_images(small)
    full = fill(data(small).parent, spare=8 << 10)
    env = {"DOCKER_HOST": small.host}
    try:
        refused = safe_compose(*JOB, "volume", "rm", "orphan", env=env)
        assert refused.returncode == 73 and "the engine's disk is full" in refused.stderr
        taken = (
            "ended containers without a volume, with what they wrote into themselves, about"
            " 512.0 KiB"
        )
        assert f"in this order: docker rm ended ({taken}); then run" in refused.stderr
        assert "orphan" in small.volumes()
        deleted = require_success(
            safe_compose(*JOB, "compose", "down", "-v", cwd=tmp_path, env=env)
        )
        assert small.volumes() == {"orphan"}
        assert "the engine itself made it, since the engine's disk is full" in deleted.stderr
    finally:
        full.unlink()
    require_success(safe_compose("undo", cwd=tmp_path, env=env))
    assert small.docker("exec", "shop-app-1", "sh", "-c", LOOK).stdout == before
    small.docker("rm", "ended")
    small.docker("compose", "down", "-v", cwd=tmp_path)


@pytest.mark.thorough
@pytest.mark.engine
def test_on_a_full_disk_nothing_is_stopped_for_a_volume_that_cannot_be_read(
    small: PrivateEngine, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    """Something else is mounted below it, and the engine makes no container of ours."""
    shop = SHOP.replace("cache:/app/cache", "cache:/app/uploads/cache")
    (tmp_path / "compose.yaml").write_text(shop)
    small.docker("compose", "up", "-d", "--pull", "never", cwd=tmp_path)
    run(small, "--name", "ended", *END_WITH_SOME)
    started = ("inspect", "--format", "{{.State.Running}} {{.State.StartedAt}}", "shop-app-1")
    before = small.docker(*started).stdout
    full = fill(data(small).parent)
    try:
        env = {"DOCKER_HOST": small.host}
        refused = safe_compose(*JOB, "compose", "down", "-v", cwd=tmp_path, env=env)
        assert refused.returncode == 73 and "so nothing was stopped: " in refused.stderr
        assert "in this order: docker rm ended (" in refused.stderr
        assert small.docker(*started).stdout == before
        assert small.volumes() >= {"shop_uploads", "shop_cache"}
    finally:
        full.unlink()
        small.docker("rm", "ended")
        small.docker("compose", "down", "-v", cwd=tmp_path)


def test_the_top_of_an_archive_is_renamed_and_nothing_else_changes() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in (
            ("data", tarfile.DIRTYPE),
            ("data/a", tarfile.REGTYPE),
            (f"data/{'n' * 300}é", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.uid, info.size = (
                kind,
                1764400000.25,
                3_000_000_000,
                700 if kind == tarfile.REGTYPE else 0,
            )
            info.pax_headers = {CAPABILITY: "x=y\nz"}
            archive.addfile(info, io.BytesIO(b"c" * info.size))
        for kind, target in ((tarfile.LNKTYPE, f"data/{'n' * 300}é"), (tarfile.SYMTYPE, "data/a")):
            info = tarfile.TarInfo(f"data/link{kind.decode()}")
            info.type, info.linkname = kind, target
            archive.addfile(info)
    whole = made.getvalue()
    told = b"".join(
        tar_top.rename_top(
            (whole[at : at + 333] for at in range(0, len(whole), 333)), "data", "volume"
        )
    )
    assert len(list(read_members([told]))) == 5
    with (
        tarfile.open(fileobj=io.BytesIO(whole)) as old,
        tarfile.open(fileobj=io.BytesIO(told)) as new,
    ):
        for one, other in zip(old.getmembers(), new.getmembers(), strict=True):
            assert other.name == "volume" + one.name.removeprefix("data")
            assert other.linkname == (
                "volume" + one.linkname.removeprefix("data") if one.islnk() else one.linkname
            )
            same = ("type", "size", "mode", "mtime", "uid", "gid")
            assert [getattr(other, key) for key in same] == [getattr(one, key) for key in same]
            assert other.pax_headers.get(CAPABILITY) == one.pax_headers.get(CAPABILITY)
            if one.isreg():
                assert new.extractfile(other).read() == old.extractfile(one).read()  # type: ignore[union-attr]


@pytest.mark.parametrize("cut", [0, 100, 512, 1700], ids=lambda cut: f"cut after {cut} bytes")
def test_an_archive_that_ends_early_or_leaves_its_folder_is_refused(cut: int) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("data/a")
        info.size = 3000
        archive.addfile(info, io.BytesIO(bytes(3000)))
    with pytest.raises(tar_top.BadStream, match="ends too early"):
        list(tar_top.rename_top([made.getvalue()[:cut]], "data", "volume"))
    with pytest.raises(tar_top.BadStream, match="not below"):
        list(tar_top.rename_top([made.getvalue()], "other", "volume"))


def test_what_makes_room_is_ordered_sized_and_none_of_it_would_be_guarded() -> None:
    ended = {"State": "exited", "SizeRw": 500_000, "Labels": {}, "Mounts": []}
    usage = {
        "BuildCache": [
            {"Size": 7 << 20},
            {"Size": 1 << 30, "InUse": True},
            {"Size": 1 << 30, "Shared": True},
        ],
        "Images": [
            {
                "RepoTags": ["<none>:<none>"],
                "RepoDigests": None,
                "Size": 9 << 20,
                "SharedSize": 2 << 20,
                "Containers": 0,
            },
            {"RepoTags": ["postgres:15"], "Size": 1 << 30, "Containers": 0},
            {"RepoTags": None, "Size": 1 << 30, "Containers": 1},
        ],
        "Containers": [
            ended | {"Names": ["/old one"], "SizeRw": 400_000},
            ended | {"Names": ["/small"]},
            ended | {"Names": ["/with-data-of-its-own"], "SizeRw": 5 << 20},
            ended | {"Names": ["/with-data"], "Mounts": [{"Type": "volume"}]},
            ended | {"Names": ["/runs"], "State": "running"},
            ended | {"Names": ["/lock"], "Labels": {"io.github.safe-compose.lock": "data"}},
        ],
    }
    found = full_disk.list_cleanup_commands(usage, "docker -c prod")
    assert [(p.command, p.bytes) for p in found] == [
        ("docker -c prod builder prune", 7 << 20), ("docker -c prod image prune", 7 << 20),
        ("docker -c prod rm small 'old one'", 900_000),
    ]  # fmt: skip
    for proposal in found:
        assert parser.parse(shlex.split(proposal.command)[1:]).kind == "none"
    assert (
        full_disk.list_cleanup_commands({}) == []
        and full_disk.list_cleanup_commands(
            {"BuildCache": None, "Images": None, "Containers": None}
        )
        == []
    )


@pytest.mark.parametrize(
    ("mount", "place"),
    [
        (Mount("volume", "data", "/there", "/app/data"), "/app/data"),
        (Mount("volume", "data", "/there", "/app/data", subpath="app"), None),
        (Mount("volume", "data", "/there", "/app/data", declared=False), None),
        (Mount("volume", "data", "/elsewhere", "/app/data"), None),
        (Mount("volume", "data", "/there", "/"), None),
    ],
    ids=[
        "whole",
        "a part of it",
        "taken over from another container",
        "of another source",
        "over everything",
    ],
)
def test_a_volume_is_read_only_where_a_container_surely_has_all_of_it(
    mount: Mount, place: str | None
) -> None:
    user = Container(
        id="1", name="app", image="i", image_id="sha256:0", state="exited", mounts=(mount,)
    )
    assert (
        find_whole_mount(
            user, Volume("data", created_at="2026-11-22T07:27:00Z", mountpoint="/there")
        )
        == place
    )
