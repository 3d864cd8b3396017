"""Dumps that somebody has put more into than a dump: what psql, the server and the clients would
do, they do not.
"""

import gzip
import io
import json
import os
import random
import re
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_compose.core.backup import Artifact, Backup, VolumeRecord
from safe_compose.databases.mysql import dump_file
from safe_compose.databases.postgres import dump_file as postgres_dump_file
from safe_compose.databases.postgres.dump_lexer import PieceKind, PsqlLexer, split_dump
from safe_compose.databases.postgres.dump_reader import (
    DumpSummary,
    extract_database,
    prepare_loading,
    rename_database,
    restrict_script,
    summarize,
)
from safe_compose.databases.postgres.dump_roles import make_roles_script
from safe_compose.databases.postgres.dump_scanner import PostgresScanner
from safe_compose.databases.postgres.restrict import new_key
from safe_compose.databases.postgres.statement_router import StatementRouter
from safe_compose.databases.sql_lexer import BadDump, NotADump
from safe_compose.errors import SafeComposeError
from safe_compose.operations.restore.database import sources
from safe_compose.workspace import Workspace
from testing.fixtures import ProjectFactory
from testing.projects import ComposeProject, docker
from testing.terminal import PROGRAM

HEAD = b"""--
-- PostgreSQL database dump
--

\\restrict abc

-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 15.20 (Debian 15.20-0+deb12u1)

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);

"""
TABLE = b"""CREATE TABLE public.t (
    a text
);


COPY public.t (a) FROM stdin;
one
\\.


"""
END = b"""--
-- PostgreSQL database dump complete
--

\\unrestrict abc

"""


def dump(more: bytes) -> bytes:
    """A good dump with something between its settings and its table; that begins on line 15."""
    return HEAD + more + TABLE + END


def blocks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


COMMANDS = [
    b"SELECT 1 \\! touch /tmp/planted\n;\n", b"\\! touch /tmp/planted\n", b"  \\! id\n",
    b"SET row_security = off; \\! id\n", b"SELECT 1 \\g | sh\n",
    b"SELECT 1 \\gexec\n", b"SELECT 'x' AS v \\gset\n", b"\\o |sh\n",
    b"\\copy t from program 'id'\n", b"\\i /etc/passwd\n", b"\\ir x\n", b"\\setenv A b\n",
    b"\\cd /\n", b"SELECT 1 \\watch 1\n", b"SELECT 1 \\connect other\nDROP TABLE kept;\n",
    b"\\connect other x\n", b"\\connect `id`\n", b"\\connect \"a\" \\! id\n", b"\\c other\n",
    b"\\connect host=evil\n", b"\\restrict abc \\! id\n", b"\\unrestrict abc\\! id\n",
    b"\\encoding SJIS\n", b"\\set ON_ERROR_STOP off\n", b"\\\\ \\! id\n", b"/* x */ \\! id\n",
    b"/* /* \\! id */ '*/ \\! id\n", b"SELECT $$ $a$ $$ \\! id\n;", b"SELECT E'\\'' \\! id\n;",
    b"SELECT '\\' \\! id\n;", b"SELECT \"\\\" \\! id\n;", b"-- x\n\\! id\n",
    b"COPY public.u (a) FROM stdin;\n\\.\n\\! id\n", b"SELECT (1;\n\\! id\n);",
    b"COMMENT ON TABLE public.t IS 'x' \\;\\! id\n;", b"\\if true\n", b"\\.\n",
    b"SELECT :'x' \\p\n;",
]  # fmt: skip


@pytest.mark.parametrize("planted", COMMANDS)
def test_a_command_for_psql_is_refused_wherever_it_stands_and_its_line_is_told(
    planted: bytes,
) -> None:
    words = set()
    for size in (1, 3, 17, 1 << 20):
        with pytest.raises(
            NotADump, match=r"line \d+: it asks psql for what no dump needs: \\"
        ) as fault:
            summarize(blocks(dump(planted), size))
        words.add(str(fault.value))
    assert len(words) == 1, "it depends on how the blocks are cut"
    at = 15 + planted[: planted.rindex(b"\\")].count(b"\n")
    line = int(words.pop().split()[1].rstrip(":"))
    assert 15 <= line <= at


@pytest.mark.parametrize("planted", COMMANDS)
def test_a_dump_of_ours_with_such_a_command_proves_nothing_and_reaches_no_client(
    planted: bytes,
) -> None:
    with pytest.raises(BadDump):
        summarize([dump(planted)], own=True)
    scanner = PostgresScanner()
    with pytest.raises(BadDump):
        scanner.feed(dump(planted))
        scanner.finish()
    with pytest.raises(BadDump):
        b"".join(restrict_script([dump(planted)], None))


