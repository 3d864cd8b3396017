"""A password with characters that a connection string needs for itself is found where nobody
encoded it, and said.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from safe_compose import credentials
from safe_compose.credentials import Account, CredentialFile, dsn
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker

HARD = "p@ss/w:rd#1"


@pytest.mark.parametrize(
    ("text", "password", "encoded"),
    [
        pytest.param(f"postgres://app:{HARD}@db:5432/app", HARD, "postgres://app:p%40ss%2Fw%3Ard%231@db:5432/app", id="url"),
        pytest.param(f"postgresql+asyncpg://app:{HARD}@db/app?sslmode=disable", HARD,
                     "postgresql+asyncpg://app:p%40ss%2Fw%3Ard%231@db/app?sslmode=disable", id="url with a driver"),
        pytest.param(f"mysql://app:{HARD}@db/app", HARD, "mysql://app:p%40ss%2Fw%3Ard%231@db/app", id="mysql"),
        pytest.param(f"redis://:{HARD}@cache:6379/0", HARD, "redis://:p%40ss%2Fw%3Ard%231@cache:6379/0", id="redis"),
        pytest.param(f"mongodb://app:{HARD}@a:1,b:2/app", HARD, "mongodb://app:p%40ss%2Fw%3Ard%231@a:1,b:2/app", id="two hosts"),
        pytest.param("postgres://app:a%41b@db/app", "a%41b", "postgres://app:a%2541b@db/app", id="a percent sign"),
        pytest.param("postgres://app:a@b@db/app", "a@b", "postgres://app:a%40b@db/app", id="an at sign"),
        pytest.param("postgres://app:a b@[::1]:5/app", "a b", "postgres://app:a%20b@[::1]:5/app", id="a blank and IPv6"),
        pytest.param("jdbc:postgresql://db/app?user=app&password=a&b#1", "a&b#1",
                     "jdbc:postgresql://db/app?user=app&password=a%26b%231", id="jdbc"),
        pytest.param("host=db user=app password=a b dbname=app", "a b", "host=db user=app password='a b' dbname=app", id="libpq"),
        pytest.param("host=db user=app password=it's", "it's", "host=db user=app password='it\\'s'", id="libpq, a quote"),
    ],
)  # fmt: skip
def test_a_raw_password_is_found_and_written_as_its_form_needs(
    text: str, password: str, encoded: str
) -> None:
    [found] = dsn.find_passwords(text, password)
    assert found.raw and found.means(password) and found.user in ("app", ""), found
    after = dsn.put(text, found, password)
    assert after == encoded
    [again] = dsn.find_passwords(after, password)
    assert (
        not again.raw
        and again.means(password)
        and (again.user, again.host) == (found.user, found.host)
    )


@pytest.mark.parametrize(
    "text",
    [
        "postgres://app:p%40ss%2Fw%3Ard%231@db/app",
        f"host=db user=app password={HARD}",
        f"host=db password='{HARD}'",
        f"see {HARD}",
    ],
    ids=["encoded", "libpq takes it", "quoted", "prose"],
)
def test_what_reads_as_it_was_meant_is_left_alone(text: str) -> None:
    assert not any(f.raw for f in dsn.find_passwords(text, HARD))


def model(**environment: str) -> dict[str, Any]:
    db = {
        "image": "postgres:15",
        "environment": {"POSTGRES_USER": "app", "POSTGRES_PASSWORD": HARD},
    }
    return {
        "name": "shop",
        "services": {"db": db, "app": {"image": "app", "environment": environment}},
    }


def test_every_string_that_a_password_breaks_is_named_by_its_place() -> None:
    told = model(
        DATABASE_URL=f"postgres://app:{HARD}@db/app",
        SAFE_URL="postgres://app:p%40ss%2Fw%3Ard%231@db/app",
        DSN=f"host=db user=app password={HARD}",
        REDIS_PASSWORD="x/y",
        REDIS_URL="redis://:x/y@cache",
    )
    places = credentials.find_unencoded(told, credentials.collect_secrets(told))
    assert places == ["app.environment.DATABASE_URL", "app.environment.REDIS_URL"]
    account = Account("db", "postgres", "app", HARD, ("POSTGRES_PASSWORD",))
    assert credentials.find_other_logins(told, account) == []


def test_a_new_password_replaces_a_raw_one_encoded() -> None:
    text = f"DB=x\nDATABASE_URL='postgres://app:{HARD}@db/app'\nPOSTGRES_PASSWORD={HARD}\n"
    account = Account("db", "postgres", "app", HARD, ("POSTGRES_PASSWORD",))
    told = model(DATABASE_URL=f"postgres://app:{HARD}@db/app")
    found = credentials.survey(
        told, told, [CredentialFile(".env", "env", text)], account, "n/w", exported={}
    )
    [edit] = found.edits
    assert (
        edit.text == "DB=x\nDATABASE_URL='postgres://app:n%2Fw@db/app'\nPOSTGRES_PASSWORD=n/w\n"
    ), found.refusals
    assert found.refusals == ()


@pytest.mark.thorough
@pytest.mark.engine
def test_sync_says_which_url_the_password_breaks_and_shows_no_value(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    text = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: app, POSTGRES_PASSWORD: "${DB_PASSWORD}", POSTGRES_DB: app}
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, app], interval: 1s, retries: 60}
    volumes: ["data:/var/lib/postgresql/data"]
  app:
    image: busybox:latest
    command: [sleep, "100000"]
    init: true
    environment: {DATABASE_URL: "postgres://app:${DB_PASSWORD}@db:5432/app"}
    volumes: ["uploads:/app/uploads"]
volumes: {data: , uploads: }
"""
    project = compose_project(text, files={".env": "DB_PASSWORD=before\n"})
    project.docker("compose", "up", "--detach", "--pull", "never", "--wait")
    (project.folder / ".env").write_text(f"DB_PASSWORD={HARD}\n")
    done = safe_compose("rotate-password", "--sync", "--yes", "--json", "db", cwd=project.folder)
    assert done.returncode == 0, done.stderr
    rotated = json.loads(done.stdout)["rotated"]
    [note] = [n for n in rotated["notes"] if "app.environment.DATABASE_URL" in n]
    assert (
        "percent-encoded" in note
        and "%40" in note
        and "safe-compose rotate-password --generate db" in note
    )
    assert (
        rotated["unencoded"] == ["app.environment.DATABASE_URL"]
        and HARD not in done.stdout + done.stderr
    )
    again = safe_compose("rotate-password", "--sync", "--yes", "db", cwd=project.folder)
    assert (
        again.returncode == 0 and "still broken" in again.stderr and "DATABASE_URL" in again.stderr
    ), again.stderr
    shown = safe_compose("rotate-password", "--sync", "--dry-run", "db", cwd=project.folder)
    assert (
        "app.environment.DATABASE_URL holds a password as it is" in shown.stdout
        and HARD not in shown.stdout + shown.stderr
    )
    assert docker(
        "ps", "-q", "--filter", f"label=com.docker.compose.project={project.name}"
    ).stdout.strip()
