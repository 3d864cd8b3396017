"""A trial's server does not stand where the service's does: what the service's settings need and is
not there says nothing against a backup, and is no reason to refuse a deletion.
"""

import json

import pytest

from safe_compose.databases.entrypoints import make_start_script
from safe_compose.databases.mysql import helper_server
from safe_compose.databases.postgres.helper_settings import blames_data, options
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.databases.trials import (
    TrialSkipped,
    find_blamed,
    is_crash_of_data,
    is_server_lost,
)
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.values import Image
from safe_compose.errors import VerificationFailed
from testing.fixtures import ProjectFactory, SafeCompose
from testing.image_layers import deriving_image
from testing.projects import require_success

# -- without an engine -----------------------------------------------------------------------------


def _options(
    settings: dict[str, str],
    major: int,
    *,
    fresh: bool = False,
    standby: dict[str, str] | None = None,
) -> dict[str, str]:
    words = options(settings, major, fresh=fresh, standby=standby)
    assert set(words[::2]) == {"-c"}
    return dict(word.split("=", 1) for word in words[1::2])


def test_a_server_of_ours_needs_nothing_of_the_services_surroundings() -> None:
    copy = _options({}, 15)
    assert (
        copy["ssl"],
        copy["logging_collector"],
        copy["archive_mode"],
        copy["shared_buffers"],
    ) == ("off", "off", "off", "128MB")
    assert (
        copy["hba_file"].startswith("/tmp/")
        and copy["unix_socket_directories"] == "/tmp"
        and copy["primary_conninfo"] == ""
    )
    assert copy["wal_level"] == "logical" and int(copy["max_replication_slots"]) >= 100, (
        "slots that a service left on its data"
    )
    assert "unix_socket_directories" not in _options({}, 15, fresh=True), (
        "the image's entrypoint looks where it always does"
    )
    assert "primary_conninfo" not in _options({}, 11) and "archive_library" not in _options({}, 14)
    assert "reserved_connections" in _options({}, 16) and "jit" not in _options({}, 0)


def test_libraries_are_loaded_and_their_workers_change_no_row() -> None:
    loaded = _options({"shared_preload_libraries": "pg_cron"}, 15)
    assert loaded["shared_preload_libraries"] == "pg_cron" and loaded["max_worker_processes"] == "0"
    assert "max_worker_processes" not in _options({}, 15)


def test_a_standby_gets_the_limits_of_its_primary() -> None:
    limits = {"max_connections": "200", "max_worker_processes": "8"}
    standby = _options({"shared_preload_libraries": "pg_cron"}, 15, standby=limits)
    assert (standby["max_connections"], standby["max_worker_processes"]) == ("200", "8")


SURROUNDINGS = [
    'FATAL:  could not load server certificate file "/certs/server.crt": No such file or directory',
    'FATAL:  could not access file "pg_stat_kcache": No such file or directory',
    (
        "FATAL:  could not map anonymous shared memory: Cannot allocate memory / HINT:  This error"
        " usually means"
    ),
    (
        'LOG:  could not open configuration file "/etc/pg/hba": No such file / FATAL:  could not'
        " load /etc/pg/hba/pg_hba.conf"
    ),
    "LOG:  x / FATAL:  recovery aborted because of insufficient parameter settings",
    'FATAL:  logical replication slot "s" exists, but wal_level < logical',
    'FATAL:  configuration file "/data/postgresql.conf" contains errors',
    'FATAL:  could not create lock file "/sockets/.s.PGSQL.5432.lock": No such file or directory',
    "FATAL:  database files are incompatible with server",
    "FATAL:  must specify restore_command when standby mode is not enabled",
    (
        "LOG:  redo done at 0/3000060 / FATAL:  recovery ended before configured recovery target"
        " was reached"
    ),
]
DAMAGE = [
    "LOG:  invalid checkpoint record / PANIC:  could not locate a valid checkpoint record",
    'FATAL:  could not open directory "pg_notify": No such file or directory',
    "FATAL:  incorrect checksum in control file",
    'postgres: could not find the database system / Expected to find it in the directory "/d"',
]


