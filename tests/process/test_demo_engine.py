"""What `make demo` says before it installs anything, and what it takes away."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testing.projects import EXAMPLE, ROOT

PROGRAM = ROOT / "testing" / "demo-engine"
ANSWERS = """#!/bin/sh
case "$1" in info) echo ID ;; version) echo 28.5.2 ;; compose) echo 5.6.1 ;; esac
"""
TOOLS = ("bash", "cat", "cmp", "dirname", "flock", "grep", "mkdir", "rm", "timeout")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH, without a docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    (folder / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python3").chmod(0o755)
    return folder


def run(programs: Path, *words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    given = {"PATH": str(programs), "HOME": str(programs), **environ}
    return subprocess.run([PROGRAM, *words], env=given, capture_output=True, text=True)


def add_docker(programs: Path, text: str) -> None:
    (programs / "docker").write_text(text)
    (programs / "docker").chmod(0o755)


def test_where_an_engine_answers_nothing_is_installed(programs: Path) -> None:
    add_docker(programs, ANSWERS)
    done = run(programs, "plan")
    assert done.stderr == "lab: using the Docker engine that answers (28.5.2)\n"
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(os.getuid() != 0, reason="a user is told about the socket first")
def test_without_an_engine_it_says_what_comes_and_what_goes_again(programs: Path) -> None:
    done = run(programs, "plan")
    assert done.returncode == 0
    assert "lab: no Docker engine answers\n" in done.stderr
    assert "docker service" in done.stderr or "stop it at the end" in done.stderr
    assert "Compose in docker's plugin folder" in done.stderr or "compose-v2" in done.stderr


def test_an_engine_that_was_named_and_does_not_answer_is_not_replaced(programs: Path) -> None:
    add_docker(programs, "#!/bin/sh\nexit 1\n")
    done = run(programs, "plan", DOCKER_HOST="unix:///nonexistent.sock")
    assert done.returncode == 1
    assert done.stderr.endswith("at DOCKER_HOST=unix:///nonexistent.sock; nothing was installed\n")


def test_a_compose_that_somebody_put_in_place_of_ours_stays(programs: Path) -> None:
    record, plugin = programs.parent / "record", programs.parent / "docker-compose"
    plugin.write_text("somebody's")
    record.write_text(f"plugin {plugin}\ndockerd 1\n")
    done = run(programs, "remove", str(record))
    assert done.returncode == 0, done.stderr
    assert plugin.exists() and not record.exists()


def test_the_demo_needs_nothing_of_the_tests() -> None:
    text = PROGRAM.read_text() + (EXAMPLE / "demo").read_text()
    for word in ("zsh", "fish", "sshd", "testing/up", "testing.engines", "testing/compilers"):
        assert word not in text
    done = subprocess.run([EXAMPLE / "demo", "--frobnicate"], capture_output=True, text=True)
    assert done.returncode == 64 and "--keep" in done.stderr
