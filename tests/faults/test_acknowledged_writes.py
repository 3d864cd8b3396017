"""Nothing that a client saw committed is lost: writers that do not rest while the volume is
deleted, and kills at every step.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import TimeoutExpired

import psycopg
import pytest

from testing.fixtures import ProjectFactory, SafeCompose
from testing.private_engine import private_engine
from testing.projects import ComposeProject, docker, unique, wait_until
from testing.runs import kill_at_step, list_backups, list_leftovers, manifest, runs, start
from testing.stacks import JOB

pytestmark = [pytest.mark.engine, pytest.mark.long]

WRITTEN = """
services:
  db:
    image: postgres:15
    command: [postgres, -c, max_prepared_transactions=4]
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: shop-password, POSTGRES_DB: shop}
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
    ports: ["127.0.0.1::5432"]
    volumes: ["data:/var/lib/postgresql/data"]
  app:
    image: postgres:15
    init: true
    environment: {PGPASSWORD: shop-password}
    entrypoint: [bash, -c]
    # psql prints what RETURNING says only when the commit is through, and one line at a time
    command:
      - >-
        i=0; while :; do i=$$((i + 1)); echo "INSERT INTO t (who, n) VALUES ('app', $$i) RETURNING n;"; done
        | stdbuf -oL psql -XqtA -h db -U shop -d shop >>/acknowledged/app
    depends_on: {db: {condition: service_healthy}}
    volumes: ["./acknowledged:/acknowledged"]
    tmpfs: [/var/lib/postgresql/data]
volumes: {data: }
"""


@dataclass
class AcknowledgedWriter:
    """Clients outside of the project that insert through the published port, and remember what was
    acknowledged.
    """

    address: str
    acknowledged: dict[str, list[tuple[str, int]]] = field(
        default_factory=lambda: {"shop": [], "second": []}
    )

    def connect(self, database: str) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(f"{self.address} dbname={database}", autocommit=True)

    def write(self, who: str, database: str) -> None:
        with suppress(psycopg.Error), self.connect(database) as connection:
            for n in range(1_000_000):
                connection.execute("INSERT INTO t (who, n) VALUES (%s, %s)", (who, n))
                self.acknowledged[database].append((who, n))
                time.sleep(0.002)


@contextmanager
def writing(writer: AcknowledgedWriter) -> Iterator[None]:
    """Four clients that insert some hundred rows a second each until the server ends them; the app
    knows no rest at all.
    """
    threads = [
        threading.Thread(target=writer.write, args=(f"{database}-{number}", database), daemon=True)
        for database in writer.acknowledged
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    wait_until(
        "the writers write", lambda: all(len(rows) > 50 for rows in writer.acknowledged.values())
    )
    yield
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def rows(project: ComposeProject, database: str) -> set[tuple[str, int]]:
    found = project.psql("SELECT who || ' ' || n FROM t", user="shop", database=database)
    return {(who, int(n)) for who, n in (line.split() for line in found.splitlines())}


@pytest.mark.thorough
def test_no_acknowledged_commit_is_lost_while_everybody_writes(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(WRITTEN)
    acks = project.folder / "acknowledged"
    acks.mkdir()
    project.up("db")
    project.psql("CREATE DATABASE second", user="shop", database="shop")
    for database in ("shop", "second"):
        project.psql("CREATE TABLE t (who text, n int)", user="shop", database=database)
    project.psql("ALTER DATABASE second SET synchronous_commit = off", user="shop", database="shop")
    project.psql(
        "BEGIN; INSERT INTO t VALUES ('prepared', 1); PREPARE TRANSACTION 'later'",
        user="shop",
        database="shop",
    )
    project.up("app")
    port = docker("port", f"{project.name}-db-1", "5432").stdout.split()[0].rpartition(":")[2]
    writer = AcknowledgedWriter(
        f"host=127.0.0.1 port={port} user=shop password=shop-password application_name=outside"
    )
    with writing(writer), writer.connect("shop") as slow:
        wait_until(
            "the app writes",
            lambda: (acks / "app").exists() and (acks / "app").stat().st_size > 200,
        )
        slow.execute("BEGIN")
        slow.execute("INSERT INTO t VALUES ('never committed', 1)")
        answer = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder)
        assert answer.returncode == 0, answer.stderr
        with suppress(psycopg.Error):
            slow.close()
    assert project.volumes() == []
    assert f"still connected to {project.name}-db-1: shop in second from" in answer.stderr
    [backup] = list_backups(safe_compose, project)
    [record] = manifest(backup).values()
    assert record["dump_older_than_archive"] is True, (
        "nobody wrote between the dump and the stop, so this proves nothing"
    )
    notes = " / ".join(map(str, record["notes"]))  # type: ignore[call-overload]
    assert "1 prepared transactions" in notes and "synchronous_commit is off" in notes

    (project.folder / "acknowledged" / "app").rename(
        project.folder / "app-acknowledged"
    )  # the app starts to count again
    undone = safe_compose("undo", cwd=project.folder)
    assert undone.returncode == 0, undone.stderr
    project.docker("compose", "stop", "app")
    project.psql("COMMIT PREPARED 'later'", user="shop", database="shop")
    there = {database: rows(project, database) for database in ("shop", "second")}
    lines = (project.folder / "app-acknowledged").read_text().split("\n")[:-1]
    by_app = {("app", int(line)) for line in lines}
    assert len(by_app) > 20
    assert by_app - there["shop"] == set()
    for database, acknowledged in writer.acknowledged.items():
        assert set(acknowledged) - there[database] == set(), database
    assert ("prepared", 1) in there["shop"] and ("never committed", 1) not in there["shop"]
    assert list_leftovers(sealed_environment) == []


RESTARTED = """
services:
  db:
    image: postgres:15
    restart: always
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: shop-password, POSTGRES_DB: shop}
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
    volumes: ["data:/var/lib/postgresql/data"]
