"""The outcome of a deletion: which volumes docker deleted, and how much of them.

Docker's exit code says neither.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import Volume
from safe_compose.core.plan import Doomed
from safe_compose.core.quantities import format_stamp
from safe_compose.core.text import shell_quote
from safe_compose.engine import Engine
from safe_compose.errors import SafeComposeError
from safe_compose.store.journal import Journal
from safe_compose.volumes import survivors
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.survivors import RemainingContent

RECREATED = "compose_recreate_changed_volume"
"""The kind of command after which a volume of the same name is another volume."""


@dataclass(frozen=True, slots=True)
class PartialLoss:
    """A volume that still exists and may have lost a part of its content."""

    name: str
    left: RemainingContent | None
    """What is left of its content; None when it could not be inspected."""
    why: str = ""
    """Why it could not be inspected."""

    def facts(self) -> dict[str, Any]:
        """Return the loss as the journal stores it."""
        return {
            "name": self.name,
            **(
                {"missing": self.left.missing, "total": self.left.total}
                if self.left
                else {"why": self.why}
            ),
        }

    def words(self) -> str:
        """Return the loss as one sentence for people."""
        if self.left is None:
            return (
                f"volume {self.name} could not be looked at, so docker may have deleted a part of"
                f" it: {self.why}"
            )
        if self.left.nothing:
            return (
                f"volume {self.name} is there, but nothing of the {self.left.total} files and"
                " folders that were in it"
            )
        named = ", ".join(self.left.examples) + (
            ", ..." if self.left.missing > len(self.left.examples) else ""
        )
        count = f"{self.left.missing} of {self.left.total} files and folders"
        return (
            f"docker deleted a part of volume {self.name}: {count} are"
            f" missing{f' ({named})' if named else ''}"
        )


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """A division of the volumes into deleted, surviving and damaged ones."""

    gone: tuple[str, ...]
    survived: tuple[str, ...]
    parts: tuple[PartialLoss, ...]


def list_earlier_losses(
    journal: Journal, engine_id: str, names: Collection[str], run_id: str
) -> list[str]:
    """Return a line for each volume that had lost a part before this run began.

    The newest backup of such a volume does not hold all of its earlier content.
    """
    lines = []
    for name, run in sorted(journal.find_earlier_losses(engine_id, names, run_id).items()):
        step = (
            f"; all of it: safe-compose restore {shell_quote(run.backup)} --volume"
            f" {shell_quote(name)}"
            if run.backup
            else ""
        )
        lines.append(
            f"a part of {name} was deleted by '{run.program} {' '.join(run.command)}' of"
            f" {format_stamp(run.started)} before{step}"
        )
    return lines


def find_outcome(
    engine: Engine,
    doomed: Sequence[Doomed],
    backup: Backup | None,
    moved: Collection[str],
    kind: str,
) -> CommandOutcome:
    """Inspect each volume after docker has ended; one that cannot be inspected counts as damaged.

    Args:
        engine: The engine.
        doomed: The volumes that docker was asked to delete.
        backup: The backup that was made of them, if any.
        moved: The volumes whose content is in the trash.
        kind: The kind of the command.
    """
    gone: list[str] = []
    survived: list[str] = []
    parts: list[PartialLoss] = []
    engine.helpers.notice_full_disk()  # docker may have freed space
    records = {record.name: record for record in backup.volumes} if backup is not None else {}
    for d in doomed:
        record = records.get(d.name) if d.name not in moved and kind != RECREATED else None
        try:
            # Docker answers once it has finished a deletion that is under way.
            now = engine.docker.volume(d.name)
            left = (
                _compare_with_archive(engine, backup, record)
                if now is not None and record is not None
                else None
            )
        except SafeComposeError as fault:
            parts.append(PartialLoss(d.name, None, fault.message))
            continue
        match judge_survival(d.volume, now, left):
            case "part":
                parts.append(PartialLoss(d.name, left))
            case "survived":
                survived.append(d.name)
            case "gone":
                gone.append(d.name)
    return CommandOutcome(tuple(gone), tuple(survived), tuple(parts))


def judge_survival(
    before: Volume, now: Volume | None, left: RemainingContent | None
) -> Literal["survived", "part", "gone"]:
    """Return what became of a volume.

    A volume that was deleted, recreated at once and used is gone. Its creation time shows that.
    Without one (a plugin need not report when it made a volume) it counts as damaged, and `undo`
    restores it all the same.

    Args:
        before: The volume before docker ran.
        now: The volume of that name now.
        left: What is left of its archived content; None when no archive tells.
    """
    same = now is not None and now.created_at == before.created_at
    if left is not None and not left.missing:
        return "survived"
    if left is not None and (same or not (left.nothing and left.extra)):
        return "part"
    return "survived" if same else "gone"


def _compare_with_archive(
    engine: Engine, backup: Backup | None, record: VolumeRecord
) -> RemainingContent | None:
    """Return what is left of a volume's archived content.

    Returns:
        The comparison; None when no archive says what was in the volume.

    Raises:
        SafeComposeError: The volume or the archive cannot be read.
    """
    if backup is None or not any(a.kind == "archive" for a in record.artifacts):
        return None
    return survivors.compare_with_archive(
        EngineLocation(engine, record.name), Path(backup.path), record.artifacts
    )
