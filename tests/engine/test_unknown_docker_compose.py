"""A `docker-compose` of which nobody knows what it is: the reading of the words that may delete is
believed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_compose import shim
from testing.engine_scene import VERSIONS
from testing.fixtures import ProjectFactory
from testing.projects import LAB, docker
from testing.stacks import FILES, read_file, write_file

PROGRAM = Path(sys.executable).with_name("safe-compose")
PODMAN = 'if [ "$2" = --short ]; then echo 1.0.6; else echo "podman-compose version: 1.0.6"; fi'
SILENT = {
    "nothing": "exit 1",
    "long form": "echo 'Docker Compose version v2.29.7'",
    "podman-compose": "echo 'podman-compose version 1.0.6'",
    "podman-compose, short": PODMAN,
    "words": "echo 'company compose'; echo 1.2.3",
    "zero": "echo 0.1.0",
    "a date": "echo 2026.1.1",
    "and fails": "echo 2.26.1; exit 1",
    "not only text": r"printf '2.26.1\0'",
}
KNOWN = {
    "1.29": (
        'if [ "$2" = --short ]; then echo 1.29.2; else echo "docker-compose version 1.29.2, build'
        ' unknown"; fi'
    ),
    "2.26": "echo 2.26.1",
    "5.6": "echo v5.6.1",
}
V1_ALONE = ["-- down -v", "-c ctx down -v", "down --vol", "--verb down -v"]
"""Only docker-compose 1.29 takes them."""
V2_ALONE = ["down db -v", "--dry-run=false down -v", "up -d -y"]
DASHES = ["--parallel=3 -- down --volumes", "--no-pod -- down -v", "--no-pod -- rm -fv web"]
"""Only podman-compose takes them."""
OTHERS = ["--in-pod 1 down -v", "--podman-args=x down -v", "rm db -v"]
"""Only a docker-compose that our tables do not know takes the first two."""
HARMLESS = [
    "-- down",
    "-c ctx ps",
    "down",
    "up -d",
    "exec db psql -v",
    "run web rm -v",
    "down -v --help",
    "--parallel=3 -- down",
    "run --rm web -- rm -v",
]


def program(folder: Path, answer: str) -> Path:
    path = folder / "bin" / "docker-compose"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = version ]; then {answer}; exit; fi\necho "$*" >>'
        f" {folder}/ran\nexit 3\n"
    )
    path.chmod(0o755)
    return path


def kind(line: str, folder: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PATH", f"{program(folder, answer).parent}:/usr/bin:/bin")
    return shim.read(line.split(), "docker-compose").kind


@pytest.mark.parametrize("answer", SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("line", V1_ALONE + V2_ALONE + OTHERS + DASHES)
def test_one_that_does_not_tell_what_it_is_may_delete_by_any_reading(
    line: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind(line, tmp_path, answer, monkeypatch) != "none"


@pytest.mark.parametrize("answer", [*SILENT.values(), *KNOWN.values()], ids=[*SILENT, *KNOWN])
@pytest.mark.parametrize("line", HARMLESS)
def test_what_deletes_in_no_reading_is_harmless(
    line: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind(line, tmp_path, answer, monkeypatch) == "none"


@pytest.mark.parametrize(
    ("line", "answer", "deletes"),
    [(line, "1.29", True) for line in V1_ALONE]
    + [(line, "1.29", False) for line in V2_ALONE + OTHERS[:2]]
    + [
        (line, version, line in V2_ALONE)
        for version in ("2.26", "5.6")
        for line in (V1_ALONE[0], *V2_ALONE)
    ],
)
def test_one_that_tells_is_read_as_what_it_is(
    line: str, answer: str, deletes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (kind(line, tmp_path, KNOWN[answer], monkeypatch) != "none") == deletes


@pytest.mark.parametrize(
    ("answer", "asks"),
    [(KNOWN["1.29"], False), (KNOWN["2.26"], True), ("exit 1", True)],
    ids=["1", "2", "?"],
)
def test_flags_that_only_an_old_one_takes_are_in_doubt_only_with_another(
    answer: str, asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused with an answer on stdin, which only docker-compose 2.x takes."""
    monkeypatch.setenv("PATH", f"{program(tmp_path, answer).parent}:/usr/bin:/bin")
    read = shim.read(["-c", "ctx", "up", "-d"], "docker-compose")
    assert (read.kind, read.asks, read.unknown) == ("none", asks, ("-c",) if asks else ())


@pytest.mark.thorough
@pytest.mark.engine
def test_its_deletions_are_refused_and_it_does_not_run(
    compose_project: ProjectFactory, tmp_path: Path
) -> None:
    project = compose_project(FILES)
    project.up()
    write_file(project)
    for line, answer in (
        ("-- down -v", "nothing"),
        ("-c default down -v", "long form"),
        ("--in-pod 1 down -v", "podman-compose, short"),
        ("down db -v", "podman-compose"),
        ("--parallel=3 -- down -v", "podman-compose"),
    ):
        folder = program(tmp_path, SILENT[answer]).parent
        done = subprocess.run(
            [PROGRAM, "docker-compose", "--non-interactive", "--backup-first", *line.split()],
            cwd=project.folder, text=True, env={**os.environ,
             "PATH": f"{folder}:{os.environ['PATH']}"}, stdin=subprocess.DEVNULL,
             capture_output=True,
            start_new_session=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 77, (line, done.stderr)
        assert done.stderr.endswith("docker was not run (77)\n")
        ran = tmp_path / "ran"
        assert " down" not in (ran.read_text() if ran.exists() else "")
        assert read_file(project) == "a photo"
    assert (
        docker("volume", "ls", "-q", "--filter", f"name={project.name}").stdout.split()
        == project.volumes()
    )


@pytest.mark.engine
@pytest.mark.thorough
@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrapper_must_show_that_it_goes_to_the_engine_that_is_looked_at(
    version: str, compose_project: ProjectFactory, tmp_path: Path
) -> None:
    """One with a DOCKER_HOST of its own would delete where nobody looked."""
    project = compose_project(FILES)
    project.up()
    write_file(project)
    wrapper = program(tmp_path, "exit 1")
    for host, code in (("unix:///nonexistent.sock", 69), ("unix:///var/run/docker.sock", 0)):
        wrapper.write_text(
            f'#!/bin/sh\nDOCKER_HOST={host} exec {LAB}/compose/{version}/docker-compose "$@"\n'
        )
        done = subprocess.run(
            [PROGRAM, "docker-compose", "--non-interactive", "--backup-first", "--explain", "down",
             "-v"], cwd=project.folder,
            env={**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert code == 0 or "does not show that it would reach the same engine" in done.stderr
    assert read_file(project) == "a photo"