@pytest.mark.parametrize("log", SURROUNDINGS)
def test_surroundings_are_not_held_against_a_backup(log: str) -> None:
    assert not blames_data(log, 1, bare=True) and not blames_data(log, 1, bare=False)


@pytest.mark.parametrize("log", DAMAGE)
def test_damage_is(log: str) -> None:
    assert blames_data(log, 1, bare=True) and blames_data(log, 1, bare=False)


def test_of_an_entrypoint_only_the_servers_own_words_count_and_a_killed_server_says_nothing() -> (
    None
):
    assert not blames_data("wait-for-vault: no route to host", 1, bare=False) and blames_data(
        "Segmentation fault", 139, bare=True
    )
    assert not any(blames_data("PANIC:  x", code, bare=True) for code in (126, 127, 137))


def test_the_first_death_that_is_blamed_on_the_data_is_reported_or_else_the_last() -> None:
    skipped, damaged = TrialSkipped("no memory"), VerificationFailed("PANIC")
    assert find_blamed([skipped, damaged, VerificationFailed("again")]) is damaged
    assert find_blamed([TrialSkipped("no program"), skipped]) is skipped


@pytest.mark.parametrize(
    ("log", "code", "blamed"),
    [
        ("[ERROR] mariadbd: unknown variable 'x=y' / [ERROR] Aborting", 7, False),
        (
            (
                "[ERROR] Failed to setup SSL / [ERROR] SSL error: Unable to get certificate /"
                " [ERROR] Aborting"
            ),
            1,
            False,
        ),
        (
            (
                "[ERROR] InnoDB: Cannot allocate memory for the buffer pool / [ERROR] Plugin"
                " 'InnoDB' init function failed."
            ),
            1,
            False,
        ),
        (
            (
                "[Warning] CA certificate ca.pem is self signed. / [ERROR] InnoDB: Corrupted page /"
                " [ERROR] Aborting"
            ),
            1,
            True,
        ),
        (
            (
                "[ERROR] Plugin 'InnoDB' registration failed. / [ERROR] Unknown/unsupported storage"
                " engine: InnoDB"
            ),
            1,
            True,
        ),
        ("killed", 137, False),
    ],
)
def test_a_mysql_servers_errors_tell_surroundings_from_damage(
    log: str, code: int, blamed: bool
) -> None:
    assert helper_server.blames_data(log, code) is blamed


@pytest.mark.parametrize(
    ("code", "said", "lost"),
    [
        (
            2,
            (
                "psql:<stdin>:3: server closed the connection unexpectedly / connection to server"
                " was lost"
            ),
            True,
        ),
        (2, "FATAL:  terminating connection due to administrator command", True),
        (1, "ERROR 2013 (HY000) at line 1: Lost connection to server during query", True),
        (1, "ERROR 2006 (HY000) at line 1: Server has gone away", True),
        (1, "Error response from daemon: container 12ab is not running", True),
        (137, "", True),
        (3, "ERROR:  invalid page in block 0 of relation base/1/2", False),
        (1, "ERROR 1034 (HY000) at line 1: Incorrect key file for table 't'", False),
    ],
)
def test_a_server_that_went_away_is_told_from_one_that_cannot_read_its_data(
    code: int, said: str, lost: bool
) -> None:
    assert is_server_lost(HelperFailed("psql", code, said)) is lost


@pytest.mark.parametrize(
    ("log", "code", "itself"),
    [
        (
            (
                "LOG:  server process (PID 77) was terminated by signal 11: Segmentation fault /"
                " FATAL:  in recovery mode"
            ),
            0,
            True,
        ),
        ("PANIC:  could not read block 3", 134, True),
        ("mariadbd got signal 11 ; Sorry, we probably made a mistake", 139, True),
        ("InnoDB: Assertion failure in file btr0cur.cc line 336", 134, True),
        (
            (
                "LOG:  server process (PID 77) was terminated by signal 9: Killed / FATAL:  in"
                " recovery mode"
            ),
            0,
            False,
        ),
        (
            (
                "LOG:  received smart shutdown request / FATAL:  terminating connection due to"
                " administrator command"
            ),
            0,
            False,
        ),
        ("PANIC:  x", 137, False),
        ("", 0, False),
    ],
)
def test_only_a_server_that_its_data_brought_down_is_held_against_a_backup(
    log: str, code: int, itself: bool
) -> None:
    assert is_crash_of_data(log, code) is itself


