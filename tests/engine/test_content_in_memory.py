"""Volumes whose content is kept in memory (tmpfs): it ends with the last container on them, and a
stop of ours must not end it.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest

from safe_compose.core import policy
from safe_compose.core.observed import Container, Mount, Observed, Volume, is_in_memory
from safe_compose.core.tier import Tier
from testing.approvals import approve_settings
from testing.faults import failing_syscalls
from testing.projects import (
    Completed,
    ComposeProject,
    docker,
    real_docker,
    require_success,
    unique,
    volume_exists,
)
from testing.runs import (
    helpers,
    kill_at_step,
    list_backups,
    list_leftovers,
    manifest,
    runs,
    start,
    steps,
    store,
)
from testing.stacks import JOB

ProjectFactory = Callable[..., ComposeProject]
SafeCompose = Callable[..., Completed]

FILES = """
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads", "disk:/app/disk"]
volumes:
  uploads: {driver_opts: {type: tmpfs, device: tmpfs, o: "size=20m,uid=1000"}}
  disk:
"""
WITH_CACHE = (
    FILES.replace('"disk:/app/disk"]', '"disk:/app/disk", "cache:/app/cache"]')
    + "  cache: {x-safe-compose: disposable, driver_opts: {type: tmpfs, device: tmpfs}}\n"
)
"""Of the cache there is no copy."""
DATABASE = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: geheim, POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
volumes:
  data: {driver_opts: {type: tmpfs, device: tmpfs}}
"""


def deleting_nothing(folder: Path) -> Mapping[str, str]:
    """The environment in which docker fails to delete, with exit code 3."""
    program = folder / "docker"
    program.write_text(
        f'#!/bin/sh\ncase " $* " in *" down -v "*) exit 3;; esac\nexec {real_docker()} "$@"\n'
    )
    program.chmod(0o755)
    return {"SAFE_COMPOSE_DOCKER": str(program)}


@pytest.mark.parametrize(
    ("driver", "options", "ends"),
    [
        pytest.param(
            "local", {"type": "tmpfs", "device": "tmpfs", "o": "size=1g"}, True, id="tmpfs"
        ),
        pytest.param("local", {"type": "ramfs", "device": "ramfs"}, True, id="ramfs"),
        pytest.param("local", {"type": "hugetlbfs", "device": "none"}, True, id="hugetlbfs"),
        pytest.param(
            "local",
            {"type": "tmpfs", "device": "/srv/data", "o": "rw,bind"},
            False,
            id="a bind whatever its type",
        ),
        pytest.param(
            "local", {"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1"}, False, id="nfs"
        ),
        pytest.param("local", {}, False, id="plain"),
        pytest.param("other", {"type": "tmpfs"}, False, id="another driver"),
    ],
)
def test_a_volume_is_in_memory_by_its_driver_and_options(
    driver: str, options: Mapping[str, str], ends: bool
) -> None:
    assert is_in_memory(driver, options) is ends


def test_a_volume_in_memory_matters_only_while_a_container_runs_on_it() -> None:
    volume = Volume("v", options={"type": "tmpfs", "device": "tmpfs"})
    mounts = (Mount("volume", "v", "", "/var/lib/postgresql/data"),)
    user = Container("1", "db", "postgres:15", "sha256:0", "running", mounts=mounts)
    for state, tier in (
        ("running", "critical"),
        ("paused", "critical"),
        ("restarting", "critical"),
        ("exited", "disposable"),
    ):
        seen = Observed("", "", volumes=(volume,), containers=(replace(user, state=state),))
        verdict = policy.judge(volume, seen, (), None)
        assert verdict.tier.value == tier, state
    assert "kept in memory" in verdict.why
    said = policy.judge(volume, seen, (policy.Rule("v", Tier.CRITICAL, "me", floor=True),), None)
    assert said.tier is Tier.CRITICAL, "an explicit word still counts"