volumes: {data: }
"""


@pytest.mark.thorough
def test_a_server_that_restarts_in_mid_dump_is_dumped_again_and_lost_rows_are_told(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(RESTARTED)
    project.up()
    rows = "SELECT g, md5(g::text) || repeat('x', 900) AS filling FROM generate_series(1, {}) g"
    project.psql(f"CREATE TABLE big AS {rows.format(200_000)}", user="shop", database="shop")
    earlier = safe_compose("backup", cwd=project.folder)
    assert earlier.returncode == 0, earlier.stderr
    project.psql("DELETE FROM big WHERE g > 90000", user="shop", database="shop")

    server = int(docker("inspect", "-f", "{{.State.Pid}}", f"{project.name}-db-1").stdout)
    guarded = start(*JOB, "compose", "down", "-v", cwd=project.folder)
    project.wait_for_dump(user="shop", database="shop")
    os.kill(server, signal.SIGKILL)
    _, said = guarded.communicate(timeout=300)
    assert guarded.returncode == 0, said
    assert "its dump starts over" in said
    newest, oldest = list_backups(safe_compose, project)
    assert f"90,000 rows, 200,000 before: see backup {oldest['id']}" in said
    [record] = manifest(newest).values()
    assert record["method"] == "dump+cold" and f"see backup {oldest['id']}" in str(record["notes"])


# -- killed ----------------------------------------------------------------------------------------

SHOP = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: shop-password, POSTGRES_DB: shop}
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
    volumes: ["data:/var/lib/postgresql/data"]
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["uploads:/app/uploads"]}
volumes: {data: , uploads: }
"""
STEPS = ("dumped", "stopped", "archived", "backed-up", "read-back", "running")


