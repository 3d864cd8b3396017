"""The trash: content of a deleted volume that is renamed aside instead of copied, and what every
cut of that leaves behind.
"""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from safe_compose.engine import Engine, connect
from safe_compose.errors import StateChanged
from safe_compose.store.journal import Journal
from safe_compose.system.process import Process
from safe_compose.volumes import rename
from safe_compose.volumes.engine_location import EngineLocation
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.private_engine import PrivateEngine, private_engine
from testing.projects import (
    ComposeProject,
    docker,
    read_in_volume,
    real_docker,
    require_success,
    unique,
    volume_exists,
    wait_until,
)
from testing.terminal import Person

pytestmark = [pytest.mark.engine, pytest.mark.long]

TRASH = '[backup]\nsafety = "trash"\n'
BOTH = '[backup]\nsafety = "both"\n'
FILES = """
services:
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["uploads:/app/uploads"]}
volumes: {uploads: {labels: {purpose: "odd, value"}}}
"""
DATABASE = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-9c1d, POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
volumes: {data: }
"""


def inside(volume: str, *argv: str, input: str | None = None) -> str:
    """Run one program in a throwaway container that sees the volume as /v."""
    return read_in_volume(volume, *argv, input=input).strip()


def facts(volume: str) -> tuple[str, str]:
    """Inode, owner and mode of its root and of the file in it, with what is in that; and its
    labels.
    """
    labels = docker("volume", "inspect", volume, "--format", "{{json .Labels}}").stdout.strip()
    return inside(volume, "sh", "-c", "stat -c '%i %u:%g %a' /v /v/photo; cat /v/photo"), labels


def write_user_settings(home: Path, text: str) -> None:
    settings = home / ".config" / "safe-compose" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(text)


def content(volume: str) -> str | None:
    return inside(volume, "cat", "/v/photo") if volume_exists(volume) else None


def listed(safe_compose: SafeCompose, volume: str) -> list[dict[str, Any]]:
    """What is in the trash of one volume: other tests may use the same engine."""
    found: list[dict[str, Any]] = json.loads(
        require_success(safe_compose("trash", "list", "--json")).stdout
    )["trash"]
    return [item for item in found if item["volume"] == volume]


def left(*volumes: str) -> list[str]:
    """What is still in the trash of these volumes, and what holds it."""
    found = []
    for volume in volumes:
        label = f"label=io.github.safe-compose.trash.of={volume}"
        for trash in docker("volume", "ls", "-q", "--filter", label).stdout.split():
            found += [trash, *docker("ps", "-aq", "--filter", f"volume={trash}").stdout.split()]
    return found


def clean(*volumes: str) -> None:
    for volume in volumes:
        label = f"label=io.github.safe-compose.trash.of={volume}"
        for trash in docker("volume", "ls", "-q", "--filter", label).stdout.split():
            docker("rm", "-f", f"safe-compose-lock-{trash}", check=False)
            docker("volume", "rm", "-f", trash, check=False)
        docker("volume", "rm", "-f", volume, check=False)


@pytest.fixture
def loose(lab: None) -> Iterator[Callable[..., str]]:
    """Make a volume of nobody's, with a file in it whose owner and mode are odd."""
    made: list[str] = []

    def make(*words: str) -> str:
        name = unique("trash")
        docker("volume", "create", "--label", "purpose=odd, value", *words, name)
        inside(
            name,
            "sh",
            "-c",
            "printf 'a photo' >/v/photo; chown 1234:4321 /v /v/photo; chmod 2751 /v",
        )
        made.append(name)
        return name

    yield make
    clean(*made)


@pytest.fixture
def projects(compose_project: ProjectFactory) -> Iterator[Callable[[str, str], ComposeProject]]:
    made: list[ComposeProject] = []

    def make(text: str, settings: str) -> ComposeProject:
        project = compose_project(text, files={"safe-compose.toml": settings})
        made.append(project)
        project.up()
        return project

    yield make
    for project in made:
        project.docker("compose", "kill", check=False)
        project.docker("compose", "rm", "-f", check=False)
        clean(*(f"{project.name}_{key}" for key in ("uploads", "data")))


@pytest.fixture
def renames(lab: None) -> None:
    """With user namespaces root in a container is not root in the engine's folders."""
    if "name=userns" in docker("info", "--format", "{{.SecurityOptions}}").stdout:
        pytest.skip("content cannot be renamed here: the test of user namespaces is another one")


