"""The completion of a restore into a container's own layer that was cut off.

Nothing can take files out of a layer again; to write them once more completes it.
"""

from collections.abc import Sequence
from pathlib import Path

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import LAYER, PROJECT_LABEL, Container
from safe_compose.core.quantities import count
from safe_compose.core.text import make_visible, shell_quote
from safe_compose.errors import SafeComposeError, StateChanged
from safe_compose.operations.backup import verify
from safe_compose.operations.layer_files import (
    find_written,
    require_free,
    require_no_log,
    to_path,
    write_files,
)
from safe_compose.operations.recover.folder_swaps import AFTERWARDS, Settled
from safe_compose.operations.recover.killed_run import KilledRun
from safe_compose.store.steps import WritingLayer
from safe_compose.volumes.layer_archive import list_files
from safe_compose.volumes.tar import Member


def complete_layers(killed: KilledRun) -> list[Settled]:
    """Write the files of each layer again, and describe the results."""
    return [_complete(killed, step) for step in killed.record.every(WritingLayer)]


def _complete(killed: KilledRun, step: WritingLayer) -> Settled:
    container = killed.engine.docker.container(step.container)
    if container is None:
        return Settled(f"the container that got files of {step.volume} is gone", True)
    again = (
        f"container {container.name} holds a part of {step.volume}; to restore the rest:"
        f" safe-compose restore {shell_quote(step.backup)} --volume {shell_quote(step.volume)}"
    )
    try:
        backup, record = _find_record(killed, step, container)
        entries = tuple(list_files(Path(backup.path), record.artifacts))
        require_free(container, entries, "it was not completed")
        require_no_log(killed.engine, container, entries, "it was not completed")
        _require_unwritten(killed, container, entries)
        with killed.locking(killed.record.projects):
            write_files(killed.engine, container, Path(backup.path), record.artifacts, entries)
    except SafeComposeError as fault:
        return Settled(f"{again} ({fault.message})", True)
    files = sum(entry.type != "d" for entry in entries)
    return Settled(
        f"{count(files, 'file')} of {step.volume} {'is' if files == 1 else 'are'} back in container"
        f" {container.name}",
        True,
    )


def _require_unwritten(killed: KilledRun, container: Container, entries: Sequence[Member]) -> None:
    """Check that nobody has written to one of the files since: that would be lost.

    Raises:
        StateChanged: Somebody has, or nobody can tell.
    """
    last = killed.record.events[-1].at
    paths = {to_path(entry) for entry in entries if entry.type != "d"}
    if last is None:
        raise StateChanged("its journal does not tell when the run died")
    after = (last + AFTERWARDS).timestamp()
    if (path := find_written(killed.engine, container, paths, after)) is not None:
        raise StateChanged(f"{make_visible(path)} was written to since")


def _find_record(
    killed: KilledRun, step: WritingLayer, container: Container
) -> tuple[Backup, VolumeRecord]:
    """Return the backup and the record of the layer, verified.

    Others may write a journal: only a backup of this store goes back, and only into a container of
    the same service.

    Raises:
        SafeComposeError: There is none that may go into this container.
    """
    backup = killed.catalogue.reader.find(step.backup)
    record = next((r for r in backup.volumes if r.name == step.volume), None)
    if record is None or backup.broken is not None or backup.unsigned_from is not None:
        raise StateChanged(f"backup {step.backup} does not hold it any more")
    user = record.users[0] if record.users else {}
    of_service = container.project and (
        (container.project, container.service)
        == (record.labels.get(PROJECT_LABEL), user.get("service"))
    )
    if not of_service and record.name != f"{LAYER}{container.name}":
        raise StateChanged("it is the container of another service now")
    verify.check_before_use(backup, record)
    return backup, record
