"""Hot dumps of servers as people have them: an image with init scripts of its own, functions that
look names up in the schema of their database, views over other servers, databases set to be read
only, extensions that have to be told of a restore.
"""

import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.databases.postgres.dump_lexer import split_dump
from safe_compose.databases.postgres.dump_loading import Paths, failures
from safe_compose.databases.postgres.dump_reader import (
    DumpSummary,
    extract_database,
    prepare_loading,
    rename_database,
    restrict_script,
    summarize,
)
from safe_compose.databases.sql_lexer import NotADump
from safe_compose.engine.client_stream import TAIL
from testing.fixtures import ProjectFactory, SafeCompose
from testing.image_layers import deriving_image
from testing.projects import ComposeProject, docker, require_success, unique
from testing.recipe import type_recipe

# -- without an engine -----------------------------------------------------------------------------

DUMP = b"""--
-- PostgreSQL database dump
--

SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);
CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8';
ALTER DATABASE shop SET search_path TO 'app', 'it''s';
ALTER ROLE clerk IN DATABASE shop SET search_path TO 'of clerk';
\\connect shop
SELECT pg_catalog.set_config('search_path', '', false);
CREATE SCHEMA app;
CREATE SCHEMA "Odd";
CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;
CREATE TABLE public.t (
    a integer
);
COPY public.t (a) FROM stdin;
1
\\.
CREATE UNIQUE INDEX i ON public.t USING btree (app.f(a));
CREATE EVENT TRIGGER watch ON ddl_command_end
   EXECUTE FUNCTION public.watch();
REFRESH MATERIALIZED VIEW public.seen;
--
-- PostgreSQL database dump complete
--

"""
ROLES = b"ALTER ROLE clerk SET search_path TO '\"$user\"', public, shared;\n"


def test_views_are_filled_last_and_event_triggers_made_after_them() -> None:
    script = b"".join(restrict_script([DUMP], "key"))
    order = [
        script.index(word)
        for word in (b"CREATE UNIQUE INDEX", b"complete", b"REFRESH", b"timescaledb_post_restore")
    ]
    assert sorted(order) == order < [script.index(b"CREATE EVENT TRIGGER")]
    before = script.index(b"timescaledb_pre_restore")
    assert script.index(b"CREATE EXTENSION") < before < script.index(b"CREATE TABLE")
    assert b"search_path', ''" in script and b"default_transaction_read_only = off" in script
    assert (
        b"ON_ERROR_STOP off\n\\restrict key\nREFRESH MATERIALIZED VIEW public.seen;\n\\unrestrict"
        b" key\n" in script
    )
    assert script.count(b"ON_ERROR_STOP off") == 1, (
        "nothing else may fail while the dump is loaded as it stands"
    )
    assert script.endswith(b"\\unrestrict key\n")


def test_a_dump_is_loaded_under_the_path_of_its_database_then_of_its_roles_then_of_its_schemas() -> (
    None
):
    known = summarize([DUMP], own=True)
    path = known.paths.path(split_dump([ROLES]))
    assert (
        path
        == b'E\'"$user", "app", "it\'\'s", "of clerk", """$user""", "public", "shared", "Odd"\''
    )
    script = b"".join(
        rename_database([DUMP], "shop_new", DumpSummary(), how=prepare_loading("key", path))
    )
    assert (
        script.count(b"set_config('search_path', " + path) == 2
        and b"search_path', ''" not in script
    )
    may_fail = re.findall(rb"ON_ERROR_STOP off\n\\restrict key\n([A-Z ]+)", script)
    assert {words.split()[0] for words in may_fail} == {b"CREATE", b"REFRESH", b"ALTER"}
    assert not any(
        words.startswith((b"CREATE TABLE", b"COPY", b"CREATE SCHEMA")) for words in may_fail
    )


def test_a_dump_of_anybodys_calls_no_function_of_an_extension_itself() -> None:
    known, how = summarize([DUMP]), prepare_loading("k", superuser=False)
    script = b"".join(
        extract_database(
            split_dump([DUMP]), "shop_new", known, DumpSummary(), io.BytesIO(), how=how
        )
    )
    assert b"timescaledb" not in script and script.index(b"complete") < script.index(b"REFRESH")


