"""One database, from a backup or from a dump file, next to the current one and swapped in: whole,
or nothing at all.
"""

import gzip
import itertools
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest

from safe_compose.databases.postgres import dump_file
from safe_compose.databases.postgres.dump_reader import DumpSummary, rename_database, summarize
from safe_compose.databases.postgres.dump_roles import make_roles_script
from safe_compose.databases.postgres.dumpall import extract_pieces, survey
from safe_compose.databases.postgres.restrict import knows_restrict
from safe_compose.databases.sql_lexer import BadDump
from safe_compose.errors import SafeComposeError
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory
from testing.projects import ComposeProject, docker, unique
from testing.terminal import PROGRAM

pytestmark = pytest.mark.long

PASSWORD = "canary-9d27-password"
SHOP = f"""
services:
  db:
    image: postgres:15
    environment: {{POSTGRES_USER: shop, POSTGRES_PASSWORD: {PASSWORD}, POSTGRES_DB: shop}}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck:
      test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop]
      interval: 1s
      retries: 60
  worker:
    image: postgres:15
    environment: {{PGPASSWORD: {PASSWORD}}}
    entrypoint: [psql, -X, -h, db, -U, shop, -d, shop, -c, "SELECT pg_sleep(100000)"]
    init: true
    tmpfs: [/var/lib/postgresql/data]
    depends_on: {{db: {{condition: service_healthy}}}}
volumes:
  data:
"""
ROWS = """
CREATE ROLE clerk LOGIN PASSWORD 'clerk-pass'; CREATE ROLE gone LOGIN PASSWORD 'gone-pass' ROLE clerk;
CREATE TABLE orders (id serial PRIMARY KEY, what text); ALTER TABLE orders OWNER TO clerk;
INSERT INTO orders (what) SELECT 'order ' || g FROM generate_series(1, 3000) g;
CREATE TABLE "odd ""one" (t text); INSERT INTO "odd ""one" VALUES (E'\\\\.'), (E'COPY x FROM stdin;\\nDROP DATABASE shop;');
ALTER TABLE "odd ""one" OWNER TO gone; SELECT lo_from_bytea(0, 'a large one');
CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_$
SELECT 'DROP TABLE orders;
\\\\connect template1
' $_$;
GRANT CONNECT ON DATABASE shop TO clerk; ALTER DATABASE shop SET search_path TO public, pg_catalog;
COMMENT ON DATABASE shop IS 'the shop''s own'; CREATE DATABASE other;
"""
STATE = """
SELECT count(*), md5(string_agg(id || what, ',' ORDER BY id)) FROM orders;
SELECT string_agg(t, '|' ORDER BY t) FROM "odd ""one"; SELECT count(*) FROM pg_largeobject_metadata; SELECT f();
SELECT tablename || ' ' || tableowner FROM pg_tables WHERE schemaname = 'public' ORDER BY 1;
SELECT datname, pg_get_userbyid(datdba), (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(datacl) a),
  shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'shop';
SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'shop';
SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1;
"""


