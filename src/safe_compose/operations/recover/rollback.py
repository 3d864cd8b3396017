"""The rollback of volumes that an `undo` or a `restore` has half restored."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from safe_compose.core.backup import VolumeRecord
from safe_compose.core.observed import FOLDER, HELPER_LABEL, Container, describe_location
from safe_compose.core.quantities import format_exactly
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.engine import Engine
from safe_compose.errors import SafeComposeError, UsageError, VerificationFailed
from safe_compose.operations import trash
from safe_compose.operations.backup import verify
from safe_compose.operations.recover.killed_run import KilledRun
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Run
from safe_compose.store.run_record import RunRecord
from safe_compose.store.steps import RestoringVolume, Running, TakenFromTrash, VolumeRestored
from safe_compose.ui import terminal
from safe_compose.volumes import extraction, gzip_stream, rename
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.last_write import SEARCH_SECONDS, find_last_writes

BEAT_SECONDS = 10.0
"""The longest time between two lines in the journal while content is written to a volume.

So nothing that a dead run wrote is much younger than its last line.
"""


_AFTERWARDS = timedelta(seconds=5)
"""How long a helper may continue to write after its run has died."""


class InterruptedRestore(NamedTuple):
    """A volume whose content is being restored, with everything from the journal for a rollback."""

    volume: str
    existed: bool
    """It existed before; otherwise the restore created it."""
    safety: str | None
    """The backup of its earlier content; None when it had none."""
    trash: str | None
    """The trash volume whose content is renamed into it."""
    forgets: bool
    """Its content is kept in memory and ends when nothing has it mounted any more."""
    outside: bool
    """It points to a place outside of docker's own storage."""
    users: Mapping[str, str]
    """The id of each container that uses it -> its `StartedAt`."""
    adds: bool = False
    """It holds a part of its content and only the missing part is restored, which may stay."""
    seen_empty: bool = False
    """It was created for this and was empty then, so all of its content is ours.

    Until that was seen, content at a place outside may be what no deletion ever touched.
    """

    @classmethod
    def of(cls, step: RestoringVolume) -> "InterruptedRestore | None":
        """Return the volume that a step of the journal is about.

        Returns:
            The volume; None when an older release wrote the step, which recorded less.
        """
        if step.users is None:
            return None
        return cls(
            step.volume,
            step.existed,
            step.safety,
            step.trash,
            step.forgets,
            step.outside,
            step.users,
            step.adds,
            step.seen_empty,
        )

    @property
    def emptied(self) -> bool:
        """Whether a rollback clears the volume: its content is ours, or in the safety backup."""
        return self.existed or (self.outside and self.seen_empty and not self.forgets)


def add_heartbeat(run: Run, into: str, report: Callable[[int], None]) -> Callable[[int], None]:
    """Return `report` extended to write a line to the journal at intervals.

    `recover` must know until when a run wrote.
    """
    last = time.monotonic()

    def reporting(done: int) -> None:
        nonlocal last
        report(done)
        if time.monotonic() - last >= BEAT_SECONDS:
            last = time.monotonic()
            # A full disk of the store must not interrupt a rollback.
            with terminal.reporting_only():
                run.step("filling", volume=into)

    return reporting


def roll_back(
    engine: Engine, catalogue: Catalogue, begun: InterruptedRestore, progress: Callable[[int], None]
) -> None:
    """Restore the earlier content of a volume, wherever the restore was interrupted.

    Raises:
        SafeComposeError: It failed; it can be called again.
    """
    if _is_gone(engine, begun.volume) or begun.adds:
        return
    location = EngineLocation(engine, begun.volume)
    if begun.forgets and begun.existed:
        engine.mounts.keep([begun.volume])  # until its stopped containers run again
    if begun.trash is not None:
        # It is never emptied: it may be the only copy.
        trash.take_from_trash(location, begun.trash)
    before = (
        find_safety_backup(catalogue, begun.safety, begun.volume)
        if begun.existed and begun.safety is not None
        else None
    )
    if begun.trash is None and begun.emptied:  # only once its replacement is at hand
        extraction.clear(location)
    if not begun.existed:
        engine.docker.remove_volume(begun.volume)
    elif before is not None:
        folder, old = before
        if lost := extraction.extract(location, folder, old.artifacts, progress):
            terminal.say(f"safe-compose: {begun.volume}: {lost}")
        extraction.sync(location)


def _is_gone(engine: Engine, location: str) -> bool:
    """Return whether a volume is gone; the engine does not tell it of a folder."""
    return not location.startswith(FOLDER) and engine.docker.volume(location) is None


def find_safety_backup(catalogue: Catalogue, safety: str, volume: str) -> tuple[Path, VolumeRecord]:
    """Return the folder and the record of a volume's earlier content in its safety backup.

    Raises:
        UsageError: The backup is gone.
        VerificationFailed: The backup is damaged.
    """
    backup = catalogue.reader.find(safety)
    old = next((r for r in backup.volumes if r.name == volume), None)
    if old is None or backup.broken is not None:
        why = backup.broken or f"its manifest does not name {volume}"
        raise VerificationFailed(
            f"backup {safety}, which has what was in it, does not verify: {why}",
            next_step=f"safe-compose verify {shell_quote(safety)}",
        )
    return Path(backup.path), old


