"""Extensions that restored databases need and that the images of their servers do not have.

The rows are back then, and counting them finds nothing wrong, but queries fail: such a restore is
no success.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from safe_compose.core.backup import VolumeRecord
from safe_compose.core.observed import Container
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.databases.registry import DATABASES
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, SafeComposeError
from safe_compose.ui import terminal


class MissingExtensions(NamedTuple):
    """A database that needs extensions which its server's image does not have."""

    container: Container
    database: str
    names: tuple[str, ...]
    image_before: str
    """The image that had them."""

    def shape(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "container": self.container.name,
            "database": self.database,
            "extensions": list(self.names),
        }


def find_missing(
    engine: Engine, volumes: Iterable[tuple[VolumeRecord, str]]
) -> tuple[MissingExtensions, ...]:
    """Return what the servers that run on restored volumes lack, and report what cannot be told.

    Args:
        engine: The engine.
        volumes: The records of what was restored, and the volumes that have it now.
    """
    observed = engine.commands.look_at_folders()
    found: list[MissingExtensions] = []
    for record, volume in volumes:
        database = DATABASES.get(record.data_kind)
        if database is None or database.missing_extensions is None or not _may_need(record):
            continue
        for user in observed.users(volume):
            if user.state != "running" or not database.serves(user, volume):
                continue
            try:
                server = database.server(EngineContainer(engine, user))
                missing = database.missing_extensions(server)
            except ServerUnreachable:
                continue  # the attempt to log in says so
            except SafeComposeError as fault:  # everything is restored: this is only a report
                terminal.say(
                    f"safe-compose: whether {user.name} has every extension that its databases need"
                    f" is not known: {fault.message}"
                )
                continue
            found += [
                MissingExtensions(user, name, extensions, _find_image(record))
                for name, extensions in missing.items()
            ]
    return tuple(found)


def require_extensions(missing: Sequence[MissingExtensions]) -> None:
    """Require that no restored database lacks an extension.

    Raises:
        OperationFailed: One does; what was restored stays.
    """
    if not missing:
        return
    words = "; ".join(
        f"database {one.database} needs {', '.join(one.names)}, and {one.container.image} of"
        f" {one.container.name} has no such extension"
        for one in missing
    )
    before = f", such as {missing[0].image_before}" if missing[0].image_before else ""
    raise OperationFailed(
        f"everything is back, but what uses an extension fails: {words}",
        next_step=f"give the service an image that has it{before}, and start it again",
    )


def _find_image(record: VolumeRecord) -> str:
    """Return the name of the image whose container had the data; empty if it is not recorded."""
    return next((user["image"] for user in record.users if user.get("image")), "")


def _may_need(record: VolumeRecord) -> bool:
    """Return whether a backup names extensions; one that counted nothing may have any."""
    return record.statistics is None or any(d.extensions for d in record.statistics.databases)
