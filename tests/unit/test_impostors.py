"""`docker` that is really Podman or nerdctl: what may delete a volume is refused, everything else
passes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_compose.fastpath import impostors

MAIN = "import sys; from safe_compose.shim import main; sys.exit(main())"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run(name: str, folder: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    """Start ourselves under a name, with `folder` first on PATH."""
    us = folder.parent / "ours" / name
    us.parent.mkdir(exist_ok=True)
    us.write_text(f"#!{sys.executable}\n# safe_compose.shim\n{MAIN}\n")
    us.chmod(0o755)
    path = f"{us.parent}:{folder}:/usr/bin:/bin"
    return subprocess.run(
        [us, *argv],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


VERSION = 'if [ "$1" = --version ]; then echo "podman version 4.3.1"; else echo "ran $*"; fi'
DESTRUCTIVE = [
    ["volume", "rm", "x"], ["volume", "rm", "--all"], ["volume", "rm", "-af"], ["volume", "prune",
     "-f"],
    ["system", "prune", "--volumes"],
    ["system", "reset", "-f"], ["rm", "-fv", "x"], ["rm", "-av"], ["container", "rm", "-v", "x"],
    ["compose", "down", "-v"], ["--log-level", "debug", "volume", "rm", "-a"],
]  # fmt: skip
HARMLESS = [
    ["ps"], ["run", "--rm", "alpine", "rm", "-rf", "/x"], ["compose", "down"], ["compose", "up",
     "-d"], ["volume", "ls"],
    ["volume", "create", "x"], ["rm", "x"], ["create", "--name", "rm", "alpine"], ["exec", "web",
     "volume", "rm", "-a"],
]  # fmt: skip


@pytest.mark.parametrize("argv", DESTRUCTIVE, ids=" ".join)
def test_a_docker_that_answers_as_podman_gets_no_deletion(tmp_path: Path, argv: list[str]) -> None:
    script(tmp_path / "bin" / "docker", VERSION)
    answer = run("docker", tmp_path / "bin", *argv)
    assert answer.returncode == 77, answer
    assert "Podman" in answer.stderr
    assert answer.stderr.endswith("docker was not run (77)\n")
    assert answer.stdout == ""


@pytest.mark.parametrize("argv", HARMLESS, ids=" ".join)
@pytest.mark.parametrize("name", ["docker", "podman"])
def test_what_deletes_nothing_passes(tmp_path: Path, name: str, argv: list[str]) -> None:
    script(tmp_path / "bin" / name, VERSION)
    answer = run(name, tmp_path / "bin", *argv)
    assert (answer.returncode, answer.stdout) == (0, f"ran {' '.join(argv)}\n"), answer.stderr


@pytest.mark.parametrize("argv", DESTRUCTIVE, ids=" ".join)
@pytest.mark.parametrize("name", ["podman", "nerdctl"])
def test_under_their_own_names_a_deletion_is_refused(
    tmp_path: Path, name: str, argv: list[str]
) -> None:
    script(tmp_path / "bin" / name, 'echo "ran $*"')
    answer = run(name, tmp_path / "bin", *argv)
    assert answer.returncode == 77 and "volumes" in answer.stderr and answer.stdout == ""


def test_a_link_to_podman_is_recognised_by_its_real_name(tmp_path: Path) -> None:
    real = script(tmp_path / "lib" / "podman-remote", "exit 3")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(real)
    assert impostors.identify(str(tmp_path / "bin" / "docker")) == "Podman"


def test_a_real_docker_is_none_of_them(tmp_path: Path) -> None:
    plain = script(tmp_path / "docker", 'echo "Docker version 28.2.2, build e6534b4"')
    assert impostors.identify(str(plain)) is None
    assert impostors.identify(str(tmp_path / "missing")) is None


def test_to_a_real_docker_the_words_of_podmans_deletions_are_harmless(tmp_path: Path) -> None:
    script(
        tmp_path / "bin" / "docker",
        'if [ "$1" = --version ]; then echo "Docker version 28.2.2"; else echo "ran $*"; fi',
    )
    answer = run("docker", tmp_path / "bin", "system", "reset", "-f")
    assert (answer.returncode, answer.stdout) == (0, "ran system reset -f\n")


def test_without_the_program_there_is_nothing_to_run(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    answer = run("nerdctl", tmp_path / "bin", "ps")
    assert answer.returncode == 127 and "nerdctl" in answer.stderr
