"""The state in which a stopped MySQL or MariaDB server left its volume.

InnoDB removes its file of temporary tables at the end of every clean stop and keeps it after a
crash (documented by MySQL and MariaDB; run): if that file exists, the server did not finish its
stop. Its exit code has to agree if it is known.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePosixPath

from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.mysql.discover import MysqlServer
from safe_compose.databases.protocol import ShutdownState
from safe_compose.volumes.engine_location import EngineLocation

_DEPTH = 4
"""Largest number of folders from a volume's root down to the files of a data directory."""


def settling(_at: EngineContainer) -> AbstractContextManager[None]:
    """Do nothing before a stop: what was committed is on the volume once the server is stopped."""
    return nullcontext()


def inspect_shutdown(location: EngineLocation, server: MysqlServer | None) -> ShutdownState:
    """Check whether the server of an unused volume was stopped cleanly.

    `server` is the one that was dumped from it.

    Raises:
        OperationFailed: The volume cannot be read.
    """
    temporary = server.temporary if server is not None else "ibtmp1"
    files = location.find(["ibdata1", "mysql", temporary], depth=_DEPTH)
    names = {PurePosixPath(path).name for path in files}
    if not names & {"ibdata1", "mysql"}:
        return ShutdownState("how it was stopped cannot be told from its files", clean=False)
    if temporary in names:
        return ShutdownState(
            f"{temporary} is still there: it was not stopped in order", clean=False
        )
    if (
        server is not None
        and (now := location.engine.docker.container(server.container.id)) is not None
        and now.exit_code != 0
    ):
        return ShutdownState(f"it ended with {now.exit_code}", clean=False)
    return ShutdownState(f"{temporary} is gone: it was stopped in order", clean=True)
