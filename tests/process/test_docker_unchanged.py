"""Harmless commands at a real terminal and with a real engine: docker's own answer, seen through us
and without us.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from testing.fixtures import ProjectFactory
from testing.plain_install import plain_program
from testing.projects import ComposeProject, docker, real_docker, unique, wait_until

PROGRAM = str(plain_program())
APP = """
services:
  app:
    image: busybox:latest
    command: ["sh", "-c", "trap 'echo app ends; exit 0' TERM; echo app runs; while :; do sleep 0.1; done"]
    stop_grace_period: 10s
"""


@pytest.fixture(params=["bare", "ours", "shim"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The docker that is typed: the real one, then us by both our programs. What is asserted holds
    for all.
    """
    if request.param == "shim":
        words = ["shell", "--install", "shims", "--dir", tmp_path / "shims", "--yes"]
        subprocess.run(
            [PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=True,
        )
        return str(tmp_path / "shims" / "docker")
    return real_docker() if request.param == "bare" else PROGRAM


@pytest.fixture
def container(lab: None) -> Iterator[str]:
    name = unique("scshell")
    docker(
        "run",
        "--detach",
        "--pull",
        "never",
        "--network",
        "none",
        "--name",
        name,
        "busybox:latest",
        "sleep",
        "10000",
    )
    yield name
    docker("rm", "--force", "--volumes", name, check=False)


Shell = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """An interactive bash that `ready> ` says is waiting."""
    started: list[pexpect.spawn[str]] = []

    def start(cwd: Path = tmp_path) -> "pexpect.spawn[str]":
        environ = {**os.environ, "PS1": "", "TERM": "xterm"}
        argv = ["--norc", "--noprofile", "-i"]
        child = pexpect.spawn(
            "bash",
            argv,
            cwd=str(cwd),
            env=environ,
            encoding="utf-8",
            codec_errors="replace",
            timeout=20,
            dimensions=(33, 111),
        )
        started.append(child)
        child.sendline("PS1='ready''> '; bind 'set enable-bracketed-paste off'")
        child.expect_exact("ready> ")
        return child

    yield start
    for child in started:
        child.close(force=True)


def ended_with(child: "pexpect.spawn[str]") -> int:
    child.expect(r"code=(\d+)\.")
    assert child.match is not None
    return int(child.match.group(1))


def foreground(child: "pexpect.spawn[str]") -> str:
    """The program that has the terminal."""
    return Path(f"/proc/{os.tcgetpgrp(child.child_fd)}/exe").resolve().name


# -- what exec keeps -------------------------------------------------------------------------------


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """`cat` in docker's place: it shows files of the process that it is."""
    folder = tmp_path / "native"
    folder.mkdir()
    shutil.copy("/bin/cat", folder / "docker")
    return folder


def test_limits_process_group_and_session_are_kept(cat: Path) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (123, 456))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def seen(program: str, file: str) -> tuple[int, bytes]:
        with subprocess.Popen(
            [program, file],
            env={"PATH": str(cat)},
            preexec_fn=lower,
            process_group=0,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            return child.pid, child.stdout.read()

    assert (
        seen(PROGRAM, "/proc/self/limits")[1] == seen(str(cat / "docker"), "/proc/self/limits")[1]
    )
    for program in (PROGRAM, str(cat / "docker")):
        pid, stat = seen(program, "/proc/self/stat")
        own, _, parent, group, session = [
            *map(bytes.decode, re.split(rb"[ ()]+", stat)[:1]),
            *stat.rpartition(b")")[2].split()[:4],
        ]
        assert (int(own), int(parent), int(group), int(session)) == (
            pid,
            os.getpid(),
            pid,
            os.getsid(0),
        )


# -- streams ---------------------------------------------------------------------------------------


@pytest.mark.engine
def test_an_image_saved_to_a_file_and_a_build_from_stdin_are_the_same_bytes(
    lab: None, tmp_path: Path
) -> None:
    def out(program: str, *words: str, data: bytes = b"") -> bytes:
        environ = {**os.environ, "DOCKER_BUILDKIT": "0"}
        return subprocess.run(
            [program, *words],
            input=data,
            env=environ,
            stdout=subprocess.PIPE,
            check=True,
            timeout=120,
        ).stdout

    # The engine writes its clock into it, in seconds.
    words = ("save", "busybox:latest")
    same = "two that were saved within a second have the same bytes"
    wait_until(same, lambda: out(PROGRAM, *words) == out(real_docker(), *words))
    file = b"FROM busybox:latest\nLABEL made=by-a-test-of-safe-compose\n"
    built = [
        out(p, "build", "--quiet", "--network", "none", "-", data=file)
        for p in (real_docker(), PROGRAM)
    ]
    assert (
        built[0].startswith(b"sha256:") and built[0] == built[1]
    )  # the second one comes from the cache of the first
    docker("rmi", built[0].decode().strip())


@pytest.mark.matrix
@pytest.mark.engine
@pytest.mark.parametrize(
    "words",
    [
        ["__complete", "volume", "rm", "--f"],
        ["__completeNoDesc", "compose", "down", "--v"],
        ["compose", "docker-cli-plugin-metadata"],
        ["docker-cli-plugin-hooks", "{}"],
        ["help", "volume", "rm"],
        ["volume", "rm", "--help"],
        ["compose", "down", "-v", "--help"],
        ["compose", "down", "--no-such-flag"],
        ["compose", "ps", "--no-such-flag"],
        ["volume", "frobnicate"],
    ],
)
def test_help_completion_plumbing_and_dockers_own_errors_are_dockers(
    words: list[str], lab: None, tmp_path: Path
) -> None:
    def said(program: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [program, *words],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    assert said(PROGRAM) == said(real_docker())


# -- at a terminal ---------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_shell_in_a_container_has_the_terminal(
    program: str, container: str, shell: Shell
) -> None:
    child = shell()
    child.sendline(f"{program} exec -it {container} sh; echo code=$?.")
    child.expect_exact("# ")
    child.sendline("stty size; echo sum=$((40 + 2))")
    child.expect_exact("33 111")
    child.expect_exact("sum=42")
    child.sendcontrol("c")  # for the shell inside, not for us
    child.expect_exact("# ")
    child.sendline("exit 7")
    assert ended_with(child) == 7


@pytest.mark.engine
def test_ctrl_c_ends_compose_up_in_the_foreground_as_it_ends_compose(
    program: str, compose_project: ProjectFactory, shell: Shell
) -> None:
    project: ComposeProject = compose_project(APP)
    child = shell(project.folder)
    child.sendline(f"{program} compose up --pull never; echo code=$?.")
    child.expect_exact("app runs")
    child.sendcontrol("c")
    child.expect_exact("app ends")
    assert ended_with(child) in (
        0,
        130,
    )  # Compose 2.40 says 0 or 130, depending on who is first; never a code of ours
    assert "safe-compose:" not in (child.before or "")


@pytest.mark.engine
def test_ctrl_z_stops_docker_and_fg_goes_on(program: str, container: str, shell: Shell) -> None:
    child = shell()
    child.sendline(f"{program} wait {container}; echo first=$?.")
    child.expect_exact("\n")
    while foreground(child) != "docker":  # before its exec, bash's child ignores Ctrl-Z
        continue
    child.sendcontrol("z")
    child.expect_exact("Stopped")
    child.expect_exact(f"first={128 + signal.SIGTSTP}.")
    child.sendline("fg; echo code=$?.")
    docker("kill", container)
    child.expect_exact("137")  # what `docker wait` prints
    assert ended_with(child) == 0
