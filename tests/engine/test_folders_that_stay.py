"""A folder of the host outlives its project, and `down -v` says so."""

import json
import subprocess

import pytest

from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import require_success
from testing.terminal import PROGRAM, Person

pytestmark = pytest.mark.engine

SHOP = """
services:
  db:
    image: postgres:15
    volumes: ["./pg:/var/lib/postgresql/data"]
  app:
    image: busybox:latest
    volumes: ["./code:/app"]
"""


def test_a_database_in_a_folder_stays_and_that_is_said_once(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(SHOP)
    words = ("compose", "down", "-v")
    plan = json.loads(
        require_success(safe_compose(*words, "--explain", "--json", cwd=project.folder)).stdout
    )
    spared = {row["name"]: row["why"] for row in plan["spared"]}
    assert spared == {str(project.folder / "pg"): "postgres in a folder of the host, which stays"}
    person = Person(*words, cwd=project.folder)
    person.sees(f"folders of the host stay: {project.folder / 'pg'}")
    assert person.leaves_with() == 0
    assert "stay" not in safe_compose(*words, cwd=project.folder).stderr
    assert "stay" not in safe_compose("compose", "down", cwd=project.folder).stderr
    closed = ["sh", "-c", '"$@" 2>&-', "sh", PROGRAM, *words]
    assert subprocess.run(closed, cwd=project.folder, timeout=120).returncode == 0
