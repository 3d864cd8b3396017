"""The verb with which a person lets a refused command or new settings pass: approve."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from safe_compose.cli.options import AsJson, Utc, app, print_json
from safe_compose.errors import UsageError
from safe_compose.operations import approval
from safe_compose.settings import load
from safe_compose.store import settings_approval
from safe_compose.store.journal import Journal
from safe_compose.system.process import read_clock
from safe_compose.ui import tables
from safe_compose.ui.table_layout import CAREFUL, GOOD, Cell, Column
from safe_compose.workspace import find_claimed_projects


@app.command()
def approve(
    code: Annotated[
        str | None, typer.Argument(help="The code that a refused command printed.")
    ] = None,
    pending: Annotated[bool, typer.Option("--list", help="List what waits for a person.")] = False,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings",
            help=(
                "Approve where the settings of this folder's project send data, until they change."
            ),
        ),
    ] = False,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Let a refused command run once, after its backup; a person types its phrase in a terminal."""
    found = load.load(Path.cwd(), dict(os.environ))
    own = found.personal or found
    root = own.store
    if sum((pending, settings, code is not None)) != 1 or (as_json and not pending):
        raise UsageError(
            "approve takes a code, --settings, or --list (which --json goes with)",
            next_step="safe-compose approve --list",
        )
    if settings:
        settings_approval.tell(found)
        settings_approval.approve(
            replace(found, foreign=(*found.foreign, *find_claimed_projects(found, Path.cwd())))
        )
    elif code is not None:
        approval.approve(root, Journal(root, own.access), code)
    elif as_json:
        print_json({"requests": approval.list_requests(root)})
    else:
        _print_requests(root, tables.Moments(read_clock(), utc))


def _print_requests(root: Path, moments: tables.Moments) -> None:
    columns = [
        Column("code"),
        Column("state"),
        Column("asked"),
        Column("command", is_prose=True),
        Column("folder"),
    ]
    rows = [
        [
            Cell(r["code"]),
            Cell(r["state"], style=CAREFUL if r["state"] == "waiting" else GOOD),
            moments.cell(r["at"], none="unknown"),
            Cell(" ".join([r["program"], *r["argv"]])),
            Cell(r["folder"]),
        ]
        for r in approval.list_requests(root)
    ]
    empty = "nothing waits for an approval; a refused command prints its code"
    tables.print_table(columns, rows, empty=empty)
