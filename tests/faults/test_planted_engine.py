"""An engine full of images that somebody planted: no command of ours ever gives one of them a
volume, or believes what it shows.

Each planted image would do harm if it were used. In most of them `/volume` is a link, so that a
volume that is mounted there is archived as that link and looks empty; one has programs for
everything that was ever called in a helper, and each of them leaves a mark wherever a volume may be
mounted.
"""

import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from safe_compose.engine import connect
from safe_compose.engine.helper_image import build, build_empty
from testing.fixtures import SafeCompose
from testing.private_engine import PrivateEngine, private_engine
from testing.projects import ROOT, Completed, real_docker, unique

pytestmark = pytest.mark.engine

MARK = "planted-was-here"
PLACES = "/volume /volume/* /volumes/*/_data /v /data /tmp"
PROGRAMS = (
    "tar", "find", "sh", "bash", "ash", "mv", "ls", "sleep", "python3", "python", "sqlite3", "stat",
    "rm", "sync", "cat", "cp", "dd", "chown", "chmod", "mkdir", "rmdir", "readlink",
    "pg_controldata", "safe-compose-helper", "safe-compose",
)  # fmt: skip
SCRIPT = f"#!/bin/busybox sh\nfor at in {PLACES}; do /bin/busybox touch $at/{MARK}; done\nexit 0\n"
APP = """
services:
  app:
    image: busybox:latest
    network_mode: none
    init: true
    command: [sleep, "100000"]
    stop_grace_period: 1s
    volumes: ["files:/srv"]
volumes: {files: {}}
"""


class PlantedEngine:
    """The private engine, and what was planted on it."""

    def __init__(self, engine: PrivateEngine) -> None:
        self.engine = engine
        self.busybox = self._id("busybox:latest")
        self.images = {self._id(name) for name in ("busybox:latest",)}
        own = build("amd64")
        link = [
            _link("volume", "/elsewhere"),
            _folder("elsewhere"),
            _folder("elsewhere/000"),
            _folder("elsewhere/001"),
        ]
        changes = [
            "VOLUME /volume",
            "VOLUME /volumes",
            "ONBUILD RUN false",
            'ENTRYPOINT ["/safe-compose-helper"]',
            "USER 65534",
        ]
        self.plant(link)
        self.plant(link, own.reference)
        self.plant(
            [_link("volume", "elsewhere"), _folder("elsewhere")], "safe-compose/helper:latest"
        )
        self.plant(
            [_link("volume", "/"), _file("safe-compose-helper", SCRIPT)],
            "safe-compose/empty",
            *changes,
        )
        self.plant(
            [_folder("volume"), _link("volume/000", "/elsewhere"), _folder("elsewhere")],
            build_empty("amd64").reference,
        )
        self.plant([_file("volume", "a file")], "debian:12", 'ENTRYPOINT ["/volume"]')
        programs = [
            _file(f"{at}{name}", SCRIPT) for at in ("bin/", "usr/bin/", "") for name in PROGRAMS
        ]
        server = ("ENV PG_MAJOR=15", "ENV PGDATA=/var/lib/postgresql/data")
        self.plant([_file("bin/busybox", self._busybox()), *programs], "postgres:15", *server)

    def _busybox(self) -> bytes:
        made = self.engine.docker(
            "create", "--network", "none", "busybox:latest", "true"
        ).stdout.strip()
        argv = [real_docker(), "-H", self.engine.host, "cp", f"{made}:/bin/busybox", "-"]
        copied = subprocess.run(argv, capture_output=True, check=True)
        self.engine.docker("rm", made)
        with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as tar:
            program = tar.extractfile("busybox")
            assert program is not None
            return program.read()

    def plant(self, members: list[tuple[tarfile.TarInfo, bytes]], *reference: str) -> None:
        """`docker import`: a name and changes of the configuration, both as docker takes them. The
        newest image is the first.
        """
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
            for info, content in members:
                made.addfile(info, io.BytesIO(content))
        name, changes = (
            reference[:1],
            [word for change in reference[1:] for word in ("--change", change)],
        )
        argv = [real_docker(), "-H", self.engine.host, "import", *changes, "-", *name]
        done = subprocess.run(argv, input=out.getvalue(), capture_output=True, check=True)
        self.images.add(done.stdout.decode().strip())

    def _id(self, name: str) -> str:
        return self.engine.docker("image", "inspect", "--format", "{{.Id}}", name).stdout.strip()

    def volume(self, content: str = "precious", *, named: bool = True) -> str:
        """A volume with one file. One without a name of ours is pruned by every engine."""
        name = self.engine.docker("volume", "create", *([unique("vol")] * named)).stdout.strip()
        words = (
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "-v",
            f"{name}:/v",
            self.busybox,
            "dd",
            "of=/v/photo",
            "status=none",
        )
        self.engine.docker(*words, input=content)
        return name

    def write(self, volume: str, script: str) -> None:
        self.engine.docker(
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            f"{volume}:/v",
            "-w",
            "/v",
            self.busybox,
            "sh",
            "-ec",
            script,
        )

    def look(self, volume: str) -> tuple[str, str]:
        """The names at its root, and what the file in it says."""
        script = "ls -A /v; cat /v/photo"
        words = (
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            f"{volume}:/v:ro",
            self.busybox,
            "sh",
            "-c",
            script,
        )
        said = self.engine.docker(*words).stdout
        return (said.partition("\n")[0], said.rpartition("\n")[2])

    def used(self, since: float) -> set[str]:
        """The images of all containers of ours that were created since then, be it for a moment."""
        words = (
            "events",
            "--since",
            f"{since:.9f}",
            "--until",
            f"{time.time() + 1:.9f}",
            "--filter",
            "type=container",
        )
        lines = self.engine.docker(
            *words, "--filter", "event=create", "--format", "{{json .Actor.Attributes}}"
        ).stdout.splitlines()
        return {
            facts["image"]
            for facts in map(json.loads, lines)
            if any(k.startswith("io.github.safe-compose") for k in facts)
        }