def test_what_a_mysql_server_says_of_itself_is_taken_only_in_the_form_that_a_server_gives_it() -> (
    None
):
    version = "10.11.6-MariaDB"
    assert helper_server.parse_listening([("/run/x.sock", "3306", "1", version)], "v")[:3] == (
        "/run/x.sock",
        3306,
        True,
    )
    for rows in ([], [("/run/x.sock", "many", "0", version)], [("/run/x.sock", "3306", "0")]):
        with pytest.raises(
            ServerUnreachable,
            match="v: the database server answers in a way that is not understood",
        ):
            helper_server.parse_listening(rows, "v")


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "official", "own"),
    [
        (
            ("company.sh",),
            ("postgres", "-c", "a=b c"),
            "postgres -c 'a=b c'",
            "company.sh postgres",
        ),
        (("tini", "--", "docker-entrypoint.sh"), ("start.sh",), "postgres", "start.sh"),
        (("/opt/bitnami/entrypoint.sh",), ("/opt/run.sh",), "postgres", "/opt/run.sh"),
        ((), (), "postgres", "postgres"),
    ],
)
def test_an_official_entrypoint_makes_a_new_server_where_the_image_has_it(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...], official: str, own: str
) -> None:
    image = Image("sha256:1", (), 0, (), {}, entrypoint, cmd)
    first, _, second = make_start_script(image, ("postgres",), "postgres").partition("fi; ")
    assert f'exec docker-entrypoint.sh {official} "$@"' in first and own in second


# -- with an engine --------------------------------------------------------------------------------

_AUTH = "local all all trust\nhost all all all trust\nhost replication all all trust\n"
CONFIG = {"conf/pg_hba.conf": _AUTH, "conf/more.conf": "work_mem = 5MB\n"}
PAIR = """
services:
  db:
    image: postgres:15
    command: [postgres, -c, max_connections=200, -c, wal_level=logical, -c, hba_file=/conf/pg_hba.conf]
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-14-password, POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data", "./conf:/conf:ro", "./logs:/logs", "./sockets:/sockets"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
  replica:
    image: postgres:15
    user: "999:999"
    environment: {POSTGRES_USER: shop}
    entrypoint:
      - sh
      - -c
      - |
        test -s $$PGDATA/PG_VERSION || pg_basebackup -h db -U shop -D $$PGDATA -R || exit 1
        chmod 700 $$PGDATA && exec postgres -c max_connections=200 -c hba_file=/conf/pg_hba.conf
    depends_on: {db: {condition: service_healthy}}
    volumes: ["copy:/var/lib/postgresql/data", "./conf:/conf:ro", "./logs:/logs", "./sockets:/sockets"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
volumes: {data: , copy: }
"""
_SETTINGS = """
CREATE TABLE goods AS SELECT g AS id FROM generate_series(1, 50) g; SELECT pg_create_logical_replication_slot('s', 'test_decoding');
ALTER SYSTEM SET logging_collector = on; ALTER SYSTEM SET log_directory = '/logs'; ALTER SYSTEM SET archive_mode = on;
ALTER SYSTEM SET unix_socket_directories = '/var/run/postgresql', '/sockets'; ALTER SYSTEM SET archive_command = 'test -d /archive';
ALTER SYSTEM SET synchronous_commit = local; ALTER SYSTEM SET superuser_reserved_connections = 150;
"""


