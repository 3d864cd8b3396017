"""The verb that protects a project in one step: start."""

from collections.abc import Sequence
from contextlib import closing

from safe_compose.cli.backup import make_backup
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
from safe_compose.core.text import join_for_shell
from safe_compose.install.places import InstallPlaces
from safe_compose.install.record import read_record
from safe_compose.operations.setup import files as setup_files
from safe_compose.operations.setup import inspect, propose
from safe_compose.store.schedules import Schedules
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import Cell, Column
from safe_compose.workspace import open_workspace


@app.command("start")
def start(
    project: ProjectName = None,
    files: ComposeFile = None,
    non_interactive: NonInteractive = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Protect the project of this folder: write tiers, make a first backup, offer a schedule."""
    invocation = make_down(project, files)
    workspace = open_workspace(invocation)
    with closing(workspace.engine):
        found = inspect.inspect(workspace, invocation)
        edits = propose.propose(
            found, found.select_lasting({r.key: r.tier for r in found.rows}), deploy=False
        )
        setup_files.refuse_unless_possible(edits)
        scheduled = Schedules(workspace.catalogue.root).of(found.project.name) is not None
    if as_json and (not yes or dry_run or not found.rows):
        print_json({"setup": inspect.to_json(found, edits, done=False)})
        return
    if not as_json:
        _tell_plan(found, edits)
    if dry_run or not found.rows:
        return
    ask_yes(
        f"Protect {found.project.name}?", yes=yes, ask=not non_interactive,
        nothing="nothing was written and no backup was made",
    )  # fmt: skip
    setup_files.apply(edits)
    make_backup(project=project, files=files, as_json=as_json)
    if not scheduled:
        words = ["--project", project] if project else []
        words += [word for name in files or () for word in ("--file", name)]
        step = join_for_shell(["safe-compose", "schedule", "install", *words])
        terminal.say(f"safe-compose: back it up every day: {step}")
    if not read_record(InstallPlaces.here()):
        terminal.say("safe-compose: guard what you type as docker: safe-compose shell --install rc")
    terminal.say("safe-compose: to bring back what a guarded command deleted: safe-compose undo")


def _tell_plan(found: inspect.SetupFindings, files: Sequence[setup_files.SetupFile]) -> None:
    """Print the volumes with their tiers, and what a yes does."""
    columns = [Column("volume"), Column("tier"), Column("why", is_prose=True)]
    cells = [[Cell(text) for text in (r.key, r.tier, r.why)] for r in found.rows]
    tables.print_table(
        columns,
        cells,
        empty=f"project {found.project.name} has no volumes and no folders with data",
    )
    if found.rows:
        for file in files:
            terminal.tell(f"write {file.path}")
        terminal.tell("make a backup of all that is not disposable, and verify it")
    terminal.flush()
