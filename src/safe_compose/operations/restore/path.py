"""The restore of one file or folder from an archive into a volume, while its users continue.

It is extracted next to its place and renamed, so that nobody ever sees half of it. What was there
is kept under another name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import PROJECT_LABEL, describe_location
from safe_compose.core.quantities import count, format_stamp
from safe_compose.core.text import shell_quote
from safe_compose.core.volume_reach import describe_reach_of
from safe_compose.databases.registry import DATABASES, is_restored_alone
from safe_compose.engine import Engine
from safe_compose.errors import (
    Refused,
    SafeComposeError,
    StateChanged,
    UsageError,
)
from safe_compose.operations.backup import verify
from safe_compose.operations.recover.run import recover
from safe_compose.operations.restore.request import LOCK_SECONDS, GivenAnswer
from safe_compose.operations.transaction import begin, locking, transaction
from safe_compose.system.signals import ignoring_signals
from safe_compose.ui import terminal
from safe_compose.volumes import single_path
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.folder_swap import FolderState, inspect_folder
from safe_compose.workspace import Workspace


@dataclass(frozen=True, slots=True)
class PathRestorePlan:
    """A plan to restore one path, after one inspection."""

    backup: Backup
    record: VolumeRecord
    piece: single_path.SinglePath
    entries: int
    """The number of its files and folders in the backup."""
    existed: bool
    """Something is at that path now."""
    reach: str | None
    """Where the volume reaches outside of the engine's own storage, in words; None for nowhere."""
    owner: str
    """The project that the existing volume belongs to; empty for none."""

    @property
    def kept_as(self) -> str | None:
        """The name under which the current content is kept; None when there is none."""
        return self.piece.old_path if self.existed else None

    @property
    def unvouched(self) -> bool:
        """Whether the backup has no signature and the volume is not of its project."""
        return self.backup.unsigned_from is not None and self.owner != self.backup.project

    @property
    def needs_phrase(self) -> bool:
        """Whether a person has to type the phrase."""
        return self.existed or self.reach is not None or self.unvouched

    def lines(self) -> Iterator[str]:
        """Yield the plan as lines for people."""
        backup = self.backup
        yield (
            f"from backup {backup.id} of {format_stamp(backup.created)}: {self.piece.path}"
            f" ({count(self.entries, 'file or folder', 'files and folders')})"
        )
        where = describe_location(self.record.name)
        yield f"  into {where}, while what uses it goes on"
        yield (
            f"  what is there now stays as {self.kept_as}"
            if self.existed
            else "  nothing is there now"
        )
        if self.reach is not None:
            yield f"  REACHES OUTSIDE of the engine's own storage: {self.reach}"
        if self.unvouched:
            yield (
                f"  fetched without a signature from {backup.unsigned_from}; it is of"
                f" {self.owner or 'no project'}"
            )

    def shape(self) -> dict[str, Any]:
        """Return the plan for `--json`."""
        name = self.record.name
        return {
            "backup": self.backup.id,
            "volumes": [{"name": name, "into": name, "from": "archive", "action": "one path"}],
            "path": {"path": self.piece.path, "entries": self.entries, "kept_as": self.kept_as},
            "stops": [],
            "phrase": self.piece.path if self.needs_phrase else None,
        }


