"""`rotate-password` on real servers: the incident, the change, and everything put back whatever
happens in between.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.messages import write_catalogue
from testing.projects import ComposeProject, docker, unique, wait_until
from testing.terminal import Person
from testing.watch import command_lines

pytestmark = [pytest.mark.engine, pytest.mark.long]

FIRST, SECOND, THIRD, FIFTH = (f"canary-9a31-{n}" for n in ("first", "second", "third", "fifth"))
SHOP = """\
# the shop
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: "${DB_PASSWORD:?}", POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
  web:
    image: postgres:15
    environment:
      DATABASE_URL: postgresql://shop:${DB_PASSWORD}@db:5432/shop
    entrypoint: [sleep, "1000000"]
    init: true
    tmpfs: [/var/lib/postgresql/data]
    healthcheck:
      test: [CMD-SHELL, 'p=$${DATABASE_URL#*shop:}; PGPASSWORD=$${p%%@*} psql -h db -U shop -d shop -qc "SELECT 1"']
      interval: 1s
      retries: 3
    depends_on: {db: {condition: service_healthy}}
volumes: {data: }
"""
ENV = f"# of production\nTAG=1.2   # of web\n\nexport DB_PASSWORD={FIRST} # ask Anna\nOTHER='x'\n"


@pytest.fixture(scope="module")
def shop(module_compose_project: ProjectFactory) -> ComposeProject:
    """A shop with rows, whose web service logs in over the network. Each test leaves it working,
    with some password.
    """
    project = module_compose_project(SHOP, files={".env": ENV})
    (project.folder / ".env").chmod(0o640)
    project.up()
    sql(project, "CREATE TABLE orders AS SELECT g FROM generate_series(1, 500) g")
    return project


def sql(project: ComposeProject, query: str) -> str:
    return project.psql(query, user="shop", database="shop")


def env(project: ComposeProject) -> str:
    return (project.folder / ".env").read_text()


def password_of(project: ComposeProject) -> str:
    """The one that `.env` says."""
    return env(project).partition("DB_PASSWORD=")[2].split()[0]


def can_log_in(project: ComposeProject, password: str) -> bool:
    """A login over the project's network, from its web service."""
    argv = (
        "exec",
        "-e",
        "PGPASSWORD",
        f"{project.name}-web-1",
        "psql",
        "host=db user=shop dbname=shop",
        "-qc",
        "SELECT 1",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", password)
        done = docker(*argv, check=False)
    assert done.returncode == 0 or "password authentication failed" in done.stderr, done.stderr
    return done.returncode == 0


def health(project: ComposeProject, service: str) -> str:
    return docker(
        "inspect", f"{project.name}-{service}-1", "--format", "{{.State.Health.Status}}"
    ).stdout.strip()


def no_secret_in(home: Path, project: ComposeProject, *texts: object) -> None:
    """No password in what was said, in argvs, in the server's log, and in no file of the store,
    packed ones apart.
    """
    kept = [
        p.read_bytes()
        for p in (home / "safe-compose").rglob("*")
        if p.is_file() and p.suffix != ".gz"
    ]
    log = docker("logs", f"{project.name}-db-1").stderr
    assert "SCRAM-SHA-256" not in log
    said = [t if isinstance(t, bytes) else str(t).encode() for t in (*texts, log)]
    assert [t for t in (*kept, *said) if b"canary-9a31" in t] == []
    assert not list((home / "safe-compose" / ".rotations").glob("*"))


@pytest.mark.thorough
def test_the_incident_and_the_way_out_of_it(
    shop: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    """A deploy changes the password in `.env`; nothing can log in; somebody types `down -v`."""
    old = password_of(shop)
    (shop.folder / ".env").write_text(ENV.replace(FIRST, FIFTH))
    shop.docker("compose", "up", "-d", "--pull", "never", "--no-deps", "db", "web")
    wait_until("web is refused", lambda: health(shop, "web") == "unhealthy")
    assert not can_log_in(shop, FIFTH)
    person = Person("compose", "down", "-v", cwd=shop.folder)
    screen = person.sees(f"type '{shop.name}'")
    person.presses("d")
    assert person.leaves_with() == 77
    assert "failed logins" in screen
    assert "safe-compose rotate-password --sync db" in screen

    examined = safe_compose("doctor", "--json", cwd=shop.folder)
    assert json.loads(examined.stdout)["project"]["passwords"] == [
        {"service": "db", "role": "shop", "agrees": False, "why": None}
    ]
    assert "safe-compose rotate-password --sync db" in str(json.loads(examined.stdout)["attention"])

    asked = safe_compose("rotate-password", "--sync", "db", "--dry-run", cwd=shop.folder)
    assert "the database has another one" in asked.stdout
    assert not can_log_in(shop, FIFTH)
    with command_lines() as argvs:
        done = safe_compose("rotate-password", "--sync", "db", "--yes", cwd=shop.folder)
    assert done.returncode == 0, done.stderr
    assert can_log_in(shop, FIFTH) and not can_log_in(shop, old)
    wait_until("web is let in", lambda: health(shop, "web") == "healthy")
    assert sql(shop, "SELECT count(*), sum(g) FROM orders") == "500|125250"
    assert env(shop) == ENV.replace(FIRST, FIFTH)
    no_secret_in(sealed_environment, shop, screen, examined, asked, done, *argvs)
    backups = json.loads(safe_compose("list", "--json", cwd=shop.folder).stdout)["backups"]
    assert [(b["reason"], bool(b["verified"])) for b in backups] == [("pre-rotate", True)]

    assert (
        json.loads(safe_compose("doctor", "--json", cwd=shop.folder).stdout)["project"][
            "passwords"
        ][0]["agrees"]
        is True
    )
    again = safe_compose("rotate-password", "--sync", "db", "--yes", "--json", cwd=shop.folder)
    assert json.loads(again.stdout)["rotated"]["agreed_before"] is True
    assert json.loads(again.stdout)["rotated"]["backup"] is None


@pytest.mark.thorough
def test_a_password_is_changed_everywhere_or_nowhere(
    shop: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    old, text = password_of(shop), env(shop)
    before = (shop.folder / ".env").stat()
    neighbour = unique("neighbour")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_DB_PASSWORD", old)
        docker(
            "run", "-d", "--rm", "--name", neighbour, "--network", f"{shop.name}_default", "-e",
            "SHOP_DB_PASSWORD", "busybox:latest", "sleep", "1000000",
        )  # fmt: skip
    try:
        asked = safe_compose("rotate-password", "db", "--dry-run", cwd=shop.folder)
    finally:
        docker("rm", "-f", neighbour)
    assert f"container {neighbour} has the old password (SHOP_DB_PASSWORD)" in asked.stdout
    assert "takes effect as well" not in asked.stdout
    with command_lines() as argvs:
        done = safe_compose(
            "rotate-password", "db", "--stdin", "--yes", cwd=shop.folder, input=f"{SECOND}\n"
        )
    assert done.returncode == 0, done.stderr
    after = (shop.folder / ".env").stat()
    assert env(shop) == text.replace(old, SECOND)
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert (shop.folder / "compose.yaml").read_text() == SHOP
    assert health(shop, "web") == "healthy"
    assert can_log_in(shop, SECOND) and not can_log_in(shop, old)
    assert sql(shop, "SELECT count(*) FROM orders") == "500"
    assert "recreated:  db, web" in done.stdout
    no_secret_in(sealed_environment, shop, asked, done, *argvs)
    quiet = shop.docker("compose", "up", "-d", "--pull", "never").stderr
    assert "Recreate" not in quiet

    # what the server refuses is put back, the role as well: nobody is let in past VALID UNTIL, with
    # whatever password
    sql(shop, "ALTER ROLE shop VALID UNTIL '2001-01-01'")
    verifier = sql(shop, "SELECT rolpassword FROM pg_authid WHERE rolname = 'shop'")
    refused = safe_compose(
        "rotate-password", "db", "--stdin", "--yes", cwd=shop.folder, input=THIRD
    )
    assert refused.returncode == 73
    assert "past its VALID UNTIL" in refused.stdout
    assert "put back: " in refused.stderr
    assert env(shop) == text.replace(old, SECOND)
    assert sql(shop, "SELECT rolpassword FROM pg_authid WHERE rolname = 'shop'") == verifier
    sql(shop, "ALTER ROLE shop VALID UNTIL 'infinity'")

    # a person at a terminal, whose Ctrl-C comes when the database has the new password already
    person = Person("rotate-password", "db", cwd=shop.folder)
    for question in ("New password: ", "The same again: "):
        person.sees(question)
        person.types(THIRD)
    plan = person.sees("Change it?")
    person.types("y")
    said = person.sees("lets shop in over the network")
    person.presses("c")
    assert person.leaves_with() == 130
    assert "put back: " in person.last_words
    assert THIRD not in plan + said + person.last_words
    assert env(shop) == text.replace(old, SECOND)
    assert can_log_in(shop, SECOND) and not can_log_in(shop, THIRD)
    wait_until("web is let in", lambda: health(shop, "web") == "healthy")

    # no space for what the rollback needs: nothing is begun, and nothing is left for `recover`
    full = failing_syscalls("fsync", "/.rotations/", "ENOSPC")
    full = safe_compose("rotate-password", "db", "--generate", "--yes", cwd=shop.folder, env=full)
    assert full.returncode == 73
    assert "put back: nothing had changed" in full.stderr

    # an exported variable wins over `.env`: refused before anything
    exported = safe_compose(
        "rotate-password", "db", "--generate", "--yes", cwd=shop.folder, env={"DB_PASSWORD": SECOND}
    )
    assert exported.returncode == 77
    assert "DB_PASSWORD is exported in this shell" in exported.stderr
    assert sql(shop, "SELECT rolpassword FROM pg_authid WHERE rolname = 'shop'") == verifier
    no_secret_in(sealed_environment, shop, refused, full, exported)

    elsewhere = safe_compose("rotate-password", "db", "--generate", "--yes", cwd=sealed_environment)
    assert elsewhere.returncode == 77
    assert "there is no compose file here" in elsewhere.stderr
    shop.docker("compose", "pause", "db")
    paused = safe_compose("rotate-password", "db", "--generate", "--yes", cwd=shop.folder)
    shop.docker("compose", "unpause", "db")
    assert paused.returncode == 77
    assert "docker compose unpause db" in paused.stderr


SECRET = """\
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD_FILE: /run/secrets/db, POSTGRES_DB: shop}
    secrets: [db]
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
  web:
    image: postgres:15
    environment: {LEFT: "postgresql://shop:canary-9a31-first@db/shop"}
    secrets: [db]
    entrypoint: [sleep, "1000000"]
    init: true
    tmpfs: [/var/lib/postgresql/data]
    healthcheck:
      test: [CMD-SHELL, 'PGPASSWORD=$$(cat /run/secrets/db) psql -h db -U shop -d shop -qc "SELECT 1"']
      interval: 1s
      retries: 3
    depends_on: {db: {condition: service_healthy}}
secrets: {db: {file: password.txt}}
volumes: {data: }
"""
KILLS: Mapping[str, tuple[int, str]] = {
    "after the database": (6, FIRST),
    "after everything": (8, SECOND),
}


@pytest.mark.thorough
def test_secrets_change_and_a_run_that_is_killed_is_put_back_or_found_complete(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(SECRET, files={"password.txt": f"{FIRST}\n"})
    secret = project.folder / "password.txt"
    secret.chmod(0o444)
    project.up()
    sql(project, "CREATE TABLE orders AS SELECT g FROM generate_series(1, 500) g")
    asked = safe_compose("rotate-password", "db", "--dry-run", cwd=project.folder)
    assert "compose.yaml: services.web.environment.LEFT" in asked.stdout
    assert "password.txt: all of it" in asked.stdout
    change = ("rotate-password", "db", "--stdin", "--yes", "--leave", "LEFT")
    for when, (skip, holds) in KILLS.items():
        killing = failing_syscalls("fsync", ".jsonl", "KILL", skip=skip)
        killed = safe_compose(*change, cwd=project.folder, input=SECOND, env=killing)
        assert killed.returncode == -9, (when, killed.stderr)
        if when == "after the database":
            again = safe_compose(*change, cwd=project.folder, input=THIRD)
            assert again.returncode == 77
            assert "safe-compose recover" in again.stderr
        recovered = safe_compose("recover", cwd=project.folder)
        assert recovered.returncode == 0, recovered.stderr
        assert "cut off while it changed the password of service db" in recovered.stdout
        assert secret.read_text() == f"{holds}\n", when
        assert secret.stat().st_mode & 0o777 == 0o444
        assert can_log_in(project, holds), when
        wait_until("web is let in", lambda: health(project, "web") == "healthy")
        no_secret_in(sealed_environment, project, killed, recovered)
    assert sql(project, "SELECT count(*) FROM orders") == "500"
    assert safe_compose("recover", cwd=project.folder).stdout == "nothing to recover\n"
    assert FIRST in (project.folder / "compose.yaml").read_text()


IN_A_FOLDER = """\
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: "${DB_PASSWORD:?}", POSTGRES_DB: shop}
    volumes: ["./данные:/var/lib/postgresql/data"]
  web:
    image: postgres:15
    environment: {DATABASE_URL: "postgresql://shop:${DB_PASSWORD}@db/shop"}
    entrypoint: [sleep, "1000000"]
    init: true
    tmpfs: [/var/lib/postgresql/data]
    healthcheck: {test: ["CMD", "false"], interval: 1s, start_period: 1h}
  forgotten:
    image: postgres:15
    environment: {DATABASE_URL: "postgresql://shop:${DB_PASSWORD}@db/shop"}
    entrypoint: [sh, -c, "PGPASSWORD=nobodys psql -qh db -U shop -d shop; touch /tmp/tried; exec sleep 1000000"]
    init: true
    tmpfs: [/var/lib/postgresql/data]
    healthcheck: {test: [CMD, test, -e, /tmp/tried], interval: 1s, retries: 60}
"""


@pytest.mark.thorough
def test_data_in_a_folder_of_the_host_is_dumped_and_nobody_waits_for_a_service_that_was_not_healthy(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(IN_A_FOLDER, files={".env": f"DB_PASSWORD={FIRST}\n"})
    folder = project.folder / "данные"
    ready = ("exec", f"{project.name}-db-1", "pg_isready", "-q", "-h", "127.0.0.1")
    try:
        project.docker("compose", "up", "-d", "--pull", "never")
        wait_until("the server answers", lambda: docker(*ready, check=False).returncode == 0)
        wait_until("the third has tried", lambda: health(project, "forgotten") == "healthy")
        sql(project, "CREATE TABLE orders AS SELECT g FROM generate_series(1, 500) g")
        done = safe_compose(
            "rotate-password", "db", "--stdin", "--yes", cwd=project.folder, input=SECOND
        )
        assert done.returncode == 0, done.stderr
        assert f"backup:     a dump of {folder}, a folder of the host" in done.stdout
        assert (
            "1 login was refused as shop since: something still has another password" in done.stderr
        )
        assert (
            f"not waiting until {project.name}-web-1 is healthy: it was not before" in done.stderr
        )
        (project.folder / ".env").write_text(f"DB_PASSWORD={THIRD}\n")
        synced = safe_compose("rotate-password", "--sync", "db", "--yes", cwd=project.folder)
        assert synced.returncode == 0, synced.stderr
        assert can_log_in(project, THIRD) and not can_log_in(project, SECOND)
        assert sql(project, "SELECT count(*), sum(g) FROM orders") == "500|125250"
        no_secret_in(sealed_environment, project, done, synced)

        newest = json.loads(safe_compose("list", "--json", cwd=project.folder).stdout)["backups"][0]
        assert newest["volumes"] == [str(folder)]
        restored = safe_compose(
            "restore", newest["id"], "--into", "scratch", "--dry-run", cwd=project.folder
        )
        assert restored.returncode == 0, restored.stderr
        assert "2 databases, 500 rows" in restored.stdout + restored.stderr
    finally:
        project.docker("compose", "down", "-t", "1")
        docker(
            "run",
            "--rm",
            "-v",
            f"{project.folder}:/project",
            "busybox:latest",
            "rm",
            "-rf",
            f"/project/{folder.name}",
        )


MARIADB = """\
services:
  db:
    image: mariadb:10.11
    environment:
      MARIADB_ROOT_PASSWORD: ${ROOT_PASSWORD}
      MARIADB_DATABASE: shop
      MARIADB_USER: app
      MARIADB_PASSWORD: ${APP_PASSWORD}
    volumes: ["data:/var/lib/mysql"]
    healthcheck: {test: [CMD, mariadb-admin, ping, -h, 127.0.0.1], interval: 1s, retries: 60}
volumes: {data: }
"""


def mariadb_lets_in(project: ComposeProject, user: str, password: str) -> bool:
    """A login to the container's own address, whose client is told the password by its environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYSQL_PWD", password)
        client = ("mariadb", "-h", "db", "-u", user, "-e", "SELECT 1")
        done = docker("exec", "-e", "MYSQL_PWD", f"{project.name}-db-1", *client, check=False)
    assert done.returncode == 0 or "1045" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.thorough
def test_accounts_of_mariadb_change_and_follow(
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    sealed_environment: Path,
    tmp_path: Path,
) -> None:
    project = compose_project(
        MARIADB, files={".env": f"ROOT_PASSWORD={FIRST}\nAPP_PASSWORD={THIRD}\n"}
    )
    project.up()
    assert mariadb_lets_in(project, "root", FIRST)
    with command_lines() as argvs:
        done = safe_compose(
            "rotate-password", "db", "--stdin", "--yes", cwd=project.folder, input=SECOND
        )
    assert done.returncode == 0, done.stderr
    assert "refused" not in done.stderr
    assert mariadb_lets_in(project, "root", SECOND) and not mariadb_lets_in(project, "root", FIRST)
    no_secret_in(sealed_environment, project, done, *argvs)

    # the incident: here nobody gets in without the old one, which only a person knows
    (project.folder / ".env").write_text(f"ROOT_PASSWORD={FIRST}\nAPP_PASSWORD={THIRD}\n")
    project.docker("compose", "up", "-d", "--wait", "--pull", "never")
    refused = safe_compose("rotate-password", "--sync", "db", "--yes", cwd=project.folder)
    assert refused.returncode == 73
    assert "--old-file FILE" in refused.stderr
    assert not mariadb_lets_in(project, "root", FIRST)
    person = Person("compose", "down", "-v", cwd=project.folder)
    screen = person.sees(f"type '{project.name}'")
    person.presses("d")
    assert person.leaves_with() == 77
    assert (
        "shows failed logins (1)" in screen and "safe-compose rotate-password --sync db" in screen
    )
    (tmp_path / "old").write_text(f"{SECOND}\n")
    synced = safe_compose(
        "rotate-password",
        "--sync",
        "db",
        "--yes",
        "--old-file",
        str(tmp_path / "old"),
        cwd=project.folder,
    )
    assert synced.returncode == 0, synced.stderr
    assert mariadb_lets_in(project, "root", FIRST) and not mariadb_lets_in(project, "root", SECOND)
    no_secret_in(sealed_environment, project, refused, synced)


@pytest.mark.thorough
def test_a_wrong_password_is_seen_whatever_language_the_server_speaks(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    write_catalogue(
        tmp_path / "tr/LC_MESSAGES/postgres-15.mo",
        {
            "FATAL": "ÖLÜMCÜL",
            'password authentication failed for user "%s"': (
                '"%s" kullanıcısı için şifre doğrulaması başarısız oldu'
            ),
        },
    )
    project = compose_project(
        f"""
services:
  db:
    image: postgres:15
    command: postgres -c lc_messages=C.UTF-8
    environment: {{LANGUAGE: tr, POSTGRES_PASSWORD: "${{DB_PASSWORD:?}}"}}
    volumes: ["data:/var/lib/postgresql/data", "{tmp_path}/tr:/usr/share/locale/tr:ro"]
volumes: {{data: }}
""",
        files={".env": f"DB_PASSWORD={FIRST}\n"},
    )
    project.up()
    (project.folder / ".env").write_text(f"DB_PASSWORD={SECOND}\n")
    project.docker("compose", "up", "-d", "--wait", "--pull", "never")

    def examine() -> object:
        examined = safe_compose("doctor", "--json", cwd=project.folder)
        return json.loads(examined.stdout)["project"]["passwords"]

    wrong = {"service": "db", "role": "postgres", "agrees": False, "why": None}
    wait_until("the server answers", lambda: examine() == [wrong])
    assert "doğrulaması başarısız" in docker("logs", f"{project.name}-db-1").stderr
    synced = safe_compose("rotate-password", "--sync", "db", "--yes", cwd=project.folder)
    assert synced.returncode == 0, synced.stderr
    assert examine() == [{**wrong, "agrees": True}]
