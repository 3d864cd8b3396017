"""The verb that lists guarded commands: journal."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from safe_compose.cli.options import (
    AsJson,
    HoldsVolume,
    ProjectName,
    Utc,
    app,
    open_catalogue,
    print_json,
)
from safe_compose.core.short_id import shorten_ids, shorten_in
from safe_compose.store.journal import Journal
from safe_compose.store.run_record import RunRecord
from safe_compose.system.process import read_clock
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import BAD, Cell, Column

NEWEST = 20
"""How many runs are shown on a terminal."""
EveryRun = Annotated[bool, typer.Option("--all", help="Every run, not only the newest twenty.")]


@app.command("journal")
def show_journal(
    project: ProjectName = None,
    volume: HoldsVolume = None,
    every: EveryRun = False,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Show the guarded commands, newest first, and how each ended."""
    catalogue = open_catalogue()
    runs = [
        run
        for run in Journal(catalogue.root).runs()
        if (project is None or run.project == project) and set(volume or ()) <= run.volumes
    ]
    if as_json:
        print_json({"runs": [_run_shape(r) for r in runs]})
        return
    shown = runs if every or not tables.is_for_people() else runs[:NEWEST]
    shorten, moments = shorten_ids(catalogue.reader.list_ids()), tables.Moments(read_clock(), utc)
    shorten_run = shorten_ids(run.id for run in runs)
    columns = [
        Column("run"),
        Column("started"),
        Column("project", 2),
        Column("backup", 1),
        Column("outcome", is_prose=True),
        Column("command", is_prose=True),
    ]
    rows = [
        [
            Cell(shorten_run(run.id), run.id),
            moments.cell(run.started, none="unknown"),
            Cell(run.project or ""),
            Cell(shorten(run.backup) if run.backup else "", run.backup or ""),
            _outcome_cell(run, shorten),
            Cell(" ".join([run.program, *run.command])),
        ]
        for run in shown
    ]
    of = f" of project {project}" if project is not None else ""
    of += f" with {', '.join(volume)}" if volume else ""
    step = "safe-compose journal" if of else "safe-compose --explain compose down -v"
    what = "all of them" if of else "what one would do"
    tables.print_table(columns, rows, empty=f"no guarded commands{of} yet; {what}: {step}")
    if len(shown) < len(runs):
        terminal.tell(f"{len(runs) - NEWEST:,} older ones: safe-compose journal --all")


def _outcome_cell(run: RunRecord, shorten: Callable[[str], str]) -> Cell:
    """Return how a run ended; one that did not end, or whose file is damaged, stands out."""
    damage = f" (damaged: {run.damaged})" if run.damaged else ""
    bad = run.damaged is not None or run.outcome == "did not end"
    exact = f"{run.outcome}{damage}"
    return Cell(shorten_in(exact, shorten), exact, style=BAD if bad else "")


def _run_shape(run: RunRecord) -> dict[str, Any]:
    return {
        "id": run.id,
        "started": run.started,
        "command": [run.program, *run.command],
        "project": run.project,
        "endpoint": run.endpoint,
        "backup": run.backup,
        "outcome": run.outcome,
        "damaged": (
            run.damaged
            or (f"steps that do not read: {', '.join(run.unreadable)}" if run.unreadable else None)
        ),
        "steps": list(run.steps),
    }
