"""The card: what a person must see before the question, how it reads at any width, and that it never waits for long."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from conftest import ProjectFactory, SafeCompose
from lab.projects import ComposeProject, docker, real_docker, unique
from lab.terminal import Person
from safe_compose import plan, prompts
from safe_compose.engine import connect
from safe_compose.grammar import parse
from safe_compose.methods import written
from safe_compose.observed import Container, Observed, Project, Volume
from safe_compose.plan import Doomed
from safe_compose.policy import Tier, Verdict
from safe_compose.threat import Threat

MIB = 1 << 20


def painted(
    *,
    bytes: int | None = 100 * MIB,
    measuring: bool = False,
    width: int = 120,
    patience: int = 180,
    words: str = "",
    owner: str | None = None,
) -> str:
    """The card of a `down -v` with one critical volume and one running container."""
    app = Container("c1", "shop-app-1", "busybox:latest", "sha256:1", "running")
    volume = Volume("shop_uploads_with_a_rather_long_name")
    verdict = Verdict(volume.name, Tier.CRITICAL, "nobody knows it", "files", explicit=False)
    doomed = [Doomed(volume, verdict, (app,), owner, bytes=bytes)]
    observed = Observed("unix:///var/run/docker.sock", "engine", project=Project("shop", "folder", "config"))
    threat = Threat("compose_down_volumes", (volume,), (), (app,), ())
    made = replace(plan.make(parse([*words.split(), "compose", "down", "-v"]), observed, threat, doomed), patience=patience)
    out = Console(file=StringIO(), width=width)
    out.print(prompts.card(made, doomed, measuring=measuring, width=width))
    return out.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_not_known_yet_shows_as_dots_and_in_the_end_as_not_measured() -> None:
    assert "not measured" not in painted(bytes=None, measuring=True)
    text = painted(bytes=None)
    assert "last write: not measured" in text and "it takes: not measured" in text
    assert "services down: all that time" in text


def test_it_says_what_the_backup_takes_and_how_long_services_will_be_down() -> None:
    text = painted()
    assert "it takes: up to 124.0 MiB and about 8 seconds" in text
    assert "services down: about 8 seconds for the backup" in text
    assert "patience" not in text


def test_a_backup_that_takes_longer_than_patience_is_remarked() -> None:
    assert "more than 5 seconds (backup.patience)" in painted(patience=5)
    assert "patience" not in painted(patience=5, words="--skip-backup")
    assert "services down" not in painted(words="--skip-backup")


def test_no_word_of_others_commands_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """A label, or the answer of a server, that would clear the screen or hide what stands on the card."""
    text = painted(owner="evil\x1b[2J\x1b[8m")
    assert "\x1b" not in text and "evil\\x1b[2J" in text
    prompts.say("the server said \x1b[2J\x07, and more\n  next: look")
    assert capfd.readouterr().err == "the server said \\x1b[2J\\x07, and more\n  next: look\n"


@pytest.mark.parametrize("width", [24, 40, 71])
def test_on_a_narrow_terminal_words_stay_whole(width: int) -> None:
    text = painted(width=width)
    assert all(word in text for word in ("critical", "100.0 MiB", "shop-app-1"))


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (timedelta(seconds=0.2), "just now"),
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=89), "89 seconds ago"),
        (timedelta(minutes=3), "3 minutes ago"),
        (timedelta(hours=5), "5 hours ago"),
        (timedelta(days=40), "40 days ago"),
    ],
)
def test_moments_are_told_as_people_tell_them(ago: timedelta, words: str) -> None:
    now = datetime(2026, 11, 25, 15, 44, tzinfo=UTC)
    told = plan.moment_text(now - ago, now)
    assert told.endswith(f" UTC, {words}")


@pytest.mark.parametrize(
    ("done", "total", "seconds", "words"),
    [
        (0, None, 12.3, "12 seconds"),
        (0, 100, 0.0, "0 seconds"),
        (663, 75 * MIB, 1.0, "1 second"),  # the head of a dump: a rate of it would promise hours
        (50 * MIB, None, 10.0, "50.0 MiB, 5.0 MiB/s, 10 seconds"),
        (50 * MIB, 100 * MIB, 10.0, "50.0 MiB, 5.0 MiB/s, about 10 seconds left"),
        (50 * MIB, 40 * MIB, 10.0, "50.0 MiB, 5.0 MiB/s, 10 seconds"),  # it was more than was measured before
    ],
)
def test_progress_tells_rate_and_time_left(done: int, total: int | None, seconds: float, words: str) -> None:
    assert prompts.pace_text(done, total, seconds) == words


# -- on a real engine --------------------------------------------------------------------------------------------------

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


def card_of(project: ComposeProject) -> str:
    person = Person("compose", "down", "-v", cwd=project.folder)
    text = person.sees(f"type '{project.name}'")
    person.presses("d")
    assert person.leaves_with() == 77
    return text


@pytest.mark.engine
def test_a_server_that_hangs_is_not_waited_for(shop: ComposeProject) -> None:
    main = int(docker("inspect", f"{shop.name}-db-1", "--format", "{{.State.Pid}}").stdout)
    os.kill(main, signal.SIGSTOP)
    try:
        assert "postgres, not measured" in card_of(shop)
    finally:
        os.kill(main, signal.SIGCONT)


@pytest.mark.engine
def test_failed_logins_in_the_log_bring_up_the_cure_that_keeps_the_data(shop: ComposeProject) -> None:
    assert "failed logins" not in card_of(shop)
    address = f"host={shop.name}-db-1 user=shop dbname=shop"
    network = f"{shop.name}_default"
    tried = docker(
        "run", "--rm", "--network", network, "-e", "PGPASSWORD=wrong", "postgres:15", "psql", address, "-c", "SELECT 1", check=False
    )
    assert "password authentication failed" in tried.stderr
    text = card_of(shop)
    assert "shows failed logins (1)" in text
    assert "safe-compose rotate-password --sync db" in text
    assert "canary" not in text


@pytest.mark.engine
def test_a_database_that_does_not_run_is_said_to_get_no_dump(shop: ComposeProject) -> None:
    shop.docker("compose", "stop")
    try:
        text = card_of(shop)
        assert "no dump: server was not running" in text
        assert "safer: docker compose down keeps every volume" in text
    finally:
        shop.up()


@pytest.fixture
def volumes(lab: None) -> Iterator[tuple[str, str]]:
    """A volume with a file of the year 2001 in a folder that is newer, below a name that looks like another answer; and one
    with nothing in it."""
    names = unique("written"), unique("empty")
    for name in names:
        docker("volume", "create", name)
    script = (
        "mkdir /v/d; touch '/v/d/a\n9999999999 ' ; touch -d '2001-02-03 04:05:06' /v/d/*; touch -d '2002-02-03 04:05:06' /v/d /v"
    )
    docker("run", "--rm", "-v", f"{names[0]}:/v", "--network", "none", "busybox:latest", "sh", "-c", script)
    yield names
    docker("volume", "rm", *names)


@pytest.mark.engine
@pytest.mark.parametrize("image", ["busybox:latest", "postgres:15"])
def test_the_last_write_is_the_newest_time_of_anything_in_the_volume(image: str, volumes: tuple[str, str]) -> None:
    with connect(real_docker(), (), environ=dict(os.environ), run_id=unique("run")) as engine:
        known = engine.image(image)
        assert known is not None
        found = written.last_written(engine, volumes, [known.id], timeout=60)
        assert found[volumes[0]] == datetime(2002, 2, 3, 4, 5, 6, tzinfo=UTC)
        assert abs(found[volumes[1]] - datetime.now(UTC)) < timedelta(hours=1)
        assert written.last_written(engine, volumes, [known.id], timeout=0) == {}
        assert engine.leftovers() == ()


# -- refusals name flags that go together ------------------------------------------------------------------------------


@pytest.mark.engine
def test_the_flags_that_a_refusal_names_do_not_contradict_each_other(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project("services: {app: {image: busybox, volumes: ['up:/uploads']}}\nvolumes: {up: }\n")
    project.docker("compose", "create", "--pull", "never")
    docker("run", "--rm", "--network", "none", "-v", f"{project.name}_up:/v", "busybox:latest", "touch", "/v/f")
    answer = safe_compose("--skip-backup", "compose", "down", "-v", cwd=project.folder)
    assert answer.returncode == 77
    assert f"--confirm 'delete {project.name} without backup'" in answer.stderr
    assert "--backup-first" not in answer.stderr
