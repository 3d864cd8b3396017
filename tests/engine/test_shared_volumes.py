"""A database and other files in one volume: the hot backup holds both, and both come back; so with
a part of a volume.
"""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safe_compose.core.backup import (
    Artifact,
    Backup,
    DatabaseStatistics,
    ServerStatistics,
    VolumeRecord,
)
from safe_compose.databases import postgres
from safe_compose.databases.postgres.helper_server import PostgresLocation
from safe_compose.engine import helper_args, values
from safe_compose.engine.helper_args import Helper
from safe_compose.store.catalogue.checks import find_fault
from safe_compose.store.catalogue.restore_md import write_text
from testing.projects import Completed, ComposeProject, read_in_volume, require_success
from testing.runs import list_backups, manifest

ProjectFactory = Callable[..., ComposeProject]
SafeCompose = Callable[..., Completed]

SHARED = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: geheim, POSTGRES_DB: shop, PGDATA: /data/pg}
    volumes: ["shared:/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["shared:/data"]
volumes:
  shared:
"""
REDIS = """
services:
  cache:
    image: redis:7
    command: [redis-server, --dir, /data/cache, --appendonly, "yes"]
    entrypoint: [sh, -c, "mkdir -p /data/cache && exec \\"$$@\\"", sh]
    user: "0"
    volumes: ["shared:/data"]
    healthcheck: {test: [CMD, redis-cli, ping], interval: 1s, retries: 60}
volumes:
  shared:
"""
MARIADB = """
services:
  sql:
    image: mariadb:10.11
    environment: {MARIADB_ALLOW_EMPTY_ROOT_PASSWORD: "1"}
    entrypoint:
      - bash
      - -c
      - >-
        mkdir -p /data/mysql && chown mysql /data/mysql && mariadb-install-db --user=mysql --datadir=/data/mysql
        --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >/dev/null
        && exec mariadbd --user=mysql --datadir=/data/mysql --skip-name-resolve
    volumes: ["shared:/data"]
    healthcheck: {test: [CMD, mariadb-admin, ping], interval: 1s, retries: 60}
volumes:
  shared:
"""


@pytest.mark.thorough
@pytest.mark.engine
def test_a_backup_holds_the_files_beside_a_database_and_restore_brings_both(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(SHARED)
    project.up()
    name = f"{project.name}_shared"
    project.psql(
        "CREATE TABLE t AS SELECT generate_series(1, 7) AS n", user="shop", database="shop"
    )
    script = "mkdir -m 750 /v/uploads && chown 1000:1000 /v/uploads && dd of=/v/uploads/one.jpg"
    read_in_volume(name, "sh", "-c", script, input="a photo")

    made = require_success(safe_compose("backup", cwd=project.folder))
    assert "the other files of the volume (uploads" in made.stderr
    [backup] = list_backups(safe_compose, project)
    record = manifest(backup)[name]
    kinds = {a["kind"] for a in record["artifacts"]}
    assert kinds == {"globals", "database", "settings", "others", "others list"}
    [others] = [a for a in record["artifacts"] if a["kind"] == "others"]
    assert int(others["detail"]["members"]) == 4, (
        "the root, the empty place of the database, the folder and its file"
    )

    project.docker("compose", "down", "-v")
    require_success(safe_compose("restore", backup["id"], cwd=project.folder))
    project.up()
    assert project.psql("SELECT count(*) FROM t", user="shop", database="shop") == "7"
    assert project.exec("app", "stat", "-c", "%u %a", "/data/uploads").split() == ["1000", "750"]
    assert project.exec("app", "cat", "/data/uploads/one.jpg") == "a photo"
    assert project.exec("app", "stat", "-c", "%u %a", "/data/pg").split() == ["999", "700"]
    require_success(safe_compose("verify", backup["id"]))
    by_hand = (Path(str(backup["path"])) / "RESTORE.md").read_text()
    assert "the other files of the volume" in by_hand and "--exclude=volume/pg" in by_hand


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize(
    ("compose", "below"),
    [pytest.param(SHARED, "pg", id="postgres"), pytest.param(MARIADB, "mysql", id="mariadb")],
)
def test_files_that_somebody_put_into_a_data_directory_are_named_and_none_of_a_servers_own(
    compose: str, below: str, compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(compose)
    project.up()
    name = f"{project.name}_shared"
    made = require_success(safe_compose("backup", cwd=project.folder))
    assert "in its data directory" not in made.stderr
    foreign = ("d.sql", "pg_backups/d.sql", "uploads/a\nb.jpg", "uploads/.hidden")
    for path in foreign:
        read_in_volume(
            name, "sh", "-c", 'mkdir -p "${1%/*}" && head -c 300000 /dev/zero > "$1"', "sh",
            f"/v/{below}/{path}",
        )  # fmt: skip
    made = require_success(safe_compose("backup", cwd=project.folder))
    assert f"{name}: in its data directory, and in no dump: d.sql, pg_backups/d.sql," in made.stderr
    assert "uploads/.hidden and 1 more; an archive has them" in made.stderr
    newest = list_backups(safe_compose, project)[0]
    assert "and in no dump: d.sql" in " ".join(manifest(newest)[name]["notes"])


@pytest.mark.thorough
@pytest.mark.engine
def test_a_backup_of_redis_holds_the_files_beside_its_own(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(REDIS)
    project.up()
    name = f"{project.name}_shared"
    project.exec("cache", "redis-cli", "set", "one", "1")
    read_in_volume(
        name,
        "sh",
        "-c",
        "mkdir /v/uploads && dd of=/v/uploads/one.jpg && echo users > /v/cache/users.acl",
        input="a photo",
    )
    require_success(safe_compose("backup", cwd=project.folder))
    [backup] = list_backups(safe_compose, project)
    project.docker("compose", "down", "-v")
    require_success(safe_compose("restore", backup["id"], cwd=project.folder))
    project.up()
    assert project.exec("cache", "redis-cli", "get", "one").strip() == "1"
    assert (
        read_in_volume(name, "cat", "/v/uploads/one.jpg", "/v/cache/users.acl") == "a photousers\n"
    )


def inspected(mounts: list[dict[str, object]], host: list[dict[str, object]]) -> object:
    body = {
        "Id": "1", "Name": "/db", "Image": "sha256:0", "State": {"Status": "running"},
        "Mounts": mounts, "Config": {"Image": "postgres:15", "Env": ["PG_MAJOR=15",
          "PGDATA=/var/lib/postgresql/data/pgdata"]},
        "HostConfig": {"Mounts": host},
    }  # fmt: skip
    return values.read_container(body)


@pytest.mark.parametrize(
    ("subpath", "inside"),
    [
        pytest.param("databases/pg", "databases/pg/pgdata", id="deep"),
        pytest.param("./pg/", "pg/pgdata", id="not normal"),
        pytest.param("", "pgdata", id="none"),
        pytest.param(None, "pgdata", id="not said"),
        pytest.param("../other", "pgdata", id="above, which docker refuses"),
    ],
)
def test_the_part_of_a_volume_that_is_mounted_is_part_of_where_data_lies(
    subpath: str | None, inside: str
) -> None:
    options = {} if subpath is None else {"Subpath": subpath}
    target = "/var/lib/postgresql/data"
    found = inspected(
        [{"Type": "volume", "Name": "v", "Destination": target, "RW": True}],
        [{"Type": "volume", "Source": "v", "Target": target, "VolumeOptions": options}],
    )
    assert isinstance(found, values.Container)
    assert postgres.serves(found, "v")
    assert found.mounts[0].inside("/var/lib/postgresql/data/pgdata") == inside


def test_a_server_is_started_on_the_part_of_the_volume_that_its_service_mounts() -> None:
    record = VolumeRecord(
        name="v", driver="local", options={}, labels={}, created_at="", tier="critical",
        data_kind="postgres", anonymous=False, method="dump", artifacts=(),
        statistics=ServerStatistics("postgres", "15.1", "shop",
         pgdata="/var/lib/postgresql/data/pgdata"),
        users=({"image_id": IMAGE, "image": "postgres:15",
          "destination": "/var/lib/postgresql/data", "subpath": "db/pg"},),
    )  # fmt: skip
    place = PostgresLocation.of(record, "")
    assert (place.destination, place.subpath, place.inside) == (
        "/var/lib/postgresql/data",
        "db/pg",
        "db/pg/pgdata",
    )
    words = helper_args.make_run_args(
        Helper(image="sha256:1", volumes=(("v", place.destination, False),), subpath=place.subpath),
        "n",
        {},
        (),
        stdin=False,
    )
    assert "volume-subpath=db/pg" in words[words.index("--mount") + 1]
    bad = replace(record, users=({**record.users[0], "subpath": "../other"},))
    assert find_fault(backup_of(record)) is None
    assert "no folder of a volume" in str(find_fault(backup_of(bad)))
    by_hand = write_text(backup_of(replace(record, artifacts=(OTHERS, DATABASE))))
    assert "PGDATA=/volume/db/pg/pgdata" in by_hand and "--exclude=volume/db/pg/pgdata" in by_hand


def test_by_hand_a_server_starts_with_what_its_data_needs_and_a_database_is_made_as_it_was() -> (
    None
):
    settings = {
        "shared_preload_libraries": "timescaledb,it's",
        "max_prepared_transactions": "5",
        "archive_command": "canary",
    }
    extended = DatabaseStatistics("shop", 0, extensions=("timescaledb 2.1",))
    server = ServerStatistics("postgres", "15.1", "shop", settings=settings, databases=(extended,))
    record = VolumeRecord(
        name="v", driver="local", options={}, labels={}, created_at="", tier="critical",
        data_kind="postgres", anonymous=False, method="dump", artifacts=(DATABASE,),
        statistics=server,
    )  # fmt: skip
    by_hand = write_text(backup_of(record))
    started = """ "$IMAGE" postgres -c max_prepared_transactions=5 -c 'shared_preload_libraries=timescaledb,it'"'"'s' &&"""
    assert started in by_hand and "canary" not in by_hand
    plain = write_text(backup_of(replace(record, statistics=replace(server, settings={}))))
    assert ' "$IMAGE" &&' in plain and "TEMPLATE template0" not in by_hand

    made = by_hand.partition("| sed -n ")[2].partition(" | docker")[0]
    dump = (
        b"SET client_encoding = 'LATIN1';\nSET x = 1;\nCREATE DATABASE \"gr\xf6\" ENCODING ="
        b" 'LATIN1' LOCALE = 'C';\n"
    )
    first = subprocess.run(
        ["sh", "-c", f"sed -n {made}"],
        input=dump + b"CREATE DATABASE evil;\n",
        capture_output=True,
        check=True,
    )
    assert first.stdout.splitlines() == [line for line in dump.splitlines() if b"x = 1" not in line]


def backup_of(record: VolumeRecord) -> Backup:
    return Backup(
        id="20261122T072700Z-3f9a1c", seq=1, project="shop", created="2026-11-22T07:27:00Z",
        reason="manual", endpoint="unix:///x", engine_id="e", command=(), path="/x",
        volumes=(record,),
    )  # fmt: skip


IMAGE = f"sha256:{'1' * 64}"
OTHERS = Artifact(
    "v/others.tar.gz",
    "others",
    1,
    "0" * 64,
    1,
    "v",
    detail={"without": '["db/pg/pgdata"]', "tar": "helper"},
)
DATABASE = Artifact("v/db-shop.sql.gz", "database", 1, "0" * 64, 1, "v", database="shop")


@pytest.mark.engine
@pytest.mark.thorough
def test_a_server_that_keeps_its_data_where_nobody_expects_it_is_dumped_not_copied_while_it_runs(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(MARIADB)
    project.up()
    name = f"{project.name}_shared"
    project.exec(
        "sql",
        "mariadb",
        "-e",
        "CREATE DATABASE s; CREATE TABLE s.t (n int); INSERT INTO s.t VALUES (1), (2)",
    )
    read_in_volume(
        name, "sh", "-c", "mkdir /v/uploads && dd of=/v/uploads/one.jpg", input="a photo"
    )
    made = require_success(safe_compose("backup", cwd=project.folder))
    # mariadb-install-db makes an account for the name of the machine
    assert "1 accounts for names of hosts, which the server does not load" in made.stderr
    [backup] = list_backups(safe_compose, project)
    record = manifest(backup)[name]
    assert record["method"] == "dump" and {a["kind"] for a in record["artifacts"]} >= {
        "database",
        "others",
    }
    [others] = [a for a in record["artifacts"] if a["kind"] == "others"]
    assert others["detail"]["without"] == '["mysql"]' and others["detail"]["members"] == "4"
