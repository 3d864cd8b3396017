"""The examination of the store: its health, and the newest backup of each volume."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safe_compose.core import retention
from safe_compose.core.backup_summary import BackupSummary
from safe_compose.core.quantities import count, format_size
from safe_compose.errors import SafeComposeError
from safe_compose.operations.doctor.findings import Findings
from safe_compose.operations.doctor.losses import list_losses
from safe_compose.settings import load
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Journal
from safe_compose.store.schedules import Schedules

LITTLE_SPACE = 1 << 30
"""The free space in bytes below which the store is reported."""


def examine_store(project: Mapping[str, Any] | None = None) -> Findings:
    """Examine the store.

    The facts are its health (`store`), the newest backup of each volume (`backups`), and what would
    be lost if this machine died now (`losses`).

    Args:
        project: The facts of this folder's project; None: there is none.
    """
    attention: list[str] = []
    try:
        settings = load.load(Path.cwd(), dict(os.environ))
        catalogue = Catalogue.at(settings.store, settings.access)
        facts: dict[str, Any] = {
            "path": str(catalogue.root),
            "configured": settings.store_configured,
            "exists": catalogue.root.exists(),
        }
        if not facts["exists"]:
            return Findings({"store": facts, "backups": [], "losses": list_losses((), project)})
        catalogue.folder.ensure()
        unfinished = Journal(settings.store, settings.access).list_unfinished()
        backups = catalogue.reader.list_summaries()
    except SafeComposeError as fault:
        unknown = {"store": {"fault": fault.message}, "backups": [], "losses": []}
        return Findings(unknown, (fault.message,))
    broken = [b.id for b in backups if b.broken]
    taken = sum(b.bytes for b in backups)
    facts |= {
        "free": catalogue.folder.free_space().bytes,
        "bytes": taken,
        "backups": len(backups),
        "broken": broken,
    }
    facts["unfinished"] = [run.id for run in unfinished]
    timetable = Schedules(settings.store, settings.access)
    facts["schedules"] = [record.project for record in timetable.all()]
    attention += [
        f"{project}: {trouble}: safe-compose schedule status"
        for project, trouble in timetable.troubles().items()
    ]
    if facts["free"] < LITTLE_SPACE:
        attention.append(f"the store has {format_size(facts['free'])} left ({catalogue.root})")
    facts["max_size"] = settings.max_size
    if command := retention.explain_budget(facts["bytes"], settings.max_size, settings.retention):
        attention.append(
            f"the backups take {format_size(facts['bytes'])}, more than max_size; see what could"
            f" go: {command}"
        )
    if broken:
        attention.append(f"{count(len(broken), 'backup')} did not verify: safe-compose list")
    if unfinished:
        attention.append(f"{count(len(unfinished), 'run')} did not end: safe-compose recover")
    attention += list_partial_backups(backups)
    known = {"backups": _list_newest(backups), "losses": list_losses(backups, project)}
    return Findings({"store": facts, **known}, tuple(attention))


def _list_newest(backups: Sequence[BackupSummary]) -> list[dict[str, Any]]:
    """Return the facts of the newest verified backup of each volume."""
    newest: dict[str, dict[str, Any]] = {}
    for backup in backups:
        facts = {"id": backup.id, "created": backup.created, "level": backup.level}
        for volume in backup.volumes if backup.counts else ():
            newest.setdefault(volume, {"volume": volume, **facts})
    return list(newest.values())


def list_partial_backups(backups: Sequence[BackupSummary]) -> Iterator[str]:
    """Yield a line for each project whose newest manual or scheduled backup is partial."""
    newest: dict[str, BackupSummary] = {}
    for backup in backups:
        if backup.counts and backup.reason in ("manual", "schedule"):
            newest.setdefault(backup.project, backup)
    for backup in newest.values():
        if backup.lacking:
            lacks = ", ".join(backup.lacking)
            yield (
                f"the newest backup of {backup.project}, {backup.id}, is partial: it lacks {lacks}:"
                f" safe-compose show {backup.id}"
            )
