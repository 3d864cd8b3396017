"""The lab itself: the look-alike images behave like the official ones wherever a volume's content
depends on it.
"""

import gzip
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.projects import LAB, ROOT, ComposeProject, docker, unique, wait_until

pytestmark = pytest.mark.engine


@pytest.fixture
def name() -> Iterator[str]:
    """A name for one container, one volume and one network of a test, all removed afterwards."""
    name = unique("lab")
    yield name
    docker("rm", "--force", "--volumes", name, check=False)
    docker("volume", "rm", "--force", name, check=False)
    docker("network", "rm", name, check=False)


def start(
    name: str, *options: str, image: str = "postgres:15", volume: str = "/var/lib/postgresql/data"
) -> None:
    docker(
        "run",
        "--detach",
        "--pull=never",
        "--name",
        name,
        "--volume",
        f"{name}:{volume}",
        *options,
        image,
    )


def ready(name: str) -> None:
    """Over TCP, so that the temporary server of the first start does not count."""

    def answers() -> bool:
        state = docker("inspect", "--format", "{{.State.Running}}", name).stdout.strip()
        assert state == "true", docker("logs", name).stderr
        # -U: a user without a name has no default for it, and pg_isready then does not even try
        isready = ("pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres")
        return docker("exec", name, *isready, check=False).returncode == 0

    wait_until(f"{name} is ready", answers)


def psql(
    name: str, query: str, *, host: str = "", user: str = "postgres", password: str | None = None
) -> str:
    """Inside the container; `host` empty is the socket. Returns output and errors together."""
    options = ("--env", f"PGPASSWORD={password}") if password is not None else ()
    where = ("-h", host) if host else ()
    argv = ("psql", "-XtA", "--no-password", *where, "-U", user, "-d", "postgres", "-c", query)
    done = docker("exec", *options, name, *argv, check=False)
    return (done.stdout + done.stderr).strip()


def logs(name: str) -> str:
    done = docker("logs", name)
    return done.stdout + done.stderr


def address(name: str) -> str:
    return docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name).stdout.strip()


