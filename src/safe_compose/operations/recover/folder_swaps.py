"""The settlement of folders and files of the host whose restore was cut off.

A run that did not journal that all is restored has restored nothing: its volumes are rolled back,
and so are its folders.
"""

from datetime import timedelta
from typing import NamedTuple

from safe_compose.core.observed import FOLDER, describe_location
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.operations.recover.killed_run import KilledRun
from safe_compose.store.steps import Placing, Restored
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.folder_swap import FolderSwap
from safe_compose.volumes.last_write import SEARCH_SECONDS, find_last_writes

AFTERWARDS = timedelta(seconds=15)
"""How long after the last line of its journal a run may have written."""


class Settled(NamedTuple):
    """A result of settling one path or database that was being restored."""

    words: str
    settled: bool
    """Whether nothing has to be tried again."""


def settle_swaps(killed: KilledRun) -> list[Settled]:
    """Complete or roll back the swaps of a run, the last first, and describe the results."""
    swaps = [step for step in killed.record.every(Placing) if step.is_swap]
    return [_settle(killed, step) for step in reversed(swaps)]


def _settle(killed: KilledRun, step: Placing) -> Settled:
    swap = FolderSwap(
        EngineLocation(killed.engine, step.volume),
        step.path,
        step.staging,
        step.old_path,
        step.is_file,
    )
    where = f"{step.path} of {describe_location(step.volume)}"
    try:
        return _settle_one(killed, step, swap, where)
    except (OperationFailed, StateChanged) as fault:
        return Settled(
            f"left for now: {where}: {swap.staging_name} may be left, and what was {swap.name} may"
            f" be {swap.old_name}: {fault.message}; once it can be read: safe-compose recover",
            False,
        )


def _settle_one(killed: KilledRun, step: Placing, swap: FolderSwap, where: str) -> Settled:
    current, staged, old = swap.find_names()
    if current and staged and (old or not step.existed):
        # docker makes an empty folder for a container that starts where one is missing
        kept = f", what was there before in {swap.old_name}" if step.existed else ""
        return Settled(
            f"left for now: {describe_location(step.volume)}: something else made {swap.name}"
            f" meanwhile; what was restored is in {swap.staging_name}{kept}: move {swap.name} away,"
            " then: safe-compose recover",
            False,
        )
    swapped = current and not staged and (old or not step.existed)
    before = f"; the one before it is {swap.old_name}" if old else ""
    if not swapped:
        swap.revert(existed=step.existed)
        return Settled(f"{where} is as it was", True)
    if killed.record.every(Restored) or not step.existed:
        swap.remove_staging()
        return Settled(f"{where} was restored{before}", True)
    if (why := _find_obstacle(killed, swap)) is not None:
        swap.remove_staging()
        return Settled(f"{where} was restored and stays, since {why}{before}", True)
    swap.revert(existed=True)
    return Settled(f"{where} is as it was", True)


def _find_obstacle(killed: KilledRun, swap: FolderSwap) -> str | None:
    """Return why restored content must stay, or None: somebody may have written to it since."""
    path, last = f"{swap.parent.name.rstrip(FOLDER)}/{swap.name}", killed.record.events[-1].at
    if last is None:
        return "its journal does not tell when the run died"
    engine = killed.engine
    for user in engine.commands.look_at_folders().users(path):
        now = engine.docker.container(user.id)
        if now is not None and now.lively:
            return f"container {now.name} runs on it"
    youngest = find_last_writes(engine, [path], timeout=SEARCH_SECONDS).get(path)
    if youngest is None or youngest > last + AFTERWARDS:
        return "something may have been written to it"
    return None
