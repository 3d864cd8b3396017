"""The servers that keep a database in the volumes of a backup."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safe_compose.core.known_images import PLAIN_KINDS
from safe_compose.core.observed import Container, Location, describe_location
from safe_compose.core.text import join_for_shell
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import Database, ServerUnreachable
from safe_compose.databases.servers import RunningServer, find_servers
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from safe_compose.operations.backup.request import BackupRequest


def list_database_containers(
    request: BackupRequest, servers: Mapping[str, Sequence[RunningServer]]
) -> frozenset[str]:
    """Return the ids of the containers that keep any database in one of the volumes.

    They are stopped last and get time for it. In a volume that several services share, these are
    the servers alone, if they are known.
    """
    known = {serving.container.id for found in servers.values() for serving in found}
    of_databases = [
        v
        for v, verdict in request.volumes
        if verdict.kind not in PLAIN_KINDS and v.name not in servers
    ]
    return frozenset(
        {
            *known,
            *(user.id for volume in of_databases for user in request.observed.users(volume.name)),
        }
    )


def add_servers(
    engine: Engine, request: BackupRequest
) -> tuple[BackupRequest, Mapping[str, tuple[RunningServer, ...]]]:
    """Find the running servers of the volumes.

    Returns:
        The request, with the volumes' kinds corrected to those of their servers; and the name of
            each volume that has one -> its running servers.
    """
    servers = {}
    volumes = []
    for volume, verdict in request.volumes:
        if found := find_servers(engine, request.observed, volume.name, verdict.kind):
            servers[volume.name] = found
            verdict = replace(verdict, kind=found[0].kind)
        volumes.append((volume, verdict))
    return replace(request, volumes=tuple(volumes)), servers


def find_first_answering(
    engine: Engine, database: Database, serving: Sequence[Container]
) -> tuple[Container, Any]:
    """Return the first container whose server answers, and that server.

    Raises:
        ServerUnreachable: None of them answers; this is the fault of the first one.
    """
    silent: ServerUnreachable | None = None
    for container in serving:
        try:
            return container, database.server(EngineContainer(engine, container))
        except ServerUnreachable as fault:
            silent = silent or fault
    assert silent is not None  # there is at least one
    raise silent


def require_one(location: Location, servers: Sequence[RunningServer]) -> None:
    """Check that at most one server says that its data is in the location.

    Raises:
        OperationFailed: Several do; a record holds only one dump.
    """
    names = [s.container.name for s in servers if s.confirmed]
    if len(names) > 1:
        raise OperationFailed(
            f"{describe_location(location.name)}: {len(names)} database servers keep their data in"
            f" it ({', '.join(names)}), and a dump holds one of them",
            next_step=(
                f"stop them for the backup: docker stop {join_for_shell(names)}; or give each a"
                " volume of its own"
            ),
        )