def test_settings_of_the_application_come_with_a_dump_of_anybodys_and_event_triggers_are_left_out() -> (
    None
):
    sets = (
        b"ALTER DATABASE shop SET \"app.settings.tenant\" TO 'a;b';\nALTER ROLE clerk IN DATABASE"
        b" shop SET app.x TO '1';\n"
    )
    text = DUMP.replace(b"\\connect", sets + b"\\connect")
    known, later = summarize([text]), io.BytesIO()
    assert known.prefixes == ("app",) and known.left_out == ("watch",)
    script = b"".join(
        extract_database(
            split_dump([text]),
            "shop_new",
            known,
            DumpSummary(),
            later,
            how=prepare_loading("k", superuser=False),
        )
    )
    assert (
        b"SET \"app.settings.tenant\" TO 'a;b';" in script
        and b"ALTER DATABASE" not in script.partition(b"app.settings")[2]
    )
    assert b'ALTER DATABASE "shop_new" SET "app.settings.tenant" TO \'a;b\';' in later.getvalue()
    assert b"EVENT TRIGGER" not in script + later.getvalue()


@pytest.mark.parametrize(
    "name",
    ["plperl.on_init", '"plv8.start_proc"', "session_exec.login_function_name", '"pgaudit.log"'],
)
def test_a_librarys_setting_is_refused_with_a_step_that_helps(name: str) -> None:
    text = DUMP.replace(
        b"\\connect", f"ALTER DATABASE shop SET {name} TO 'x';\n".encode() + b"\\connect"
    )
    with pytest.raises(NotADump, match="superuser's to make") as refused:
        summarize([text])
    assert "take that line out" in str(refused.value.next_step)


def test_only_errors_are_told_each_once() -> None:
    told = (
        "WARNING:  x\npsql:<stdin>:7: ERROR:  no f()\npsql:<stdin>:9: ERROR:  no f()\nNOTICE: y\n"
    )
    assert failures(told) == ["no f()"] and Paths().path() == b'E\'"$user", "public"\''


def test_that_more_was_said_than_is_kept_is_told() -> None:
    line = f"psql:<stdin>:7: ERROR:  {'x' * 40}\n"
    assert failures((line * TAIL)[-TAIL:].strip()) == [
        "x" * 40,
        "there were more, which were not kept",
    ]
    assert failures(("psql:<stdin>:7: WARNING:  x\n" * TAIL)[-TAIL:]) == [
        "there were more, which were not kept"
    ]


@pytest.mark.parametrize(
    ("statement", "may_fail"),
    [
        ("CREATE POLICY p ON public.t USING (app.f(a));", True),
        ("CREATE POLICY p ON public.t FOR SELECT TO clerk USING (app.f(a));", True),
        ("CREATE POLICY p ON public.t AS RESTRICTIVE USING (app.f(a));", False),
        (
            (
                'CREATE POLICY "a ""b"" c" ON public."AS x" AS RESTRICTIVE FOR SELECT TO clerk'
                " USING (app.f(a));"
            ),
            False,
        ),
        ("CREATE RULE r AS\n    ON INSERT TO public.t DO INSTEAD NOTHING;", False),
        ("CREATE INDEX i ON public.t USING btree (app.f(a));", True),
    ],
    ids=[
        "policy",
        "policy for some",
        "restrictive policy",
        "restrictive policy of an odd name",
        "rule",
        "index",
    ],
)
def test_what_keeps_people_from_seeing_or_doing_more_may_not_fail(
    statement: str, may_fail: bool
) -> None:
    dump = DUMP.replace(b"CREATE EVENT TRIGGER", statement.encode() + b"\nCREATE EVENT TRIGGER")
    script = b"".join(restrict_script([dump], "key", prepare_loading("key", b"E'app'")))
    assert (b"ON_ERROR_STOP off\n\\restrict key\n" + statement.encode() in script) is may_fail


