"""Answers to the requests that we read ourselves, from daemons that keep the rules and that do not."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from safe_compose.engine import http as engine_http
from safe_compose.engine.http import HttpReader, NoAnswer


class Daemon(socketserver.ThreadingUnixStreamServer):
    """A daemon that gives prepared answers, one for each request, and notes the requests."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.path = str(path)
        self.answers: list[bytes | None] = []
        """None closes the connection without an answer, like one that was idle for too long."""
        self.closes = True
        self.requests: list[bytes] = []
        self.connections = 0


class _Handler(socketserver.StreamRequestHandler):
    server: Daemon

    def handle(self) -> None:
        self.server.connections += 1
        while head := self._read_head():
            self.server.requests.append(head)
            answer, closes = self.server.answers.pop(0), self.server.closes
            if answer is None:
                return
            self.wfile.write(answer)
            self.wfile.flush()
            if closes:
                return

    def _read_head(self) -> bytes:
        head = b""
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            head += line
        return head


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "s") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


Ask = Callable[..., Any]


@pytest.fixture
def ask(daemon: Daemon) -> Iterator[Ask]:
    """Ask a daemon that gives these answers, for `/info`."""
    reader = HttpReader(daemon.path, 20)

    def get(*answers: bytes | None, closes: bool = True) -> Any:
        daemon.answers[:], daemon.closes = answers, closes
        return reader.get("/info")

    yield get
    reader.close()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 3\r\n\r\n[7]",
        OK + b"CONTENT-LENGTH:3\r\nApi-Version: 1.51\r\n\r\n[7]",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n2;a=b\r\n7]\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: Chunked\r\n\r\n0003\r\n[7]\r\n000\r\nTrailer: x\r\n\r\n",
        OK + b"\r\n[7]",
        b"HTTP/1.0 200 OK\r\n\r\n[7]",
        b"HTTP/1.1 200\n\n[7]",
    ],
)
def test_an_answer_is_read_in_each_form_that_http_has(answer: bytes, ask: Ask) -> None:
    assert ask(answer) == [7]


def test_one_connection_serves_many_requests_and_is_opened_again_when_it_was_closed(
    daemon: Daemon, ask: Ask
) -> None:
    whole = OK + b"Content-Length: 3\r\n\r\n[7]"
    parts = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[7]\r\n0\r\n\r\n"
    for answer in (whole, parts, whole):
        assert ask(answer, closes=False) == [7]
    assert daemon.connections == 1
    assert ask(None, whole, closes=False) == [7]
    assert daemon.connections == 2
    assert ask(OK + b"Connection: close\r\nContent-Length: 3\r\n\r\n[7]") == [7]
    assert ask(whole) == [7]
    assert daemon.connections == 3
    assert len(daemon.requests) == 7
    assert {head.split(b"\r\n")[0] for head in daemon.requests} == {b"GET /info HTTP/1.1"}


def test_no_such_object_and_errors_are_told_apart(ask: Ask) -> None:
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
    assert ask(missing) is None
    with pytest.raises(NoAnswer, match="no space left"):
        ask(b'HTTP/1.1 500 Oh\r\nContent-Length: 27\r\n\r\n{"message":"no space left"} ')
    with pytest.raises(NoAnswer, match="HTTP 503"):
        ask(b"HTTP/1.1 503 Oh\r\n\r\n<html>")
    with pytest.raises(NoAnswer, match="HTTP 204"):
        ask(b"HTTP/1.1 204 No Content\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n[7]",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\n[7]",
        b"x" * (1 << 17),
        OK + b"Content-Length: 3\r\n",
        OK + b"Content-Length: 4\r\n\r\n[7]",
        OK + b"Content-Length: -1\r\n\r\n[7]",
        OK + b"Content-Length: 3_0\r\n\r\n[7]",
        OK + b"Content-Length:\r\n\r\n[7]",
        OK + b"Long: " + b"x" * (1 << 17) + b"\r\n\r\n[7]",
        OK + b"".join(b"N%d: x\r\n" % number for number in range(1000)) + b"\r\n[7]",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\n[7]\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-3\r\n[7]\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\n[7]\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[7]",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[7]\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[7]\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[7]\r\n0\r\n",
    ],
)
def test_an_answer_that_breaks_off_or_breaks_the_rules_is_none(answer: bytes, ask: Ask) -> None:
    with pytest.raises(NoAnswer):
        ask(answer)
    assert ask(OK + b"Content-Length: 3\r\n\r\n[8]") == [8], "the next one is not mixed with it"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 999999999999999999\r\n\r\n[7]",
        OK + b"Content-Length: 2000\r\n\r\n" + b" " * 2000,
        OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF\r\n[7]",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"200\r\n" + b" " * 512 + b"\r\n200\r\n",
        OK + b"\r\n" + b" " * 2000,
    ],
)
def test_an_answer_that_is_larger_than_any_is_not_read_to_its_end(
    answer: bytes, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_http, "LARGEST", 1000)
    with pytest.raises(ValueError, match="larger than any"):
        ask(answer)
    assert ask(OK + b"Content-Length: 3\r\n\r\n[8]") == [8]


def test_words_of_the_engine_put_nothing_more_into_a_request(daemon: Daemon) -> None:
    reader = HttpReader(daemon.path, 20)
    for word in ("x HTTP/1.1\r\nHost: y", "x y", "\u00e9", "x\x7f", ""):
        with pytest.raises(NoAnswer):
            reader.get(word and f"/containers/{word}/json")
    assert daemon.requests == [] and daemon.connections == 0


def test_a_daemon_that_is_not_there_or_says_nothing_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="No such file"):
        HttpReader(str(tmp_path / "none"), 20).get("/info")
    with (
        Daemon(tmp_path / "s") as server,  # nobody serves it
        pytest.raises(NoAnswer, match="timed out"),
    ):
        HttpReader(server.path, 0.1).get("/info")