@pytest.fixture
def engine(lab: None) -> Iterator[Engine]:
    with connect(real_docker(), (), environ=os.environ, run_id=unique("test")) as connected:
        yield connected


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.usefixtures("renames")
@pytest.mark.matrix
def test_a_person_types_the_phrase_of_the_screen_and_undo_renames_everything_back(
    projects: Callable[[str, str], ComposeProject],
    safe_compose: SafeCompose,
    sealed_environment: Path,
) -> None:
    project = projects(FILES, "[backup]\npatience = 1\n")
    volume = f"{project.name}_uploads"
    inside(volume, "dd", "of=/v/photo", "status=none", input="a photo")
    before, labels = facts(volume)
    person = Person("compose", "down", "-v", cwd=project.folder)
    person.sees(f"or 'trash {project.name}': without a copy, in seconds")
    person.sees(f"type '{project.name}': ")
    person.types(f"trash {project.name}")
    assert person.leaves_with() == 0, person.last_words
    assert f"in the trash for 30 days: {volume}" in person.last_words
    assert (
        project.volumes() == []
        and json.loads(safe_compose("list", "--json").stdout)["backups"] == []
    )
    [item] = listed(safe_compose, volume)
    assert (item["volume"], item["project"], item["held"], item["expired"]) == (
        volume,
        project.name,
        True,
        False,
    )
    trash = f"safe-compose-trash-{item['id']}"
    refused = safe_compose("volume", "rm", "-f", trash)
    assert refused.returncode == 1 and "is in the trash, so docker refuses" in refused.stderr

    undone = require_success(safe_compose("undo", cwd=project.folder))
    assert f"{volume} is back, from the trash" in undone.stderr
    assert project.running() == [f"{project.name}-app-1"]
    assert facts(volume) == (before, labels)
    ids = project.docker("compose", "ps", "-q").stdout
    assert "ecreat" not in project.docker("compose", "up", "-d").stderr
    assert project.docker("compose", "ps", "-q").stdout == ids
    assert left(volume) == []
    again = safe_compose("undo", cwd=project.folder)
    assert again.returncode == 64 and "was undone already" in again.stderr


@pytest.mark.usefixtures("renames")
@pytest.mark.matrix
@pytest.mark.thorough
def test_a_database_goes_and_comes_back_also_over_the_fresh_one_that_up_made(
    projects: Callable[[str, str], ComposeProject], safe_compose: SafeCompose
) -> None:
    shop = projects(DATABASE, TRASH)
    volume = f"{shop.name}_data"
    rows = "SELECT count(*), md5(string_agg(g::text || t, ',' ORDER BY g)) FROM rows"
    shop.psql(
        "CREATE TABLE rows AS SELECT g, md5(g::text) t FROM generate_series(1, 5000) g",
        user="shop",
        database="shop",
    )
    before = shop.psql(rows, user="shop", database="shop")
    explained = json.loads(
        safe_compose("--explain", "--json", "compose", "down", "-v", cwd=shop.folder).stdout
    )
    assert (explained["backup"], explained["trash"]) == (False, True)
    require_success(safe_compose("compose", "down", "-v", "--confirm", shop.name, cwd=shop.folder))
    assert shop.volumes() == []
    shop.up()
    assert shop.psql("SELECT to_regclass('rows') IS NULL", user="shop", database="shop") == "t"
    refused = safe_compose("undo", cwd=shop.folder)
    assert refused.returncode == 77 and f"--confirm '{shop.name}'" in refused.stderr
    undone = json.loads(
        require_success(
            safe_compose("undo", "--confirm", shop.name, "--json", cwd=shop.folder)
        ).stdout
    )["undone"]
    assert [v["from"] for v in undone["volumes"]] == ["trash"] and undone["safety"]
    shop.up()
    assert shop.psql(rows, user="shop", database="shop") == before
    assert left(volume) == []


