"""The completion of moves to and from the trash that a killed run began."""

from safe_compose.core.text import drop_subject
from safe_compose.errors import OperationFailed, SafeComposeError
from safe_compose.operations.recover.killed_run import KilledRun
from safe_compose.operations.trash import (
    Trash,
    TrashItem,
    discard,
    move_back_all,
    take_from_trash,
)
from safe_compose.store.run_record import RunRecord
from safe_compose.store.steps import (
    Docker,
    Ran,
    RestoringVolume,
    RolledBack,
    Running,
    TakenFromTrash,
    Trashed,
    Untrashing,
)
from safe_compose.system.process import Process, find_by_environment
from safe_compose.volumes import rename
from safe_compose.volumes.engine_location import EngineLocation


def finish(killed: KilledRun) -> tuple[list[str], bool]:
    """Finish the moves of a run that died.

    What docker did not delete is moved back, and what was half restored is moved to the trash
    again.

    Returns:
        What was done, one line for each item, and whether that was all. If not, the run stays open
            and its containers stay stopped.
    """
    engine, run = killed.engine, killed.record
    lines, complete = _move_back_all(killed)
    for volume, trash in _list_half_restored(run).items():
        if engine.docker.volume(trash) is None:
            continue
        try:
            if run.restored:
                discard(EngineLocation(engine, trash))
                continue
            if engine.docker.volume(volume) is not None:
                take_from_trash(EngineLocation(engine, volume), trash)
            lines.append(f"volume {volume}: its content is in the trash again")
            killed.journal.reopen(run.id).step("taken-out", volume=volume, trash=trash)
        except rename.CannotMove as fault:
            lines.append(_describe(volume, fault))
        except SafeComposeError as fault:
            complete = False
            lines.append(_describe(volume, fault))
    return lines, complete


def _move_back_all(killed: KilledRun) -> tuple[list[str], bool]:
    """Move back what docker did not delete; return one line for each item, and whether all moved.

    What can never be moved back does not count: it is for a person.
    """
    lines: list[str] = []
    complete = True
    for item in Trash(killed.engine, killed.journal).list_of_run(killed.record.id).values():
        try:
            words = _move_back(killed, item)
        except _MayStillDelete as fault:
            words, complete = fault.message, False
        except rename.CannotMove as fault:
            words = (
                f"{_describe(item.record.name, fault)}; its content is in the trash:"
                f" safe-compose trash restore {item.id}"
            )
        except SafeComposeError as fault:
            words = f"{_describe(item.record.name, fault)}; its content is in the trash"
            complete = False
        if words:
            lines.append(words)
    return lines, complete


def _describe(volume: str, fault: SafeComposeError) -> str:
    subject = f"volume {volume}"
    return f"{subject}: {drop_subject(fault.message, subject)}"


class _MayStillDelete(OperationFailed):
    """Docker, started by the run that died, may still be deleting the volume."""


def _move_back(killed: KilledRun, item: TrashItem) -> str:
    """Move one item back if docker did not delete its volume, and describe the result.

    Returns:
        The description; empty when docker deleted or recreated the volume.

    Raises:
        _MayStillDelete: Docker may still be deleting the volume.
        rename.CannotMove: It cannot be moved.
        SafeComposeError: The move failed.
    """
    name, run, engine = item.record.name, killed.record, killed.engine
    now = engine.docker.volume(name)
    if now is None:
        return ""  # docker deleted it; `undo` finds its content
    running, ran, docker = run.newest(Running), run.newest(Ran), run.newest(Docker)
    going_back = any(s.volume == name for s in run.every(Untrashing))
    if running is not None and not going_back and (ran is None or name not in ran.survived):
        if ran is not None:
            return ""  # recreated under the same name
        if not _has_ended(run, Process.read(docker.process) if docker is not None else None):
            raise _MayStillDelete(
                f"docker may still be deleting volume {name}; its content is in the trash:"
                " safe-compose trash list"
            )
        empty = next((s.empty for s in run.every(Trashed) if s.volume == name), None)
        if now.created_at != empty:
            return (
                f"volume {name} was recreated, or written, meanwhile; what was in it is in the"
                " trash: safe-compose undo"
            )
    move_back_all(EngineLocation(engine, name), item.volume)
    return f"volume {name} has its content again, from the trash"


def _has_ended(run: RunRecord, docker: Process | None) -> bool:
    """Return whether the docker of a dead run has certainly ended.

    If the run died between docker's start and the step that names it, docker carries our mark: the
    process id of its parent (`launch.make_guarded_environment`).
    """
    if docker is not None:
        return docker.is_dead()
    if run.process is None:
        return False
    if run.process.boot != Process.current().boot:
        return True
    return find_by_environment(f"SAFE_COMPOSE_GUARDED={run.process.pid}".encode()) == []


def _list_half_restored(run: RunRecord) -> dict[str, str]:
    """Return volume -> trash volume for content that a restore moved back and did not roll back."""
    begun = {step.volume: step.trash for step in run.every(RestoringVolume) if step.trash}
    done = {step.volume for step in run.events if isinstance(step, RolledBack | TakenFromTrash)}
    return {volume: trash for volume, trash in begun.items() if volume not in done}