STATEMENTS = [
    b"SELECT 2; ALTER SYSTEM SET archive_command = 'id';", b"alter/* */system set x = 1;",
    b"ALTER\n  SYSTEM RESET ALL;", b"CREATE DATABASE other;\nDROP DATABASE shop;",
    b"DROP DATABASE other;\nCREATE DATABASE shop;", b"ALTER DATABASE other RENAME TO x;",
    b"alter database other owner to x;", b"COMMENT ON DATABASE other IS 'x';",
    b"GRANT ALL ON DATABASE other TO x;", b"SECURITY LABEL ON DATABASE other IS 'x';",
    b"ALTER ROLE x IN DATABASE other SET search_path TO evil;", b"CREATE ROLE x SUPERUSER;",
    b"ALTER ROLE shop PASSWORD 'x';", b"ALTER USER ALL SET search_path TO x;", b"DROP ROLE clerk;",
    b"DROP OWNED BY clerk;", b"CREATE USER x;", b"CREATE GROUP x;", b"GRANT shop TO clerk;",
    b"GRANT pg_execute_server_program TO clerk;", b"REASSIGN OWNED BY a TO b;",
    b"CREATE TABLESPACE x LOCATION '/tmp';", b"COMMENT ON ROLE x IS 'x';",
    b"COPY public.t TO PROGRAM 'id';", b"COPY public.t FROM '/etc/passwd';",
    b"copy public.t from stdin;\nx\n\\.\n", b"COPY (SELECT 1) TO '/tmp/x';", b"DO $$ BEGIN END $$;",
    b"do language plpgsql 'begin end';",
    b"CALL public.p();", b"SELECT public.f();", b"SELECT pg_catalog.pg_read_file('/etc/passwd');",
    b"SELECT lo_import('/etc/passwd');",
    b"SELECT pg_catalog.set_config('role', 'shop', false);",
    b"SELECT pg_catalog.set_config('search_path', public.f(), false);",
    b"SELECT pg_catalog.setval(public.f(), 1, true);", b"SELECT * FROM public.f();",
    b"WITH x AS (SELECT 1) DELETE FROM public.t;", b"INSERT INTO public.t VALUES (public.f());",
    b"INSERT INTO public.t SELECT public.f();", b"INSERT INTO public.t VALUES ('a') RETURNING f();",
    b"CREATE EXTENSION file_fdw;", b"CREATE EXTENSION IF NOT EXISTS dblink;",
    b"CREATE EXTENSION plpython3u;", b"CREATE EXTENSION adminpack;",
    b"CREATE EXTENSION postgis CASCADE;", b"CREATE LANGUAGE plpython3u;",
    b"CREATE OR REPLACE TRUSTED LANGUAGE x HANDLER y;",
    b"CREATE FUNCTION public.f() RETURNS int LANGUAGE plpython3u AS 'x';",
    b"CREATE FUNCTION public.f() RETURNS int AS 'libc', 'system' LANGUAGE c;",
    b"CREATE FUNCTION f() RETURNS int AS 'x' LANGUAGE 'c';",
    b"CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p;",
    b"CREATE SERVER s FOREIGN DATA WRAPPER w;", b"CREATE USER MAPPING FOR x SERVER s;",
    b"CREATE FOREIGN TABLE public.f () SERVER s;",
    b"CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f();", b"SET ROLE shop;",
    b"SET SESSION AUTHORIZATION shop;\nCREATE TABLE public.x ();", b"SET LOCAL role = shop;",
    b"SET session_replication_role = replica;", b"SET standard_conforming_strings = off;",
    b"SET STANDARD_CONFORMING_STRINGS TO 'off';", b"SET client_encoding = 'SJIS';",
    b"SET client_encoding TO big5;", b"SET NAMES 'GBK';", b"RESET ALL;", b"DISCARD ALL;",
    b"LOAD 'x';", b"LISTEN x;", b"PREPARE x AS SELECT 1;", b"EXECUTE x;", b"VACUUM;",
    b"CHECKPOINT;", b"UPDATE pg_catalog.pg_authid SET rolsuper = true;",
    b"DELETE FROM pg_catalog.pg_class;", b"TRUNCATE public.t;", b"LOCK TABLE public.t;",
    b"ALTER TABLE pg_catalog.pg_authid OWNER TO x;",
    b"ALTER FUNCTION PG_CATALOG.pg_read_file(text) OWNER TO x;",
    b"ALTER SCHEMA pg_catalog OWNER TO x;",
    b"GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO PUBLIC;",
    b"GRANT ALL ON TABLE \"pg_catalog\".pg_authid TO PUBLIC;",
    b"GRANT ALL ON FUNCTION public.f(), pg_catalog.pg_read_file(text) TO PUBLIC;",
    b"GRANT SET ON PARAMETER work_mem TO x;", b"ALTER DATABASE shop SET x TO y;",
    b"IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z;", b"NOTIFY x;", b"ALTER EXTENSION x UPDATE;",
    b"CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql RETURN 1 begin;\nCOPY public.u (a) FROM stdin;\n\\! id\n\\.\n", b"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; ALTER SYSTEM RESET ALL; END;", b"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END; ALTER SYSTEM RESET ALL;", b"BEGIN;", b"BEGIN; ROLLBACK;", b"START TRANSACTION;",
    b"CREATE DATABASE shop;\nALTER ROLE shop IN DATABASE shop SET plperl.on_plperlu_init TO 'x';",
    b"CREATE DATABASE shop;\nALTER ROLE shop IN DATABASE shop SET \"plperl.on_plperlu_init\" TO 'x';",
    b"CREATE DATABASE shop;\nALTER DATABASE shop SET \"plperl.on_plperlu_init\" TO 'x';",
    b"CREATE DATABASE shop;\nALTER ROLE shop IN DATABASE shop SET \"Session_Preload_Libraries\" TO 'x';",
]  # fmt: skip


@pytest.mark.parametrize("planted", STATEMENTS)
def test_a_statement_that_no_dump_of_one_database_has_is_refused_wherever_it_stands(
    planted: bytes,
) -> None:
    for before, after in (
        (b"", b"\n"),
        (b"SET row_security = off; /* x */ ", b"\n"),
        (b"CREATE TABLE public.u (b int); -- x\n\t", b" \n"),
    ):
        for size in (2, 1 << 20):
            with pytest.raises(BadDump, match=r"line 1[5-9]: "):
                summarize(blocks(dump(before + planted + after), size))


AMBIGUOUS = [
    b"SELECT E'a'\n'b\\' ;\n", b"SELECT 1E'x';\n", b"SELECT 1$$a$$;\n", b"SELECT a$$;\n",
    b"SELECT x'1'y'2';\n", b"SET row_security = off;\r\n",
    b"-- x\rSELECT 1;\n", b"SET row_security =\0 off;\n", b"COPY public.u (a) FROM stdin;\n\\.\r\n",
    b"COPY public.u (a) FROM stdin;\nx\n\\.x\n\\.\n",
    b"COPY public.u (a) FROM stdin;\nx\0\n\\.\n", b"COPY public.u (a) FROM stdin; SELECT 1;\n\\.\n",
    b"COPY public.u (a) FROM stdin;\r\n\\.\n",
]  # fmt: skip


@pytest.mark.parametrize("planted", AMBIGUOUS)
def test_what_client_and_server_could_read_in_two_ways_is_refused(planted: bytes) -> None:
    for own in (False, True):
        for size in (1, 7, 1 << 20):
            with pytest.raises(BadDump, match="line 1"):
                summarize(blocks(dump(planted), size), own=own)


HARMLESS = [
    b"COMMENT ON TABLE public.t IS '\\! x';\n",
    b"CREATE TABLE public.\"\\! x\" (a text DEFAULT 'it''s \\');\n", b"-- \\! x; it's\n",
    b"/* \\! /* ' */ */\n",
    b"CREATE FUNCTION public.f() RETURNS text LANGUAGE plpgsql AS $_$\n\\! x\nALTER SYSTEM RESET ALL;\n$a$ $_$;\n", b"CREATE FUNCTION public.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN $1 > 1 THEN 2 END; SELECT 4;\nEND;\n",
    b"COPY public.u (a, \"b;\") FROM stdin;\n\\! x\nALTER SYSTEM RESET ALL;\n\\\\.\n\\.\n",
    b"CREATE RULE r AS ON INSERT TO public.t DO ALSO (NOTIFY x; SELECT 1);\n",
    b"INSERT INTO public.t VALUES ('\\! x', 1.5e-7, NULL, E'a\\'b', B'01', true, '2020'), (DEFAULT) ON CONFLICT DO NOTHING;\n",
    b"ALTER TABLE public.t ADD CONSTRAINT c CHECK ((a <> 'x'::text) AND (a ~ E'\\\\!')) NOT VALID;\n",
    b"BEGIN;\n\nSELECT pg_catalog.lo_create('1');\nCOMMIT;\n",
    b"GRANT SELECT(a),UPDATE(a) ON TABLE public.t TO clerk WITH GRANT OPTION;\nREVOKE ALL ON FUNCTION public.f(a numeric, VARIADIC b text[]) FROM PUBLIC;\n",
    b"SET SESSION AUTHORIZATION clerk;\nGRANT SELECT ON TABLE public.t TO x;\nRESET SESSION AUTHORIZATION;\n",
    b"SET default_table_access_method = heap;\n",
    b"CREATE DATABASE shop;\nALTER DATABASE shop SET \"TimeZone\" TO 'UTC';\nALTER ROLE x IN DATABASE shop SET \"DateStyle\" TO 'ISO, DMY';\n",
    b"ALTER DEFAULT PRIVILEGES FOR ROLE clerk IN SCHEMA public GRANT SELECT ON TABLES  TO x;\n",
    b"CREATE TYPE public.e AS ENUM (\n    'a',\n    'b;'\n);\n",
    b"ALTER OPERATOR public.=== (integer, integer) OWNER TO clerk;\nALTER AGGREGATE public.g(integer ORDER BY integer) OWNER TO clerk;\n",
    b"SELECT * FROM pg_catalog.pg_restore_relation_stats(\n\t'version', '180000'::integer,\n\t'relpages', '1'::integer\n);\n",
    b";\n",
]  # fmt: skip