def roll_back_volumes(killed: KilledRun) -> tuple[list[str], bool]:
    """Roll back what a killed `undo` or `restore` has half restored, in reverse order.

    `list_half_restored` lists what cannot be rolled back.

    Returns:
        What was done, one line for each volume, and whether nothing of it has to wait.
    """
    waiting = list(killed.record.half.values())
    if not waiting:
        return [], True
    lines: list[str] = []
    try:
        with killed.locking(killed.record.projects):
            for step in reversed(waiting):
                if (begun := InterruptedRestore.of(step)) is not None:
                    lines.append(_roll_back_volume(killed, begun))
    except rename.CannotMove as fault:
        lines.append(f"{describe_location(waiting[0].volume)}: {fault.message}")
    except SafeComposeError as fault:
        return [*lines, f"what was there was not put back yet: {fault.message}"], False
    return lines, True


def _roll_back_volume(killed: KilledRun, begun: InterruptedRestore) -> str:
    """Roll back one volume, unless its content must stay, and describe the result.

    Raises:
        SafeComposeError: It failed.
    """
    name = begun.volume
    why = _find_later_run(killed, name) or _find_obstacle(killed, begun)
    if why is not None:
        return f"{describe_location(name)}: what was there was not put back: {why}"
    run = killed.journal.reopen(killed.record.id)
    run.step("taking-back", volume=name)  # from here on, what is written is ours again
    with terminal.showing_progress(f"put back what was in {name}") as report:
        progress = add_heartbeat(run, name, report)
        roll_back(killed.engine, killed.catalogue, begun, progress)
    run.step("rolled-back", volume=name)
    if begun.adds:
        return (
            f"{describe_location(name)} holds what docker had left of it, and what was put back"
            " until then"
        )
    if begun.existed:
        return f"{describe_location(name)} has again what was there before"
    return f"{describe_location(name)} is gone again, as it was before"


def _find_later_run(killed: KilledRun, volume: str) -> str | None:
    """Return why the volume's content is not the run's: a later run wrote to it or deleted it.

    Returns:
        The reason; None when there is no such run.
    """
    run = killed.record
    for later in killed.journal.runs():
        if later.seq <= run.seq or later.engine_id != run.engine_id:
            continue
        doomed = {v.name for step in later.every(Running) for v in step.volumes}
        filled = {step.volume for step in later.every(RestoringVolume)}
        if volume in doomed | filled:
            return f"run {later.id} has written to it since"
    return None


def _find_obstacle(killed: KilledRun, begun: InterruptedRestore) -> str | None:
    """Return why a volume's content must stay, or why the earlier content cannot be restored.

    Returns:
        The reason; None when nothing stands in the way.
    """
    if begun.adds:
        return None
    if begun.volume.startswith(FOLDER) and begun.safety is None:
        return "it is a folder of the host, and no backup holds what was in it"
    engine = killed.engine
    for user in engine.commands.look_at_folders().users(begun.volume):
        now = engine.docker.container(user.id)
        never_ran = now is None or now.started_at.startswith("0001-")
        if now is None or never_ran or is_helper(now):  # such as one that keeps content in memory
            continue
        if now.lively or now.started_at != begun.users.get(now.id):
            return f"container {now.name} has run on it since"
    try:
        if begun.safety is not None:
            folder, old = find_safety_backup(killed.catalogue, begun.safety, begun.volume)
            gzip_stream.require_key(folder, old.artifacts)
            verify.check_files(folder, old)
    except (UsageError, VerificationFailed) as fault:
        return fault.message
    return _find_later_write(killed, begun) if begun.trash is None else None


def _find_later_write(killed: KilledRun, begun: InterruptedRestore) -> str | None:
    """Return why somebody else may have written to the volume, judged by its youngest file.

    `compose up` and `down` leave no container behind that would show it.

    Returns:
        The reason; None when nobody did.
    """
    engine = killed.engine
    if _is_gone(engine, begun.volume):
        return None
    last = killed.record.events[-1].at
    if last is None:
        return "its journal does not tell when it died"
    afterwards = timedelta(seconds=BEAT_SECONDS) + _AFTERWARDS
    youngest = find_last_writes(engine, [begun.volume], timeout=SEARCH_SECONDS).get(begun.volume)
    if youngest is None:
        return "nobody can tell whether something was written to it since"
    return (
        f"something was written to it since, at {format_exactly(youngest)}"
        if youngest - afterwards > last
        else None
    )


def is_helper(container: Container) -> bool:
    """Return whether it is a helper of ours.

    What compose made is none, whatever its labels say.
    """
    return HELPER_LABEL in container.labels and container.is_marked_as_ours


def list_half_restored(run: RunRecord) -> list[str]:
    """Return in words which volumes a killed `undo` or `restore` left half restored.

    Each line says where the earlier content is. For every other run there are none.
    """
    waiting = run.half
    taken_out = {step.volume for step in run.every(TakenFromTrash)}
    done = {step.volume for step in run.every(VolumeRestored)}
    words = []
    for volume, step in waiting.items():
        safety = step.safety
        state = "was put back whole" if volume in done else "holds a part of what was put back"
        state = "is empty" if volume in taken_out else state
        before = (
            f"what was there is in backup {safety}: safe-compose restore {shell_quote(safety)}"
            f" --volume {shell_quote(volume)}"
            if safety
            else ("a part of it was there before" if step.adds else "nothing was there before")
        )
        words.append(f"{describe_location(volume)} {state}; {before}")
    return [*words, f"or finish it: safe-compose {join_for_shell(run.command)}"] if words else []
