"""Who mounted a volume meanwhile: told by the engine's events, which may break off, be hidden, or
be no events at all.
"""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.observed import HELPER_LABEL
from safe_compose.engine.connect import Connection
from safe_compose.engine.http import HttpReader
from safe_compose.engine.mount_events import Event, MountEvents, find_writers, require_events
from safe_compose.errors import EngineUnavailable
from testing.projects import wait_until


def mounted(volume: object, container: object, **more: object) -> Event:
    attributes = {"container": container, "read/write": "true", **more}
    return {"Type": "volume", "Action": "mount", "Actor": {"ID": volume, "Attributes": attributes}}


def created(container: object, **labels: object) -> Event:
    return {
        "Type": "container",
        "Action": "create",
        "Actor": {"ID": container, "Attributes": labels},
    }


@pytest.mark.parametrize(
    ("event", "found"),
    [
        pytest.param(mounted("data", "theirs"), {"data": "theirs"}, id="one that writes"),
        pytest.param(
            mounted("data", "theirs", **{"read/write": "false"}), {}, id="one that only reads"
        ),
        pytest.param(mounted("other", "theirs"), {}, id="another volume"),
        pytest.param(mounted("data", "ours"), {}, id="a helper of this run"),
        pytest.param(mounted("data", "foreign"), {"data": "foreign"}, id="a helper of another run"),
        pytest.param(
            mounted("data", ["ours"]), {"data": "['ours']"}, id="a container that is a list"
        ),
        pytest.param(mounted(["data"], "theirs"), {}, id="a volume that is a list"),
        pytest.param(
            {"Type": "volume", "Action": "mount", "Actor": []}, {}, id="an actor that is a list"
        ),
        pytest.param([], {}, id="no event"),
    ],
)
def test_a_writer_is_whoever_mounts_a_volume_to_write_and_is_none_of_this_run(
    event: Any, found: Mapping[str, str]
) -> None:
    known = [
        created("ours", **{HELPER_LABEL: "run"}),
        created("foreign", **{HELPER_LABEL: "another"}),
        created({"ours": 1}),
    ]
    assert find_writers([*known, event], frozenset({"data"}), "run") == found


@contextmanager
def daemon(folder: Path, answer: Callable[[bool], tuple[int, list[Any]]]) -> Iterator[Connection]:
    """The way to a daemon of which `answer` tells the events: asked whether it is for those that
    were, or for those that come.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = {"SystemTime": "2026-11-29T12:00:00.5Z"}
            code, lines = answer("until=" in self.path) if "/events" in self.path else (200, [told])
            self.send_response(code)
            self.end_headers()
            self.wfile.write(
                b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
            )

        def address_string(self) -> str:
            return "a socket"

        def log_message(self, format: str, *args: object) -> None: ...

    path = str(folder / "s")
    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reader = HttpReader(path, 10)
        reader.version = "1.41"
        address = f"unix://{path}"
        try:
            yield Connection(reader, address, address, "E", False, "", None, "Engine", "amd64")
        finally:
            server.shutdown()


def test_events_that_break_off_are_followed_again_before_the_engine_forgets_them(
    tmp_path: Path,
) -> None:
    streams: list[list[Event]] = [[], [mounted("data", "theirs")]]

    def answer(past: bool) -> tuple[int, list[Event]]:
        return 200, [] if past or not streams else streams.pop(0)

    with daemon(tmp_path, answer) as connection:
        events = MountEvents(connection, ["data"], "run")
        wait_until(
            "they are asked for again", lambda: not streams and events.find_writers(), timeout=15
        )
        assert events.find_writers() == {"data": "theirs"}


def test_a_fault_of_the_engine_is_not_taken_for_nobody(tmp_path: Path) -> None:
    with daemon(tmp_path, lambda past: (500, [])) as connection, pytest.raises(EngineUnavailable):
        MountEvents(connection, ["data"], "run").find_writers()


def test_what_is_no_event_hides_none(tmp_path: Path) -> None:
    lines = [7, mounted("data", "theirs"), created("another", note="two\x85lines"), [[]]]
    with daemon(tmp_path, lambda past: (200, lines)) as connection:
        assert MountEvents(connection, ["data"], "run").find_writers() == {"data": "theirs"}


@pytest.mark.parametrize("code", [403, 404, 405])
def test_behind_a_proxy_that_hides_the_events_nothing_is_deleted(tmp_path: Path, code: int) -> None:
    with daemon(tmp_path, lambda past: (code, [])) as connection:
        with pytest.raises(EngineUnavailable, match="events are hidden"):
            require_events(connection)
        with pytest.raises(EngineUnavailable, match="events are hidden"):
            MountEvents(connection, ["data"], "run").find_writers()
