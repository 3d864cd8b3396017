"""Recovery after a crash: half-done changes of a killed run are finished or rolled back.

The containers that it stopped are started again.
"""

from collections.abc import Collection, Sequence

from safe_compose.core.observed import FOLDER, describe_location
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.registry import find_restored_alone
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.operations.recover import trash_moves
from safe_compose.operations.recover.folder_swaps import Settled, settle_swaps
from safe_compose.operations.recover.killed_run import KilledRun
from safe_compose.operations.recover.layers import complete_layers
from safe_compose.operations.recover.refill import refill
from safe_compose.operations.recover.rollback import list_half_restored, roll_back_volumes
from safe_compose.operations.stopped_containers import ContainerState, start_again
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Journal
from safe_compose.store.steps import Placing, RestoringDatabase, Stopping
from safe_compose.ui import terminal
from safe_compose.volumes import single_path
from safe_compose.volumes.engine_location import EngineLocation


def recover(
    engine: Engine,
    catalogue: Catalogue,
    journal: Journal,
    *,
    own_run: str,
    holding: Collection[str] = (),
) -> list[str]:
    """Finish or roll back what killed runs left half done.

    Half-restored volumes get their earlier content back, stopped containers are started again, and
    helpers and half backups are removed. A container that was touched since (another `StartedAt`)
    is left alone, and so are those on a volume that could not be rolled back: a server must not
    start on half of its data.

    Args:
        engine: The engine.
        catalogue: The catalogue of the store.
        journal: The journal of the store.
        own_run: The id of the run that recovers the others.
        holding: The projects whose locks that run holds.

    Returns:
        What was done, one line for each action.
    """
    lines = []
    for run in journal.list_unfinished():
        if run.id == own_run or run.engine_id not in ("", engine.id) or run.rotates is not None:
            # Only `safe-compose recover` finishes a change of a password, which involves files of
            # the project.
            continue
        lines += _recover_run(KilledRun(engine, catalogue, journal, run, holding))
    # A helper that is left and holds a volume is refused by name where that matters.
    with terminal.reporting_only():
        engine.helpers.sweep_dead()
    lines += [f"removed the half backup {name}" for name in catalogue.writer.sweep()]
    for line in lines:
        terminal.say(f"safe-compose: {line}")
    return lines


def _recover_run(killed: KilledRun) -> list[str]:
    """Recover one run and close it, or leave it open where something has to wait.

    Returns:
        What was done, one line for each action.
    """
    engine, run = killed.engine, killed.record
    # First, because one of its helpers might continue with what is repaired here. Helpers that
    # keep content in memory stay until that is used.
    engine.helpers.sweep(run.id, keepers=False)
    actions, complete = trash_moves.finish(killed)
    if complete:
        words, complete = roll_back_volumes(killed.reread())
        actions += words
    # before anything starts on them: docker makes an empty folder where one is missing
    folders = settle_swaps(killed)
    actions += [settled.words for settled in folders]
    complete = complete and all(settled.settled for settled in folders)
    left = _list_left_stopped(killed)
    half = list_half_restored(killed.reread().record)
    startable = [] if half or not complete else left
    refilled = refill(killed, startable)
    actions += refilled.words
    started, _ = start_again(engine, (was for was in startable if was.id not in refilled.waiting))
    engine.mounts.release()
    engine.helpers.sweep(run.id)
    lines = [
        f"run {run.id} was cut off" + (f"; started again: {', '.join(started)}" if started else ""),
        *actions,
        *half,
    ]
    if not (complete and refilled.complete):
        return [*lines, "to go on with it: safe-compose recover"]
    return [*lines, *_close(killed, half, left)]


def _list_left_stopped(killed: KilledRun) -> list[ContainerState]:
    """Return the containers that a run stopped and nobody touched since, the last stopped first."""
    stopped = [
        ContainerState(c.id, c.name, c.state, c.started_at, c.health)
        for step in killed.record.every(Stopping)
        for c in step.containers
    ]
    return [
        was
        for was in reversed(stopped)
        if (now := killed.engine.docker.container(was.id)) is not None
        and not was.is_started_by_others(now)
    ]


def _close(killed: KilledRun, half: Sequence[str], left: Sequence[ContainerState]) -> list[str]:
    """Settle the restore of a path or of a database, and close the run.

    It stays open, for the next recovery, where one of them cannot be settled yet.

    Returns:
        What was done, one line for each action.
    """
    run, lines = killed.record, []
    if run.undid is not None:
        lines.append("all of it was put back; its services may not run: docker compose up -d")
    settled = [*_settle_paths(killed), *complete_layers(killed)]
    settled += [swap] if (swap := _settle_swap(killed)) else []
    lines += [result.words for result in settled]
    if not all(result.settled for result in settled):
        return lines
    if half and left:
        lines.append(f"left stopped until then: {', '.join(was.name for was in left)}")
    killed.journal.reopen(run.id).step(
        "ended", outcome="; ".join(["cut off", *(half or ["recovered"])])
    )
    return lines


def _settle_swap(killed: KilledRun) -> Settled | None:
    """Complete or undo the interrupted restore of one database.

    Returns:
        The result; None for every other run.
    """
    step, engine = killed.record.newest(RestoringDatabase), killed.engine
    if step is None:
        return None
    container, new = engine.docker.container(step.container), step.new_database
    if container is None:
        return Settled(
            f"database {new} may be left in {describe_location(step.volume)}: its server has gone",
            True,
        )
    try:
        settle, database = find_restored_alone()
        _, words = settle(database.server(EngineContainer(engine, container)), step.facts())
    except OperationFailed as fault:
        return Settled(
            f"left for now: database {new} of {container.name} ({fault.message}); once it runs:"
            " safe-compose recover",
            False,
        )
    return Settled(words, True)


def _settle_paths(killed: KilledRun) -> list[Settled]:
    """Complete or undo the interrupted restores of single paths, and describe the results."""
    steps = killed.record.every(Placing)
    return [_settle_path(killed.engine, step) for step in steps if not step.is_swap]


def _settle_path(engine: Engine, step: Placing) -> Settled:
    """Complete or undo the interrupted restore of one file or folder, and describe the result."""
    piece = single_path.SinglePath(
        EngineLocation(engine, step.volume), step.path, step.staging, step.old_path
    )
    where = describe_location(step.volume)
    gone = not step.volume.startswith(FOLDER) and engine.docker.volume(step.volume) is None
    if gone:  # docker would recreate it for an inspection
        return Settled(
            f"{describe_location(step.volume)} is gone, and with it what was restored of"
            f" {piece.path}",
            True,
        )
    try:
        done = piece.settle(existed=step.existed)
    except (OperationFailed, StateChanged) as fault:
        left = f"{piece.staging} may be left, and what was {piece.path} may be {piece.old_path}"
        return Settled(
            f"left for now: {where}: {left}: {fault.message}; once it can be read:"
            " safe-compose recover",
            False,
        )
    kept = f"; the one before it is {piece.old_path}" if done and step.existed else ""
    return Settled(
        f"{piece.path} of {where} {'was restored' if done else 'is as it was'}{kept}",
        True,
    )
