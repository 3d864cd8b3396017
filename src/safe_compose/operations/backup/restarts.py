"""Servers that end and start again while they are backed up."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from safe_compose.core.observed import Container
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import Database, ServerUnreachable
from safe_compose.engine import Engine

RESTART_SECONDS = 60.0
"""How long a server that was restarted during its dump may take until it answers."""

NOTICED_SECONDS = 2.0
"""How long the engine may take to notice that a container has ended."""


def is_still_running(at: EngineContainer) -> bool:
    """Return whether the container has run without a break since it was inspected.

    If it has, the fault lies with its data.
    """
    now = at.inspect_again()
    return now is not None and now.state == "running" and now.started_at == at.container.started_at


def find_server_after_restart(database: Database, at: EngineContainer) -> Any:
    """Return the server once it answers after a restart of its container.

    Returns:
        The server; None when the container was not restarted, or when the server does not answer.
    """
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < RESTART_SECONDS:
        now = at.inspect_again()
        same = (
            now is not None and now.state == "running" and now.started_at == at.container.started_at
        )
        if now is None or not now.lively or (same and waited > NOTICED_SECONDS):
            return None
        with suppress(ServerUnreachable):
            if not same:
                return database.server(EngineContainer(at.engine, now))
        time.sleep(0.2)  # polling, with a time limit
    return None


def are_restarting(engine: Engine, serving: Sequence[Container]) -> bool:
    """Return whether these silent servers keep ending and being restarted by docker."""
    begun = time.monotonic()
    while time.monotonic() - begun < NOTICED_SECONDS:
        now = [engine.docker.container(u.id) for u in serving]
        if all(c is not None and c.state == "restarting" for c in now):
            return True
        time.sleep(0.1)  # polling, with a time limit
    return False


def has_started_since(engine: Engine, before: Iterable[Container | None]) -> bool:
    """Return whether one of the containers has been started since it was inspected, or runs."""
    for then in before:
        now = engine.docker.container(then.id) if then is not None else None
        if (
            now is not None
            and then is not None
            and (now.started_at != then.started_at or now.state == "running")
        ):
            return True
    return False
