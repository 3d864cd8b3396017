"""A project whose volumes are kept in two stores, one of them locked: what was made is told, and
the run was not skipped.
"""

import json
from collections.abc import Iterator

import pytest

from safe_compose.engine import Engine
from safe_compose.store.catalogue.catalogue import Catalogue
from testing.approvals import approve_settings
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker, unique

PROJECT = """
services: {{a: {{image: "busybox:latest", volumes: ["files:/files", "shared:/shared"]}}}}
volumes: {{files: {{}}, shared: {{external: true, name: {shared}}}}}
"""


@pytest.fixture
def shared(lab: None) -> Iterator[str]:
    """A volume of no project, which goes after the project that mounts it."""
    name = unique("shared")
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "-f", name, check=False)


@pytest.mark.thorough
@pytest.mark.engine
def test_a_run_that_made_the_first_of_two_backups_is_not_skipped(
    shared: str, compose_project: ProjectFactory, safe_compose: SafeCompose, engine: Engine
) -> None:
    settings = '[volumes]\nfiles = "critical"\n"*" = "critical"\n[store]\npath = "backups"\n'
    project = compose_project(PROJECT.format(shared=shared), files={"safe-compose.toml": settings})
    approve_settings(project.folder)
    project.docker("compose", "create", "--pull", "never")
    words = ("schedule", "run", f"--project={project.name}", "--json")
    store = Catalogue.at(project.folder / "backups")
    with store.folder.lock(engine.id, project.name, command=("x",)):
        answer = safe_compose(*words, cwd=project.folder, env={"SAFE_COMPOSE_HOME": ""})
    run = json.loads(answer.stdout)["run"]
    [made] = json.loads(safe_compose("list", "--json", env={"SAFE_COMPOSE_HOME": ""}).stdout)[
        "backups"
    ]
    assert made["volumes"] == [shared] and made["verified"], made
    assert (run["ok"], run["skipped"], run["backup"]) == (False, False, made["id"]), run
    assert answer.returncode == 75 and f"{project.name}_files" in " ".join(run["faults"]), run
    assert "forget" not in [step["step"] for step in run["steps"]]
    assert f"backup {made['id']} of {shared} is kept" in answer.stderr