# -- with an engine --------------------------------------------------------------------------------

FILES = {
    "/docker-entrypoint-initdb.d/10-tables.sql": (
        "CREATE TABLE goods (id int); INSERT INTO goods VALUES (7); CREATE ROLE clerk;"
        "CREATE DATABASE demo;"
    ),
    "/docker-entrypoint-initdb.d/20-more.sh": (
        'psql -U "$POSTGRES_USER" -d postgres -c "CREATE TABLE public.goods (id int)"'
    ),
    "/usr/local/bin/company.sh": (
        """#!/bin/bash
        docker-entrypoint.sh "$@" & server=$!
        trap 'kill -INT $server; wait $server' TERM INT
        until pg_isready -q -h 127.0.0.1; do sleep 0.1; done
        psql -U "${POSTGRES_USER:-shop}" -d "${POSTGRES_DB:-shop}" -c "CREATE TABLE IF NOT EXISTS company (id int)"
        wait $server
        """
    ),
    "/usr/share/postgresql/15/extension/timescaledb.control": (
        "default_version = '1'\nrelocatable = true\n"
    ),
    "/usr/share/postgresql/15/extension/timescaledb--1.sql": (
        """
        CREATE TABLE chunks (id int); SELECT pg_catalog.pg_extension_config_dump('chunks', '');
        CREATE FUNCTION only_restored() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF pg_catalog.current_setting('timescaledb.restoring', true) = 'on' OR NEW.id = 0 THEN RETURN NEW; END IF;
          RAISE 'chunks are made by hypertables alone'; END $$;
        CREATE TRIGGER only_restored BEFORE INSERT ON chunks FOR EACH ROW EXECUTE FUNCTION only_restored();
        CREATE FUNCTION timescaledb_pre_restore() RETURNS bool LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
          EXECUTE pg_catalog.format('ALTER DATABASE %I SET timescaledb.restoring = ''on''', pg_catalog.current_database());
          PERFORM pg_catalog.set_config('timescaledb.restoring', 'on', false); RETURN true; END $$;
        CREATE FUNCTION timescaledb_post_restore() RETURNS bool LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
          EXECUTE pg_catalog.format('ALTER DATABASE %I RESET timescaledb.restoring', pg_catalog.current_database());
          PERFORM pg_catalog.set_config('timescaledb.restoring', 'off', false); RETURN true; END $$;
    """
    ),
    "/usr/share/postgresql/15/extension/fancy.control": "default_version = '1'\n",
    "/usr/share/postgresql/15/extension/fancy--1.sql": (
        """
        CREATE SCHEMA fancy; CREATE TABLE fancy.conf (id int);
        SELECT pg_catalog.pg_extension_config_dump('fancy.conf', '');
        DO $$ BEGIN
          IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'fancy_data') THEN
            CREATE SCHEMA fancy_data;
          END IF;
        END $$;
    """
    ),
}
SHOP = """
services:
  db:
    image: {image}
    environment: {{POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-5113-password, POSTGRES_DB: shop}}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {{test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}}
volumes: {{data: }}
"""
_PATHS = """
CREATE FUNCTION rate() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2';
CREATE FUNCTION doubled(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a * rate()';
CREATE FUNCTION fits(a text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN pg_catalog.length(trimmed(a)) > 0; END $$;
CREATE SCHEMA helpers; CREATE FUNCTION helpers.trimmed(a text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.btrim(a)';
ALTER DATABASE shop SET search_path = public, helpers; SET search_path = public, helpers;
CREATE TABLE prices (id int PRIMARY KEY, net int, gross int GENERATED ALWAYS AS (doubled(net)) STORED,
  what text CHECK (fits(what)));
CREATE INDEX ON prices (doubled(id)); INSERT INTO prices (id, net, what) SELECT g, g, 'x' FROM pg_catalog.generate_series(1, 4) g;
CREATE TABLE written_by (id int DEFAULT rate()); INSERT INTO written_by VALUES (default);
"""
_OTHERS = """
CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'db', dbname 'demo');
CREATE USER MAPPING FOR shop SERVER far OPTIONS (user 'shop', password 'canary-5113-password');
CREATE FOREIGN TABLE far_goods (id int) SERVER far OPTIONS (table_name 'far_goods');
CREATE MATERIALIZED VIEW seen AS SELECT * FROM far_goods; CREATE UNIQUE INDEX ON seen (id);
"""
_REST = """
CREATE EXTENSION timescaledb; INSERT INTO chunks VALUES (0);
ALTER TABLE chunks DISABLE TRIGGER only_restored; INSERT INTO chunks VALUES (5), (6);
ALTER TABLE chunks ENABLE TRIGGER only_restored;
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE 'no changes in production'; END $$;
CREATE EVENT TRIGGER watched ON ddl_command_start WHEN TAG IN ('REFRESH MATERIALIZED VIEW', 'CREATE TABLE')
  EXECUTE FUNCTION watch();
ALTER DATABASE shop SET "app.tenant" = 'canary-tenant'; ALTER DATABASE shop SET default_transaction_read_only = on;
ALTER ROLE shop SET default_transaction_read_only = on; ALTER ROLE clerk SET search_path = helpers;
"""
STATE = """
SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', id, net, gross, what), ';' ORDER BY id) FROM public.prices;
SELECT pg_catalog.string_agg(id::text, ',' ORDER BY id) FROM public.goods;
SELECT pg_catalog.string_agg(id::text, ',' ORDER BY id) FROM public.chunks;
SELECT pg_catalog.string_agg(evtname, ',') FROM pg_catalog.pg_event_trigger;
SELECT pg_catalog.array_to_string(setconfig, ' ') FROM pg_catalog.pg_db_role_setting s
  JOIN pg_catalog.pg_database d ON d.oid = setdatabase WHERE datname = 'shop';
SELECT pg_catalog.count(*) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  WHERE c.relname LIKE 'prices%';
"""


