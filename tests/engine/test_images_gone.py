"""No image is left, as after `down -v --rmi all`: archives come back without one, and for the rest
valid commands are named.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.core.image_source import suggest_command
from testing.fixtures import SafeCompose
from testing.private_engine import PrivateEngine, private_engine
from testing.projects import require_success

JOB = ("--non-interactive", "--backup-first")
SHOP = """
name: shop
services:
  app: {image: "busybox:latest", init: true, network_mode: none, command: [sleep, "1000"], volumes: ["uploads:/app/uploads"]}
  web: {build: web, init: true, network_mode: none, command: [sleep, "1000"], volumes: ["media:/app/media"]}
volumes: {uploads: , media: }
"""


@pytest.fixture(scope="module")
def private(lab: None) -> Iterator[PrivateEngine]:
    with private_engine(["busybox:latest"]) as engine:
        yield engine


@pytest.mark.engine
@pytest.mark.thorough
def test_volumes_come_back_without_images_and_the_command_that_is_named_brings_the_services(
    private: PrivateEngine, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "Dockerfile").write_text("FROM busybox:latest\nLABEL of=shop\n")
    (tmp_path / "compose.yaml").write_text(SHOP)
    private.docker("compose", "build", cwd=tmp_path)
    private.docker("compose", "up", "-d", "--pull", "never", cwd=tmp_path)
    private.docker("exec", "shop-app-1", "sh", "-c", "echo photo >/app/uploads/one")
    env = {"DOCKER_HOST": private.host}
    require_success(
        safe_compose(*JOB, "compose", "down", "-v", "--rmi", "all", cwd=tmp_path, env=env)
    )
    assert "busybox" not in private.docker("images").stdout and private.volumes() == set()
    undone = require_success(safe_compose("undo", cwd=tmp_path, env=env))
    assert private.volumes() == {"shop_media", "shop_uploads"}
    line = next(
        line for line in undone.stderr.splitlines() if "images of the services are gone" in line
    )
    command = line.partition("start them: ")[2]
    assert (
        command
        == "docker compose build web && docker compose pull app && docker compose up -d --no-deps"
        " app web"
    ), undone.stderr
    private.load(["busybox:latest"])  # which no registry gives here
    without_pull = ["sh", "-c", command.replace("docker compose pull app", "true")]
    ran = subprocess.run(without_pull, cwd=tmp_path, env={**os.environ, **env}, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert private.docker("exec", "shop-app-1", "cat", "/app/uploads/one").stdout == "photo\n"


EITHER = "docker compose pull db, or where the compose file builds it: docker compose build db"


@pytest.mark.parametrize(
    ("image", "service", "project", "command"),
    [
        ("postgres:15", "db", "shop", EITHER),
        ("shop-db", "db", "shop", "docker compose build db"),
        ("shop_db:latest", "db", "shop", "docker compose build db"),
        ("sha256:" + "a" * 64, "db", "shop", EITHER),
        ("postgres:15", "", "", "docker pull postgres:15"),
        ("sha256:" + "a" * 64, "", "", ""),
        ("x; rm -rf /", "", "", "docker pull 'x; rm -rf /'"),
        ("", "", "", ""),
    ],
)
def test_the_command_that_brings_an_image_back_is_a_valid_one(
    image: str, service: str, project: str, command: str
) -> None:
    assert suggest_command(image, service, project) == command
