"""The verbs for volumes and their protection."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from safe_compose.cli.options import (
    AsJson,
    Confirm,
    NonInteractive,
    ProjectName,
    Utc,
    VolumeName,
    Yes,
    app,
    ask_yes,
    make_down,
    print_json,
)
from safe_compose.core import backup_set, policy
from safe_compose.core.backup import BackupSummary
from safe_compose.core.observed import VOLUME_LABEL, Observed, Volume
from safe_compose.core.quantities import format_stamp
from safe_compose.core.short_id import shorten_ids
from safe_compose.core.text import join_for_shell
from safe_compose.core.tier import Tier
from safe_compose.errors import DockerNotFound, EngineUnavailable, UsageError
from safe_compose.grammar.spelling import find_near
from safe_compose.operations import deletion_lock
from safe_compose.operations.doctor import losses
from safe_compose.operations.verdicts import judge
from safe_compose.settings import load
from safe_compose.store.protections import ProtectionStores
from safe_compose.system.process import read_clock, stamp
from safe_compose.ui import report_layout, tables, terminal
from safe_compose.ui.table_layout import BAD, CAREFUL, GOOD, Cell, Column
from safe_compose.workspace import Workspace, open_workspace

EveryVolume = Annotated[
    bool, typer.Option("--all", help="Every volume of the engine, not only this project's.")
]
LONGEST_LIFT = 7 * 24 * 3600
"""Seconds for which a protection may be lifted."""


@app.command()
def volumes(
    every: EveryVolume = False,
    project: ProjectName = None,
    names: VolumeName = None,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Show this project's volumes with tier, reason, lock and last verified backup."""
    if every and project is not None:
        raise UsageError("volumes takes --all or --project, not both")
    invocation = make_down(project, None)
    workspace = open_workspace(invocation)
    # with the project of this folder, whose compose file may set tiers
    observed = workspace.engine.commands.look(invocation)
    rules = workspace.rules(observed)
    observed = workspace.trusting(observed)
    chosen = _choose_volumes(observed, names or (), every=every)
    first = [(v, policy.judge(v, observed, rules, None)) for v in chosen]
    inspected = judge(workspace, [v for v, verdict in first if verdict.looks], observed, rules)
    verdicts = {verdict.volume: verdict for verdict in inspected}
    shown = [
        _ShownVolume(v, verdicts.get(v.name, verdict), [c.name for c in observed.users(v.name)])
        for v, verdict in first
    ]
    locks = deletion_lock.read_states(workspace, observed)
    of = None if every or observed.project is None else observed.project.name
    copies = _find_copies(workspace, shown)
    lost = _describe_losses(workspace, shown, of)
    if as_json:
        newest = workspace.newest_verified()
        print_json(
            {
                "losses": lost,
                "volumes": [
                    {
                        "name": one.volume.name,
                        "project": one.volume.project,
                        "tier": one.verdict.tier.value,
                        "why": one.verdict.why,
                        "kind": one.verdict.kind,
                        "in_use_by": one.users,
                        "lock": locks[one.volume.name],
                        "last_backup": newest.get(one.volume.name),
                        "elsewhere": copies[one.volume.name],
                    }
                    for one in shown
                ],
            }
        )
        return
    moments = tables.Moments(read_clock(), utc)
    _print_losses(lost)
    _print_volumes(shown, locks, copies, workspace, moments, project=of)


class _ShownVolume(NamedTuple):
    """A volume with what is known of it."""

    volume: Volume
    verdict: policy.Verdict
    users: list[str]


def _choose_volumes(observed: Observed, names: Sequence[str], *, every: bool) -> Sequence[Volume]:
    """Return the named volumes, or this folder's project's, or all where there is no project here.

    Raises:
        UsageError: There is no volume of such a name.
    """
    if names:
        chosen = [v for v in observed.volumes if v.name in names]
        if missing := sorted(set(names) - {v.name for v in chosen}):
            raise UsageError(
                f"there is no volume {', '.join(missing)} on {observed.endpoint}",
                next_step="safe-compose volumes --all",
            )
        return chosen
    if every:
        return observed.volumes
    if observed.project is None:
        terminal.say("safe-compose: no compose project in this folder: all volumes of the engine")
        return observed.volumes
    return backup_set.select_volumes(observed).volumes


def _find_copies(
    workspace: Workspace, shown: Sequence[_ShownVolume]
) -> Mapping[str, Mapping[str, str] | None]:
    """Return, of each volume, the newest verified copy off this machine: `created`, `at`."""
    verified = [
        b
        for b in workspace.catalogue.reader.list_summaries()
        if b.counts and b.engine_id == workspace.engine.id
    ]
    known = {v.volume.name: losses.describe_copies(v.volume.name, verified) for v in shown}
    return {
        name: {"created": one["elsewhere"], "at": one["at"]} if one["elsewhere"] else None
        for name, one in known.items()
    }


