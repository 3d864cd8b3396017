"""The refill of volumes in memory whose content a killed run lost."""

from collections.abc import Sequence
from typing import NamedTuple

from safe_compose.core.observed import HELPER_LABEL, KEEPS_LABEL
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.errors import SafeComposeError, UsageError, VerificationFailed
from safe_compose.operations.backup import verify
from safe_compose.operations.recover.killed_run import KilledRun
from safe_compose.operations.recover.rollback import add_heartbeat, find_safety_backup, is_helper
from safe_compose.operations.stopped_containers import ContainerState
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.steps import RestoringVolume
from safe_compose.ui import terminal
from safe_compose.volumes import encryption, extraction
from safe_compose.volumes.engine_location import EngineLocation


class Refill(NamedTuple):
    """A result of filling volumes in memory that a dead run released or was about to refill."""

    words: list[str]
    waiting: frozenset[str]
    """The ids of the containers that must not start, because a volume could not be filled."""
    complete: bool
    """Whether nothing has to be tried again."""


def refill(killed: KilledRun, left: Sequence[ContainerState]) -> Refill:
    """Fill the volumes in memory of containers that are to start, if the run lost their content."""
    run, lines, waiting, complete = killed.record, [], set(), True
    for name, users in _list_users(killed, left).items():
        volume = killed.engine.docker.volume(name)
        if volume is None or not volume.in_memory or _has_outlived(killed, name):
            continue
        step = run.half_refilled.get(name)
        try:
            lines.append(_refill_one(killed, name, step.backup if step is not None else run.backup))
        except SafeComposeError as fault:
            waiting |= {was.id for was in users}
            lines.append(
                f"volume {name}, whose content is kept in memory, is not filled again:"
                f" {fault.message}"
            )
            names = [was.name for was in users]
            if isinstance(fault, encryption.KeyMissing):
                lines.append(
                    f"left stopped until then: {', '.join(names)}; with the key: safe-compose"
                    " recover --identity FILE"
                )
            elif isinstance(fault, UsageError | VerificationFailed):  # nor will it ever be
                lines.append(
                    f"left stopped because of it: {', '.join(names)}; to start on it as it is:"
                    f" docker start {join_for_shell(names)}"
                )
                continue
            complete = False
    return Refill(lines, frozenset(waiting), complete)


def _list_users(
    killed: KilledRun, left: Sequence[ContainerState]
) -> dict[str, list[ContainerState]]:
    """Return volume -> the containers on it, without volumes that were to get other content."""
    users: dict[str, list[ContainerState]] = {}
    for was in left:
        now = killed.engine.docker.container(was.id)
        for name in sorted(now.volume_names()) if now is not None else ():
            users.setdefault(name, []).append(was)
    for step in killed.record.every(RestoringVolume):
        users.pop(step.volume, None)
    return users


def _has_outlived(killed: KilledRun, volume: str) -> bool:
    """Return whether a volume in memory still has its content.

    It does when a container of the run has kept it mounted and no refill of it was begun.
    """
    run = killed.record
    if volume in run.half_refilled:
        return False
    return any(
        c.state == "running"
        and is_helper(c)
        and (c.labels.get(KEEPS_LABEL), c.labels.get(HELPER_LABEL)) == (volume, run.id)
        for c in killed.engine.docker.users(volume)
    )


def _is_left_out(catalogue: Catalogue, backup: str, volume: str) -> bool:
    """Return whether a backup that says what it holds does not hold a volume, as a disposable one.

    Raises:
        UsageError: The backup is gone.
    """
    held = {record.name for record in catalogue.reader.find(backup).volumes}
    return bool(held) and volume not in held


def _refill_one(killed: KilledRun, volume: str, backup: str | None) -> str:
    """Fill one volume in memory and describe the result, or why it is left as it is.

    Raises:
        UsageError: Its backup is gone or cannot be opened.
        VerificationFailed: Its backup is damaged.
        SafeComposeError: It could not be filled.
    """
    engine, catalogue, run = killed.engine, killed.catalogue, killed.record
    if on := [c.name for c in engine.docker.users(volume) if c.lively and not is_helper(c)]:
        words = (
            f"volume {volume}, whose content is kept in memory, was emptied, and {on[0]} has been"
            " started on it since"
        )
        command = f"safe-compose restore {shell_quote(backup or '')} --volume {shell_quote(volume)}"
        return f"{words}; its content is in backup {backup}: {command}" if backup else words
    if backup is None or (
        volume not in run.half_refilled and _is_left_out(catalogue, backup, volume)
    ):
        return (
            f"volume {volume} keeps its content in memory, and was unmounted without a copy of it:"
            " it is empty"
        )
    folder, record = find_safety_backup(catalogue, backup, volume)
    verify.check_before_use(catalogue.reader.find(backup), record)
    with killed.locking({run.project or "volumes"} | run.projects):
        again = killed.journal.reopen(run.id)
        again.step("refilling", volume=volume, backup=backup)
        engine.mounts.keep([volume])
        with terminal.showing_progress(f"fill {volume} again") as report:
            extraction.clear(EngineLocation(engine, volume))
            extraction.extract(
                EngineLocation(engine, volume),
                folder,
                record.artifacts,
                add_heartbeat(again, volume, report),
            )
        again.step("refilled", volume=volume)
    return (
        f"volume {volume}, whose content is kept in memory, was filled again from backup {backup}"
    )