def _link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return info, b""


def _folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info, b""


def _file(name: str, content: str | bytes) -> tuple[tarfile.TarInfo, bytes]:
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o755
    return info, data


@pytest.fixture(scope="module")
def planted(lab: None) -> Iterator[PlantedEngine]:
    with private_engine(["busybox:latest"]) as started:
        yield PlantedEngine(started)


@pytest.fixture
def reach(planted: PlantedEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlantedEngine]:
    """Everything goes to that engine; afterwards no planted image has been used, and nothing is
    left.
    """
    monkeypatch.setenv("DOCKER_HOST", planted.engine.host)
    begun = time.time()
    yield planted
    ours = {*build("amd64").ids, *build_empty("amd64").ids, planted.busybox}
    used = planted.used(begun)
    if containers := planted.engine.docker("ps", "-aq").stdout.split():
        planted.engine.docker("rm", "-fv", *containers, check=False)
    if volumes := planted.engine.volumes():
        planted.engine.docker("volume", "rm", "-f", *volumes, check=False)
    assert used <= ours, "a planted image was given to a container of ours"


def images(planted: PlantedEngine) -> set[str]:
    return set(planted.engine.docker("image", "ls", "-aq", "--no-trunc").stdout.split())


def ended(answer: Completed, code: int) -> Completed:
    assert answer.returncode == code, answer.stderr
    return answer


# The first test: the image of ours is not on the engine yet.
@pytest.mark.thorough
def test_explain_neither_believes_a_planted_image_nor_takes_its_name(
    reach: PlantedEngine, safe_compose: SafeCompose
) -> None:
    full = reach.volume()
    empty = unique("vol")
    reach.engine.docker("volume", "create", empty)
    before = images(reach)
    for name in (full, empty):
        said = ended(safe_compose("--explain", "--json", "volume", "rm", name), 0)
        plan = json.loads(said.stdout)
        assert (plan["verdict"], [v["tier"] for v in plan["volumes"]]) == ("guard", ["critical"])
        assert "was not looked into: another image bears the name" in said.stderr
    assert images(reach) == before
    assert build("amd64").ids[0] not in before
    ended(safe_compose("volume", "rm", empty), 0)  # now it is looked into, and it is empty
    assert empty not in reach.engine.volumes()
    plan = json.loads(ended(safe_compose("--explain", "--json", "volume", "rm", full), 0).stdout)
    assert (plan["verdict"], [v["tier"] for v in plan["volumes"]]) == ("guard", ["critical"])


@pytest.mark.thorough
def test_a_volume_of_unknown_content_is_not_taken_for_empty(
    reach: PlantedEngine, safe_compose: SafeCompose
) -> None:
    names = [reach.volume() for _ in range(3)]
    refused = ended(safe_compose("volume", "rm", *names, "--non-interactive"), 77)
    assert all(name in refused.stderr for name in names)
    assert set(names) <= reach.engine.volumes()
    unnamed = reach.volume(named=False)
    for words in (("volume", "prune", "-f"), ("system", "prune", "-f", "--volumes")):
        ended(safe_compose(*words, "--non-interactive"), 77)
        assert {unnamed, *names} <= reach.engine.volumes()
    with connect(real_docker(), (), environ=os.environ, run_id=unique("test")) as engine:
        assert engine.archives.list_roots(names) == {name: ["photo"] for name in names}
        assert [engine.archives.list_root(name) for name in names] == [["photo"]] * 3


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words",
    [("volume", "rm", "NAME"), ("volume", "prune", "-f"), ("system", "prune", "-f", "--volumes")],
    ids=lambda words: " ".join(words),
)
def test_a_deletion_is_backed_up_whole_and_comes_back(
    reach: PlantedEngine, safe_compose: SafeCompose, words: tuple[str, ...]
) -> None:
    name = reach.volume(named=words[1] == "rm")
    typed = [name if word == "NAME" else word for word in words]
    phrase = name if "NAME" in words else "delete 1 volume"
    done = ended(safe_compose(*typed, "--confirm", phrase), 0)
    assert name not in reach.engine.volumes() and "is verified (L2)" in done.stderr, done.stderr
    [kept] = json.loads(safe_compose("list", "--json").stdout)["backups"]
    manifest = json.loads((Path(kept["path"]) / "manifest.json").read_text())
    [tar] = [a for a in manifest["volumes"][0]["artifacts"] if a["kind"] == "archive"]
    assert (tar["detail"]["tar"], tar["detail"]["members"]) == (
        "helper",
        "2",
    ) and "image" not in tar["detail"]
    ended(safe_compose("undo"), 0)
    assert reach.look(name) == ("photo", "precious")


