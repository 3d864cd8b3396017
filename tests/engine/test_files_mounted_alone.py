"""A single file of the host that a service mounts and writes is backed up, and comes back."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, require_success

pytestmark = pytest.mark.engine
BOX = 'image: "busybox:latest", init: true, command: [sleep, "100000"], stop_grace_period: 1s'


def make_database(path: Path, *, wal: bool = False) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {'wal' if wal else 'delete'}")
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (1)")
        database.commit()


def count_rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM t").fetchone()[0])


def add_row(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO t VALUES (2)")
        database.commit()


@pytest.fixture
def shop(compose_project: ProjectFactory) -> ComposeProject:
    """A running project that mounts a database and a plain file alone, next to other things."""
    made = compose_project(
        f"""
services:
  web:
    {{{BOX}, volumes: ["./shop.db:/app/shop.db", "./-odd 'name:/data/-odd 'name",
      "./settings.ini:/app/settings.ini", "./run.py:/app/run.py"]}}
""",
        files={"-odd 'name": "a note", "settings.ini": "x = 1", "run.py": "x = 1"},
    )
    make_database(made.folder / "shop.db")
    (made.folder / "shop.db").chmod(0o640)
    os.chown(made.folder / "shop.db", 1234, 4321)
    made.up()
    return made


def held(safe_compose: SafeCompose, project: ComposeProject) -> dict[str, Any]:
    shown = require_success(safe_compose("show", "latest", "--json", cwd=project.folder))
    volumes = json.loads(shown.stdout)["details"]["volumes"]
    return {Path(v["name"]).name: v for v in volumes}


def restore(safe_compose: SafeCompose, project: ComposeProject, *argv: str, **options: Any) -> Any:
    return safe_compose(
        "restore", "latest", *argv, "--non-interactive", cwd=project.folder, **options
    )


def leftovers(project: ComposeProject) -> list[str]:
    return sorted(p.name for p in project.folder.iterdir() if "safe-compose-" in p.name)


def test_files_that_a_service_writes_are_taken_and_come_back(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    database, odd = shop.folder / "shop.db", shop.folder / "-odd 'name"
    require_success(safe_compose("backup", cwd=shop.folder))
    taken = held(safe_compose, shop)
    assert taken.keys() == {"shop.db", "-odd 'name"}, taken
    assert {v["location"] for v in taken.values()} == {"file"}
    assert (taken["shop.db"]["data_kind"], taken["shop.db"]["method"]) == ("sqlite", "live")
    assert [d["tables"][0]["rows"] for d in taken["shop.db"]["sqlite"]] == [1]
    add_row(database)
    odd.unlink()
    dry = require_success(restore(safe_compose, shop, "--dry-run", "--json"))
    phrase = json.loads(dry.stdout)["restored"]["phrase"]
    refused = restore(safe_compose, shop)
    assert refused.returncode == 77 and count_rows(database) == 2, refused.stderr
    done = require_success(restore(safe_compose, shop, "--confirm", phrase))
    facts = database.stat()
    assert (count_rows(database), facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (
        1, 1234, 4321, 0o640
    )  # fmt: skip
    assert odd.read_text() == "a note" and leftovers(shop) == []
    [old] = shop.folder.glob("shop.db.before-*")
    assert count_rows(old) == 2 and f"{old}: safe-compose restore --finish" in done.stderr
    # the container was started again, and sees the new file
    shop.exec("web", "sh", "-c", "echo >> /data/-odd\\ \\'name")
    assert odd.read_text() == "a note\n"
    require_success(safe_compose("restore", "--finish", "--confirm", old.name, cwd=shop.folder))
    assert not old.exists() and count_rows(database) == 1


@pytest.mark.thorough
def test_a_write_ahead_log_in_the_layer_makes_a_backup_partial_until_the_service_stops(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    database = shop.folder / "shop.db"
    database.unlink()
    make_database(database, wal=True)
    shop.docker("compose", "up", "-d", "--force-recreate")
    partial = safe_compose("backup", cwd=shop.folder)
    assert partial.returncode == 73, partial.stderr
    assert "keeps the write-ahead log" in partial.stderr, partial.stderr
    assert held(safe_compose, shop).keys() == {"-odd 'name"}
    shop.exec("web", "sh", "-c", "echo x > /app/shop.db-wal")
    shop.docker("compose", "stop")
    killed = safe_compose("backup", "--volume", "./shop.db", cwd=shop.folder)
    assert killed.returncode == 73 and "was not stopped cleanly" in killed.stderr, killed.stderr
    shop.docker("compose", "rm", "-f")
    require_success(safe_compose("backup", "--volume", "./shop.db", cwd=shop.folder))
    assert "shop.db" in held(safe_compose, shop)
    # nor does a log that is left meet another file than its own
    shop.up()
    shop.exec("web", "sh", "-c", "echo x > /app/shop.db-wal")
    add_row(database)
    told = restore(safe_compose, shop, "--confirm", shop.name)
    assert told.returncode == 75 and "has /app/shop.db-wal in its own layer" in told.stderr
    assert count_rows(database) == 2 and leftovers(shop) == []
    assert list(shop.folder.glob("*.before-*")) == []


def test_the_folder_that_docker_makes_for_a_missing_file_is_replaced(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    database = shop.folder / "shop.db"
    require_success(safe_compose("backup", cwd=shop.folder))
    docker("compose", "down", cwd=shop.folder)
    database.unlink()
    database.mkdir()
    require_success(restore(safe_compose, shop, "--volume", "./shop.db"))
    assert count_rows(database) == 1 and leftovers(shop) == []
    assert list(shop.folder.glob("shop.db.before-*")) == []
    database.unlink()
    database.mkdir()
    (database / "x").write_text("mine")
    refused = restore(safe_compose, shop, "--volume", "./shop.db")
    assert refused.returncode == 77 and "a folder with content" in refused.stderr, refused.stderr


@pytest.mark.parametrize("skip", [2, 3, 4, 5])
def test_wherever_a_restore_is_killed_one_whole_file_is_there(
    shop: ComposeProject, safe_compose: SafeCompose, skip: int
) -> None:
    database = shop.folder / "shop.db"
    require_success(safe_compose("backup", "--volume", "./shop.db", cwd=shop.folder))
    add_row(database)
    argv = ("--volume", "./shop.db", "--confirm", shop.name)
    killed = restore(
        safe_compose, shop, *argv,
        env=failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=skip),
    )  # fmt: skip
    assert killed.returncode != 0, killed.stderr
    require_success(safe_compose("recover", cwd=shop.folder))
    assert leftovers(shop) == [] and f"{shop.name}-web-1" in shop.running()
    old = list(shop.folder.glob("shop.db.before-*"))
    assert count_rows(database) == (1 if old else 2)
    require_success(restore(safe_compose, shop, *argv))
    assert count_rows(database) == 1
