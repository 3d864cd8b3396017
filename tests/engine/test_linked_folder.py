"""A project folder that is reached through a symbolic link is the same project."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, unique
from testing.stacks import FILES, JOB

pytestmark = pytest.mark.engine


@pytest.fixture
def linked(
    compose_project: ProjectFactory, tmp_path: Path
) -> Iterator[tuple[ComposeProject, Path]]:
    """A project that was started with a link as the shell's folder, so that compose recorded that
    one.
    """
    project = compose_project(f"name: {unique('sclink')}\n{FILES}")
    link = tmp_path / "link"
    link.symlink_to(project.folder)
    words = ["docker", "compose", "up", "-d", "--wait", "--pull", "never"]
    subprocess.run(
        words,
        cwd=link,
        env={**os.environ, "PWD": str(link)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    yield project, link
    docker("compose", "down", "-v", cwd=project.folder)


@pytest.mark.thorough
def test_a_deletion_there_is_no_deletion_of_another_project(
    linked: tuple[ComposeProject, Path], safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project, link = linked
    [recorded] = docker(
        "ps", "--filter",
        f"volume={json.loads(docker('compose', 'config', '--format', 'json', cwd=link).stdout)['name']}_uploads", "--format", '{{.Label "com.docker.compose.project.working_dir"}}',
    ).stdout.split()  # fmt: skip
    assert recorded == str(link)
    words = (*JOB, "--explain", "--json", "compose", "down", "-v")
    for folder, environ in (
        (link, {"PWD": str(link)}),
        (project.folder, {"PWD": str(project.folder)}),
        (link, {}),
    ):
        plan = json.loads(safe_compose(*words, cwd=folder, env=environ).stdout)
        assert (plan["verdict"], [v["other_project"] for v in plan["volumes"]]) == ("guard", [None])
    other = tmp_path / "other"
    other.mkdir()
    (other / "compose.yaml").write_text((project.folder / "compose.yaml").read_text())
    plan = json.loads(safe_compose(*words, cwd=other).stdout)
    assert (
        plan["verdict"] == "refuse" and str(project.folder) in plan["volumes"][0]["other_project"]
    )
