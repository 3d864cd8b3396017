"""PostgreSQL as people set it up: more tables than it has locks for, another encoding, a password
also over its socket.
"""

import json
from pathlib import Path

import pytest

from safe_compose.databases.mysql.client import naming_client_fault as naming_mysql_fault
from safe_compose.databases.postgres import login
from safe_compose.databases.postgres.client import naming_client_fault
from safe_compose.databases.postgres.dump_scanner import PostgresScanner
from safe_compose.databases.postgres.encodings import decode_answer, encode_text, find_codec
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, read_in_volume, require_success
from testing.runs import list_backups
from testing.stacks import JOB
from testing.watch import command_lines

FIRST = "canary-77ab-first"
KILLED = "canary-77ab-killed"
AFTER_THE_DATABASE = 6
"""Records of the journal on the disk by then."""
TABLES = 250
"""With four indexes each: more locks than the server has space for, which their dump alone has."""
STACK = """
services:
  db:
    image: postgres:15
    command: postgres -c max_connections=10 -c max_locks_per_transaction=10
    environment:
      POSTGRES_USER: shop
      POSTGRES_DB: shop
      POSTGRES_PASSWORD_FILE: /run/secrets/db
      POSTGRES_INITDB_ARGS: --auth-local=scram-sha-256 --auth-host=scram-sha-256 --encoding=LATIN1 --locale=C
      PGCLIENTENCODING: LATIN1
    secrets: [db]
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
secrets: {db: {file: ./db.txt}}
volumes: {data: }
"""
NO_TRIALS = "[backup]\ntrial_limit = 0\n"

# -- without an engine -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "raw", "name"),
    [
        ("LATIN1", b"gr\xf6\xdfe", "größe"),
        ("WIN1251", b"\xf6\xe5\xed\xe0", "цена"),
        ("EUC_JP", "価格".encode("euc-jp"), "価格"),
        ("UTF8", "größe".encode(), "größe"),
        ("SQL_ASCII", b"gr\xf6\xdfe", "gr\\xf6\\xdfe"),
        ("WIN1252", b"a\x81b", "a\\x81b"),
        ("MULE_INTERNAL", b"a\x81\xf6", "a\\x81\\xf6"),
    ],
)
def test_a_name_in_a_dump_is_the_one_that_the_server_gave_when_it_counted(
    encoding: str, raw: bytes, name: str
) -> None:
    scanner = PostgresScanner()
    scanner.feed(
        f"SET client_encoding = '{encoding}';\n".encode()
        + b'COPY public."'
        + raw
        + b'" (a) FROM stdin;\n1\n\\.\n'
    )
    assert scanner.rows == {("public", name): 1}
    answered = json.loads(decode_answer(b'{"table": "' + raw + b'"}', find_codec(encoding)))
    assert encode_text(answered["table"]) == name


@pytest.mark.parametrize(
    "said",
    [
        (
            "pg_dump: error: query failed: ERROR:  out of shared memory\nHINT:  You might need to"
            " increase max_locks_per_transaction."
        ),
        (
            'pg_dump: error: Dumping the contents of table "t" failed.\nERROR:  invalid page in'
            " block 0 of relation"
        ),
    ],
    ids=["no space for locks", "damaged data"],
)
def test_what_a_server_cannot_dump_is_left_to_the_archive_before_a_deletion(said: str) -> None:
    with (
        pytest.raises(ServerUnreachable, match="volume data: dump"),
        naming_client_fault("data", "dump"),
    ):
        raise HelperFailed("pg_dump", 1, said)
    with pytest.raises(OperationFailed) as raised, naming_client_fault("data", "dump"):
        raise HelperFailed("pg_dump", 1, "pg_dump: error: connection to server was lost")
    assert not isinstance(raised.value, ServerUnreachable)


