"""The verb for backups that are made every day."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from safe_compose.cli.actions import ActionGroup, add_verb
from safe_compose.cli.options import (
    AsJson,
    ComposeFile,
    DryRun,
    IdentityFile,
    ProjectName,
    Utc,
    Yes,
    ask_yes,
    load_settings,
    make_down,
    make_lookup,
    print_json,
    unlock,
)
from safe_compose.core.quantities import format_stamp
from safe_compose.core.short_id import shorten_ids
from safe_compose.errors import SafeComposeError, UsageError
from safe_compose.operations.backup import omissions
from safe_compose.operations.schedule import run, systemd
from safe_compose.store import settings_approval
from safe_compose.store.schedules import Schedule, Schedules
from safe_compose.system.process import read_clock
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import BAD, CAREFUL, GOOD, Cell, Column
from safe_compose.workspace import Workspace, open_workspace, project_folder

At = Annotated[
    list[str] | None,
    typer.Option("--at", help="A time of day, 03:00 unless said; may be repeated."),
]
UnitFolder = Annotated[
    Path | None,
    typer.Option("--dir", help="Where the units are, instead of systemd's own folder."),
]


class _ScheduleGroup(ActionGroup):
    default = "status"


schedule_app = add_verb("schedule", group=_ScheduleGroup)


@schedule_app.callback()
def _describe_schedule() -> None:
    """Back up a project daily by systemd or cron, and show its runs."""


@schedule_app.command("install")
def install_schedule(
    at: At = None,
    folder: UnitFolder = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Write and start the systemd units of a daily backup."""
    with _opening_to_schedule(project, files, at) as (workspace, job):
        units = folder or systemd.find_folder(os.environ)
        _install_schedule(workspace, job, units, yes=yes, dry_run=dry_run, as_json=as_json)