def _describe_losses(
    workspace: Workspace, shown: Sequence[_ShownVolume], project: str | None
) -> list[dict[str, Any]]:
    """Return what the project loses if this machine dies; nothing where there is no project."""
    names = [v.volume.name for v in shown if v.verdict.tier is not Tier.DISPOSABLE]
    if project is None or not names:
        return []
    return [losses.describe_losses(project, names, workspace.catalogue.reader.list_summaries())]


def _print_losses(lost: Sequence[Mapping[str, Any]]) -> None:
    """Print what would be lost, where a person reads it."""
    if lost and tables.is_for_people():
        for line in report_layout.lay_report(
            losses.HEADING,
            list(losses.format_losses(lost, read_clock())),
            (),
            width=tables.measure_width(),
            height=None,
            more="",
        ):
            tables.print_line(*line)


def _print_volumes(
    shown: Sequence[_ShownVolume],
    locks: Mapping[str, str | None],
    copies: Mapping[str, Mapping[str, str] | None],
    workspace: Workspace,
    moments: tables.Moments,
    *,
    project: str | None,
) -> None:
    """Print the volumes; `project` is whose they are, None for all of the engine."""
    newest = workspace.find_newest()
    shorten = shorten_ids(workspace.catalogue.reader.list_ids())
    columns = [
        Column("volume"),
        Column("project", 3),
        Column("tier"),
        Column("last verified backup"),
        Column("lock", 1),
        Column("used by", 2),
        Column("why", is_prose=True),
        Column("off this machine", 1),
    ]
    rows = [
        [
            Cell(one.volume.name),
            Cell("" if project else one.volume.project or "", one.volume.project or ""),
            Cell(one.verdict.tier.value),
            _newest_cell(newest.get(one.volume.name), one.verdict.tier, shorten, moments),
            _lock_cell(locks[one.volume.name]),
            tables.names_cell(one.users),
            Cell(one.verdict.why),
            _copy_cell(copies[one.volume.name], one.verdict.tier, moments),
        ]
        for one in shown
    ]
    whose = f"project {project} has no volumes yet; every one of the engine: safe-compose volumes"
    none = f"no volumes on {workspace.engine.endpoint} yet"
    tables.print_table(columns, rows, empty=f"{whose} --all" if project else none)


def _newest_cell(
    backup: BackupSummary | None,
    tier: Tier,
    shorten: Callable[[str], str],
    moments: tables.Moments,
) -> Cell:
    if backup is None:
        missed = tier is not Tier.DISPOSABLE
        return Cell("none" if missed else "-", "", CAREFUL if missed else "")
    age = moments.cell(backup.created, none="unknown").text
    return Cell(f"{age} ({shorten(backup.id)}, {backup.level})", backup.id, GOOD)


def _copy_cell(copy: Mapping[str, str] | None, tier: Tier, moments: tables.Moments) -> Cell:
    if copy is None:
        missed = tier is not Tier.DISPOSABLE
        return Cell("none" if missed else "-", "", CAREFUL if missed else "")
    cell = moments.cell(copy["created"], style=GOOD)
    return cell._replace(text=f"{cell.text} ({copy['at']})")


def _lock_cell(state: str | None) -> Cell:
    style = {None: "", "running": GOOD}.get(state, CAREFUL if state == "created" else BAD)
    return Cell(deletion_lock.WORDS[state] if state else "", state or "", style)


