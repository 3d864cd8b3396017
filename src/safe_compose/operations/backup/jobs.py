"""The jobs of one manual backup: each volume is made and verified by itself.

All of them run under the project's lock and in one run of the journal.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safe_compose.core import backup_set
from safe_compose.core.backup import Backup, Evidence, Omission, VolumeRecord
from safe_compose.core.text import shell_quote
from safe_compose.engine import Engine
from safe_compose.errors import (
    EngineUnavailable,
    OperationFailed,
    Refused,
    SafeComposeError,
    StateChanged,
    VerificationFailed,
)
from safe_compose.operations.backup import verify
from safe_compose.operations.backup.free_space import choose_fitting
from safe_compose.operations.backup.omissions import tell_omitted
from safe_compose.operations.backup.records import note_losses, remove_half
from safe_compose.operations.backup.request import BackupRequest, open_draft
from safe_compose.operations.transaction import begin, locking
from safe_compose.store.catalogue.catalogue import Catalogue, Draft
from safe_compose.store.catalogue.checks import find_volume_fault
from safe_compose.ui import terminal
from safe_compose.volumes import gzip_stream

if TYPE_CHECKING:
    from safe_compose.workspace import Workspace


class VolumeJob(NamedTuple):
    """A volume that is to be backed up while everything runs."""

    volume: str
    tier: str
    make: Callable[[], VolumeRecord]
    repeat: str | None = None
    """The location that `backup --volume` takes to repeat it, where that has another name."""


@dataclass(slots=True)
class _BackedUpVolumes:
    """A result of the jobs of one backup."""

    records: list[VolumeRecord] = field(default_factory=list)
    """The verified records."""
    evidence: list[Evidence] = field(default_factory=list)
    unverified: list[VolumeRecord] = field(default_factory=list)
    lacking: list[Omission] = field(default_factory=list)
    faults: list[SafeComposeError] = field(default_factory=list)


def make_manual(
    workspace: "Workspace",
    request: BackupRequest,
    jobs: Callable[[BackupRequest, Path], Iterable[VolumeJob]],
    wait: float,
) -> Backup:
    """Run the jobs under the project's lock, and return the verified backup.

    The space is checked first, and everything is journaled.

    Args:
        workspace: The workspace.
        request: The volumes to back up.
        jobs: Makes the jobs of the volumes that fit, for the folder of the backup.
        wait: Seconds to wait for the lock.

    Raises:
        StateChanged: Another safe-compose holds the lock.
        OperationFailed: No volume could be backed up.
        VerificationFailed: No volume verified.
    """
    engine, catalogue = workspace.engine, workspace.catalogue
    with locking(workspace, [request.project], ("backup",), wait=wait):
        half = {
            name
            for run in workspace.journal.list_unfinished()
            if run.engine_id == engine.id
            for name in run.half
        }
        used = workspace.journal.find(workspace.run_id) is not None
        run = begin(
            workspace,
            ("backup",),
            project=request.project,
            run_id=workspace.journal.new_id() if used else None,
        )
        try:
            engine.helpers.notice_full_disk()
            request, left = choose_fitting(catalogue, engine, request)
            with open_draft(engine, catalogue, request) as draft:
                made = _make_each(
                    engine,
                    draft.path,
                    jobs(request, draft.path),
                    half,
                    workspace.settings.trial_limit,
                )
                made.lacking[:0] = left
                backup = _commit(catalogue, engine, draft, request, made)
            run.step("backed-up", backup=backup.id, path=backup.path)
            tell_omitted(backup.omitted)
            backup = catalogue.writer.mark_verified(backup, made.evidence)
            lacks = (
                f" without {', '.join(o.name for o in backup.lacking)}" if backup.lacking else ""
            )
            run.step("ended", outcome=f"backup {backup.id}{lacks}")
        except BaseException as fault:
            with terminal.reporting_only():  # the fault that ended the backup is reported
                run.step("ended", outcome=f"no backup: {type(fault).__name__}")
            raise
        finally:
            with terminal.reporting_only():
                engine.helpers.sweep()
    return backup


def _make_each(
    engine: Engine, into: Path, jobs: Iterable[VolumeJob], half: Collection[str], limit: int
) -> _BackedUpVolumes:
    """Make and verify each volume; one that fails leaves nothing behind, and the others continue.

    Args:
        engine: The engine.
        into: The folder of the backup.
        jobs: The volumes.
        half: Volumes that a restore left half done.
        limit: The size in bytes up to which SQLite databases are opened.

    Raises:
        EngineUnavailable: The daemon is gone.
    """
    made = _BackedUpVolumes()
    for job in jobs:
        record = None
        try:
            if job.volume in half:
                raise OperationFailed(
                    f"a restore of {job.volume} was cut off, and a part of it may be there",
                    next_step="safe-compose recover, then run it again",
                )
            fresh = gzip_stream.rename_encrypted(into, job.make())
            if (impossible := find_volume_fault(fresh)) is not None:  # it would spoil the others
                raise OperationFailed(f"{impossible}: a backup with that could not be read again")
            record = fresh
            with terminal.showing_progress(
                f"verify {job.volume}", total=sum(a.uncompressed_bytes for a in record.artifacts)
            ) as report:
                made.evidence += verify.check_files(into, record, report, open_up_to=limit)
            made.records.append(record)
            made.lacking += backup_set.omit_closed(record)
        except (
            OperationFailed,
            VerificationFailed,
            StateChanged,
            Refused,
            EngineUnavailable,
        ) as fault:
            if isinstance(fault, EngineUnavailable):
                engine.docker.clock()  # raises too if the daemon does not answer
            repeat = shell_quote(job.repeat or job.volume)
            again = fault.next_step or f"safe-compose backup --volume {repeat}"
            made.lacking.append(backup_set.omit_failed(job.volume, job.tier, fault.message, again))
            made.faults.append(fault)
            if record is not None:
                made.unverified.append(record)
            else:
                remove_half(into, job.volume)
    return made


def _commit(
    catalogue: Catalogue,
    engine: Engine,
    draft: Draft,
    request: BackupRequest,
    made: _BackedUpVolumes,
) -> Backup:
    """Commit the verified volumes of a draft as a backup.

    If there are none, what was made is committed and marked as broken, and the first fault is
    raised.
    """
    if not made.faults or made.records:
        for record in made.unverified:
            remove_half(draft.path, record.name)
        records = note_losses(catalogue, engine, made.records)
        return draft.commit(records, omitted=(*made.lacking, *request.omitted))
    tell_omitted((*made.lacking, *request.omitted) if len(made.lacking) > 1 else request.omitted)
    fault = made.faults[0]
    if made.unverified:
        unverified = {record.name for record in made.unverified}
        backup = draft.commit(
            made.unverified, omitted=(o for o in made.lacking if o.name not in unverified)
        )
        catalogue.writer.mark_broken(
            backup, next(f for f in made.faults if isinstance(f, VerificationFailed)).message
        )
    elif "no backup was made" not in fault.message:
        fault.message += "; no backup was made"
    raise fault