@pytest.mark.thorough
@pytest.mark.engine
def test_files_in_memory_outlive_the_stop_and_a_failed_deletion_and_come_back(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(FILES)
    project.up()
    name = f"{project.name}_uploads"
    project.exec("app", "dd", "of=/app/uploads/one.jpg", "status=none", input="a photo")

    # docker runs, fails and deletes nothing: the service runs again on what it had
    failed = safe_compose(
        *JOB, "compose", "down", "-v", cwd=project.folder, env=deleting_nothing(tmp_path)
    )
    assert failed.returncode == 3 and "filled again" in failed.stderr, failed.stderr
    assert project.exec("app", "cat", "/app/uploads/one.jpg") == "a photo"

    require_success(safe_compose("backup", cwd=project.folder))
    [live] = [
        a
        for a in manifest(list_backups(safe_compose, project)[0])[name]["artifacts"]
        if a["kind"] == "archive"
    ]
    assert live["detail"]["live"] == "true" and live["detail"]["members"] == "2"

    answer = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
    assert not volume_exists(name), answer.stderr
    record = manifest(list_backups(safe_compose, project)[0])[name]
    assert record["method"] == "cold" and [a["detail"]["members"] for a in record["artifacts"]] == [
        "2",
        "2",
    ]

    undone = require_success(safe_compose("undo", cwd=project.folder))
    assert project.exec("app", "cat", "/app/uploads/one.jpg") == "a photo", undone.stderr
    assert project.exec("app", "stat", "-c", "%u", "/app/uploads").strip() == "1000"

    # over what is there now, with a safety copy of it; the container is stopped for that and
    # started again
    project.exec("app", "dd", "of=/app/uploads/one.jpg", "status=none", input="another")
    again = require_success(
        safe_compose("restore", "latest", "--confirm", project.name, cwd=project.folder)
    )
    assert project.exec("app", "cat", "/app/uploads/one.jpg") == "a photo", again.stderr

    # a deletion lock keeps it mounted as well as a service does
    require_success(safe_compose("protect", "--lock", name, cwd=project.folder))
    project.docker("compose", "stop", "-t", "0")
    require_success(safe_compose("backup", "--volume", name, cwd=project.folder))
    assert manifest(list_backups(safe_compose, project)[0])[name]["method"] == "cold"
    require_success(safe_compose("unprotect", name, "--confirm", name, cwd=project.folder))
    stopped = safe_compose("backup", "--volume", name, cwd=project.folder)
    assert stopped.returncode == 73 and "nothing to back up" in stopped.stderr
    project.docker("compose", "rm", "-f")
    let_go = require_success(safe_compose(*JOB, "volume", "rm", name, cwd=project.folder))
    assert "kept in memory" in let_go.stderr and not volume_exists(name)


@pytest.mark.engine
@pytest.mark.thorough
def test_a_database_in_memory_is_archived_after_its_stop_and_its_dump_outlives_a_fault(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(DATABASE)
    project.up()
    name = f"{project.name}_data"
    project.psql(
        "CREATE TABLE t AS SELECT generate_series(1, 7) AS n", user="shop", database="shop"
    )

    require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
    assert not volume_exists(name)
    [first] = list_backups(safe_compose, project)
    assert manifest(first)[name]["method"] == "dump+cold" and first["verified"]["level"] == "L4"
    undone = require_success(safe_compose("undo", cwd=project.folder))
    assert project.psql("SELECT count(*) FROM t", user="shop", database="shop") == "7", (
        undone.stderr
    )

    # what keeps it mounted is killed while the database stops: its content is gone, the dump is not
    before = runs(sealed_environment)
    running = start(*JOB, "compose", "down", "-v", cwd=project.folder)
    kill_at_step(sealed_environment, "stopping", before)
    keeper = docker(
        "ps", "-q", "--filter", f"label=io.github.safe-compose.keeps={name}"
    ).stdout.split()
    docker("rm", "-f", *keeper)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 73 and "made before the stop" in said, said
    assert steps(sealed_environment)[-1] == "ended" and not list_leftovers(sealed_environment)
    [newest, *_] = list_backups(safe_compose, project)
    assert newest["id"] != first["id"] and manifest(newest)[name]["method"] == "dump"
    require_success(
        safe_compose("restore", newest["id"], "--confirm", project.name, cwd=project.folder)
    )
    assert project.psql("SELECT count(*) FROM t", user="shop", database="shop") == "7"


@contextmanager
def half_filled(volume: str, run: str) -> Iterator[None]:
    """As a run leaves it that is killed while content goes in: its container keeps the volume
    mounted, and a part is there.
    """
    holder = unique("keeper")
    labels = [
        f"--label=io.github.safe-compose.{name}" for name in (f"helper={run}", f"keeps={volume}")
    ]
    script = "echo a pho > /v/one.jpg; exec sleep 100000"
    docker(
        "run",
        "-d",
        "--name",
        holder,
        "--network",
        "none",
        *labels,
        "-v",
        f"{volume}:/v",
        "busybox:latest",
        "sh",
        "-c",
        script,
    )
    try:
        yield
    finally:
        docker("rm", "-f", holder)


@pytest.mark.engine
@pytest.mark.thorough
def test_a_volume_in_memory_is_filled_again_after_a_kill_before_or_while_that_is_done(
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    sealed_environment: Path,
    tmp_path: Path,
) -> None:
    project = compose_project(WITH_CACHE)
    project.up()
    name = f"{project.name}_uploads"
    project.exec("app", "dd", "of=/app/uploads/one.jpg", "status=none", input="a photo")
    job = (*JOB, "compose", "down", "-v")
    fails = deleting_nothing(tmp_path)
    assert safe_compose(*job, cwd=project.folder, env=fails).returncode == 3
    every = steps(sealed_environment)[1:]
    assert (
        every.index("running")
        < every.index("refilling")
        < every.index("refilled")
        < every.index("started")
    )

    def killed_at(step: str) -> str:
        """The id of a run that was killed when it had written this step."""
        at = failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=every.index(step) + 1)
        running = start(*job, cwd=project.folder, env={**fails, **at})
        running.communicate(timeout=120)
        assert (
            running.returncode == -9
            and steps(sealed_environment)[-1] == step
            and project.running() == []
        )
        return max(
            (store(sealed_environment) / "journal").glob("*.jsonl"),
            key=lambda path: path.stat().st_mtime_ns,
        ).stem

    killed_at("running")  # docker was about to run, and the volume had been let go
    told = require_success(safe_compose("recover"))
    assert f"volume {name}, whose content is kept in memory, was filled again" in told.stderr, (
        told.stderr
    )
    assert (
        f"volume {project.name}_cache keeps its content in memory, and was unmounted without a copy"
        " of it" in told.stderr
    )
    assert project.exec("app", "cat", "/app/uploads/one.jpg") == "a photo" and not helpers(
        sealed_environment
    )

    with half_filled(name, killed_at("refilling")):
        told = require_success(safe_compose("recover"))
        assert "was filled again" in told.stderr
        assert project.exec("app", "cat", "/app/uploads/one.jpg") == "a photo", told.stderr

    # a restore that is killed: what was there comes back, from its safety backup
    project.exec("app", "dd", "of=/app/uploads/one.jpg", "status=none", input="another")
    before = runs(sealed_environment)
    restoring = start("restore", "latest", "--confirm", project.name, cwd=project.folder)
    kill_at_step(sealed_environment, "putting-back", before)
    os.killpg(restoring.pid, signal.SIGKILL)
    restoring.communicate(timeout=120)
    told = require_success(safe_compose("recover"))
    assert "not put back" not in told.stderr, told.stderr
    assert project.exec("app", "cat", "/app/uploads/one.jpg") == "another" and not helpers(
        sealed_environment
    )

    # without the key what uses it waits for it
    key, settings = pyrage.x25519.Identity.generate(), project.folder / "safe-compose.toml"
    (tmp_path / "key").write_text(f"{key}\n")
    settings.write_text(f'[encrypt]\nrecipients = ["{key.to_public()}"]\n')
    approve_settings(project.folder)
    killed_at("running")
    told = require_success(safe_compose("recover"))
    assert (
        "is encrypted" in told.stderr
        and "recover --identity FILE" in told.stderr
        and project.running() == []
    ), told.stderr
    told = require_success(safe_compose("recover", "--identity", str(tmp_path / "key")))
    assert project.exec("app", "cat", "/app/uploads/one.jpg") == "another", told.stderr
    settings.unlink()

    killed_at("running")
    [newest, *_] = list_backups(safe_compose, project)
    shutil.rmtree(newest["path"])
    told = require_success(safe_compose("recover"))
    assert (
        f"there is no backup '{newest['id']}'" in told.stderr
        and "left stopped because of it" in told.stderr
    ), told.stderr
    assert (
        project.running() == []
        and require_success(safe_compose("recover")).stdout == "nothing to recover\n"
    )
