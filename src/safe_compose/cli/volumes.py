"""The verb that lists volumes."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import typer

from safe_compose.cli.options import (
    AsJson,
    ProjectName,
    Utc,
    VolumeName,
    app,
    make_down,
    print_json,
)
from safe_compose.core import backup_set, policy
from safe_compose.core.backup_summary import BackupSummary
from safe_compose.core.observed import (
    Location,
    Observed,
    Volume,
    describe_location,
    kind_of_location,
)
from safe_compose.core.short_id import shorten_ids
from safe_compose.core.tier import Tier
from safe_compose.errors import UsageError
from safe_compose.operations import deletion_lock, folders
from safe_compose.operations.backup import layers
from safe_compose.operations.doctor import losses
from safe_compose.operations.verdicts import judge
from safe_compose.system.process import read_clock
from safe_compose.ui import report_layout, tables, terminal
from safe_compose.ui.table_layout import BAD, CAREFUL, GOOD, Cell, Column
from safe_compose.workspace import Workspace, open_workspace

EveryVolume = Annotated[
    bool, typer.Option("--all", help="Every volume of the engine, not only this project's.")
]


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
    observed = folders.resolve(workspace.engine, workspace.trusting(observed))
    chosen = _choose_volumes(workspace, observed, names or (), every=every)
    shown = _inspect(workspace, observed, rules, chosen)
    of = None if every or observed.project is None else observed.project.name
    lost = _describe_losses(workspace, shown, of)
    if as_json:
        newest = workspace.newest_verified()
        print_json({"losses": lost, "volumes": [_to_json(one, newest) for one in shown]})
        return
    _print_losses(lost)
    _print_volumes(shown, workspace, tables.Moments(read_clock(), utc), project=of)


class _ShownVolume(NamedTuple):
    """A location with what is known of it."""

    location: Location
    verdict: policy.Verdict
    users: list[str]
    lock: str | None
    """The state of its lock, as in `deletion_lock.read_states`."""
    elsewhere: Mapping[str, str] | None
    """Its newest verified copy off this machine: `created`, `at`."""


def _inspect(
    workspace: Workspace, observed: Observed, rules: Sequence[policy.Rule], chosen: "_Chosen"
) -> list[_ShownVolume]:
    first: list[tuple[Location, policy.Verdict]] = [
        (v, policy.judge(v, observed, rules, None)) for v in chosen.volumes
    ]
    inspected = judge(workspace, [v for v, verdict in first if verdict.looks], observed, rules)
    verdicts = {verdict.volume: verdict for verdict in inspected}
    first += chosen.folders
    locks = deletion_lock.read_states(workspace, observed)
    copies = _find_copies(workspace, [v.name for v, _ in first])
    return [
        _ShownVolume(
            v,
            verdicts.get(v.name, verdict),
            _list_users(observed, chosen, v.name),
            locks.get(v.name),
            copies[v.name],
        )
        for v, verdict in first
    ]


def _list_users(observed: Observed, chosen: "_Chosen", name: str) -> list[str]:
    holder = chosen.holders.get(name)
    return [c.name for c in observed.users(name)] if holder is None else [holder]


def _to_json(one: _ShownVolume, newest: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": one.location.name,
        "location": one.location.kind,
        "project": one.location.project,
        "tier": one.verdict.tier.value,
        "why": one.verdict.why,
        "kind": one.verdict.kind,
        "in_use_by": one.users,
        "lock": one.lock,
        "last_backup": newest.get(one.location.name),
        "elsewhere": one.elsewhere,
    }


class _Chosen(NamedTuple):
    """The locations to show."""

    volumes: Sequence[Volume]
    folders: Sequence[tuple[Location, policy.Verdict]] = ()
    """Folders of the host and layers of containers that hold data."""
    holders: Mapping[str, str] = MappingProxyType({})
    """Name of what lies in a layer -> its container."""


def _choose_volumes(
    workspace: Workspace, observed: Observed, names: Sequence[str], *, every: bool
) -> _Chosen:
    """Return what is named, or this folder's project's, or all where there is no project here.

    Raises:
        UsageError: There is no volume of such a name, and no service mounts such a folder.
    """
    if names := folders.resolve_names(workspace.engine, names):
        volumes = [v for v in observed.volumes if v.name in names]
        paths = [name for name in names if kind_of_location(name) == "folder"]
        data = folders.find_folders(workspace, observed, paths).data if paths else ()
        found = {v.name for v in volumes} | {folder.name for folder, _ in data}
        if missing := sorted(set(names) - found):
            raise UsageError(
                f"{describe_location(missing[0])} is not on {observed.endpoint}"
                if missing[0] not in paths
                else f"no service of this project mounts {', '.join(missing)}",
                next_step="safe-compose volumes --all",
            )
        return _Chosen(volumes, data)
    if every:
        return _Chosen(observed.volumes)
    if observed.project is None:
        terminal.say("safe-compose: no compose project in this folder: all volumes of the engine")
        return _Chosen(observed.volumes)
    volumes_here = backup_set.select_volumes(observed).volumes
    of_layers = layers.find_locations(workspace.engine, observed)
    others = folders.find_folders(workspace, observed).data
    return _Chosen(
        volumes_here,
        (*others, *((location, verdict) for location, verdict, _ in of_layers)),
        {location.name: container for location, _, container in of_layers},
    )


def _find_copies(
    workspace: Workspace, names: Sequence[str]
) -> Mapping[str, Mapping[str, str] | None]:
    """Return, of each volume, the newest verified copy off this machine."""
    verified = [
        b
        for b in workspace.catalogue.reader.list_summaries()
        if b.counts and b.engine_id == workspace.engine.id
    ]
    known = {name: losses.describe_copies(name, verified) for name in names}
    return {
        name: {"created": one["elsewhere"], "at": one["at"]} if one["elsewhere"] else None
        for name, one in known.items()
    }


def _describe_losses(
    workspace: Workspace, shown: Sequence[_ShownVolume], project: str | None
) -> list[dict[str, Any]]:
    """Return what the project loses if this machine dies; nothing where there is no project."""
    names = [one.location.name for one in shown if one.verdict.tier is not Tier.DISPOSABLE]
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
            Cell(one.location.name),
            Cell("" if project else one.location.project or "", one.location.project or ""),
            Cell(one.verdict.tier.value),
            _newest_cell(newest.get(one.location.name), one.verdict.tier, shorten, moments),
            _lock_cell(one.lock),
            tables.names_cell(one.users),
            Cell(one.verdict.why),
            _copy_cell(one.elsewhere, one.verdict.tier, moments),
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
