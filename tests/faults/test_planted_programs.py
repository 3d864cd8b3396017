"""Images with programs that somebody planted: the trash, locks, the confirmation screen, doctor,
backups and restores start none of them.

`test_planted_engine` plants the images, each with a script for every program that a helper ever
called. Here every command that inspects volumes runs in parallel, and the engine's own events tell
which images got a container.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_planted_engine import MARK, PROGRAMS, SCRIPT, PlantedEngine, _file, ended

from safe_compose.databases import redis
from safe_compose.databases.protocol import ShutdownState
from safe_compose.engine import connect
from safe_compose.engine.helper_image import build, build_empty
from safe_compose.volumes.engine_location import EngineLocation
from testing.fixtures import SafeCompose
from testing.private_engine import private_engine
from testing.projects import real_docker, unique
from testing.stacks import JOB
from testing.terminal import Person

pytestmark = pytest.mark.engine

MORE = (
    "postgres",
    "psql",
    "initdb",
    "pg_dump",
    "redis-server",
    "redis-check-rdb",
    "redis-check-aof",
    "valkey-check-rdb",
)
PROJECT = """
services:
  app: {image: "busybox:latest", init: true, network_mode: none, command: [sleep, "100000"], volumes: ["data:/data"]}
volumes: {data: }
"""


@pytest.fixture(scope="module")
def full(lab: None) -> Iterator[PlantedEngine]:
    """An engine with two real images, and planted ones that are smaller and look like PostgreSQL."""
    with private_engine(["busybox:latest", "redis:7"]) as started:
        planted = PlantedEngine(started)
        scripts = [
            _file(f"{at}{name}", SCRIPT)
            for at in ("bin/", "usr/bin/")
            for name in (*PROGRAMS, *MORE)
        ]
        program = [_file("bin/busybox", planted._busybox()), *scripts]
        for major in (13, 14, 15, 16, 17, 18):
            changes = (
                f"ENV PG_MAJOR={major}",
                "ENV PGDATA=/var/lib/postgresql/data",
                'ENTRYPOINT ["sh"]',
            )
            planted.plant(program, f"postgres:{major}", *changes)
        planted.plant(program, "redis:6", 'CMD ["redis-server"]')
        yield planted


@pytest.fixture
def there(full: PlantedEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlantedEngine]:
    """Everything goes to that engine. Afterwards no container that a command made is of a planted
    image.
    """
    monkeypatch.setenv("DOCKER_HOST", full.engine.host)
    begun = time.time()
    yield full
    used = full.used(begun)
    if containers := full.engine.docker("ps", "-aq").stdout.split():
        full.engine.docker("rm", "-fv", *containers, check=False)
    marked = [name for name in full.engine.volumes() if MARK in full.look(name)[0]]
    if volumes := full.engine.volumes():
        full.engine.docker("volume", "rm", "-f", *volumes, check=False)
    assert marked == []
    own = {full.busybox}  # of the service itself
    assert used <= {
        *build("amd64").ids,
        *build_empty("amd64").ids,
        *own,
    }, "a planted image was given to a container of ours"


def data_directory(there: PlantedEngine, volume: str) -> None:
    """Make a volume look like the data of a PostgreSQL 15 that was stopped in order: its control
    file is whole.
    """
    script = "mkdir -p /v/global /v/base; echo 15 >/v/PG_VERSION; cat >/v/global/pg_control"
    words = (
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "-v",
        f"{volume}:/v",
        there.busybox,
        "sh",
        "-c",
        script,
    )
    there.engine.docker(*words, input="no control file")


@pytest.mark.thorough
def test_the_trash_there_and_back(there: PlantedEngine, safe_compose: SafeCompose) -> None:
    name, other = there.volume(), there.volume("of somebody else")
    ended(safe_compose("volume", "rm", name, "--confirm", f"trash {name}"), 0)
    assert name not in there.engine.volumes()
    ended(safe_compose("undo"), 0)
    assert there.look(name) == ("photo", "precious") and there.look(other) == (
        "photo",
        "of somebody else",
    )


@pytest.mark.thorough
def test_a_lock(there: PlantedEngine, safe_compose: SafeCompose) -> None:
    name = there.volume()
    ended(safe_compose("protect", "--lock", name), 0)
    image = there.engine.docker(
        "inspect", "-f", "{{.Image}}", f"safe-compose-lock-{name}"
    ).stdout.strip()
    assert image in build("amd64").ids
    assert there.engine.docker("volume", "rm", "-f", name, check=False).returncode != 0
    ended(safe_compose("unprotect", name, "--confirm", name), 0)


@pytest.mark.thorough
def test_the_screen_and_doctor(
    there: PlantedEngine, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    name = there.volume()
    person = Person("volume", "rm", name, cwd=tmp_path)
    person.sees("written ")
    person.sees(f"type '{name}': ")
    person.presses("d")
    assert person.leaves_with() == 77
    assert json.loads(safe_compose("doctor", "--json").stdout)
    assert there.look(name) == ("photo", "precious")


@pytest.mark.thorough
def test_a_backup_while_it_runs_and_a_deletion_with_undo(
    there: PlantedEngine, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    folder = tmp_path / unique("shop")
    folder.mkdir()
    (folder / "compose.yaml").write_text(PROJECT)
    there.engine.docker("compose", "up", "-d", cwd=folder)
    volume = f"{folder.name}_data"
    there.engine.docker(
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{volume}:/v",
        there.busybox,
        "sh",
        "-c",
        "echo -n x >/v/photo",
    )
    ended(safe_compose("backup", cwd=folder), 0)
    ended(safe_compose(*JOB, "compose", "down", "-v", cwd=folder), 0)
    assert volume not in there.engine.volumes()
    ended(safe_compose("undo", cwd=folder), 0)
    assert there.look(volume) == ("photo", "x")


@pytest.mark.thorough
def test_a_database_that_nobody_runs_gets_no_server_of_an_image_that_only_looks_like_its_own(
    there: PlantedEngine, safe_compose: SafeCompose
) -> None:
    name = there.volume()
    data_directory(there, name)
    deleted = ended(safe_compose("volume", "rm", name, *JOB[:1], "--confirm", name, *JOB[1:]), 0)
    assert name not in there.engine.volumes(), deleted.stderr
    shown = json.loads(ended(safe_compose("list", "--json"), 0).stdout)["backups"][0]
    [record] = json.loads((Path(shown["path"]) / "manifest.json").read_text())["volumes"]
    notes = " ".join(record["notes"])
    assert record["data_kind"] == "postgres" and "control state 'unknown'" in notes
    assert (
        "the image of its own service, of PostgreSQL 15, is not at hand, and no other one is used"
        in notes
    )


@pytest.mark.thorough
def test_a_redis_that_nobody_runs_is_judged_without_a_checker_of_another_image(
    there: PlantedEngine, safe_compose: SafeCompose
) -> None:
    name = there.volume()
    words = (
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{name}:/data",
        "--entrypoint",
        "sh",
        "redis:7",
        "-c",
    )
    script = (
        "redis-server --dir /data --save '' & until redis-cli ping; do sleep 0.1; done; redis-cli"
        " set a 1; redis-cli save; redis-cli shutdown nosave; rm /data/photo"
    )
    there.engine.docker(*words, script)
    with connect(real_docker(), (), environ=os.environ, run_id=unique("test")) as engine:
        assert redis.inspect_shutdown(EngineLocation(engine, name), None) == ShutdownState(
            "dump.rdb is whole", clean=True
        )
    ended(safe_compose("volume", "rm", name, *JOB[:1], "--confirm", name, *JOB[1:]), 0)
    assert name not in there.engine.volumes()
