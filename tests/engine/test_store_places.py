"""Where it is run from, and where its store may lie."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker, unique, volume_exists
from testing.terminal import PROGRAM


@pytest.fixture
def loose_volume(lab: None) -> Iterator[str]:
    """An empty volume of no project, removed after the test."""
    name = unique("loose")
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "-f", name)


@pytest.mark.parametrize(
    "words",
    ["compose down -v", "volume rm x", "--explain compose down -v", "list", "undo", "backup"],
)
def test_a_folder_that_was_deleted_is_said_and_is_no_bug_of_ours(
    words: str, tmp_path: Path
) -> None:
    line = (
        f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec {PROGRAM} {words}"
    )
    done = subprocess.run(
        ["bash", "-c", line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 77, done.stderr
    assert "folder" in done.stderr and "bug" not in done.stderr


def test_a_store_is_never_made_among_things_of_others(
    safe_compose: SafeCompose, tmp_path: Path
) -> None:
    """Its `.gitignore` would hide them all from git."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "compose.yaml").write_text("services: {}\n")
    answer = safe_compose(
        "protect", "--ahead", "shop_data", env={"SAFE_COMPOSE_HOME": str(project)}
    )
    assert answer.returncode == 73
    assert (
        "compose.yaml" in answer.stderr
        and f"SAFE_COMPOSE_HOME={project}/safe-compose" in answer.stderr
    )
    assert [p.name for p in project.iterdir()] == ["compose.yaml"]


def test_an_empty_disk_and_a_store_that_is_there_already_are_taken(
    safe_compose: SafeCompose, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    (disk / ".gitkeep").touch()
    for name in ("one", "two"):
        answer = safe_compose("protect", "--ahead", name, env={"SAFE_COMPOSE_HOME": str(disk)})
        assert answer.returncode == 0, answer.stderr
    assert (disk / ".gitignore").read_text() == "*\n"
    (disk / "notes.txt").write_text("put here by a person, later")
    assert (
        safe_compose("unprotect", "one", "--yes", env={"SAFE_COMPOSE_HOME": str(disk)}).returncode
        == 0
    )


def test_a_tilde_that_no_shell_replaced_means_the_home_folder(
    safe_compose: SafeCompose, sealed_environment: Path, tmp_path: Path
) -> None:
    answer = safe_compose(
        "protect", "--ahead", "x", cwd=tmp_path, env={"SAFE_COMPOSE_HOME": "~/kept/here"}
    )
    assert answer.returncode == 0, answer.stderr
    assert (sealed_environment / "kept/here/protections.json").exists()
    assert not (tmp_path / "~").exists()


def test_protections_on_a_disk_that_is_not_mounted_are_missed(
    safe_compose: SafeCompose, tmp_path: Path
) -> None:
    """A new store in the empty folder below would protect nothing."""
    disk = tmp_path / "disk"
    env = {"SAFE_COMPOSE_HOME": str(disk / "store")}
    assert safe_compose("protect", "--ahead", "one", env=env).returncode == 0
    disk.rename(tmp_path / "away")
    (disk / "store" / "locks").mkdir(parents=True)  # as a nightly run leaves them
    for words in (["protect", "--ahead", "two"], ["unprotect", "one", "--yes"]):
        answer = safe_compose(*words, env=env)
        assert answer.returncode == 73, answer.stderr
        assert f"{disk}/store/protections.json was there and is missing" in answer.stderr
    assert list((disk / "store").iterdir()) == [disk / "store" / "locks"]
    shutil.rmtree(disk)
    (tmp_path / "away").rename(disk)
    assert safe_compose("unprotect", "one", "--yes", env=env).returncode == 0


@pytest.mark.engine
def test_without_the_protections_of_a_missing_store_no_volume_is_deleted(
    safe_compose: SafeCompose, tmp_path: Path, loose_volume: str
) -> None:
    disk = tmp_path / "disk"
    env = {"SAFE_COMPOSE_HOME": str(disk / "store")}
    assert safe_compose("protect", loose_volume, env=env).returncode == 0
    disk.rename(tmp_path / "away")
    # it is empty, so nothing else would keep it
    answer = safe_compose("volume", "rm", loose_volume, env=env)
    assert answer.returncode == 73 and "is missing" in answer.stderr, answer.stderr
    assert volume_exists(loose_volume)


@pytest.mark.engine
def test_a_scheduled_run_creates_no_store_where_the_disk_of_protections_is_not_mounted(
    safe_compose: SafeCompose, tmp_path: Path, compose_project: ProjectFactory
) -> None:
    project = compose_project("services: {app: {image: 'busybox:latest'}}\n")
    disk = tmp_path / "disk"
    env = {"SAFE_COMPOSE_HOME": str(disk / "store")}
    assert safe_compose("protect", "--ahead", "one", env=env).returncode == 0
    disk.rename(tmp_path / "away")
    answer = safe_compose("schedule", "run", cwd=project.folder, env=env)
    assert answer.returncode == 73 and "is missing" in answer.stderr, answer.stderr
    assert not disk.exists()
