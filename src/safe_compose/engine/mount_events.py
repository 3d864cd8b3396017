"""The containers that mounted a volume to write to it, according to the engine's own events.

They include containers that have already been removed. A container of `docker run --rm` leaves no
trace of its run, and `docker cp` writes to a volume through a container that does not run. Both
mount the volume (moby daemon/volumes_unix.go, `setupMounts`), and the engine reports that.
"""

import json
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from safe_compose.core.observed import HELPER_LABEL
from safe_compose.engine.connect import MISREAD, Connection
from safe_compose.engine.errors import inspecting
from safe_compose.errors import EngineUnavailable

_WANTED = json.dumps({"type": ["volume", "container"], "event": ["mount", "create"]})
_SECONDS = 30
_HIDDEN = frozenset({403, 404, 405})
"""What a proxy answers when it lets nobody ask for events."""
_ATTEMPTS = 1000
"""How often events that broke off are asked for again, after a second each."""

Event = Mapping[str, Any]


class MountEvents:
    """The mounts of some volumes from one moment on.

    The engine keeps few events, so they are read as they come.
    """

    def __init__(self, connection: Connection, volumes: Iterable[str], run_id: str) -> None:
        """Start to follow the events.

        Args:
            connection: The connection to the engine.
            volumes: Names of the volumes.
            run_id: The run whose helpers are left out.

        Raises:
            EngineUnavailable: The daemon does not answer.
        """
        self._connection = connection
        self._volumes = frozenset(volumes)
        self._run_id = run_id
        self._since = _read_clock(connection)
        self._seen: list[Event] = []
        threading.Thread(target=self._follow, name="mount-events", daemon=True).start()

    def find_writers(self) -> dict[str, str]:
        """Return volume -> id of a container that has mounted it to write to it since the start.

        Raises:
            EngineUnavailable: The engine cannot be asked, so none would be known.
        """
        with inspecting():
            # the newest ones may still be on their way
            answer = _ask(self._connection, self._since, until=_read_clock(self._connection))
            events = [json.loads(line) for line in answer.content.splitlines() if line]
            return find_writers([*self._seen, *events], self._volumes, self._run_id)

    def _follow(self) -> None:
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        for _ in range(_ATTEMPTS):
            with (
                suppress(EngineUnavailable, RequestException, HTTPError, OSError, *MISREAD),
                _ask(self._connection, self._since) as answer,
            ):
                for line in answer.iter_lines():
                    if line:
                        self._seen.append(json.loads(line))
            # They broke off, as behind a proxy that ends silent connections. The engine still has
            # the newest ones.
            time.sleep(1)


def require_events(connection: Connection) -> None:
    """Require that the engine can be asked for its events.

    Raises:
        EngineUnavailable: It cannot.
    """
    with inspecting():
        now = _read_clock(connection)
        _ask(connection, now, until=now)


def _ask(connection: Connection, since: str, *, until: str | None = None) -> Any:
    """Return the engine's answer with the events of a period, still streaming without `until`.

    Raises:
        EngineUnavailable: A proxy in front of the engine hides its events.
        RequestException: The engine does not answer, or with an error.
    """
    api = connection.api
    params = {
        "since": since,
        "filters": _WANTED,
        **({"until": until} if until is not None else {}),
    }
    answer = api.get(
        f"{api.base_url}/v{api.api_version}/events",
        params=params,
        stream=until is None,
        timeout=_SECONDS if until is not None else None,
    )
    if answer.status_code in _HIDDEN:
        raise EngineUnavailable(
            f"the engine's events are hidden (HTTP {answer.status_code} for GET /events): what a"
            " container writes to a volume after its archive would not be noticed; nothing was"
            " deleted",
            next_step=(
                "let the proxy in front of the engine pass GET /events, or name the engine's own"
                " socket: -H unix:///var/run/docker.sock"
            ),
        )
    answer.raise_for_status()
    return answer


def _read_clock(connection: Connection) -> str:
    """Return the engine's own clock: seconds since 1970."""
    with inspecting():
        system_time = str(connection.reader.get("/info")["SystemTime"])
        return f"{datetime.fromisoformat(system_time).timestamp():.6f}"


def find_writers(events: Iterable[Event], volumes: frozenset[str], run_id: str) -> dict[str, str]:
    """Return volume -> id of a container that mounted it to write to it; pure.

    Unreadable events are ignored.
    """
    readable = [
        (event, attributes)
        for event in events
        if isinstance(attributes := _actor(event).get("Attributes"), dict)
    ]
    ours = {
        str(_actor(event).get("ID"))
        for event, attributes in readable
        if attributes.get(HELPER_LABEL) == run_id
    }
    return {
        volume: container
        for event, attributes in readable
        if event.get("Type") == "volume"
        and event.get("Action") == "mount"
        and attributes.get("read/write") != "false"
        if (volume := str(_actor(event).get("ID"))) in volumes
        if (container := str(attributes.get("container", ""))) not in ours
    }


def _actor(event: Event) -> Mapping[str, Any]:
    actor = event.get("Actor") if isinstance(event, dict) else None
    return actor if isinstance(actor, dict) else {}
