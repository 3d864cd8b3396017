"""The restore of files into a container's own layer.

A container that compose made again has none of them. They go back under their paths into the
container of the same service; what is there under the same name is backed up first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import LAYER, ONEOFF_LABEL, PROJECT_LABEL, SERVICE_LABEL, Container
from safe_compose.core.quantities import count, format_stamp
from safe_compose.core.text import shell_quote
from safe_compose.errors import OperationFailed, StateChanged, VerificationFailed
from safe_compose.fastpath.layer_data import find_data
from safe_compose.grammar.parser import parse
from safe_compose.operations.backup import manual, verify
from safe_compose.operations.recover.run import recover
from safe_compose.operations.restore import undo
from safe_compose.operations.restore.request import GivenAnswer, RestoreChoice
from safe_compose.operations.transaction import begin, locking
from safe_compose.ui import terminal
from safe_compose.volumes import gzip_stream
from safe_compose.volumes.layer_archive import LayerFiles, list_files, stream_back, stream_files
from safe_compose.volumes.tar import Member, read_members
from safe_compose.workspace import Workspace

LOCK_SECONDS = 60.0
MOST_COMPARED = 200
"""Most files that are looked for in the container; of more, some count as there."""
MOST_SINGLE = 64
"""Most files that are read back one by one; of more, the folders that hold them."""


@dataclass(frozen=True, slots=True)
class LayerRestorePlan:
    """A plan to restore one layer, after one inspection."""

    backup: Backup
    record: VolumeRecord
    container: Container
    entries: tuple[Member, ...]
    """What the archive holds, folders first."""
    replaces: bool
    """Whether something is there now under one of the names."""

    @property
    def files(self) -> tuple[Member, ...]:
        """What the archive holds, without folders."""
        return tuple(entry for entry in self.entries if entry.type != "d")

    def lines(self) -> list[str]:
        """Return the plan as lines for people."""
        backup = self.backup
        return [
            f"from backup {backup.id} of {format_stamp(backup.created)}:"
            f" {count(len(self.files), 'file')} into container {self.container.name}",
            "  what is there under the same names is backed up, then replaced"
            if self.replaces
            else "  nothing is there under their names",
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
    rest = tuple(r.name for r in chosen if r.location != "layer")
    done: dict[str, Any] = {"backup": backup.id}
    if rest:
        done = undo.restore(workspace, backup, choice._replace(names=rest), answer)
    for plan in plans:
        for line in plan.lines():
            terminal.say(f"safe-compose: {line}")
        if not answer.dry_run:
            _confirm(plan, answer)
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
    folder = Path(backup.path)
    try:
        if (locked := gzip_stream.find_missing_key(folder, record)) is not None:
            raise locked
        with terminal.showing_progress(f"verify {record.name}") as report:
            verify.check_before_use(backup, record, report)
    except VerificationFailed as fault:
        workspace.catalogue.writer.mark_broken(backup, fault.message)
        raise
    container = _find_container(workspace, record)
    if container is None:
        absent = f"there is no container of {_describe_origin(record)}: it has to be there first"
        again = f"safe-compose restore {backup.id} --volume {shell_quote(record.name)}"
        if named:
            raise StateChanged(
                f"{absent}; nothing was restored", next_step=f"{again} --into scratch"
            )
        terminal.say(f"safe-compose: {record.name} was left out: {absent}; then: {again}")
        return None
    entries = tuple(list_files(folder, record.artifacts))
    paths = [_to_path(entry) for entry in entries if entry.type != "d"]
    _require_free(container, paths)
    there = len(paths) > MOST_COMPARED or any(
        workspace.engine.layers.describe(container.id, path) for path in paths
    )
    return LayerRestorePlan(backup, record, container, entries, there)


def _require_free(container: Container, paths: Sequence[str]) -> None:
    """Check that nothing writes to what is replaced, and that no mount hides it.

    Raises:
        StateChanged: A running program may have a database open, or a mount is in the way.
    """
    data = find_data(paths)
    if container.lively and (data.sqlite or data.databases):
        name = shell_quote(container.name)
        raise StateChanged(
            f"container {container.name} runs, and may have a database open that would be replaced;"
            " nothing was restored",
            next_step=f"docker stop {name}, then repeat the command, then docker start {name}",
        )
    for mount in container.mounts:
        below = f"{mount.destination.rstrip('/')}/"
        if any(f"{path}/".startswith(below) for path in paths):
            raise StateChanged(
                f"container {container.name} has something mounted at {mount.destination} now:"
                " files of its layer would go there; nothing was restored",
                next_step="look at them in a volume of their own: --into scratch",
            )


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


def _confirm(plan: LayerRestorePlan, answer: GivenAnswer) -> None:
    """Have the phrase typed where something is replaced, or take it from the flags.

    Raises:
        Refused: It does not match, or nobody may be asked.
    """
    unvouched = plan.backup.unsigned_from is not None
    if not plan.replaces and not unvouched:
        return
    terminal.ask_phrase(
        "To write them",
        plan.container.name,
        answer.phrase,
        ask=answer.may_ask,
        nothing="nothing was restored",
        why=f"files in container {plan.container.name} would be replaced",
    )


def _carry_out(workspace: Workspace, plan: LayerRestorePlan) -> None:
    """Back up what is replaced, write the files, and read them back.

    Raises:
        OperationFailed: They could not be written, or are not what the archive holds.
    """
    if plan.replaces:
        _back_up_current(workspace, plan)
    engine, identity, folder = workspace.engine, plan.container.id, Path(plan.backup.path)
    project = plan.record.labels.get(PROJECT_LABEL, plan.backup.project)
    command = ("restore", plan.backup.id, "--volume", plan.record.name)
    with locking(workspace, [project], ("restore",), wait=LOCK_SECONDS):
        run = begin(workspace, command, project=project, run_id=workspace.journal.new_id())
        outcome = f"{plan.record.name} was not restored completely: repeat the command"
        try:
            there = {
                entry.path
                for entry in plan.entries
                if entry.type == "d" and engine.layers.is_folder(identity, _to_path(entry))
            }
            with terminal.showing_progress(f"restore {plan.record.name}"):
                engine.layers.write(identity, stream_back(folder, plan.record.artifacts, there))
            _compare(workspace, plan)
            outcome = f"{plan.record.name} restored"
        finally:
            with terminal.reporting_only():
                run.step("ended", outcome=outcome)
    terminal.say(
        f"safe-compose: {count(len(plan.files), 'file')} of {plan.record.name} are back in"
        f" container {plan.container.name}; give them a volume, or they go with it again"
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
    terminal.say(f"safe-compose: what is there now is in backup {safety.id}")


def _compare(workspace: Workspace, plan: LayerRestorePlan) -> None:
    """Check that the container holds each file of the archive with its size, owner and mode.

    Raises:
        OperationFailed: One is missing or differs.
    """
    wanted = {entry.path: entry for entry in plan.files}
    paths = {_to_path(entry) for entry in plan.files}
    found: dict[bytes, Member] = {}
    folders = {path.rpartition("/")[0] or path for path in paths}
    roots = sorted(paths if len(paths) <= MOST_SINGLE else folders)
    tops = tuple(r for r in roots if not any(r != q and r.startswith(f"{q}/") for q in roots))
    files = LayerFiles(tops, paths)
    for member in read_members(stream_files(workspace.engine, plan.container.id, files)):
        if member.type != "d":
            found[member.path] = member
    for path, entry in wanted.items():
        now = found.get(path)
        if now is not None and now.type == "h":
            now = found.get(now.link)
        if now is None or now[1:5] != entry[1:5]:
            raise OperationFailed(
                f"{path.decode('utf-8', 'replace')!r} in container {plan.container.name} is not"
                " what the archive holds",
                next_step="repeat the command",
            )


def _to_path(entry: Member) -> str:
    return "/" + entry.path.decode("utf-8", "surrogateescape")
