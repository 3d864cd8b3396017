"""Where it is run from, and where its store may lie."""

import subprocess
from pathlib import Path

import pytest

from conftest import SafeCompose
from lab.terminal import PROGRAM


@pytest.mark.parametrize("words", ["compose down -v", "volume rm x", "--explain compose down -v", "list", "undo", "backup"])
def test_a_folder_that_was_deleted_is_said_and_is_no_bug_of_ours(words: str, tmp_path: Path) -> None:
    line = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec {PROGRAM} {words}"
    done = subprocess.run(["bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 77, done.stderr
    assert "folder" in done.stderr and "bug" not in done.stderr


def test_a_store_is_never_made_among_things_of_others(safe_compose: SafeCompose, tmp_path: Path) -> None:
    """Its `.gitignore` would hide them all from git."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "compose.yaml").write_text("services: {}\n")
    answer = safe_compose("protect", "shop_data", env={"SAFE_COMPOSE_HOME": str(project)})
    assert answer.returncode == 73
    assert "compose.yaml" in answer.stderr and f"SAFE_COMPOSE_HOME={project}/safe-compose" in answer.stderr
    assert [p.name for p in project.iterdir()] == ["compose.yaml"]


def test_an_empty_disk_and_a_store_that_is_there_already_are_taken(safe_compose: SafeCompose, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    (disk / ".gitkeep").touch()
    for name in ("one", "two"):
        answer = safe_compose("protect", name, env={"SAFE_COMPOSE_HOME": str(disk)})
        assert answer.returncode == 0, answer.stderr
    assert (disk / ".gitignore").read_text() == "*\n"
    (disk / "notes.txt").write_text("put here by a person, later")
    assert safe_compose("unprotect", "one", "--yes", env={"SAFE_COMPOSE_HOME": str(disk)}).returncode == 0


def test_a_tilde_that_no_shell_replaced_means_the_home_folder(
    safe_compose: SafeCompose, sealed_environment: Path, tmp_path: Path
) -> None:
    answer = safe_compose("protect", "x", cwd=tmp_path, env={"SAFE_COMPOSE_HOME": "~/kept/here"})
    assert answer.returncode == 0, answer.stderr
    assert (sealed_environment / "kept/here/protections.json").exists()
    assert not (tmp_path / "~").exists()
