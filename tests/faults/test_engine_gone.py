"""The engine goes away while a backup is made: docker is not run, and it is said what is left to
do.
"""

import os
import signal
from pathlib import Path

import pytest

from testing.private_engine import PrivateEngine, private_engine
from testing.projects import wait_until
from testing.runs import start, steps, store
from testing.stacks import FILES, JOB

pytestmark = pytest.mark.engine


@pytest.mark.thorough
def test_an_engine_that_ends_in_mid_backup_leaves_nothing_half_and_names_what_starts_things_again(
    lab: None, tmp_path: Path, sealed_environment: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    (folder / "compose.yaml").write_text(
        FILES.replace("    init: true\n", "    init: true\n    network_mode: none\n")
    )
    with private_engine(["busybox:latest"]) as engine:
        engine.docker("compose", "up", "-d", cwd=folder)
        engine.docker(
            "compose",
            "exec",
            "-T",
            "app",
            "dd",
            "if=/dev/urandom",
            "of=/app/uploads/f",
            "bs=1M",
            "count=80",
            cwd=folder,
        )
        guarded = start(*JOB, "compose", "down", "-v", cwd=folder, env={"DOCKER_HOST": engine.host})
        wait_until("the service is stopped", lambda: "stopped" in steps(sealed_environment))
        os.kill(pid_of(engine), signal.SIGTERM)
        _, said = guarded.communicate(timeout=120)
    assert guarded.returncode in (69, 73), said
    assert f"docker was not run ({guarded.returncode})" in said
    assert "to start them later: safe-compose recover" in said
    assert "Error(" not in said, "a Python exception is no message"
    assert "ended" not in steps(sealed_environment), "recover would not find it"
    assert list(store(sealed_environment).rglob(".partial-*")) == []


def pid_of(engine: PrivateEngine) -> int:
    return int(Path(engine.host.removeprefix("unix://")).with_name("pid").read_text())
