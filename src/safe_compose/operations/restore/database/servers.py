"""The running server that gets a database, and the clients of that database."""

import time
from collections.abc import Callable

from safe_compose.core.observed import Container, Observed, describe_location
from safe_compose.databases import postgres
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.postgres import target_server
from safe_compose.engine import Engine
from safe_compose.errors import Refused, StateChanged, UsageError

SETTLE_SECONDS = 3.0
"""How long an unexpected session may last: a health check comes and goes."""


def find_server_container(
    engine: Engine, observed: Observed, volume: str | None, project: str | None
) -> Container:
    """Return the container of the running server.

    Raises:
        UsageError: Without a volume, there is not exactly one server.
        Refused: There is not exactly one server that keeps its data in the volume.
    """
    serving = list_running_servers(engine, observed, postgres.serves, volume, project)
    if len(serving) == 1:
        return serving[0][0]
    if volume is not None:
        raise Refused(
            f"no running PostgreSQL keeps its data in {describe_location(volume)}; nothing was"
            " restored",
            next_step=(
                "start its service (docker compose up -d SERVICE), or restore the whole volume"
                " without --database"
            ),
        )
    where = f"in project {project}" if project else "on this engine"
    names = ", ".join(name for _, name in serving) or "none"
    raise UsageError(
        f"which PostgreSQL shall get it? Running {where}: {names}; nothing was restored",
        next_step="add --volume NAME",
    )


def list_running_servers(
    engine: Engine,
    observed: Observed,
    serves: Callable[[Container, str], bool],
    volume: str | None,
    project: str | None,
) -> list[tuple[Container, str]]:
    """Return the running servers of one kind, each with its volume.

    They are those on `volume` if it is given, otherwise those of `project`, otherwise all.
    """
    running = [c for c in observed.containers if c.state == "running"]
    inspected = [full for c in running if (full := engine.docker.container(c.id)) is not None]
    return [
        (c, name)
        for c in inspected
        for name in sorted(c.volume_names())
        if serves(c, name)
        and (volume == name if volume is not None else project in (None, c.project))
    ]


def require_same_server(at: EngineContainer) -> None:
    """Check that the server has not been restarted or removed.

    Raises:
        StateChanged: It has.
    """
    now, container = at.inspect_again(), at.container
    if now is None or now.started_at != container.started_at or now.state != "running":
        raise StateChanged(
            f"container {container.name} was restarted or removed meanwhile; nothing was restored"
        )


def list_clients(
    engine: Engine, observed: Observed, server: postgres.PostgresServer, database: str
) -> tuple[tuple[Container, ...], tuple[str, ...]]:
    """Return the clients of a database.

    Returns:
        The services of the server's own project that use it, connected ones and those that compose
            starts after it; and everybody else who is connected, in words.
    """
    own = server.container
    lively = [
        c
        for o in observed.containers
        if o.lively and o.id != own.id and (c := engine.docker.container(o.id)) is not None
    ]
    mine = [c for c in lively if own.project is not None and c.project == own.project]
    clients = {c.id: c for c in mine if own.service is not None and own.service in c.depends_on}
    strangers: list[str] = []
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        strangers = []
        for session in target_server.list_clients(server, database):
            at = [c for c in lively if session.address in c.addresses]
            inside = (
                [c for c in lively if c.network_mode == f"container:{own.id}"]
                if session.address in ("127.0.0.1", "::1")
                else []
            )
            owner = next(iter(at or inside), None)
            if owner is not None and owner in mine and not owner.auto_remove:
                clients[owner.id] = owner
            else:
                of = (
                    f", container {owner.name} of project {owner.project or '-'}"
                    if owner is not None
                    else ""
                )
                strangers.append(f"{session}{of}")
        if not strangers or time.monotonic() > until:
            break
        time.sleep(0.2)  # polling, with a time limit
    return tuple(clients.values()), tuple(strangers)
