"""`safe-compose hook` as an agent starts it: exit codes, unreadable requests, and time."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from safe_compose.audit import agent_hook, live_look
from safe_compose.audit.agent_protocols import AGENTS

PROGRAM = str(Path(sys.executable).with_name("safe-compose"))
LINE = "docker compose down -v"
REQUEST = json.dumps({"tool_name": "Bash", "tool_input": {"command": LINE}, "cwd": "/"})

UNREADABLE = {
    "empty": b"",
    "cut off": b'{"tool_input": {"command": "ls',
    "null": b"null",
    "a list": b"[]",
    "no UTF-8": b'{"tool_input": {"command": "ls \xff"}}',
    "UTF-16": json.dumps({"tool_input": {"command": "ls"}}).encode("utf-16"),
    "deeply nested": b'{"tool_input": ' + b"[" * 100_000,
    "a number of too many digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "more than 1 MiB": json.dumps({"tool_input": {"command": "x" * (1 << 20)}}).encode(),
    "after the object": b"{} {}",
}


def hook(
    data: bytes, *words: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [PROGRAM, "hook", *words],
        input=data,
        capture_output=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_request_that_cannot_be_read_stops_the_command_in_every_agent(name: str) -> None:
    done = hook(UNREADABLE[name])
    assert done.returncode == 2
    assert done.stderr.startswith(b"safe-compose: ") and done.stderr.count(b"\n") == 1
    answer = json.loads(done.stdout)
    assert answer["permission"] == answer["decision"] == answer["permissionDecision"] == "deny"


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_that_is_named_is_told_so_in_its_own_words(agent: str) -> None:
    done = hook(b'{"cut off', f"--agent={agent}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'"deny"' in done.stdout and done.stdout.count(b"\n") == 1


@pytest.mark.parametrize(
    "words", [("--agent", "nobody"), ("--agent",), ("--stric",), ("more",), ("--strict=1",)]
)
def test_options_that_are_not_known_stop_the_command(words: tuple[str, ...]) -> None:
    done = hook(REQUEST.encode(), *words)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"Traceback" not in done.stdout + done.stderr


def test_a_request_that_does_not_end_is_not_waited_for() -> None:
    readable, writable = os.pipe()
    os.write(writable, b'{"tool_input": ')
    with pytest.raises(agent_hook.UnreadableRequest, match="did not end"):
        agent_hook.read_request(readable, time.monotonic() + 0.05)
    os.close(readable)
    os.close(writable)


def test_without_an_engine_the_words_alone_are_judged_at_once(tmp_path: Path) -> None:
    look = live_look.make_look(time.monotonic() + 60)
    began = time.process_time()
    with pytest.MonkeyPatch.context() as patch:
        for host in (f"unix://{tmp_path}/none", "tcp://127.0.0.1:1", "unix://", "tcp://1.2.3.4:x"):
            patch.setenv("DOCKER_HOST", host)
            assert look(["volume", "rm", "x"], tmp_path) is None
    assert time.process_time() - began < 0.1  # a child that looks would take longer


def test_the_engine_of_dockers_current_context_is_the_one_that_must_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    read = live_look._read_endpoint_of_context
    assert read() == "unix:///var/run/docker.sock"
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert read() == ""
    folder = tmp_path / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text('{"Endpoints": {"docker": {"Host": "ssh://far"}}}')
    assert read() == "ssh://far"
    (tmp_path / "config.json").write_text("[]")
    assert read() == ""


def test_an_engine_that_takes_connections_and_says_nothing_is_waited_for_briefly(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "slow.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(8)
        kept: list[socket.socket] = []
        threading.Thread(target=lambda: kept.append(server.accept()[0]), daemon=True).start()
        began = time.monotonic()
        done = hook(REQUEST.encode(), env={"DOCKER_HOST": f"unix://{path}"})
        took = time.monotonic() - began
    assert json.loads(done.stdout)["decision"] == "ask"
    assert took < 8  # 1.4 s on an idle machine; 10 and more without the bound
