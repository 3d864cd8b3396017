"""`stop`, `kill` and `rm` of containers that take no volume along: one question to docker, and no
look at the engine.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from safe_compose.fastpath import inspect, queries
from safe_compose.grammar import parser
from testing.plain_install import plain_program
from testing.projects import docker, unique

FAKE = """#!/bin/sh
folder=${0%/*}
printf '%s\\n' "$@" '-- end' >> "$folder/calls"
case " $* " in
*" inspect "*) printf "$ANSWER"; exit "$STATUS" ;;
*" label=io.github.safe-compose.lock "*) printf 'CONTAINER ID\\n%b' "$LOCKS" ;;
esac
"""
Ask = Callable[..., tuple[int, list[list[str]]]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Run safe-compose in front of a docker that answers an inspect, and lists locks; its exit code
    and every call it saw.
    """
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text(FAKE)
    fake.chmod(0o755)

    def run(
        *words: str, answer: str, status: int = 0, locks: str = ""
    ) -> tuple[int, list[list[str]]]:
        environ = {
            "PATH": f"{fake.parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "ANSWER": answer,
            "STATUS": str(status),
        }
        environ["LOCKS"] = locks
        done = subprocess.run(
            [plain_program(), *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        calls = (fake.parent / "calls").read_text().split("-- end\n")[:-1]
        return done.returncode, [call.splitlines() for call in calls]

    return run


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["stop", "a"], "false\\n"),
        (["stop", "-t", "3", "a", "b"], "false volume bind\\ntrue bind\\n"),
        (["kill", "-s", "HUP", "a"], "true\\n"),
        (["container", "rm", "-f", "a"], "false volume\\n"),
        (["rm", "-fv", "a"], "false bind tmpfs\\n"),
        (["-H", "unix:///x", "rm", "-v", "a"], "true\\n"),
    ],
)
def test_containers_that_take_nothing_along_cost_one_question(
    words: list[str], answer: str, ask: Ask
) -> None:
    code, calls = ask(*words, answer=answer)
    assert code == 0
    about_locks = [call for call in calls if call[-1] == "label=io.github.safe-compose.lock"]
    assert len(about_locks) == ("rm" in words)  # only a removal can take a deletion lock away
    question, *others = [call for call in calls if call not in about_locks]
    assert others in (
        [words],
        [["--version"], words],
    )  # the second one: is this docker, or Podman under its name?
    assert question[-1] == words[-1]
    if words[0] == "-H":
        assert all(call[:2] == words[:2] for call in (question, *about_locks))


def test_a_removal_wakes_the_guard_where_the_engine_has_a_deletion_lock(ask: Ask) -> None:
    words = ["rm", "-f", "a"]
    code, calls = ask(*words, answer="false\\n", locks="0123456789ab\\n")
    assert code == 69 and words not in calls


def test_docker_is_not_asked_one_question_after_the_other(tmp_path: Path) -> None:
    """A docker whose answer about locks waits for the question about the container."""
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    os.mkfifo(tmp_path / "pipe")
    fake.write_text(
        '#!/bin/sh\ncase " $* " in\n'
        f'*" inspect "*) echo false; echo asked > "{tmp_path}/pipe" ;;\n'
        f'*"lock "*) read line < "{tmp_path}/pipe"; echo CONTAINER ID ;;\n'
        "*) echo removed ;;\nesac\n"
    )
    fake.chmod(0o755)
    done = subprocess.run(
        [plain_program(), "rm", "-fv", "a"],
        env={"PATH": f"{fake.parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "removed\n"), done.stderr


@pytest.mark.parametrize(
    ("words", "answer", "status"),
    [
        (["stop", "a"], "true volume\\n", 0),
        (["stop", "a", "b"], "false\\n", 1),
        (["stop", "a", "b"], "false\\n", 0),
        (["stop", "a"], "false\\nfalse\\n", 0),
        (["stop", "a"], "<no value>\\n", 0),
        (["stop", "a"], "", 0),
        (["rm", "-v", "a"], "false volume\\n", 0),
        (["rm", "-fv", "a", "b"], "false\\ntrue volume\\n", 0),
    ],
)
def test_every_other_answer_wakes_the_guard(
    words: list[str], answer: str, status: int, ask: Ask
) -> None:
    code, calls = ask(*words, answer=answer, status=status)
    assert code == 69  # there is no engine behind this docker
    assert words not in calls


@pytest.mark.thorough
@pytest.mark.engine
def test_a_real_engine_tells_which_containers_take_volumes_along(
    lab: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["safe-compose"])
    words = ("create", "--network", "none", "--pull", "never", "--entrypoint", "true")
    anonymous = ("--volume", "/x")
    names = {
        "plain": unique("sc"),
        "anonymous": unique("sc"),
        "leaving": unique("sc"),
        "both": unique("sc"),
    }
    options = {
        "plain": (),
        "anonymous": anonymous,
        "leaving": ("--rm",),
        "both": ("--rm", *anonymous),
    }
    odd = ("--label", "AutoRemove=true", "--label", 'x="AutoRemove":true,"Type":"volume"')

    def nothing(*argv: str) -> bool:
        return queries.is_harmless_removal(parser.parse(argv))

    try:
        for which, name in names.items():
            docker(*words, "--name", name, *options[which], *odd, "busybox:latest")
        free = not inspect.look((), locks=True)[0]  # of another test, on the same engine
        found = {
            (verb, which): nothing(*verb.split(), name)
            for verb in ("stop", "rm -fv")
            for which, name in names.items()
        }
        assert found == {
            ("stop", "plain"): True, ("stop", "anonymous"): True, ("stop", "leaving"): True,
            ("stop", "both"): False, ("rm -fv", "plain"): free, ("rm -fv", "anonymous"): False,
            ("rm -fv", "leaving"): free, ("rm -fv", "both"): False,
        }  # fmt: skip
        assert not nothing("stop", names["plain"], unique("unknown"))
        assert not nothing("--explain", "stop", names["plain"])
        here = dict(zip(names, inspect.look([*names.values()], locks=False)[1], strict=True))
        assert {which: (one.removes_itself, one.volumes) for which, one in here.items() if one} == {
            "plain": (False, False), "anonymous": (False, True), "leaving": (True, False),
            "both": (True, True),
        }  # fmt: skip
        odd_names = [unique("unknown"), f"../containers/{names['plain']}", ""]
        assert inspect.look(odd_names, locks=False) == (None, [None] * 3)
    finally:
        docker("rm", "--force", "--volumes", *names.values(), check=False)


def test_only_where_docker_goes_by_itself_is_the_engine_asked_past_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("DOCKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert inspect.is_dockers_choice()
    config = tmp_path / ".docker" / "config.json"
    config.parent.mkdir()
    config.write_text('{"auths": {}}')
    assert inspect.is_dockers_choice()
    config.write_text('{"currentContext": "far"}')
    assert not inspect.is_dockers_choice()
    config.unlink()
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "")
            assert not inspect.is_dockers_choice()
    config.mkdir()
    assert not inspect.is_dockers_choice()


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 404 Not Found\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n[]",
        b'HTTP/1.0 200 OK\r\n\r\n{"HostConfig":{"AutoRemove":"no"},"Mounts":[]}', b"\xff\r\n\r\n", b"HTTP/1.0 200",
        b'HTTP/1.0 200 OK\r\n\r\n{"HostConfig":{"AutoRemove":false},"Mounts":null}',
        b'HTTP/1.0 200 OK\r\n\r\n{"HostConfig":{"AutoRemove":false},"AutoRemove":true,"Mounts":[]}',
    ],
)  # fmt: skip
def test_an_engine_that_answers_oddly_has_not_answered(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "SOCKET", str(tmp_path / "sock"))
    assert inspect.look(["a"], locks=False) == (None, [None])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(inspect.SOCKET)
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        assert inspect.look(["a"], locks=False) == (None, [None])
        server.join()


def test_everything_is_asked_before_the_first_answer_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that answers nothing until it has read all three questions, and then the last one
    first.
    """
    monkeypatch.setattr(inspect, "SOCKET", str(tmp_path / "sock"))
    answers = {
        b"label": b"[]",
        b"/containers/a/": b'{"HostConfig":{"AutoRemove":true},"Mounts":[]}',
        b"/containers/b/": b'{"HostConfig":{"AutoRemove":false},"Mounts":[{"Type":"volume"}]}',
    }
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(inspect.SOCKET)
        listening.listen()

        def serve() -> None:
            asked = []
            for _ in answers:
                connection = listening.accept()[0]
                asked.append((connection, connection.recv(4096)))
            for connection, question in reversed(asked):
                [body] = [answer for word, answer in answers.items() if word in question]
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)
                connection.close()

        server = threading.Thread(target=serve)
        server.start()
        locks, found = inspect.look(["a", "b"], locks=True)
        server.join()
    assert locks is False
    assert [(one.removes_itself, one.volumes) for one in found if one] == [
        (True, False),
        (False, True),
    ]


_HANDED_OVER = """
import os, sys
events = []
def note(event, arguments):
    if event in ("subprocess.Popen", "os.posix_spawn"):
        events.append(" ".join(map(str, arguments[1])))
    if event == "os.exec":
        print(*events, sep="\\n")
        print(*sys.modules, file=sys.stderr)
        sys.stdout.flush()
        os._exit(0)
sys.addaudithook(note)
from safe_compose.fastpath import inspect
inspect.SOCKET = sys.argv.pop(1)
sys.argv[0] = "safe-compose"
from safe_compose.shim import main
main()
"""


@pytest.mark.engine
@pytest.mark.parametrize(
    "line",
    [
        "stop NAME", "kill NAME", "rm NAME", "rm -f NAME", "rm -fv NAME", "container rm -f NAME NAME",
        "system prune -f", "container prune -f", "compose --dry-run down -v", "compose down",
        "run --rm busybox true", "volume rm --help", "image prune -f",
    ],
)  # fmt: skip
def test_suspicious_words_that_prove_harmless_start_no_program_but_docker(
    line: str, lab: None, tmp_path: Path
) -> None:
    """Told by Python itself at the moment of exec, which is then left out.

    The engine is one without deletion locks: on the real one another test may have made some.
    """
    container = b'{"HostConfig":{"AutoRemove":false},"Mounts":[]}'
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()

        def serve() -> None:
            with suppress(OSError):  # of the shutdown
                while True:
                    with listening.accept()[0] as connection:
                        body = b"[]" if b"label" in connection.recv(4096) else container
                        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        done = subprocess.run(
            [sys.executable, "-c", _HANDED_OVER, tmp_path / "sock", *line.split()],
            cwd=tmp_path,
            env={**environ, "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        listening.shutdown(socket.SHUT_RDWR)
        server.join()
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
    heavy = {
        "subprocess",
        "json",
        "re",
        "dataclasses",
        "typing",
        "enum",
        "pathlib",
        "typer",
        "docker",
    }
    assert {*done.stderr.split()} & heavy == set()


def test_an_answer_needs_a_docker_that_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["safe-compose"])
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert queries.read_answer(str(tmp_path / "none"), ["x"]) == b""
    assert queries.read_answer("/bin/echo", ["a", "b"]) == b"a b\n"
    assert queries.read_answer("/bin/false", []) == b""
    assert len(list(Path("/proc/self/fd").iterdir())) == before
