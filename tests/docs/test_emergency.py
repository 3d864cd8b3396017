"""The emergency page, walked through: its own commands, on the machine where it happened and on a
fresh one with only the store.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from testing.private_engine import PrivateEngine, private_engine
from testing.projects import ROOT, compose_project, docker
from testing.terminal import PROGRAM

pytestmark = pytest.mark.engine

SHOP = """
services:
  db:
    image: postgres:15
    network_mode: none
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: example, POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 120}
  app:
    image: busybox:latest
    init: true
    network_mode: none
    command: [sleep, "100000"]
    volumes: ["uploads:/u"]
volumes:
  data:
  uploads:
"""
SUM = "SELECT count(*), md5(string_agg(id || what, ',' ORDER BY id)) FROM orders"


def commands(step: int) -> list[str]:
    """The commands of one step of the page, as they stand there."""
    page = (ROOT / "docs" / "how-to" / "recover.md").read_text()
    section = page.split("## In this order\n")[1].split("\n## ")[0]
    text = re.split(r"(?m)^\d+\. ", section)[step]
    return [
        found.replace("\n   ", " ")
        for found in re.findall(r"`((?:safe-compose|docker) [^`]*)`", text)
    ]


def run(words: str, folder: Path, **environment: str) -> str:
    """Type one command of the page in a folder."""
    program, _, rest = words.partition(" ")
    argv = [PROGRAM if program == "safe-compose" else program, *rest.split()]
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.mark.thorough
def test_the_emergency_page_brings_everything_back_here_and_on_a_fresh_machine(
    lab: None, tmp_path: Path, sealed_environment: Path
) -> None:
    with compose_project(tmp_path / "old", SHOP) as project:
        project.up()
        project.psql("CREATE TABLE orders AS SELECT g AS id, 'order ' || g AS what FROM generate_series(1, 3000) g",
                     user="shop", database="shop")  # fmt: skip
        project.docker(
            "compose", "exec", "-T", "app", "dd", "of=/u/photo", "status=none", input="a photo"
        )
        rows = project.psql(SUM, user="shop", database="shop")
        run("safe-compose --non-interactive --backup-first compose down -v", project.folder)
        assert project.volumes() == []

        assert commands(2) == ["safe-compose journal"] and commands(3) == ["safe-compose recover"]
        for words in (*commands(2), *commands(3), commands(4)[0]):
            said = run(words, project.folder)
            assert words != "safe-compose journal" or "down -v" in said
        assert commands(4)[0] == "safe-compose undo"
        assert project.psql(SUM, user="shop", database="shop") == rows
        assert project.docker("compose", "exec", "-T", "app", "cat", "/u/photo").stdout == "a photo"

        project.psql("DELETE FROM orders", user="shop", database="shop")
        follow(commands(4)[1:], project.folder, project.name)
        assert project.psql(SUM, user="shop", database="shop") == rows

        store, folder = (
            tmp_path / "fresh home" / ".local" / "share" / "safe-compose",
            tmp_path / "new" / project.name,
        )
        folder.mkdir(parents=True)
        shutil.copy(project.folder / "compose.yaml", folder)
        shutil.copytree(sealed_environment / "safe-compose", store)
        if (
            sealed_environment / ".docker"
        ).exists():  # where Compose could only be put into a home folder
            shutil.copytree(
                sealed_environment / ".docker", tmp_path / "fresh home" / ".docker", symlinks=True
            )
        docker("compose", "down", "-v", cwd=project.folder)
    with private_engine(["busybox:latest", "postgres:15"]) as engine:
        fresh = {
            "HOME": str(tmp_path / "fresh home"),
            "DOCKER_HOST": engine.host,
            "XDG_DATA_HOME": "",
            "SAFE_COMPOSE_HOME": "",
        }
        at = commands(5)
        assert at[2] == "docker compose up -d"
        assert engine.volumes() == set()
        follow(at[:3], folder, folder.name, **fresh)
        assert content(engine, folder) == (rows, "a photo")


def follow(words: list[str], folder: Path, project: str, **environment: str) -> None:
    """List the backups, and restore the oldest."""
    assert words[:2] == ["safe-compose list", "safe-compose restore ID --confirm PROJECT"]
    listed = run(words[0], folder, **environment)
    oldest = re.findall(r"\d{8}T\d{6}Z-[0-9a-f]{6}", listed)[-1]
    for command in words[1:]:
        run(command.replace("ID", oldest).replace("PROJECT", project), folder, **environment)


def content(engine: PrivateEngine, folder: Path) -> tuple[str, str]:
    engine.docker("compose", "up", "-d", "--wait", cwd=folder)
    psql = ("psql", "-XqtA", "-U", "shop", "-d", "shop", "-c", SUM)
    rows = engine.docker("compose", "exec", "-T", "db", *psql, cwd=folder).stdout.strip()
    return rows, engine.docker("compose", "exec", "-T", "app", "cat", "/u/photo", cwd=folder).stdout