def restore(
    workspace: Workspace, backup: Backup, *, volume: str | None, path: str, answer: GivenAnswer
) -> dict[str, Any]:
    """Restore one path of one volume of a backup, and return the plan as JSON.

    Args:
        workspace: The workspace.
        backup: The backup.
        volume: The name of the volume; None if the backup has only one that qualifies.
        path: The path, relative to the root of the volume.
        answer: What the flags answer.

    Raises:
        UsageError: The path or the volume cannot be meant; nothing was restored.
        Refused: It is part of a database, or was not confirmed; nothing was restored.
        StateChanged: The volume or the folder does not exist, or a lock is held; nothing was
            restored.
        VerificationFailed: The backup is damaged; nothing was touched.
        OperationFailed: It failed and was rolled back.
    """
    record = _find_record(backup, volume)
    words = PurePosixPath(path)
    if words.is_absolute() or ".." in words.parts or not words.parts:
        raise UsageError(
            f"--path is relative to the root of the volume, as in uploads/one.jpg; not {path!r};"
            " nothing was restored"
        )
    if not answer.dry_run:
        recover(workspace.engine, workspace.catalogue, workspace.journal, own_run=workspace.run_id)
    plan = _make_plan(workspace, backup, record, words)
    for line in plan.lines():
        terminal.say(f"safe-compose: {line}")
    if answer.dry_run:
        return {**plan.shape(), "dry_run": True, "plan": list(plan.lines())}
    if plan.needs_phrase:
        _confirm(plan.piece.path, answer)
    _restore_planned(workspace, plan)
    tail = f"; the one before it is {plan.kept_as}" if plan.kept_as else ""
    terminal.say(f"safe-compose: {plan.piece.path} of {record.name} is back{tail}")
    return plan.shape()


def _make_plan(
    workspace: Workspace, backup: Backup, record: VolumeRecord, words: PurePosixPath
) -> PathRestorePlan:
    """Read the archive completely, inspect the destination, and return the plan.

    Raises:
        UsageError: The backup does not have the path.
        Refused: The path contains a SQLite database.
        StateChanged: The volume or the folder does not exist.
        VerificationFailed: The backup is damaged.
    """
    engine, path = workspace.engine, str(words)
    if record.location == "file":
        raise UsageError(
            f"{record.name} is a single file; nothing was restored", next_step="leave --path out"
        )
    count = _read(workspace, backup, record, path)
    if not _is_there(engine, record):
        raise StateChanged(
            f"{describe_location(record.name)} is not there; nothing was restored",
            next_step=(
                f"the whole of it: safe-compose restore {backup.id} --volume"
                f" {shell_quote(record.name)}"
            ),
        )
    piece = single_path.plan_path(EngineLocation(engine, record.name), path, workspace.run_id[-6:])
    if not piece.has_real_parent():
        raise StateChanged(
            f"the folder that {path} goes into is not there, or a link; nothing was restored",
            next_step=f"restore that folder: --path {shell_quote(str(words.parent))}",
        )
    existed = piece.exists()
    reach, owner = _describe_place(engine, backup, record)
    return PathRestorePlan(backup, record, piece, count, existed, reach, owner)


def _is_there(engine: Engine, record: VolumeRecord) -> bool:
    if record.location == "folder":
        state = inspect_folder(EngineLocation(engine, record.name))
        return state in (FolderState.FOLDER, FolderState.MOUNT)
    return engine.docker.volume(record.name) is not None


def _describe_place(engine: Engine, backup: Backup, record: VolumeRecord) -> tuple[str | None, str]:
    """Return where the location reaches outside of the engine's storage, and whose it is."""
    if record.location == "folder":
        owners = [user.project for user in engine.docker.users(record.name)]
        reach = "a folder of the engine's host"
        known = bool(owners) and backup.unsigned_from is None
        return None if known else reach, next((owner for owner in owners if owner), "")
    now = engine.docker.volume(record.name)
    owner = now.labels.get(PROJECT_LABEL, "") if now is not None else ""
    return describe_reach_of(record, now), owner