@app.command()
def protect(
    names: Annotated[list[str], typer.Argument(help="Volume names.")],
    tier: Annotated[str, typer.Option(help="critical or important.")] = "critical",
    locked: Annotated[
        bool,
        typer.Option("--lock", help="Have docker itself refuse to delete them, to every client."),
    ] = False,
    ahead: Annotated[
        bool, typer.Option("--ahead", help="Also of volumes that are not made yet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set the lowest tier of volumes, whatever files say; --lock: docker refuses to delete them."""
    if tier not in (Tier.CRITICAL.value, Tier.IMPORTANT.value):
        raise UsageError(f"--tier takes critical or important, not {tier!r}; nothing was changed")
    if locked:
        workspace = open_workspace(make_down(None, None))
        with closing(workspace.engine):
            deletion_lock.create(workspace, names, Tier(tier))
            states = {
                name: lock.state if (lock := workspace.engine.locks.find(name)) else None
                for name in names
            }
        _tell_protected(names, tier, states, as_json=as_json)
        return
    protections = ProtectionStores.of(load.load(Path.cwd(), dict(os.environ)))
    if not ahead and all(names):
        _require_existing(names)
    for name in names:
        protections.protect([name], Tier(tier))
        terminal.say(f"safe-compose: {name} is at least {tier} from now on")
    _tell_protected(names, tier, {}, as_json=as_json)


def _tell_protected(
    names: Sequence[str], tier: str, locks: Mapping[str, str | None], *, as_json: bool
) -> None:
    if as_json:
        shapes = [{"name": name, "tier": tier, "lock": locks.get(name)} for name in names]
        print_json({"protected": shapes})


@app.command()
def unprotect(
    names: Annotated[list[str], typer.Argument(help="Volume names.")],
    minutes: Annotated[str | None, typer.Option("--for", help="Only for a while: 10m, 2h.")] = None,
    confirm: Confirm = None,
    non_interactive: NonInteractive = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take protections and locks away, for good or for a while."""
    until = datetime.now(UTC) + _parse_duration(minutes) if minutes else None
    how_long = f"until {format_stamp(stamp(until))}" if until else "for good"
    protections = ProtectionStores.of(load.load(Path.cwd(), dict(os.environ)))
    workspace = _open_workspace()
    locked = deletion_lock.list_held(workspace, names) if workspace is not None else []
    protections.require_protected([name for name in names if name not in locked])
    if locked:
        phrase = locked[0] if len(locked) == 1 else f"unlock {len(locked)} volumes"
        terminal.ask_phrase(
            f"To let docker delete {', '.join(locked)} again",
            phrase,
            confirm,
            ask=not non_interactive,
            nothing="nothing was changed",
        )
    else:
        ask_yes(
            f"Take the protection of {', '.join(names)} away {how_long}?",
            yes=yes,
            ask=not non_interactive,
        )
    for name in names:
        protections.unprotect(name, until=until)
        if workspace is not None and name in locked:
            workspace.engine.locks.unlock(name)
        terminal.say(
            f"safe-compose: {name} is no longer {'locked and ' if name in locked else ''}protected"
            f" {how_long}"
        )
    if locked and until:
        terminal.say(
            "safe-compose: the first safe-compose command after that locks it again; at once:"
            " safe-compose protect --lock"
        )
    if as_json:
        ends = stamp(until) if until else None
        shapes = [{"name": name, "until": ends, "unlocked": name in locked} for name in names]
        print_json({"unprotected": shapes})


def _require_existing(names: Sequence[str]) -> None:
    """Check that there is a volume of each name.

    Where no daemon answers nothing is looked up, which is reported.

    Raises:
        UsageError: There is none. It names those that may be meant: a key of a compose file is no
            volume's name.
    """
    workspace = _open_workspace("whether there are such volumes was not looked up")
    if workspace is None:
        return
    with closing(workspace.engine):
        seen = workspace.engine.commands.look(make_down(None, None))
        existing = {v.name for v in seen.volumes}
        if not (missing := [name for name in names if name not in existing]):
            return
        meant = [v for v in seen.volumes if v.labels.get(VOLUME_LABEL) in missing]
        here = [
            v.name for v in meant if seen.project is not None and v.project == seen.project.name
        ]
        meant_names = here or ([v.name for v in meant] if len(meant) == 1 else [])
        near = (find_near(name, existing) for name in missing)
        meant_names = sorted(meant_names or {name for name in near if name is not None})
        hint = f"; did you mean {', '.join(meant_names)}?" if meant_names else ""
        raise UsageError(
            f"there is no volume {', '.join(missing)} on {workspace.engine.endpoint}; nothing was"
            f" changed{hint}",
            next_step=(
                f"safe-compose protect {join_for_shell(meant_names)}"
                if meant_names
                else (
                    "docker volume ls; for volumes that are not made yet: safe-compose protect"
                    f" --ahead {join_for_shell(missing)}"
                )
            ),
        )


def _open_workspace(otherwise: str = "should there be a lock, it stays") -> Workspace | None:
    """Return the workspace of this folder, or None when no daemon answers.

    That is reported, with its consequences.
    """
    try:
        return open_workspace(make_down(None, None))
    except (EngineUnavailable, DockerNotFound) as fault:
        terminal.say(f"safe-compose: {fault.message}; {otherwise}")
        return None


def _parse_duration(text: str) -> timedelta:
    units = {"s": 1, "m": 60, "h": 3600}
    if len(text) < 2 or text[-1] not in units or not text[:-1].isdecimal() or not text.isascii():
        raise UsageError(f"--for takes a number and s, m or h, such as 10m; not {text!r}")
    seconds = int(text[:-1][:12]) * units[text[-1]]
    if not 0 < seconds <= LONGEST_LIFT:
        raise UsageError(
            f"--for takes at most {LONGEST_LIFT // 3600}h, not {text!r}; without it the protection"
            " ends for good"
        )
    return timedelta(seconds=seconds)
