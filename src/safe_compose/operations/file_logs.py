"""Logs of a SQLite file that a service mounts alone.

SQLite keeps the log of a database beside it. Where the database alone is mounted, that place is the
container's own layer: nobody else sees the log, and it ends with the container.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple

from safe_compose.core.observed import Container
from safe_compose.core.text import shell_quote
from safe_compose.engine import Engine
from safe_compose.errors import StateChanged
from safe_compose.fastpath.layer_data import SQLITE_LOGS
from safe_compose.volumes.engine_location import EngineLocation

_SECONDS = 10.0
_VERSIONS_AT, _WAL = 18, b"\2\2"
"""Offset and value of the header's versions of a database with a write-ahead log
(sqlite.org/fileformat: "The Database Header")."""


class FileLog(NamedTuple):
    """A log with content in a container's layer."""

    container: Container
    path: str


def find_log(engine: Engine, containers: Iterable[Container], path: str) -> FileLog | None:
    """Return a log that a container has of a file of the host, or None.

    A log that cannot be looked for counts as one.
    """
    for container in containers:
        for log in _list_logs(container, path):
            until = time.monotonic() + _SECONDS
            # docker makes a missing file a folder when it is asked for a path of the container
            [changes] = engine.layers.list_changes([container.id], until)
            if changes.whole and log not in changes.paths:
                continue
            if engine.layers.holds_file(container.id, log, until) is not False:
                return FileLog(container, log)
    return None


def _list_logs(container: Container, path: str) -> list[str]:
    mounts = (m for m in container.mounts if m.location == path)
    return [f"{mount.destination}{end}" for mount in mounts for end in SQLITE_LOGS]


def require_no_log(engine: Engine, containers: Iterable[Container], path: str) -> None:
    """Check that no container keeps a log of the database file that is to be replaced.

    SQLite would apply that log to the restored file.

    Raises:
        StateChanged: One does; nothing was touched.
    """
    if (log := find_log(engine, containers, path)) is not None:
        name = log.container.name
        raise StateChanged(
            f"container {name} has {log.path} in its own layer, a log of the database that is in"
            f" {path} now; nothing was restored",
            next_step=f"remove the container first: docker rm {shell_quote(name)}",
        )


def has_write_ahead_log(location: EngineLocation) -> bool:
    """Return whether a SQLite file is in the mode in which commits go to a log first.

    Raises:
        OperationFailed: It cannot be read.
    """
    head = location.read_head(location.name.rpartition("/")[2], _VERSIONS_AT + len(_WAL))
    return head[_VERSIONS_AT:] == _WAL
