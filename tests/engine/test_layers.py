"""Data in a container's own layer: said before a command removes it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.fastpath import layers
from safe_compose.grammar import parser
from testing.engine_proxy import noticing
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, require_success, unique
from testing.stacks import JOB
from testing.terminal import Person

pytestmark = pytest.mark.engine

SHOP = """
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads"]
  worker:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
volumes:
  uploads:
"""


@pytest.fixture
def shop(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(SHOP)
    project.up()
    return project


def write(project: ComposeProject, path: str, service: str = "app") -> None:
    project.exec(service, "mkdir", "-p", path.rpartition("/")[0])
    project.exec(service, "dd", f"of={path}", "status=none", input="content")


def test_a_removal_says_what_only_the_layer_holds(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    write(shop, "/app/app.db")
    write(shop, "/srv/media/1.jpg")
    write(shop, "/srv/media/2.jpg")
    done = require_success(safe_compose("compose", "down", cwd=shop.folder))
    line = next(line for line in done.stderr.splitlines() if line.startswith("safe-compose:"))
    assert line == (
        f"safe-compose: this deletes data that is in no volume: {shop.name}-app-1 (SQLite"
        " /app/app.db, 2 files in /srv); to keep it, first: safe-compose backup"
    )
    assert shop.containers() == []


@pytest.mark.parametrize(
    "path",
    ["/app/uploads/in-a-volume.db", "/tmp/x.db", "/var/log/app.db", "/app/main.py", "/run/x.db"],
)
def test_what_is_in_a_volume_or_is_noise_is_not_mentioned(
    shop: ComposeProject, safe_compose: SafeCompose, path: str
) -> None:
    write(shop, path)
    done = require_success(safe_compose("compose", "down", cwd=shop.folder))
    assert "safe-compose:" not in done.stderr


def test_an_empty_folder_of_uploads_is_no_data(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    shop.exec("app", "mkdir", "-p", "/data/uploads")
    done = require_success(safe_compose("compose", "down", cwd=shop.folder))
    assert "safe-compose:" not in done.stderr


def test_only_containers_that_go_are_looked_into(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    write(shop, "/app/app.db", "worker")
    done = require_success(safe_compose("compose", "rm", "-sf", "app", cwd=shop.folder))
    assert "safe-compose:" not in done.stderr
    done = require_success(safe_compose("compose", "up", "-d", cwd=shop.folder))
    assert "safe-compose:" not in done.stderr
    done = require_success(
        safe_compose("compose", "up", "-d", "--force-recreate", "worker", cwd=shop.folder)
    )
    assert f"{shop.name}-worker-1 (SQLite /app/app.db)" in done.stderr


def test_a_changed_service_is_recreated_and_that_is_said(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    write(shop, "/app/app.db", "worker")
    write(shop, "/app/app.db", "app")
    file = shop.folder / "compose.yaml"
    file.write_text(file.read_text().replace("  worker:", "  worker:\n    tty: true"))
    done = require_success(safe_compose("compose", "up", "-d", cwd=shop.folder))
    assert f"{shop.name}-worker-1" in done.stderr.split("\n")[0]
    assert f"{shop.name}-app-1" not in done.stderr.split("\n")[0]


@pytest.fixture
def alone() -> Iterator[str]:
    name = unique("alone")
    script = "mkdir -p /data && echo x > /data/app.sqlite3"
    docker("run", "--name", name, "busybox:latest", "sh", "-c", script)
    yield name
    docker("rm", "-f", name, check=False)


def test_the_removal_of_one_container_says_how_to_copy_it_out(
    alone: str, safe_compose: SafeCompose
) -> None:
    done = require_success(safe_compose("rm", "-f", alone))
    assert f"{alone} (SQLite /data/app.sqlite3)" in done.stderr
    assert f"docker cp {alone}:PATH ." in done.stderr


def test_the_settings_make_a_question_of_it_or_silence(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    write(shop, "/app/app.db")
    settings = shop.folder / "safe-compose.toml"
    settings.write_text('[guard]\nlayers = "ask"\n')
    done = safe_compose("compose", "down", cwd=shop.folder)
    assert done.returncode == 77 and "docker was not run (77)" in done.stderr
    assert f"--confirm '{shop.name}'" in done.stderr
    assert len(shop.running()) == 2
    person = Person("compose", "down", cwd=shop.folder)
    person.sees("Delete it without a backup? [y/N]")
    person.types("n")
    assert person.leaves_with() == 77
    assert len(shop.running()) == 2
    done = safe_compose("--confirm", shop.name, "compose", "down", cwd=shop.folder)
    assert require_success(done) and shop.containers() == []


def test_a_project_does_not_silence_it(shop: ComposeProject, safe_compose: SafeCompose) -> None:
    write(shop, "/app/app.db")
    settings = shop.folder / "safe-compose.toml"
    settings.write_text('[guard]\nlayers = "off"\n')
    home = Path.home() / ".config" / "safe-compose" / "config.toml"
    home.parent.mkdir(parents=True)
    home.write_text('[guard]\nlayers = "tell"\n')
    assert "SQLite" in safe_compose("compose", "rm", "-sf", "app", cwd=shop.folder).stderr
    home.unlink()


def test_strange_names_reach_the_terminal_as_text(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    write(shop, "/app/\x1b]0;title\x07\nsafe-compose: all is well.db")
    done = require_success(safe_compose("compose", "down", cwd=shop.folder))
    assert "\x1b" not in done.stderr and "\x07" not in done.stderr
    assert "\nsafe-compose: all is well" not in done.stderr
    assert "in no volume" in done.stderr


def test_a_guarded_deletion_says_it_on_its_screen(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    write(shop, "/app/app.db")
    plan = require_success(safe_compose("compose", "down", "-v", "--explain", cwd=shop.folder))
    assert f"{shop.name}-app-1 (SQLite /app/app.db)" in " ".join(plan.stdout.split())
    done = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    words = " ".join(done.stderr.split())
    assert f"{shop.name}-app-1 (SQLite /app/app.db)" in words and shop.containers() == []


def test_the_screen_is_there_before_the_layers_are_looked_into(shop: ComposeProject) -> None:
    write(shop, "/app/app.db")
    asked, looked = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        looked.wait(60)

    with noticing("/changes", wait) as address:
        person = Person(
            "compose", "down", "-v", cwd=shop.folder, env={"DOCKER_HOST": address}, rows=24
        )
        assert asked.wait(60)
        person.looks()
        looked.set()
        before = person.sees(f"type '{shop.name}': ")
        person.presses("d")
        assert person.leaves_with() == 77
    assert "This command deletes 1 volume for good." in person.glimpsed
    assert "type '" not in person.glimpsed  # nobody answers before it was said
    assert "warning:" in before and f"{shop.name}-app-1" in before
    assert len(shop.running()) == 2


def test_the_project_is_found_as_compose_finds_it(
    shop: ComposeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shop, "/app/app.db")
    below, link, elsewhere = shop.folder / "below", tmp_path / "link", tmp_path / "elsewhere"
    below.mkdir()
    elsewhere.mkdir()
    link.symlink_to(shop.folder)
    file = str(shop.folder / "compose.yaml")

    def look(folder: Path, *words: str, **environ: str) -> bool:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            for name, value in environ.items():
                patch.setenv(name, value)
            for _ in range(3):  # a busy engine may take too long, and then the guard looks
                if not layers.may_lose_data(parser.parse(["compose", *words, "down"])):
                    return False
        return True

    assert look(shop.folder) and look(below) and look(link, PWD=str(link))
    assert look(below, "-f", "../compose.yaml") and look(elsewhere, "-f", file)
    assert look(elsewhere, "--project-directory", str(shop.folder), "-f", file)
    assert look(elsewhere, "-p", shop.name) and look(elsewhere, COMPOSE_PROJECT_NAME=shop.name)
    assert look(elsewhere, COMPOSE_FILE=file)
    assert look(elsewhere, "--workdir", str(shop.folder), "-f", file)
    (elsewhere / "env").write_text(f"COMPOSE_FILE={file}")
    assert look(elsewhere, "--env-file", "env")
    assert not look(elsewhere) and not look(shop.folder, "-p", "another")