@dataclass(frozen=True)
class ShopDatabase:
    project: ComposeProject
    home: Path

    def psql(self, query: str, database: str = "shop") -> str:
        return self.project.psql(query, user="shop", database=database)

    def state(self) -> str:
        return self.psql(STATE)

    def databases(self) -> list[str]:
        return self.psql(
            "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1", "postgres"
        ).split()

    def started(self, service: str) -> str:
        return docker(
            "inspect", f"{self.project.name}-{service}-1", "--format", "{{.State.StartedAt}}"
        ).stdout

    def last_step(self) -> str:
        """Of the newest run in the journal."""
        newest = max(
            (self.home / "journal").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns
        )
        return str(json.loads(newest.read_text().splitlines()[-1])["step"])

    def tidy(self) -> None:
        """Drop what restores kept, so that the next test finds the shop as it was."""
        for name in self.databases():
            if name not in ("other", "postgres", "shop"):
                self.psql(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")

    def run(
        self, *words: str, env: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [PROGRAM, *words], cwd=self.project.folder, env={**os.environ,
             "SAFE_COMPOSE_HOME": str(self.home), **(env or {})},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
            timeout=300,
        )  # fmt: skip

    def good(self, *words: str) -> "subprocess.CompletedProcess[str]":
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        assert (
            PASSWORD not in done.stdout + done.stderr and "SCRAM" not in done.stdout + done.stderr
        )
        return done


@pytest.fixture(scope="module")
def shop(
    module_compose_project: ProjectFactory, tmp_path_factory: pytest.TempPathFactory
) -> ShopDatabase:
    """A living shop with a worker that is connected to it, and a backup."""
    made = ShopDatabase(
        module_compose_project(SHOP), tmp_path_factory.mktemp("store") / "safe-compose"
    )
    made.project.up("db")
    made.psql(ROWS)
    made.project.up()
    made.good("backup")
    return made


@pytest.mark.thorough
@pytest.mark.engine
def test_one_database_of_a_backup_takes_the_place_of_the_living_one(shop: ShopDatabase) -> None:
    before, served = shop.state(), shop.started("db")
    shop.psql(
        'DELETE FROM orders WHERE id > 10; DROP TABLE "odd ""one"; CREATE TABLE later (n int); DROP'
        " OWNED BY gone"
    )
    shop.psql("DROP ROLE gone; CREATE TABLE kept AS SELECT 1 AS n", "other")
    shop.psql("REVOKE CONNECT ON DATABASE shop FROM clerk; ALTER DATABASE shop RESET search_path")
    words = ("restore", "latest", "--database", "shop")
    shown = json.loads(shop.good(*words, "--dry-run", "--json").stdout)["restored"]
    assert shown["stops"] == [f"{shop.project.name}-worker-1"] and shown["phrase"] == "shop"
    assert shown["database"]["roles"] == ["gone"]
    for more in (("--non-interactive",), ("--confirm", shop.project.name)):
        refused = shop.run(*words, *more)
        assert refused.returncode == 77 and "--confirm 'shop'" in refused.stderr, refused.stderr
    assert shop.databases() == ["other", "postgres", "shop"]

    stranger = unique("stranger")
    network = f"{shop.project.name}_default"
    docker(
        "run", "-d", "--init", "--name", stranger, "--network", network, "-e",
        f"PGPASSWORD={PASSWORD}", "--entrypoint", "psql", "--tmpfs", "/var/lib/postgresql/data",
        "postgres:15", "-Xh", "db", "-U", "shop", "-c", "SELECT pg_sleep(100000)",
    )  # fmt: skip
    try:
        shop.psql("DO $$ BEGIN WHILE (SELECT count(*) < 2 FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep') LOOP "
                  "PERFORM pg_sleep(0.05); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$")  # fmt: skip
        busy = shop.run(*words, "--confirm", "shop")
        assert busy.returncode == 75 and stranger in busy.stderr, busy.stderr
    finally:
        docker("rm", "-f", stranger)
        shop.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep' "
                  "ORDER BY backend_start DESC LIMIT 1")  # fmt: skip  # the server does not notice that its client has gone
    assert shop.psql("SELECT count(*) FROM orders") == "10"

    worked = shop.started("worker")
    done = json.loads(shop.good(*words, "--confirm", "shop", "--json").stdout)["restored"]
    [row] = done["statistics"]
    assert row["before"] == {"tables": 2, "rows": 10} and row["backup"] == row["now"] == {
        "tables": 2,
        "rows": 3002,
    }
    assert done["login"] == "works" and shop.state() == before
    assert shop.started("db") == served and shop.started("worker") != worked
    assert shop.project.running() == [f"{shop.project.name}-{s}-1" for s in ("db", "worker")]
    assert shop.psql("SELECT count(*) FROM pg_stats WHERE tablename = 'orders'") != "0", (
        "no ANALYZE"
    )
    old = done["database"]["kept_as"]
    assert (
        shop.databases() == sorted(["other", "postgres", "shop", old])
        and shop.psql("SELECT n FROM kept", "other") == "1"
    )
    assert (
        shop.psql("SELECT count(*) FROM orders", old) == "10"
        and shop.psql("SELECT count(*) FROM later", old) == "0"
    )
    assert "gone" in shop.psql(
        "SELECT rolpassword ~ '^SCRAM', rolname FROM pg_authid WHERE rolname = 'gone'"
    )
    shop.tidy()