@pytest.fixture(scope="module")
def image(lab: None) -> Iterator[str]:
    with deriving_image(
        "postgres:15",
        FILES,
        "ENV PG_MAJOR=",  # not every image says its version
        'ENTRYPOINT ["company.sh"]',
        'CMD ["postgres"]',
    ) as name:
        yield name


def _sql(container: str, text: str, database: str = "shop") -> str:
    argv = ("psql", "-XqtA", "-v", "ON_ERROR_STOP=1", "-U", "shop", "-d", database, "-f", "-")
    return docker(
        "exec",
        "-i",
        "-e",
        "PGOPTIONS=-c default_transaction_read_only=off",
        container,
        *argv,
        input=text,
    ).stdout.strip()


@pytest.fixture(scope="module")
def shop(image: str, module_compose_project: ProjectFactory) -> ComposeProject:
    """What its own init scripts made, and what people add."""
    project = module_compose_project(SHOP.format(image=image))
    project.up()
    db = f"{project.name}-db-1"
    _sql(db, "CREATE TABLE far_goods (id int); INSERT INTO far_goods VALUES (8), (9)", "demo")
    _sql(
        db,
        "CREATE SCHEMA fancy_data; CREATE EXTENSION fancy; INSERT INTO fancy.conf VALUES (7)",
        "demo",
    )
    for part in (_PATHS, _OTHERS, _REST):
        _sql(db, part)
    assert _sql(db, "SELECT count(*) FROM seen") == "2"
    return project


def _served(image: str, volume: str, question: str) -> str:
    """What a server of the image, as its service would be started, answers on a volume."""
    name = unique("served")
    docker(
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "none",
        "-v",
        f"{volume}:/var/lib/postgresql/data",
        image,
    )
    try:
        probe = [
            "docker",
            "exec",
            name,
            "sh",
            "-c",
            "until pg_isready -q -h 127.0.0.1; do sleep 0.1; done",
        ]
        subprocess.run(probe, check=True, timeout=60)
        return _sql(name, question)
    finally:
        docker("rm", "-f", "-v", name, check=False)


