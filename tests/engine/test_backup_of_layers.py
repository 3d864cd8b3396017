"""Data in a container's own layer is backed up, and comes back into a container or a volume."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.observed import Layer
from safe_compose.engine import connect
from safe_compose.errors import OperationFailed
from safe_compose.operations.backup import layers
from testing.engine_proxy import answering, holding
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import (
    ComposeProject,
    docker,
    read_in_volume,
    require_success,
    unique,
    wait_until,
)
from testing.stacks import JOB

pytestmark = pytest.mark.engine

APP = """
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
"""
WRITE = """
mkdir -p /app/uploads/1 /app/uploads/empty
echo photo > /app/uploads/1/a.jpg
ln -s a.jpg /app/uploads/1/link
ln /app/uploads/1/a.jpg /app/uploads/1/hard
chown 33:34 /app/uploads/1/a.jpg
chmod 0640 /app/uploads/1/a.jpg
printf other > '/app/uploads/1/strange
name'
echo noise > /app/main.py
chown 55:56 /app
chmod 0711 /app
"""
SHOW = "cd /app && find uploads ! -type d -exec ls -ln '{}' ';' -exec md5sum '{}' ';' | sort"


@pytest.fixture
def app(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(APP)
    project.up()
    return project


def run(project: ComposeProject, script: str, service: str = "app") -> str:
    return project.exec(service, "sh", "-ec", script)


def back_up(safe_compose: SafeCompose, project: ComposeProject) -> dict[str, object]:
    require_success(safe_compose("backup", cwd=project.folder))
    return newest(safe_compose, project)


def newest(safe_compose: SafeCompose, project: ComposeProject) -> dict[str, object]:
    listed = json.loads(require_success(safe_compose("list", "--json")).stdout)["backups"]
    return max((b for b in listed if b["project"] == project.name), key=lambda b: int(b["seq"]))


def files_of(backup: dict[str, object]) -> list[str]:
    [archive] = Path(str(backup["path"])).glob("layer_*/data.list.gz")
    listed = docker(
        "run",
        "--rm",
        "-v",
        f"{archive.parent}:/b:ro",
        "busybox:latest",
        "zcat",
        f"/b/{archive.name}",
    )
    return sorted(
        entry.split(" ", 5)[5] for entry in listed.stdout.split("\0") if entry and entry[0] != "d"
    )


def test_uploads_come_back_into_the_container_that_took_its_place(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    run(app, WRITE)
    before = run(app, SHOW)
    kept = back_up(safe_compose, app)
    name = f"layer:{app.name}-app-1"
    assert kept["volumes"] == [name] and kept["verified"]
    assert files_of(kept) == [
        "app/uploads/1/a.jpg",
        "app/uploads/1/hard",
        "app/uploads/1/link",
        "app/uploads/1/strange\nname",
    ]
    app.docker("compose", "up", "--detach", "--force-recreate")
    assert run(app, "ls /app 2>/dev/null || true") == ""
    done = require_success(safe_compose("restore", "latest", cwd=app.folder))
    assert f"4 files of {name} are back in container {app.name}-app-1" in done.stderr
    assert run(app, SHOW) == before
    assert run(app, "stat -c '%u %g %a' /app") == "55 56 711\n"


def test_what_is_there_is_backed_up_and_replaced_only_with_the_phrase(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    run(app, WRITE)
    kept = back_up(safe_compose, app)
    run(app, "echo newer > /app/uploads/1/a.jpg; echo mine > /app/uploads/2.jpg")
    id = str(kept["id"])
    refused = safe_compose("restore", id, cwd=app.folder)
    assert refused.returncode == 77 and f"--confirm '{app.name}-app-1'" in refused.stderr
    assert run(app, "cat /app/uploads/1/a.jpg") == "newer\n"
    require_success(safe_compose("restore", id, "--confirm", f"{app.name}-app-1", cwd=app.folder))
    assert run(app, "cat /app/uploads/1/a.jpg /app/uploads/2.jpg") == "photo\nmine\n"
    safety = newest(safe_compose, app)
    assert safety["reason"] == "pre-restore" and "app/uploads/2.jpg" in files_of(safety)


@pytest.mark.parametrize("written", [False, True])
def test_recover_completes_a_restore_that_was_killed_half_way_unless_somebody_wrote_since(
    app: ComposeProject, safe_compose: SafeCompose, written: bool
) -> None:
    run(app, WRITE)
    before = run(app, SHOW)
    back_up(safe_compose, app)
    app.docker("compose", "up", "--detach", "--force-recreate")
    killed = safe_compose(
        "restore", "latest", cwd=app.folder,
        env=failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=1),
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    # as if it had been killed in the middle of a file
    run(app, "mkdir -p /app/uploads/1; printf ph > /app/uploads/1/a.jpg")
    if written:
        run(app, "touch -d 2037-01-01 /app/uploads/1/a.jpg")
    done = require_success(safe_compose("recover", cwd=app.folder))
    if written:
        assert "holds a part of layer:" in done.stderr and "written to since" in done.stderr
        assert run(app, "cat /app/uploads/1/a.jpg") == "ph"
    else:
        assert f"are back in container {app.name}-app-1" in done.stderr, done.stderr
        assert run(app, SHOW) == before


def test_a_plan_writes_nothing(app: ComposeProject, safe_compose: SafeCompose) -> None:
    run(app, WRITE)
    back_up(safe_compose, app)
    run(app, "rm -r /app/uploads")
    done = require_success(safe_compose("restore", "latest", "--dry-run", cwd=app.folder))
    assert f"4 files into container {app.name}-app-1" in done.stderr
    assert run(app, "ls /app") == "main.py\n"


def test_a_layer_becomes_a_volume_on_request(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    run(app, WRITE)
    back_up(safe_compose, app)
    target = unique("layer-into")
    try:
        require_success(safe_compose("restore", "latest", "--into", target, cwd=app.folder))
        assert read_in_volume(target, "cat", "/v/app/uploads/1/a.jpg") == "photo\n"
    finally:
        docker("volume", "rm", "-f", target, check=False)


def test_without_its_container_nothing_is_written_and_the_next_step_is_named(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    run(app, WRITE)
    back_up(safe_compose, app)
    app.docker("compose", "down", "-t", "0")
    name = f"layer:{app.name}-app-1"
    refused = safe_compose("restore", "latest", "--volume", name, cwd=app.folder)
    assert refused.returncode == 75 and "--into scratch" in refused.stderr
    assert f"service app of project {app.name}" in refused.stderr


def test_a_sqlite_database_is_read_at_one_moment_and_opened(
    app: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    place = tmp_path / "app.db"
    with sqlite3.connect(place) as made:
        made.execute("CREATE TABLE rows (n)")
        made.executemany("INSERT INTO rows VALUES (?)", [(n,) for n in range(1000)])
    run(app, "mkdir -p /srv")
    docker("cp", str(place), f"{app.name}-app-1:/srv/app.db")
    kept = back_up(safe_compose, app)
    shown = require_success(safe_compose("show", str(kept["id"]), "--json")).stdout
    assert "integrity_check ok, 1 table, 1,000 rows" in shown
    running = safe_compose("restore", str(kept["id"]), cwd=app.folder)
    assert running.returncode == 75 and "docker stop" in running.stderr
    docker("rm", "-f", f"{app.name}-app-1")
    app.docker("compose", "create")
    require_success(safe_compose("restore", str(kept["id"]), cwd=app.folder))
    docker("cp", f"{app.name}-app-1:/srv/app.db", str(tmp_path / "back.db"))
    assert (tmp_path / "back.db").read_bytes() == place.read_bytes()
    # the log of a program that was killed is not left beside another database than its own
    (tmp_path / "log").write_text("a log")
    docker("cp", str(tmp_path / "log"), f"{app.name}-app-1:/srv/app.db-wal")
    phrase = ("--confirm", f"{app.name}-app-1")
    told = safe_compose("restore", str(kept["id"]), *phrase, cwd=app.folder)
    assert told.returncode == 75 and "has /srv/app.db-wal, a log of" in told.stderr, told.stderr


DATABASE = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: secret, POSTGRES_DB: shop, PGDATA: /srv/pg}
    healthcheck:
      test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop]
      interval: 1s
      retries: 60
"""


