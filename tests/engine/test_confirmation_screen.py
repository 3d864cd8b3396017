"""The confirmation screen on a real engine: what it measures, and that it never waits for long. How
its lines are laid out stands in `tests/unit/test_confirmation_lines.py`.
"""

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from safe_compose.core import quantities
from safe_compose.engine import connect
from safe_compose.ui import terminal
from safe_compose.volumes import last_write
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, real_docker, unique
from testing.terminal import Person

MIB = 1 << 20


def test_no_word_of_others_commands_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """The answer of a server, that would clear the screen."""
    terminal.say("the server said \x1b[2J\x07, and more\n  next: look")
    assert capfd.readouterr().err == "the server said \\x1b[2J\\x07, and more\\n  next: look\n"


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (timedelta(seconds=0.2), "just now"),
        (timedelta(seconds=-5), "in 5 seconds"),
        (timedelta(seconds=89), "89 seconds ago"),
        (timedelta(minutes=3), "3 minutes ago"),
        (timedelta(hours=5), "5 hours ago"),
        (timedelta(days=40), "40 days ago"),
    ],
)
def test_moments_are_told_as_people_tell_them(ago: timedelta, words: str) -> None:
    now = datetime(2026, 11, 25, 15, 44, tzinfo=UTC)
    told = quantities.format_moment(now - ago, now)
    assert told.endswith(f" UTC, {words}")


@pytest.mark.parametrize(
    ("done", "total", "seconds", "words"),
    [
        (0, None, 12.3, "12 seconds"),
        (0, 100, 0.0, "0 seconds"),
        (663, 75 * MIB, 1.0, "1 second"),  # the head of a dump: a rate of it would promise hours
        (50 * MIB, None, 10.0, "50.0 MiB, 5.0 MiB/s, 10 seconds"),
        (50 * MIB, 100 * MIB, 10.0, "50.0 MiB, 5.0 MiB/s, about 10 seconds left"),
        (
            50 * MIB,
            40 * MIB,
            10.0,
            "50.0 MiB, 5.0 MiB/s, 10 seconds",
        ),  # it was more than was measured before
    ],
)
def test_progress_tells_rate_and_time_left(
    done: int, total: int | None, seconds: float, words: str
) -> None:
    assert terminal.format_pace(done, total, seconds) == words


# -- on a real engine ------------------------------------------------------------------------------