@pytest.mark.parametrize("good", HARMLESS)
def test_what_pg_dump_writes_is_let_by_and_all_of_it_is_in_the_pieces(good: bytes) -> None:
    for size in (1, 5, 1 << 20):
        found = summarize(blocks(dump(good), size))
        assert found.rows >= 1
        assert b"".join(p.raw for p in split_dump(blocks(dump(good), size))) == dump(good)
    assert summarize([dump(good)], own=True).size == len(dump(good))


# -- against a slow reading of each byte -----------------------------------------------------------


def backslashes(script: str) -> list[int]:
    """Where psql would see a backslash of its own: its lexer, a character at a time, where strings
    mean one thing.
    """
    found, at, n = [], 0, len(script)
    while at < n:
        rest = script[at:]
        if rest.startswith("--"):
            at += (rest + "\n").index("\n")
        elif rest.startswith("/*"):
            depth, at = 1, at + 2
            while at < n and depth:
                step = (
                    1 if script.startswith("/*", at) else -1 if script.startswith("*/", at) else 0
                )
                depth, at = depth + step, at + (2 if step else 1)
        elif rest[0] in "'\"":
            alone = at < 2 or not (script[at - 2].isalnum() or script[at - 2] in "_$")
            escapes = rest[0] == "'" and at > 0 and script[at - 1] in "eE" and alone
            at += 1
            while at < n and script[at] != rest[0]:
                at += 2 if escapes and script[at] == "\\" else 1
            at += 1
        elif (
            rest[0] == "$"
            and (end := rest.find("$", 1)) > 0
            and (end == 1 or rest[1:end].isidentifier())
        ):
            close = script.find(rest[: end + 1], at + end + 1)
            at = n if close < 0 else close + end + 1
        else:
            found += [at] if rest[0] == "\\" else []
            at += (
                (rest + "\n").index("\n") if rest[0] == "\\" else 1
            )  # such a command takes the rest of its line
    return found


TOKENS = [
    "'", "'", "E'", '"', "$$", "$a$", "$1", "--", "/*", "*/", ";", ";\n", "\n", "\\! echo MARK\n",
    "\\! echo MARK", "(", ")", "a", "E", "1", ":x", "::",
    " ", "\\", "''", "U&'", "b'", "é", "*", "-", "/", "select 1",
]  # fmt: skip


@pytest.mark.thorough
@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.sampled_from(TOKENS), max_size=16).map("".join), st.sampled_from([1, 2, 5, 1000])
)
def test_every_backslash_that_is_outside_of_strings_is_a_piece_of_its_own_or_refused(
    script: str, size: int
) -> None:
    data = script.encode() + b"\n"
    lexer, pieces = PsqlLexer(), []
    try:
        for block in blocks(data, size):
            pieces += lexer.feed(block)
        pieces += lexer.end()
    except BadDump:
        return
    places, at = [], 0
    for piece in pieces:
        places += [at] if piece.kind is PieceKind.COMMAND else []
        at += len(piece.raw)
    assert b"".join(piece.raw for piece in pieces) == data
    outside = [len(script[:at].encode()) for at in backslashes(script)]
    assert {data.rindex(b"\n", 0, at) + 1 if b"\n" in data[:at] else 0 for at in outside} == set(
        places
    )


# -- against psql ----------------------------------------------------------------------------------

MORE_TOKENS = [
    *TOKENS, "\nCOPY public.t (a) FROM stdin;\n", "\\.\n", " begin ", " atomic ", " case ", " end ",
    "create function f ", "create or replace function g() ",
    ":'a'", ":DBNAME", "\\'", "x'", "n'", "\x0b", "\t", "|", "=",
]  # fmt: skip


def harmless(script: bytes) -> bool:
    """Whether it is let by as far as psql is concerned; no matter what the server would think of
    its statements.
    """
    judge = StatementRouter(own=False)
    try:
        for piece in split_dump([script]):
            if piece.kind is PieceKind.COMMAND or (piece.kind is PieceKind.COPY and judge._body):
                return False
            if piece.kind is PieceKind.STATEMENT and (
                judge._body or piece.code.lower().startswith(b"create")
            ):
                judge._follow(piece)
    except BadDump:
        return False
    return not judge._body


def scripts(count: int, seed: int) -> Iterator[bytes]:
    """Random scripts with a command for psql in a place where the lexer sees none."""
    chance = random.Random(seed)
    while count:
        script = "".join(chance.choice(MORE_TOKENS) for _ in range(chance.randint(3, 14)))
        script += chance.choice(["", "'", '"', "$$", "$a$", "*/", "\n", "\n\\.\n"]) + chance.choice(
            [";\n", "\n"]
        )
        if "MARK" in script and harmless(script.encode()):
            count -= 1
            yield script.encode()


@dataclass(frozen=True)
class ShopWithDumps:
    project: ComposeProject
    home: Path

    def psql(self, query: str, database: str = "shop") -> str:
        return self.project.psql(query, user="shop", database=database)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [PROGRAM, *words], cwd=self.project.folder, env={**os.environ,
             "SAFE_COMPOSE_HOME": str(self.home)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
            timeout=300,
        )  # fmt: skip

    def dump(self, *words: str) -> bytes:
        command = ["docker", "exec", f"{self.project.name}-db-1", *words, "-U", "shop"]
        return subprocess.run(command, capture_output=True, check=True).stdout

    def everything(self) -> str:
        """All that the server holds, but for what it counts, and when its container was started."""
        lines = self.dump("pg_dumpall").decode().splitlines()
        started = docker(
            "inspect", f"{self.project.name}-db-1", "--format", "{{.State.StartedAt}}"
        ).stdout
        return "\n".join(
            [
                started,
                *(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))),
            ]
        )

    def planted(self) -> bool:
        found = docker(
            "exec", f"{self.project.name}-db-1", "sh", "-c", "test ! -e /tmp/planted", check=False
        )
        return found.returncode != 0


SHOP = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-5d1e-password, POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck:
      test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop]
      interval: 1s
      retries: 60
volumes:
  data:
"""
ROWS = """
CREATE ROLE clerk LOGIN; CREATE ROLE reader; CREATE DATABASE other;
CREATE TABLE orders (id serial PRIMARY KEY, what text CHECK (what <> '\\!'), at timestamptz DEFAULT now());
INSERT INTO orders (what) SELECT 'order ' || g FROM generate_series(1, 500) g; ALTER TABLE orders OWNER TO clerk;
CREATE EXTENSION earthdistance CASCADE;
CREATE EXTENSION citext; CREATE SCHEMA stats; CREATE EXTENSION pg_stat_statements SCHEMA stats; CREATE TYPE mood AS ENUM ('a', 'b');
CREATE VIEW seen AS SELECT count(*) AS n FROM orders; CREATE MATERIALIZED VIEW kept AS SELECT max(id) AS m FROM orders;
CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a > 1 THEN a * 2 ELSE 3 END; END;
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; ALTER FUNCTION later() OWNER TO clerk;
CREATE TRIGGER tg BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION later(); CREATE INDEX ON orders (lower(what));
CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int); CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq);
CREATE POLICY p ON orders FOR SELECT TO clerk USING (id > 1); ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE TABLE "odd ""\\! name" (t text, f float, b bit(2), y boolean);
INSERT INTO "odd ""\\! name" VALUES (E'a\\n\\\\.\\n''', -1.5e300, '01', true);
CREATE TABLE parts (n int) PARTITION BY RANGE (n); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts VALUES (1);
SELECT lo_from_bytea(4711, 'a large one'); GRANT SELECT ON LARGE OBJECT 4711 TO reader; CREATE PUBLICATION all_of_it FOR ALL TABLES;
GRANT SELECT (id), UPDATE (what) ON orders TO reader WITH GRANT OPTION; SET ROLE clerk; GRANT SELECT ON orders TO reader;
RESET ROLE;
GRANT USAGE ON SCHEMA public TO reader; GRANT CONNECT ON DATABASE shop TO clerk;
ALTER DATABASE shop SET search_path TO public, pg_catalog;
ALTER ROLE clerk IN DATABASE shop SET work_mem TO '8MB'; ALTER ROLE clerk IN DATABASE shop SET "TimeZone" TO 'UTC';
ALTER DATABASE shop SET "DateStyle" TO 'ISO, DMY';
ALTER DEFAULT PRIVILEGES FOR ROLE clerk IN SCHEMA public GRANT SELECT ON TABLES TO reader;
COMMENT ON DATABASE shop IS 'it''s the shop''s'; COMMENT ON EXTENSION citext IS 'ours'; COMMENT ON TABLE orders IS 'a\\';
"""


@pytest.fixture(scope="module")
def shop(
    module_compose_project: ProjectFactory, tmp_path_factory: pytest.TempPathFactory
) -> ShopWithDumps:
    made = ShopWithDumps(
        module_compose_project(SHOP), tmp_path_factory.mktemp("store") / "safe-compose"
    )
    made.project.up()
    made.psql(ROWS)
    made.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)", "other")
    return made


@pytest.mark.thorough
@pytest.mark.engine
def test_of_what_the_lexer_calls_harmless_psql_runs_no_command(shop: ShopWithDumps) -> None:
    cases = [*scripts(80, seed=int(time.time())), *scripts(40, seed=7)]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number, case in enumerate([*cases, b"select 1;\n\\! echo MARK\n"]):
            member = tarfile.TarInfo(f"cases/{number}")
            member.size = len(case)
            tar.addfile(member, io.BytesIO(case))
    script = (
        "tar xf - -C /tmp && cd /tmp/cases && for i in *; do psql -U shop -Xq -d template1 -c"
        " 'CREATE TABLE IF NOT EXISTS public.t (a text)' -f $i </dev/null 2>&1 | grep -q '^MARK' &&"
        " echo $i; done; rm -r /tmp/cases; psql -U shop -Xqd template1 -c 'DROP TABLE public.t'"
    )
    command = ["docker", "exec", "-i", f"{shop.project.name}-db-1", "bash", "-c", script]
    done = subprocess.run(command, input=packed.getvalue(), capture_output=True, check=True)
    hit = [int(number) for number in done.stdout.split()]
    assert hit == [len(cases)], [cases[number] for number in hit[:-1]]


# -- planted in files, restored into a living server -----------------------------------------------

PLANTED = {
    "mid-line command": b"SELECT 1 \\! touch /tmp/planted\n;\n",
    "a pipe": b"SELECT 'touch /tmp/planted' \\g | sh\n",
    "another database": b"SELECT 1 \\connect other\nDROP TABLE public.kept;\n",
    "in mid-line": b"SELECT 2; ALTER SYSTEM SET log_statement = 'all';\n",
    "a program": b"COPY public.t TO PROGRAM 'touch /tmp/planted';\n",
    "a block": b"DO $$ BEGIN EXECUTE 'ALTER ROLE clerk SUPERUSER'; END $$;\n",
    "a role": b"CREATE TABLE public.u (); ALTER ROLE clerk SUPERUSER;\n",
    "a name": b"alter  database other owner to clerk;\n",
}


@pytest.mark.engine
def test_planted_dumps_are_refused_with_a_sentence_and_nothing_is_touched(
    shop: ShopWithDumps, tmp_path: Path
) -> None:
    before = shop.everything()
    for name, planted in PLANTED.items():
        path = tmp_path / "planted.sql.gz"
        path.write_bytes(gzip.compress(dump(planted)))
        refused = shop.run("restore", str(path), "--database", "shop", "--confirm", "shop")
        assert refused.returncode == 77, (name, refused.returncode, refused.stderr)
        assert "line 15: " in refused.stderr and "nothing was restored" in refused.stderr, (
            refused.stderr
        )
        assert "restore shop as" not in refused.stderr, "psql got something of it"
    assert shop.everything() == before and not shop.planted()


POWER = b"""CREATE FUNCTION public.f(a text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  %s;
  RETURN true;
END $$;
CREATE TABLE public.u (
    a text,
    CONSTRAINT c CHECK (public.f(a))
);
COPY public.u (a) FROM stdin;
one
\\.
"""


ACTS = (
    "EXECUTE 'ALTER ROLE clerk SUPERUSER'",
    "EXECUTE $x$COPY (SELECT 1) TO PROGRAM 'touch /tmp/planted'$x$",
    "PERFORM pg_read_file('/etc/passwd')",
    "EXECUTE 'RESET SESSION AUTHORIZATION'; EXECUTE 'ALTER SYSTEM SET log_statement = ''all'''",
    "EXECUTE 'RESET SESSION AUTHORIZATION'; EXECUTE 'ALTER ROLE clerk SUPERUSER'",
    "EXECUTE 'ALTER DATABASE other RENAME TO gone'",
)
REFUSED = ("denied", "must be", "cannot be executed", "cannot run inside")


@pytest.mark.thorough
@pytest.mark.engine
def test_a_function_of_a_dump_has_no_more_rights_than_its_own_database_gives(
    shop: ShopWithDumps, tmp_path: Path
) -> None:
    """All are tried in one restore, each caught by itself; the last error names what each met."""
    before = shop.everything()
    path = tmp_path / "power.sql"
    tries = "\n".join(
        f"  BEGIN {act}; met := met || ' [{number}: nothing]';"
        f" EXCEPTION WHEN OTHERS THEN met := met || ' [{number}: ' || SQLERRM || ']'; END;"
        for number, act in enumerate(ACTS)
    )
    body = f"DECLARE met text := ''; BEGIN\n{tries}\n  RAISE 'met%', met; END"
    path.write_bytes(dump(POWER % body.encode()))
    refused = shop.run("restore", str(path), "--database", "shop", "--confirm", "shop")
    assert refused.returncode == 73 and "restore shop as" in refused.stderr, (
        refused.returncode,
        refused.stderr,
    )
    for number, act in enumerate(ACTS):
        _, _, met = refused.stderr.partition(f"[{number}: ")
        assert any(words in met.partition("]")[0] for words in REFUSED), (act, refused.stderr)
    assert shop.everything() == before and not shop.planted()


@pytest.mark.thorough
@pytest.mark.engine
def test_a_setting_that_a_function_of_a_dump_changes_opens_no_way_to_a_shell(
    shop: ShopWithDumps, tmp_path: Path
) -> None:
    before = shop.everything()
    act = b"PERFORM set_config('standard_conforming_strings', 'off', false)"
    path = tmp_path / "setting.sql"
    path.write_bytes(
        dump(POWER % act + b"COMMENT ON TABLE public.u IS '\\';\n\\! touch /tmp/planted\n;--';\n")
    )
    refused = shop.run("restore", str(path), "--database", "shop", "--confirm", "shop")
    assert refused.returncode in (73, 77), (refused.returncode, refused.stderr)
    assert shop.everything() == before and not shop.planted()


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("form", ["plain", "create", "inserts"])
def test_an_ordinary_dump_comes_back_whole_under_the_role_that_owns_it_alone(
    shop: ShopWithDumps, tmp_path: Path, form: str
) -> None:
    before = shop.everything()
    words = {"plain": (), "create": ("--create", "--clean"), "inserts": ("--inserts", "--create")}[
        form
    ]
    path = tmp_path / "shop.sql"
    path.write_bytes(shop.dump("pg_dump", *words))
    shop.psql("DELETE FROM orders WHERE id > 10; DROP VIEW seen")
    done = shop.run("restore", str(path), "--database", "shop", "--confirm", "shop", "--json")
    assert done.returncode == 0, done.stderr
    old = json.loads(done.stdout)["restored"]["database"]["kept_as"]
    shop.psql(f'DROP DATABASE "{old}"', "other")
    if form == "plain":
        shop.psql("COMMENT ON DATABASE shop IS 'it''s the shop''s'")
    assert shop.everything() == before


SLY = """
CREATE FUNCTION sly() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
  IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
    AND pg_catalog.current_setting('application_name') = 'safe-compose'
    AND pg_catalog.current_setting('transaction_read_only') = 'off' THEN
    EXECUTE 'ALTER ROLE clerk SUPERUSER'; END IF;
  RETURN true; END $$;
CREATE FUNCTION kept(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN public.sly() THEN a END';
CREATE DOMAIN odd AS int CHECK (public.sly());
CREATE TABLE sly_ones (a int CHECK (public.sly()), b odd DEFAULT public.kept(1), c int GENERATED ALWAYS AS (public.kept(a)) STORED);
INSERT INTO sly_ones VALUES (1), (2); CREATE INDEX ON sly_ones (public.kept(a));
CREATE TABLE sly_parts (a int) PARTITION BY LIST (public.kept(a)); CREATE TABLE sly_part PARTITION OF sly_parts FOR VALUES IN (1);
INSERT INTO sly_parts VALUES (1); CREATE MATERIALIZED VIEW sly_view AS SELECT public.kept(a) FROM sly_ones;
CREATE RULE sly_rule AS ON INSERT TO sly_ones DO ALSO SELECT public.sly(); CREATE VIEW sly_seen AS SELECT public.sly();
CREATE STATISTICS sly_stats ON (public.kept(a)), c FROM sly_ones;
"""
WATCH = """
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no changes in production'; END $$;
CREATE EVENT TRIGGER watched ON ddl_command_end EXECUTE FUNCTION watch(); COMMENT ON EVENT TRIGGER watched IS 'ours';
"""
WORDED = """
SET app.word = 'x'; ALTER DATABASE shop SET app.word = 'x';
CREATE TABLE worded (a text CHECK (a <> pg_catalog.current_setting('app.word'))); INSERT INTO worded VALUES ('y')
"""
"""What loads only where the settings of the database count."""


@pytest.mark.thorough
@pytest.mark.engine
def test_a_function_in_a_backup_of_ours_has_no_more_rights_and_all_of_it_comes_back(
    shop: ShopWithDumps,
) -> None:
    grant = (
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CREATE ON SCHEMA public TO clerk"
    )
    sets = f"ALTER DATABASE shop SET log_min_messages TO 'warning'; {WORDED}"
    shop.psql(f"{grant}; SET ROLE clerk; {SLY}; RESET ROLE; {sets}; {WATCH}")
    before = shop.everything()
    made = shop.run("backup", "--json")
    assert made.returncode == 0, made.stderr
    done = shop.run("restore", "latest", "--database", "shop", "--confirm", "shop", "--json")
    assert done.returncode == 0, done.stderr
    old = json.loads(done.stdout)["restored"]["database"]["kept_as"]
    shop.psql(f'DROP DATABASE "{old}"', "other")
    try:
        assert shop.psql("SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper") == "shop"
        assert shop.everything() == before and "loaded by the superuser" not in done.stderr
    finally:
        tables, resets = "worded, sly_ones, sly_parts, odd", "ALTER DATABASE shop RESET"
        shop.psql("GRANT CONNECT ON DATABASE postgres TO PUBLIC", "other")
        shop.psql(
            f"DROP EVENT TRIGGER watched; DROP FUNCTION watch; {resets} log_min_messages; {resets}"
            f" app.word; {_drop(tables)}"
        )


def _drop(names: str) -> str:
    *tables, domain = names.split(", ")
    dropped = (
        f"DROP TABLE {', '.join(tables)} CASCADE; DROP DOMAIN {domain}; DROP FUNCTION kept; DROP"
        " FUNCTION sly CASCADE"
    )
    return f"{dropped}; REVOKE CREATE ON SCHEMA public FROM clerk"


NEEDS = [
    b"CREATE FUNCTION public.f(a text, b numeric(1,2)) RETURNS integer\n    LANGUAGE c STRICT\n    AS '$libdir/x', 'f';\n",
    b'CREATE PROCEDURE public."p"()\n    LANGUAGE plpython3u\n    AS $$pass$$;\n',
    b"CREATE FUNCTION public.f(a text) RETURNS TABLE(x integer, y text)\n    LANGUAGE sql IMMUTABLE LEAKPROOF COST 5\n    AS $$SELECT 1, ''$$;\n",
    b"CREATE TYPE public.box;\n",
    b"CREATE TYPE public.box (\n    INTERNALLENGTH = 16,\n    INPUT = public.i,\n    OUTPUT = public.o\n);\n",
    b"CREATE OPERATOR CLASS public.c\n    FOR TYPE integer USING btree AS\n    OPERATOR 1 <(integer,integer);\n",
    b"CREATE CAST (public.a AS text) WITHOUT FUNCTION;\n",
    b"CREATE CAST (character varying AS integer[]) WITH INOUT AS IMPLICIT;\n",
    b"CREATE FUNCTION public.f() RETURNS integer\n    LANGUAGE sql SECURITY DEFINER LEAKPROOF\n    AS $$SELECT 1$$;\n",
    b"CREATE FUNCTION public.f() RETURNS void\n    LANGUAGE plpgsql SECURITY DEFINER COST 5 PARALLEL SAFE\n    SET search_path TO 'a', 'b'\n    SET session_replication_role TO 'replica'\n    AS $$BEGIN END$$;\n",
    b"CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;\n",
    b"CREATE AGGREGATE public.g(integer) (\n    SFUNC = public.s,\n    STYPE = internal\n);\n",
    b"CREATE SERVER far FOREIGN DATA WRAPPER w;\n",
    b"CREATE EXTENSION IF NOT EXISTS dblink WITH SCHEMA public;\n",
    b"CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p;\n",
]  # fmt: skip
LOOKS_LIKE_IT = [
    b"CREATE FUNCTION public.f(language plu.t, leakproof integer, support integer) RETURNS integer\n    LANGUAGE sql\n    AS $$SELECT 1$$;\n",
    b'CREATE FUNCTION public.f(") LANGUAGE c" integer) RETURNS public." LANGUAGE c"\n    LANGUAGE plpgsql\n    AS $$ LANGUAGE c $$;\n',
    b"CREATE FUNCTION public.f(a integer DEFAULT length((' LANGUAGE c'::text || ((')'::text))))) RETURNS integer\n    LANGUAGE sql\n    AS $$SELECT 1$$;\n",
    b"CREATE FUNCTION public.f() RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT 1 FROM public.language plu;\nEND;\n",
    b"CREATE CAST (public.mood AS text) WITH INOUT AS IMPLICIT;\n",
    b"CREATE FUNCTION public.f() RETURNS integer\n    LANGUAGE sql\n    SET search_path TO ' SET log_statement TO '\n    SET \" SET log_statement TO \" TO 'x'\n    AS $$SELECT 1$$;\n",
    b'CREATE CAST (public."x) WITHOUT FUNCTION" AS text) WITH FUNCTION public.f(public."x) WITHOUT FUNCTION");\n',
    b'CREATE AGGREGATE public.g(integer) (\n    SFUNC = public."s STYPE = internal",\n    STYPE = integer\n);\n',
    b"CREATE TYPE public.t AS (\n\tinternallength integer\n);\n",
    b"CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;\n",
    b"SET default_tablespace = fast;\n",
    b"CREATE DATABASE shop;\nALTER DATABASE shop SET log_statement TO 'none';\nALTER DATABASE shop SET plperl.on_init TO 'x';\n",
]  # fmt: skip


@pytest.mark.parametrize("statement", [*NEEDS, *LOOKS_LIKE_IT])
def test_only_what_no_other_role_may_make_has_a_backup_of_ours_loaded_by_the_superuser(
    statement: bytes,
) -> None:
    found = summarize([dump(statement)], own=True)
    assert (found.needs_superuser is not None) is (statement in NEEDS), found.needs_superuser
    assert found.needs_superuser is None or found.needs_superuser.startswith("line 15: CREATE ")


def test_what_a_role_cannot_load_of_a_backup_of_ours_is_the_superusers_to_do() -> None:
    more = (
        b"CREATE DATABASE shop;\nALTER DATABASE shop SET plperl.on_init TO 'x';\n\\connect"
        b" shop\nCREATE SCHEMA stats;\nCREATE EXTENSION IF NOT EXISTS pg_stat_statements WITH"
        b" SCHEMA stats;\nSET default_tablespace = fast;\nCREATE EVENT TRIGGER watched ON"
        b" ddl_command_end\n   EXECUTE FUNCTION public.watch();\nALTER EVENT TRIGGER watched OWNER"
        b" TO shop;\nGRANT ALL ON LANGUAGE plperl TO clerk;\n"
    )
    known, later, how = (
        summarize([dump(more)], own=True),
        io.BytesIO(),
        prepare_loading("key", superuser=False),
    )
    loaded = b"".join(
        extract_database(split_dump([dump(more)]), "new", known, DumpSummary(), later, how=how)
    )
    assert known.tablespaces == (b"fast",) and b"SET default_tablespace = fast;" in loaded
    assert known.before == (
        b"CREATE SCHEMA stats;",
        b"CREATE EXTENSION IF NOT EXISTS pg_stat_statements WITH SCHEMA stats;",
    )
    assert (
        later.getvalue()
        == b"ALTER DATABASE \"new\" SET plperl.on_init TO 'x';\nGRANT ALL ON LANGUAGE plperl TO"
        b" clerk;\n"
    )
    assert [b.split()[0] for b in how.event_triggers()] == [b"CREATE", b"ALTER"]
    assert not any(word in loaded for word in (b"EVENT", b"EXTENSION", b"SCHEMA", b"plperl"))
    assert known.settings == (b"ALTER DATABASE shop SET plperl.on_init TO 'x';",)


@pytest.mark.parametrize("own", [True, False])
def test_all_schemas_are_made_before_the_extensions(own: bool) -> None:
    schemas = b"CREATE SCHEMA tiger;\nCREATE SCHEMA tiger_data;\n"
    extension = b"CREATE EXTENSION IF NOT EXISTS postgis_tiger_geocoder WITH SCHEMA tiger;\n"
    script = dump(schemas + extension + b"CREATE SCHEMA later;\n")
    known = summarize([script], own=own)
    # pg_dump writes some after an extension whose script makes them only where they are missing.
    assert known.before == tuple((schemas + b"CREATE SCHEMA later;\n" + extension).splitlines())
    loaded = b"".join(
        extract_database(split_dump([script]), "new", known, DumpSummary(), io.BytesIO(), "key")
    )
    assert b"CREATE SCHEMA" not in loaded and b"EXTENSION" not in loaded
    whole = b"".join(rename_database([script], "new", DumpSummary(), "key"))
    assert b"CREATE SCHEMA tiger;" in whole and b"CREATE SCHEMA IF NOT EXISTS later;" in whole


def test_what_may_fail_of_a_backup_of_ours_may_fail_as_well_where_the_superuser_does_it() -> None:
    more = (
        b"CREATE DATABASE shop;\nALTER DATABASE shop SET gone TO 'x';\nALTER TABLE public.t OWNER"
        b" TO clerk;\n"
    )
    known, later, how = (
        summarize([dump(more)], own=True),
        io.BytesIO(),
        prepare_loading("key", b"E'app'", superuser=False),
    )
    assert b"gone" not in b"".join(
        extract_database(split_dump([dump(more)]), "new", known, DumpSummary(), later, how=how)
    )
    alone = (
        b"ON_ERROR_STOP off\n\\restrict key\nALTER DATABASE \"new\" SET gone TO 'x';\n\\unrestrict"
        b" key\n"
    )
    assert alone in later.getvalue() and later.getvalue().count(b"ON_ERROR_STOP off") == 1


# -- roles and parts of them -----------------------------------------------------------------------


def test_roles_of_a_file_get_no_power_over_the_server_and_none_of_a_role_that_is_there() -> None:
    script = (
        b"CREATE ROLE evil;\nALTER ROLE evil WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN"
        b" REPLICATION BYPASSRLS PASSWORD 'SUPERUSER';\nGRANT shop TO evil;\nGRANT"
        b" pg_read_server_files TO evil GRANTED BY shop;\nGRANT evil TO clerk;\nALTER ROLE evil"
        b" WITH LOGIN; ALTER SYSTEM SET x = 1;\nCREATE ROLE evil; DROP ROLE clerk;\nALTER ROLE evil"
        b" SET log_statement TO 'none';\n"
    )
    known = frozenset({"shop", "clerk", "pg_read_server_files"})
    made = make_roles_script(script, ["evil"], known, own=False).decode().splitlines()
    powers = (
        "NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS PASSWORD"
        " 'SUPERUSER';"
    )
    once, again = (
        ["CREATE ROLE evil;", f"ALTER ROLE evil WITH {powers}"],
        ["ALTER ROLE evil WITH LOGIN;", "CREATE ROLE evil;"],
    )
    assert made == [*once, "GRANT evil TO clerk;", *again]
    assert "ALTER SYSTEM" not in make_roles_script(script, ["evil"], known).decode()


def test_owners_and_grants_are_the_superusers_to_do_and_nothing_else_is() -> None:
    more = (
        b"ALTER TABLE public.t OWNER TO clerk;\nGRANT SELECT ON TABLE public.t TO clerk;\n"
        b"ALTER TABLE public.t ALTER COLUMN a SET DEFAULT 'x', OWNER TO clerk;\n"
    )
    known, later = summarize([dump(more)]), io.BytesIO()
    loaded = b"".join(
        extract_database(split_dump([dump(more)]), "new", known, DumpSummary(), later, "key")
    )
    assert (
        later.getvalue()
        == b"ALTER TABLE public.t OWNER TO clerk;\nGRANT SELECT ON TABLE public.t TO clerk;\n"
    )
    assert b"SET DEFAULT 'x', OWNER" in loaded and b"GRANT" not in loaded
    assert (
        loaded.startswith(b"\\restrict key\n")
        and loaded.endswith(b"\\unrestrict key\n")
        and b"abc" not in loaded
    )


def test_a_key_is_made_each_time_and_only_for_a_psql_that_is_known_to_know_it() -> None:
    assert new_key((15, 20)) != new_key((15, 20)) and len(str(new_key((18, 0)))) >= 32
    assert new_key((15, 13)) is None and new_key(()) is None and new_key((12, 22)) is None


# -- MySQL and MariaDB -----------------------------------------------------------------------------

MYSQL = b"""/*M!999999\\- enable the sandbox mode */
-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB
-- Host: localhost    Database: shop
-- Server version	10.11.19-MariaDB

/*!40101 SET NAMES utf8mb4 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
%sDROP TABLE IF EXISTS `t`;
CREATE TABLE `t` (
  `a` text DEFAULT 'x;'
) ENGINE=InnoDB;
LOCK TABLES `t` WRITE;
INSERT INTO `t` VALUES
('it\\'s \\\\'),(NULL),(0x00FF),(_binary 'a;'),(-1.5e10);
UNLOCK TABLES;
DELIMITER ;;
/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/
/*!50003 TRIGGER r BEFORE INSERT ON t FOR EACH ROW BEGIN SET NEW.a = ';'; END */;;
DELIMITER ;
-- Dump completed on 2026-11-29 15:00:00
"""
MYSQL_PLANTED = [
    b"\\! sh\n", b"SELECT 1 \\! sh\n;\n", b"system sh\n;\n", b"source /etc/passwd\n;\n",
    b"\\. /etc/passwd\n", b"tee /tmp/x\n;\n", b"pager sh\n;\n",
    b"use other;\n", b"\\u other\n", b"/*!50000 USE `other` */;\n",
    b"/*!99999 ' */ USE `other`; /*!99999 ' */;\n", b"  USE `other`;\n",
    b"USE `a`; DROP TABLE `t`;\n", b"SET GLOBAL general_log_file = '/tmp/x';\n",
    b"SET @@global.event_scheduler = 1;\n",
    b"LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE `t`;\n",
    b"INSERT INTO `t` SELECT 1 INTO OUTFILE '/tmp/x';\n",
    b"INSERT INTO `t` VALUES (LOAD_FILE('/etc/passwd'));\n", b"INSTALL PLUGIN x SONAME 'y';\n",
    b"GRANT ALL ON *.* TO x;\n", b"CREATE USER x;\n", b"SET NAMES gbk;\n",
    b"/*!50003 SET character_set_client = sjis */;\n", b"SET SQL_MODE='NO_BACKSLASH_ESCAPES';\n",
    b"DELIMITER x\n", b"delimiter \\! sh\n", b"DROP TABLE `other`.`t`;\n",
    b"DROP DATABASE `other`;\n", b"ALTER DATABASE `other` CHARACTER SET latin1;\n",
    b"UPDATE mysql.user SET x = 1;\n", b"CREATE TABLE `x` (a int) DATA DIRECTORY='/tmp';\n",
    b"SELECT 1\0;\n", b"CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS ();\n", b"SHUTDOWN;\n",
    b"CREATE FUNCTION f RETURNS STRING SONAME 'x.so';\n",
]  # fmt: skip


@pytest.mark.parametrize("planted", MYSQL_PLANTED)
def test_for_a_mysql_dump_that_does_more_no_command_to_load_it_is_told(planted: bytes) -> None:
    for size in (1, 9, 1 << 20):
        found = dump_file.summarize(blocks(MYSQL % planted, size))
        assert found.fault.startswith("line 8: ") or (planted[:6] == b"USE `a" and found.fault), (
            size,
            found.fault,
        )
        told = found.next_step(Path("d.sql"), zipped=False, container="c", password="P")
        assert "docker exec" not in told and "look at that line" in told


def test_for_an_ordinary_mysql_dump_the_client_is_told_to_take_no_commands() -> None:
    for size in (1, 9, 1 << 20):
        found = dump_file.summarize(blocks(MYSQL % b"", size))
        assert (found.fault, found.whole, found.programs) == ("", True, 1)
    told = found.next_step(Path("d.sql"), zipped=False, container="c", password="P")
    assert (
        told.count("--loose-sandbox --binary-mode") == 2
        and "1 triggers, events and routines" in told
    )


@pytest.mark.parametrize(
    "version", [b"M!999999", b"!999999", None], ids=["as now", "as first", "none"]
)
def test_the_line_of_the_sandbox_is_read_and_reaches_no_client_that_does_not_know_it(
    version: bytes | None, tmp_path: Path
) -> None:
    line = b"/*%b\\- enable the sandbox mode */ \n" % version if version is not None else b""
    text = line + (MYSQL % b"").partition(b"\n")[2]
    found = dump_file.summarize([text])
    assert (found.fault, found.whole, found.databases) == ("", True, ("shop",))
    path = tmp_path / "d.sql"
    path.write_bytes(text)
    told = found.next_step(path, zipped=False, container="c", password="P")
    piped = re.search(r"&& (cat .*?) \| docker exec -i", told)
    assert piped is not None and ("sed" in piped[1]) is bool(line)
    sent = subprocess.run(["sh", "-c", piped[1]], capture_output=True, check=True).stdout
    assert sent == text.removeprefix(line)


# -- files that are something else, and files without measure --------------------------------------


@pytest.mark.parametrize(
    ("data", "words", "code"),
    [
        pytest.param(b"", "is empty", 65, id="empty"),
        pytest.param(gzip.compress(b""), "is empty", 65, id="gzip of nothing"),
        pytest.param(b"REDIS0011\xfa", "a file of Redis", 77, id="RDB"),
        pytest.param(b"*2\r\n$6\r\nSELECT", "append-only", 77, id="AOF"),
        pytest.param(b"\xff\xfe-\x00-\x00", "UTF-16", 77, id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf--", "tail -c +4", 77, id="BOM"),
        pytest.param(b"SQLite format 3\0x", "SQLite", 77, id="SQLite"),
        pytest.param(gzip.compress(gzip.compress(b"x")), "packed twice", 77, id="gzip of gzip"),
        pytest.param(gzip.compress(b"\x28\xb5\x2f\xfd.."), "zstd -d", 77, id="zstd"),
        pytest.param(b"\x1f\x8b..", "cut or damaged", 65, id="damaged gzip"),
        pytest.param(b"\xfd7zXZ\0", "xz -d", 77, id="xz"),
    ],
)  # fmt: skip
def test_a_file_that_is_something_else_is_named(
    tmp_path: Path, data: bytes, words: str, code: int
) -> None:
    path = tmp_path / "x.sql"
    path.write_bytes(data)
    with pytest.raises(SafeComposeError) as fault:
        postgres_dump_file.identify(path)
    assert words in f"{fault.value.message} {fault.value.next_step}" and fault.value.code == code


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.sql")
    with pytest.raises(SafeComposeError, match="is no file"):
        postgres_dump_file.identify(tmp_path / "x.sql")


def test_a_gzip_stream_of_several_members_is_read_and_what_follows_it_is_not_overlooked(
    tmp_path: Path,
) -> None:
    path, whole = tmp_path / "x.sql.gz", dump(b"")
    path.write_bytes(gzip.compress(whole[:100]) + gzip.compress(whole[100:]))
    with postgres_dump_file.opening(postgres_dump_file.identify(path)) as opened:
        assert opened.read() == whole
    path.write_bytes(gzip.compress(whole) + b"DROP TABLE x;")
    with (
        pytest.raises(SafeComposeError) as fault,
        postgres_dump_file.opening(postgres_dump_file.identify(path)) as opened,
    ):
        opened.read()
    assert fault.value.code == 65


def test_a_stream_that_grows_without_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_dump_file, "_SUSPICIOUS_BYTES", 1 << 20)
    path = tmp_path / "x.sql.gz"
    path.write_bytes(gzip.compress(HEAD + b"\n" * (16 << 20)))
    with (
        pytest.raises(SafeComposeError, match="grows to more than") as fault,
        postgres_dump_file.opening(postgres_dump_file.identify(path)) as opened,
    ):
        while opened.read(1 << 20):
            continue
    assert fault.value.code == 77


MIB = 1 << 20
LONG: dict[str, tuple[bytes, bytes, bytes]] = {
    "one row": (b"COPY public.u (a) FROM stdin;\n", b"x" * MIB, b"\n\\.\n"),
    "one string": (b"COMMENT ON TABLE public.t IS '", b"x''" * (MIB // 3), b"';\n"),
    "one body": (
        b"CREATE FUNCTION public.f() RETURNS void LANGUAGE plpgsql AS $_$",
        b"$x$'\n;" * (MIB // 6),
        b"$_$;\n",
    ),
    "one comment": (b"/*", b"x * / " * (MIB // 6), b"*/\n"),
    "many statements": (b"", b"SET row_security = off;\n" * (MIB // 24), b""),
    "many rows": (b"", b"INSERT INTO public.t VALUES ('x', 1);\n" * (MIB // 38), b""),
    "blank lines": (b"", b"\n" * MIB, b""),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", LONG)
def test_time_is_linear_and_memory_small_however_long_a_line_is(name: str) -> None:
    begins, piece, ends = LONG[name]

    def seconds(times: int) -> float:
        scanner, at = PostgresScanner(), time.process_time()
        parts: Iterable[bytes] = (HEAD, begins, *[piece] * times, ends, TABLE, END)
        for part in parts:
            for block in blocks(part, 256 << 10):
                scanner.feed(block)
                assert len(scanner._lexer._data) + scanner._lexer._held_size < 4 * MIB
        scanner.finish()
        return time.process_time() - at

    seconds(1)
    few, many = seconds(2), seconds(8)
    assert many < 8 * max(few, 0.02), (few, many)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "planted",
    [
        b"CREATE VIEW public.v AS SELECT " + b"1, " * (20 * MIB // 3),
        b"-- " + b"x" * (2 * MIB),
        b"\\connect " + b"x" * (2 * MIB),
    ],
)
def test_what_has_no_end_is_refused_before_it_fills_the_memory(planted: bytes) -> None:
    with pytest.raises(BadDump, match=r"line 15: .* has no end"):
        summarize(blocks(dump(planted), 256 << 10))


@pytest.mark.parametrize(("fetched_from", "own"), [(None, True), ("file:///copies", False)])
def test_a_backup_that_was_once_fetched_unsigned_is_loaded_with_no_more_rights_later(
    fetched_from: str | None, own: bool
) -> None:
    dump = Artifact("db/shop.sql.gz", "database", 1, "0" * 64, 1, "db", database="shop")
    record = VolumeRecord(
        "db", "local", {}, {}, "", "critical", "postgres", False, "dump", artifacts=(dump,)
    )
    at = ("20261122T072700Z-3f9a1c", 1, "2026-11-22T07:27:00Z")
    kept = Backup(*at, "shop", "", "E", "manual", (), "", (record,), unsigned_from=fetched_from)
    assert sources.BackupSource.of(cast(Workspace, None), kept, "shop", None).own is own