@pytest.mark.parametrize(
    ("said", "damaged"),
    [
        (
            (
                "mariadb-dump: Error 1034: Index for table 't' is corrupt; try to repair it when"
                " dumping table `t` at row: 1264"
            ),
            True,
        ),
        ("ERROR 1712 (HY000) at line 3: Index t ist beschädigt", True),
        (
            (
                "mysqldump: Couldn't execute 'show create table `t`': Table 'app.t' doesn't exist"
                " in engine (1932)"
            ),
            True,
        ),
        (
            (
                "mysqldump: Got error: 1194: \"Table 't' is marked as crashed and should be"
                ' repaired" when retrieving data'
            ),
            True,
        ),
        (
            (
                "mariadb-dump: Error 2013: Lost connection to server during query when dumping"
                " table `t` at row: 1034"
            ),
            False,
        ),
    ],
    ids=[
        "read while dumped",
        "in another language",
        "no tablespace",
        "crashed",
        "a server that went away",
    ],
)
def test_a_mariadb_with_damaged_data_is_left_to_the_archive_before_a_deletion(
    said: str, damaged: bool
) -> None:
    with (
        pytest.raises(OperationFailed, match="volume data: dump: ") as raised,
        naming_mysql_fault("data", "dump"),
    ):
        raise HelperFailed("mariadb-dump", 3, said)
    assert (
        isinstance(raised.value, ServerUnreachable) is damaged
        and ("is damaged" in raised.value.message) is damaged
    )


SOCKET = 'psql: error: connection to server on socket "/var/run/postgresql/.s.PGSQL.5432" failed: '


@pytest.mark.parametrize(
    ("said", "code", "may_be"),
    [
        ('FATAL:  password authentication failed for user "shop"', 2, True),
        ("fe_sendauth: no password supplied", 2, True),
        ("FATAL:  Passwort-Authentifizierung für Benutzer »shop« fehlgeschlagen", 2, True),
        ('ВАЖНО:  пользователь "shop" не прошёл проверку подлинности (по паролю)', 2, True),
        ("FATAL:  Peer-Authentifizierung für Benutzer »shop« fehlgeschlagen", 2, True),
        (
            (
                "No such file or directory / Is the server running locally and accepting"
                " connections on that socket?"
            ),
            2,
            False,
        ),
        ('FATAL:  role "shop" does not exist', 2, False),
        ("FATAL:  the database system is starting up", 2, False),
        ("FEHLER:  Relation »x« existiert nicht", 1, False),
    ],
)
def test_a_refusal_is_seen_in_every_language(said: str, code: int, may_be: bool) -> None:
    assert login.may_be_refused(SOCKET + said, code) is may_be
    assert login.is_for_its_own_user(SOCKET + said) is ("Peer" in said)


# -- with an engine --------------------------------------------------------------------------------


def _sql(
    project: ComposeProject, script: str, database: str = "shop", password: str = FIRST
) -> str:
    words = (
        "env",
        f"PGPASSWORD={password}",
        "PGCLIENTENCODING=UTF8",
        "psql",
        "-XqtA",
        "-v",
        "ON_ERROR_STOP=1",
        "-U",
        "shop",
    )
    return project.exec("db", *words, "-d", database, "-f", "-", input=script).strip()


