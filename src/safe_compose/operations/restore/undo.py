"""`undo` of the last destructive command, and `restore` of a backup.

The order is: inspect, show the plan, read the whole backup, ask, lock, inspect again, back up what
is there, stop, clear, fill, start, count. A fault or a signal rolls back to the earlier content;
after a kill, `recover` does. Data is never overwritten without a backup, and never left half
restored.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import Observed, describe_location
from safe_compose.core.quantities import format_stamp
from safe_compose.core.relocation import SCRATCH, list_inspection_commands, plan_relocation
from safe_compose.core.text import shell_quote
from safe_compose.engine import Engine, read_declared_mounts
from safe_compose.errors import Refused, UsageError
from safe_compose.operations.outcome import list_earlier_losses
from safe_compose.operations.recover.run import recover
from safe_compose.operations.restore import services
from safe_compose.operations.restore.confirmation import require_confirmation, require_trusted
from safe_compose.operations.restore.deletion import find_deletion, list_recorded, open_same_engine
from safe_compose.operations.restore.execute import RestoreRun, restoring
from safe_compose.operations.restore.extensions import find_missing
from safe_compose.operations.restore.logins import try_logins
from safe_compose.operations.restore.plan import (
    RecordedVolumes,
    RestorePlan,
    find_successor,
    make_plan,
)
from safe_compose.operations.restore.request import GivenAnswer, RestoreChoice
from safe_compose.operations.restore.statistics import compare_statistics, summarize
from safe_compose.operations.restore.target import RestoreTarget
from safe_compose.operations.restore.volumes import fill
from safe_compose.operations.trash import Trash, TrashItem
from safe_compose.store.catalogue.checks import is_service
from safe_compose.store.run_record import RunRecord
from safe_compose.store.steps import Trashed
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace

# -- undo and restore ------------------------------------------------------------------------------


def undo(workspace: Workspace, *, project: str | None, answer: GivenAnswer) -> dict[str, Any]:
    """Restore what the last guarded command destroyed, and return the result as JSON.

    Its `logins` and `missing_extensions` are objects: `require_logins` and `require_extensions`
    judge them once the result is shown.

    Volumes get their name, driver, options, labels and content, and the services that ran are
    started. Nothing is asked unless current content would be replaced: that is then kept as a
    safety backup, and the phrase is required.

    Args:
        workspace: The workspace.
        project: The project; None for that of the current folder.
        answer: What the flags answer.

    Raises:
        UsageError: There is no deletion that could be undone.
        Refused: It cannot be undone, or it was not confirmed.
        StateChanged: The volumes are in use or changed.
        VerificationFailed: The backup is damaged.
        OperationFailed: It failed and was rolled back.
        EngineUnavailable: The deletion happened on another engine.
    """
    if not answer.dry_run:
        recover(workspace.engine, workspace.catalogue, workspace.journal, own_run=workspace.run_id)
    deletion = find_deletion(workspace, project)
    engine = open_same_engine(workspace, deletion)
    plan = _plan_undo(workspace, engine, deletion)
    _tell_undo(workspace, deletion, plan)
    lost = _list_lost(deletion, plan.backup)
    if answer.dry_run:
        _tell_lost(lost)
        return {**_show_plan(plan), "not_restored": lost}
    require_confirmation(workspace, plan, answer)
    with restoring(
        workspace, plan, ("undo", *(("--project", project) if project else ())), undoes=deletion.id
    ) as restore_run:
        restore_run.restore_all()
        restore_run.settle()
        _move_in(restore_run, deletion)
        started = services.start(workspace, engine, deletion, plan)
    return {
        **restore_run.outcome(),
        "services": started,
        "not_restored": lost,
        **_examine(restore_run, lost),
    }


def _plan_undo(workspace: Workspace, engine: Engine, deletion: RunRecord) -> RestorePlan:
    """Return the plan that brings back what a deletion took, from its backup or from the trash.

    Raises:
        Refused: It is in neither, or the plan is impossible.
    """
    trash = Trash(engine, workspace.journal)
    items = trash.list_of_run(deletion.id)
    if deletion.backup is not None:
        backup = workspace.catalogue.reader.find(deletion.backup)
    elif items:
        backup = trash.make_backup(list(items.values()))
    else:
        raise Refused(
            "it went into the trash without a backup, and is not there any more; nothing can be"
            " undone"
        )
    command = services.find_command(workspace, deletion)
    _, declared = (
        read_declared_mounts(command, dict(os.environ), deletion.cwd) if command else ("", ())
    )
    records = [r for r in backup.volumes if r.name in deletion.taken]
    recorded = RecordedVolumes(list_recorded(deletion), deletion.taken_in_part)
    return make_plan(
        engine, backup, records, declared, trash=_list_trashed(items), recorded=recorded
    )


def _tell_undo(workspace: Workspace, deletion: RunRecord, plan: RestorePlan) -> None:
    """Report which deletion is undone, and what was lost before."""
    terminal.say(
        f"safe-compose: undo of '{deletion.program} {' '.join(deletion.command)}'"
        f" ({format_stamp(deletion.started)})"
    )
    for line in list_earlier_losses(workspace.journal, plan.engine.id, deletion.taken, deletion.id):
        terminal.say(f"safe-compose: {line}")


_DISPOSABLE = "in no backup, because disposable"
_EMPTIED = "not in the trash any more"


def _list_lost(deletion: RunRecord, backup: Backup) -> list[dict[str, str]]:
    """Return the deleted volumes that `undo` cannot bring back, each with the reason."""
    trashed = {step.volume for step in deletion.every(Trashed)}
    lost = deletion.taken - {r.name for r in backup.volumes}
    return [
        {"name": name, "why": _EMPTIED if name in trashed else _DISPOSABLE} for name in sorted(lost)
    ]


def _tell_lost(lost: Sequence[Mapping[str, str]]) -> None:
    for why in (_DISPOSABLE, _EMPTIED):
        if names := [one["name"] for one in lost if one["why"] == why]:
            terminal.say(f"safe-compose: {why}: {', '.join(names)}")


def _examine(restore_run: RestoreRun, lost: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """Return what the servers on restored volumes hold, lack, and whether they let clients in.

    The last lines say what is not back, and what is.
    """
    statistics = compare_statistics(restore_run)
    engine, homes = restore_run.plan.engine, _list_homes(restore_run)
    logins = try_logins(engine, homes)
    missing = find_missing(engine, homes)
    if restore_run.plan.relocation is None:
        with terminal.reporting_only():
            words = summarize(restore_run, statistics, lost=len(lost))
            _tell_lost(lost)
            terminal.say(f"safe-compose: {words}")
    return {"statistics": statistics, "logins": logins, "missing_extensions": missing}


def restore(
    workspace: Workspace,
    backup: Backup,
    choice: RestoreChoice,
    answer: GivenAnswer,
    *,
    confirmed: Callable[[RestorePlan], None] | None = None,
) -> dict[str, Any]:
    """Restore the volumes of a backup, and return the result as JSON.

    What runs on them is stopped and started again.

    Args:
        workspace: The workspace.
        backup: The backup.
        choice: What goes where.
        answer: What the flags answer.
        confirmed: Called with the confirmed plan before anything is written; it may refuse.

    Raises:
        UsageError: The backup does not hold such a volume.
        Refused: It cannot be restored, or it was not confirmed.
        StateChanged: The volumes are in use or changed.
        VerificationFailed: The backup is damaged.
        OperationFailed: It failed and was rolled back.
    """
    _require_held(workspace, backup, choice.names)
    require_trusted(backup)
    _tell_lacking(workspace, backup, choice.names)
    if not answer.dry_run:
        recover(workspace.engine, workspace.catalogue, workspace.journal, own_run=workspace.run_id)
    plan = _plan_restore(workspace, backup, choice)
    if answer.dry_run:
        return _show_plan(plan)
    require_confirmation(workspace, plan, answer)
    if confirmed is not None:
        confirmed(plan)
    with restoring(workspace, plan, choice.command(backup.id)) as restore_run:
        restore_run.with_settings = choice.settings
        restore_run.restore_all()
        restore_run.settle()
    if choice.into == SCRATCH:
        _tell_how_to_look(restore_run)
    return {
        **restore_run.outcome(),
        "lacking": [o.name for o in backup.lacking],
        **_examine(restore_run),
    }


def _plan_restore(workspace: Workspace, backup: Backup, choice: RestoreChoice) -> RestorePlan:
    project, declared = read_declared_mounts((workspace.docker, "compose"), dict(os.environ))
    records = [r for r in backup.volumes if not choice.names or r.name in choice.names]
    relocation = None
    if choice.into is not None:
        ids: dict[str, Any] = {
            "backup_id": backup.id,
            "project": backup.project,
            "token": workspace.run_id[-6:],
        }
        relocation = plan_relocation(choice.into, records, **ids, here=project, declared=declared)
        records = list(relocation.records)
    plan = make_plan(
        workspace.engine,
        backup,
        records,
        declared if relocation or project == backup.project else (),
        relocation,
        _list_trashed(choice.trash),
    )
    other_engine = backup.engine_id != workspace.engine.id and choice.source is None
    return replace(plan, of_other_engine=other_engine)


def _require_held(workspace: Workspace, backup: Backup, names: Sequence[str]) -> None:
    """Check that a backup holds these volumes.

    Raises:
        UsageError: It does not hold one of them.
    """
    if missing := sorted(set(names) - {r.name for r in backup.volumes}):
        names = ", ".join(map(describe_location, missing))
        raise UsageError(
            f"backup {backup.id} does not hold {names}{_explain_missing(backup, missing)}; nothing"
            " was restored",
            next_step=_suggest_other_backup(workspace, backup, missing)
            or f"safe-compose show {backup.id}",
        )


def _tell_lacking(workspace: Workspace, backup: Backup, names: Sequence[str]) -> None:
    """Report each location that matters and is not in a backup, and which backup holds it."""
    for omission in backup.omitted if not names else ():
        matters = omission.kind == "volume" and omission.tier not in ("", "disposable")
        if matters or (omission.lacking and omission.kind != "database"):
            other = _suggest_other_backup(workspace, backup, [omission.name])
            where = f"to restore it too: {other}" if other else "no verified backup holds it"
            what = "is PARTIAL" if omission.lacking else "does not hold all"
            terminal.say(
                f"safe-compose: backup {backup.id} {what}: {describe_location(omission.name)} is"
                f" not in it ({omission.reason}) and is not restored; {where}"
            )


def _explain_missing(backup: Backup, missing: Sequence[str]) -> str:
    reasons = [f"{o.name}: {o.reason}" for o in backup.omitted if o.name in missing]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _suggest_other_backup(
    workspace: Workspace, backup: Backup, missing: Sequence[str]
) -> str | None:
    """Return the command that restores the first of these volumes from its newest backup.

    Returns:
        The command; None when no verified backup holds it.
    """
    other = workspace.catalogue.reader.find_newest(backup.engine_id, missing[:1]).get(missing[0])
    return (
        f"safe-compose restore {other.id} --volume {shell_quote(missing[0])}"
        if other is not None
        else None
    )


def _tell_how_to_look(restore_run: "RestoreRun") -> None:
    for target in restore_run.plan.targets:
        terminal.say(
            f"safe-compose: nothing was started on {target.into}. To inspect it, then to delete it:"
        )
        recorded = next(
            (
                u["image"]
                for u in target.record.users
                if restore_run.plan.engine.docker.image(u["image"])
            ),
            "busybox",
        )
        for line in list_inspection_commands(target.record, target.into, recorded):
            terminal.say(f"  {line}")


def require_usable(workspace: Workspace, backup: Backup, *, elsewhere: bool = False) -> None:
    """Check that a backup can be restored on this engine.

    Args:
        workspace: The workspace.
        backup: The backup.
        elsewhere: It was fetched from off-site, so it may be of another engine.

    Raises:
        VerificationFailed: It is broken.
        Refused: It is of another engine.
    """
    require_trusted(backup)
    if backup.engine_id != workspace.engine.id and elsewhere:
        terminal.say(
            f"safe-compose: backup {backup.id} was made on another engine ({backup.endpoint}); it"
            " is restored to this one"
        )
    elif backup.engine_id != workspace.engine.id:
        raise Refused(
            f"backup {backup.id} was made on another engine ({backup.endpoint}); nothing was"
            " restored",
            next_step=(
                "set DOCKER_HOST or DOCKER_CONTEXT to that engine; or restore the whole of it to"
                f" this one: safe-compose restore {backup.id}"
            ),
        )


def _list_trashed(trash: Mapping[str, TrashItem] | None) -> dict[str, str]:
    return {name: item.volume for name, item in (trash or {}).items()}


def _show_plan(plan: RestorePlan) -> dict[str, Any]:
    return {**plan.shape(), "dry_run": True, "plan": list(plan.lines())}


# -- anonymous volumes -----------------------------------------------------------------------------


def _move_in(restore_run: RestoreRun, deletion: RunRecord) -> None:
    """Move the content of anonymous volumes into their successors.

    The content was restored under old names that no container asks for any more. The new volumes
    are those of the same service, replica and path; their containers are created for that, and not
    started. What cannot be moved stays under its old name, and is reported.
    """
    waiting = [
        t
        for t in restore_run.plan.targets
        if t.record.anonymous and t.current is None and t.into == t.record.name
    ]
    if not waiting:
        return
    wanted = sorted(
        {s for t in waiting for u in t.record.users if (s := u.get("service")) and is_service(s)}
    )
    for service in wanted:  # one by one, because one may be gone from the compose file
        services.run_compose(
            restore_run.workspace, deletion, "up", "--no-start", "--no-deps", service
        )
    observed = restore_run.plan.engine.commands.look()
    for target in waiting:
        with terminal.reporting_only():
            _move_one(restore_run, target, observed)
        places = (
            ", ".join(f"{u.get('container')}:{u.get('destination')}" for u in target.record.users)
            or "no container"
        )
        if new := restore_run.homes.get(target.into):
            terminal.say(
                f"safe-compose: the anonymous volume of {places} is {new} now, with the old content"
            )
        else:
            terminal.say(
                f"safe-compose: the anonymous volume of {places} is back under its old name"
                f" {target.into}, but no container uses it: copy from it what you need"
            )


def _move_one(restore_run: RestoreRun, target: RestoreTarget, observed: Observed) -> None:
    # Without a name, because the old name exists again and its successor is wanted.
    nameless = replace(target.record, name="")
    into = find_successor(nameless, observed, restore_run.plan.backup.project)
    if into is None or any(u.lively for u in observed.users(into)):
        return
    # The image has just put files there.
    fill(
        restore_run.plan,
        restore_run.run,
        target,
        into,
        empty_first=True,
        with_settings=restore_run.with_settings,
    )
    restore_run.homes[target.into] = into
    restore_run.run.step("moved", volume=target.into, into=into)
    restore_run.plan.engine.docker.remove_volume(target.into)


def _list_homes(restore_run: RestoreRun) -> list[tuple[VolumeRecord, str]]:
    """Return each restored record with the volume that has its content now."""
    homes = restore_run.homes
    return [(t.record, homes.get(t.into, t.into)) for t in restore_run.plan.targets]
