"""The running database servers that keep their data in a volume.

Image and mounts identify them if these leave no doubt; otherwise the servers are asked.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from safe_compose.core.observed import ONEOFF_LABEL, Container, Observed, kind_of_location
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import Database
from safe_compose.databases.registry import DATABASES
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed


class RunningServer(NamedTuple):
    """A running server and its kind of database."""

    kind: str
    database: Database
    at: EngineContainer
    confirmed: bool = False
    """The server was asked where its data is, and confirmed the volume."""

    @property
    def container(self) -> Container:
        """The container that it runs in."""
        return self.at.container

    def inspect(self) -> Any:
        """Return the server, as `Database.server` does.

        Raises:
            ServerUnreachable, OperationFailed: See there.
        """
        return self.database.server(self.at)


def find_servers(
    engine: Engine, observed: Observed, volume: str, kind: str
) -> tuple[RunningServer, ...]:
    """Return the running servers with their data in a volume.

    Those of `kind`, according to policy, come first. A server is asked if it mounts several
    volumes, or one where nobody expects its data (`--datadir`, `--dir`, PGDATA). All are asked if
    there are several: a container that `compose run` left has the same image and mounts, and may
    well run something else. If none answers, image and mounts decide, the likeliest first.
    """
    found = sorted(
        _candidates(engine, observed, volume, kind),
        key=lambda s: (s.database is not DATABASES.get(kind), _is_oneoff(s)),
    )
    expected = tuple(s for s in found if s.database.serves(s.container, volume))
    if (
        found == list(expected)
        and len(found) <= 1
        and not any(_has_several(s.container, volume) for s in found)
    ):
        return expected
    asked = [(s, _find_volume(s)) for s in found]
    confirmed = tuple(s._replace(confirmed=True) for s, place in asked if place == volume)
    return confirmed or tuple(s for s, place in asked if place is None and s in expected)


def _candidates(
    engine: Engine, observed: Observed, volume: str, kind: str
) -> Iterator[RunningServer]:
    for user in observed.users(volume):
        if user.state != "running":
            continue
        seen: list[Database] = []
        for name, database in DATABASES.items():
            if not any(database is known for known in seen) and database.is_server(user):
                seen.append(database)
                yield RunningServer(
                    kind if DATABASES.get(kind) is database else name,
                    database,
                    EngineContainer(engine, user),
                )


def _is_oneoff(serving: RunningServer) -> bool:
    return serving.container.labels.get(ONEOFF_LABEL, "").lower() == "true"


def _has_several(container: Container, location: str) -> bool:
    kinds = ("volume",) if kind_of_location(location) == "volume" else ("volume", "bind")
    return sum(1 for m in container.mounts if m.type in kinds and not m.read_only) > 1


def _find_volume(serving: RunningServer) -> str | None:
    """Return the volume that a server reports for its data; None if it does not answer."""
    try:
        return str(serving.inspect().volume)
    except OperationFailed:
        return None
