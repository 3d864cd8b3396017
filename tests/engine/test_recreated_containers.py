"""Containers that somebody recreates while their volumes are backed up: nothing false is verified,
and nothing is deleted.
"""

from pathlib import Path

import pytest

from safe_compose.core.observed import HELPER_LABEL
from safe_compose.core.policy import Verdict
from safe_compose.core.tier import Tier
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from safe_compose.grammar.parser import parse
from safe_compose.operations.backup.hot import copy_as_used_now, copy_running
from safe_compose.operations.backup.location_copy import LocationCopy
from safe_compose.operations.backup.request import BackupRequest
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import (
    ComposeProject,
    docker,
    require_success,
    unique,
    volume_exists,
    wait_until,
)
from testing.runs import kill_at_step, list_backups, list_leftovers, manifest, start, steps
from testing.stacks import JOB, shop, write_file

pytestmark = [pytest.mark.engine, pytest.mark.thorough]


def recreate(project: ComposeProject, service: str) -> None:
    project.docker(
        "compose", "up", "--detach", "--force-recreate", "--no-deps", "--pull", "never", service
    )


def count(project: ComposeProject) -> str:
    return project.psql("SELECT count(*) FROM t", user="shop", database="shop")


@pytest.fixture
def project(compose_project: ProjectFactory) -> ComposeProject:
    made = compose_project(shop("geheim"))
    made.up()
    made.psql(
        "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n", user="shop", database="shop"
    )
    write_file(made)
    return made


def test_a_server_that_is_recreated_before_a_deletion_keeps_its_volume(
    project: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    volume = f"{project.name}_data"
    running = start(*JOB, "compose", "down", "-v", cwd=project.folder)
    kill_at_step(sealed_environment, "dumped")
    recreate(project, "db")
    _, said = running.communicate(timeout=180)
    assert running.returncode in (73, 75) and "docker was not run" in said, said
    assert volume_exists(volume) and volume_exists(f"{project.name}_uploads")
    assert steps(sealed_environment)[-1] == "ended" and not list_leftovers(sealed_environment)
    project.up("db")
    assert count(project) == "1000" and len(project.running()) == 2, said


def test_a_server_that_is_recreated_or_started_during_a_backup_is_dumped_whole_and_never_archived_as_if_at_rest(
    project: ComposeProject,
    safe_compose: SafeCompose,
    engine: Engine,
    sealed_environment: Path,
    tmp_path: Path,
) -> None:
    compose = project.folder / "compose.yaml"
    label = (  # which makes the server that comes none of ours
        f"    labels: {{{HELPER_LABEL}: planted}}\n"
    )
    compose.write_text(
        compose.read_text().replace("    image: postgres:15\n", f"    image: postgres:15\n{label}")
    )
    session = (
        "psql",
        "-Xq",
        "-U",
        "shop",
        "-d",
        "shop",
        "-c",
        "BEGIN; LOCK TABLE t; SELECT pg_sleep(600)",
    )
    docker("exec", "-d", f"{project.name}-db-1", *session)
    running = start("backup", cwd=project.folder)
    waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
    wait_until("the dump waits", lambda: project.psql(waits, user="shop", database="shop") == "t")
    recreate(project, "db")
    _, said = running.communicate(timeout=180)
    assert running.returncode == 0 and "starts again, once" in said, said
    [made] = list_backups(safe_compose, project)
    record = manifest(made)[f"{project.name}_data"]
    assert record["method"] == "dump" and not list_leftovers(sealed_environment)
    project.up("db")
    require_success(
        safe_compose("restore", made["id"], "--confirm", project.name, cwd=project.folder)
    )
    assert count(project) == "1000"

    # one that was stopped when its volume was looked at, and runs when its turn comes
    project.docker("compose", "stop", "db")
    observed = engine.commands.look(parse(["volume", "ls"]))
    project.up("db")
    volume = observed.volume(f"{project.name}_data")
    assert volume is not None and not any(user.lively for user in observed.users(volume.name))
    verdict = Verdict(volume.name, Tier.CRITICAL, "", "postgres", explicit=False)
    request = BackupRequest(project.name, "manual", (), observed, ((volume, verdict),))
    with pytest.raises(
        OperationFailed
    ):  # as the container was started, or a file changed as it was read
        copy_running(LocationCopy(engine, request, volume, verdict, tmp_path / "stale"))
    copy = LocationCopy(engine, request, volume, verdict, tmp_path / "now")
    assert copy_as_used_now(copy).method == "dump"


def test_an_image_that_gets_another_meaning_during_a_backup_is_tried_by_its_id(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    image = f"{unique('lab-moved')}:1"
    docker("tag", "postgres:15", image)
    try:
        project = compose_project(shop("geheim", image))
        project.up()
        running = start(*JOB, "compose", "down", "-v", cwd=project.folder)
        kill_at_step(sealed_environment, "stopping")
        docker("tag", "busybox:latest", image)
        _, said = running.communicate(timeout=180)
        assert running.returncode == 0 and not volume_exists(f"{project.name}_data"), said
        [made] = list_backups(safe_compose, project)
        assert made["verified"]["level"] == "L4", said
        [user] = manifest(made)[f"{project.name}_data"]["users"]
        assert (
            user["image_id"]
            == docker("image", "inspect", "postgres:15", "--format", "{{.Id}}").stdout.strip()
        )
    finally:
        docker("rmi", image)
