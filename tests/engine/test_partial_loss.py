"""Docker takes a part of a volume and fails: what is missing is said, and `undo` brings just that
back.

Its local driver deletes file by file (moby volume/local, `Remove`): one that nobody may change
(chattr +i), or something that is mounted, ends it half-way; a plugin may end anywhere, and so does
whatever kills docker.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safe_compose.core.backup import VolumeRecord
from safe_compose.core.observed import Volume
from safe_compose.operations.restore.execute import describe_rollback
from safe_compose.operations.restore.target import RestoreTarget
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker, real_docker, require_success, unique, volume_exists
from testing.runs import every_step, list_leftovers, steps
from testing.stacks import FILES, JOB

pytestmark = pytest.mark.engine

Loose = Callable[[], str]


@pytest.fixture
def loose(lab: None) -> Iterator[Loose]:
    """Make a volume of this test alone, with some content."""
    made: list[str] = []

    def make() -> str:
        made.append(unique("loose"))
        docker("volume", "create", made[-1])
        write(made[-1])
        return made[-1]

    yield make
    for name in made:
        if volume_exists(name):
            subprocess.run(
                ["umount", "--lazy", folder(name)], stderr=subprocess.DEVNULL, check=False
            )
            subprocess.run(["chattr", "-R", "-f", "-i", folder(name)], check=False)
            docker("volume", "rm", "-f", name, check=False)


def folder(volume: str) -> Path:
    return Path(docker("volume", "inspect", volume, "--format", "{{.Mountpoint}}").stdout.strip())


def write(volume: str) -> None:
    top = folder(volume)
    (top / "photos" / "2026").mkdir(parents=True)
    (top / "photos" / "2026").chmod(0o2750)
    for name in ("photos/a.jpg", "photos/b.jpg", "photos/2026/c.jpg", "rows"):
        (top / name).write_bytes(name.encode() * 5000)
        os.chown(top / name, 1234, 4321)
    (top / "photos" / "same.jpg").hardlink_to(top / "photos" / "a.jpg")
    (top / "latest").symlink_to("photos/2026")
    os.setxattr(top / "rows", "user.origin", b"made by hand")


def facts(top: Path) -> dict[str, object]:
    """Everything below a folder, content and times included."""
    found: dict[str, object] = {}
    for path in (top, *sorted(top.rglob("*"))):
        st = path.lstat()
        content = (
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        attributes = sorted(os.listxattr(path, follow_symlinks=False))
        found[str(path.relative_to(top))] = (
            st.st_mode,
            st.st_uid,
            st.st_gid,
            st.st_mtime_ns,
            content,
            attributes,
        )
    return found


def freeze(path: Path) -> None:
    subprocess.run(["chattr", "+i", path], check=True)


@pytest.mark.thorough
def test_of_several_volumes_the_one_that_docker_half_took_is_completed_and_the_other_is_made_again(
    loose: Loose, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    names = one, half = loose(), loose()
    before = {name: facts(folder(name)) for name in names}
    freeze(folder(half) / "photos" / "a.jpg")
    freeze(folder(half) / "photos" / "2026")  # its file stays
    answer = safe_compose(*JOB, "volume", "rm", *names)
    assert answer.returncode == 1 and not volume_exists(one)
    assert (
        f"docker deleted a part of volume {half}: 3 of 8 files and folders are missing ("
        in answer.stderr
    ), answer.stderr
    assert (
        answer.stderr.rstrip().endswith("safe-compose undo") and "still there" not in answer.stderr
    )
    ran = next(step for step in every_step(sealed_environment) if step.get("step") == "ran")
    assert ran["gone"] == [one] and ran["parts"] == [{"name": half, "missing": 3, "total": 8}]
    undone = require_success(
        safe_compose("undo")
    )  # with what nobody may change still in it, and without a question
    assert (
        f"{half}: a part of it is there and stays; what is missing comes back from its archive"
        in undone.stderr
    )
    assert f"what was missing of {half} is back, from its archive" in undone.stderr
    for name in names:
        assert facts(folder(name)) == before[name]
    assert "was undone already" in safe_compose("undo").stderr
    assert list_leftovers(sealed_environment) == []


def killed_half_way(path: Path, volume: str, also: str) -> Path:
    """A docker that deletes the containers, then two files of a volume, and is killed. also: who
    else is, in words of sh.
    """
    path.parent.mkdir()
    files = f"{folder(volume)}/rows {folder(volume)}/photos/2026/c.jpg"
    path.write_text(
        '#!/bin/sh\ncase " $* " in *" --dry-run "* | *" config "* | *" ps "* | *" version "*) exec'
        f' {real_docker()} "$@" ;;\n*" down "*) {real_docker()} compose down && rm {files}; kill -9'
        f' {also} $$ ;; esac\nexec {real_docker()} "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.thorough
@pytest.mark.parametrize(
    "ours_dies",
    [
        pytest.param(False, id="docker is killed"),
        pytest.param(True, id="both are killed", marks=pytest.mark.thorough),
    ],
)
def test_a_docker_that_was_killed_half_way_leaves_what_undo_completes_and_starts(
    ours_dies: bool,
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    sealed_environment: Path,
    tmp_path: Path,
) -> None:
    project = compose_project(FILES)
    project.up()
    volume = f"{project.name}_uploads"
    write(volume)
    before = facts(folder(volume))
    docker_program = killed_half_way(
        tmp_path / "killed" / "docker", volume, "$PPID" if ours_dies else ""
    )
    env = {"SAFE_COMPOSE_DOCKER": str(docker_program)}
    answer = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=env)
    assert answer.returncode == -9
    if ours_dies:
        assert steps(sealed_environment)[-1] == "running"
    else:
        assert (
            f"docker was ended by SIGKILL; docker deleted a part of volume {volume}: 2 of 8 files"
            " and folders" in answer.stderr
        )
        assert "photos/2026/c.jpg" in answer.stderr and "rows" in answer.stderr
    assert not project.running()
    undone = require_success(safe_compose("undo", cwd=project.folder))
    assert f"what was missing of {volume} is back" in undone.stderr
    assert facts(folder(volume)) == before and project.running() == [f"{project.name}-app-1"]


@pytest.mark.thorough
def test_what_was_written_to_the_rest_is_kept_safe_and_asked_about(
    loose: Loose, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    volume, emptied = loose(), loose()
    before, top = facts(folder(volume)), folder(volume)
    freeze(top / "photos" / "a.jpg")
    subprocess.run(
        ["mount", "--bind", folder(emptied), folder(emptied)], check=True
    )  # a root that cannot be removed
    answer = safe_compose(*JOB, "volume", "rm", volume, emptied)
    assert (
        f"volume {emptied} is there, but nothing of the 8 files and folders that were in it"
        in answer.stderr
    )
    kept_before = listed(safe_compose)
    subprocess.run(["chattr", "-i", top / "photos" / "a.jpg"], check=True)
    (top / "photos" / "a.jpg").write_bytes(b"PHOTOS/a.jpg" * 5000)  # the same size
    refused = safe_compose("undo")
    assert refused.returncode == 77 and "add --confirm" in refused.stderr
    assert (
        listed(safe_compose) == kept_before
        and (top / "photos" / "a.jpg").read_bytes() == b"PHOTOS/a.jpg" * 5000
    )
    require_success(safe_compose("undo", "--confirm", volume))
    assert facts(top) == before and set(facts(folder(emptied))) == set(before)
    newest = listed(safe_compose)[0]
    assert newest["reason"] == "pre-restore" and newest["volumes"] == [volume]


@pytest.mark.thorough
def test_what_was_half_taken_before_its_deletion_is_said_on_the_screen_and_by_undo(
    loose: Loose, safe_compose: SafeCompose
) -> None:
    volume = loose()
    freeze(folder(volume) / "rows")
    safe_compose(*JOB, "volume", "rm", volume)
    whole = listed(safe_compose)[0]["id"]
    subprocess.run(["chattr", "-i", folder(volume) / "rows"], check=True)
    again = require_success(safe_compose(*JOB, "volume", "rm", volume))
    where = f"all of it: safe-compose restore {whole} --volume {volume}"
    assert (
        f"warning: a part of {volume} was deleted by 'docker volume rm {volume}' of "
        in again.stderr
        and where in again.stderr
    )
    undone = require_success(safe_compose("undo"))
    assert where in undone.stderr and [p.name for p in folder(volume).iterdir()] == ["rows"]
    require_success(safe_compose("restore", str(whole), "--confirm", volume))
    assert where not in safe_compose(*JOB, "volume", "rm", volume).stderr


@pytest.mark.thorough
def test_when_what_is_missing_cannot_be_added_nobody_is_told_that_all_is_as_it_was() -> None:
    record = VolumeRecord(
        "half", "local", {}, {}, "", "critical", "files", False, "cold", artifacts=()
    )
    part, whole = (
        RestoreTarget(record, "half", Volume("half"), has_content=True, adds=True),
        RestoreTarget(record, "whole", None),
    )
    left = "half: what docker had left of it, and what was put back until then"
    assert describe_rollback([part]) == left
    assert describe_rollback([part, whole]) == f"what was there is there again; {left}"
    assert describe_rollback([whole]) == "what was there is there again"


def listed(safe_compose: SafeCompose) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        require_success(safe_compose("list", "--json")).stdout
    )["backups"]
    return found