@pytest.mark.thorough
def test_down_with_volumes_restore_and_one_path_by_our_own_program(
    reach: PlantedEngine, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    folder = tmp_path / unique("proj")
    folder.mkdir()
    (folder / "compose.yaml").write_text(APP)
    name = f"{folder.name}_files"
    reach.engine.docker("compose", "up", "-d", "--pull", "never", cwd=folder)
    inside = partial(reach.engine.docker, "compose", "exec", "-T", "app", "sh", "-c", cwd=folder)
    inside("echo -n one >/srv/photo; mkdir /srv/d; echo two >/srv/d/x")
    kept = json.loads(ended(safe_compose("backup", "--json", cwd=folder), 0).stdout)["backup"]["id"]
    ended(safe_compose("compose", "down", "-v", "--confirm", folder.name, cwd=folder), 0)
    assert name not in reach.engine.volumes()
    ended(safe_compose("undo", cwd=folder), 0)
    assert reach.look(name) == ("d", "one")
    inside("rm -r /srv/d; echo -n newer >/srv/photo")
    ended(safe_compose("restore", kept, "--path", "d", cwd=folder), 0)
    ended(safe_compose("restore", kept, "--path", "photo", "--confirm", "photo", cwd=folder), 0)
    assert reach.look(name)[1] == "one"
    inside("echo -n third >/srv/photo")
    ended(safe_compose("restore", kept, "--confirm", folder.name, cwd=folder), 0)
    assert reach.look(name) == ("d", "one")


@pytest.mark.thorough
def test_the_trash_and_its_lock_use_no_planted_image(
    reach: PlantedEngine, safe_compose: SafeCompose
) -> None:
    name, other = reach.volume(), reach.volume("of somebody else")
    ended(safe_compose("volume", "rm", name, "--confirm", f"trash {name}"), 0)
    assert name not in reach.engine.volumes()
    ended(safe_compose("undo"), 0)
    assert (reach.look(name), reach.look(other)) == (
        ("photo", "precious"),
        ("photo", "of somebody else"),
    )


@pytest.mark.thorough
def test_a_lock_uses_no_planted_image(reach: PlantedEngine, safe_compose: SafeCompose) -> None:
    name = reach.volume()
    ended(safe_compose("protect", "--lock", name), 0)
    assert reach.engine.docker("volume", "rm", name, check=False).returncode == 1
    ended(safe_compose("unprotect", name, "--confirm", name), 0)
    assert reach.look(name) == ("photo", "precious")


@pytest.mark.thorough
def test_the_content_of_a_container_that_removes_itself_is_held_by_our_image(
    reach: PlantedEngine, safe_compose: SafeCompose
) -> None:
    words = ("run", "-d", "--rm", "--init", "--network", "none", "-v", "/data", reach.busybox)
    container = reach.engine.docker(
        *words, "sh", "-c", "echo x >/data/photo; exec sleep 1000"
    ).stdout.strip()
    mounts = json.loads(reach.engine.docker("inspect", container).stdout)[0]["Mounts"]
    ended(safe_compose("stop", "-t", "1", container), 0)
    assert mounts[0]["Name"] in reach.engine.volumes()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "content",
    [
        "echo 15 >PG_VERSION; mkdir global base; echo x >global/pg_control",
        "mkdir mysql; echo x >ibdata1; echo x >ibtmp1",
        (
            "echo REDIS0011 >dump.rdb; mkdir appendonlydir; echo x"
            " >appendonlydir/appendonly.aof.manifest"
        ),
        "printf 'SQLite format 3\\000' >app.db; echo x >>app.db",
    ],
    ids=["postgres", "mysql", "redis", "sqlite"],
)
def test_a_database_that_nobody_serves_is_judged_without_a_planted_server(
    reach: PlantedEngine, safe_compose: SafeCompose, content: str
) -> None:
    name = reach.volume()
    reach.write(name, content)
    done = ended(safe_compose("volume", "rm", name, "--confirm", name), 0)
    assert name not in reach.engine.volumes() and "is verified (L2)" in done.stderr
    ended(safe_compose("undo"), 0)
    assert reach.look(name)[1] == "precious"


@pytest.mark.thorough
def test_nothing_of_ours_even_asks_which_images_there_are() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")}
    listing = re.compile(r"\.images\(|/images/json|docker images|image ls")
    asked = [path.name for path, text in texts.items() if listing.search(text)]
    assert texts and asked == []
