"""The rows of restored databases: before the restore, in the backup, and as counted after it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safe_compose.core.backup import Artifact, DatabaseStatistics
from safe_compose.core.observed import FOLDER
from safe_compose.core.quantities import count
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.errors import SafeComposeError
from safe_compose.operations.restore.execute import RestoreRun
from safe_compose.operations.restore.target import RestoreTarget
from safe_compose.operations.restore.volumes import find_database_of_dump
from safe_compose.ui import terminal
from safe_compose.volumes import archive

FEW_MEMBERS = 100_000
"""Entries of archives up to which the files among them are counted."""


def compare_statistics(restore_run: RestoreRun) -> list[dict[str, Any]]:
    """Return databases with tables and rows: before, in the backup, and as counted now."""
    rows = []
    for target in restore_run.plan.targets:
        if target.record.statistics is None:
            continue
        then = {d.name: d for d in target.record.statistics.databases}
        old = next(
            (
                r
                for r in (restore_run.safety.volumes if restore_run.safety else ())
                if r.name == target.into
            ),
            None,
        )
        before = {d.name: d for d in old.statistics.databases} if old and old.statistics else {}
        now = _count_target(restore_run, target) or {}
        for name in sorted({*then, *before, *now}):
            sides = (("before", before), ("backup", then), ("now", now))
            counts: Mapping[str, Any] = {side: _counts(found.get(name)) for side, found in sides}
            rows.append(
                {
                    "volume": restore_run.homes.get(target.into, target.into),
                    "database": name,
                    **counts,
                }
            )
    return rows


def summarize(restore_run: RestoreRun, rows: Sequence[Mapping[str, Any]], *, lost: int = 0) -> str:
    """Return what is back: `all 3 volumes are back: 5,001 rows as before, 27 files`.

    Where some are lost it says `3 of 6 volumes are back`.

    Args:
        restore_run: The restore that has succeeded.
        rows: The result of `compare_statistics`.
        lost: How many volumes were deleted as well and are not restored.
    """
    folders = sum(t.into.startswith(FOLDER) for t in restore_run.plan.targets)
    what = _count_locations(len(restore_run.plan.targets) - folders, folders, lost)
    same = "as before" if restore_run.undoes is not None else "as in the backup"
    described = (_describe_rows(rows, same), _describe_files(restore_run))
    counts = [words for words in described if words]
    return f"{what} back" + (f": {', '.join(counts)}" if counts else "")


def _count_locations(restored: int, folders: int, lost: int) -> str:
    """Return how many volumes and folders are back, with the verb.

    >>> _count_locations(3, 0, 0), _count_locations(3, 0, 3), _count_locations(1, 0, 2)
    ('all 3 volumes are', '3 of 6 volumes are', '1 of 3 volumes is')
    >>> _count_locations(2, 1, 0), _count_locations(0, 1, 0)
    ('2 volumes and 1 folder are', 'the folder is')
    """
    if lost:
        return f"{restored} of {restored + lost} volumes {'is' if restored == 1 else 'are'}"
    if not folders:
        return f"all {restored} volumes are" if restored != 1 else "the volume is"
    if not restored:
        return f"all {folders} folders are" if folders != 1 else "the folder is"
    return f"{count(restored, 'volume')} and {count(folders, 'folder')} are"


def _describe_rows(rows: Sequence[Mapping[str, Any]], same: str) -> str:
    """Return the rows of all databases, and whether they are those of the backup."""
    recorded = [row for row in rows if row["backup"] is not None]
    if not recorded:
        return ""
    then = sum(row["backup"]["rows"] for row in recorded)
    if any(row["now"] is None for row in recorded):
        return f"{count(then, 'row')} in the backup (not counted again)"
    now = sum(row["now"]["rows"] for row in recorded)
    are_same = all(row["now"]["rows"] == row["backup"]["rows"] for row in recorded)
    return f"{count(now, 'row')} {same if are_same else f'now, {then:,} in the backup'}"


def _describe_files(restore_run: RestoreRun) -> str:
    """Return the number of files in the volumes without a database."""
    files = entries = 0
    for target in restore_run.plan.targets:
        if target.record.statistics is None and not target.trash:
            artifacts = target.record.artifacts
            if (members := count_entries(artifacts)) > FEW_MEMBERS:
                entries += members
            else:
                files += archive.count_files(Path(restore_run.plan.backup.path), artifacts)
    words = [count(files, "file")] if files else []
    return ", ".join(
        [*words, *([count(entries, "file or folder", "files and folders")] if entries else [])]
    )


def count_entries(artifacts: Iterable[Artifact]) -> int:
    """Return the number of files and folders in archives, as their manifest states it.

    It may be somebody else's manifest: a text that is no number counts as none.
    """
    stated = [a.detail.get("members", "") for a in artifacts if a.kind == "list"]
    numbers = [int(text) for text in stated if re.fullmatch(r"[0-9]{1,15}", text, re.ASCII)]
    return sum(number - 1 for number in numbers if number)  # the volume's root is none of them


def _counts(database: DatabaseStatistics | None) -> dict[str, int] | None:
    return {"tables": len(database.tables), "rows": database.rows} if database is not None else None


def _count_target(
    restore_run: RestoreRun, target: RestoreTarget
) -> dict[str, DatabaseStatistics] | None:
    """Return what the server on the volume counts now.

    Returns:
        Database -> statistics; None when no server runs, or when counting would take long.
    """
    engine = restore_run.plan.engine
    if (
        sum(a.uncompressed_bytes for a in target.record.artifacts)
        > restore_run.workspace.settings.trial_limit
    ):
        return None
    volume = restore_run.homes.get(target.into, target.into)
    users = engine.commands.look_at_folders().users(volume)
    database = find_database_of_dump(target.record)
    serving = next((u for u in users if u.state == "running" and database.serves(u, volume)), None)
    if serving is None:
        return None
    try:
        return {
            d.name: d for d in database.count(database.server(EngineContainer(engine, serving)))
        }
    except SafeComposeError as fault:
        terminal.say(f"safe-compose: the rows could not be counted: {fault.message}")
        return None