def test_the_lab_does_nothing_and_says_nothing_when_all_is_there() -> None:
    done = subprocess.run(
        [ROOT / "testing" / "up"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_stack_that_does_not_exist_is_refused_with_the_names_of_those_that_do() -> None:
    environ = {**os.environ, "SAFE_COMPOSE_LAB": "yesterday"}
    up = ROOT / "testing" / "up"
    done = subprocess.run(
        [up], env=environ, capture_output=True, stdin=subprocess.DEVNULL, text=True
    )
    assert done.returncode == 2
    assert "yesterday" in done.stderr and "today" in done.stderr and "oldest" in done.stderr


def test_postgres_ignores_a_new_password_once_the_volume_exists(name: str) -> None:
    start(name, "--env", "POSTGRES_PASSWORD=old")
    ready(name)
    docker("rm", "--force", name)
    start(name, "--env", "POSTGRES_PASSWORD=new")
    ready(name)
    assert "Skipping initialization" in logs(name)
    assert "password authentication failed" in psql(
        name, "SELECT 1", host=address(name), password="new"
    )
    assert psql(name, "SELECT 1", host=address(name), password="old") == "1"


def test_postgres_trusts_socket_and_loopback_and_asks_for_a_scram_password_elsewhere(
    name: str,
) -> None:
    start(name, "--env", "POSTGRES_PASSWORD=right")
    ready(name)
    assert psql(name, "SELECT 1") == "1"
    assert psql(name, "SELECT 1", host="127.0.0.1", password="wrong") == "1"
    assert "password authentication failed" in psql(
        name, "SELECT 1", host=address(name), password="wrong"
    )
    assert (
        psql(name, "SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'postgres'")
        == "SCRAM-SHA-256"
    )
    last = docker(
        "exec", name, "tail", "-n", "1", "/var/lib/postgresql/data/pg_hba.conf"
    ).stdout.split()
    assert last == ["host", "all", "all", "all", "scram-sha-256"]


def test_postgres_refuses_to_start_without_a_password(name: str) -> None:
    done = docker("run", "--name", name, "--pull=never", "postgres:15", check=False)
    assert done.returncode == 1
    assert "superuser password is not specified" in done.stderr


@pytest.mark.parametrize(
    "variable", ["POSTGRES_PASSWORD", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_INITDB_ARGS"]
)
def test_postgres_refuses_a_setting_given_both_as_value_and_as_file(
    name: str, variable: str
) -> None:
    both = ("--env", f"{variable}=a", "--env", f"{variable}_FILE=/etc/hostname")
    done = docker(
        "run",
        "--name",
        name,
        "--pull=never",
        "--env",
        "POSTGRES_PASSWORD=a",
        *both,
        "postgres:15",
        check=False,
    )
    assert done.returncode == 1
    assert "are exclusive" in done.stderr and variable in done.stderr


def test_postgres_reads_its_settings_from_files(name: str, tmp_path: Path) -> None:
    for setting in ("PASSWORD", "USER", "DB"):
        (tmp_path / setting).write_text(f"from-file-{setting.lower()}\n")
    tmp_path.chmod(0o755)
    files = [
        word
        for s in ("PASSWORD", "USER", "DB")
        for word in ("--env", f"POSTGRES_{s}_FILE=/secrets/{s}")
    ]
    start(name, "--volume", f"{tmp_path}:/secrets:ro", *files)
    ready(name)
    found = psql(
        name, "SELECT datname FROM pg_database ORDER BY oid", user="from-file-user"
    ).splitlines()
    assert "from-file-db" in found
    answer = psql(
        name, "SELECT 1", user="from-file-user", host=address(name), password="from-file-password"
    )
    assert answer == "1"


def test_postgres_runs_init_files_once_in_order_and_sources_those_that_are_not_executable(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "1.sql").write_text(
        "CREATE TABLE ran (what text); INSERT INTO ran VALUES ('sql in ' || current_database())"
    )
    (tmp_path / "2.sql.gz").write_bytes(gzip.compress(b"INSERT INTO ran VALUES ('gz')"))
    (tmp_path / "3.sh").write_text("export SOURCED=yes\n")
    insert = 'psql -U "$POSTGRES_USER" -d app -c "INSERT INTO ran VALUES (\'sh $SOURCED\')"'
    (tmp_path / "4.sh").write_text(f"#!/bin/bash\n{insert}\n")
    (tmp_path / "4.sh").chmod(0o755)
    (tmp_path / "5.txt").write_text("not for a database")
    tmp_path.chmod(0o755)
    init = f"{tmp_path}:/docker-entrypoint-initdb.d:ro"
    options = ("--env", "POSTGRES_PASSWORD=x", "--env", "POSTGRES_DB=app", "--volume", init)
    start(name, *options)
    ready(name)
    rows = docker(
        "exec", name, "psql", "-XtA", "-U", "postgres", "-d", "app", "-c", "SELECT what FROM ran"
    ).stdout
    assert rows.splitlines() == ["sql in app", "gz", "sh yes"]
    docker("restart", name)
    ready(name)
    again = docker(
        "exec",
        name,
        "psql",
        "-XtA",
        "-U",
        "postgres",
        "-d",
        "app",
        "-c",
        "SELECT count(*) FROM ran",
    ).stdout
    assert again.strip() == "3"


def test_postgres_stops_at_the_first_error_of_an_init_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "1.sql").write_text("SELECT no_such_column;\nCREATE TABLE never ();\n")
    tmp_path.chmod(0o755)
    init = f"{tmp_path}:/docker-entrypoint-initdb.d:ro"
    run = (
        "run",
        "--name",
        name,
        "--pull=never",
        "--env",
        "POSTGRES_PASSWORD=x",
        "--volume",
        init,
        "postgres:15",
    )
    done = docker(*run, check=False)
    assert done.returncode != 0
    assert "no_such_column" in done.stderr


def test_stopping_postgres_is_a_fast_shutdown_that_leaves_a_clean_cluster(name: str) -> None:
    start(name, "--env", "POSTGRES_PASSWORD=x")
    ready(name)
    docker("stop", "--time", "60", name)
    stopped = docker(
        "inspect", "--format", "{{.State.ExitCode}} {{.Config.StopSignal}}", name
    ).stdout.split()
    assert stopped == ["0", "SIGINT"]
    assert "received fast shutdown request" in logs(name)
    read = (
        "run",
        "--rm",
        "--pull=never",
        "--volume",
        f"{name}:/var/lib/postgresql/data:ro",
        "postgres:15",
    )
    state = docker(*read, "pg_controldata").stdout
    assert "Database cluster state:               shut down\n" in state


def test_postgres_data_belongs_to_uid_999_and_nobody_else_may_read_it(name: str) -> None:
    start(name, "--env", "POSTGRES_PASSWORD=x")
    ready(name)
    root = docker("exec", name, "stat", "-c", "%u %g %a", "/var/lib/postgresql/data").stdout.split()
    assert root == ["999", "999", "700"]
    assert docker("exec", name, "stat", "-c", "%u", "/proc/1").stdout.strip() == "999"


def test_postgres_runs_as_a_user_that_has_no_name(name: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 4242, 4242)
    run = (
        "run",
        "--detach",
        "--pull=never",
        "--name",
        name,
        "--user",
        "4242:4242",
        "--env",
        "POSTGRES_PASSWORD=x",
    )
    docker(*run, "--volume", f"{data}:/var/lib/postgresql/data", "postgres:15")
    ready(name)
    assert psql(name, "SELECT current_setting('data_directory')") == "/var/lib/postgresql/data"
    assert docker("exec", name, "stat", "-c", "%u", "/proc/1").stdout.strip() == "4242"


def test_postgres_passes_the_servers_own_arguments_on(name: str) -> None:
    run = ("run", "--detach", "--pull=never", "--name", name, "--env", "POSTGRES_PASSWORD=x")
    initdb = ("--env", "POSTGRES_INITDB_ARGS=--data-checksums --encoding 'UTF8'")
    docker(*run, *initdb, "postgres:15", "-c", "cluster_name=it's one", "-c", "max_connections=7")
    ready(name)
    assert psql(name, "SELECT current_setting('cluster_name')") == "it's one"
    assert (
        psql(name, "SELECT current_setting('max_connections') || current_setting('data_checksums')")
        == "7on"
    )


def test_postgres_brings_the_tools_that_a_backup_needs() -> None:
    tools = (
        "bash tar gzip zstd find stat psql pg_dump pg_dumpall pg_restore pg_basebackup"
        " pg_controldata pg_isready gosu"
    )
    run = (
        "run",
        "--rm",
        "--pull=never",
        "--network",
        "none",
        "--entrypoint",
        "bash",
        "postgres:15",
    )
    script = 'for tool in "$@"; do command -v "$tool" >/dev/null || echo "$tool"; done'
    assert docker(*run, "-c", script, "bash", *tools.split()).stdout.split() == []


def test_mariadb_keeps_accounts_and_rows_over_a_restart(name: str) -> None:
    accounts = ("ROOT_PASSWORD=it's", "DATABASE=shop_1", "USER=shop", "PASSWORD=back\\slash")
    options = [word for account in accounts for word in ("--env", f"MARIADB_{account}")]
    start(name, *options, image="mariadb:10.11", volume="/var/lib/mysql")

    def query(sql: str) -> subprocess.CompletedProcess[str]:
        client = ("mariadb", "-h", "127.0.0.1", "-u", "shop", "-N", "shop_1", "-e", sql)
        return docker("exec", "--env", "MYSQL_PWD=back\\slash", name, *client, check=False)

    wait_until("MariaDB answers", lambda: query("SELECT 1").returncode == 0)
    query("CREATE TABLE t (id int); INSERT INTO t VALUES (7)")
    docker("restart", name)
    wait_until("MariaDB answers again", lambda: query("SELECT 1").returncode == 0)
    assert query("SELECT id FROM t").stdout.strip() == "7"


def test_redis_keeps_its_keys_over_a_clean_stop(name: str) -> None:
    start(name, image="redis:7", volume="/data")
    wait_until(
        "Redis answers",
        lambda: docker("exec", name, "redis-cli", "ping", check=False).stdout.strip() == "PONG",
    )
    docker("exec", name, "redis-cli", "set", "key", "value")
    docker("restart", name)
    wait_until(
        "Redis answers",
        lambda: docker("exec", name, "redis-cli", "ping", check=False).stdout.strip() == "PONG",
    )
    assert docker("exec", name, "redis-cli", "get", "key").stdout.strip() == "value"


def test_the_example_is_the_reference_project_with_its_six_volumes_filled(
    module_dating: ComposeProject,
) -> None:
    project = module_dating
    keys = (
        "postgres_data",
        "photo_storage",
        "traefik_certs",
        "prometheus_data",
        "grafana_data",
        "loki_data",
    )
    assert project.volumes() == sorted(f"{project.name}_{key}" for key in keys)
    services = ("bot", "db", "grafana", "loki", "prometheus", "traefik")
    assert project.running() == [f"{project.name}-{service}-1" for service in services]
    assert project.psql("SELECT count(*) FROM users") == "100"
    for key in keys:
        volume = f"{project.name}_{key}:/v:ro"
        look = (
            "run",
            "--rm",
            "--pull=never",
            "--network",
            "none",
            "--volume",
            volume,
            "busybox:latest",
        )
        assert docker(*look, "find", "/v", "-type", "f").stdout.strip(), f"{key} is empty"


def test_the_example_publishes_no_port_and_its_counts_show_any_change(
    module_dating: ComposeProject,
) -> None:
    project = module_dating
    assert "->" not in project.docker("compose", "ps", "--format", "{{.Ports}}").stdout
    before = project.count_rows()
    assert before.split()[:2] == ["users", "100"]
    assert project.count_rows() == before


def test_each_kept_version_of_compose_is_the_one_that_its_folder_says() -> None:
    versions = sorted(path.parent.name for path in (LAB / "compose").glob("*/docker-compose"))
    assert versions
    for version in versions:
        argv = [LAB / "compose" / version / "docker-compose", "version", "--short"]
        answer = subprocess.run(argv, capture_output=True, text=True)
        assert answer.stdout.startswith(version)