@pytest.mark.thorough
@pytest.mark.engine
def test_a_kill_at_any_step_leaves_the_living_one_or_the_new_one_and_the_next_run_ends_it(
    shop: ShopDatabase,
) -> None:
    before, names = shop.state(), shop.databases()
    running = [f"{shop.project.name}-{service}-1" for service in ("db", "worker")]
    words = ("restore", "latest", "--database", "shop", "--confirm", "shop")
    steps: list[str] = []
    swaps = 0
    open_run = False  # then the next run begins with a line in that one's journal
    for at in itertools.count(1):
        shop.psql("COMMENT ON TABLE orders IS 'the living ones'")
        killed = shop.run(
            *words, env=dict(failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=at + open_run))
        )
        if killed.returncode == 0:
            break
        steps.append(shop.last_step())
        assert killed.returncode == -9, (steps, killed.stderr)
        swapped = shop.psql("SELECT obj_description('orders'::regclass) IS NULL") == "t"
        assert swapped == (not {"swapped", "restored"}.isdisjoint(steps)), steps
        swaps += swapped
        open_run = steps[-1] not in ("stopped", "swapped", "ended")
        if steps[-1] in ("stopped", "swapped"):  # else the next run does what `recover` does
            told = shop.good("recover").stdout
            assert ("was restored whole" if swapped else "is as it was") in told, (steps, told)
            assert shop.project.running() == running, steps
            assert shop.state() == before and len(shop.databases()) == len(names) + swaps, steps
            assert shop.good("recover").stdout == "nothing to recover\n"
    assert steps.count("beside") == 2  # the loader's role is journaled before it is made
    assert len(set(steps)) == len(steps) - 1 and {
        "beside",
        "loaded",
        "stopped",
        "swapping",
        "swapped",
        "ended",
    } <= set(steps)
    assert (
        shop.state() == before
        and len(shop.databases()) == len(names) + swaps + 1
        and shop.project.running() == running
    )
    shop.tidy()


# -- dumps that anybody made -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def dumps(shop: ShopDatabase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dumps of the shop as scripts make them."""
    folder = tmp_path_factory.mktemp("dumps")
    for name, *flags in (("plain.sql",), ("made.sql", "--create", "--clean"), ("shop.dump", "-Fc")):
        words = [
            "docker",
            "exec",
            f"{shop.project.name}-db-1",
            "pg_dump",
            "-U",
            "shop",
            *flags,
            "-d",
            "shop",
        ]
        made = subprocess.run(words, capture_output=True, check=True)
        (folder / name).write_bytes(made.stdout)
    (folder / "made.sql.gz").write_bytes(gzip.compress((folder / "made.sql").read_bytes()))
    return folder


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("name", ["plain.sql", "made.sql.gz", "shop.dump"])
def test_a_dump_that_anybody_made_goes_the_same_way(
    shop: ShopDatabase, dumps: Path, name: str
) -> None:
    before = shop.state()
    shop.psql("DELETE FROM orders")
    if name == "shop.dump":
        shop.psql("DROP OWNED BY gone; DROP ROLE gone")
    answer = shop.good(
        "restore", str(dumps / name), "--database", "shop", "--confirm", "shop", "--json"
    )
    assert (
        "PostgreSQL 15." in answer.stderr
        and "2 tables, 3,002 rows, 1 large object" in answer.stderr
    )
    done = json.loads(answer.stdout)["restored"]
    assert done["file"] == str(dumps / name) and done["statistics"][0]["now"] == {
        "tables": 2,
        "rows": 3002,
    }
    now = shop.state()
    if name == "shop.dump":  # a role that only its name is known of comes without a login
        assert "gone|f" in now
        shop.psql("ALTER ROLE gone LOGIN PASSWORD 'gone-pass'")
        now = shop.state()
    if name == "plain.sql":
        shop.psql("COMMENT ON DATABASE shop IS 'the shop''s own'")  # no part of such a dump
        now = shop.state()
    assert now == before
    shop.tidy()