@pytest.mark.thorough
@pytest.mark.engine
def test_servers_whose_settings_need_other_mounts_are_tried_and_may_be_deleted(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    shop = compose_project(PAIR, files=CONFIG)
    for name in ("logs", "sockets"):
        (shop.folder / name).mkdir()
        (shop.folder / name).chmod(0o777)
    shop.up("db")
    shop.psql(_SETTINGS, user="shop", database="shop")
    shop.exec("db", "sh", "-c", "echo \"include '/conf/more.conf'\" >> $PGDATA/postgresql.conf")
    shop.docker("compose", "restart", "db")
    shop.up()
    assert (
        shop.psql(
            "SHOW work_mem; SELECT pg_is_in_recovery()",
            service="replica",
            user="shop",
            database="shop",
        )
        == "5MB\nt"
    )
    done = require_success(
        safe_compose(
            "--non-interactive", "--backup-first", "compose", "down", "-v", cwd=shop.folder
        )
    )
    assert "no trial restore" not in done.stderr, done.stderr
    [kept] = json.loads(require_success(safe_compose("list", "--json", cwd=shop.folder)).stdout)[
        "backups"
    ]
    shown = json.loads(
        require_success(safe_compose("show", kept["id"], "--json", cwd=shop.folder)).stdout
    )
    tried = {e["subject"] for e in shown["details"]["evidence"] if e["level"] == "L4"}
    assert tried == {f"{shop.name}_data", f"{shop.name}_copy"}, shown


MARIADB = """
services:
  db:
    image: {image}
    environment: {{MARIADB_ROOT_PASSWORD: canary-14-root, MARIADB_DATABASE: shop, MARIADB_USER: "", LICENSE: x}}
    volumes: ["data:/var/lib/mysql", "./conf:/conf:ro", "./logs:/logs"]
    healthcheck: {{test: [CMD, mariadb, -uroot, -pcanary-14-root, -e, SELECT * FROM shop.ready], interval: 1s, retries: 90}}
volumes: {{data: }}
"""
_OWN = {
    "/docker-entrypoint-initdb.d/10.sql": (
        "CREATE TABLE goods (id int); INSERT INTO goods VALUES (7); CREATE TABLE other (id int);"
        "CREATE DATABASE demo; CREATE TABLE demo.t (id int); CREATE USER demo;"
    ),
    "/usr/local/bin/company.sh": '#!/bin/bash\n: "${LICENSE:?}"\nexec docker-entrypoint.sh "$@"\n',
    "/etc/mysql/my.cnf": (
        "[mysqld]\nskip-name-resolve\ninit_file=/conf/ready.sql\nlog_error=/logs/error.log\nslow_query_log=1\n"
        "slow_query_log_file=/logs/slow.log\ninnodb_buffer_pool_size=192M\n"
    ),
}


@pytest.mark.thorough
@pytest.mark.engine
def test_a_mariadb_image_with_scripts_and_settings_of_its_own_is_tried_and_may_be_deleted(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    with deriving_image(
        "mariadb:10.11",
        _OWN,
        "RUN chmod 644 /etc/mysql/my.cnf",
        "ENV MARIADB_DATABASE=first MARIADB_USER=first MARIADB_PASSWORD=first",
        'ENTRYPOINT ["company.sh"]',
        'CMD ["mariadbd"]',
    ) as image:
        files = {"conf/ready.sql": "CREATE TABLE IF NOT EXISTS shop.ready (id int);\n"}
        shop = compose_project(MARIADB.format(image=image), files=files)
        (shop.folder / "logs").mkdir()
        (shop.folder / "logs").chmod(0o777)
        shop.up()
        change = "DELETE FROM goods; INSERT INTO goods VALUES (1), (2)"
        shop.exec("db", "mariadb", "-uroot", "-pcanary-14-root", "shop", "-e", change)
        require_success(safe_compose("backup", cwd=shop.folder))
        tried = require_success(safe_compose("verify", "--trial", "latest", cwd=shop.folder))
        assert "no trial restore" not in tried.stderr, tried.stderr
        done = require_success(
            safe_compose(
                "--non-interactive", "--backup-first", "compose", "down", "-v", cwd=shop.folder
            )
        )
        assert "no trial restore" not in done.stderr, done.stderr
        kept = json.loads(require_success(safe_compose("list", "--json", cwd=shop.folder)).stdout)[
            "backups"
        ]
        assert [backup["verified"]["level"] for backup in kept] == ["L4", "L4"], kept
        shop.docker("compose", "down", "-v")