@schedule_app.command("cron")
def print_cron(
    at: At = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the lines for a crontab that back up a project daily."""
    with _opening_to_schedule(project, files, at) as (_, job):
        _tell_cron(job, as_json=as_json)


@schedule_app.command("status")
def show_schedules(project: ProjectName = None, utc: Utc = False, as_json: AsJson = False) -> None:
    """Show every schedule and its last run; 1 if a person is needed."""
    _tell_schedules(project, utc=utc, as_json=as_json)


@schedule_app.command("run")
def run_schedule(
    at: At = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Make one scheduled run now; the timer and cron call this."""
    _run_scheduled(project, files, systemd.parse_times(at or ()), identity, as_json=as_json)


@schedule_app.command("remove")
def remove_schedule(
    folder: UnitFolder = None,
    project: ProjectName = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stop the daily backups of a project."""
    units = folder or systemd.find_folder(os.environ)
    _remove_schedule(project, units, yes=yes, dry_run=dry_run, as_json=as_json)


@contextmanager
def _opening_to_schedule(
    project: str | None, files: Sequence[str] | None, at: Sequence[str] | None
) -> Iterator[tuple[Workspace, systemd.Job]]:
    """Open the workspace of a project, with the job that backs it up; report what that omits."""
    times = systemd.parse_times(at or ["03:00"])
    invocation = make_down(project, files)
    workspace = open_workspace(invocation)
    with closing(workspace.engine):
        settings_approval.require(workspace.whole or workspace.settings, "nothing was scheduled")
        job = run.make_job(workspace, invocation, times)
        omissions.tell_omitted(run.list_omissions(workspace, make_lookup(project, files)))
        yield workspace, job


def _tell_cron(job: systemd.Job, *, as_json: bool) -> None:
    if as_json:
        print_json({"cron": systemd.make_cron_lines(job)})
        return
    for line in systemd.make_cron_lines(job):
        terminal.tell(line)
    terminal.say(
        "safe-compose: add that with `crontab -e`; `safe-compose schedule status` shows it after"
        " its first run"
    )


def _install_schedule(
    workspace: Workspace,
    job: systemd.Job,
    into: Path,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show the units, then write them and start the timer.

    With `--json` and without `--yes` they are only shown.
    """
    units = systemd.make_units(job)
    run.refuse_other(workspace, job)
    act = not dry_run and (yes or not as_json)
    if not as_json:
        for name, text in units.items():
            terminal.tell(f"write {into / name}")
            terminal.tell_lines(text.rstrip("\n"), indent="    ")
        terminal.flush()
    if act:
        systemd.check_listens()
        ask_yes(f"Write these {len(units)} files and start the timer?", yes=yes)
        run.install(workspace, job, units, into)
    begins = systemd.read_next_run(job.name) if act else None
    if as_json:
        files = [{"path": str(into / name), "text": text} for name, text in units.items()]
        shape = {"project": job.project, "at": list(job.at), "files": files, "next": begins}
        print_json({"schedule": {**shape, "done": act}})
    if not act:
        return
    terminal.say(
        f"safe-compose: {job.project} is backed up daily at {', '.join(job.at)}; next:"
        f" {format_stamp(begins or 'unknown')}"
    )
    if os.geteuid() != 0:
        terminal.say(
            "safe-compose: while you are logged out a timer of yours runs only after `loginctl"
            " enable-linger`"
        )


def _remove_schedule(
    project: str | None, folder: Path, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Take the schedule of a project away. With `--json` and without `--yes` it is only named."""
    settings = load_settings()
    schedules = Schedules(settings.store, settings.access)
    here = [
        r.project
        for r in schedules.all()
        if (r.project == project if project else Path(r.folder) == Path.cwd())
    ]
    if len(here) != 1:
        which = (
            f"there is no schedule of {project}"
            if project
            else f"{len(here)} schedules run in this folder"
        )
        raise UsageError(f"{which}; nothing was removed", next_step="safe-compose schedule status")
    act = not dry_run and (yes or not as_json)
    deleted: list[str] = []
    if act:
        ask_yes(f"Take the schedule of {here[0]} away?", yes=yes)
        names = [f"{systemd.make_unit_name(here[0])}.{ending}" for ending in ("service", "timer")]
        deleted = systemd.remove(names, folder)
        schedules.take_away(here[0])
    if as_json:
        print_json({"schedule": {"project": here[0], "deleted": deleted, "done": act}})
        return
    if not act:
        terminal.tell(f"take the schedule of {here[0]} away")
        return
    for path in deleted:
        terminal.say(f"safe-compose: deleted {path}")
    terminal.say(
        f"safe-compose: {here[0]} is no longer scheduled; a line in a crontab is yours to delete"
    )


def _tell_schedules(project: str | None, *, utc: bool, as_json: bool) -> None:
    settings = load_settings()
    schedules = Schedules(settings.store, settings.access)
    records = [r for r in schedules.all() if project is None or r.project == project]
    troubles = schedules.troubles(project)
    nexts = {
        r.project: (
            systemd.read_next_run(systemd.make_unit_name(r.project)) if r.how == "systemd" else None
        )
        for r in records
    }
    if as_json:
        shapes = [
            {
                "project": r.project, "folder": r.folder, "at": list(r.at), "how": r.how,
                "next": nexts[r.project], "began": r.began, "ended": r.ended, "good": r.good,
                "backup": r.backup, "trial": r.trial, "faults": list(r.faults),
                "trouble": troubles.get(r.project),
            }
            for r in records
        ]  # fmt: skip
        print_json({"schedules": shapes})
    else:
        _print_schedules(records, nexts, troubles, tables.Moments(read_clock(), utc))
    if troubles:
        raise typer.Exit(1)


def _print_schedules(
    records: Sequence[Schedule],
    nexts: Mapping[str, str | None],
    troubles: Mapping[str, str],
    moments: tables.Moments,
) -> None:
    columns = [
        Column("project"),
        Column("daily at"),
        Column("last good run"),
        Column("last run", 2),
        Column("backup", 1),
        Column("last trial", 3),
        Column("by", 4),
        Column("next", 5),
        Column("needs you", is_prose=True),
    ]
    shorten = shorten_ids(r.backup for r in records if r.backup)
    rows = [
        [
            Cell(r.project),
            Cell(", ".join(r.at)),
            moments.cell(r.good, style=CAREFUL if r.project in troubles else GOOD),
            moments.cell(r.began),
            Cell(shorten(r.backup) if r.backup else "none", r.backup or ""),
            moments.cell(r.trial),
            Cell(r.how),
            moments.cell(nexts[r.project], none=""),
            Cell(troubles.get(r.project, ""), style=BAD),
        ]
        for r in records
    ]
    empty = "no project is backed up daily; schedule this one: safe-compose schedule install"
    tables.print_table(columns, rows, empty=empty)


def _run_scheduled(
    project: str | None,
    files: Sequence[str] | None,
    at: Sequence[str],
    identity: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make one scheduled run and report it.

    Raises:
        SafeComposeError: The first fault of the run.
    """
    here = make_lookup(None, files)
    settings = load_settings(project_folder(here))
    try:
        unlock(settings, identity)
        workspace = open_workspace(here)
        with closing(workspace.engine):
            lookups = [here, make_lookup(project, files)] if project is not None else [here]
            outcome = run.run(workspace, lookups, project, at)
    except SafeComposeError as fault:
        if project is None:
            raise
        outcome = run.report_not_begun(settings, project, fault)
    run.tell(settings, outcome)
    if as_json:
        print_json({"run": outcome.shape()})
    if outcome.faults:
        raise outcome.faults[0]
