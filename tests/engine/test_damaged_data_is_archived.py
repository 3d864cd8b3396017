"""Data that is damaged already is archived as it is: such a backup counts, says what it holds, and
comes back byte for byte.
"""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.backup import Artifact, DatabaseStatistics
from safe_compose.databases import sqlite
from safe_compose.errors import VerificationFailed
from safe_compose.volumes import gzip_stream
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker, read_in_volume, real_docker, require_success, wait_until
from testing.stacks import JOB, NO_TRIALS

# -- SQLite, without an engine ---------------------------------------------------------------------


def damaged_database(path: Path) -> bytes:
    """A database with a page of zeros in the middle of a table."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE t (n)")
        db.executemany("INSERT INTO t VALUES (?)", ((f"row {i} " * 20,) for i in range(400)))
    data = path.read_bytes()
    return data[: 4096 * 3] + bytes(4096) + data[4096 * 4 :]


def test_a_copy_that_nobody_could_judge_stays_good_where_it_turns_out_to_be_damaged(
    tmp_path: Path,
) -> None:
    data = damaged_database(tmp_path / "db")
    sums = gzip_stream.pack([data], tmp_path / "c.gz", subject="v", stage="t")
    facts: dict[str, str] = {"path": "db", "owner": "0 0 644", "by": "backup API (own)"}
    sound = Artifact(
        "c.gz", "sqlite", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v", "db", facts
    )
    unjudged = Artifact("c.gz", "sqlite", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v",
     "db",
                        {**facts, "by": f"backup API (own); {sqlite.UNJUDGED}"})  # fmt: skip
    counted = [DatabaseStatistics("db", len(data), ())]
    [found] = sqlite.verify_copies(tmp_path, [unjudged], counted)
    assert found.level == "L3" and "DAMAGED, kept as it was" in found.what
    with pytest.raises(VerificationFailed, match="damaged"):
        sqlite.verify_copies(tmp_path, [sound], counted)


# -- against a real engine -------------------------------------------------------------------------

KEPT = """
services:
  cache:
    image: redis:7
    restart: always
    command: [redis-server, --appendonly, "yes"]
    volumes: ["cache:/data"]
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["files:/files", "scrap:/var/cache"]}
volumes: {cache: , files: , scrap: }
"""


def put(container: str, path: str, data: bytes) -> None:
    subprocess.run(
        [real_docker(), "exec", "-i", container, "dd", f"of={path}"],
        input=data,
        check=True,
        capture_output=True,
    )


def manifest_of(kept: dict[str, Any]) -> dict[str, dict[str, Any]]:
    shape = json.loads((Path(kept["path"]) / "manifest.json").read_text())
    return {v["name"]: v for v in shape["volumes"]}


def state(container: str) -> str:
    return docker("inspect", "--format", "{{.State.Status}}", container).stdout.strip()


@pytest.mark.thorough
@pytest.mark.engine
def test_a_redis_that_dies_of_its_own_file_and_a_broken_sqlite_file_are_kept_and_come_back(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(KEPT)
    project.up()
    app, cache, volume = f"{project.name}-app-1", f"{project.name}-cache-1", f"{project.name}_cache"
    broken = damaged_database(tmp_path / "db")
    put(app, "/files/app.sqlite", broken)
    put(app, "/files/begins-like-one", broken[:16] + b"x" * 5000)
    wait_until(
        "redis answers",
        lambda: "OK" in docker("exec", cache, "redis-cli", "set", "a", "1", check=False).stdout,
    )
    file = "/data/appendonlydir/appendonly.aof.1.incr.aof"
    put(cache, file, b"*2\r\n$6\r\nSELECT\r\ngarbage that is no length\r\n")
    docker("restart", "-t", "5", cache)
    wait_until("redis dies of it", lambda: state(cache) == "restarting")

    hot = require_success(safe_compose("backup", "--json", cwd=project.folder))
    made = json.loads(hot.stdout)["backup"]
    records = manifest_of(made)
    assert made["lacking"] == [] and set(made["volumes"]) == {volume, f"{project.name}_files"}
    assert records[volume]["method"] == "cold" and "damaged" in str(records[volume]["notes"])
    notes = str(records[f"{project.name}_files"]["notes"])
    assert (
        "app.sqlite is damaged" in notes
        and "begins-like-one is damaged: file is not a database" in notes
    )

    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
    assert project.volumes() == []
    kept = json.loads(
        require_success(safe_compose("list", "--json", "--project", project.name)).stdout
    )["backups"][0]
    shown = require_success(safe_compose("show", kept["id"], "--json")).stdout
    assert "app.sqlite is damaged" in shown and kept["verified"]["level"] == "L2"
    [passed_over] = json.loads((Path(kept["path"]) / "manifest.json").read_text())["omitted"]
    assert passed_over["name"] == f"{project.name}_scrap" and passed_over["reason"].startswith(
        "disposable: "
    )
    require_success(safe_compose("undo", cwd=project.folder))
    docker("stop", "-t", "1", cache)
    assert "garbage that is no length" in read_in_volume(volume, "cat", file.replace("/data", "/v"))
    back = subprocess.run(
        [real_docker(), "exec", app, "cat", "/files/app.sqlite"], check=True, capture_output=True
    ).stdout
    assert back == broken


DATABASE = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_PASSWORD: secret}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1], interval: 1s, retries: 60}
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["files:/files"]}
volumes: {data: , files: }
"""


@pytest.mark.thorough
@pytest.mark.engine
def test_a_postgres_with_a_damaged_table_keeps_no_other_volume_back_and_can_be_deleted(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(DATABASE, files=NO_TRIALS)
    project.up()
    data, files = f"{project.name}_data", f"{project.name}_files"
    put(f"{project.name}-app-1", "/files/photo", b"a photo")
    sql = (
        "create table t as select g, repeat(md5(g::text), 20) from generate_series(1, 2000) g;"
        " select pg_relation_filepath('t')"
    )
    path = project.psql(sql, user="postgres", database="postgres").splitlines()[-1]
    docker("stop", f"{project.name}-db-1")
    hurt = (
        "dd",
        "if=/dev/urandom",
        f"of=/v/{path}",
        "bs=8192",
        "seek=3",
        "count=1",
        "conv=notrunc",
    )
    read_in_volume(data, *hurt)
    project.up()

    hot = safe_compose("backup", "--json", cwd=project.folder)
    made = json.loads(hot.stdout)["backup"]
    assert hot.returncode == 73 and made["volumes"] == [files] and made["lacking"] == [data]
    assert (
        f"docker stop {project.name}-db-1, then safe-compose backup --volume {data}" in hot.stderr
    )
    passed = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
    assert f"no dump of {project.name}-db-1: " in passed.stderr and project.volumes() == []
    kept = json.loads(
        require_success(safe_compose("list", "--json", "--project", project.name)).stdout
    )["backups"][0]
    assert kept["verified"]["level"] == "L2" and manifest_of(kept)[data]["method"] == "cold"
    require_success(safe_compose("undo", cwd=project.folder))
    project.up()
    assert (
        project.psql("select count(*) from pg_class", user="postgres", database="postgres") != "0"
    )
