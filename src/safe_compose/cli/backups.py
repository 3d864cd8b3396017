"""The verbs that show what backups there are: list, show."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from safe_compose.cli.latest import choose_project
from safe_compose.cli.options import (
    BACKUP_ID,
    AsJson,
    Every,
    HoldsVolume,
    ProjectName,
    Utc,
    Verbose,
    app,
    open_catalogue,
    print_json,
)
from safe_compose.core import retention
from safe_compose.core.backup import Backup
from safe_compose.core.backup_summary import BackupSummary, OffsiteCopy
from safe_compose.core.short_id import shorten_ids
from safe_compose.core.text import join_for_shell
from safe_compose.errors import UsageError
from safe_compose.operations.backup.omissions import format_omissions
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system.process import read_clock
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import BAD, CAREFUL, GOOD, Cell, Column

NEWEST = 20
"""How many backups `list` shows on a terminal."""
LEVELS = {
    "L1": "size and sha256 of each file are those that were written",
    "L2": "each file was read as a whole, and what is in it equals its list",
    "L3": "the rows in the dump equal those counted in the database at that moment",
    "L4": "restored into a scratch server without a network, started and counted",
}
"""What each level of verification proves."""
COPY_STYLES = {"verified": GOOD, "failed": BAD, "unknown": CAREFUL, "never sent": CAREFUL}
"""The colour of each state of an off-site copy."""


@app.command("list")
def list_backups(
    project: ProjectName = None,
    volume: HoldsVolume = None,
    every: Every = False,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """List backups, newest first: on a terminal the newest twenty."""
    catalogue = open_catalogue()
    backups = select_holding(catalogue.reader.list_summaries(project), volume)
    if as_json:
        pinned = _find_pinned(catalogue, backups)
        print_json({"backups": [summarize_backup(b, pinned) for b in backups]})
        return
    shown = backups if every or not tables.is_for_people() else backups[:NEWEST]
    of = f" of project {project}" if project is not None else ""
    of += f" with {', '.join(volume)}" if volume else ""
    _print_backups(
        shown,
        shorten_ids(catalogue.reader.list_ids()),
        tables.Moments(read_clock(), utc),
        empty=f"no backups{of} in {catalogue.root} yet; make one: safe-compose backup",
    )
    if len(shown) < len(backups):
        terminal.tell(f"{len(backups) - NEWEST:,} older ones: safe-compose list --all")


def select_holding(
    backups: Sequence[BackupSummary], names: Collection[str] | None
) -> Sequence[BackupSummary]:
    """Return the backups that hold all of these volumes."""
    return [b for b in backups if set(names or ()) <= set(b.volumes)]


def _print_backups(
    backups: Sequence[BackupSummary],
    shorten: Callable[[str], str],
    moments: tables.Moments,
    *,
    empty: str,
) -> None:
    columns = [
        Column("id"),
        Column("project"),
        Column("created"),
        Column("size", 2, is_number=True),
        Column("verified"),
        Column("reason", 1),
        Column("off-site", 3),
        Column("volumes", 4),
        Column("note", is_prose=True),
    ]
    rows = []
    for b in backups:
        state, style, note = judge_backup(b)
        rows.append(
            [
                Cell(shorten(b.id), b.id),
                Cell(b.project),
                moments.cell(b.created, none="unknown"),
                tables.size_cell(b.bytes),
                Cell(state, style=style),
                Cell(b.reason),
                tables.names_cell([c.name for c in b.offsite if c.state == "verified"]),
                tables.names_cell(b.volumes),
                Cell(note),
            ]
        )
    tables.print_table(columns, rows, empty=empty)


def judge_backup(backup: Backup | BackupSummary) -> tuple[str, str, str]:
    """Return the state of a backup in a word, its colour, and what a person should know of it."""
    line = backup.summarize() if isinstance(backup, Backup) else backup
    if line.broken:
        return "BROKEN", BAD, line.broken
    notes = [f"lacks {', '.join(line.lacking)}"] if line.lacking else []
    if line.unsigned_from is not None:
        notes.append(f"fetched from {line.unsigned_from}, not signed")
    note = "; ".join(notes)
    if not line.verified:
        return "no", CAREFUL, note
    state = f"{line.level or 'yes'}{', PARTIAL' if line.lacking else ''}"
    return state, CAREFUL if line.lacking else GOOD, note


def _find_pinned(
    catalogue: Catalogue, backups: Sequence[Backup | BackupSummary]
) -> Collection[str]:
    """Return the paths of the backups that `forget` keeps because a deletion followed them.

    Of those of one day it keeps only the first and the last.
    """
    if not any(b.pinned_until for b in backups):
        return ()
    return retention.find_pinned(catalogue.reader.list_summaries(), read_clock())


def summarize_backup(
    backup: Backup | BackupSummary, pinned: Collection[str] = ()
) -> dict[str, Any]:
    """Return the JSON shape of a backup in lists.

    Args:
        backup: The backup.
        pinned: The paths of the backups that `forget` keeps because a deletion followed them.
    """
    line = backup.summarize() if isinstance(backup, Backup) else backup
    return {
        "id": line.id,
        "seq": line.seq,
        "created": line.created,
        "project": line.project,
        "endpoint": line.endpoint,
        "reason": line.reason,
        "volumes": list(line.volumes),
        "bytes": line.bytes,
        "path": line.path,
        "verified": {"level": line.level, "at": line.verified_at} if line.verified else False,
        "pinned_until": line.pinned_until if line.path in pinned else None,
        "unsigned_from": line.unsigned_from,
        "lacking": list(line.lacking),
        "offsite": [
            {
                "name": c.name,
                "url": c.url,
                "state": c.state,
                "pushed": c.pushed,
                "verified": c.verified,
                "fault": c.fault,
            }
            for c in line.offsite
        ],
    }


@app.command()
def show(
    id: Annotated[str, typer.Argument(help=BACKUP_ID)],
    project: ProjectName = None,
    volume: HoldsVolume = None,
    verbose: Verbose = False,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Show what one backup holds, and the evidence for it."""
    catalogue = open_catalogue()
    backup = find_holding(catalogue, id, choose_project(id, project, catalogue), volume)
    pinned = _find_pinned(catalogue, [backup])
    if as_json:
        print_json({"backup": summarize_backup(backup, pinned), "details": asdict(backup)})
        return
    moments = tables.Moments(read_clock(), utc)
    kept_until = backup.pinned_until if backup.path in pinned else None
    short = shorten_ids(catalogue.reader.list_ids())(backup.id)
    whole = verbose or not tables.is_for_people()
    tables.print_facts(_describe(backup, short, kept_until, moments))
    _print_files(backup, whole=whole)
    if whole or not backup.evidence:
        _print_evidence(backup, moments)
    for line in format_omissions(backup.omitted):
        tables.print_text(line)
    for note in (*backup.warnings, *(n for v in backup.volumes for n in v.notes)):
        tables.print_text(f"note: {note}")
    if not whole:
        tables.print_text(f"checksums and evidence: safe-compose show {short} --verbose")


