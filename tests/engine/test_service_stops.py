"""Services are stopped as `docker compose stop` does it: their own time and signal, their hooks; a
killed one is named.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.observed import Container, Mount, Volume
from safe_compose.core.policy import Verdict
from safe_compose.core.tier import Tier
from safe_compose.engine import Engine
from safe_compose.errors import EngineUnavailable, OperationFailed, StateChanged
from safe_compose.grammar.parser import parse
from safe_compose.operations.backup.before_deletion import DeletionBackup, _stop_all_but
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.operations.compose_stop import HookedServices, find_hooked_services
from safe_compose.operations.stopped_containers import RefillSource, StoppedContainers, stop_seconds
from safe_compose.settings.load import load
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Journal
from safe_compose.store.steps import Stopping
from safe_compose.system.files import Access
from testing.projects import (
    Completed,
    ComposeProject,
    docker,
    read_in_volume,
    real_docker,
    require_success,
    volume_exists,
)
from testing.runs import list_backups, list_leftovers, manifest, runs, start, steps
from testing.stacks import JOB

ProjectFactory = Callable[..., ComposeProject]
SafeCompose = Callable[..., Completed]

APP = Container(
    "1", "shop-app-1", "app", "sha256:0", "running",
    labels={"com.docker.compose.project": "shop", "com.docker.compose.service": "app"},
)  # fmt: skip

SLOW = """
services:
  slow:
    image: busybox:latest
    command: [sh, -c, "trap 'sleep 3; echo saved > /data/slow; exit 0' USR1; echo ready; while :; do sleep 0.1; done"]
    stop_signal: SIGUSR1
    stop_grace_period: 40s
    volumes: ["data:/data"]
  stubborn:
    image: busybox:latest
    command: [sleep, "100000"]
    stop_grace_period: 1s
    volumes: ["data:/data"]
volumes:
  data:
"""
HOOKED = """
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads"]
    pre_stop:
      - command: [sh, -c, "echo $$WORD >> /app/uploads/hook; test ! -e /app/uploads/fail"]
        user: "1000"
        environment: [WORD=flushed]
  worker:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads"]
volumes:
  uploads:
"""

HANGING = """
services:
  app:
    image: busybox:latest
    command: [sh, -c, "trap 'touch /app/uploads/stopping; sleep 2; exit 0' TERM; echo ready; while :; do sleep 0.1; done"]
    volumes: ["uploads:/app/uploads"]
    pre_stop:
      - command: [sh, -c, "touch /app/uploads/begun; while test -e /app/uploads/hang; do sleep 0.1; done"]
volumes:
  uploads:
