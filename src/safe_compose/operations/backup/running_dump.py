"""The dump of a server that is about to be stopped."""

import shutil
from pathlib import Path

from safe_compose.core.observed import Container
from safe_compose.core.slug import slug
from safe_compose.core.text import drop_subject
from safe_compose.databases.protocol import Dump, ServerUnreachable
from safe_compose.databases.servers import RunningServer
from safe_compose.errors import OperationFailed
from safe_compose.operations.backup.records import remove_half
from safe_compose.operations.backup.restarts import find_server_after_restart, is_still_running
from safe_compose.ui import terminal


def dump_running(
    serving: RunningServer, volume: str, into: Path, size: int | None
) -> tuple[Dump | None, tuple[str, ...]]:
    """Dump a running server, once more if it is restarted meanwhile.

    Args:
        serving: The server.
        volume: The volume with its data.
        into: The folder of the backup.
        size: The size of the volume in bytes, for progress; None when unknown.

    Returns:
        The dump and notes for the backup. The dump is None when the server does not answer, when
            its data cannot be dumped (its volume is archived cold all the same, damaged or not), or
            when a dump would add nothing to the archive.

    Raises:
        OperationFailed: The store failed, or the server ended.
    """
    database, container = serving.database, serving.container
    if not database.dumped_before_deletion:
        return None, ()
    try:
        server = serving.inspect()
    except ServerUnreachable as silent:
        return None, _note_missing_dump(container, silent.message)
    for session in server.foreign_sessions:
        terminal.say(f"safe-compose: still connected to {container.name}: {session}")
    for last in (False, True):
        try:
            with terminal.showing_progress(
                f"dump {container.name} ({server.title})", total=size
            ) as report:
                return database.dump(server, volume, into, report), ()
        except ServerUnreachable as silent:  # it answers but cannot be dumped
            why = silent.message
        except OperationFailed as fault:
            again = None if last else find_server_after_restart(database, serving.at)
            if again is not None:
                terminal.say(
                    f"safe-compose: {container.name} was restarted meanwhile: its dump starts over,"
                    " once"
                )
                shutil.rmtree(into / slug(volume))
                server = again
                continue
            if _is_of_the_store(fault) or not (last or is_still_running(serving.at)):
                raise
            why = f"{fault.message}; its volume is archived as it is"
        break
    remove_half(into, volume)
    return None, _note_missing_dump(container, why)


def _note_missing_dump(container: Container, why: str) -> tuple[str, ...]:
    """Report why a server was not dumped, and return that as a note."""
    cause = drop_subject(why, f"container {container.name}")
    note = f"no dump of {container.name}: {cause}"
    terminal.say(f"safe-compose: {note}")
    return (note,)


def _is_of_the_store(fault: BaseException) -> bool:
    """Return whether a dump failed on our own disk, where an archive would fail too."""
    cause: BaseException | None = fault
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return cause is not None