@pytest.mark.thorough
def test_with_both_undo_takes_the_archive_when_the_trash_was_emptied(
    projects: Callable[[str, str], ComposeProject], safe_compose: SafeCompose
) -> None:
    project = projects(FILES, BOTH)
    volume = f"{project.name}_uploads"
    inside(volume, "dd", "of=/v/photo", "status=none", input="a photo")
    answer = require_success(
        safe_compose("compose", "down", "-v", "--confirm", project.name, cwd=project.folder)
    )
    fate = r"deleted 1 volume, with a copy in backup \S+ and in the trash for 30 days: "
    assert re.search(fate + volume, answer.stderr)
    [item] = listed(safe_compose, volume)
    for words in (("--yes",), ("--confirm", "wrong")):
        assert safe_compose("trash", "empty", item["id"], *words).returncode == 77
    require_success(safe_compose("trash", "empty", item["id"], "--confirm", "delete 1 item"))
    assert left(volume) == []
    assert (
        f"{volume} is back, from its archive"
        in require_success(safe_compose("undo", cwd=project.folder)).stderr
    )
    assert content(volume) == "a photo"


@pytest.mark.thorough
def test_a_job_that_asks_for_a_backup_gets_one_and_undo_still_takes_the_trash(
    projects: Callable[[str, str], ComposeProject], safe_compose: SafeCompose
) -> None:
    project = projects(FILES, TRASH)
    volume = f"{project.name}_uploads"
    inside(volume, "dd", "of=/v/photo", "status=none", input="a photo")
    require_success(
        safe_compose(
            "--non-interactive", "--backup-first", "compose", "down", "-v", cwd=project.folder
        )
    )
    [kept] = json.loads(safe_compose("list", "--json").stdout)["backups"]
    assert kept["verified"]
    assert (
        f"{volume} is back, from the trash"
        in require_success(safe_compose("undo", cwd=project.folder)).stderr
    )
    assert content(volume) == "a photo" and left(volume) == []


@pytest.mark.thorough
def test_an_item_is_restored_by_itself_and_an_expired_one_goes_with_a_yes(
    loose: Callable[..., str], safe_compose: SafeCompose
) -> None:
    name = loose()
    before = facts(name)
    require_success(safe_compose("volume", "rm", name, "--confirm", f"trash {name}"))
    assert not volume_exists(name)
    [item] = listed(safe_compose, name)
    restored = json.loads(require_success(safe_compose("trash", "restore", name, "--json")).stdout)[
        "restored"
    ]
    assert [v["from"] for v in restored["volumes"]] == ["trash"]
    assert facts(name) == before and left(name) == [] and listed(safe_compose, name) == []
    other = loose()
    require_success(
        safe_compose("volume", "rm", name, other, "--confirm", "trash delete 2 volumes")
    )
    require_success(safe_compose("trash", "restore", "--volume", name))
    undone = require_success(safe_compose("undo")).stderr
    assert (
        f"not in the trash any more: {name}" in undone
        and f"{other} is back, from the trash" in undone
    ), undone
    unknown = safe_compose("trash", "restore", item["id"])
    assert unknown.returncode == 64 and "safe-compose trash list" in unknown.stderr

    record = json.dumps({"created": "2026-01-01T00:00:00Z", "project": "old"})
    label = "io.github.safe-compose.trash"
    words = (
        "--label",
        f"{label}=20260101T000000Z-aaaaaa",
        "--label",
        f"{label}.of={name}",
        "--label",
        f"{label}.record={record}",
    )
    docker("volume", "create", *words, f"safe-compose-trash-{name}")
    run = Journal(Path(os.environ["SAFE_COMPOSE_HOME"])).begin("20260101T000000Z-aaaaaa")
    run.step("trashed", volume=name, trash=f"safe-compose-trash-{name}")
    run.step("ended", outcome="deleted")
    [old] = listed(safe_compose, name)
    assert (old["expired"], old["held"], old["expires"]) == (True, False, "2026-01-31T00:00:00Z")
    attention = json.loads(safe_compose("doctor", "--json").stdout)["attention"]
    assert [a for a in attention if "trash empty --expired" in a] and [
        a for a in attention if "nothing protects item" in a
    ]
    require_success(safe_compose("recover"))
    assert [i["held"] for i in listed(safe_compose, name)] == [True]
    assert safe_compose("trash", "empty", "--expired").returncode == 77
    require_success(safe_compose("trash", "empty", "--expired", "--yes"))
    assert left(name) == [] and volume_exists(name)


@pytest.fixture
def private(lab: None) -> Iterator[PrivateEngine]:
    with private_engine(["busybox:latest"]) as started:
        yield started


