"""The verb for volumes that were deleted without a copy."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer

from safe_compose.cli.actions import add_verb
from safe_compose.cli.options import (
    AsJson,
    Confirm,
    DryRun,
    NonInteractive,
    ProjectName,
    Utc,
    Wait,
    Yes,
    ask_yes,
    check_wait,
    make_down,
    print_json,
)
from safe_compose.cli.restore import tell_restored
from safe_compose.core.quantities import count
from safe_compose.core.short_id import shorten_ids
from safe_compose.errors import UsageError
from safe_compose.operations import trash
from safe_compose.operations.recover.run import recover
from safe_compose.operations.restore import undo as restore_undo
from safe_compose.operations.restore.request import GivenAnswer, RestoreChoice
from safe_compose.system.process import read_clock
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import BAD, CAREFUL, GOOD, Cell, Column
from safe_compose.workspace import Workspace, open_workspace

_COLUMNS = (
    Column("id"),
    Column("volume"),
    Column("project", 2),
    Column("size", 1, is_number=True),
    Column("deleted"),
    Column("kept until"),
    Column("lock"),
)
_ITEMS = "Items' ids, short ids, or names of volumes."

DeletedVolume = Annotated[
    list[str] | None,
    typer.Option("--volume", help="Only what was deleted of this volume; may be repeated."),
]

trash_app = add_verb("trash")


@trash_app.callback()
def _describe_trash() -> None:
    """List, restore, or delete for good the content of volumes that were deleted without a copy."""


@trash_app.command("list")
def list_trash(
    ids: Annotated[list[str] | None, typer.Argument(help=_ITEMS)] = None,
    project: ProjectName = None,
    volumes: DeletedVolume = None,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """List what is in the trash."""
    with _opening(recovering=False) as workspace:
        chosen = _narrow(_choose(workspace, ids), project, volumes or (), required=False)
        narrowed = bool((project or volumes) and not ids)
        _tell_trash(workspace, chosen, utc=utc, as_json=as_json, narrowed=narrowed)


@trash_app.command("restore")
def restore_from_trash(
    ids: Annotated[list[str] | None, typer.Argument(help=_ITEMS)] = None,
    project: ProjectName = None,
    volumes: DeletedVolume = None,
    confirm: Confirm = None,
    non_interactive: NonInteractive = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Restore items of one project."""
    if not (ids or project or volumes):
        raise UsageError(
            "trash restore needs an id, --volume or --project", next_step="safe-compose trash list"
        )
    with _opening(recovering=not dry_run) as workspace:
        chosen = _narrow(_choose(workspace, ids), project, volumes or (), required=True)
        if not (ids or volumes):
            own = trash.Trash(workspace.engine, workspace.journal)
            chosen = [item for item in chosen if own.is_own(item)]
        answer = GivenAnswer(confirm, not non_interactive, dry_run)
        tell_restored("restored", _restore(workspace, chosen, answer), as_json=as_json)


