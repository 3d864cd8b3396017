"""The verb about backups that are made every day."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from safe_compose import config, prompts, schedule, timer
from safe_compose.cli.words import (
    AsJson,
    ComposeFile,
    DryRun,
    IdentityFile,
    ProjectName,
    Yes,
    app,
    ask_yes,
    down_of,
    print_json,
    unlock,
)
from safe_compose.errors import SafeComposeError, UsageError
from safe_compose.timetable import Timetable
from safe_compose.world import World, enter, project_folder


@app.command("schedule")
def keep_schedule(
    action: Annotated[str, typer.Argument(help="install, cron, status, run or remove.")] = "status",
    at: Annotated[list[str] | None, typer.Option("--at", help="A time of day, 03:00 unless said; may be repeated.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="Where the units go, instead of systemd's own folder.")] = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    identity: IdentityFile = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Back a project up every day by a systemd timer or cron, and show how that goes. 1 when a person is needed."""
    if action not in ("install", "cron", "status", "run", "remove"):
        raise UsageError(f"schedule takes install, cron, status, run or remove, not {action!r}; nothing was changed")
    times = timer.times(at or ["03:00"])
    if action == "status":
        _tell_schedules(project, as_json=as_json)
    elif action == "run":
        _run_scheduled(project, files, timer.times(at or ()), identity, as_json=as_json)
    elif action == "remove":
        _remove_schedule(project, folder or timer.folder(os.environ), yes=yes)
    else:
        invocation = down_of(project, files)
        world = enter(invocation)
        with closing(world.engine):
            job = schedule.job(world, invocation, times)
            if action == "cron":
                sys.stdout.write("".join(f"{line}\n" for line in timer.cron_lines(job)))
                prompts.say("safe-compose: add that with `crontab -e`; `safe-compose schedule status` shows it after its first run")
            else:
                _install_schedule(world, job, folder or timer.folder(os.environ), yes=yes, dry_run=dry_run)


def _install_schedule(world: World, job: timer.Job, into: Path, *, yes: bool, dry_run: bool) -> None:
    """Show the units, then write them and start the timer."""
    units = timer.units(job)
    schedule.refuse_other(world, job)
    for name, text in units.items():
        sys.stdout.write(f"write {into / name}\n" + "".join(f"    {line}\n" for line in text.rstrip("\n").split("\n")))
    sys.stdout.flush()
    if dry_run:
        return
    timer.check_listens()
    ask_yes(f"Write these {len(units)} files and start the timer?", yes=yes)
    schedule.put_in_place(world, job, units, into)
    prompts.say(f"safe-compose: {job.project} is backed up daily at {', '.join(job.at)}; next: {timer.next_run(job.name) or '?'}")
    if os.geteuid() != 0:
        prompts.say("safe-compose: while you are logged out a timer of yours runs only after `loginctl enable-linger`")


def _remove_schedule(project: str | None, folder: Path, *, yes: bool) -> None:
    settings = config.load(Path.cwd(), dict(os.environ))
    timetable = Timetable(settings.store, settings.access)
    here = [r.project for r in timetable.all() if (r.project == project if project else Path(r.folder) == Path.cwd())]
    if len(here) != 1:
        which = f"there is no schedule of {project}" if project else f"{len(here)} schedules run in this folder"
        raise UsageError(f"{which}; nothing was removed", next_step="safe-compose schedule status")
    ask_yes(f"Take the schedule of {here[0]} away?", yes=yes)
    names = [f"{timer.unit_name(here[0])}.{ending}" for ending in ("service", "timer")]
    for path in timer.remove(names, folder):
        prompts.say(f"safe-compose: deleted {path}")
    timetable.take_away(here[0])
    prompts.say(f"safe-compose: {here[0]} is no longer scheduled; a line in a crontab is yours to delete")


def _tell_schedules(project: str | None, *, as_json: bool) -> None:
    settings = config.load(Path.cwd(), dict(os.environ))
    timetable = Timetable(settings.store, settings.access)
    records = [r for r in timetable.all() if project is None or r.project == project]
    troubles = timetable.troubles(project)
    nexts = {r.project: timer.next_run(timer.unit_name(r.project)) if r.how == "systemd" else None for r in records}
    if as_json:
        shapes = [
            {
                "project": r.project, "folder": r.folder, "at": list(r.at), "how": r.how, "next": nexts[r.project],
                "began": r.began, "ended": r.ended, "good": r.good, "backup": r.backup, "trial": r.trial, "faults": list(r.faults),
                "trouble": troubles.get(r.project),
            }
            for r in records
        ]  # fmt: skip
        print_json({"schedules": shapes})
    else:
        rows = [
            (r.project, ", ".join(r.at), r.how, r.began or "-", r.good or "-", r.backup or "-", r.trial or "-") for r in records
        ]
        prompts.table("schedules", ["project", "daily at", "by", "last run", "last good", "backup", "last trial"], rows)
        sys.stdout.write("".join(f"needs a person: {name}: {trouble}\n" for name, trouble in troubles.items()))
    if troubles:
        raise typer.Exit(1)


def _run_scheduled(
    project: str | None, files: Sequence[str] | None, at: Sequence[str], identity: Path | None, *, as_json: bool
) -> None:
    """One run, as a timer calls it. Its first fault gives the exit code."""
    here = down_of(None, files)
    settings = config.load(project_folder(here), dict(os.environ))
    try:
        unlock(settings, identity)
        world = enter(here)
        with closing(world.engine):
            ways = [here, down_of(project, files)] if project is not None else [here]
            outcome = schedule.run(world, ways, project, at)
    except SafeComposeError as fault:
        if project is None:
            raise
        outcome = schedule.never_began(settings, project, fault)
    schedule.tell(settings, outcome)
    if as_json:
        print_json({"run": outcome.shape()})
    if outcome.faults:
        raise outcome.faults[0]
