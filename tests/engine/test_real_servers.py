"""What goes wrong with one version or brand of database server alone, as its official image sets
it up.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from testing.database_servers import SERVERS
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import (
    ComposeProject,
    docker,
    read_in_volume,
    require_success,
    wait_until,
)
from testing.runs import list_backups, manifest
from testing.stacks import JOB, NO_TRIALS

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.servers]

SECRET, OTHER = "canary-41d0-first", "canary-41d0-other"


def postgres(version: int, password: str = SECRET, more: str = "") -> str:
    return f"""
services:
  db:
    image: postgres:{version}
    environment: {{POSTGRES_USER: shop, POSTGRES_PASSWORD: {password}, POSTGRES_DB: shop{more}}}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {{test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}}
volumes: {{data: }}
"""


def define(project: ComposeProject, text: str) -> None:
    (project.folder / "compose.yaml").write_text(text, "utf-8")


def log_in(project: ComposeProject, user: str, password: str) -> str:
    """What a client on the project's network gets."""
    words = ("run", "--rm", "--network", f"{project.name}_default", "-e", f"PGPASSWORD={password}")
    argv = ("-h", "db", "-U", user, "-d", "shop", "-XtAc", "SELECT current_user")
    done = docker(*words, "--entrypoint", "psql", "postgres:15", *argv, check=False)
    return (done.stdout + done.stderr).strip()


@pytest.mark.thorough
def test_md5_passwords_let_in_after_a_restore_for_a_newer_server_and_a_dead_login_is_no_success(
    postgres_image: Callable[[int], str], compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    postgres_image(13)
    shop = compose_project(postgres(13), files=NO_TRIALS)
    shop.up()
    rows = "CREATE TABLE t AS SELECT g FROM generate_series(1, 500) g"
    clerk = "CREATE ROLE clerk LOGIN PASSWORD 'clerk-pass'"
    shop.psql(f"{rows}; {clerk}", user="shop", database="shop")
    assert log_in(shop, "clerk", "clerk-pass") == "clerk"
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))

    define(shop, postgres(15))
    back = require_success(safe_compose("undo", cwd=shop.folder))
    assert "its login rules take md5 passwords as before" in back.stderr
    assert "clerk, shop" in back.stderr
    assert [log_in(shop, *who) for who in (("shop", SECRET), ("clerk", "clerk-pass"))] == [
        "shop",
        "clerk",
    ]
    assert "authentication failed" in log_in(shop, "clerk", "wrong")
    found = shop.psql(
        "SELECT count(*), (SELECT count(*) FROM pg_authid WHERE rolpassword LIKE 'md5%') FROM t",
        user="shop",
        database="shop",
    )
    assert found == "500|2"

    # the password of the files is another one by now, which is why somebody deleted the volume
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    define(shop, postgres(15, OTHER))
    dead = safe_compose("undo", "--json", cwd=shop.folder)
    assert dead.returncode == 73 and "everything is back" in dead.stderr
    assert "does not let shop in over the network" in dead.stderr
    assert "safe-compose rotate-password --sync db" in dead.stderr
    assert '"works": false' in dead.stdout
    assert shop.psql("SELECT count(*) FROM t", user="shop", database="shop") == "500"
    synced = safe_compose("rotate-password", "--sync", "db", "--yes", cwd=shop.folder)
    require_success(synced)
    assert log_in(shop, "shop", OTHER) == "shop"
    assert SECRET not in dead.stderr + dead.stdout and OTHER not in dead.stderr + dead.stdout


def key_value(image: str, command: str = "") -> str:
    more = f"\n    command: {command}" if command else ""
    return f"""
services:
  cache:
    image: {image}{more}
    volumes: ["data:/data"]
    healthcheck: {{test: [CMD, {CLIENTS[image]}, ping], interval: 1s, retries: 60}}
volumes: {{data: }}
"""


CLIENTS = {"redis:8": "redis-cli", "valkey/valkey:9.1": "valkey-cli"}


