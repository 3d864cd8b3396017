"""The verb that makes a backup: backup."""

from dataclasses import asdict

from safe_compose.cli.backups import summarize_backup
from safe_compose.cli.options import (
    AsJson,
    ComposeFile,
    ProjectName,
    VolumeName,
    Wait,
    app,
    check_wait,
    make_lookup,
    print_json,
)
from safe_compose.core.backup import Backup
from safe_compose.core.quantities import format_size
from safe_compose.core.short_id import find_end
from safe_compose.operations.backup import manual, omissions
from safe_compose.operations.backup.free_space import explain_over_budget
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import Cell, Column
from safe_compose.workspace import open_workspace


@app.command("backup")
def make_backup(
    project: ProjectName = None,
    files: ComposeFile = None,
    volume: VolumeName = None,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Back up the volumes of a running project, databases by dump, and verify the backup."""
    check_wait(wait)
    here = make_lookup(None, files)
    lookups = [here] if project is None else [here, make_lookup(project, files)]
    workspace = open_workspace(here)
    found = manual.find_project(workspace, lookups, project)
    made = manual.back_up_all(workspace, found, names=volume or (), wait=wait)
    backup, others = made[-1].backup, [one.backup for one in made[:-1]]
    if over := explain_over_budget(workspace.catalogue, workspace.settings):
        terminal.say(f"safe-compose: {over}")
    if as_json:
        shapes = [summarize_backup(other) for other in others]
        print_json(
            {
                "backup": summarize_backup(backup),
                "omitted": [asdict(o) for o in backup.omitted],
                "others": shapes,
            }
        )
    else:
        for one in (*others, backup):
            _tell_backup(one)
    if (fault := omissions.report_incomplete(backup)) is not None:
        raise fault


def _tell_backup(backup: Backup) -> None:
    columns = [
        Column("database"),
        Column("tables", is_number=True),
        Column("rows", is_number=True),
        Column("size", 1, is_number=True),
    ]
    for record in backup.volumes:
        found = (*(record.statistics.databases if record.statistics else ()), *record.sqlite)
        if found:
            rows = [
                [
                    Cell(d.name),
                    Cell(f"{len(d.tables):,}", str(len(d.tables))),
                    Cell(f"{d.rows:,}", str(d.rows)),
                    tables.size_cell(d.bytes),
                ]
                for d in found
            ]
            tables.print_table(columns, rows, title=record.name)
    lacks = (
        f", PARTIAL: lacks {', '.join(o.name for o in backup.lacking)}" if backup.lacking else ""
    )
    if tables.is_for_people():
        terminal.tell(
            f"backup {find_end(backup.id)}: {format_size(backup.bytes)}, verified"
            f" {backup.level}{lacks}, in"
        )
        terminal.tell(f"  {backup.path}")
        return
    terminal.tell(f"{backup.path}  {format_size(backup.bytes)}  verified {backup.level}{lacks}")
