"""PostgreSQL as it is really used: major versions, data folders, extensions, physical copies; from
`backup` to `undo`.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, unique
from testing.stacks import JOB, NO_TRIALS

pytestmark = [pytest.mark.engine, pytest.mark.long]

MOUNT = {15: "/var/lib/postgresql/data", 17: "/var/lib/postgresql/data", 18: "/var/lib/postgresql"}
PHYSICAL = '[backup]\nmethod = "physical"\n'
Postgres = Callable[[int], str]


def compose(major: int, *, pgdata: str = "") -> str:
    return f"""
services:
  db:
    image: postgres:{major}
    command: [postgres, -c, max_prepared_transactions=5, -c, wal_level=logical, -c, autovacuum=off]
    environment: {{POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-7e, POSTGRES_DB: shop{f", PGDATA: {pgdata}" if pgdata else ""}}}
    volumes: ["data:{MOUNT[major]}"]
    healthcheck:
      test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop]
      interval: 1s
      retries: 60
volumes:
  data:
"""


# Every kind of object whose data, owner or definition could be left behind.
FILL = r"""
CREATE ROLE clerk LOGIN PASSWORD 'clerk-pass' CONNECTION LIMIT 7 VALID UNTIL '2040-01-01';
CREATE ROLE staff NOLOGIN; GRANT staff TO clerk WITH ADMIN OPTION;
ALTER ROLE clerk SET work_mem = '7MB'; ALTER DATABASE shop SET timezone = 'Asia/Tokyo';
ALTER ROLE clerk IN DATABASE shop SET statement_timeout = '5min';
CREATE EXTENSION hstore; CREATE EXTENSION pg_trgm; CREATE EXTENSION citext;
CREATE COLLATION odd (provider = icu, locale = 'de-u-co-phonebk');
CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN price AS numeric CHECK (VALUE > 0);
CREATE TABLE goods (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name citext COLLATE odd, tags hstore, m mood, p price,
  twice numeric GENERATED ALWAYS AS (p * 2) STORED);
INSERT INTO goods (name, tags, m, p) SELECT 'Äpfel ' || g, hstore('n', g::text), 'happy', g FROM generate_series(1, 1000) g;
CREATE INDEX ON goods USING gin ((name::text) gin_trgm_ops);
CREATE SEQUENCE numbers START 40 INCREMENT 3; SELECT nextval('numbers'), nextval('numbers');
CREATE TABLE days (d date, n int) PARTITION BY RANGE (d);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE days_rest PARTITION OF days DEFAULT; INSERT INTO days VALUES ('2026-01-05', 1), ('2027-01-01', 2);
CREATE TABLE parent (x int); CREATE TABLE child (y int) INHERITS (parent); INSERT INTO child VALUES (1, 2);
CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 50) AS n;
CREATE TABLE private (who text, what text); INSERT INTO private VALUES ('clerk', 'a'), ('boss', 'b');
ALTER TABLE private OWNER TO clerk; ALTER TABLE private ENABLE ROW LEVEL SECURITY; ALTER TABLE private FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON private USING (who = current_user);
CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'ddl'; END $$;
CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION note();
CREATE PUBLICATION all_goods FOR TABLE goods;
CREATE SUBSCRIPTION elsewhere CONNECTION 'host=127.0.0.1 port=1 dbname=none' PUBLICATION p
  WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false);
SELECT lo_from_bytea(4711, '\x00ff274a');
CREATE DATABASE closed; ALTER DATABASE closed ALLOW_CONNECTIONS false;
CREATE DATABASE "posix one" TEMPLATE template0 LOCALE 'C' ENCODING 'LATIN1' OWNER clerk;
"""

LOOK = r"""
SELECT 'goods', count(*), md5(string_agg(g::text, ',' ORDER BY id)) FROM goods g;
SELECT 'next', nextval('numbers') - 1 + 1 > 43, pg_get_serial_sequence('goods', 'id');
SELECT 'days', tableoid::regclass, n FROM days ORDER BY n;
SELECT 'child', x, y FROM child; SELECT 'passing', relpersistence FROM pg_class WHERE relname = 'passing';
SELECT 'private', who, (SELECT relforcerowsecurity FROM pg_class WHERE relname = 'private') FROM private ORDER BY who;
SELECT 'policy', polname FROM pg_policy; SELECT 'trigger', evtname, evtenabled FROM pg_event_trigger;
SELECT 'publication', pubname FROM pg_publication; SELECT 'subscription', subname, subenabled FROM pg_subscription;
SELECT 'large', loid, data FROM pg_largeobject ORDER BY 2, pageno;
SELECT 'extension', extname FROM pg_extension ORDER BY 2;
SELECT 'role', rolname, rolconnlimit, rolvaliduntil, md5(rolpassword) FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 2;
SELECT 'member', roleid::regrole, member::regrole, admin_option FROM pg_auth_members WHERE roleid >= 16384 ORDER BY 2;
SELECT 'setting', COALESCE(datname, '-'), setrole::regrole, setconfig FROM pg_db_role_setting LEFT JOIN pg_database d
  ON d.oid = setdatabase ORDER BY 2, 3::text;