SHOP = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-first, POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
volumes: {data: }
"""


@pytest.fixture(scope="module")
def shop(module_compose_project: ProjectFactory) -> ComposeProject:
    """A running database that nobody changes."""
    project = module_compose_project(SHOP)
    project.up()
    return project


def screen_of(project: ComposeProject) -> str:
    person = Person("compose", "down", "-v", cwd=project.folder)
    text = person.sees(f"type '{project.name}'")
    person.presses("d")
    assert person.leaves_with() == 77
    return text


@pytest.mark.engine
def test_on_a_small_terminal_the_headline_stays_details_cost_no_try_and_one_typo_is_forgiven(
    shop: ComposeProject,
) -> None:
    person = Person("compose", "down", "-v", cwd=shop.folder, columns=80, rows=24)
    question = f"type '{shop.name}': "
    person.sees(question)
    first = person.shows()
    assert first[0] == "This command deletes 1 volume for good."
    assert sum(bool(line) for line in first) <= 22
    [entry] = [n for n, line in enumerate(first) if line.startswith(f"{shop.name}_data  critical")]
    assert "postgres" in first[entry + 1].lower() and "no verified backup" in first[entry + 1]
    assert f"will stop {shop.name}-db-1, which starts again" in "\n".join(first)
    for _ in range(2):
        person.types("?")
        details = person.sees(question)
        assert "image postgres:15 mounts it at its data directory" in details
    person.types(shop.name.upper())
    assert "That was not" in person.sees(question)
    person.types("?")
    person.sees(question)
    person.types("still wrong")
    assert person.leaves_with() == 77
    assert "nothing was deleted" in person.last_words and shop.running()


@pytest.mark.engine
def test_a_terminal_that_can_do_less_gets_no_more(shop: ComposeProject) -> None:
    for environ in ({"TERM": "dumb"}, {"NO_COLOR": "1", "COLUMNS": "500"}):
        person = Person("compose", "down", "-v", cwd=shop.folder, columns=80, rows=24, env=environ)
        text = person.sees(f"type '{shop.name}': ")
        assert person.shows()[0] == "This command deletes 1 volume for good."
        assert "\x1b[1;31m" not in text and ("\x1b" not in text or "TERM" not in environ)
        person.presses("d")
        assert person.leaves_with() == 77


@pytest.mark.engine
def test_a_server_that_hangs_is_not_waited_for(shop: ComposeProject) -> None:
    main = int(docker("inspect", f"{shop.name}-db-1", "--format", "{{.State.Pid}}").stdout)
    os.kill(main, signal.SIGSTOP)
    try:
        assert "postgres, contents unknown" in screen_of(shop)
    finally:
        os.kill(main, signal.SIGCONT)


@pytest.mark.engine
def test_failed_logins_in_the_log_bring_up_the_cure_that_keeps_the_data(
    shop: ComposeProject,
) -> None:
    assert "failed logins" not in screen_of(shop)
    address = f"host={shop.name}-db-1 user=shop dbname=shop"
    network = f"{shop.name}_default"
    tried = docker(
        "run",
        "--rm",
        "--network",
        network,
        "-e",
        "PGPASSWORD=wrong",
        "postgres:15",
        "psql",
        address,
        "-c",
        "SELECT 1",
        check=False,
    )
    assert "password authentication failed" in tried.stderr
    text = screen_of(shop)
    assert "shows failed logins (1)" in text
    assert "safe-compose rotate-password --sync db" in text
    assert "canary" not in text


@pytest.mark.engine
def test_a_database_that_does_not_run_is_said_to_get_no_dump(shop: ComposeProject) -> None:
    shop.docker("compose", "stop")
    try:
        text = screen_of(shop)
        assert "no dump: server was not running" in text
        assert "keeps every volume with a name" in text
    finally:
        shop.up()


@pytest.fixture
def volumes(lab: None) -> Iterator[tuple[str, str]]:
    """A volume with a file of the year 2001 in a folder that is newer, below a name that looks like
    another answer; and one with nothing in it.
    """
    names = unique("written"), unique("empty")
    for name in names:
        docker("volume", "create", name)
    script = (
        "mkdir /v/d; touch '/v/d/a\n9999999999 ' ; touch -d '2001-02-03 04:05:06' /v/d/*; touch -d"
        " '2002-02-03 04:05:06' /v/d /v"
    )
    docker(
        "run",
        "--rm",
        "-v",
        f"{names[0]}:/v",
        "--network",
        "none",
        "busybox:latest",
        "sh",
        "-c",
        script,
    )
    yield names
    docker("volume", "rm", *names)


@pytest.mark.engine
def test_the_last_write_is_the_newest_time_of_anything_in_the_volume(
    volumes: tuple[str, str],
) -> None:
    with connect(real_docker(), (), environ=dict(os.environ), run_id=unique("run")) as engine:
        found = last_write.find_last_writes(engine, volumes, timeout=60)
        assert found[volumes[0]] == datetime(2002, 2, 3, 4, 5, 6, tzinfo=UTC)
        assert abs(found[volumes[1]] - datetime.now(UTC)) < timedelta(hours=1)
        assert last_write.find_last_writes(engine, volumes, timeout=0) == {}
        assert engine.helpers.leftovers() == ()


# -- refusals name flags that go together ----------------------------------------------------------


@pytest.mark.engine
def test_the_flags_that_a_refusal_names_do_not_contradict_each_other(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        "services: {app: {image: busybox, volumes: ['up:/uploads']}}\nvolumes: {up: }\n"
    )
    project.docker("compose", "create", "--pull", "never")
    docker(
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{project.name}_up:/v",
        "busybox:latest",
        "touch",
        "/v/f",
    )
    answer = safe_compose("--skip-backup", "compose", "down", "-v", cwd=project.folder)
    assert answer.returncode == 77
    assert f"--confirm 'delete {project.name} without backup'" in answer.stderr
    assert "--backup-first" not in answer.stderr
