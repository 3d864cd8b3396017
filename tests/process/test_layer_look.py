"""The first look at the layers of containers that a command removes: bounded, whatever answers."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from safe_compose.fastpath import layers
from safe_compose.grammar import parser
from testing.engine_proxy import serving

ID = "a" * 64
LISTED = [{"Id": ID, "State": "running", "Mounts": [{"Destination": "/app/uploads"}]}]


@contextmanager
def engine(
    answers: Mapping[str, bytes | None],
    *,
    changes_status: int = 200,
    pause: float = 0.0,
) -> Iterator[str]:
    """An engine that answers a path with this end; None keeps the connection open for ever.

    With a pause, it sends one byte at a time.
    """
    piece = 1 if pause else 1 << 30
    ended = threading.Event()

    def answer(near: socket.socket) -> None:
        with near, suppress(OSError):
            path = near.recv(65536).split(b" ", 2)[1].decode()
            body = next((body for end, body in answers.items() if end in path), b"[]")
            if body is None:
                ended.wait(30)
                return
            status = changes_status if path.endswith("/changes") else 200
            near.sendall(b"HTTP/1.0 %d \r\n\r\n" % status)
            for start in range(0, len(body), piece):
                near.sendall(body[start : start + piece])
                if pause:
                    ended.wait(pause)

    def serve(near: socket.socket) -> None:
        threading.Thread(target=answer, args=(near,), daemon=True).start()

    with serving(serve) as address:
        try:
            yield address
        finally:
            ended.set()


def look(
    address: str, monkeypatch: pytest.MonkeyPatch, words: str = "compose down"
) -> tuple[bool, float]:
    monkeypatch.setenv("DOCKER_HOST", address)
    begun = time.monotonic()
    return layers.may_lose_data(parser.parse(words.split())), time.monotonic() - begun


def changes(*paths: str) -> bytes:
    return json.dumps([{"Path": path, "Kind": 1} for path in paths]).encode()


def listed() -> bytes:
    return json.dumps(LISTED, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ((), False),
        (("/tmp", "/tmp/x.db"), False),
        (("/app", "/app/uploads"), False),  # a volume is mounted there
        (("/app", "/app/app.db"), True),
        (("/srv", "/srv/media", "/srv/media/1.jpg"), True),
    ],
)
def test_data_outside_of_mounts_is_found(
    paths: tuple[str, ...], found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = changes(*paths).replace(b": ", b":").replace(b", ", b",")
    with engine({"/containers/json": listed(), "/changes": answer}) as address:
        assert look(address, monkeypatch)[0] is found


@pytest.mark.parametrize("silent", ["/containers/json", "/changes"])
def test_an_engine_that_does_not_answer_leaves_it_to_the_guard_in_time(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, bytes | None] = {"/containers/json": listed(), "/changes": b"[]"}
    with engine({**answers, silent: None}) as address:
        found, seconds = look(address, monkeypatch)
        assert found and seconds < 1


def test_a_list_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    many = changes(*(f"/tmp/{number}" for number in range(1_000_000)))
    with engine({"/containers/json": listed(), "/changes": many}) as address:
        found, seconds = look(address, monkeypatch)
        assert found and seconds < 10  # of the processor; the engine has a third of one


def test_an_engine_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine({"/containers/json": b"[" + b" " * 10_000}, pause=0.0005) as address:
        found, seconds = look(address, monkeypatch)
        assert found and seconds < 1


@pytest.mark.parametrize(
    ("status", "found"), [(200, False), (404, False), (500, True), (403, True)]
)
def test_only_a_container_that_is_gone_has_changed_nothing(
    status: int, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine({"/containers/json": listed(), "/changes": b"[]"}, changes_status=status) as at:
        assert look(at, monkeypatch)[0] is found


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (".env", "COMPOSE_FILE=deploy/compose.yaml:more.yaml", "down"),
        (".env", "A=1\r\nexport COMPOSE_FILE = 'deploy/compose.yaml' # here", "down"),
        (".env", "COMPOSE_PATH_SEPARATOR=;\nCOMPOSE_FILE=deploy/compose.yaml;more.yaml", "down"),
        (".env", 'COMPOSE_PROJECT_NAME="Deploy"', "down"),
        ("other", "COMPOSE_PROJECT_NAME: deploy", "--env-file other down"),
        ("other", "COMPOSE_FILE=deploy/compose.yaml", "--env-file other down"),
        ("deploy/x", "", "--workdir deploy down"),
        ("deploy/x", "", "--project-directory deploy down"),
    ],
)
def test_the_project_is_found_where_files_and_flags_lead(
    name: str, text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    theirs = {"%2Fdeploy%22": listed(), "project%3Ddeploy%22": listed()}
    with engine({**theirs, "/changes": changes("/app.db").replace(b" ", b"")}) as address:
        assert look(address, monkeypatch, f"compose {words}")[0]
        assert not look(address, monkeypatch, f"compose -p other {words}")[0]
        monkeypatch.setenv("COMPOSE_ENV_FILES", str(tmp_path / name))
        assert look(address, monkeypatch, f"compose {words}")[0]


def test_an_env_file_that_ends_only_once_is_left_to_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".env").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)
    with engine({}) as address:
        for words in ("compose down", "compose --env-file pipe down"):
            found, seconds = look(address, monkeypatch, words)
            assert not found and seconds < 1


def test_without_an_engine_nothing_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(f"unix://{tmp_path}/none.sock", monkeypatch)[0] is False


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{}", b'[{"Id":"../../x"}]', b"\xff" * 99, b'[{"Id":"' + b"z" * 9]
)
def test_an_odd_answer_is_no_container(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine({"/containers/json": body, "/changes": changes("/app.db")}) as address:
        assert look(address, monkeypatch)[0] is False


@pytest.mark.parametrize(
    "words",
    ["compose down --dry-run", "compose down --help", "compose up --no-recreate", "compose ps",
     "rm --link a", "stop a"],
)  # fmt: skip
def test_what_removes_no_container_asks_nothing(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine({"": None}) as address:
        found, seconds = look(address, monkeypatch, words)
        assert not found and seconds < 0.2


def test_an_engine_elsewhere_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look("ssh://nobody@192.0.2.1", monkeypatch)[0] is False
    assert look("tcp://192.0.2.1:2375", monkeypatch)[0] is False
