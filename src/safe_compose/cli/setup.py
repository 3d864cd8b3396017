"""The verb that records which volumes of a project matter: setup."""

import os
import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Annotated

import typer

from safe_compose.cli.options import (
    AsJson,
    ComposeFile,
    DryRun,
    NonInteractive,
    ProjectName,
    Yes,
    app,
    ask_yes,
    make_down,
    print_json,
)
from safe_compose.compose.files import Files
from safe_compose.operations.setup import files as setup_files
from safe_compose.operations.setup import inspect, propose
from safe_compose.store.schedules import Schedules
from safe_compose.ui import pickers, tables, terminal
from safe_compose.ui.table_layout import Cell, Column
from safe_compose.workspace import open_workspace


@app.command("setup")
def set_up(
    deploy: Annotated[
        bool,
        typer.Option(
            "--deploy", help="Also write a deploy job for GitHub Actions that deletes nothing."
        ),
    ] = False,
    project: ProjectName = None,
    files: ComposeFile = None,
    non_interactive: NonInteractive = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Record which volumes of a project matter, and keep backups out of git; changes are shown."""
    if project is not None and not files:
        # with a name alone `down` goes by labels; the files here define the project
        files = [str(file) for file in Files(make_down(project, None), os.environ).files]
    invocation = make_down(project, files)
    workspace = open_workspace(invocation)
    with closing(workspace.engine):
        found = inspect.inspect(workspace, invocation)
        may_ask = not (yes or non_interactive or dry_run or as_json)
        tiers = _choose_tiers(found, may_ask=may_ask, as_json=as_json)
        written = propose.propose(found, found.select_lasting(tiers), deploy=deploy)
        setup_files.refuse_unless_possible(written)
        act = bool(written) and not dry_run and (yes or not as_json)
        if not as_json:
            for file in written:
                terminal.tell_lines(file.diff())
            terminal.flush()
        if act:
            question = f"Write {'these' if len(written) > 1 else 'this'}?"
            ask_yes(question, yes=yes, ask=not non_interactive, nothing="nothing was written")
            setup_files.apply(written)
        if as_json:
            print_json({"setup": inspect.to_json(found, written, done=act or not written)})
            return
        if not written:
            terminal.say("safe-compose: everything is in place, nothing was written")
        scheduled = Schedules(workspace.catalogue.root).of(found.project.name) is not None
        for step in inspect.list_next_steps(found, scheduled=scheduled):
            terminal.say(f"safe-compose: {step}")


def _choose_tiers(
    found: inspect.SetupFindings, *, may_ask: bool, as_json: bool
) -> Mapping[str, str]:
    """Return the tier of each volume, as a person at the terminal chooses it or as proposed."""
    rows = [(r.key, r.tier, r.why) for r in found.rows]
    if rows and may_ask and sys.stdin.isatty() and sys.stderr.isatty():
        return pickers.choose_tiers(rows)
    if not as_json:
        columns = [Column("volume"), Column("tier"), Column("why", is_prose=True)]
        cells = [[Cell(text) for text in row] for row in rows]
        empty = f"project {found.project.name} has no volumes and no folders with data"
        tables.print_table(columns, cells, empty=empty)
    return {r.key: r.tier for r in found.rows}