@pytest.mark.thorough
@pytest.mark.engine
def test_one_database_comes_out_of_a_dump_of_the_whole_server_with_the_roles_that_it_needs(
    shop: ShopDatabase, dumps: Path
) -> None:
    before = shop.state()
    words = [
        "docker",
        "exec",
        f"{shop.project.name}-db-1",
        "pg_dumpall",
        "-U",
        "shop",
        "--clean",
        "--if-exists",
    ]
    made = subprocess.run(words, capture_output=True, check=True).stdout
    (dumps / "all.sql.gz").write_bytes(gzip.compress(made))
    (dumps / "cut.sql").write_bytes(
        made[: made.rindex(b"-- PostgreSQL database cluster dump complete")]
    )
    shop.psql(
        "DELETE FROM orders; DROP OWNED BY gone; DROP ROLE gone; CREATE TABLE kept AS SELECT 1 AS n"
    )
    shop.psql("CREATE TABLE IF NOT EXISTS here AS SELECT 1 AS n", "other")
    asked = shop.run("restore", str(dumps / "all.sql.gz"))
    assert (
        asked.returncode == 64
        and "a dump of a whole server (pg_dumpall), PostgreSQL 15." in asked.stderr
    ), asked.stderr
    assert (
        "other (" in asked.stderr
        and "shop (3,002 rows)" in asked.stderr
        and "--database NAME" in asked.stderr
    )
    cut = shop.run("restore", str(dumps / "cut.sql"), "--database", "shop", "--confirm", "shop")
    assert cut.returncode == 65 and "cut.sql" in cut.stderr, cut.stderr
    assert shop.psql("SELECT n FROM kept") == "1"
    shop.good("restore", str(dumps / "all.sql.gz"), "--database", "shop", "--confirm", "shop")
    assert shop.state() == before and shop.psql("SELECT n FROM here", "other") == "1"
    assert shop.psql("SELECT rolpassword ~ '^SCRAM' FROM pg_authid WHERE rolname = 'gone'") == "t"
    shop.psql("DROP TABLE here", "other")
    shop.tidy()


@pytest.mark.thorough
@pytest.mark.engine
def test_a_dump_or_a_backup_goes_into_a_scratch_database_for_a_look_and_nothing_stops(
    shop: ShopDatabase, dumps: Path
) -> None:
    before, names, worked = shop.state(), shop.databases(), shop.started("worker")
    volume = f"{shop.project.name}_data"
    for words in ((str(dumps / "plain.sql"), "--volume", volume), ("latest", "--database", "shop")):
        answer = shop.good("restore", *words, "--into", "scratch", "--json")
        done = json.loads(answer.stdout)["restored"]["database"]
        assert done["name"].startswith("scratch_") and done["kept_as"] is None
        assert shop.psql("SELECT count(*) FROM orders", done["name"]) == "3000"
        [drop] = [line for line in answer.stderr.splitlines() if "DROP DATABASE" in line]
        subprocess.run(
            ["sh", "-c", drop.split(":")[-1].replace(" -it ", " ")], check=True, capture_output=True
        )
    assert (shop.state(), shop.databases(), shop.started("worker")) == (before, names, worked)
    nowhere = shop.run(
        "restore", str(dumps / "plain.sql"), "--into", unique("nothing"), "--database", "shop"
    )
    assert nowhere.returncode == 64 and "which PostgreSQL shall get it" in nowhere.stderr
    into = shop.run(
        "restore", str(dumps / "plain.sql"), "--into", volume, "--database", "shop", "--dry-run"
    )
    assert into.returncode == 0 and f"volume {volume}" in into.stdout, into.stderr