@pytest.mark.thorough
@pytest.mark.engine
def test_a_dump_that_needs_help_is_tried_and_comes_back_whole(
    shop: ComposeProject, image: str, safe_compose: SafeCompose
) -> None:
    db, before = f"{shop.name}-db-1", _sql(f"{shop.name}-db-1", STATE)
    require_success(safe_compose("backup", cwd=shop.folder))
    verified = require_success(safe_compose("verify", "--trial", "latest", cwd=shop.folder))
    [kept] = json.loads(require_success(safe_compose("list", "--json", cwd=shop.folder)).stdout)[
        "backups"
    ]
    assert kept["verified"]["level"] == "L4", verified.stderr
    assert "public.seen" in verified.stderr and "REFRESH MATERIALIZED VIEW" in verified.stderr
    scratch = unique("scratch")
    back = require_success(
        safe_compose(
            "restore", "latest", "--volume", f"{shop.name}_data", "--into", scratch, cwd=shop.folder
        )
    )
    try:
        assert "public.seen" in back.stderr and _served(image, scratch, STATE) == before
    finally:
        docker("volume", "rm", scratch)
    answer = require_success(
        safe_compose(
            "restore", "latest", "--database", "shop", "--confirm", "shop", cwd=shop.folder
        )
    )
    assert "under the search_path of its database" in answer.stderr
    assert _sql(db, STATE) == before and _sql(db, "SELECT count(*) FROM public.seen") == "2"
    answer = require_success(
        safe_compose(
            "restore", "latest", "--database", "demo", "--confirm", "demo", cwd=shop.folder
        )
    )
    assert "superuser" not in answer.stderr and "under the search_path" not in answer.stderr
    assert _sql(db, "SELECT id FROM fancy.conf", "demo") == "7"


BY_HAND = """
CREATE TABLE goods (id int); INSERT INTO goods VALUES (1), (2), (3), (4); CREATE TABLE chosen (id int);
ALTER DATABASE shop SET default_transaction_read_only = on; ALTER DATABASE shop SET "app.tenant" = 'canary-tenant';
CREATE FUNCTION tenant() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.tenant') $$;
ALTER TABLE chosen ADD CHECK (tenant() <> ''); INSERT INTO chosen VALUES (1);
"""


@pytest.mark.thorough
@pytest.mark.engine
def test_by_hand_and_from_anybodys_dump_the_rows_are_those_that_were_and_no_others(
    image: str, compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    shop = compose_project(SHOP.format(image=image))
    shop.up()
    db, volume = f"{shop.name}-db-1", f"{shop.name}_data"
    _sql(db, "DROP TABLE goods; ALTER DATABASE shop SET app.tenant = 'canary-tenant'")
    _sql(db, BY_HAND)
    _sql(
        db, "DROP TABLE goods; CREATE TABLE goods AS SELECT generate_series(1, 4) AS id", "postgres"
    )
    dump = tmp_path / "shop.sql"
    dump.write_text(docker("exec", db, "pg_dump", "-U", "shop", "--create", "shop").stdout)
    rows = (
        "SELECT (SELECT count(*) FROM goods), (SELECT count(*) FROM chosen),"
        " current_setting('app.tenant')"
    )
    answer = safe_compose(
        "restore", str(dump), "--database", "shop", "--confirm", "shop", cwd=shop.folder
    )
    assert answer.returncode == 0 and _sql(db, rows) == "4|1|canary-tenant", answer.stderr
    require_success(safe_compose("backup", cwd=shop.folder))
    [kept] = json.loads(require_success(safe_compose("list", "--json", cwd=shop.folder)).stdout)[
        "backups"
    ]
    shop.docker("compose", "down", "-v")
    type_recipe(Path(kept["path"]), tmp_path / "tools")
    asked = "SELECT (SELECT count(*) FROM goods), current_setting('default_transaction_read_only')"
    assert _served(image, volume, rows) == "4|1|canary-tenant"
    assert _served(image, volume, f"\\connect postgres\n{asked}").startswith("4|")
