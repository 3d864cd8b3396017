"""The verb for copies of backups elsewhere."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose.cli.actions import add_verb
from safe_compose.cli.backups import COPY_STYLES
from safe_compose.cli.latest import choose_project
from safe_compose.cli.options import (
    BACKUP_ID,
    AsJson,
    DryRun,
    Every,
    IdentityFile,
    ProjectName,
    Utc,
    load_settings,
    print_json,
    unlock,
)
from safe_compose.core.backup import Backup
from safe_compose.core.backup_summary import BackupSummary, OffsiteCopy
from safe_compose.core.destination import Destination
from safe_compose.core.short_id import shorten_ids
from safe_compose.errors import UsageError, VerificationFailed
from safe_compose.offsite.signing import Signer
from safe_compose.operations import offsite as operations_offsite
from safe_compose.settings import load
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system.process import read_clock
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import BAD, GOOD, Cell, Column

Place = Annotated[
    str | None,
    typer.Option(
        "--to",
        "--from",
        help="The destination: a name of the settings, or a URL. Without it: all.",
    ),
]
BackupId = Annotated[str | None, typer.Argument(help=BACKUP_ID)]

offsite_app = add_verb("offsite")


@offsite_app.callback()
def _describe_offsite() -> None:
    """Push, pull, list and verify copies of backups elsewhere, or show what is known of them."""


@offsite_app.command("push")
def push_copies(
    id: BackupId = None,
    place: Place = None,
    project: ProjectName = None,
    every: Every = False,
    dry_run: DryRun = False,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Send the newest backup, or another, to the destinations."""
    wanted = _choose_id(id, every=every)
    settings = _load_settings(identity)
    catalogue = Catalogue.at(settings.store, settings.access)
    where = operations_offsite.choose_destinations(settings, place)
    of = project if every else choose_project(id, project, catalogue)
    backups = _choose_backups(catalogue, wanted, of)
    push = operations_offsite.push
    outcomes = [o for to in where for o in push(catalogue, backups, to, dry_run=dry_run)]
    _tell_outcomes("push", outcomes, as_json=as_json)