@pytest.mark.thorough
@pytest.mark.parametrize("image", CLIENTS)
def test_a_fresh_server_that_saves_when_it_stops_gives_way_to_what_was_deleted(
    server_image: Callable[[str], str],
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    image: str,
) -> None:
    """With the save points that a server has by itself, as in the official images."""
    cache = compose_project(key_value(server_image(image)), files=NO_TRIALS)
    cache.up()
    ask = partial(cache.exec, "cache", CLIENTS[image])
    ask("SET", "greeting", "hello")
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=cache.folder))
    cache.up()
    ask("SET", "fresh", "one")
    asked = safe_compose("undo", cwd=cache.folder)
    assert asked.returncode == 77 and ask("GET", "fresh") == "one\n"
    require_success(safe_compose("undo", "--confirm", cache.name, cwd=cache.folder))
    assert ask("GET", "greeting") == "hello\n" and ask("DBSIZE") == "1\n"
    safety = max(list_backups(safe_compose, cache), key=lambda b: int(b["seq"]))
    require_success(safe_compose("restore", safety["id"], "--confirm", cache.name))
    assert ask("GET", "fresh") == "one\n" and ask("DBSIZE") == "1\n"


@pytest.mark.thorough
@pytest.mark.parametrize("image", CLIENTS)
def test_an_append_only_file_is_whole_where_its_own_server_loads_it(
    server_image: Callable[[str], str],
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    image: str,
) -> None:
    program = CLIENTS[image].replace("cli", "server")
    command = f"[{program}, --appendonly, 'yes', --protected-mode, 'no']"
    cache = compose_project(key_value(server_image(image), command))
    cache.up()
    ask = partial(cache.exec, "cache", CLIENTS[image])
    ask("SET", "greeting", "hello")
    ask("BGREWRITEAOF")
    state = "rdb_bgsave_in_progress:0", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"
    wait_until("it is rewritten", lambda: set(state) <= set(ask("INFO").split()))
    ask("SET", "later", "bye")
    gone = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=cache.folder))
    assert cache.volumes() == [], gone.stderr
    require_success(safe_compose("undo", cwd=cache.folder))
    assert (ask("GET", "greeting"), ask("GET", "later")) == ("hello\n", "bye\n")
    cache.docker("compose", "down")
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=cache.folder))
    require_success(safe_compose("undo", cwd=cache.folder))
    cache.up()
    assert ask("GET", "greeting") == "hello\n"

    cache.docker("compose", "stop")
    script = (
        "f=$(ls /v/appendonlydir/*.base.rdb) && size=$(wc -c <$f) && truncate -s $((size - 12)) $f"
    )
    read_in_volume(f"{cache.name}_data", "sh", "-c", script)
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=cache.folder))
    newest = max(list_backups(safe_compose, cache), key=lambda b: int(b["seq"]))
    assert "is damaged" in " ".join(manifest(newest)[f"{cache.name}_data"]["notes"])


# -- what one brand or version alone does ----------------------------------------------------------