def _find_record(backup: Backup, volume: str | None) -> VolumeRecord:
    """Return the record of the volume that the path is in.

    Raises:
        UsageError: It is unclear which volume is meant, or none was archived.
        Refused: The volume holds a database.
    """
    having = [
        r
        for r in backup.volumes
        if volume in (None, r.name) and any(a.kind == "archive" for a in r.artifacts)
    ]
    if volume is None:
        having = [r for r in having if r.data_kind not in DATABASES]
    if len(having) != 1:
        names = ", ".join(r.name for r in having) or "none"
        raise UsageError(
            f"--path is of one volume that was archived, and here they are: {names}; nothing was"
            " restored",
            next_step="add --volume NAME",
        )
    if having[0].data_kind in DATABASES:
        whole = f"--volume {having[0].name} --into scratch"
        raise Refused(
            f"volume {having[0].name} holds {having[0].data_kind}: one file of a database is of no"
            " use; nothing was restored",
            next_step=(
                f"safe-compose restore {backup.id}"
                f" {'--database NAME' if is_restored_alone(having[0].data_kind) else whole}"
            ),
        )
    return having[0]


def _read(workspace: Workspace, backup: Backup, record: VolumeRecord, path: str) -> int:
    """Read the archive completely, and return the number of entries that the path has.

    Raises:
        UsageError: The backup does not have the path.
        Refused: The path contains a SQLite database.
        VerificationFailed: The backup is damaged.
    """
    folder = Path(backup.path)
    for artifact in record.artifacts:
        place = (
            unquote(artifact.detail.get("path", ""), errors="surrogateescape")
            if artifact.kind == "sqlite"
            else ""
        )
        if place and PurePosixPath(place).is_relative_to(path):
            raise Refused(
                f"{path} holds the SQLite database {place}, which was copied apart from the"
                " archive; nothing was restored",
                next_step=(
                    f"the whole volume: safe-compose restore {backup.id} --volume"
                    f" {shell_quote(record.name)} --into scratch"
                ),
            )
    with (
        verify.marking_damage(workspace.catalogue, backup),
        terminal.showing_progress(f"verify {backup.id}") as report,
    ):
        verify.check_before_use(backup, record, report)
    if not (count := single_path.count_entries_below(folder, record.artifacts, path)):
        raise UsageError(f"backup {backup.id} has no {path} in {record.name}; nothing was restored")
    return count


def _confirm(path: str, answer: GivenAnswer) -> None:
    """Have the phrase typed, or take it from the flags.

    Raises:
        Refused: It does not match, or nobody may be asked.
    """
    why = f"{path} would be written"
    terminal.ask_phrase(
        "To write it",
        path,
        answer.phrase,
        ask=answer.may_ask,
        nothing="nothing was restored",
        why=why,
    )


def _restore_planned(workspace: Workspace, plan: PathRestorePlan) -> None:
    """Restore the path completely, or leave everything as it was."""
    backup, record, piece, existed = plan.backup, plan.record, plan.piece, plan.existed
    engine, project = workspace.engine, record.labels.get(PROJECT_LABEL, backup.project)

    def leave() -> bool:
        with terminal.reporting_only():
            engine.helpers.sweep()
        return True

    with locking(workspace, [project], ("restore",), wait=LOCK_SECONDS):
        run = begin(
            workspace,
            ("restore", backup.id, "--volume", record.name, "--path", piece.path),
            project=project,
        )
        with transaction(run, lambda _: _roll_back(piece, existed=existed), leave=leave) as change:
            run.step(
                "placing",
                volume=piece.location.name,
                path=piece.path,
                staging=piece.staging,
                aside=piece.old_path,
                existed=existed,
            )
            with terminal.showing_progress(f"restore {piece.path}") as report:
                piece.place(Path(backup.path), record.artifacts, report)
            with ignoring_signals():
                piece.settle(existed=existed)
            change.outcome = f"{piece.path} restored"


def _roll_back(piece: single_path.SinglePath, *, existed: bool) -> str:
    """Complete or undo the restore of a path after a fault.

    Returns:
        The outcome; empty when it has to wait for `recover`.
    """
    try:
        done = piece.settle(existed=existed)
    except SafeComposeError as fault:
        terminal.say(
            f"safe-compose: {piece.path} could not be tidied up: {fault.message}; then:"
            " safe-compose recover"
        )
        return ""
    return f"{piece.path} restored" if done else "nothing was changed"
