"""The checks before a restore: whether it can work, the whole backup read, and the typed phrase."""

import os
from pathlib import Path

from safe_compose.core.backup import Backup
from safe_compose.core.observed import describe_location
from safe_compose.core.quantities import format_size
from safe_compose.core.redaction import HIDDEN
from safe_compose.core.text import shell_quote
from safe_compose.errors import OperationFailed, Refused, StateChanged, VerificationFailed
from safe_compose.operations.backup import verify
from safe_compose.operations.restore.plan import RestorePlan
from safe_compose.operations.restore.request import GivenAnswer
from safe_compose.operations.restore.target import RestoreTarget
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace


def require_confirmation(workspace: Workspace, plan: RestorePlan, answer: GivenAnswer) -> None:
    """Show the plan, check that it can work, read the backup completely, and ask for the phrase.

    The phrase is asked only if one is needed.

    Raises:
        Refused: The plan cannot work, or it was not confirmed.
        StateChanged: A container that may not be stopped uses a volume.
        OperationFailed: The engine's disk is too small.
        VerificationFailed: The backup is damaged.
    """
    for line in plan.lines(brief=not plan.needs_phrase):
        terminal.say(f"safe-compose: {line}")
    require_possible(plan)
    _read_whole(workspace, plan)
    if plan.needs_phrase:
        _confirm(plan, answer)


def require_possible(plan: RestorePlan) -> None:
    """Check that the plan can work.

    Raises:
        OperationFailed: The engine's disk is too small.
        Refused: A volume needs a secret that no backup holds.
        StateChanged: A container that may not be stopped uses a volume.
    """
    _require_free_space(plan)
    for target in plan.targets:
        if any(HIDDEN in value for value in target.record.options.values()):
            name = target.record.name
            raise Refused(
                f"volume {name} was made with a password among its driver options, which no backup"
                " holds; nothing was restored",
                next_step=(
                    f"make it yourself with its options, then safe-compose restore {plan.backup.id}"
                    f" --volume {shell_quote(name)}"
                ),
            )
        _refuse_second_primary(plan, target)
    for user in plan.users():
        other_project = user.project is not None and user.project not in plan.projects
        if other_project or user.auto_remove:
            why = (
                f"of project {user.project} runs"
                if other_project
                else "was started with --rm and runs"
            )
            raise StateChanged(
                f"container {user.name} {why} on a volume that would be written; nothing was"
                " restored",
                next_step=f"stop it first: docker stop {shell_quote(user.name)}",
            )


def _refuse_second_primary(plan: RestorePlan, target: RestoreTarget) -> None:
    """Refuse to make a server of its own, in its own place, of what followed another server.

    Raises:
        Refused: The service would be a second server that everybody may write to.
    """
    statistics, name = target.record.statistics, target.record.name
    if statistics is None or not statistics.is_standby or plan.relocation is not None:
        return
    if target.source in ("dump", "physical copy"):
        raise Refused(
            f"{describe_location(name)} is that of a standby, and its {target.source} makes a"
            " server of its"
            " own, which follows no primary and takes writes; nothing was restored",
            next_step=(
                "make the standby again from its primary (pg_basebackup); or, for its data alone,"
                f" safe-compose restore {plan.backup.id} --volume {shell_quote(name)} --into"
                " scratch"
            ),
        )


def _require_free_space(plan: RestorePlan) -> None:
    """Check that the engine's disk can take what an unvouched backup announces, if it is local.

    Our own backups are never refused for that, because a file system may compress.

    Raises:
        OperationFailed: It cannot.
    """
    if plan.backup.unsigned_from is None or not plan.engine.endpoint.startswith("unix://"):
        return
    new = [t for t in plan.targets if t.current is None and t.reach is None and not t.trash]
    need = sum(
        a.uncompressed_bytes
        for t in new
        for a in t.record.artifacts
        if a.kind in ("archive", "base", "database")
    )
    try:
        free = os.statvfs(Path(plan.engine.docker.volumes_folder()).parent)
    except OSError:
        return  # the engine's folder is not here, or may not be read
    left = free.f_bavail * free.f_frsize
    if need > left:
        raise OperationFailed(
            f"backup {plan.backup.id} announces {format_size(need)}, and {format_size(left)} are"
            " free where docker keeps its volumes; nothing was restored",
            next_step="make room there, or choose one with --volume NAME",
        )


def require_trusted(backup: Backup) -> None:
    """Check that a backup is not marked as broken.

    Raises:
        VerificationFailed: It is.
    """
    if backup.broken is not None:
        raise VerificationFailed(
            f"backup {backup.id} does not verify: {backup.broken}; nothing was touched",
            next_step="safe-compose list, then restore another one",
        )


def _read_whole(workspace: Workspace, plan: RestorePlan) -> None:
    """Read every file of the volumes before the first byte is written anywhere.

    Raises:
        VerificationFailed: The backup is damaged; it was marked.
    """
    copied = [target for target in plan.targets if not target.trash]
    if not copied:
        return
    require_trusted(plan.backup)
    with (
        verify.marking_damage(workspace.catalogue, plan.backup),
        terminal.showing_progress(f"verify {plan.backup.id}") as report,
    ):
        for target in copied:
            verify.check_before_use(plan.backup, target.record, report)


def _confirm(plan: RestorePlan, answer: GivenAnswer) -> None:
    """Have the phrase typed, or take it from the flags.

    Raises:
        Refused: It does not match, or nobody may be asked.
    """
    names = ", ".join(t.into for t in plan.occupied)
    reaching = ", ".join(f"{t.into} ({t.reach})" for t in plan.reaching)
    if reaching:
        question = f"To use what lies outside of the engine's own storage, {reaching}"
        what = f"{reaching} would reach outside of the engine's own storage"
    elif names:
        question, what = (
            f"To replace the content of {names}",
            f"the content of {names} would be replaced",
        )
    elif plan.unvouched:
        others = ", ".join(f"{t.into} of project {t.other_project}" for t in plan.unvouched)
        question, what = (
            f"To write {others}",
            f"{others} would be written from a backup that nobody vouches for",
        )
    else:
        question, what = (
            "To restore it to this engine",
            f"backup {plan.backup.id} was made on another engine",
        )
    terminal.ask_phrase(
        question,
        plan.phrase,
        answer.phrase,
        ask=answer.may_ask,
        nothing="nothing was restored",
        why=what,
    )
