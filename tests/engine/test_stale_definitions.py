"""A volume that only points at a place which is not there: deleting it loses nothing, and nothing
else is deleted for that.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safe_compose.core.observed import Volume
from safe_compose.core.volume_reach import NO_ANSWER, explain_no_loss, is_only_a_definition
from safe_compose.operations.verdicts import MOUNT_SECONDS
from testing.engine_proxy import holding
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker, require_success, unique, volume_exists
from testing.stacks import JOB

Loose = Callable[..., str]


@pytest.fixture
def loose(lab: None) -> Iterator[Loose]:
    """Make a volume of this test alone, with driver options."""
    made: list[str] = []

    def make(**options: str) -> str:
        made.append(unique("stale"))
        docker(
            "volume",
            "create",
            *(word for name, value in options.items() for word in ("--opt", f"{name}={value}")),
            made[-1],
        )
        return made[-1]

    yield make
    for name in made:
        docker("volume", "rm", "-f", name, check=False)


@pytest.mark.matrix
@pytest.mark.thorough
@pytest.mark.engine
def test_definitions_that_point_nowhere_go_with_one_line_each_and_take_nothing_along(
    loose: Loose, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    gone = loose(type="none", o="bind", device=str(tmp_path / "gone"))
    share = loose(type="nfs", o="addr=nas.invalid,nolock,soft", device=":/photos")
    answer = require_success(safe_compose("volume", "rm", gone, share))
    assert (
        len(answer.stderr.splitlines()) == 2
        and not volume_exists(gone)
        and not volume_exists(share)
    ), answer.stderr
    assert (
        f"{gone} is deleted without a backup: disposable, {tmp_path}/gone, the folder that it"
        " points at, is not" in answer.stderr
    )
    # the second on a machine without a network, the last where that takes long to find out
    reason = r"\((no such host|network is unreachable|it does not answer)\)"
    told = rf"{share} is deleted without a backup: disposable, :/photos cannot be mounted {reason}: what is"
    assert re.search(told, answer.stderr), answer.stderr

    holds = loose(type="none", o="bind", device=str(tmp_path / "gone"))
    own = Path(docker("volume", "inspect", holds, "--format", "{{.Mountpoint}}").stdout.strip())
    (own / "written-by-hand").write_text("where nothing was mounted")
    protected = loose(type="none", o="bind", device=str(tmp_path / "gone"))
    require_success(safe_compose("protect", protected))
    for name in (holds, protected):
        refused = safe_compose(*JOB, "volume", "rm", name, env={"CLAUDECODE": "1"})
        assert refused.returncode == 73 and volume_exists(name)
        assert json.loads(
            next(line for line in refused.stderr.splitlines() if line.startswith("{"))
        )["next"], refused.stderr
    assert (own / "written-by-hand").exists()


@pytest.mark.thorough
@pytest.mark.engine
def test_docker_deletes_one_when_the_engine_has_given_up_mounting_it(
    loose: Loose, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    """Until then our container refers to it, and docker would refuse."""
    gone = loose(type="none", o="bind", device=str(tmp_path / "gone"))
    with holding("/archive", MOUNT_SECONDS + 3) as host:
        deleted = safe_compose("volume", "rm", gone, env={"DOCKER_HOST": host})
    require_success(deleted)
    assert "cannot be mounted (it does not answer)" in deleted.stderr
    assert not volume_exists(gone)


@pytest.mark.matrix
@pytest.mark.thorough
@pytest.mark.engine
def test_a_project_with_one_is_deleted_with_a_backup_of_the_rest(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    text = f"""
services:
  app: {{image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["uploads:/app/uploads"]}}
  old: {{image: "busybox:latest", command: [sleep, "100000"], volumes: ["share:/app/media"]}}
volumes:
  uploads:
  share: {{driver_opts: {{type: none, o: bind, device: "{tmp_path}/share"}}}}
"""
    project = compose_project(text)
    (tmp_path / "share").mkdir()
    project.docker("compose", "create", "--pull", "never")
    project.docker("compose", "start", "app")
    (tmp_path / "share").rmdir()
    answer = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
    assert project.volumes() == []
    shown = " ".join(answer.stderr.split())
    assert f"(disposable): {project.name}_share" in shown
    assert "is not there: only its definition goes" in shown
    (backup,) = json.loads(require_success(safe_compose("list", "--json")).stdout)["backups"]
    assert backup["volumes"] == [f"{project.name}_uploads"] and backup["verified"]


MOUNT = (
    "error while mounting volume '/v/_data': failed to mount local volume: mount {}:/v/_data,"
    " flags: 0x1000: {}"
)
GONE = "no such file or directory"
STAYS = "what is there stays"
WORDS = {
    "a folder that is not there": ({"o": "bind", "device": "/gone"}, MOUNT.format("/gone", GONE),
     "is not there"),
    "a folder that may not be entered": ({"o": "rbind,ro", "device": "/x"}, MOUNT.format("/x",
      "permission denied"), STAYS),
    "a server that does not answer": ({"type": "nfs", "device": ":/x"}, NO_ANSWER,
     f"(it does not answer): {STAYS}"),
    "a server that refuses": ({"type": "nfs", "device": ":/x"}, MOUNT.format(":/x",
      "connection refused"), "(connection refused)"),
    "a disk": ({"type": "ext4", "device": "/dev/sdz9"}, MOUNT.format("/dev/sdz9", GONE), STAYS),
    "a full disk of the engine": ({"type": "nfs", "device": ":/x"},
     "mkdir /x: no space left on device", None),
    "no such container": ({"o": "bind", "device": "/gone"}, "No such container: 1234", None),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_only_a_mount_that_failed_says_that_nothing_is_lost(case: str) -> None:
    options, words, expected = WORDS[case]
    why = explain_no_loss(Volume("v", options=options), words)
    assert why is None if expected is None else expected in str(why)


def test_no_secret_of_a_share_is_shown_and_a_volume_in_memory_points_at_nothing() -> None:
    share = Volume(
        "v", options={"type": "cifs", "o": "password=canary", "device": "//me:canary@nas/x"}
    )
    assert "canary" not in str(
        explain_no_loss(share, MOUNT.format("//nas/x, data: password=canary", "host is down"))
    )
    assert is_only_a_definition(share) and not is_only_a_definition(
        Volume("v", options={"type": "tmpfs", "device": "tmpfs"})
    )
    assert not is_only_a_definition(Volume("v")) and not is_only_a_definition(
        Volume("v", driver="other", options={"device": "/x"})
    )