SELECT 'database', datname, pg_encoding_to_char(encoding), datcollate, pg_get_userbyid(datdba) FROM pg_database
  WHERE NOT datistemplate AND datname <> 'closed' ORDER BY 2;
SELECT 'owner', relname, pg_get_userbyid(relowner) FROM pg_class
  WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 2;
"""


def psql(project: ComposeProject, query: str) -> str:
    return project.psql(query, user="shop", database="shop")


def good(answer: Any) -> Any:
    assert answer.returncode == 0, answer.stderr
    return answer


def shown(safe_compose: SafeCompose, backup: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(good(safe_compose("show", backup, "--json")).stdout)[
        "details"
    ]
    return found


def newest(safe_compose: SafeCompose) -> dict[str, Any]:
    listed: list[dict[str, Any]] = json.loads(good(safe_compose("list", "--json")).stdout)[
        "backups"
    ]
    return max(listed, key=lambda b: int(b["seq"]))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("major", "pgdata"), [(15, "/var/lib/postgresql/data/deep/pgdata"), (18, "")]
)
def test_all_that_a_server_holds_survives_a_physical_copy_and_a_guarded_deletion(
    major: int,
    pgdata: str,
    postgres_image: Postgres,
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
) -> None:
    postgres_image(major)
    shop = compose_project(compose(major, pgdata=pgdata), files={"safe-compose.toml": PHYSICAL})
    shop.up()
    psql(shop, FILL)
    before = psql(shop, LOOK)
    folders = _folders(shop, major)

    made = good(safe_compose("backup", "--json", cwd=shop.folder))
    kept = json.loads(made.stdout)["backup"]
    assert kept["verified"]["level"] == "L3"
    [volume] = shown(safe_compose, kept["id"])["volumes"]
    assert (volume["method"], volume["dump_older_than_archive"]) == ("physical", False)
    assert [a["kind"] for a in volume["artifacts"]] == ["base"]
    assert volume["artifacts"][0]["detail"]["by"] == "side container"
    lacks = "empty in a physical copy, as after a crash: shop: public.passing"
    assert lacks in made.stderr and lacks in " ".join(volume["notes"])
    tried = good(safe_compose("verify", "--trial", kept["id"], "--json", cwd=shop.folder))
    assert '"L4"' in tried.stdout, tried.stdout

    psql(shop, "BEGIN; INSERT INTO parent VALUES (9); PREPARE TRANSACTION 'half';")
    gone = good(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    assert "(L4)" in gone.stderr and shop.volumes() == []
    [volume] = shown(safe_compose, newest(safe_compose)["id"])["volumes"]
    assert volume["method"] == "dump+cold"
    notes = " ".join(volume["notes"])
    assert "1 prepared transactions are in no dump" in notes and "closed" in notes
    back = good(safe_compose("undo", cwd=shop.folder))
    assert "from its archive" in back.stderr
    assert psql(shop, LOOK) == before and _folders(shop, major) == folders
    assert psql(shop, "SELECT count(*) FROM passing") == "50"
    assert psql(shop, "ROLLBACK PREPARED 'half'; SELECT count(*) FROM ONLY parent") == "0"

    shop.docker("compose", "down", "-v")
    back = good(safe_compose("restore", kept["id"], cwd=shop.folder))
    assert "is back, from its physical copy" in back.stderr
    shop.up()
    assert psql(shop, LOOK) == before and _folders(shop, major) == folders


@pytest.mark.thorough
def test_a_dump_that_lacks_a_database_which_takes_no_connections_is_partial(
    postgres_image: Postgres, compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    postgres_image(15)
    shop = compose_project(compose(15), files=NO_TRIALS)
    shop.up()
    for statement in ("CREATE DATABASE closed", "CREATE DATABASE blank IS_TEMPLATE true"):
        psql(shop, statement)
    psql(shop, "ALTER DATABASE closed ALLOW_CONNECTIONS false")
    made = safe_compose("backup", cwd=shop.folder)
    assert made.returncode == 73, made.stderr
    assert "partial: it lacks database closed of volume" in made.stderr
    assert "ALLOW_CONNECTIONS true" in made.stderr and "blank of volume" not in made.stderr
    kept = newest(safe_compose)
    assert kept["verified"] and kept["lacking"] == [
        f"database closed of volume {shop.volumes()[0]}"
    ]
    psql(shop, "ALTER DATABASE closed ALLOW_CONNECTIONS true")
    good(safe_compose("backup", cwd=shop.folder))


def _folders(project: ComposeProject, major: int) -> str:
    """Owner and mode of every folder from the mount down to the data."""
    argv = ("find", MOUNT[major], "-maxdepth", "3", "-type", "d", "-printf", r"%p %U %G %m\n")
    said = project.exec("db", *argv)
    return "\n".join(sorted(line for line in said.splitlines() if "/base/" not in line))


@pytest.mark.thorough
def test_a_dump_follows_its_service_to_newer_servers_and_never_to_older_ones(
    postgres_image: Postgres, compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    """The story of a major upgrade: `down -v`, because the new server does not start on the old
    files.
    """
    for major in (17, 18):
        postgres_image(major)
    shop = compose_project(compose(15), files=NO_TRIALS)
    shop.up()
    psql(
        shop,
        FILL.split("CREATE EXTENSION")[0]
        + "CREATE TABLE t AS SELECT g FROM generate_series(1, 500) g; ALTER TABLE t OWNER TO clerk",
    )
    look = (
        "SELECT count(*), sum(g), (SELECT tableowner FROM pg_tables WHERE tablename = 't') FROM t;"
    )
    look += "SELECT rolname, md5(rolpassword) FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1"
    before = psql(shop, look)

    good(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    define(shop, 17)
    back = good(safe_compose("undo", cwd=shop.folder))
    assert "made again, from its dump, because postgres:17 serves it now" in back.stderr
    assert psql(shop, "SHOW server_version").startswith("17") and psql(shop, look) == before

    good(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    define(shop, 18)
    shop.up()
    psql(shop, "CREATE TABLE fresh (x int)")
    back = good(safe_compose("undo", "--confirm", shop.name, cwd=shop.folder))
    assert "replaced from its dump, because postgres:18 serves it now" in back.stderr
    stays = "whatever else was in the volume stays in the archive: safe-compose restore "
    assert back.stderr.count(stays) == 1, "told once, before anything is replaced"
    assert back.stderr.index(stays) < back.stderr.index("the volume is back")
    assert psql(shop, "SHOW server_version").startswith("18") and psql(shop, look) == before

    good(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    define(shop, 15)
    refused = safe_compose("undo", cwd=shop.folder)
    assert (
        refused.returncode == 77
        and "an older server reads neither its files nor its dump" in refused.stderr
    )
    assert "give the service an image of PostgreSQL 18" in refused.stderr and shop.volumes() == []
    define(shop, 18)
    good(safe_compose("undo", cwd=shop.folder))
    assert psql(shop, look) == before


def define(project: ComposeProject, major: int) -> None:
    (project.folder / "compose.yaml").write_text(compose(major), "utf-8")


@pytest.mark.thorough
def test_a_server_that_crashed_is_dumped_from_a_copy_and_follows_to_a_newer_image(
    postgres_image: Postgres, compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    postgres_image(17)
    shop = compose_project(compose(15))
    shop.up()
    psql(
        shop,
        "CREATE TABLE t AS SELECT g FROM generate_series(1, 500) g; CREATE ROLE clerk; ALTER TABLE"
        " t OWNER TO clerk",
    )
    look = (
        "SELECT count(*), sum(g), (SELECT tableowner FROM pg_tables WHERE tablename = 't') FROM t"
    )
    before = psql(shop, look)
    psql(
        shop, "BEGIN; INSERT INTO t VALUES (-1); PREPARE TRANSACTION 'waits'"
    )  # no server without space for it starts
    shop.docker("compose", "kill", "db")
    shop.docker("compose", "rm", "-f")
    gone = good(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    assert shop.volumes() == [] and "(L4)" in gone.stderr
    [volume] = shown(safe_compose, newest(safe_compose)["id"])["volumes"]
    assert volume["method"] == "dump+cold"
    notes = " ".join(volume["notes"])
    assert "control state 'in production'" in notes and "on a copy of the volume" in notes
    assert "1 prepared transactions are in no dump" in gone.stderr + notes
    assert volume["statistics"]["user"] == "shop"
    define(shop, 17)
    back = good(safe_compose("undo", cwd=shop.folder))
    assert "made again, from its dump, because postgres:17 serves it now" in back.stderr
    shop.up()
    assert psql(shop, look) == before


@pytest.mark.thorough
def test_an_orphan_that_no_image_serves_is_archived_cold_and_says_why(
    safe_compose: SafeCompose, lab: None
) -> None:
    name = unique("Test-orphan")
    docker("volume", "create", name)
    try:
        fill = (
            "sh",
            "-c",
            (
                "mkdir -p /v/pgdata/global && echo 9.6 >/v/pgdata/PG_VERSION && echo x"
                " >/v/pgdata/global/pg_control"
            ),
        )
        docker("run", "--rm", "-v", f"{name}:/v", "busybox:latest", *fill)
        good(safe_compose(*JOB, "--confirm", name, "volume", "rm", name))
        [volume] = shown(safe_compose, newest(safe_compose)["id"])["volumes"]
        assert (volume["data_kind"], volume["method"], volume["statistics"]) == (
            "postgres",
            "cold",
            None,
        )
        assert "the image of its own service, of PostgreSQL 9.6, is not at hand" in " ".join(
            volume["notes"]
        )
        good(safe_compose("undo"))
        assert (
            docker(
                "run", "--rm", "-v", f"{name}:/v", "busybox:latest", "cat", "/v/pgdata/PG_VERSION"
            ).stdout
            == "9.6\n"
        )
    finally:
        docker("volume", "rm", "-f", name, check=False)