@trash_app.command("empty")
def empty_trash(
    ids: Annotated[list[str] | None, typer.Argument(help=_ITEMS)] = None,
    project: ProjectName = None,
    volumes: DeletedVolume = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="Only what is older than 30 days; goes without ids.")
    ] = False,
    confirm: Confirm = None,
    non_interactive: NonInteractive = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Delete items for good."""
    if expired and ids:
        raise UsageError("--expired goes without ids")
    check_wait(wait)
    with _opening(recovering=not dry_run) as workspace:
        chosen = _narrow(_choose(workspace, ids), project, volumes or (), required=True)
        doomed = [item for item in chosen if not expired or item.has_expired(read_clock())]
        own = trash.Trash(workspace.engine, workspace.journal)
        if ids or volumes:
            own.require_own(doomed)
        doomed = [item for item in doomed if own.is_own(item)]
        if not as_json:
            _tell_trash(workspace, doomed, utc=utc)
        if doomed and not dry_run:
            terminal.flush()
            _confirm_emptying(doomed, yes=yes, confirm=confirm, ask=not non_interactive)
            trash.empty(workspace, doomed, wait=wait)
        if as_json:
            print_json({"emptied": [item.id for item in doomed], "done": not dry_run})


@contextmanager
def _opening(*, recovering: bool) -> Iterator[Workspace]:
    """Open the workspace of this folder; `recovering` finishes or reverts what was cut off."""
    workspace = open_workspace(make_down(None, None))
    with closing(workspace.engine):
        if recovering:
            recover(
                workspace.engine,
                workspace.catalogue,
                workspace.journal,
                own_run=workspace.engine.run_id,
            )
        yield workspace


def _choose(workspace: Workspace, ids: Sequence[str] | None) -> Sequence[trash.TrashItem]:
    """Return the named items; where none is named, all of them."""
    if ids:
        return trash.Trash(workspace.engine, workspace.journal).find(ids)
    return trash.list_items(workspace.engine)


def _narrow(
    items: Sequence[trash.TrashItem],
    project: str | None,
    volumes: Sequence[str],
    *,
    required: bool,
) -> list[trash.TrashItem]:
    """Return the items of a project and of these volumes; all where neither is given.

    Raises:
        UsageError: There is none of such a project or volume, and it is `required`.
    """
    found = [
        item
        for item in items
        if project in (None, item.project) and (not volumes or item.record.name in volumes)
    ]
    missing = sorted(set(volumes) - {item.record.name for item in found})
    if required and (missing or (project is not None and not found)):
        of = f" of project {project}" if project is not None else ""
        what = f"volume {', '.join(missing)}" if missing else "item"
        raise UsageError(
            f"there is no {what}{of} in the trash; nothing was changed",
            next_step="safe-compose trash list",
        )
    return found


def _restore(
    workspace: Workspace, chosen: Sequence[trash.TrashItem], answer: GivenAnswer
) -> dict[str, Any]:
    """Restore items of one project, and return the report.

    Raises:
        UsageError: They are of several projects, or two are of one volume.
    """
    own = trash.Trash(workspace.engine, workspace.journal)
    own.require_own(chosen)
    names = {item.record.name: item for item in chosen}
    if len(names) != len(chosen) or len({item.project for item in chosen}) != 1:
        raise UsageError("trash restore takes items of one project, and of each volume one")
    backup = own.make_backup(chosen)
    return restore_undo.restore(workspace, backup, RestoreChoice(trash=names), answer)


def _tell_trash(
    workspace: Workspace,
    chosen: Sequence[trash.TrashItem],
    *,
    utc: bool = False,
    as_json: bool = False,
    narrowed: bool = False,
) -> None:
    sizes = workspace.engine.docker.sizes([item.volume for item in chosen]) if chosen else {}
    holders = {item.id: workspace.engine.locks.find(item.volume) for item in chosen}
    held = {
        name: holder is not None and holder.state == "running" for name, holder in holders.items()
    }
    if as_json:
        shapes = [
            {
                "id": item.id, "volume": item.record.name, "project": item.project,
                "kind": item.record.data_kind, "created": item.created, "expires": item.expires,
                "expired": item.has_expired(read_clock()), "bytes": sizes.get(item.volume),
                "held": held[item.id],
            }
            for item in chosen
        ]  # fmt: skip
        print_json({"trash": shapes})
        return
    empty = (
        "the trash is empty; to delete without a copy, type the phrase trash NAME at a confirmation"
    )
    none = "the trash has nothing of these; all of it: safe-compose trash list"
    shorten = shorten_ids(item.id for item in trash.list_items(workspace.engine))
    moments = tables.Moments(read_clock(), utc)
    rows = [
        _make_row(item, shorten(item.id), sizes.get(item.volume), held[item.id], moments)
        for item in chosen
    ]
    tables.print_table(_COLUMNS, rows, empty=none if narrowed else empty)


def _make_row(
    item: trash.TrashItem, short_id: str, size: int | None, is_held: bool, moments: tables.Moments
) -> list[Cell]:
    return [
        Cell(short_id, item.id),
        Cell(item.record.name),
        Cell(item.project),
        tables.size_cell(size),
        moments.cell(item.created, none="unknown"),
        Cell("EXPIRED", item.expires, CAREFUL)
        if item.has_expired(read_clock())
        else moments.cell(item.expires, none="unknown"),
        Cell("held", style=GOOD) if is_held else Cell("NOT HELD", style=BAD),
    ]


def _confirm_emptying(
    doomed: Sequence[trash.TrashItem], *, yes: bool, confirm: str | None, ask: bool
) -> None:
    """Ask for a yes if all items have expired, else for the phrase.

    Raises:
        Refused: The answer differs, or nobody can be asked.
    """
    if all(item.has_expired(read_clock()) for item in doomed):
        question = f"Delete {count(len(doomed), 'item')} for good?"
        ask_yes(question, yes=yes, ask=ask, nothing="nothing was deleted")
        return
    phrase = f"delete {count(len(doomed), 'item')}"
    terminal.ask_phrase(
        "To delete them for good", phrase, confirm, ask=ask, nothing="nothing was deleted"
    )
