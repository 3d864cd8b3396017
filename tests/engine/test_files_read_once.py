"""Compose files and env files that can be read only once, or that ask: what docker will read is
what was looked at.
"""

import errno
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.compose import single_use
from safe_compose.compose.files import Files
from safe_compose.errors import Refused
from safe_compose.grammar import parser
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import Completed, ComposeProject, docker, read_in_volume, volume_exists
from testing.stacks import JOB, read_file, write_file

PROGRAM = Path(sys.executable).with_name("safe-compose")
NAMED = """
name: PROJECT
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads"]
volumes:
  uploads: {name: "${PREFIX:-PROJECT}_uploads"}
"""


def bash(folder: Path, line: str, *, seconds: float = 120, **environ: str) -> Completed:
    """A line of bash in a session of its own: no terminal. `$sc` is safe-compose as a deploy job
    calls it.
    """
    sc = shlex.join([str(PROGRAM), *JOB])
    return subprocess.run(
        ["bash", "-c", f"sc={shlex.quote(sc)}; {line}"], cwd=folder, env={**os.environ, **environ},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
        timeout=seconds,
    )  # fmt: skip


def nobody_opened(fifo: Path) -> bool:
    """Whether no process reads from a named pipe."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno == errno.ENXIO
    return False


@pytest.fixture
def app(compose_project: ProjectFactory) -> Iterator[ComposeProject]:
    """Running, with a file in its volume; the name of the volume hangs on a variable."""
    project = compose_project("services: {}")
    (project.folder / "compose.yaml").write_text(NAMED.replace("PROJECT", project.name))
    (project.folder / "twin").mkdir()
    project.up()
    write_file(project)
    yield project
    docker("volume", "rm", "--force", f"{project.name}-x_uploads")


# -- one scene for each way to name such a file ----------------------------------------------------


@pytest.mark.engine
def test_a_descriptor_is_read_once_and_given_to_the_probe_and_to_docker(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    folder, name = app.folder, app.name
    explained = [
        "$sc --explain --json compose -f /dev/stdin down -v < compose.yaml",
        "$sc --explain --json compose -f <(cat compose.yaml) down -v",
        "cat compose.yaml | COMPOSE_FILE=- $sc --explain --json compose down -v",
        (
            f"cd twin; ln -s /dev/stdin compose.yaml; cat ../compose.yaml | $sc --confirm {name}"
            " --explain --json compose down -v"
        ),
    ]
    for line in explained:
        plan = bash(folder, line)
        assert plan.returncode == 0, (line, plan.stderr)
        found = json.loads(plan.stdout)
        assert (found["verdict"], found["project"]) == ("guard", name), line
        assert [v["name"] for v in found["volumes"]] == [f"{name}_uploads"], line
    for line in (
        "compose -f /dev/stdin down -v < compose.yaml",
        "compose --env-file <(echo X=1) down -v",
    ):
        unattended = bash(folder, f"{PROGRAM} {line}")
        assert unattended.returncode == 77, unattended.stderr
        assert read_file(app) == "a photo"
    # What the env file says counts for both: the volume that it names is backed up, and that one
    # docker deletes.
    other = f"{name}-x_uploads"
    read_in_volume(other, "dd", "of=/v/one", "status=none", input="another photo")
    words = f"compose -f /dev/stdin --env-file <(echo PREFIX={name}-x) down -v"
    done = bash(folder, f"cat compose.yaml | $sc --confirm {name} {words}")
    assert done.returncode == 0, done.stderr
    assert not volume_exists(other) and volume_exists(f"{name}_uploads")
    assert app.containers() == []
    back = safe_compose("undo", cwd=folder)
    assert read_in_volume(other, "cat", "/v/one") == "another photo", back.stderr


@pytest.mark.engine
def test_a_named_pipe_is_refused_unread_and_nothing_waits(app: ComposeProject) -> None:
    folder = app.folder
    whole = (folder / "compose.yaml").read_text()
    os.mkfifo(folder / "once")
    os.mkfifo(folder / "twin" / ".env")
    (folder / "twin" / "compose.yaml").write_text("services: {}")
    (folder / "apart" / "other").mkdir(parents=True)
    os.mkfifo(folder / "apart" / "other" / ".env")
    (folder / "apart" / "empty.yaml").write_text("services: {}")
    reads = {
        "env file": ("compose --env-file once down -v", whole),
        "compose file": ("compose -f compose.yaml -f once down -v", whole),
        "env_file": ("compose down -v", whole.replace("init:", "env_file: ./once\n    init:")),
        "env_file, long": (
            "compose down -v",
            whole.replace("init:", "env_file: [{path: ./$ONCE, required: false}]\n    init:"),
        ),
        "env_file, by an alias": (
            "compose down -v",
            (
                "x-once: &once"
                f" [./once]\n{whole.replace('init:', 'env_file: *once' + chr(10) + '    init:')}"
            ),
        ),
        "an include's folder": (
            "compose down -v",
            f"include: [{{path: apart/empty.yaml, project_directory: apart/other}}]\n{whole}",
        ),
        "extends": (
            "compose down -v",
            whole.replace("init:", "extends: {file: once, service: x}\n    init:"),
        ),
        "include": ("compose down -v", f"include: [once]\n{whole}"),
        "next to an include": ("compose down -v", f"include: [twin/compose.yaml]\n{whole}"),
        "project folder": ("compose --project-directory twin -f compose.yaml down -v", whole),
    }
    for what, (words, text) in reads.items():
        (folder / "compose.yaml").write_text(text)
        began = time.monotonic()
        answer = bash(folder, f"$sc {words}", ONCE="once")
        assert answer.returncode == 77, (what, answer.stderr)
        assert (
            "can be read only once" in answer.stderr and "docker was not run (77)" in answer.stderr
        ), what
        assert time.monotonic() - began < 20, what
        assert nobody_opened(folder / "once") and nobody_opened(folder / "twin" / ".env")
        assert volume_exists(f"{app.name}_uploads")
    # Our own verbs are not held up where they need nothing of compose.
    os.mkfifo(folder / ".env")
    assert bash(folder, f"{PROGRAM} backup").returncode == 77
    undo = bash(folder, f"{PROGRAM} undo --dry-run")
    assert "read only once" not in undo.stderr and "could be undone" in undo.stderr
    assert nobody_opened(folder / ".env")
    (folder / ".env").unlink()
    # Mounted, not read: no matter.
    text = whole.replace(
        "init:", "secrets: [s]\n    env_file: [{path: none, required: false}]\n    init:"
    )
    (folder / "compose.yaml").write_text(f"{text}\nsecrets: {{s: {{file: ./once}}}}\n")
    plan = bash(folder, "$sc --explain --json compose down -v")
    assert json.loads(plan.stdout)["verdict"] == "guard", plan.stderr
    assert nobody_opened(folder / "once")


@pytest.mark.engine
def test_a_project_that_does_not_load_for_us_is_no_reason_to_pass(app: ComposeProject) -> None:
    folder, name = app.folder, app.name
    cases = {
        "no file": ("cd twin; $sc compose -f none.yaml down -v", {}),
        "closed": ("$sc compose -f /dev/fd/9 down -v 9<&-", {}),
        "git": ("$sc compose -f git@127.0.0.1:x/repo.git down -v", {}),
        "git, and a name": (
            "$sc compose -f git@127.0.0.1:x/repo.git down -v",
            {"COMPOSE_PROJECT_NAME": name},
        ),
        "changed volumes": ("$sc compose -f none.yaml up -d -y", {}),
    }
    docker("volume", "create", "--label", "com.docker.compose.config-hash=x", f"{name}-x_uploads")
    for what, (line, environ) in cases.items():
        answer = bash(folder, line, **environ)
        assert answer.returncode == 77, (what, answer.stderr)
        assert "cannot be told" in answer.stderr and answer.stderr.endswith(
            "docker was not run (77)\n"
        ), what
        assert read_file(app) == "a photo"


@pytest.mark.engine
def test_a_harmless_command_keeps_its_pipe(app: ComposeProject) -> None:
    folder = app.folder
    for line in (
        "cat compose.yaml | $sc compose -f /dev/stdin up -d --wait",
        "cat compose.yaml | $sc compose -f /dev/stdin ps -q",
        "$sc compose -f <(cat compose.yaml) up -d -V",
        "$sc compose --env-file <(echo X=1) config -q",
        "mkfifo late; (cat compose.yaml > late) & $sc compose -f late up -d -V; wait",
        "cat compose.yaml | $sc compose -f /dev/stdin down",
    ):
        answer = bash(folder, line, seconds=60)
        assert answer.returncode == 0, (line, answer.stderr)
    assert app.containers() == [] and volume_exists(f"{app.name}_uploads")


# -- without an engine -----------------------------------------------------------------------------


@pytest.fixture
def descriptor() -> Iterator[int]:
    """A number that no file of this process has, free again afterwards."""
    yield 57
    for number in (57, 58):
        try:
            os.close(number)
        except OSError:
            continue


def taken(line: str, **environ: str) -> single_use.SingleUseInputs:
    return single_use.read_inputs(
        lambda: Files(parser.parse(["compose", *line.split(), "down", "-v"]), environ)
    )


def test_a_pipe_becomes_a_file_that_can_be_opened_again(
    descriptor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.dup2(reading, descriptor)
    threading.Thread(
        target=lambda: (os.write(writing, b"COMPOSE_FILE=/dev/fd/58\n"), os.close(writing))
    ).start()
    later, more = os.pipe()
    os.dup2(later, 58)
    os.write(more, b"services: {}\n")
    os.close(more)
    assert taken(f"--env-file /dev/fd/{descriptor}").descriptors == (
        descriptor,
        58,
    )  # one names the other
    for number, text in ((descriptor, b"COMPOSE_FILE=/dev/fd/58\n"), (58, b"services: {}\n")):
        assert [Path(f"/dev/fd/{number}").read_bytes() for _ in range(2)] == [text, text]
        assert os.read(number, 1) == b""
        assert os.get_inheritable(number)


def test_a_pipe_without_an_end_is_refused_in_time(
    descriptor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(single_use, "SECONDS", 0.2)
    reading, writing = os.pipe()
    os.dup2(reading, descriptor)
    with pytest.raises(Refused, match="did not come to its end"):
        taken(f"--env-file /dev/fd/{descriptor}")
    monkeypatch.setattr(single_use, "SECONDS", 60.0)  # the size must decide, on a slow machine too
    monkeypatch.setattr(single_use, "LARGEST", 10)
    os.write(writing, b"x" * 100)
    with pytest.raises(Refused, match="more than"):
        taken(f"--env-file /dev/fd/{descriptor}")
    os.close(writing)


@pytest.mark.parametrize("word", ["/dev/zero", "/dev/tty", "/dev/fd/1"])
def test_devices_are_refused(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    try:
        with pytest.raises(Refused, match="read only once"):
            taken(f"--env-file {word}")
    finally:
        os.dup2(kept, 1)
        for number in (reading, writing, kept):
            os.close(number)


@pytest.mark.parametrize(
    "line", ["--env-file /dev/null", "-f /dev/null", "-f none.yaml", "--env-file ."]
)
def test_what_can_be_read_again_or_is_not_there_is_left_to_compose(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert taken(line) == single_use.SingleUseInputs()


def test_a_default_env_file_that_is_switched_off_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / ".env")
    assert taken("", COMPOSE_DISABLE_ENV_FILE="true") == single_use.SingleUseInputs()
    with pytest.raises(Refused, match="named pipe"):
        taken("")


@pytest.mark.parametrize(
    "before",
    [
        "x-a: &a [" + "x, " * 400 + "x]\nx-b: [" + "*a, " * 400 + "*a]",
        f"x-deep: {'[' * 600}{']' * 600}",
        "x-odd: {",
    ],
    ids=["values without number", "a deep list", "no YAML"],
)
def test_a_named_pipe_is_refused_in_a_file_that_cannot_be_taken_apart(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "once")
    (tmp_path / "compose.yaml").write_text(
        f"{before}\nservices: {{a: {{image: b, env_file: ./once}}}}\n"
    )
    with pytest.raises(Refused, match="named pipe"):
        taken("")
