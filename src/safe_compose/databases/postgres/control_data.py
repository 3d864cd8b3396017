"""The state of a data directory that no server uses, read from its control file.

Our own helper program reads the file.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePosixPath

from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.postgres.control_file import FILE, BadControlFile, ControlData, read
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.protocol import ShutdownState
from safe_compose.errors import OperationFailed
from safe_compose.volumes.engine_location import EngineLocation

_DEPTH = 5
"""Largest number of folders from a volume's root down to a control file:
`18/docker/global/pg_control` has three.
"""
_LIMIT = 64 << 10


def settling(_at: EngineContainer) -> AbstractContextManager[None]:
    """Do nothing before a stop: what was committed is on the volume."""
    return nullcontext()


def inspect_shutdown(location: EngineLocation, server: PostgresServer | None) -> ShutdownState:
    """Check whether the server of an unused data directory was stopped cleanly.

    `server` is the one that was dumped from it.
    """
    found, words = _control_data(location, server.pgdata if server is not None else None)
    if found is None:
        return ShutdownState(f"control state 'unknown': {words}", clean=False)
    sound = clean(found.state)
    return ShutdownState(
        f"control state '{found.state}'",
        sound,
        next_transaction=found.next_transaction if sound else None,
    )


def control_state(location: EngineLocation, pgdata: str | None) -> str:
    """Return the state in an unused data directory's pg_control: `shut down`, `in production`, ...

    The state is `unknown` if there is no valid control file, or the volume cannot be read. `pgdata`
    is relative to the volume's root; None searches for it.
    """
    found, _ = _control_data(location, pgdata)
    return found.state if found is not None else "unknown"


def read_settings_left(location: EngineLocation, pgdata: str) -> dict[str, str]:
    """Return the settings of a data directory's last server, as its control file records them."""
    found, _ = _control_data(location, pgdata)
    return dict(found.settings) if found is not None else {}


def read_limits_left(location: EngineLocation, pgdata: str) -> dict[str, str]:
    """Return the smallest settings with which a standby follows on a data directory.

    They include the two of `settings_left`. The result is empty if they are unknown.
    """
    found, _ = _control_data(location, pgdata)
    return {**found.settings, **found.limits} if found is not None else {}


def _control_data(location: EngineLocation, pgdata: str | None) -> tuple[ControlData | None, str]:
    """Return the content of a valid control file; otherwise None and why there is none."""
    try:
        folder = find_data_directory(location) if pgdata is None else pgdata
        if folder is None:
            return None, "there is no data directory"
        data = location.read(str(PurePosixPath(folder, FILE)), limit=_LIMIT)
    except OperationFailed as fault:
        return None, fault.message
    if data is None:
        return None, f"there is no {FILE}"
    try:
        return read(data), ""
    except BadControlFile as fault:
        return None, f"{FILE} is damaged: {fault}"


def clean(state: str) -> bool:
    """Return whether a state is that after a clean stop; standbys have one of their own."""
    return state in ("shut down", "shut down in recovery")


def find_data_directory(location: EngineLocation) -> str | None:
    """Return the path of a data directory in a volume, relative to its root; None if there is none.

    Raises:
        OperationFailed: The volume cannot be read.
    """
    files = [
        path
        for path in location.find(["pg_control"], depth=_DEPTH)
        if f"/{path}".endswith(f"/{FILE}")
    ]
    return str(PurePosixPath(files[0]).parent.parent) if files else None