@offsite_app.command("pull")
def pull_copy(
    id: Annotated[str, typer.Argument(help=BACKUP_ID)],
    place: Place = None,
    project: ProjectName = None,
    dry_run: DryRun = False,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a copy into the store."""
    settings = _load_settings(identity)
    catalogue = Catalogue.at(settings.store, settings.access)
    where = operations_offsite.choose_destinations(settings, place)
    of = choose_project(id, project, catalogue)
    pulled = operations_offsite.pull(catalogue, where, id, of, dry_run=dry_run)
    _tell_outcomes("pull", [pulled[1]], as_json=as_json)


@offsite_app.command("list")
def list_offsite(
    place: Place = None,
    project: ProjectName = None,
    identity: IdentityFile = None,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """List the copies that the destinations hold."""
    settings = _load_settings(identity)
    where = operations_offsite.choose_destinations(settings, place)
    found = [(to, operations_offsite.list_all(to, project)) for to in where]
    _tell_listed(found, tables.Moments(read_clock(), utc), as_json=as_json)


@offsite_app.command("verify")
def verify_copies(
    id: BackupId = None,
    place: Place = None,
    project: ProjectName = None,
    every: Every = False,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Read copies back, from first to last byte."""
    wanted = _choose_id(id, every=every)
    settings = _load_settings(identity)
    catalogue = Catalogue.at(settings.store, settings.access)
    where = operations_offsite.choose_destinations(settings, place)
    of = project if every else choose_project(id, project, catalogue)
    verify = operations_offsite.verify
    outcomes = [o for to in where for o in verify(catalogue, to, wanted, of)]
    _tell_outcomes("verify", outcomes, as_json=as_json)


@offsite_app.command("status")
def show_copies(
    id: BackupId = None,
    project: ProjectName = None,
    every: Every = False,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Show what is known of each copy; no destination is asked."""
    _choose_id(id, every=every)
    settings = load_settings()
    catalogue = Catalogue.at(settings.store, settings.access)
    reader = catalogue.reader
    of = choose_project(id, project, catalogue) if id is not None else project
    one = [reader.find(id, of).summarize()] if id is not None else None
    copies = _list_copies(one or reader.list_summaries(project), settings)
    if as_json:
        print_json({"action": "status", "offsite": [_copy_shape(b, c) for b, c in copies]})
    else:
        moments = tables.Moments(read_clock(), utc)
        _print_copies(copies, shorten_ids(reader.list_ids()), moments)


@offsite_app.command("key")
def show_key(as_json: AsJson = False) -> None:
    """Print this machine's public key for signatures; it is made once."""
    settings = _load_settings(None)
    _tell_key(Signer(Path(settings.key_folder), settings.access), as_json=as_json)


def _load_settings(identity: Path | None) -> load.Settings:
    """Return the settings for what reaches a destination, with the keys of encrypted backups."""
    settings = load_settings(doing="nothing was sent, fetched or asked")
    unlock(settings, identity)
    return settings


def _choose_id(id: str | None, *, every: bool) -> str | None:
    """Return the id of the backup that is meant; None: all of them.

    Raises:
        UsageError: An id and `--all` do not go together.
    """
    if every and id is not None:
        raise UsageError("--all goes without an id")
    return None if every else id or "latest"


def _tell_outcomes(
    action: str, outcomes: Sequence[operations_offsite.CopyOutcome], *, as_json: bool
) -> None:
    """Print the outcomes, and raise the fault that the exit code is taken from."""
    tell_offsite(action, outcomes, as_json=as_json)
    _raise_worst(outcomes)


def _choose_backups(
    catalogue: Catalogue, wanted: str | None, project: str | None
) -> Sequence[Backup]:
    """Return the backup with an id; None: all that are not broken."""
    if wanted is not None:
        return [catalogue.reader.find(wanted, project)]
    return [b for b in catalogue.reader.backups(project) if b.broken is None]


def _raise_worst(outcomes: Sequence[operations_offsite.CopyOutcome]) -> None:
    """Raise the fault that the exit code is taken from, where there is one."""
    if faults := [o.fault for o in outcomes if o.fault is not None]:
        worst = next((f for f in faults if isinstance(f, VerificationFailed)), faults[0])
        many = f"{len(faults)} of {len(outcomes)} failed; the first: " if len(faults) > 1 else ""
        raise type(worst)(f"{many}{worst.message}", next_step=worst.next_step)


def _tell_key(signer: Signer, *, as_json: bool) -> None:
    """Print the public key for other machines' `verify_key`; a missing key is made."""
    key = signer.make()
    if as_json:
        print_json({"action": "key", "verify_key": key})
    else:
        terminal.tell(key)


def _tell_listed(
    found: Sequence[tuple[Destination, Sequence[Backup]]],
    moments: tables.Moments,
    *,
    as_json: bool,
) -> None:
    if as_json:
        shapes = [
            {
                "id": b.id, "seq": b.seq, "created": b.created, "project": b.project,
                "reason": b.reason, "bytes": b.bytes, "volumes": [v.name for v in b.volumes],
                "destination": to.name, "url": to.url, "fault": b.broken,
            }
            for to, backups in found
            for b in backups
        ]  # fmt: skip
        print_json({"action": "list", "offsite": shapes})
        return
    shorten = shorten_ids(b.id for _, backups in found for b in backups)
    columns = [
        Column("id"),
        Column("project"),
        Column("at"),
        Column("created"),
        Column("size", 1, is_number=True),
        Column("reason", 2),
        Column("volumes", 3),
        Column("fault", is_prose=True),
    ]
    rows = [
        [
            Cell(shorten(b.id), b.id),
            Cell(b.project),
            Cell(to.name),
            moments.cell(b.created, none="unknown"),
            tables.size_cell(b.bytes),
            Cell(b.reason),
            tables.names_cell([v.name for v in b.volumes]),
            Cell(b.broken or "", style=BAD),
        ]
        for to, backups in found
        for b in backups
    ]
    where = ", ".join(to.name for to, _ in found)
    tables.print_table(
        columns, rows, empty=f"no copies at {where} yet; send some: safe-compose offsite push --all"
    )


def _list_copies(
    backups: Sequence[BackupSummary], settings: load.Settings
) -> list[tuple[BackupSummary, OffsiteCopy]]:
    """Return what is known of each copy, at every destination of the settings and every other one.

    No destination is asked.
    """
    urls = {d.name: d.url for d in settings.offsite}
    found: list[tuple[BackupSummary, OffsiteCopy]] = []
    for b in backups:
        known = {c.name: c for c in b.offsite}
        names = dict.fromkeys([*urls, *known])
        found += [(b, known.get(name) or OffsiteCopy(name, urls[name])) for name in names]
    return found


def _copy_shape(backup: BackupSummary, copy: OffsiteCopy) -> dict[str, Any]:
    return {
        "id": backup.id,
        "project": backup.project,
        "destination": copy.name,
        "url": copy.url,
        "state": _format_state(copy),
        "pushed": copy.pushed,
        "verified": copy.verified,
        "fault": copy.fault,
    }


def _print_copies(
    copies: Sequence[tuple[BackupSummary, OffsiteCopy]],
    shorten: Callable[[str], str],
    moments: tables.Moments,
) -> None:
    columns = [
        Column("id"),
        Column("project", 1),
        Column("created", 2),
        Column("at"),
        Column("state"),
        Column("read back"),
        Column("fault", is_prose=True),
    ]
    cells = [
        [
            Cell(shorten(b.id), b.id),
            Cell(b.project),
            moments.cell(b.created, none="unknown"),
            Cell(c.name),
            Cell(_format_state(c), style=COPY_STYLES.get(_format_state(c), "")),
            moments.cell(c.verified),
            Cell(c.fault or "", style=BAD),
        ]
        for b, c in copies
    ]
    empty = (
        "no copies elsewhere; put [offsite.nas] and url = 'sftp://me@nas/copies' into"
        " ~/.config/safe-compose/config.toml, then: safe-compose offsite push --all"
    )
    tables.print_table(columns, cells, empty=empty)


def _format_state(copy: OffsiteCopy) -> str:
    unsent = copy.pushed is None and copy.verified is None and copy.fault is None
    return "never sent" if unsent else copy.state


def tell_offsite(
    action: str, outcomes: Sequence[operations_offsite.CopyOutcome], *, as_json: bool
) -> None:
    """Print the outcome of each copy, as lines or as JSON."""
    if as_json:
        print_json({"action": action, "offsite": [o.shape() for o in outcomes]})
        return
    for o in outcomes:
        good = GOOD if o.state == "verified" else ""
        tables.print_fields(
            Cell(o.id),
            Cell(o.destination.name),
            tables.size_cell(o.bytes),
            Cell("FAILED", style=BAD) if o.fault is not None else Cell(o.state, style=good),
            Cell(o.fault.message if o.fault is not None else o.words),
        )
