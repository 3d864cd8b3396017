"""The restore of files into a container's own layer.

A container that compose made again has none of them. They go back under their paths into the
container of the same service; what is there under the same name is backed up first.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import LAYER, ONEOFF_LABEL, PROJECT_LABEL, SERVICE_LABEL, Container
from safe_compose.core.quantities import count, format_stamp
from safe_compose.core.text import shell_quote
from safe_compose.errors import StateChanged
from safe_compose.grammar.parser import parse
from safe_compose.operations.backup import manual, verify
from safe_compose.operations.backup.omissions import report_incomplete
from safe_compose.operations.layer_changes import LISTING_SECONDS, inspect_layers
from safe_compose.operations.layer_files import require_free, require_no_log, write_files
from safe_compose.operations.recover.run import recover
from safe_compose.operations.restore import undo
from safe_compose.operations.restore.request import LOCK_SECONDS, GivenAnswer, RestoreChoice
from safe_compose.operations.transaction import begin, locking
from safe_compose.ui import terminal
from safe_compose.volumes.layer_archive import list_files
from safe_compose.volumes.tar import Member
from safe_compose.workspace import Workspace


@dataclass(frozen=True, slots=True)
class LayerRestorePlan:
    """A plan to restore one layer, after one inspection."""

    backup: Backup
    record: VolumeRecord
    container: Container
    entries: tuple[Member, ...]
    """What the archive holds, folders first."""
    replaces: bool
    """Whether the container has data of its own now, and something under one of the names."""

    @property
    def files(self) -> tuple[Member, ...]:
        """What the archive holds, without folders."""
        return tuple(entry for entry in self.entries if entry.type != "d")

    @property
    def needs_phrase(self) -> bool:
        """Whether a person has to type the phrase."""
        return self.replaces or self.backup.unsigned_from is not None

    def lines(self) -> list[str]:
        """Return the plan as lines for people."""
        backup = self.backup
        return [
            f"from backup {backup.id} of {format_stamp(backup.created)}:"
            f" {count(len(self.files), 'file')} into container {self.container.name}",
            "  what is there under the same names is backed up, then replaced"
            if self.replaces
            else "  no data of the container is there under their names",
        ]

    def shape(self) -> dict[str, Any]:
        """Return the plan for `--json`."""
        return {
            "name": self.record.name,
            "into": self.container.name,
            "from": "archive",
            "action": "replaced" if self.replaces else "added",
            "files": len(self.files),
        }


def restore(
    workspace: Workspace, backup: Backup, choice: RestoreChoice, answer: GivenAnswer
) -> dict[str, Any]:
    """Restore a backup, layers of containers after everything else, and return the result.

    With `--into` a layer becomes a volume, as everything else does.

    Raises:
        Refused: It was not confirmed.
        StateChanged: A container is not there, or uses a database that would be replaced.
        OperationFailed: A part of a layer could not be written.
    """
    chosen = [r for r in backup.volumes if not choice.names or r.name in choice.names]
    layers = [r for r in chosen if r.location == "layer"] if choice.into is None else []
    held = {r.name for r in backup.volumes}
    if not layers or not held.issuperset(choice.names):
        return undo.restore(workspace, backup, choice, answer)
    undo.require_usable(workspace, backup, elsewhere=choice.source is not None)
    if not answer.dry_run:
        recover(workspace.engine, workspace.catalogue, workspace.journal, own_run=workspace.run_id)
    plans = [
        plan for r in layers if (plan := _plan(workspace, backup, r, named=bool(choice.names)))
    ]
    for line in (line for plan in plans for line in plan.lines()):
        terminal.say(f"safe-compose: {line}")
    rest = tuple(r.name for r in chosen if r.location != "layer")
    done: dict[str, Any] = {"backup": backup.id}
    if rest:
        # One phrase is for all: a single --confirm answers it.
        done = undo.restore(
            workspace,
            backup,
            choice._replace(names=rest),
            answer,
            confirmed=lambda of_rest: _confirm(
                [] if of_rest.needs_phrase else plans, answer, of_rest.phrase
            ),
        )
    elif not answer.dry_run:
        _confirm(plans, answer)
    for plan in plans if not answer.dry_run else ():
        _carry_out(workspace, plan)
    shapes = [plan.shape() for plan in plans]
    return {**done, "layers": shapes, **({"dry_run": True} if answer.dry_run else {})}


def _plan(
    workspace: Workspace, backup: Backup, record: VolumeRecord, *, named: bool
) -> LayerRestorePlan | None:
    """Read the archive, find the container, and return the plan; None where it is left out.

    Raises:
        StateChanged: The container is not there, or its server or program uses the data.
        VerificationFailed: The backup is damaged.
    """
    with (
        verify.marking_damage(workspace.catalogue, backup),
        terminal.showing_progress(f"verify {record.name}") as report,
    ):
        verify.check_before_use(backup, record, report)
    container = _find_container(workspace, record)
    if container is None:
        absent = f"there is no container of {_describe_origin(record)}: it has to be there first"
        if named:
            raise StateChanged(
                f"{absent}; nothing was restored",
                next_step=(
                    f"safe-compose restore {backup.id} --volume {shell_quote(record.name)} --into"
                    " scratch"
                ),
            )
        terminal.say(
            f"safe-compose: {record.name} was left out: {absent}; then: safe-compose restore"
            f" {backup.id} --volume {shell_quote(record.name)}"
        )
        return None
    with verify.marking_damage(workspace.catalogue, backup):
        entries = tuple(list_files(Path(backup.path), record.artifacts))
    require_free(container, entries, "nothing was restored")
    return LayerRestorePlan(
        backup, record, container, entries, _is_data_there(workspace, container, entries)
    )


def _is_data_there(workspace: Workspace, container: Container, entries: Sequence[Member]) -> bool:
    """Return whether the container has data, and changed one of the files.

    What only its image brought there is in the image. Where that is unknown, there is some.
    """
    [now] = inspect_layers(workspace.engine, [container], time.monotonic() + LISTING_SECONDS)
    if now.unread:
        return True
    # The engine's list is in UTF-8, and has another character in place of each byte that is not.
    changed = {path.encode("utf-8", "surrogatepass") for path in now.changed}
    touched = any(
        b"/" + entry.path in changed or not _is_utf8(entry.path)
        for entry in entries
        if entry.type != "d"
    )
    return touched and not now.data.is_empty


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _find_container(workspace: Workspace, record: VolumeRecord) -> Container | None:
    """Return the container of the record, or the first one of its service that there is now."""
    user = record.users[0] if record.users else {}
    project, service = record.labels.get(PROJECT_LABEL), user.get("service")
    found = workspace.engine.docker.container(record.name.removeprefix(LAYER))
    if found is not None and found.project == project and found.service == (service or None):
        return found
    if not project or not service:
        return None
    theirs = (
        c
        for c in workspace.engine.docker.containers()
        if c.labels.get(PROJECT_LABEL) == project
        and c.labels.get(SERVICE_LABEL) == service
        and c.labels.get(ONEOFF_LABEL, "").lower() != "true"
    )
    return min(theirs, key=lambda c: c.name, default=None)


def _describe_origin(record: VolumeRecord) -> str:
    user = record.users[0] if record.users else {}
    if user.get("service"):
        return f"service {user['service']} of project {record.labels.get(PROJECT_LABEL, '?')}"
    return f"the name {record.name.removeprefix(LAYER)}"


def _confirm(
    plans: Sequence[LayerRestorePlan], answer: GivenAnswer, phrase: str | None = None
) -> None:
    """Have a phrase typed where something is replaced, or take it from the flags.

    Args:
        plans: All layers that are restored.
        answer: What the flags answer.
        phrase: The phrase; None: the name of the only container that is in question.

    Raises:
        Refused: It does not match, or nobody may be asked.
    """
    asked = [plan.container.name for plan in plans if plan.needs_phrase]
    if not asked:
        return
    where = ("container " if len(asked) == 1 else "containers ") + ", ".join(asked)
    terminal.ask_phrase(
        f"To write files into {where}",
        phrase or (asked[0] if len(asked) == 1 else f"replace {len(asked)} layers"),
        answer.phrase,
        ask=answer.may_ask,
        nothing="nothing was restored",
        why=f"files in {where} would be replaced",
    )


def _carry_out(workspace: Workspace, plan: LayerRestorePlan) -> None:
    """Back up what is replaced, write the files, and read them back.

    Raises:
        StateChanged: The container is not as it was for the plan.
        OperationFailed: They could not be written, or are not what the archive holds.
    """
    if plan.replaces:
        _back_up_current(workspace, plan)
    folder = Path(plan.backup.path)
    name = plan.record.name
    project = plan.record.labels.get(PROJECT_LABEL, plan.backup.project)
    command = ("restore", plan.backup.id, "--volume", name)
    with locking(workspace, [project], ("restore",), wait=LOCK_SECONDS):
        _require_unchanged(workspace, plan)
        run = begin(workspace, command, project=project, run_id=workspace.journal.new_id())
        outcome = f"{name} was not restored completely: repeat the command"
        try:
            run.step(
                "writing-layer",
                volume=name,
                container=plan.container.id,
                backup=plan.backup.id,
            )
            artifacts = plan.record.artifacts
            with terminal.showing_progress(f"restore {name}"):
                write_files(workspace.engine, plan.container, folder, artifacts, plan.entries)
            outcome = f"{name} restored"
        finally:
            with terminal.reporting_only():
                run.step("ended", outcome=outcome)
    one = len(plan.files) == 1
    terminal.say(
        f"safe-compose: {count(len(plan.files), 'file')} of {name} {'is' if one else 'are'} back in"
        f" container {plan.container.name}; give {'it' if one else 'them'} a volume, or"
        f" {'it goes' if one else 'they go'} with the container again"
    )


def _require_unchanged(workspace: Workspace, plan: LayerRestorePlan) -> None:
    """Check that the container can still be written to, as the plan says.

    Raises:
        StateChanged: It is gone, is in use, or got data that was not backed up.
    """
    nothing, name = f"{plan.record.name} was not restored", plan.container.name
    now = workspace.engine.docker.container(plan.container.id)
    if now is None:
        raise StateChanged(
            f"container {name} is not there any more; {nothing}", next_step="repeat the command"
        )
    require_free(now, plan.entries, nothing)
    require_no_log(workspace.engine, now, plan.entries, nothing)
    if not plan.replaces and _is_data_there(workspace, now, plan.entries):
        raise StateChanged(
            f"container {name} has got data under the names that would be written; {nothing}",
            next_step="repeat the command",
        )


def _back_up_current(workspace: Workspace, plan: LayerRestorePlan) -> None:
    """Back up what the layer of the container holds now.

    Raises:
        OperationFailed: That failed; nothing was restored.
    """
    project = plan.container.project or ""
    invocation = parse(["compose", "--project-name", project, "down"])
    safety = manual.back_up(
        workspace,
        invocation,
        names=(f"{LAYER}{plan.container.name}",),
        wait=LOCK_SECONDS,
        reason="pre-restore",
    )
    if (fault := report_incomplete(safety)) is not None:
        raise fault
    terminal.say(f"safe-compose: what is there now is in backup {safety.id}")
