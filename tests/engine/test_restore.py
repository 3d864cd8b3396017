"""The way back on a real engine: what returns, what is asked first, and what a fault in the middle
leaves behind.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from safe_compose.store.catalogue.catalogue import Catalogue
from testing import stacks
from testing.backups import keep
from testing.disks import small_disk
from testing.fixtures import ProjectFactory, SafeCompose
from testing.no_program import python_without_program
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
from testing.recipe import replace_tar
from testing.runs import every_step, helpers, kill_at_step, runs, start
from testing.stacks import FILES, JOB, read_file, write_file
from testing.terminal import PROGRAM, Person

pytestmark = [pytest.mark.engine, pytest.mark.long]

PASSWORD = "canary-51f7-password"


def inspect(volume: str) -> dict[str, Any]:
    found = json.loads(docker("volume", "inspect", volume).stdout)[0]
    return {key: found[key] or {} for key in ("Name", "Driver", "Options", "Labels")}


def listed(safe_compose: SafeCompose) -> list[dict[str, Any]]:
    answer = safe_compose("list", "--json")
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, Any]] = json.loads(answer.stdout)["backups"]
    return found


def backup(safe_compose: SafeCompose, project: ComposeProject, *words: str) -> dict[str, Any]:
    answer = require_success(safe_compose("backup", "--json", *words, cwd=project.folder))
    found: dict[str, Any] = json.loads(answer.stdout)["backup"]
    return found


@pytest.fixture
def files(compose_project: ProjectFactory) -> ComposeProject:
    """An app with one file in its volume, running."""
    project = compose_project(FILES)
    project.up()
    write_file(project, "a photo")
    return project


def delete(safe_compose: SafeCompose, project: ComposeProject) -> None:
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
    assert project.volumes() == []


# -- a database ------------------------------------------------------------------------------------

Image = Callable[..., str]


@pytest.fixture
def image(lab: None) -> Iterator[Image]:
    """Make an image of this test alone: `image(base, name, "VOLUME /data")`; its id is new each
    time.
    """
    made: set[str] = set()

    def make(base: str, name: str, *changes: str) -> str:
        container = docker("create", base).stdout.strip()
        words = [
            word
            for change in (*changes, f"LABEL made={unique('x')}")
            for word in ("--change", change)
        ]
        docker("commit", *words, container, name)
        docker("rm", "-v", container)
        made.add(name)
        return name

    yield make
    for name in made:
        docker("rmi", "-f", name, check=False)


ROWS = (
    "CREATE TABLE orders (id serial PRIMARY KEY, what text); INSERT INTO orders (what) SELECT"
    " 'order ' || g FROM generate_series(1, 3000) g; CREATE ROLE clerk LOGIN PASSWORD"
    ' \'clerk-pass\'; CREATE ROLE "odd ""role" NOLOGIN; ALTER TABLE orders OWNER TO clerk; CREATE'
    ' DATABASE "second one" OWNER clerk;'
)
SUM = "SELECT count(*), md5(string_agg(id || what, ',' ORDER BY id)) FROM orders"
OWNERS = (
    "SELECT tablename || ' ' || tableowner FROM pg_tables WHERE schemaname = 'public' UNION ALL"
    " SELECT datname || ' ' || pg_get_userbyid(datdba) FROM pg_database UNION ALL SELECT rolname ||"
    " ' ' || rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
)


def psql(project: ComposeProject, query: str) -> str:
    return project.psql(query, user="shop", database="shop")


def login(project: ComposeProject, user: str, password: str) -> str:
    """Log in over the project's network, where a password is asked for."""
    image = docker("inspect", f"{project.name}-db-1", "--format", "{{.Image}}").stdout.strip()
    words = (
        "-e",
        "PGPASSWORD",
        "--network",
        f"{project.name}_default",
        "--entrypoint",
        "psql",
        image,
    )
    done = subprocess.run(
        [real_docker(), "run", "--rm", "--tmpfs", "/var/lib/postgresql/data", *words,
         "-XtA", "-h", "db", "-U", user, "-d", "shop", "-c", "SELECT current_user"],
        env={**os.environ, "PGPASSWORD": password},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr.strip()


@pytest.mark.matrix
@pytest.mark.thorough
def test_a_dump_comes_back_over_a_living_database_and_into_a_volume_that_is_gone(
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    image: Image,
    sealed_environment: Path,
) -> None:
    name = image("postgres:15", unique("lab-pg"))
    shop = compose_project(stacks.shop(PASSWORD, name))
    shop.up()
    psql(shop, ROWS)
    write_file(shop, "a photo")
    before, owners, started = psql(shop, SUM), psql(shop, OWNERS), shop.running()
    kept = backup(safe_compose, shop)
    assert kept["reason"] == "manual" and kept["verified"]["level"] == "L3"

    psql(
        shop,
        "DELETE FROM orders WHERE id > 10; CREATE TABLE later (n int); INSERT INTO later"
        " VALUES (7)",
    )
    write_file(shop, "another photo")
    changed = psql(shop, SUM)
    for words in ((), ("--confirm", "wrong"), ("--non-interactive",)):
        refused = safe_compose("restore", kept["id"], *words, cwd=shop.folder)
        assert refused.returncode == 77, refused.stderr
        assert (
            f"--confirm '{shop.name}'" in refused.stderr
            and "docker was not run" not in refused.stderr
        )
    assert (psql(shop, SUM), read_file(shop)) == (changed, "another photo")

    over = require_success(
        safe_compose("restore", kept["id"], "--confirm", shop.name, "--json", cwd=shop.folder)
    )
    done = json.loads(over.stdout)["restored"]
    assert {v["name"]: v["from"] for v in done["volumes"]} == {
        f"{shop.name}_data": "dump",
        f"{shop.name}_uploads": "archive",
    }
    [row] = [r for r in done["statistics"] if r["database"] == "shop"]
    assert row["before"] == {"tables": 2, "rows": 11}
    assert row["backup"] == row["now"] == {"tables": 1, "rows": 3000}
    safety = next(b for b in listed(safe_compose) if b["id"] == done["safety"])
    assert safety["reason"] == "pre-restore" and safety["verified"]
    assert (psql(shop, SUM), psql(shop, OWNERS), read_file(shop)) == (before, owners, "a photo")
    assert shop.running() == started
    assert login(shop, "shop", PASSWORD) == "shop" and login(shop, "clerk", "clerk-pass") == "clerk"
    assert "authentication failed" in login(shop, "shop", "wrong")
    analysed = "SELECT count(*) FROM pg_stats WHERE tablename = 'orders'"
    assert psql(shop, analysed) != "0", "no ANALYZE after the dump was loaded"

    shop.docker("compose", "down", "-v")
    docker("rmi", name)
    image("postgres:15", name)  # a later build of the same image, as a pull would bring
    gone = require_success(safe_compose("restore", kept["id"], cwd=shop.folder))
    assert "is back, from its dump" in gone.stderr and "second one" in gone.stdout
    shop.up()
    assert (psql(shop, SUM), psql(shop, OWNERS), read_file(shop)) == (before, owners, "a photo")
    assert login(shop, "shop", PASSWORD) == "shop"
    assert helpers(sealed_environment) == []


# -- by hand ---------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_by_hand_the_commands_of_the_recipe_bring_everything_back(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    shop = compose_project(stacks.shop(PASSWORD), files=stacks.NO_TRIALS)
    shop.up()
    psql(shop, ROWS)
    write_file(shop, "a photo")
    before, owners = psql(shop, SUM), psql(shop, OWNERS)
    hot = backup(safe_compose, shop)
    delete(safe_compose, shop)
    cold = next(b for b in listed(safe_compose) if b["reason"] == "pre-delete")
    tools = _tools(tmp_path / "tools")

    for kept in (cold, hot):
        _by_hand(Path(kept["path"]), tools)
        assert shop.volumes() == [f"{shop.name}_data", f"{shop.name}_uploads"]
        shop.up()
        assert (psql(shop, SUM), psql(shop, OWNERS), read_file(shop)) == (
            before,
            owners,
            "a photo",
        ), kept["reason"]
        assert login(shop, "shop", PASSWORD) == "shop"
        ids = shop.docker("compose", "ps", "-q").stdout
        shop.docker("compose", "up", "-d")
        assert shop.docker("compose", "ps", "-q").stdout == ids, (
            "compose wants to recreate something"
        )
        shop.docker("compose", "down", "-v")


WITHOUT_PROGRAM = """
import os, sys
from pathlib import Path
from safe_compose.core.backup import VolumeRecord
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.engine import connect
from safe_compose.volumes import archive
from safe_compose.volumes.engine_location import EngineLocation
docker, run_id, home, name = sys.argv[1:]
with connect(docker, (), environ=os.environ, run_id=run_id) as engine:
    volume, image = engine.docker.volume(name), engine.docker.image("busybox:latest")
    user = {"container": "c", "service": "", "image": "busybox:latest", "image_id": image.id, "destination": "/v"}
    with Catalogue.at(Path(home)).writer.draft("volumes", "manual", endpoint=engine.endpoint, engine_id=engine.id) as draft:
        made = archive.archive(EngineLocation(engine, name), into=draft.path)
        facts = ("local", {}, volume.labels, volume.created_at, "critical", "files", False, "cold")
        print(draft.commit([VolumeRecord(name, *facts, users=(user,), artifacts=made)]).path)
"""


def test_by_hand_an_archive_made_without_our_program_comes_back_through_docker_alone(
    loose: "Loose", tmp_path: Path, sealed_environment: Path
) -> None:
    name = loose({})
    read_in_volume(name, "dd", "of=/v/f", "status=none", input="kept")
    read_in_volume(name, "chown", "1234:4321", "/v/f", "/v")
    before = inspect(name)
    words = (real_docker(), unique("test"), str(sealed_environment / "safe-compose"), name)
    kept = Path(python_without_program(tmp_path / "package", WITHOUT_PROGRAM, *words).strip())
    assert (
        json.loads((kept / "manifest.json").read_text())["volumes"][0]["artifacts"][0]["detail"][
            "tar"
        ]
        == "engine"
    )
    docker("volume", "rm", name)
    _by_hand(kept, _tools(tmp_path / "tools"))
    assert inspect(name) == before and read_in_volume(name, "cat", "/v/f") == "kept"
    assert read_in_volume(name, "stat", "-c", "%u:%g", "/v/f", "/v").split() == ["1234:4321"] * 2


def _tools(folder: Path) -> Path:
    """A PATH with exactly the programs that a restore by hand may need."""
    folder.mkdir()
    for name in ("docker", "sha256sum", "gzip", "tar", "psql", "sleep"):
        if program := shutil.which(name):
            (folder / name).symlink_to(program)
    return folder


def _blocks(markdown: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", markdown, re.M | re.S)


def _by_hand(folder: Path, tools: Path) -> None:
    """Type the code blocks of RESTORE.md into a shell: the check, then for each volume the first
    way that is offered.
    """
    head, *volumes = re.split(r"^## ", (folder / "RESTORE.md").read_text(), flags=re.M)
    ways = [re.split(r"^### ", volume, flags=re.M)[1] for volume in volumes]
    check = [b for b in _blocks(head) if not b.startswith("safe-compose ")]
    assert check == ["sha256sum -c SHA256SUMS\n"] and ways
    for blocks in (check, *map(_blocks, ways)):
        script = replace_tar(
            "".join(blocks).replace("read -r POSTGRES_PASSWORD", "POSTGRES_PASSWORD=typed")
        )
        done = subprocess.run(
            ["/bin/sh"],
            input=script,
            cwd=folder,
            env={"PATH": str(tools)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        faults = [
            line
            for line in done.stderr.splitlines()
            if "ERROR" in line and "already exists" not in line
        ]
        assert done.returncode == 0 and not faults, f"{script}\n{done.stdout}\n{done.stderr}"
        assert len([line for line in done.stderr.splitlines() if "ERROR" in line]) <= 2, done.stderr


# -- undo ------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_undo_goes_back_one_deletion_at_a_time_and_says_so(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    delete(safe_compose, files)
    files.up()
    write_file(files, "a second photo")
    delete(safe_compose, files)
    elsewhere = safe_compose("undo")
    assert (
        elsewhere.returncode == 64
        and f"safe-compose undo --project {files.name}" in elsewhere.stderr
    )

    shown = require_success(safe_compose("undo", "--project", files.name, "--dry-run"))
    assert f"{files.name}_uploads: made again, from its archive" in shown.stdout
    assert files.volumes() == []
    require_success(safe_compose("undo", "--project", files.name))
    assert read_file(files) == "a second photo"

    older = safe_compose("undo", cwd=files.folder)
    assert older.returncode == 77 and "was undone already; this is an older one" in older.stderr
    assert read_file(files) == "a second photo"
    require_success(safe_compose("undo", "--confirm", files.name, cwd=files.folder))
    assert read_file(files) == "a photo"

    nothing = safe_compose("undo", "--confirm", files.name, cwd=files.folder)
    assert nothing.returncode == 64 and "was undone already" in nothing.stderr
    assert read_file(files) == "a photo"


@pytest.mark.thorough
def test_undo_without_the_compose_file_brings_the_volumes_and_prints_the_command(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    delete(safe_compose, files)
    (files.folder / "compose.yaml").rename(files.folder / "gone.yaml")
    answer = require_success(safe_compose("undo", cwd=files.folder))
    assert read_in_volume(f"{files.name}_uploads", "cat", "/v/one.jpg") == "a photo"
    assert "run it yourself: docker compose up -d --no-deps app" in answer.stderr
    assert files.running() == []


@pytest.mark.thorough
def test_undo_starts_those_services_that_the_compose_file_still_has(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    still = """
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads", "/anonymous"]
volumes:
  uploads:
"""
    other = """
  other:
    image: busybox:latest
    profiles: [sometimes]
    init: true
    command: [sleep, "100000"]
    volumes: ["/anonymous"]
"""
    project = compose_project(f"services:{other}{other.replace('other', 'aside')}{still}")
    project.docker("compose", "up", "-d", "app", "other", "aside")
    for service in ("app", "other"):
        project.exec(service, "sh", "-c", f"echo {service} > /anonymous/f")
    write_file(project)
    require_success(
        safe_compose(*JOB, "compose", "--profile", "sometimes", "down", "-v", cwd=project.folder)
    )
    (project.folder / "compose.yaml").write_text(
        f"services:{other.replace('other', 'aside')}{still}"
    )
    answer = require_success(safe_compose("undo", cwd=project.folder))
    assert "not in the compose file any more, so not started: other" in answer.stderr
    [(place, left)] = re.findall(
        r"the anonymous volume of (\S+) is back under its old name (\w+)", answer.stderr
    )
    assert (
        place == f"{project.name}-other-1:/anonymous"
        and read_in_volume(left, "cat", "/v/f") == "other\n"
    )
    docker("volume", "rm", left)
    assert project.running() == [f"{project.name}-app-1", f"{project.name}-aside-1"]
    assert read_file(project) == "a photo" and read_file(project, "../anonymous/f") == "app\n"


@pytest.mark.thorough
def test_undo_of_file_volumes_needs_none_of_the_old_images(
    compose_project: ProjectFactory, safe_compose: SafeCompose, image: Image
) -> None:
    name = image("busybox:latest", unique("lab-app"))
    project = compose_project(FILES.replace("busybox:latest", name))
    project.up()
    write_file(project, "a photo")
    delete(safe_compose, project)
    docker("rmi", name)
    answer = require_success(safe_compose("undo", cwd=project.folder, timeout=120))
    assert read_in_volume(f"{project.name}_uploads", "cat", "/v/one.jpg") == "a photo"
    assert "docker compose pull app && docker compose up -d --no-deps app" in answer.stderr


@pytest.mark.matrix
@pytest.mark.thorough
def test_where_the_compose_file_now_defines_the_volume_otherwise_nothing_is_started(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    labels = inspect(f"{files.name}_uploads")["Labels"]
    delete(safe_compose, files)
    (files.folder / "compose.yaml").write_text(
        FILES.replace("  uploads:\n", "  uploads: {labels: {a: b}}\n")
    )
    answer = require_success(safe_compose("undo", cwd=files.folder))
    assert inspect(f"{files.name}_uploads")["Labels"] == labels
    assert read_in_volume(f"{files.name}_uploads", "cat", "/v/one.jpg") == "a photo"
    if "com.docker.compose.config-hash" in labels:
        assert files.running() == [] and "nothing was started" in answer.stderr
    else:  # before 2.32 Compose never makes a volume again whose definition changed
        assert files.running() == [f"{files.name}-app-1"]


@pytest.mark.matrix
@pytest.mark.thorough
@pytest.mark.parametrize("meanwhile", ["nothing", "up", "no compose file"])
def test_content_of_an_anonymous_volume_returns_to_its_place(
    compose_project: ProjectFactory, safe_compose: SafeCompose, image: Image, meanwhile: str
) -> None:
    name = image("busybox:latest", unique("lab-anon"), "VOLUME /app/state")
    project = compose_project(FILES.replace("busybox:latest", name))
    project.up()
    write_file(project, "a photo")
    write_file(project, "kept here", "state/note")
    mounts = '{{range .Mounts}}{{if eq .Destination "/app/state"}}{{.Name}}{{end}}{{end}}'
    old = docker("inspect", f"{project.name}-app-1", "--format", mounts).stdout.strip()
    delete(safe_compose, project)
    assert not volume_exists(old)
    if meanwhile == "up":
        project.up()
        write_file(project, "fresh", "state/note")
    if meanwhile == "no compose file":
        (project.folder / "compose.yaml").unlink()
    try:
        answer = require_success(
            safe_compose("undo", "--confirm", project.name, "--json", cwd=project.folder)
        )
        into = {v["name"]: v["into"] for v in json.loads(answer.stdout)["undone"]["volumes"]}
        assert set(into) == {old, f"{project.name}_uploads"}
        if meanwhile == "no compose file":
            assert into[old] == old and "back under its old name" in answer.stderr
            assert read_in_volume(old, "cat", "/v/note") == "kept here"
            return
        assert (
            into[old]
            == docker("inspect", f"{project.name}-app-1", "--format", mounts).stdout.strip()
            != old
        )
        assert (read_file(project, "state/note"), read_file(project)) == ("kept here", "a photo")
        assert not volume_exists(old)
    finally:
        docker("volume", "rm", "-f", old, check=False)


# -- what stands in the way ------------------------------------------------------------------------


def test_a_damaged_backup_is_65_is_marked_and_touches_nothing(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    older, kept = backup(safe_compose, files), backup(safe_compose, files)
    path = next(Path(kept["path"]).rglob("data.tar.gz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))
    write_file(files, "newer")
    started = docker("inspect", f"{files.name}-app-1", "--format", "{{.State.StartedAt}}").stdout
    for _ in range(2):
        answer = safe_compose("restore", kept["id"], "--confirm", files.name, cwd=files.folder)
        assert answer.returncode == 65 and "nothing was touched" in answer.stderr
    assert (
        docker("inspect", f"{files.name}-app-1", "--format", "{{.State.StartedAt}}").stdout
        == started
    )
    assert read_file(files) == "newer"
    assert [b["verified"] is False for b in listed(safe_compose)] == [True, False]

    require_success(safe_compose("restore", "latest", "--confirm", files.name, cwd=files.folder))
    assert read_file(files) == "a photo" and older["id"] != kept["id"]


@pytest.mark.thorough
def test_a_backup_of_another_engine_is_restored_after_the_phrase_alone(
    safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = unique("carried")
    volume = f"{project}_data"
    kept = keep(Catalogue.at(sealed_environment / "safe-compose"), [volume], project=project)
    try:
        for words in ((), ("--confirm", "wrong")):
            refused = safe_compose("restore", kept.id, *words)
            assert refused.returncode == 77 and "it was made on another engine" in refused.stderr, (
                refused.stderr
            )
            assert f"--confirm '{project}'" in refused.stderr and not volume_exists(volume)
        one = safe_compose("restore", kept.id, "--path", "photo", "--confirm", project)
        assert one.returncode == 77 and f"safe-compose restore {kept.id}" in one.stderr
        require_success(safe_compose("restore", kept.id, "--confirm", project))
        assert read_in_volume(volume, "cat", "/v/photo") == "bytes!"
    finally:
        docker("volume", "rm", "-f", volume, check=False)


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "size=3m") as store:
        yield store


@pytest.mark.thorough
def test_no_room_for_the_safety_copy_is_73_and_touches_nothing(
    files: ComposeProject, safe_compose: SafeCompose, small_store: Path, sealed_environment: Path
) -> None:
    kept = backup(safe_compose, files)
    shutil.copytree(sealed_environment / "safe-compose", small_store, dirs_exist_ok=True)
    write_file(files, "newer")
    started = docker("inspect", f"{files.name}-app-1", "--format", "{{.State.StartedAt}}").stdout
    words = ("restore", kept["id"], "--confirm", files.name)
    answer = safe_compose(*words, cwd=files.folder, env={"SAFE_COMPOSE_HOME": str(small_store)})
    assert answer.returncode == 73 and "no space" in answer.stderr
    assert read_file(files) == "newer"
    assert (
        docker("inspect", f"{files.name}-app-1", "--format", "{{.State.StartedAt}}").stdout
        == started
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "how",
    [("--label", "com.docker.compose.project=strangers"), ("--rm",)],
    ids=["another project", "--rm"],
)
def test_a_container_that_must_not_be_stopped_is_75(
    files: ComposeProject, safe_compose: SafeCompose, how: tuple[str, ...]
) -> None:
    kept = backup(safe_compose, files)
    stranger = unique("stranger")
    volume = f"{files.name}_uploads:/x"
    docker(
        "run",
        "-d",
        "--init",
        *how,
        "--name",
        stranger,
        "-v",
        volume,
        "busybox:latest",
        "sleep",
        "100000",
    )
    try:
        answer = safe_compose("restore", kept["id"], "--confirm", files.name, cwd=files.folder)
        assert answer.returncode == 75 and f"docker stop {stranger}" in answer.stderr
        assert (
            docker("inspect", stranger, "--format", "{{.State.Running}}").stdout.strip() == "true"
        )
        assert read_file(files) == "a photo"
    finally:
        docker("rm", "-f", stranger, check=False)


def test_only_the_volume_that_is_named_comes_back(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    text = (
        FILES.replace('["uploads:/app/uploads"]', '["uploads:/app/uploads", "notes:/app/notes"]')
        + "  notes:\n"
    )
    project = compose_project(text)
    project.up()
    write_file(project, "a photo")
    write_file(project, "a note", "notes/n")
    kept = backup(safe_compose, project)
    write_file(project, "new photo")
    write_file(project, "new note", "notes/n")
    wrong = safe_compose("restore", kept["id"], "--volume", "nope", cwd=project.folder)
    assert wrong.returncode == 64 and "nope" in wrong.stderr
    only = ("restore", kept["id"], "--volume", f"{project.name}_notes")
    shown = json.loads(
        require_success(safe_compose(*only, "--dry-run", "--json", cwd=project.folder)).stdout
    )["restored"]
    assert (shown["phrase"], shown["stops"]) == (project.name, [f"{project.name}-app-1"])
    assert [v["into"] for v in shown["volumes"]] == [f"{project.name}_notes"]
    assert len(listed(safe_compose)) == 1 and read_file(project, "notes/n") == "new note"
    require_success(safe_compose(*only, "--confirm", project.name, cwd=project.folder))
    assert (read_file(project), read_file(project, "notes/n")) == ("new photo", "a note")
    [newest, *_] = json.loads(require_success(safe_compose("journal", "--json")).stdout)["runs"]
    assert newest["command"] == [
        "safe-compose",
        *only,
    ], "who finishes it after a crash must not bring back the others"


@pytest.mark.thorough
def test_a_person_types_the_project_before_content_is_replaced(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    kept = backup(safe_compose, files)
    write_file(files, "newer")
    person = Person("restore", kept["id"], cwd=files.folder)
    assert "replaced from its archive" in person.sees(f"type '{files.name}'")
    for again in ("Once more", "nothing was restored"):
        person.types("no")
        person.sees(again)
    assert person.leaves_with() == 77
    person = Person("restore", kept["id"], cwd=files.folder)
    person.sees(f"type '{files.name}'")
    person.presses("c")
    assert person.leaves_with() == 130 and "interrupted; nothing was restored" in person.last_words
    assert read_file(files) == "newer"
    person = Person("restore", cwd=files.folder)  # without an id: from a list
    person.sees("Restore which backup?")
    person.sees("[L2]")
    person.types_bytes(b"\r")
    assert "replaced from its archive" in person.sees(f"type '{files.name}'")
    person.types(files.name)
    assert person.leaves_with() == 0, person.last_words
    assert read_file(files) == "a photo"


# -- cut off in the middle -------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "used"),
    [
        (signal.SIGINT, False),
        (signal.SIGTERM, False),
        (signal.SIGKILL, False),
        (signal.SIGKILL, True),
    ],
    ids=["SIGINT", "SIGTERM", "SIGKILL", "SIGKILL, and started since"],
)
def test_a_restore_that_is_cut_off_leaves_what_was_there_or_says_where_it_is(
    files: ComposeProject,
    safe_compose: SafeCompose,
    sealed_environment: Path,
    number: signal.Signals,
    used: bool,
) -> None:
    project = files
    project.exec("app", "dd", "if=/dev/urandom", "of=/app/uploads/big", "bs=1M", "count=8")
    kept = backup(safe_compose, project)
    write_file(project, "newer")
    started = project.running()
    child = subprocess.Popen(
        [PROGRAM, "restore", kept["id"], "--confirm", project.name],
        cwd=project.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip

    def steps() -> list[str]:
        return [str(s.get("step")) for s in every_step(sealed_environment)]

    wait_until("it puts back", lambda: "putting-back" in steps() or child.poll() is not None)
    os.killpg(child.pid, number)
    _, said = child.communicate(timeout=120)
    safety = next(b for b in listed(safe_compose) if b["reason"] == "pre-restore")
    if number == signal.SIGKILL:
        assert "put-back" not in steps()
        if used:
            read_in_volume(f"{project.name}_uploads", "touch", "/v/since")
            docker("start", f"{project.name}-app-1")
            told = require_success(safe_compose("recover")).stdout
            assert f"container {project.name}-app-1 has run on it since" in told
            assert f"safe-compose restore {safety['id']} --volume {project.name}_uploads" in told
            assert any(
                safety["id"] in str(s.get("outcome")) for s in every_step(sealed_environment)
            )
            require_success(
                safe_compose("restore", safety["id"], "--confirm", project.name, cwd=project.folder)
            )
        else:
            told = require_success(safe_compose("recover")).stdout
            assert f"{project.name}_uploads has again what was there before" in told
        assert project.running() == started
    else:
        assert child.returncode == (130 if number == signal.SIGINT else -number), said
        assert "what was there is there again" in said
        assert project.running() == started
        assert safe_compose("recover").stdout == "nothing to recover\n"
    assert read_file(project) == "newer"
    assert project.exec("app", "wc", "-c", "/app/uploads/big").split()[0] == str(8 << 20)
    assert helpers(sealed_environment) == []


def _stop_on_half(child: "subprocess.Popen[str]", volume: str) -> None:
    """Stop a restore at a moment when the old content has gone and the new is not whole."""
    for _ in range(2000):
        os.killpg(child.pid, signal.SIGSTOP)
        files = read_in_volume(volume, "sh", "-c", "cat /v/one.jpg 2>/dev/null || true")
        if "newer" not in files:
            return
        os.killpg(child.pid, signal.SIGCONT)
        time.sleep(0.002)
    pytest.fail(f"the content of {volume} was never cleared")


@pytest.mark.thorough
def test_a_way_back_that_fails_starts_nobody_on_a_half_and_recover_goes_on_with_it(
    files: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = files
    project.exec("app", "dd", "if=/dev/urandom", "of=/app/uploads/big", "bs=1M", "count=32")
    kept = backup(safe_compose, project)
    write_file(project, "newer")
    started, before = project.running(), runs(sealed_environment)
    child = start("restore", kept["id"], "--confirm", project.name, cwd=project.folder)
    kill_at_step(sealed_environment, "putting-back", before)
    _stop_on_half(child, f"{project.name}_uploads")
    assert every_step(sealed_environment)[-1]["step"] == "putting-back"
    safety = next(b for b in listed(safe_compose) if b["reason"] == "pre-restore")
    gone = Path(safety["path"]).rename(sealed_environment / safety["id"])
    os.killpg(child.pid, signal.SIGINT)
    os.killpg(child.pid, signal.SIGCONT)
    _, said = child.communicate(timeout=120)
    assert (
        child.returncode == 130
        and "could not be rolled back" in said
        and "on half of their data" in said
    ), said
    assert project.running() == []
    torn = safe_compose("backup", cwd=project.folder)
    assert torn.returncode == 73 and "was cut off" in torn.stderr, torn.stderr
    gone.rename(safety["path"])
    told = require_success(safe_compose("recover")).stdout
    assert f"{project.name}_uploads has again what was there before" in told
    assert (
        project.running() == started
        and read_file(project) == "newer"
        and helpers(sealed_environment) == []
    )


# -- kinds of volumes ------------------------------------------------------------------------------


@pytest.fixture
def loose(lab: None) -> Iterator[Callable[[Mapping[str, str]], str]]:
    """Make a volume of this test alone, with driver options."""
    made: list[str] = []

    def make(options: Mapping[str, str]) -> str:
        made.append(unique("loose"))
        words = [w for name, value in options.items() for w in ("--opt", f"{name}={value}")]
        docker(
            "volume",
            "create",
            *words,
            "--label",
            "purpose=odd, value",
            "--label",
            "empty=",
            made[-1],
        )
        return made[-1]

    yield make
    for name in made:
        docker("volume", "rm", "-f", name, check=False)


Loose = Callable[[Mapping[str, str]], str]


@pytest.mark.thorough
def test_a_volume_that_points_at_a_folder_comes_back_without_a_write_into_it(
    loose: Loose, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    name = loose({"type": "none", "o": "bind", "device": str(folder)})
    read_in_volume(name, "dd", "of=/v/f", "status=none", input="outside")
    before = inspect(name)
    require_success(safe_compose(*JOB, "volume", "rm", name))
    assert not volume_exists(name) and (folder / "f").read_text() == "outside"
    (folder / "f").write_text("changed since")
    answer = require_success(safe_compose("undo"))
    assert inspect(name) == before and (folder / "f").read_text() == "changed since"
    assert "lies outside of docker" in answer.stderr

    kept = listed(safe_compose)[0]["id"]
    docker("volume", "rm", name)
    refused = safe_compose("restore", kept)
    assert (
        refused.returncode == 77
        and f"device={folder}" in refused.stderr
        and not volume_exists(name)
    )
    first = safe_compose("restore", kept, "--confirm", name)
    assert first.returncode == 75 and (folder / "f").read_text() == "changed since"
    asked = safe_compose("restore", kept)
    assert asked.returncode == 77 and f"--confirm '{name}'" in asked.stderr
    require_success(safe_compose("restore", kept, "--confirm", name))
    assert (folder / "f").read_text() == "outside" and inspect(name) == before


@pytest.mark.thorough
def test_a_tmpfs_volume_that_nothing_runs_on_is_empty_again_and_that_is_said(
    loose: Loose, safe_compose: SafeCompose
) -> None:
    name = loose({"type": "tmpfs", "device": "tmpfs", "o": "size=5m,uid=1000"})
    before = inspect(name)
    user = docker(
        "run", "-d", "--rm", "-v", f"{name}:/v", "busybox:latest", "sleep", "1000"
    ).stdout.strip()
    try:
        docker("exec", user, "touch", "/v/file")
        require_success(safe_compose("backup", "--volume", name))
    finally:
        docker("rm", "-f", user)
    docker("volume", "rm", name)
    answer = require_success(
        safe_compose("restore", "latest", "--project", "volumes", "--confirm", name)
    )
    assert inspect(name) == before
    assert "nothing runs on it: it is empty now" in answer.stderr
    require_success(
        safe_compose("restore", "latest", "--project", "volumes", "--into", f"{name}-disk")
    )
    try:
        assert read_in_volume(f"{name}-disk", "ls", "/v").split() == ["file"]
    finally:
        docker("volume", "rm", f"{name}-disk")


@pytest.mark.thorough
def test_a_backup_of_one_volume_belongs_to_the_project_of_that_volume(
    files: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    name = f"{files.name}_uploads"
    kept = json.loads(require_success(safe_compose("backup", "--volume", name, "--json")).stdout)[
        "backup"
    ]
    assert kept["project"] == files.name
    write_file(files, "newer")
    other = tmp_path / "other"
    other.mkdir()
    (other / "compose.yaml").write_text("services: {}\n")
    assert safe_compose("restore", "latest", cwd=other).returncode == 64, (
        "latest of this folder's project, not of any"
    )
    require_success(safe_compose("restore", "latest", "--confirm", files.name, cwd=files.folder))
    assert read_file(files) == "a photo"