@pytest.mark.thorough
def test_an_account_that_needs_a_plugin_comes_back_with_it_and_what_latest_passed_over_is_said(
    server_image: Callable[[str], str], compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    server = SERVERS["mariadb 11.8"]
    server_image(server.image)
    shop = compose_project(server.compose(), files={".env": f"PASSWORD={SECRET}\n"})
    shop.up()
    server.ask(shop, "INSTALL SONAME 'auth_ed25519'; CREATE TABLE t AS SELECT 1 AS id;")
    server.ask(shop, "CREATE USER eve@'%' IDENTIFIED VIA ed25519 USING PASSWORD('eve-password');")
    run = partial(safe_compose, cwd=shop.folder)
    kept = json.loads(require_success(run("backup", "--json")).stdout)["backup"]
    assert '"L4"' in require_success(run("verify", "--trial", kept["id"], "--json")).stdout
    later = json.loads(require_success(run("backup", "--json")).stdout)["backup"]
    for dump in Path(later["path"]).rglob("*.sql.gz"):
        dump.write_bytes(dump.read_bytes()[:-9])
    assert run("verify", later["id"]).returncode == 65
    shop.docker("compose", "down")
    shop.docker("volume", "rm", f"{shop.name}_data")
    back = require_success(run("restore", "latest"))
    assert f"{later['id']}, which is newer, was passed over ({shop.name}_data/" in back.stderr
    shop.up()
    eve = replace(server, login=tuple("eve" if w == "root" else w for w in server.login))
    assert eve.log_in(shop, "eve-password") == "eve"
    assert server.ask(shop, "SELECT COUNT(*) FROM t;") == "1"


@pytest.mark.thorough
def test_no_second_primary_is_made_of_the_dump_of_a_standby(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    shop = compose_project(postgres(15), files=NO_TRIALS)
    shop.up()
    shop.psql("CREATE TABLE t AS SELECT 1 AS id", user="shop", database="shop")
    shop.exec("db", "sh", "-c", 'touch "$PGDATA/standby.signal"')
    shop.docker("compose", "restart", "db")
    shop.up()
    recovering = partial(
        shop.psql, "SELECT pg_is_in_recovery(), count(*) FROM t", user="shop", database="shop"
    )
    assert recovering() == "t|1"
    run = partial(safe_compose, cwd=shop.folder)
    kept = json.loads(require_success(run("backup", "--json")).stdout)["backup"]
    require_success(run(*JOB, "compose", "down", "-v"))
    refused = run("restore", kept["id"])
    assert refused.returncode == 77 and "is that of a standby" in refused.stderr
    assert shop.volumes() == []
    require_success(run("restore", kept["id"], "--into", "scratch"))
    require_success(run("undo"))
    assert recovering() == "t|1"


@pytest.mark.thorough
def test_a_dump_by_a_newer_pg_dump_loads_into_the_older_server_of_its_image(
    postgres_image: Callable[[int], str], compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    """Such an image has client programs of another release than its server."""
    postgres_image(16)
    shop = compose_project(postgres(16))
    shop.up()
    shop.psql("CREATE TABLE t AS SELECT 1 AS id", user="shop", database="shop")
    assert "17." in shop.exec("db", "pg_dump", "--version")
    run = partial(safe_compose, cwd=shop.folder)
    kept = json.loads(require_success(run("backup", "--json")).stdout)["backup"]
    assert '"L4"' in require_success(run("verify", "--trial", kept["id"], "--json")).stdout
    shop.psql("INSERT INTO t VALUES (2)", user="shop", database="shop")
    confirm = ("--database", "shop", "--confirm", "shop")
    require_success(run("restore", kept["id"], *confirm))
    assert shop.psql("SELECT count(*) FROM t", user="shop", database="shop") == "1"
    shop.docker("compose", "down")
    shop.docker("volume", "rm", f"{shop.name}_data")
    require_success(run("restore", kept["id"]))
    shop.up()
    assert shop.psql("SELECT count(*) FROM t", user="shop", database="shop") == "1"


@pytest.mark.thorough
def test_a_database_that_needs_an_extension_is_not_put_into_a_server_without_it(
    server_image: Callable[[str], str], compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    server = SERVERS["postgis 15"]
    server_image(server.image)
    shop = compose_project(server.compose(), files={".env": f"PASSWORD={SECRET}\n", **NO_TRIALS})
    shop.up()
    server.ask(shop, server.fill)
    before = server.ask(shop, server.look)
    run = partial(safe_compose, cwd=shop.folder)
    kept = json.loads(require_success(run("backup", "--json")).stdout)["backup"]["id"]
    require_success(run(*JOB, "compose", "down", "-v"))

    plain = SERVERS["postgres 15"]
    define(shop, plain.compose())
    shop.up()
    refused = run("restore", kept, "--database", "shop", "--confirm", "shop")
    assert refused.returncode == 77 and "the server has no extension postgis" in refused.stderr
    lacking = run("undo", "--json", "--confirm", shop.name)
    assert lacking.returncode == 73 and "everything is back, but" in lacking.stderr
    assert "database shop needs postgis, and postgres:15 of" in lacking.stderr
    assert f"such as {server.image}" in lacking.stderr
    [missing] = json.loads(lacking.stdout.splitlines()[0])["undone"]["missing_extensions"]
    assert (missing["database"], missing["extensions"]) == ("shop", ["postgis"])

    define(shop, server.compose())
    shop.up()
    assert server.ask(shop, server.look) == before
