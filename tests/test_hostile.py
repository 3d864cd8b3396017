"""A daemon that answers, but not as docker does: what may delete is refused, in words, and never handed to docker."""

import http.server
import itertools
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import SafeCompose
from lab.projects import unique

pytestmark = pytest.mark.engine  # the real client asks this engine

OTHER_SHAPES = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[7]",
    "a word": b'"x"',
    "a number": b"17",
    "no text": b"\xff\xfe{",
    "deep": b"[" * 3000,
    "wrong inside": b'{"Id": 7, "ID": "E", "Volumes": [{"Name": null}], "HostConfig": 3, "Mounts": [null]}',
}


class Odd(http.server.BaseHTTPRequestHandler):
    """Greets as docker does; then the questions `honest` are answered well, all others with `body` and `code`."""

    protocol_version = "HTTP/1.1"
    honest: tuple[str, ...] = ()
    body = b""
    code = 200
    deleted: list[str] = []  # noqa: RUF012 - one list for all requests

    def log_message(self, format: str, *args: object) -> None: ...

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        question = self.path.partition("?")[0].rpartition("/")[2]
        if self.command in ("DELETE", "POST"):
            self.deleted.append(self.path)
        answers = {
            "_ping": "OK",
            "info": {"ID": "odd"},
            "version": {"ApiVersion": "1.41", "Version": "20.10.24", "Components": [{"Name": "Engine"}]},
            "volumes": {"Volumes": [{"Name": "x", "Driver": "local"}], "Warnings": None},
        }
        well = question == "_ping" or question in self.honest
        body = json.dumps(answers[question]).encode() if well else self.body
        self.send_response(200 if well else self.code)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_DELETE = answer


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def odd_engine(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "d.sock"
    with UnixServer(str(path), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()


def test_an_engine_whose_answers_have_another_shape_gets_no_deletion(odd_engine: str, safe_compose: SafeCompose) -> None:
    ways = itertools.cycle([(), ("info", "version"), ("info", "version", "volumes")])
    for (what, Odd.body), Odd.code, Odd.honest in zip(OTHER_SHAPES.items(), itertools.cycle([200, 500, 200]), ways, strict=False):
        Odd.deleted.clear()
        done = safe_compose("volume", "rm", "x", env={"DOCKER_HOST": odd_engine})
        assert done.returncode == 69, f"{what}, {Odd.code}, {Odd.honest}: {done.stderr}"
        assert "docker was not run (69)" in done.stderr
        assert Odd.deleted == [], what


def test_words_for_tiers_that_are_no_words_count_as_critical(safe_compose: SafeCompose, tmp_path: Path) -> None:
    name = unique("scodd")
    volumes = "{data: {x-safe-compose: [7]}, more: {x-safe-compose: {tier: {a: b}}}}"
    services = "{a: {image: 'busybox:latest', volumes: ['data:/d']}}"
    text = f"name: {name}\nx-safe-compose: [[]]\nservices: {services}\nvolumes: {volumes}\n"
    (tmp_path / "compose.yaml").write_text(text, encoding="utf-8")
    done = safe_compose("--explain", "--json", "compose", "down", "-v", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "taken as critical" in " ".join(json.loads(done.stdout)["warnings"])
