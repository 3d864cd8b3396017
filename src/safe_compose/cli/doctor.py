"""The verb that checks this machine, its engine and its store."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from safe_compose.cli.options import AsJson, Utc, Verbose, app, print_json
from safe_compose.operations.doctor import losses, report, run
from safe_compose.system.process import read_clock
from safe_compose.ui import report_layout, tables, terminal
from safe_compose.ui.table_layout import BAD, CAREFUL, GOOD, Cell, Column

SCREEN = 24
"""Lines of a terminal; the report leaves one for the progress, one for the end and the prompt."""
_MARKS = {
    report.PERSON: report_layout.PROBLEM,
    report.WARNING: report_layout.WARNING,
    report.OK: report_layout.OK,
}


@app.command("doctor")
def examine(
    as_json: AsJson = False,
    routes_only: Annotated[
        bool, typer.Option("--ways", help="Try the ways to docker only: no daemon, no store.")
    ] = False,
    verbose: Verbose = False,
    utc: Utc = False,
) -> None:
    """Check every way of calling docker, the engine and the store; 1 if a person is needed."""
    terminal.say("safe-compose: trying every way to call docker on this machine")
    found = run.examine(look=not routes_only)
    findings = report.list_findings(found)
    if as_json:
        print_json({**found, "findings": [finding._asdict() for finding in findings]})
    else:
        _print_report(found, findings, whole=verbose)
        if verbose:
            _print_tables(found, tables.Moments(read_clock(), utc))
        tables.print_text(report.conclude(findings))
    if found["attention"]:
        raise typer.Exit(1)


def _print_report(
    found: Mapping[str, Any], findings: Sequence[report.DoctorFinding], *, whole: bool
) -> None:
    answers = _list_answers(found)
    if not tables.is_for_people():
        for answer in answers:
            tables.print_fields(Cell("loss"), Cell(answer), Cell(""))
        for level, text, cure in findings:
            tables.print_fields(Cell(level), Cell(text), Cell(cure))
        return
    lines = report_layout.lay_report(
        losses.HEADING,
        answers,
        [report_layout.ReportLine(_MARKS[f.level], f.text, f.cure) for f in findings],
        width=tables.measure_width(),
        height=None if whole else SCREEN - 3,
        more="safe-compose doctor --verbose",
    )
    for line in lines:
        tables.print_line(*line)


def _list_answers(found: Mapping[str, Any]) -> list[str]:
    """Return what would be lost if this machine died now, as sentences."""
    if "store" not in found:
        return []
    if "fault" in found["store"]:
        return [f"what would be lost is unknown ({found['store']['fault']})"]
    none = "there are no verified backups, so everything would be lost"
    return list(losses.format_losses(found["losses"], read_clock())) or [none]


def _print_tables(found: Mapping[str, Any], moments: tables.Moments) -> None:
    """Print everything that was found."""
    rows = [[Cell(text) for text in row] for row in run.format_rows(found)]
    columns = [Column("way"), Column("result"), Column("what catches it", is_prose=True)]
    tables.print_table(columns, rows, title="ways to docker")
    hooks = [
        [Cell(a[key]) for key in ("agent", "scope", "verdict", "why")] for a in found["agents"]
    ]
    if hooks:
        columns = [Column("agent"), Column("scope"), Column("result"), Column("why", is_prose=True)]
        tables.print_table(columns, hooks, title="hooks of coding agents")
    for name, facts in (("docker", _list_docker), ("store", _list_store)):
        if name in found:
            tables.print_facts(facts(found[name]), title=name)
    if found.get("project") is not None:
        _print_project(found["project"], found["losses"], moments)
    if found.get("backups"):
        columns = [Column("volume"), Column("created"), Column("level"), Column("backup", 1)]
        rows = [
            [
                Cell(b["volume"]),
                moments.cell(b["created"], none="unknown"),
                Cell(b["level"] or "unknown", b["level"] or ""),
                Cell(b["id"]),
            ]
            for b in found["backups"]
        ]
        tables.print_table(columns, rows, title="newest verified backups")
    terminal.tell("")


Facts = list[tuple[str, Sequence[Cell]]]


def _list_docker(docker: Mapping[str, Any]) -> Facts:
    if "fault" in docker:
        return [("fault", [Cell(docker["fault"], style=BAD)])]
    return [
        ("path", [Cell(docker["path"])]),
        ("client", [Cell(docker["client"] or "unknown")]),
        ("compose", [Cell(docker["compose"] or "unknown")]),
        ("endpoint", [Cell(docker["endpoint"])]),
        ("on this machine", [Cell("no" if docker["remote"] else "yes")]),
        ("API", [Cell(docker["api"])]),
        ("known traps", [Cell(trap, style=CAREFUL) for trap in docker["traps"]] or [Cell("none")]),
        ("trash", [Cell(report.format_trash(docker["trash"]))]),
    ]


def _list_store(store: Mapping[str, Any]) -> Facts:
    if "fault" in store:
        return [("fault", [Cell(store["fault"], style=BAD)])]
    where = "named in the settings" if store["configured"] else "the default one"
    if not store["exists"]:
        return [("path", [Cell(store["path"]), Cell("not there yet")]), ("chosen", [Cell(where)])]
    limit = store["max_size"]
    return [
        ("path", [Cell(store["path"])]),
        ("chosen", [Cell(where)]),
        ("backups", [Cell(f"{store['backups']:,}", str(store["backups"]))]),
        ("size", [tables.size_cell(store["bytes"])]),
        ("max_size", [tables.size_cell(limit) if limit is not None else Cell("no limit", "")]),
        ("free", [tables.size_cell(store["free"])]),
        ("broken", [Cell(id, style=BAD) for id in store["broken"]] or [Cell("none", "")]),
        ("not ended", [Cell(id, style=BAD) for id in store["unfinished"]] or [Cell("none", "")]),
        ("daily backups", [Cell(name) for name in store["schedules"]] or [Cell("none", "")]),
    ]


def _print_project(
    project: Mapping[str, Any], lost: Sequence[Mapping[str, Any]], moments: tables.Moments
) -> None:
    """Print the findings about the project of this folder."""
    away = {
        one["name"]: one["elsewhere"]
        for loss in lost
        if loss["project"] == project["name"]
        for one in loss["locations"]
    }
    columns = [
        Column("volume"),
        Column("tier", 1),
        Column("newest verified backup"),
        Column("off this machine", 1),
        Column("restored for trial", 2),
        Column("lock", 3),
    ]
    rows = [
        [
            Cell(v["name"]),
            Cell(v["tier"]),
            moments.cell(v["backup"]["created"], style=GOOD)
            if v["backup"]
            else Cell("none", "", CAREFUL),
            moments.cell(away.get(v["name"]), none="none"),
            moments.cell(v["drill"]["created"] if v["drill"] else None),
            Cell(v["lock"] or ""),
        ]
        for v in project["volumes"]
    ]
    tables.print_table(columns, rows, title=f"project {project['name']}", empty="no volumes")
    if project["folders"]:
        _print_folders(project["folders"])
    if project["passwords"]:
        _print_passwords(project["passwords"])
    if project["predecessors"]:
        _print_predecessors(project["predecessors"])


def _print_passwords(passwords: Sequence[Mapping[str, Any]]) -> None:
    words = {
        True: Cell("the one of the files", style=GOOD),
        False: Cell("ANOTHER ONE", style=BAD),
        None: Cell("unknown", style=CAREFUL),
    }
    columns = [Column("service"), Column("role"), Column("the database has")]
    rows = [
        [Cell(p["service"]), Cell(p["role"] or ""), words[p["agrees"]], Cell(p["why"] or "")]
        for p in passwords
    ]
    columns.append(Column("why", is_prose=True))
    tables.print_table(columns, rows, title="passwords of its databases")


def _print_predecessors(predecessors: Sequence[Mapping[str, Any]]) -> None:
    columns = [
        Column("volume"),
        Column("size", 1, is_number=True),
        Column("may be an earlier"),
        Column("why", is_prose=True),
    ]
    rows = [
        [Cell(p["volume"]), tables.size_cell(p["bytes"]), Cell(p["of"]), Cell(p["why"])]
        for p in predecessors
    ]
    tables.print_table(columns, rows, title="volumes that look like its own")


def _print_folders(folders: Sequence[Mapping[str, Any]]) -> None:
    columns = [
        Column("folder"),
        Column("content"),
        Column("services", 1),
        Column("file system", 2),
        Column("problems", is_prose=True),
    ]
    rows = [
        [
            Cell(f["path"]),
            Cell(f["kind"]),
            tables.names_cell(f["services"]),
            Cell(f["file_system"] or "unknown", f["file_system"] or ""),
            Cell("; ".join(f["problems"]), style=BAD),
        ]
        for f in folders
    ]
    tables.print_table(columns, rows, title="data in folders of the host")