@pytest.mark.thorough
def test_a_database_is_dumped_by_its_server_and_restored_to_a_volume(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(DATABASE)
    project.up()
    project.psql(
        "CREATE TABLE orders AS SELECT generate_series(1, 1000) AS id", user="shop", database="shop"
    )
    kept = back_up(safe_compose, project)
    volume = f"{project.name}_db-dump"
    assert kept["volumes"] == [volume] and kept["verified"]
    shown = json.loads(safe_compose("volumes", "--json", cwd=project.folder).stdout)["volumes"]
    [row] = [row for row in shown if row["name"] == volume]
    assert row["in_use_by"] == [f"{project.name}-db-1"] and str(kept["id"]) in row["last_backup"]
    done = require_success(safe_compose("compose", "down", cwd=project.folder))
    assert f"{project.name}-db-1 (a database in /srv/pg)" in done.stderr
    require_success(safe_compose("restore", str(kept["id"]), cwd=project.folder))
    server = unique("layer-db")
    try:
        docker("run", "-d", "--name", server, "-e", "PGDATA=/srv/pg", "-v", f"{volume}:/srv/pg",
               "postgres:15")  # fmt: skip
        count = ("exec", server, "psql", "-XqtA", "-U", "shop", "-c", "SELECT count(*) FROM orders")
        wait_until("the server answers", lambda: docker(*count, check=False).stdout == "1000\n")
    finally:
        docker("rm", "-f", "-v", server, check=False)


def test_a_job_backs_the_layer_up_where_the_settings_ask(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    run(app, WRITE)
    (app.folder / "safe-compose.toml").write_text('[guard]\nlayers = "ask"\n')
    done = require_success(safe_compose(*JOB, "compose", "down", "-t", "0", cwd=app.folder))
    kept = newest(safe_compose, app)
    assert kept["reason"] == "pre-delete" and str(kept["id"]) in done.stderr
    assert app.containers() == []


def test_a_slow_list_without_data_needs_no_backup(
    app: ComposeProject, safe_compose: SafeCompose, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app.folder / "safe-compose.toml").write_text('[guard]\nlayers = "ask"\n')
    with holding("/changes", 1.5, times=2) as address, monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        require_success(safe_compose(*JOB, "compose", "down", "-t", "0", cwd=app.folder))
    assert app.containers() == []


def test_an_unknown_database_that_runs_is_refused_and_archived_when_it_is_stopped(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    run(app, "mkdir -p /srv/mongo; echo x > /srv/mongo/WiredTiger.wt; echo y > /srv/mongo/1.wt")
    refused = safe_compose("backup", cwd=app.folder)
    assert refused.returncode == 73 and "docker stop" in refused.stderr
    docker("stop", "-t", "0", f"{app.name}-app-1")
    assert files_of(back_up(safe_compose, app)) == ["srv/mongo/1.wt", "srv/mongo/WiredTiger.wt"]


WITH_VOLUME = """
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["kept:/kept"]
volumes:
  kept:
"""


def look_at(container: str) -> dict[str, Any]:
    [found] = json.loads(docker("inspect", container).stdout)
    return dict(found)


@pytest.mark.thorough
def test_a_layer_whose_files_are_not_all_listed_is_lacking_and_the_rest_is_kept(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(WITH_VOLUME)
    project.up()
    run(project, "echo x > /kept/x; mkdir -p /app/uploads; echo x > /app/uploads/x")
    name = f"{project.name}-app-1"
    with answering({f"/containers/{look_at(name)['Id']}/changes": {"cut": "off"}}) as host:
        done = safe_compose("backup", cwd=project.folder, env={"DOCKER_HOST": host})
    assert done.returncode == 73 and "could be listed" in done.stderr
    kept = newest(safe_compose, project)
    assert kept["volumes"] == [f"{project.name}_kept"] and kept["verified"]
    assert kept["lacking"] == [f"layer:{name}"]


def test_a_container_that_starts_while_its_files_are_read_is_no_copy_at_rest(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    run(app, WRITE)
    running = look_at(f"{app.name}-app-1")
    stopped = {**running, "State": {**running["State"], "Status": "exited", "Running": False}}
    with answering({f"/containers/{app.name}-app-1/json": stopped}) as host:
        done = safe_compose("backup", cwd=app.folder, env={"DOCKER_HOST": host})
    assert done.returncode == 73 and "was started while its files were read" in done.stderr


def test_a_container_that_is_gone_fails_alone(real_docker: str, tmp_path: Path) -> None:
    gone = Layer(f"layer:{unique('gone')}")
    with connect(real_docker, (), environ=dict(os.environ), run_id="gone") as engine:
        [job] = layers.make_jobs(engine, gone, set(), tmp_path)
    with pytest.raises(OperationFailed, match="not there any more"):
        job.make()


def test_many_files_come_back_into_a_new_container_without_a_question(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    run(app, "mkdir -p /app/uploads; cd /app/uploads; for n in $(seq 300); do echo $n > $n; done")
    back_up(safe_compose, app)
    app.docker("compose", "up", "--detach", "--force-recreate")
    run(app, "mkdir -p /app/uploads; echo other > /app/uploads/mine")
    done = require_success(safe_compose("restore", "latest", cwd=app.folder))
    assert "300 files" in done.stderr
    assert run(app, "ls /app/uploads | wc -l; cat /app/uploads/7") == "301\n7\n"


def test_one_phrase_is_for_volumes_and_layers_and_comes_before_both(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(WITH_VOLUME)
    project.up()
    both = "/kept/x /app/uploads/x"
    run(project, f"mkdir -p /app/uploads; echo old | tee {both}")
    id = str(back_up(safe_compose, project)["id"])
    run(project, f"echo new | tee {both}")
    refused = safe_compose("restore", id, cwd=project.folder)
    assert refused.returncode == 77 and f"1 file into container {project.name}" in refused.stderr
    assert run(project, f"cat {both}") == "new\nnew\n"
    done = require_success(
        safe_compose("restore", id, "--confirm", project.name, cwd=project.folder)
    )
    assert run(project, f"cat {both}") == "old\nold\n"
    assert f"1 file of layer:{project.name}-app-1 is back" in done.stderr


def test_a_project_with_data_in_its_containers_alone_can_be_scheduled(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    refused = safe_compose("schedule", "cron", cwd=app.folder)
    assert refused.returncode == 73 and "would back up nothing" in refused.stderr
    run(app, WRITE)
    require_success(safe_compose("schedule", "cron", cwd=app.folder))


def test_a_job_backs_up_the_layer_of_a_container_that_is_removed_by_its_name(
    app: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    run(app, WRITE)
    home = Path.home() / ".config" / "safe-compose" / "config.toml"
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text('[guard]\nlayers = "ask"\n')
    try:
        require_success(safe_compose(*JOB, "rm", "-f", f"{app.name}-app-1", cwd=tmp_path))
    finally:
        home.unlink()
    kept = newest(safe_compose, app)
    assert kept["volumes"] == [f"layer:{app.name}-app-1"] and app.containers() == []
