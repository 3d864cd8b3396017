"""A daemon that answers, but not as docker does: what may delete is refused, in words, and never
handed to docker.
"""

import http.server
import itertools
import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from safe_compose.engine import connect
from safe_compose.engine import http as engine_http
from safe_compose.errors import SafeComposeError
from safe_compose.grammar.parser import parse
from testing.fixtures import SafeCompose
from testing.projects import real_docker, unique

pytestmark = pytest.mark.engine  # the real client asks this engine

OTHER_SHAPES = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[7]",
    "a word": b'"x"',
    "a number": b"17",
    "no text": b"\xff\xfe{",
    "deep": b"[" * 3000,
    "wrong inside": (
        b'{"Id": 7, "ID": "E", "Volumes": [{"Name": null}], "HostConfig": 3, "Mounts": [null]}'
    ),
}


class OddEngine(http.server.BaseHTTPRequestHandler):
    """Greets as docker does; then the questions `honest` are answered well, all others with `body`
    and `code`.
    """

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
            "version": {
                "ApiVersion": "1.41",
                "Version": "20.10.24",
                "Components": [{"Name": "Engine"}],
            },
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


class OddEngineServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def odd_engine(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "d.sock"
    with OddEngineServer(str(path), OddEngine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()


@pytest.mark.thorough
def test_an_engine_whose_answers_have_another_shape_gets_no_deletion(
    odd_engine: str, safe_compose: SafeCompose
) -> None:
    ways = itertools.cycle([(), ("info", "version"), ("info", "version", "volumes")])
    for (what, OddEngine.body), OddEngine.code, OddEngine.honest in zip(
        OTHER_SHAPES.items(), itertools.cycle([200, 500, 200]), ways, strict=False
    ):
        OddEngine.deleted.clear()
        done = safe_compose("volume", "rm", "x", env={"DOCKER_HOST": odd_engine})
        assert done.returncode == 69, f"{what}, {OddEngine.code}, {OddEngine.honest}: {done.stderr}"
        assert "docker was not run (69)" in done.stderr
        assert OddEngine.deleted == [], what


ODD_VALUES: tuple[object, ...] = (7, [None], {"a": {"b": 1}}, {"io.github": "\ud800"})


def _make_odd_bodies() -> Iterator[bytes]:
    """Lists of volumes and containers, disk usage and images, each with one value of another kind."""
    mount = {"Type": "volume", "Name": "x", "Source": "/s", "Destination": "/d", "RW": True}
    whole = {
        "Id": "c0ffee", "Name": "/x", "Names": ["/x"], "Image": "i", "ImageID": "sha256:0",
        "State": "exited", "Labels": {"io.github.safe-compose.helper": "r"}, "Mounts": [mount],
        "Driver": "local", "Options": {"o": "bind"}, "Config": {"Env": ["A=b"], "Labels": {"a": "b"}},
        "HostConfig": {"Binds": ["x:/d"], "NetworkMode": "none"}, "UsageData": {"Size": 1},
        "NetworkSettings": {"Networks": {"n": {"IPAddress": "1"}}}, "RepoTags": ["i"], "Size": 1,
    }  # fmt: skip
    for key, value in itertools.product(whole, ODD_VALUES):
        one = {**whole, key: value}
        yield json.dumps([one]).encode()
        yield json.dumps({"Volumes": [one], **one}).encode()
    yield from OTHER_SHAPES.values()
    yield json.dumps({"Volumes": 5}).encode()
    yield json.dumps({"Volumes": [{"Name": "x", "UsageData": {"Size": "many"}}]}).encode()
    yield b'{"Volumes": [{"Name": "x", "UsageData": {"Size": 1e999}}]}'


@pytest.mark.thorough
def test_no_answer_of_an_engine_is_more_than_an_error_in_words(odd_engine: str) -> None:
    OddEngine.code, OddEngine.honest = 200, ("info", "version")
    environ = {**os.environ, "DOCKER_HOST": odd_engine}
    with connect(real_docker(), (), environ=environ, run_id="r") as engine:
        docker, helpers = engine.docker, engine.helpers
        engine.mark_key = lambda: b"key"
        questions: tuple[Callable[[], object], ...] = (
            lambda: docker.sizes(["x"]), helpers.leftovers, helpers.sweep, helpers.sweep_dead,
            lambda: docker.volume("x"), lambda: docker.container("x"), docker.containers,
            lambda: docker.users("x"), lambda: docker.image("x"), lambda: docker.list_labelled("x"),
            docker.list_cleanup_commands, docker.clock, docker.volumes_folder,
            lambda: docker.list_signalled(["x"], 0), lambda: docker.logs_head("x", 10),
            lambda: docker.private("x"), lambda: docker.addresses("x"),
            lambda: engine.commands.look(parse(["volume", "rm", "x"])),
        )  # fmt: skip
        for OddEngine.body in _make_odd_bodies():
            docker._images.clear()
            for ask in questions:
                with suppress(SafeComposeError):
                    ask()


def test_an_answer_without_end_takes_no_memory(
    odd_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_http, "LARGEST", 1 << 20)
    monkeypatch.setattr(engine_http, "MOST_SHAPES", 1 << 10)
    OddEngine.code, OddEngine.honest = 200, ()
    for OddEngine.body in (b"[" + b" " * (1 << 20) + b"]", b"[" + b"[]," * (1 << 10) + b"[]]"):
        reader = engine_http.HttpReader(odd_engine.removeprefix("unix://"), 20)
        with pytest.raises(ValueError, match="larger than any of an engine"):
            reader.get("/volumes")
        OddEngine.body = b"[7]"
        assert reader.get("/volumes") == [7], "the connection goes on with the next answer"


@pytest.mark.thorough
def test_words_for_tiers_that_are_no_words_count_as_critical(
    safe_compose: SafeCompose, tmp_path: Path
) -> None:
    name = unique("scodd")
    volumes = "{data: {x-safe-compose: [7]}, more: {x-safe-compose: {tier: {a: b}}}}"
    services = "{a: {image: 'busybox:latest', volumes: ['data:/d']}}"
    text = f"name: {name}\nx-safe-compose: [[]]\nservices: {services}\nvolumes: {volumes}\n"
    (tmp_path / "compose.yaml").write_text(text, encoding="utf-8")
    done = safe_compose("--explain", "--json", "compose", "down", "-v", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "taken as critical" in " ".join(json.loads(done.stdout)["warnings"])