@pytest.mark.usefixtures("renames")
@pytest.mark.matrix
@pytest.mark.thorough
def test_what_is_in_the_trash_outlives_a_power_cut_and_every_prune(
    private: PrivateEngine, safe_compose: SafeCompose
) -> None:
    there = {"DOCKER_HOST": private.host}
    words = ("run", "--rm", "-i", "--network", "none", "-v", "photos:/v", "busybox:latest")
    private.docker(*words, "dd", "of=/v/photo", "status=none", input="a photo")
    require_success(safe_compose("volume", "rm", "photos", "--confirm", "trash photos", env=there))
    private.lose_power()
    private.start()
    private.docker("container", "prune", "-f")
    private.docker("system", "prune", "-af", "--volumes")
    [trash] = private.volumes()
    assert private.docker("volume", "rm", "-f", trash, check=False).returncode == 1
    require_success(safe_compose("undo", env=there))
    private.load(["busybox:latest"])  # the prune took it: the trash is held by an image of our own
    assert (
        private.volumes() == {"photos"}
        and private.docker(*words, "cat", "/v/photo").stdout == "a photo"
    )


# -- where it is not possible ----------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.thorough
def test_where_content_cannot_be_renamed_it_is_backed_up_and_that_is_said(
    loose: Callable[..., str], safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    write_user_settings(sealed_environment, TRASH)
    # Any engine can reach a folder of its own, also one that is not root's.
    place = docker("volume", "inspect", loose(), "--format", "{{.Mountpoint}}").stdout.strip()
    name = loose("--opt", "type=none", "--opt", "o=bind", "--opt", f"device={place}")
    unasked = safe_compose("volume", "rm", name, "--confirm", f"trash {name}")
    assert unasked.returncode == 77
    answer = require_success(safe_compose("volume", "rm", name, "--confirm", name))
    assert (
        f"volume {name} cannot go into the trash: {name}: driver options; it is backed up"
        in answer.stderr
    )
    assert "with a copy in backup " in answer.stderr and left(name) == []


@pytest.mark.matrix
@pytest.mark.thorough
def test_with_user_namespaces_content_is_backed_up_instead_and_that_is_said(
    lab: None, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    write_user_settings(sealed_environment, TRASH)
    with private_engine(["busybox:latest"], options=["--userns-remap=default"]) as remapped:
        there = {"DOCKER_HOST": remapped.host}
        words = ("run", "--rm", "-i", "--network", "none", "-v", "photos:/v", "busybox:latest")
        remapped.docker(*words, "dd", "of=/v/photo", "status=none", input="a photo")
        for phrase, code in (("trash photos", 77), ("photos", 0)):
            done = safe_compose("volume", "rm", "photos", "--confirm", phrase, env=there)
            assert done.returncode == code, done.stderr
        assert "volume photos cannot go into the trash: " in done.stderr
        assert "Permission denied; it is backed up" in done.stderr
        assert "with a copy in backup " in done.stderr
        assert remapped.volumes() == set()
        require_success(safe_compose("undo", env=there))
        assert remapped.docker(*words, "cat", "/v/photo").stdout == "a photo"


@pytest.mark.thorough
def test_nothing_moves_under_a_container_that_runs_and_links_are_refused(
    loose: Callable[..., str], engine: Engine
) -> None:
    name = loose()
    trash = unique("safe-compose-trash")
    engine.docker.create_volume(trash, labels={"io.github.safe-compose.trash.of": name})
    user = docker(
        "run", "-d", "--init", "-v", f"{name}:/v", "busybox:latest", "sleep", "100000"
    ).stdout.strip()
    try:
        with pytest.raises(StateChanged, match="runs on volume"):
            rename.move_out(
                EngineLocation(engine, name),
                trash,
                lambda: rename.require_unused(EngineLocation(engine, name)),
            )
        assert (
            inside(name, "cat", "/v/photo") == "a photo" and inside(trash, "ls", "-A", "/v") == ""
        )
    finally:
        docker("rm", "-f", user)
    volume = engine.docker.volume(name)
    assert (
        volume is not None
        and rename.examine(engine, volume, engine.docker.volumes_folder()) is None
    )
    on_disk("mv", f"{name}/_data", f"{name}/real", engine=engine)
    on_disk("ln", "-s", "real", f"{name}/_data", engine=engine)
    assert "symbolic link" in str(rename.examine(engine, volume, engine.docker.volumes_folder()))
    on_disk("rm", f"{name}/_data", engine=engine)
    on_disk("mv", f"{name}/real", f"{name}/_data", engine=engine)


# -- cut off ---------------------------------------------------------------------------------------


def on_disk(*argv: str, engine: Engine) -> str:
    """Run a program of busybox in the engine's own folder of volumes, as nobody ever should."""
    folder = engine.docker.volumes_folder()
    words = ("run", "--rm", "--network", "none", "-v", f"{folder}:/d", "-w", "/d", "busybox:latest")
    return docker(*words, *argv).stdout.strip()


_LOOK = "cat {}/_data/photo; stat -c '%i %u:%g %a' {}/_data {}/_data/photo; ls -A {} {}/_data"


@pytest.mark.thorough
def test_each_way_may_be_gone_again_from_either_end(
    loose: Callable[..., str], engine: Engine
) -> None:
    """A helper that is killed leaves one of two states: whoever comes next says the same again, and
    goes on from there.
    """
    name = loose()
    trash = unique("safe-compose-trash")
    engine.docker.create_volume(trash, labels={"io.github.safe-compose.trash.of": name})

    def look(volume: str) -> str:
        return on_disk("sh", "-c", _LOOK.replace("{}", volume), engine=engine).replace(volume, "")

    before = look(name)
    for way, content_in, empty_in in (
        (rename.move_out, trash, name),
        (rename.move_back, name, trash),
    ):
        for _ in range(2):
            way(EngineLocation(engine, name), trash, lambda: None)
            assert look(content_in) == before
            assert (
                on_disk("sh", "-c", f"ls -A {empty_in}; ls -A {empty_in}/_data", engine=engine)
                == "_data"
            )


def test_a_move_that_is_called_off_at_the_last_moment_touches_nothing(
    loose: Callable[..., str], engine: Engine
) -> None:
    name = loose()
    trash = unique("safe-compose-trash")
    engine.docker.create_volume(trash, labels={"io.github.safe-compose.trash.of": name})

    def no() -> None:
        raise StateChanged("somebody uses it")

    with pytest.raises(StateChanged):
        rename.move_out(EngineLocation(engine, name), trash, no)
    assert inside(name, "cat", "/v/photo") == "a photo" and inside(trash, "ls", "-A", "/v") == ""
    assert engine.helpers.leftovers() == ()


def test_other_content_in_the_meantime_is_never_written_over(
    loose: Callable[..., str], engine: Engine
) -> None:
    name = loose()
    trash = unique("safe-compose-trash")
    engine.docker.create_volume(trash, labels={"io.github.safe-compose.trash.of": name})
    rename.move_out(EngineLocation(engine, name), trash, lambda: None)
    assert inside(name, "sh", "-c", "stat -c '%u:%g %a' /v; touch /v/new") == "1234:4321 2751"
    with pytest.raises(rename.CannotMove, match="other content"):
        rename.move_back(EngineLocation(engine, name), trash, lambda: None)
    assert inside(trash, "cat", "/v/photo") == "a photo" and inside(name, "ls", "/v") == "new"


DELETION = {1: "trashing", 2: "trashed", 3: "running", 4: "docker", 5: "ran"}
"""The journal's steps of `volume rm`: killed before each is on the disk."""
UNDO = {1: "putting-back", 2: "put-back", 3: "undid"}


def newest_steps(home: Path) -> list[str]:
    runs = [
        path.read_text().splitlines()
        for path in (home / "safe-compose" / "journal").glob("*.jsonl")
    ]
    newest = max(runs, key=lambda lines: int(json.loads(lines[0])["seq"]))
    return [json.loads(line).get("step", "head") for line in newest]


def recovered(safe_compose: SafeCompose, volume: str) -> str:
    """What `recover` says; where docker outlived us it is asked again when that has done its work."""
    said = require_success(safe_compose("recover")).stdout
    assert said != "nothing to recover\n"
    if "docker may still be deleting" in said:
        wait_until("docker deletes the volume", lambda: not volume_exists(volume))
        said += require_success(safe_compose("recover")).stdout
    return said


@pytest.mark.thorough
@pytest.mark.parametrize("at", DELETION, ids=lambda at: DELETION[at])
def test_a_kill_while_content_goes_into_the_trash_loses_nothing(
    at: int, loose: Callable[..., str], safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    name = loose()
    before = facts(name)
    killed = safe_compose(
        "volume",
        "rm",
        name,
        "--confirm",
        f"trash {name}",
        env=failing_syscalls("fsync", ".jsonl", "KILL", skip=at),
    )
    assert killed.returncode == -9 and newest_steps(sealed_environment)[-1] == DELETION[at], (
        killed.stderr
    )
    recovered(safe_compose, name)
    if not volume_exists(name):
        assert at >= 4
        require_success(safe_compose("undo"))
    assert facts(name) == before and left(name) == []


@pytest.mark.thorough
@pytest.mark.parametrize("at", UNDO, ids=lambda at: UNDO[at])
def test_a_kill_while_content_comes_back_loses_nothing(
    at: int, loose: Callable[..., str], safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    name = loose()
    before = facts(name)
    require_success(safe_compose("volume", "rm", name, "--confirm", f"trash {name}"))
    killed = safe_compose("undo", env=failing_syscalls("fsync", ".jsonl", "KILL", skip=at))
    assert killed.returncode == -9 and newest_steps(sealed_environment)[-1] == UNDO[at], (
        killed.stderr
    )
    said = recovered(safe_compose, name)
    if at < 3:
        assert "its content is in the trash again" in said
        require_success(safe_compose("undo"))
    assert facts(name) == before and left(name) == []


@pytest.mark.thorough
def test_what_docker_does_not_delete_has_its_content_again_before_anything_starts(
    projects: Callable[[str, str], ComposeProject], safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = projects(FILES, TRASH)
    volume = f"{project.name}_uploads"
    inside(volume, "dd", "of=/v/photo", "status=none", input="a photo")
    before = facts(volume)
    idle = tmp_path / "idle" / "docker"
    idle.parent.mkdir()
    idle.write_text(
        f'#!/bin/sh\ncase " $* " in *" down "*) exit 0 ;; esac\nexec {real_docker()} "$@"\n'
    )
    idle.chmod(0o755)
    words = ("compose", "down", "-v", "--confirm", project.name)
    answer = require_success(
        safe_compose(*words, cwd=project.folder, env={"SAFE_COMPOSE_DOCKER": str(idle)})
    )
    assert (
        f"still there: {volume}" in answer.stderr
        and f"started again: {project.name}-app-1" in answer.stderr
    )
    assert facts(volume) == before and project.running() == [f"{project.name}-app-1"]
    assert project.exec("app", "cat", "/app/uploads/photo") == "a photo"
    assert left(volume) == []


@pytest.mark.thorough
def test_while_docker_outlives_us_nothing_is_put_back_under_its_hands(
    projects: Callable[[str, str], ComposeProject],
    safe_compose: SafeCompose,
    sealed_environment: Path,
    tmp_path: Path,
) -> None:
    project = projects(FILES, TRASH)
    volume = f"{project.name}_uploads"
    inside(volume, "dd", "of=/v/photo", "status=none", input="a photo")
    slow = tmp_path / "slow" / "docker"
    slow.parent.mkdir()
    pid = slow.with_name("pid")
    slow.write_text(
        f'#!/bin/sh\ncase " $* " in *" config "* | *" ps "* | *" version "*) exec {real_docker()}'
        f' "$@" ;;\n*" down "*) echo $$ >{pid}; exec sleep 1000 >/dev/null 2>&1 ;; esac\nexec'
        f' {real_docker()} "$@"\n'
    )
    slow.chmod(0o755)
    killed = safe_compose(
        "compose", "down", "-v", "--confirm", project.name, cwd=project.folder,
        env={"SAFE_COMPOSE_DOCKER": str(slow), **failing_syscalls("fsync", ".jsonl", "KILL",
          skip=6)},
    )  # fmt: skip
    assert killed.returncode == -9 and newest_steps(sealed_environment)[-1] == "docker", (
        killed.stderr
    )
    wait_until("the slow docker runs", lambda: pid.exists() and pid.read_text().strip())
    said = require_success(safe_compose("recover")).stdout
    assert "docker may still be deleting" in said and inside(volume, "ls", "-A", "/v") == ""
    assert project.running() == []
    outliving = Process.of(int(pid.read_text()))
    os.kill(outliving.pid, signal.SIGKILL)
    wait_until("the slow docker has gone", outliving.is_dead)
    said = require_success(safe_compose("recover")).stdout
    assert "has its content again, from the trash" in said
    assert content(volume) == "a photo" and project.running() == [f"{project.name}-app-1"]
    assert left(volume) == []