@pytest.mark.thorough
@pytest.mark.engine
def test_one_database_of_an_encrypted_copy_elsewhere_comes_back_with_the_key_alone(
    shop: ShopDatabase, tmp_path: Path
) -> None:
    before = shop.state()
    place, key = tmp_path / "place", pyrage.x25519.Identity.generate()
    settings = tmp_path / "config" / "safe-compose" / "config.toml"
    place.mkdir()
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[encrypt]\nrecipients = ["{key.to_public()}"]\n')
    (tmp_path / "key").write_text(f"{key}\n")
    for words in (("backup",), ("offsite", "push", "latest", "--to", f"file://{place}")):
        done = shop.run(*words, env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
        assert done.returncode == 0, done.stderr
    shop.psql("DELETE FROM orders WHERE id > 10")
    lost = {"SAFE_COMPOSE_HOME": str(tmp_path / "another store")}
    words = (
        "restore",
        "latest",
        "--from",
        f"file://{place}",
        "--database",
        "shop",
        "--confirm",
        "shop",
    )
    refused = shop.run(*words, env=lost)
    assert refused.returncode == 64 and "--identity FILE" in refused.stderr, refused.stderr
    assert shop.psql("SELECT count(*) FROM orders") == "10"
    restored = shop.run(*words, "--identity", str(tmp_path / "key"), env=lost)
    assert restored.returncode == 0, restored.stderr
    assert shop.state() == before
    # nobody signed it: its SQL needs a person also where nothing is replaced, and once more when it
    # is in the store
    shop.psql("DROP DATABASE shop WITH (FORCE)", "postgres")
    key_file = ("--identity", str(tmp_path / "key"))
    [kept] = json.loads(shop.run("list", "--json", env=lost).stdout)["backups"]
    for some in (words[:-2], ("restore", kept["id"], "--database", "shop")):
        refused = shop.run(*some, *key_file, "--non-interactive", env=lost)
        assert refused.returncode == 77 and "nobody vouches for the SQL" in refused.stderr, (
            refused.stderr
        )
        assert "shop" not in shop.databases()
    restored = shop.run(
        "restore", kept["id"], "--database", "shop", "--confirm", "shop", *key_file, env=lost
    )
    assert restored.returncode == 0, restored.stderr
    assert shop.state() == before
    shop.tidy()


def altered(folder: Path) -> dict[str, bytes]:
    """Good dumps with one thing wrong in each."""
    plain = (folder / "plain.sql").read_bytes()
    cut = plain[: plain.index(b"order 1500")].rpartition(b"\n")[0] + b"\n"
    return {
        "cut.sql.gz": gzip.compress(cut),
        "cut.dump": (folder / "shop.dump").read_bytes()[:-2000],
        "extension.sql": plain.replace(
            b"\nCREATE FUNCTION", b"\nCREATE EXTENSION IF NOT EXISTS vectors;\nCREATE FUNCTION", 1
        ),
        "broken.sql": (
            plain.replace(b"OWNER TO gone", b"OWNER TO ghost").replace(
                b"CREATE TABLE", b"CREATE TABEL", 1
            )
        ),
        "newer.sql": plain.replace(
            b"-- Dumped from database version 15", b"-- Dumped from database version 18", 1
        ),
    }


@pytest.mark.engine
def test_what_cannot_be_restored_is_refused_with_the_reason_and_the_living_one_is_not_touched(
    shop: ShopDatabase, dumps: Path, tmp_path: Path
) -> None:
    reasons = {
        "cut.sql.gz": (65, "ends within the rows of public.orders"), "cut.dump": (65,
         "end of file"),
        "extension.sql": (77, "no extension vectors"), "broken.sql": (73, "syntax error"),
        "newer.sql": (77, "from PostgreSQL 18"),
    }  # fmt: skip
    before, names, worked = shop.state(), shop.databases(), shop.started("worker")
    for name, data in altered(dumps).items():
        path, (code, words) = tmp_path / name, reasons[name]
        path.write_bytes(data)
        refused = shop.run("restore", str(path), "--database", "shop", "--confirm", "shop")
        assert refused.returncode == code and words in refused.stderr, (
            name,
            refused.returncode,
            refused.stderr,
        )
        loaded = "restore shop as" in refused.stderr and "are made: ghost" in refused.stderr
        assert loaded == (name == "broken.sql"), "psql got something of it"
    assert (shop.state(), shop.databases(), shop.started("worker")) == (before, names, worked)
    nameless = shop.run("restore", str(dumps / "plain.sql"), "--confirm", "shop")
    assert nameless.returncode == 64 and "add --database NAME" in nameless.stderr


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x28\xb5\x2f\xfd..", "zstd -d"),
        (b"\x1f\x8b..", "cut or damaged"), (None, "No such file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_dump_is_named(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "x.sql"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SafeComposeError) as fault:
        dump_file.identify(path)
    assert words in f"{fault.value.message} {fault.value.next_step}"


def blocks(dump: bytes, size: int) -> list[bytes]:
    return [dump[at : at + size] for at in range(0, len(dump), size)]


DUMP = rb'''--
-- PostgreSQL database dump
--
\restrict abc
-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.20
DROP DATABASE "the ""shop""";
CREATE DATABASE "the ""shop""" WITH TEMPLATE = template0 ENCODING = 'UTF8';
ALTER DATABASE "the ""shop""" OWNER TO clerk;
\unrestrict abc
\encoding SQL_ASCII
\connect -reuse-previous=on "dbname='the ""shop""'"
\restrict abc
ALTER ROLE clerk IN DATABASE "the ""shop""" SET work_mem TO '8MB';
CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;
DROP TABLE IF EXISTS public.t;
CREATE FUNCTION public.f() RETURNS void LANGUAGE plpgsql AS $$
DROP DATABASE "the ""shop""";
\connect elsewhere
$$;
COPY public.t (a, b) FROM stdin;
DROP DATABASE "the ""shop""";
\connect x
\.
COPY public.u (a) FROM stdin;
\.
GRANT CONNECT ON DATABASE "the ""shop""" TO "Some One" WITH GRANT OPTION;
REVOKE ALL ON TABLE public.t FROM PUBLIC;
--
-- PostgreSQL database dump complete
--

\unrestrict abc
'''


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_a_dump_tells_of_itself_and_goes_under_another_name_wherever_its_blocks_are_cut(
    size: int,
) -> None:
    found = summarize(blocks(DUMP, size))
    assert (found.server, found.client, found.database, found.restricted) == (
        "15.18",
        "15.20",
        'the "shop"',
        True,
    )
    assert (found.extensions, found.roles) == (("citext",), ("Some One", "clerk"))
    assert dict(found.tables()) == {("public", "t"): 2, ("public", "u"): 0} and found.size == len(
        DUMP
    )
    lines = b"".join(rename_database(blocks(DUMP, size), "shop_new", DumpSummary())).split(b"\n")
    was = DUMP.split(b"\n")
    changed = {number: line for number, line in enumerate(lines) if line != was[number]}
    assert len(lines) == len(was) and sorted(changed) == [3, 6, 7, 8, 9, 10, 11, 12, 13, 15, 26, 32]
    assert (
        changed[6].startswith(b"-- ")
        and changed[15].startswith(b"-- ")
        and changed[11] == b"\\connect shop_new"
    )
    assert all(b'DATABASE "shop_new" ' in changed[n] for n in (7, 8, 13, 26))
    assert (
        changed[12] == b"SET default_transaction_read_only = off;"
    )  # whatever the database is set to
    assert not any(changed[n] for n in (3, 9, 10, 32)), (
        "psql is asked for more than the way into the new database"
    )
    restricted = b"".join(
        rename_database(blocks(DUMP, size), "shop_new", DumpSummary(), "ourkey")
    ).split(b"\n")
    asked = [
        line
        for line in restricted
        if line.startswith(b"\\") and line not in (b"\\connect x", b"\\.")
    ]
    assert restricted[0] == asked[0] and asked == [
        b"\\restrict ourkey", b"\\unrestrict ourkey", b"\\connect shop_new", b"\\restrict ourkey",
        b"\\connect elsewhere", b"\\unrestrict ourkey",
    ]  # fmt: skip


SECOND = (
    DUMP.replace(b'"the ""shop"""', b"second")
    .replace(b'dbname=\'the ""shop""\'', b"dbname='second'")
    .replace(b"$$;\n", b'--\n-- Database "third" dump\n--\n$$;\n', 1)
)
WHOLE = b"".join(
    [
        b"--\n-- PostgreSQL database cluster dump\n--\n\n\\restrict abc\nDROP DATABASE second;\nCREATE ROLE clerk;\n",
        b"ALTER ROLE clerk WITH LOGIN PASSWORD 'SCRAM$\n-- Database \"no\" dump\n';\n\\unrestrict abc\n\n",
        b'--\n-- Database "the "shop"" dump\n--\n\n', DUMP,
        b'--\n-- Database "second" dump\n--\n\n', SECOND,
        b"--\n-- PostgreSQL database cluster dump complete\n--\n\n",
    ]
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_a_dump_of_a_whole_server_comes_apart_wherever_its_blocks_are_cut(size: int) -> None:
    found = survey(blocks(WHOLE, size))
    assert (
        sorted(found.databases) == ["second", 'the "shop"']
        and b"CREATE ROLE clerk;\n" in found.globals
    )
    assert [d.database for d in found.databases.values()] == ['the "shop"', "second"]
    assert all(
        d.rows == 2 and d.restricted and d.server == "15.18" for d in found.databases.values()
    )
    dump = [piece.raw for piece in extract_pieces(blocks(WHOLE, size), "second")]
    made = b"".join(rename_database(dump, "second_new", DumpSummary()))
    assert (
        b'CREATE DATABASE "second_new"' in made and b"shop" not in made and b"restrict" not in made
    )


def test_a_dump_of_a_whole_server_that_is_cut_anywhere_is_none() -> None:
    for end in range(0, len(WHOLE) - 20, 11):
        with pytest.raises(BadDump):
            survey(blocks(WHOLE[:end], 50))


def test_a_part_that_cannot_be_restored_by_itself_leaves_the_others_to_be_restored() -> None:
    found = survey(
        blocks(
            WHOLE.replace(b"CREATE EXTENSION", b"ALTER SYSTEM SET x = 1;\nCREATE EXTENSION", 1), 64
        )
    )
    assert (
        list(found.databases) == ["second"]
        and "changes the server itself" in found.others['the "shop"']
    )


@pytest.mark.parametrize("size", [1, 50])
def test_a_dump_that_is_cut_anywhere_is_no_dump(size: int) -> None:
    for end in range(0, len(DUMP) - 20, 11):
        with pytest.raises(BadDump):
            summarize(blocks(DUMP[:end], size))


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        (b"CREATE EXTENSION", b"\\! touch /tmp/x\nCREATE EXTENSION", "asks psql for what no dump needs"),
        (b"CREATE EXTENSION", b"ALTER SYSTEM SET x = 1;\nCREATE EXTENSION", "changes the server itself"),
        (b"CREATE EXTENSION", b"\\connect other\nCREATE EXTENSION", "more than one database"),
        (b"-- PostgreSQL database dump\n", b"-- PostgreSQL database cluster dump\n", "pg_dumpall"),
        (b"dump complete", b"dump", "last line"),
    ],
)  # fmt: skip
def test_a_dump_that_is_more_or_less_than_one_of_one_database_is_refused(
    was: bytes, now: bytes, words: str
) -> None:
    with pytest.raises(BadDump, match=words):
        summarize(blocks(DUMP.replace(was, now, 1), 64))


def test_which_psql_knows_restrict() -> None:
    versions = {
        (15, 13): False,
        (15, 14): True,
        (17, 5): False,
        (17, 6): True,
        (18, 0): True,
        (12, 22): False,
        (): True,
    }
    assert {version: knows_restrict(version) for version in versions} == versions


def test_only_missing_roles_are_made_from_the_globals() -> None:
    script = (
        b"CREATE ROLE shop;\nALTER ROLE shop WITH SUPERUSER PASSWORD 'x';\nCREATE ROLE \"Some"
        b' One";\nALTER ROLE "Some One" WITH LOGIN PASSWORD \'SCRAM\';\nALTER ROLE "Some One" IN'
        b" DATABASE a SET b TO 'c';\nGRANT shop TO \"Some One\" WITH ADMIN OPTION GRANTED BY"
        b' shop;\nGRANT other TO "Some One" GRANTED BY shop;\n'
    )
    made = make_roles_script(script, ["Some One", "else"], frozenset({"shop"})).decode()
    assert made.splitlines() == [
        'CREATE ROLE "else" NOLOGIN;',
        'CREATE ROLE "Some One";',
        "ALTER ROLE \"Some One\" WITH LOGIN PASSWORD 'SCRAM';",
        'GRANT shop TO "Some One" WITH ADMIN OPTION GRANTED BY shop;',
    ]
