"""What no dump holds: whose the files are (a service runs as another user than its image's), and
settings next to the databases.
"""

import io
import json
import re
import subprocess
import tarfile
from functools import partial
from pathlib import Path

import pytest

from safe_compose.core.backup import Artifact
from safe_compose.core.owners import (
    Owner,
    Owners,
    make_file_commands,
    make_folder_commands,
    parse_owner,
)
from safe_compose.databases import server_files
from safe_compose.errors import VerificationFailed
from safe_compose.volumes import gzip_stream
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, require_success
from testing.stacks import NO_TRIALS

PASSWORD, SECRET = "canary-a5d1-owners", "canary-a5d1-setting"
STACK = f"""
services:
  db:
    image: postgres:15
    user: "1234:5678"
    environment:
      POSTGRES_USER: shop
      POSTGRES_PASSWORD: {PASSWORD}
      PGDATA: /var/lib/postgresql/data/pg
    tmpfs: ["/var/run/postgresql:mode=1777"]
    volumes: ["pg:/var/lib/postgresql/data"]
    healthcheck: {{test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}}
  sql:
    image: mariadb:10.11
    user: "65534"
    environment: {{MARIADB_ROOT_PASSWORD: {PASSWORD}}}
    tmpfs: ["/run/mysqld:mode=1777"]
    volumes: ["maria:/var/lib/mysql"]
    healthcheck: {{test: [CMD, mariadb-admin, ping, -h, 127.0.0.1], interval: 1s, retries: 60}}
  cache:
    image: redis:7
    user: "65534:1"
    command: [redis-server, --save, "3600", "1"]
    volumes: ["cache:/data"]
volumes:
  pg:
  maria:
  cache:
"""
OWNED = {"pg": ("1234:5678", "2770"), "maria": ("65534:65534", "750"), "cache": ("65534:1", "700")}
"""Owner and mode of each volume's root."""

# -- without an engine -----------------------------------------------------------------------------


def test_folders_that_a_newer_image_adds_belong_to_the_owner_of_the_data() -> None:
    detail = {"folders": "[[0, 0, 493], [70, 71, 448]]", "files": "70 71 600"}
    found = Owners.of([Artifact("v/globals.sql.gz", "globals", 1, "0" * 64, 1, "v", detail=detail)])
    assert found == Owners((Owner(0, 0, 0o755), Owner(70, 71, 0o700)), Owner(70, 71, 0o600))
    assert found.at(".") == [(".", Owner(70, 71, 0o700))]
    assert found.at("a/b") == [
        (".", Owner(0, 0, 0o755)),
        ("a", Owner(70, 71, 0o700)),
        ("a/b", Owner(70, 71, 0o700)),
    ]
    assert make_file_commands(found, "/volume/a") == [("chown", "-R", "-h", "70:71", "/volume/a")]
    assert make_folder_commands(found, "/volume", "a")[-2:] == [
        ("chown", "70:71", "/volume/a"),
        ("chmod", "700", "/volume/a"),
    ]
    assert Owners.of([Artifact("v/globals.sql.gz", "globals", 1, "0" * 64, 1, "v")]) is None
    assert parse_owner("70 70 2700") == (70, 70, 0o2700)
    for said in (
        "",
        "70 70",
        "70 70 999",
        "-1 0 700",
        "70 70 700 /data",
        "stat: cannot stat",
        "7" * 11 + " 0 700",
    ):
        with pytest.raises(ValueError):
            parse_owner(said)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "link"])