@pytest.mark.thorough
def test_a_kill_while_a_database_is_backed_up_costs_no_row_and_leaves_nothing_half(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(SHOP)
    project.up()
    project.psql("CREATE TABLE t (who text, n int)", user="shop", database="shop")
    chance = random.Random(11)
    moments: list[str | float] = [*STEPS, *(chance.uniform(1, 6) for _ in range(3))]
    for number, moment in enumerate(moments):
        project.psql(f"INSERT INTO t VALUES ('kill', {number})", user="shop", database="shop")
        expected = {("kill", n) for n in range(number + 1)}
        before, count = (
            {str(b["id"]) for b in list_backups(safe_compose, project)},
            runs(sealed_environment),
        )
        guarded = start(*JOB, "compose", "down", "-v", cwd=project.folder)
        if isinstance(moment, str):
            kill_at_step(sealed_environment, moment, since=count)
        else:
            with suppress(TimeoutExpired):
                guarded.wait(moment)
        with suppress(ProcessLookupError):
            os.killpg(guarded.pid, signal.SIGKILL)
        guarded.communicate(timeout=30)
        if f"{project.name}_data" in project.volumes():
            recovered = safe_compose("recover", cwd=project.folder)
            assert recovered.returncode == 0, (moment, recovered.stderr)
            project.docker(
                "compose", "up", "-d", "--wait", "--pull", "never"
            )  # what docker itself may have taken down
        else:
            assert any(str(b["id"]) not in before for b in list_backups(safe_compose, project)), (
                moment
            )
            undone = safe_compose("undo", cwd=project.folder)
            assert undone.returncode == 0, (moment, undone.stderr)
            project.docker("compose", "up", "-d", "--wait", "--pull", "never")
        assert rows(project, "shop") == expected, moment
        assert list_leftovers(sealed_environment) == [], moment
        for backup in json.loads(safe_compose("list", "--json").stdout)["backups"]:
            listed = {p.name for p in Path(backup["path"]).iterdir()}
            assert {"manifest.json", "SHA256SUMS", "RESTORE.md"} <= listed, moment


POWERLESS = """
services:
  db:
    image: postgres:15
    network_mode: none
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: shop-password, POSTGRES_DB: shop}
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
    volumes: ["data:/var/lib/postgresql/data"]
  app: {image: "busybox:latest", init: true, network_mode: none, command: [sleep, "100000"], volumes: ["uploads:/app/uploads"]}
volumes: {data: , uploads: }
"""


@pytest.mark.thorough
def test_when_engine_and_all_lose_power_no_row_is_lost_and_what_was_stopped_starts_again(
    lab: None, tmp_path: Path, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    folder = tmp_path / unique("power")
    folder.mkdir()
    (folder / "compose.yaml").write_text(POWERLESS)
    name = folder.name
    with private_engine(["postgres:15", "busybox:latest"]) as engine:
        env = {"DOCKER_HOST": engine.host}

        def sql(text: str) -> str:
            argv = (
                "exec",
                "-i",
                f"{name}-db-1",
                "psql",
                "-XqtA",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "shop",
                "-d",
                "shop",
            )
            return engine.docker(*argv, input=text).stdout.strip()

        def up() -> None:
            engine.docker("compose", "up", "-d", "--wait", "--pull", "never", cwd=folder)

        up()
        sql("CREATE TABLE t (n int)")
        for number, moment in enumerate(("stopped", "archived", "running")):
            sql(f"INSERT INTO t VALUES ({number})")
            before, count = (
                len(json.loads(safe_compose("list", "--json").stdout)["backups"]),
                runs(sealed_environment),
            )
            guarded = start(*JOB, "compose", "down", "-v", cwd=folder, env=env)
            kill_at_step(sealed_environment, moment, since=count)
            os.killpg(guarded.pid, signal.SIGKILL)
            engine.lose_power()
            guarded.communicate(timeout=30)
            engine.start()
            recovered = safe_compose("recover", cwd=folder, env=env)
            assert recovered.returncode == 0, recovered.stderr
            assert "was cut off" in recovered.stdout
            if moment != "running":
                state = engine.docker(
                    "inspect", "-f", "{{.State.Status}}", f"{name}-app-1"
                ).stdout.strip()
                assert state == "running", "safe-compose had stopped it, and did not start it again"
            if f"{name}_data" not in engine.volumes():
                backups = json.loads(safe_compose("list", "--json").stdout)["backups"]
                assert len(backups) > before and backups[0]["verified"]
                undone = safe_compose("undo", cwd=folder, env=env)
                assert undone.returncode == 0, undone.stderr
            up()
            assert sql("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t") == " ".join(
                map(str, range(number + 1))
            )
            for run in (sealed_environment / "safe-compose" / "journal").glob("*.jsonl"):
                label = f"label=io.github.safe-compose.helper={run.stem}"
                assert engine.docker("ps", "-aq", "--filter", label).stdout == ""