def find_holding(
    catalogue: Catalogue, id: str, project: str | None, names: Collection[str] | None
) -> Backup:
    """Return a backup by its id, or for `latest` the newest that holds these volumes.

    Raises:
        UsageError: There is none, or it does not hold them.
    """
    backup = catalogue.reader.find(id, project, holding=names or ())
    if missing := sorted(set(names or ()) - {v.name for v in backup.volumes}):
        none = f"no verified backup holds {', '.join(missing)}"
        raise UsageError(
            none if id == "latest" else f"backup {backup.id} does not hold {', '.join(missing)}",
            next_step=f"safe-compose list --volume {join_for_shell(missing[:1])}",
        )
    return backup


def _describe(
    backup: Backup, short: str, kept_until: str | None, moments: tables.Moments
) -> list[tuple[str, list[Cell]]]:
    """Return the facts of a backup; what is not known, or does not apply, has no cells."""
    state, style, note = judge_backup(backup)
    means = f": {LEVELS[state[:2]]}" if state[:2] in LEVELS else ""
    sealed = any(a.sealed for v in backup.volumes for a in v.artifacts)
    none = "nowhere else; send it: safe-compose offsite push " + short
    return [
        ("id", [Cell(backup.id)]),
        ("short id", [Cell(short)] if short != backup.id else []),
        ("project", [Cell(backup.project)]),
        ("created", [moments.cell(backup.created, none="unknown")]),
        ("reason", [Cell(backup.reason)] if backup.reason else []),
        ("command", [Cell(" ".join(["docker", *backup.command]))] if backup.command else []),
        ("verified", [Cell(f"{state}{means}", state, style)]),
        ("note", [Cell(note)] if note else []),
        ("volumes", [Cell(v.name) for v in backup.volumes]),
        ("size", [tables.size_cell(backup.bytes)]),
        ("encrypted", [Cell("yes, with age")] if sealed else []),
        ("kept until", [moments.cell(kept_until)] if kept_until else []),
        ("engine", [Cell(backup.endpoint)] if backup.endpoint else []),
        ("path", [Cell(backup.path)]),
        ("off-site", [_copy_cell(c, moments) for c in backup.offsite] or [Cell(none, "")]),
    ]


def _copy_cell(copy: OffsiteCopy, moments: tables.Moments) -> Cell:
    words = f"failed: {copy.fault}" if copy.fault is not None else "not verified"
    if copy.state == "verified":
        words = f"read back {moments.cell(copy.verified).text}"
    return Cell(
        f"{copy.name}: {words}", f"{copy.name}: {copy.state}", style=COPY_STYLES.get(copy.state, "")
    )


def _print_files(backup: Backup, *, whole: bool) -> None:
    """Print the files of a backup; `whole` with the volume and checksum of each."""
    columns = [
        Column("file"),
        Column("kind", 1),
        Column("size", is_number=True),
        Column("level"),
        Column("method", 2),
        Column("volume", 3),
        Column("sha256", 4),
    ]
    levels = {e.subject: e.level for e in sorted(backup.evidence, key=lambda e: e.level)}
    style = GOOD if backup.broken is None else ""
    rows = [
        [
            Cell(a.file),
            Cell(a.kind),
            tables.size_cell(a.bytes),
            # A list was compared with its archive.
            Cell(levels.get(a.file.replace(".list.gz", ".tar.gz"), ""), style=style),
            Cell(v.method),
            Cell(v.name),
            Cell(a.sha256),
        ]
        for v in backup.volumes
        for a in v.artifacts
    ]
    shown = len(columns) if whole else len(columns) - 2
    tables.print_table(
        columns[:shown], [row[:shown] for row in rows], title="files", empty="no files"
    )


def _print_evidence(backup: Backup, moments: tables.Moments) -> None:
    columns = [Column("level"), Column("of"), Column("read", 1), Column("found", is_prose=True)]
    rows = [
        [
            Cell(e.level, style=GOOD if backup.broken is None else ""),
            Cell(e.subject),
            moments.cell(e.at),
            Cell(e.what),
        ]
        for e in backup.evidence
    ]
    tables.print_table(
        columns, rows, title="evidence", empty=f"none; read it: safe-compose verify {backup.id}"
    )
    used = sorted({e.level for e in backup.evidence} & LEVELS.keys())
    if used and tables.is_for_people():
        tables.print_facts([(level, [Cell(LEVELS[level])]) for level in used], title="levels")