def test_settings_that_lead_out_of_a_data_directory_are_rejected_before_a_byte_of_them_goes_anywhere(
    tmp_path: Path, name: str
) -> None:
    [good_one] = server_files.keep(
        {"conf.d/own.conf": b"x = 1"}, "", tmp_path, tmp_path, "v", ".", "70 70 600"
    )
    assert [e.level for e in server_files.verify(tmp_path, [good_one])] == ["L2"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = (
            (tarfile.SYMTYPE, "/etc") if name == "link" else (tarfile.REGTYPE, "")
        )
        made.addfile(member)
    path = tmp_path / "planted.tar.gz"
    sums = gzip_stream.pack([out.getvalue()], path, subject="v", stage="t")
    detail = {"names": name, "pgdata": "."}
    planted = Artifact(
        path.name, "settings", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v", detail=detail
    )
    with pytest.raises(VerificationFailed, match="no file within a data directory"):
        server_files.verify(tmp_path, [planted])


# -- with an engine --------------------------------------------------------------------------------


def _owners(project: ComposeProject, volume: str) -> set[str]:
    """`uid:gid mode` of every folder, and whether its files belong to others: what a server of that
    user minds.
    """
    words = (
        "run",
        "--rm",
        "-v",
        f"{project.name}_{volume}:/v",
        "--entrypoint",
        "find",
        "busybox:latest",
    )
    said = docker(
        *words, "/v", "-exec", "stat", "-c", "%u:%g %a %F %n", "{}", "+"
    ).stdout.splitlines()
    rows = [line.split(" ", 3) for line in said]
    roots = {f"{owner} {mode} {name}" for owner, mode, _, name in rows if name in ("/v", "/v/pg")}
    return roots | {owner for owner, *_ in rows}


def _set_up(project: ComposeProject) -> None:
    """What people change next to their databases."""
    project.psql(f"ALTER SYSTEM SET application_name = '{SECRET}'", user="shop", database="shop")
    project.psql(
        "SELECT pg_create_physical_replication_slot('standby')", user="shop", database="shop"
    )
    script = (
        'cd "$PGDATA" && echo "# by hand" >>pg_hba.conf && mkdir conf.d && echo "work_mem = 7MB"'
        " >conf.d/own.conf && "
    )
    project.exec("db", "sh", "-c", f"{script} echo \"include_dir = 'conf.d'\" >>postgresql.conf")
    project.docker("compose", "restart", "db")
    project.up()
    project.exec("sql", "sh", "-c", f"echo '{{\"{SECRET}\": 1}}' >/var/lib/mysql/mysqld-auto.cnf")
    project.exec("cache", "sh", "-c", f"echo 'user bob on >{SECRET} ~*' >/data/users.acl")


def _settings(project: ComposeProject) -> list[str]:
    """That all of it is there, from the places where the servers look."""
    script = 'cat "$PGDATA/pg_hba.conf" "$PGDATA/conf.d/own.conf" "$PGDATA/postgresql.auto.conf"'
    texts = [
        project.exec("db", "sh", "-c", script),
        project.psql("SHOW work_mem", user="shop", database="shop"),
    ]
    texts.append(project.exec("sql", "cat", "/var/lib/mysql/mysqld-auto.cnf"))
    texts.append(project.exec("cache", "cat", "/data/users.acl"))
    return texts


def _values(project: ComposeProject) -> tuple[str, str, str]:
    rows = project.psql(
        "SELECT string_agg(what, ',' ORDER BY what) FROM orders", user="shop", database="shop"
    )
    shown = project.exec(
        "sql",
        "mariadb",
        "-uroot",
        f"-p{PASSWORD}",
        "-NBe",
        "SELECT GROUP_CONCAT(what) FROM s.orders",
    )
    return rows, shown.strip(), project.exec("cache", "redis-cli", "GET", "greeting").strip()


def _by_hand(backup: Path) -> None:
    """Each volume from its dump, as a person types it."""
    for text in re.split(r"^## ", (backup / "RESTORE.md").read_text(), flags=re.M)[1:]:
        script = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S))
        typed = re.sub(r"read -r (\w+)", rf"\1={PASSWORD}", script)
        done = subprocess.run(
            ["/bin/sh", "-e"], input=typed, cwd=backup, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


@pytest.mark.engine
@pytest.mark.thorough
def test_what_comes_back_from_a_dump_belongs_to_the_user_of_the_service_with_its_settings_where_they_are_wanted(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(STACK)
    project.docker("compose", "up", "--no-start", "--pull", "never")
    for volume, (owner, mode) in OWNED.items():
        words = (
            "run",
            "--rm",
            "-v",
            f"{project.name}_{volume}:/v",
            "--entrypoint",
            "sh",
            "busybox:latest",
            "-c",
        )
        docker(*words, f"chown {owner} /v && chmod {mode} /v")
    project.up()
    project.psql(
        "CREATE TABLE orders (what text); INSERT INTO orders VALUES ('a'), ('b')",
        user="shop",
        database="shop",
    )
    statement = (
        "CREATE DATABASE s; CREATE TABLE s.orders (what text); INSERT INTO s.orders VALUES ('c')"
    )
    project.exec("sql", "mariadb", "-uroot", f"-p{PASSWORD}", "-e", statement)
    project.exec("cache", "redis-cli", "SET", "greeting", "hello")
    _set_up(project)
    values, settings = _values(project), _settings(project)
    said = safe_compose("backup", "--json", cwd=project.folder)
    kept = json.loads(require_success(said).stdout)["backup"]
    shown = require_success(safe_compose("show", kept["id"], cwd=project.folder)).stdout
    assert (
        "postgresql.auto.conf" in shown
        and "restore --settings" in shown
        and "settings.txt.gz" in shown
    )
    assert SECRET not in said.stdout + said.stderr + shown
    assert {path.stat().st_mode & 0o777 for path in Path(kept["path"]).rglob("settings.*")} == {
        0o600
    }
    slots = subprocess.run(
        ["gzip", "-dc", *Path(kept["path"]).glob("*_pg/settings.txt.gz")],
        capture_output=True,
        text=True,
    )
    assert "pg_create_physical_replication_slot('standby')" in slots.stdout
    owned = {volume: _owners(project, volume) for volume in OWNED}
    assert "1234:5678" in owned["pg"] and "65534:1" in owned["cache"]
    for way in ("restore", "by hand"):
        project.docker("compose", "down", "-v")
        if way == "restore":
            told = require_success(
                safe_compose("restore", kept["id"], "--settings", cwd=project.folder)
            ).stderr
            assert "its settings are back as well" in told and SECRET not in told
        else:
            _by_hand(Path(kept["path"]))
        assert {volume: _owners(project, volume) for volume in OWNED} == owned, way
        project.up()
        assert (_values(project), _settings(project)) == (values, settings), way


SET_UP_OTHERWISE = """
services:
  db:
    image: postgres:15
    environment:
      POSTGRES_USER: boss
      POSTGRES_DB: shop
      POSTGRES_PASSWORD: canary-2c60-first
      POSTGRES_INITDB_ARGS: --data-checksums --encoding=UTF8 --locale=C
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1], interval: 1s, retries: 60}
volumes: {data: }
"""


@pytest.mark.engine
@pytest.mark.thorough
def test_what_a_cluster_made_anew_from_a_dump_has_otherwise_is_said(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    """And what can be as it was is: page checksums, and no database that was not there."""
    project = compose_project(SET_UP_OTHERWISE, files=NO_TRIALS)
    project.up()
    ask = partial(project.psql, user="boss", database="shop")
    ask("ALTER SYSTEM SET work_mem = '9MB'")
    project.exec("db", "sh", "-c", 'echo "# by hand" >>"$PGDATA/pg_hba.conf"')
    same = (
        "SHOW data_checksums; SELECT datname, datcollate FROM pg_database"
        " WHERE datname !~ '^template' ORDER BY 1"
    )
    before = ask(same)
    kept = json.loads(require_success(safe_compose("backup", "--json", cwd=project.folder)).stdout)
    project.docker("compose", "down", "-v")
    back = require_success(safe_compose("restore", kept["backup"]["id"], cwd=project.folder))
    assert "encoding and locale UTF8 C C and get UTF8 C.UTF-8 C.UTF-8 now" in back.stderr
    left = "stored with the dump: pg_hba.conf, pg_ident.conf, postgresql.auto.conf"
    assert left in back.stderr and "with restore --settings only" in back.stderr
    project.up()
    assert ask(same) == before and before.startswith("on\n") and "boss" not in before