"""


@pytest.mark.parametrize(
    ("own", "least", "seconds"),
    [
        pytest.param(None, 30, 30, id="none"),
        pytest.param(120, 30, 120, id="longer than ours"),
        pytest.param(5, 120, 120, id="shorter than ours"),
        pytest.param(-1, 30, -1, id="for ever"),
    ],
)
def test_a_container_gets_its_own_time_and_at_least_ours(
    own: int | None, least: int, seconds: int
) -> None:
    assert stop_seconds(replace(APP, stop_timeout=own), least) == seconds


def hooked(
    version: tuple[int, ...] | None, said: list[Sequence[str]], code: int = 0
) -> HookedServices:
    def run(words: Sequence[str], seconds: float) -> tuple[int, str]:
        said.append(words)
        return code, "app hook exited with status 1"

    return HookedServices("shop", frozenset({"app"}), version, run)


def test_compose_stops_the_services_with_hooks_alone_and_for_as_long_as_they_need() -> None:
    said: list[Sequence[str]] = []
    others = [
        replace(APP, labels={**APP.labels, "com.docker.compose.project": "other"}),
        replace(APP, labels={**APP.labels, "com.docker.compose.oneoff": "True"}),
    ]
    hooks = hooked((2, 40, 3), said)
    hooks.stop(others, 30)
    assert said == []
    hooks.stop((APP, *others), 30)
    hooks.stop((replace(APP, stop_timeout=300),), 30)
    hooks.stop((replace(APP, stop_timeout=-1),), 30)
    assert said == [
        ["stop", "--timeout", "30", "app"],
        ["stop", "--timeout", "300", "app"],
        ["stop", "app"],
    ]
    with pytest.raises(OperationFailed, match="hook exited with status 1"):
        hooked((2, 40, 3), said, 1).stop((APP,), 30)


@pytest.mark.parametrize(
    ("own", "seconds"),
    [(None, 3630.0), (7200, 10800.0), (-1, 90000.0)],
    ids=["ours", "longer than ours", "for ever"],
)
def test_hooks_get_an_hour_besides_the_time_that_a_container_has_to_end(
    own: int | None, seconds: float
) -> None:
    given: list[float] = []

    def run(words: Sequence[str], seconds: float) -> tuple[int, str]:
        given.append(seconds)
        raise EngineUnavailable("no answer") from subprocess.TimeoutExpired(words, seconds)

    hooks = HookedServices("shop", frozenset({"app"}), (2, 40, 3), run)
    with pytest.raises(
        OperationFailed, match=r"the pre_stop hooks of app did not end within 60 minutes"
    ) as fault:
        hooks.stop((replace(APP, stop_timeout=own),), 30)
    assert (
        given == [seconds]
        and fault.value.next_step == "see what they wait for: docker top shop-app-1"
    )


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ((2, 29, 7), False),
        ((2, 30, 0), True),
        ((2, 37, 3), True),
        ((2, 38, 0), False),
        ((5, 6, 1), False),
        (None, False),
    ],
    ids=str,
)
def test_a_compose_that_fails_on_stopped_containers_with_hooks_is_refused_before_any_stop(
    version: tuple[int, ...] | None, refused: bool
) -> None:
    hooks = hooked(version, [])
    hooks.refuse_where_a_stop_blocks([replace(APP, labels={})], "docker compose down -v")
    if not refused:
        hooks.refuse_where_a_stop_blocks([APP], "docker compose down -v")
        return
    with pytest.raises(OperationFailed, match="nothing was stopped") as fault:
        hooks.refuse_where_a_stop_blocks([APP], "docker compose down -v")
    assert "docker compose rm --stop --force app" in str(fault.value.next_step)


class EngineInMemory:
    """Containers on volumes in memory, of which none is mounted any more; each can be started."""

    def __init__(self, *containers: Container) -> None:
        self.containers = {c.id: c for c in containers}
        self.done: list[str] = []
        self.docker = self.mounts = self

    def container(self, id: str) -> Container | None:
        return self.containers.get(id)

    def users(self, name: str) -> list[Container]:
        return [c for c in self.containers.values() if name in c.volume_names()]

    def volume(self, name: str) -> Volume:
        return (
            Volume(name, options={"type": "tmpfs", "device": "tmpfs"})
            if name != "disk"
            else Volume(name)
        )

    def keep(self, names: Sequence[str]) -> None:
        self.done += [f"mounted {name}" for name in names]

    def list_mounted(self) -> frozenset[str]:
        return frozenset()

    def release(self) -> None: ...

    def stop(self, id: str, *, timeout: int) -> int:
        self.containers[id] = replace(self.containers[id], state="exited")
        return 0

    def start(self, id: str) -> None:
        self.done.append(f"started {id}")
        self.containers[id] = replace(self.containers[id], state="running")


def test_nothing_starts_on_a_volume_in_memory_that_could_not_be_filled_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def on(id: str, *volumes: str) -> Container:
        mounts = tuple(Mount("volume", name, "", f"/{name}") for name in volumes)
        return replace(APP, id=id, name=f"shop-{id}-1", mounts=mounts)

    held = EngineInMemory(
        on("a", "full"),
        on("b", "broken"),
        on("c", "disk"),
        on("d", "full", "broken"),
        on("e", "last"),
    )
    journal = Journal(tmp_path, Access())
    engine: Any = held
    stopped_containers = StoppedContainers(engine, journal.begin("20261129T000000Z-aaaaaa"))
    stopped_containers.stop(list(held.containers.values()))

    def fails() -> None:
        held.done.append("half filled broken")
        raise OperationFailed("the disk is full")

    with pytest.raises(OperationFailed) as lost:
        stopped_containers.require_kept()
    each = "keeps its content in memory and was unmounted"
    assert lost.value.message.count(each) == 3 and f"volume full {each}" in lost.value.message
    stopped_containers.can_fill("broken", RefillSource("20261129T000000Z-bbbbbb", fails))
    for name in ("full", "last"):
        stopped_containers.can_fill(
            name,
            RefillSource("20261129T000000Z-bbbbbb", partial(held.done.append, f"filled {name}")),
        )
    held.done.clear()
    stopped_containers.restore()
    fills = [
        "mounted full",
        "filled full",
        "mounted broken",
        "half filled broken",
        "mounted last",
        "filled last",
    ]
    assert held.done == [*fills, "started e", "started c", "started a"]
    said = capfd.readouterr().err
    assert (
        "volume broken, whose content is kept in memory, could not be filled again (the disk is"
        " full)" in said
    )
    assert (
        "what uses it stays stopped (shop-b-1, shop-d-1); its content is in backup"
        " 20261129T000000Z-bbbbbb" in said
    )
    assert (
        "docker start shop-b-1 shop-d-1" in said
        and "restore 20261129T000000Z-bbbbbb --volume broken" in said
    )


def test_compose_stops_the_other_containers_of_a_service_with_hooks_as_well() -> None:
    hooks = hooked((2, 40, 3), [])
    second = replace(APP, id="2", name="shop-app-2")
    every = [
        APP,
        second,
        replace(second, id="3", state="exited"),
        replace(second, id="4", labels={**APP.labels, "com.docker.compose.service": "worker"}),
        replace(second, id="5", labels={**APP.labels, "com.docker.compose.project": "other"}),
        replace(second, id="6", labels={**APP.labels, "com.docker.compose.oneoff": "True"}),
    ]
    assert (
        hooks.list_stopped_with([APP], every) == [second]
        and hooks.list_stopped_with([APP, second], every) == []
    )
    assert hooks.list_stopped_with([every[3]], every) == []


@pytest.mark.thorough
@pytest.mark.engine
def test_every_container_of_a_service_with_hooks_is_journaled_and_started_again(
    compose_project: ProjectFactory, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = compose_project(
        HOOKED.replace("    init: true\n", "    init: true\n    scale: 2\n", 1)
    )
    project.docker("compose", "up", "--detach", "--pull", "never", "app")
    first, second = (
        found for name in project.running() if (found := engine.docker.container(name)) is not None
    )
    monkeypatch.chdir(project.folder)
    hooks = find_hooked_services(real_docker(), engine, [first])
    assert hooks is not None
    journal = Journal(tmp_path / "store", Access())
    run = journal.begin(
        engine.run_id,
        endpoint=engine.endpoint,
        engine_id=engine.id,
    )
    stopped_containers = StoppedContainers(engine, run, hooks)
    request = BackupRequest(
        project.name,
        "pre-delete",
        (),
        engine.commands.look(parse(["volume", "ls"])),
        (),
        (first, second),
    )
    with pytest.raises(StateChanged, match="must be stopped last"):
        _stop_all_but({second.id}, request, stopped_containers)
    assert len(project.running()) == 2
    stopped_containers.stop([first])
    assert project.running() == []
    [stopping] = [step for found in journal.runs() for step in found.every(Stopping)]
    assert {c.id for c in stopping.containers} == {first.id, second.id}
    assert stopped_containers.restore() and len(project.running()) == 2


@pytest.mark.thorough
@pytest.mark.engine
def test_a_slow_service_ends_in_its_own_time_and_a_killed_one_is_named_in_the_backup(
    compose_project: ProjectFactory,
    engine: Engine,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    project = compose_project(SLOW)
    project.up()
    observed = engine.commands.look(parse(["volume", "ls"]))
    volume = observed.volume(f"{project.name}_data")
    assert volume is not None
    users = observed.users(volume.name)
    catalogue, journal = (
        Catalogue.at(tmp_path / "store", Access()),
        Journal(tmp_path / "store", Access()),
    )
    catalogue.folder.ensure()
    run = journal.begin(
        engine.run_id,
        endpoint=engine.endpoint,
        engine_id=engine.id,
    )
    stopped_containers = StoppedContainers(engine, run)
    stopped_containers.stop(users, timeout=1)
    assert [k.name for k in stopped_containers.killed] == [f"{project.name}-stubborn-1"]
    assert (
        f"{project.name}-stubborn-1 did not end by itself within 1 s and was killed"
        in capfd.readouterr().err
    )
    assert read_in_volume(volume.name, "cat", "/v/slow") == "saved\n"
    judged = ((volume, Verdict(volume.name, Tier.CRITICAL, "", "files", explicit=False)),)
    now = engine.commands.look(parse(["volume", "ls"]))
    made = DeletionBackup(engine, catalogue, run, load(tmp_path, {}), stopped_containers).make(
        BackupRequest(project.name, "pre-delete", (), now, judged, users)
    )
    assert any("stubborn-1 was killed" in note for note in made.backup.volumes[0].notes)
    assert stopped_containers.restore() and len(project.running()) == 2


@pytest.mark.engine
@pytest.mark.thorough
def test_hooks_run_once_before_the_archive_and_a_hook_that_fails_leaves_everything_running(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(HOOKED)
    project.up()
    name = f"{project.name}_uploads"
    project.exec("app", "chmod", "777", "/app/uploads")
    project.exec("app", "touch", "/app/uploads/fail")
    failed = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder)
    assert failed.returncode == 73 and "pre_stop hooks run first" in failed.stderr, failed.stderr
    assert len(project.running()) == 2 and volume_exists(name)

    project.exec("app", "rm", "/app/uploads/fail", "/app/uploads/hook")
    project.exec("app", "touch", "/app/uploads/one.jpg")
    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
    assert not volume_exists(name)
    [backup] = list_backups(safe_compose, project)
    assert runs(sealed_environment) == 2 and manifest(backup)[name]["method"] == "cold"
    require_success(safe_compose("undo", cwd=project.folder))
    assert project.exec("app", "cat", "/app/uploads/hook") == "flushed\n"

    # a restore stops it in the same way; what it writes then into a volume that was empty is not
    # lost
    project.exec("app", "rm", "/app/uploads/hook", "/app/uploads/one.jpg")
    again = safe_compose("restore", "latest", cwd=project.folder)
    assert (
        again.returncode == 75 and project.exec("app", "cat", "/app/uploads/hook") == "flushed\n"
    ), again.stderr
    project.exec("app", "rm", "/app/uploads/hook")
    project.exec("app", "touch", "/app/uploads/two.jpg")
    require_success(
        safe_compose("restore", "latest", "--confirm", project.name, cwd=project.folder)
    )
    newest = list_backups(safe_compose, project)[0]
    assert newest["reason"] == "pre-restore"
    [tar] = [a for a in manifest(newest)[name]["artifacts"] if a["kind"] == "archive"]
    assert tar["detail"]["members"] == "3", (
        "the folder, the file, and what the hook wrote before the stop"
    )


@pytest.mark.engine
@pytest.mark.thorough
def test_a_signal_ends_the_wait_for_a_hook_that_hangs_and_for_a_stop_that_has_begun(
    compose_project: ProjectFactory, sealed_environment: Path
) -> None:
    project = compose_project(HANGING)
    project.up()
    name = f"{project.name}_uploads"
    root = Path(docker("volume", "inspect", name, "--format", "{{.Mountpoint}}").stdout.strip())
    (root / "hang").touch()

    def started() -> str:
        return docker(
            "inspect", f"{project.name}-app-1", "--format", "{{.State.Status}} {{.State.StartedAt}}"
        ).stdout

    def cut_off(number: signal.Signals, at: Path) -> tuple[int, str]:
        """Exit code and words of a deletion that gets a signal once the file is there."""
        running = start(*JOB, "compose", "down", "-v", cwd=project.folder)
        try:
            end = time.monotonic() + 60
            while not at.exists():
                assert time.monotonic() < end and running.poll() is None, steps(sealed_environment)
                time.sleep(0.02)
            running.send_signal(number)
            return running.wait(30), running.communicate()[1]
        finally:
            running.kill()

    before = started()
    code, said = cut_off(signal.SIGTERM, root / "begun")
    assert code == -signal.SIGTERM and "a pre_stop hook that has begun goes on by itself" in said, (
        said
    )
    assert started() == before and volume_exists(name), "nothing was stopped"
    assert steps(sealed_environment)[-1] == "ended" and not list_leftovers(sealed_environment)

    (root / "hang").unlink()
    code, said = cut_off(signal.SIGINT, root / "stopping")
    assert code == 130 and f"started again: {project.name}-app-1" in said, said
    assert started().startswith("running ") and started() != before and volume_exists(name)
    assert steps(sealed_environment)[-1] == "ended" and not list_leftovers(sealed_environment)