def _fill(project: ComposeProject) -> None:
    many = "".join(
        f"CREATE TABLE t{n} (a int PRIMARY KEY, b int UNIQUE, c int UNIQUE, d int UNIQUE);"
        for n in range(TABLES)
    )
    _sql(project, f"{many} CREATE TABLE größe (länge text); INSERT INTO größe VALUES ('Größe XL');")
    for name, encoding in (("utf8", "UTF8"), ("raw", "SQL_ASCII")):
        _sql(project, f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    _sql(
        project,
        "ALTER DATABASE utf8 SET client_encoding = 'LATIN1'; ALTER ROLE shop SET client_encoding ="
        " 'LATIN1'",
    )
    _sql(project, "SET client_encoding = 'UTF8'; CREATE TABLE größe AS SELECT '€' AS preis", "utf8")
    _sql(
        project,
        "SET client_encoding = 'SQL_ASCII'; CREATE TABLE \"gr\udcf6\udcdfe\" AS SELECT E'\\\\xf6'"
        " AS x",
        "raw",
    )


def _is_put_back_after_a_kill(shop: ComposeProject, safe_compose: SafeCompose) -> None:
    """The server has the new password by then, and lets nobody in with the one that its container
    was started with.
    """
    change = ("rotate-password", "db", "--stdin", "--yes")
    killed = safe_compose(
        *change,
        cwd=shop.folder,
        input=KILLED,
        env=failing_syscalls("fsync", ".jsonl", "KILL", skip=AFTER_THE_DATABASE),
    )
    assert killed.returncode == -9 and _sql(shop, "SELECT 1", password=KILLED) == "1"
    with command_lines() as seen:
        recovered = require_success(safe_compose("recover", cwd=shop.folder))
    assert (
        KILLED.encode() not in b"".join(seen) and KILLED not in recovered.stdout + recovered.stderr
    )
    assert (shop.folder / "db.txt").read_text() == f"{FIRST}\n" and _sql(shop, "SELECT 1") == "1"


@pytest.mark.engine
@pytest.mark.thorough
def test_a_server_with_few_locks_another_encoding_and_a_password_is_backed_up_deleted_and_brought_back(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    shop = compose_project(STACK, files={"db.txt": f"{FIRST}\n", "safe-compose.toml": NO_TRIALS})
    shop.up()
    _fill(shop)
    with command_lines() as seen:
        made = require_success(safe_compose("backup", "--json", cwd=shop.folder))
    assert FIRST.encode() not in b"".join(seen) and FIRST not in made.stdout + made.stderr
    kept = json.loads(made.stdout)["backup"]
    assert kept["verified"]["level"] == "L3"
    shown = json.loads(require_success(safe_compose("show", kept["id"], "--json")).stdout)[
        "backup"
    ]["path"]
    manifest = json.loads((Path(shown) / "manifest.json").read_text())
    tables = {
        d["name"]: [t["table"] for t in d["tables"]]
        for d in manifest["volumes"][0]["statistics"]["databases"]
    }
    assert (len(tables["shop"]), tables["utf8"], tables["raw"]) == (
        TABLES + 1,
        ["größe"],
        ["gr\\xf6\\xdfe"],
    )
    assert "größe" in tables["shop"]
    _is_put_back_after_a_kill(shop, safe_compose)
    require_success(safe_compose("rotate-password", "db", "--generate", "--yes", cwd=shop.folder))
    second = (shop.folder / "db.txt").read_text().strip()
    assert second != FIRST and _sql(shop, "SELECT 1", password=second) == "1"
    gone = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    assert "no dump" not in gone.stderr and shop.volumes() == []
    require_success(safe_compose("restore", kept["id"], cwd=shop.folder))
    shop.up()
    assert _sql(shop, "SELECT länge FROM größe") == "Größe XL"
    assert _sql(shop, "SELECT preis FROM größe", "utf8") == "€"


CLOSED = """
services:
  db:
    image: postgres:15
    environment:
      POSTGRES_DB: shop
      POSTGRES_PASSWORD: canary-77ab-first
      POSTGRES_INITDB_ARGS: --auth-local=peer --auth-host=reject
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1], interval: 1s, retries: 60}
volumes: {data: }
"""
ONE_USER = (
    "printf 'local all postgres peer\\nhost all clerk all scram-sha-256\\n' >$PGDATA/pg_hba.conf &&"
    " psql -qc 'SELECT pg_reload_conf()'"
)


@pytest.mark.thorough
@pytest.mark.engine
def test_a_server_that_lets_in_its_own_user_alone_is_backed_up_and_gets_one_database_back(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    shop = compose_project(CLOSED, files={"safe-compose.toml": NO_TRIALS})
    shop.up()
    as_itself = ("compose", "exec", "-T", "-u", "postgres", "db")
    shop.docker(
        *as_itself,
        "psql",
        "-qc",
        "CREATE TABLE sale AS SELECT g FROM generate_series(1, 9) g",
        "shop",
    )
    shop.docker(*as_itself, "sh", "-c", ONE_USER)
    assert (
        json.loads(require_success(safe_compose("backup", "--json", cwd=shop.folder)).stdout)[
            "backup"
        ]["verified"]["level"]
        == "L3"
    )
    shop.docker(*as_itself, "psql", "-qc", "DROP TABLE sale", "shop")
    back = require_success(
        safe_compose(
            "restore", "latest", "--database", "shop", "--confirm", "shop", cwd=shop.folder
        )
    )
    assert "lets no other role in (pg_hba.conf), so the superuser loads it" in back.stderr, (
        back.stderr
    )
    rows = (
        "SELECT count(*) FROM sale UNION ALL SELECT count(*) FROM pg_roles WHERE rolname ~"
        " '^safe_compose'"
    )
    assert shop.docker(*as_itself, "psql", "-XqtAc", rows, "shop").stdout.split() == ["9", "0"]
    before = (shop.folder / "compose.yaml").read_text()
    refused = safe_compose("rotate-password", "db", "--generate", "--yes", cwd=shop.folder)
    assert refused.returncode in (73, 77) and "pg_hba.conf" in refused.stderr, refused.stderr
    assert (shop.folder / "compose.yaml").read_text() == before


NOBODY = (
    "printf 'local all all reject\\nhost all all all reject\\n' >$PGDATA/pg_hba.conf &&"
    " pg_ctl reload --silent"
)


@pytest.mark.thorough
@pytest.mark.engine
def test_a_server_that_lets_nobody_in_is_archived_and_the_rule_that_it_needs_is_named(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    shop = compose_project(CLOSED)
    shop.up()
    as_itself = ("compose", "exec", "-T", "-u", "postgres", "db")
    ask = (*as_itself, "psql", "-qAtc")
    shop.docker(*ask, "CREATE TABLE sale AS SELECT 7 AS n", "shop")
    shop.docker(*as_itself, "sh", "-c", NOBODY)
    hot = safe_compose("backup", cwd=shop.folder)
    assert hot.returncode == 73 and "`local all all peer`" in hot.stderr, hot.stderr
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    require_success(safe_compose("undo", cwd=shop.folder))
    open_again = "printf 'local all all peer\\n' >$PGDATA/pg_hba.conf && pg_ctl reload --silent"
    shop.docker(*as_itself, "sh", "-c", open_again)
    shop.up()
    assert shop.docker(*ask, "SELECT n FROM sale", "shop").stdout == "7\n"


MARIA = """
services:
  db:
    image: mariadb:10.11
    command: --skip-character-set-client-handshake --character-set-server=latin1
    environment: {MARIADB_ROOT_PASSWORD: canary-77ab-root}
    volumes: ["data:/var/lib/mysql"]
    healthcheck: {test: [CMD, mariadb-admin, ping, -h, 127.0.0.1], interval: 1s, retries: 60}
volumes: {data: }
"""


@pytest.mark.engine
@pytest.mark.thorough
def test_a_mariadb_that_answers_in_another_character_set_is_not_dumped_and_is_archived_before_a_deletion(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    shop = compose_project(MARIA, files={"safe-compose.toml": NO_TRIALS})
    shop.up()
    hot = safe_compose("backup", cwd=shop.folder)
    assert hot.returncode == 73 and "a dump would lose characters" in hot.stderr
    gone = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    assert "no dump of" in gone.stderr and shop.volumes() == []


@pytest.mark.engine
@pytest.mark.thorough
def test_a_mariadb_without_its_grant_tables_is_archived_and_each_reason_for_that_is_said_once(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    usual = "".join(line for line in MARIA.splitlines(keepends=True) if "command:" not in line)
    shop = compose_project(usual, files={"safe-compose.toml": NO_TRIALS})
    shop.up()
    root = ("mariadb", "-uroot", "-pcanary-77ab-root", "-N", "-e")
    shop.exec("db", *root, "CREATE DATABASE app; CREATE TABLE app.sale AS SELECT 1 AS id")
    open_to_all = usual.replace("image:", "command: mariadbd --skip-grant-tables\n    image:")
    (shop.folder / "compose.yaml").write_text(open_to_all)
    shop.up()
    hot = safe_compose("backup", cwd=shop.folder)
    assert hot.returncode == 73 and shop.volumes() == [f"{shop.name}_data"]
    assert hot.stderr.count("root without a password: it has no right to") == 1, hot.stderr
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    require_success(safe_compose("undo", cwd=shop.folder))
    shop.up()
    assert shop.exec("db", *root, "SELECT COUNT(*) FROM app.sale") == "1\n"


TEAR = "dd if=/dev/urandom of=/v/app/sale.ibd bs=1 seek=328180 count=64 conv=notrunc"
"""Within the page of InnoDB that begins at 327680."""


@pytest.mark.engine
@pytest.mark.thorough
def test_a_mariadb_with_a_torn_page_is_archived_as_it_is_and_counts_for_no_more(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    shop = compose_project(
        "".join(line for line in MARIA.splitlines(keepends=True) if "command:" not in line)
    )
    shop.up()
    fill = (
        "CREATE DATABASE app; USE app; CREATE TABLE sale (id INT PRIMARY KEY) SELECT seq AS id,"
        " REPEAT(MD5(seq), 5) AS s"
    )
    root = ("env", "MYSQL_PWD=canary-77ab-root", "mariadb", "-uroot")
    shop.exec("db", *root, "-e", f"{fill} FROM seq_1_to_5000")
    shop.docker("compose", "stop")
    read_in_volume(f"{shop.name}_data", "sh", "-c", TEAR, image="mariadb:10.11")
    torn = read_in_volume(
        f"{shop.name}_data", "sha256sum", "/v/app/sale.ibd", image="mariadb:10.11"
    )
    shop.up()
    hot = safe_compose("backup", cwd=shop.folder)
    assert (
        hot.returncode == 73
        and "is damaged" in hot.stderr
        and f"docker stop {shop.name}-db-1" in hot.stderr
    ), hot.stderr
    gone = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    assert "is damaged" in gone.stderr and shop.volumes() == []
    [kept] = json.loads(
        require_success(safe_compose("list", "--project", shop.name, "--json")).stdout
    )["backups"]
    manifest = json.loads((Path(kept["path"]) / "manifest.json").read_text())["volumes"][0]
    assert kept["verified"]["level"] == "L2" and "is damaged" in " ".join(manifest["notes"])
    require_success(safe_compose("undo", cwd=shop.folder))
    shop.docker("compose", "stop")
    assert (
        read_in_volume(f"{shop.name}_data", "sha256sum", "/v/app/sale.ibd", image="mariadb:10.11")
        == torn
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_roles_with_names_of_the_clusters_own_encoding_come_back_from_a_dump(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(STACK, files={"db.txt": FIRST})
    project.up()
    _sql(
        project,
        'CREATE ROLE "müller"; CREATE SCHEMA "straße" AUTHORIZATION "müller";'
        ' CREATE TABLE "straße".t AS SELECT 1 AS n',
    )
    require_success(safe_compose("backup", cwd=project.folder))
    [backup] = list_backups(safe_compose, project)
    tried = require_success(safe_compose("verify", backup["id"], "--trial"))
    assert "L4" in tried.stdout and "no trial restore" not in tried.stderr
    by_hand = (Path(str(backup["path"])) / "RESTORE.md").read_text()
    assert "-e POSTGRES_INITDB_ARGS='--encoding=LATIN1 --locale=C'" in by_hand
    project.docker("compose", "down", "-v")
    require_success(safe_compose("restore", backup["id"], cwd=project.folder))
    project.up()
    owner = "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'straße'"
    assert _sql(project, owner) == '"müller"'
