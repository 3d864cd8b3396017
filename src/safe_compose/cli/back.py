"""The verbs of the way back: undo, restore, trash."""

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose import (
    copies,
    grammar,
    piece,
    prompts,
    recover,
    restore,
    swap,
    volume_trash,
)
from safe_compose.cli.words import (
    AsJson,
    ComposeFile,
    Confirm,
    DryRun,
    IdentityFile,
    ProjectName,
    Silent,
    VolumeName,
    Wait,
    Yes,
    app,
    ask_yes,
    check_wait,
    down_of,
    print_json,
    tell_offsite,
    unlock,
)
from safe_compose.elsewhere import SCRATCH
from safe_compose.errors import UsageError
from safe_compose.plan import size_text
from safe_compose.process import utc_now
from safe_compose.world import World, enter


@app.command()
def undo(
    project: ProjectName = None,
    confirm: Confirm = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Bring back what the last guarded command in this project destroyed: volumes, content, running services."""
    world = enter(down_of(None, None))
    unlock(world.settings, identity)
    done = restore.undo(world, project=project, confirm=confirm, ask=not silent, dry_run=dry_run)
    _tell_way_back("undone", done, as_json=as_json)


@app.command("restore")
def restore_backup(
    id: Annotated[
        str | None, typer.Argument(help="A backup's id, a unique prefix of it, latest; or a dump: ./FILE.sql, .sql.gz, .dump.")
    ] = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    volume: VolumeName = None,
    database: Annotated[
        str | None, typer.Option("--database", help="Only this database, beside the living one and swapped in.")
    ] = None,
    path: Annotated[
        str | None, typer.Option("--path", help="Only this file or folder of a volume, while what uses it goes on.")
    ] = None,
    into: Annotated[
        str | None,
        typer.Option("--into", help="Not home: into this volume, this project (several; a dump), or a scratch one for a look."),
    ] = None,
    confirm: Confirm = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    source: Annotated[
        str | None, typer.Option("--from", help="Fetch it from this off-site destination first: NAME or URL.")
    ] = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Put the volumes of a backup back; what is there now is backed up first."""
    invocation = down_of(project, files)
    world = enter(invocation)
    unlock(world.settings, identity)
    if id is not None and ("/" in id or "." in id):  # no id of a backup has either
        if path is not None:
            raise UsageError("--path goes with a backup's id, not with a file; nothing was restored")
        _restore_file(world, invocation, Path(id), project, volume, database, into, confirm, silent, dry_run, as_json, source)
        return
    if source is not None:
        if id is None:
            raise UsageError(
                "restore --from needs a backup's id, or latest", next_step=f"safe-compose offsite list --from {source}"
            )
        where = copies.chosen(world.settings, source)
        kept, fetched = copies.pull(world.catalogue, where, id, project, dry_run=dry_run)
        if fetched.state == "would-fetch":
            tell_offsite("pull", [fetched], as_json=as_json)
            return
        prompts.say(f"safe-compose: {kept.id} {fetched.words}")
        id, project = kept.id, None
    if project is None and id in (None, "latest"):
        project = _project_here(world, invocation)
    if id is None:
        if silent:
            raise UsageError("with --non-interactive restore needs a backup's id", next_step="safe-compose list")
        id = prompts.choose_backup(world.catalogue.listed(project))
    kept = world.catalogue.find(id, project)
    if path is not None:
        if into is not None or database is not None:
            raise UsageError("--path goes into the living volume: give it without --into and --database")
        restore.usable(world, kept, elsewhere=source is not None)
        one = _only_one(volume)
        done = piece.restore(world, kept, volume=one, path=path, confirm=confirm, ask=not silent, dry_run=dry_run)
        _tell_way_back("restored", done, as_json=as_json)
        return
    if database is not None:
        restore.usable(world, kept, elsewhere=source is not None)
        dump = swap.Kept.of(world, kept, database, _only_one(volume))
        server, of = _server_of(world, into) or (dump.record.name, None)
        done = swap.restore(
            world, dump, volume=server, project=of, database=database, confirm=confirm, ask=not silent, dry_run=dry_run,
            scratch=into == SCRATCH,
        )  # fmt: skip
        _tell_way_back("restored", done, as_json=as_json)
        return
    done = restore.restore(
        world,
        kept,
        names=volume or (),
        confirm=confirm,
        ask=not silent,
        dry_run=dry_run,
        elsewhere=source is not None,
        into=into,
    )
    _tell_way_back("restored", done, as_json=as_json)


def _server_of(world: World, into: str | None) -> tuple[str | None, str | None] | None:
    """The volume or the project whose server `--into` names for one database; None where it names none."""
    if into in (None, SCRATCH):
        return None
    return (into, None) if world.engine.volume(str(into)) is not None else (None, into)


def _only_one(volumes: Sequence[str] | None) -> str | None:
    if volumes is not None and len(volumes) > 1:
        raise UsageError("one database or one path is of one volume: give --volume once; nothing was restored")
    return volumes[0] if volumes else None


def _restore_file(
    world: World,
    invocation: grammar.Invocation,
    path: Path,
    project: str | None,
    volume: Sequence[str] | None,
    database: str | None,
    into: str | None,
    confirm: str | None,
    silent: bool,
    dry_run: bool,
    as_json: bool,
    source: str | None,
) -> None:
    if source is not None:
        raise UsageError("--from goes with a backup's id, not with a file; nothing was restored")
    here = (_only_one(volume), project or (None if volume else _project_here(world, invocation)))
    server, of = _server_of(world, into) or here
    dump = swap.from_file(world, path, database=database, volume=server, project=of)
    done = swap.restore(
        world, dump, volume=server, project=of, database=database, confirm=confirm, ask=not silent, dry_run=dry_run,
        scratch=into == SCRATCH,
    )  # fmt: skip
    _tell_way_back("restored", done, as_json=as_json)


def _project_here(world: World, invocation: grammar.Invocation) -> str | None:
    """The project of this folder, found as compose does; None where there is none: then every project is meant."""
    found = world.engine.look(invocation).project
    return found.name if found is not None and (found.mode == "config" or world.catalogue.listed(found.name)) else None


def _tell_way_back(title: str, done: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({title: done})
        return
    for line in done.get("plan", ()):
        sys.stdout.write(line + "\n")
    statistics = done.get("statistics")
    if statistics:
        columns = ["volume", "database", *(f"{side}: tables, rows" for side in ("before", "backup", "now"))]
        prompts.table("databases", columns, [_sides(row) for row in statistics])


@app.command("trash")
def look_after_trash(
    action: Annotated[str, typer.Argument(help="list, restore or empty.")],
    ids: Annotated[list[str] | None, typer.Argument(help="Items' ids, unique prefixes of them, or names of volumes.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="With empty: only what is older than 30 days.")] = False,
    confirm: Confirm = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """The content of volumes that were deleted without a copy: list it, restore it, or empty the trash for good."""
    if action not in ("list", "restore", "empty"):
        raise UsageError(f"trash takes list, restore or empty, not {action!r}", next_step="safe-compose trash --help")
    if expired and (action != "empty" or ids):
        raise UsageError("--expired goes with empty, and without ids")
    if action == "restore" and not ids:
        raise UsageError("trash restore needs an id", next_step="safe-compose trash list")
    check_wait(wait)
    world = enter(down_of(None, None))
    with closing(world.engine):
        if action != "list" and not dry_run:
            recover.recover(world.engine, world.catalogue, world.journal, but=world.engine.run_id)
        chosen = volume_trash.find(world.engine, ids) if ids else volume_trash.items(world.engine)
        if action == "list":
            _tell_trash(world, chosen, as_json=as_json)
        elif action == "restore":
            names = {item.record.name: item for item in chosen}
            if len(names) != len(chosen) or len({item.project for item in chosen}) != 1:
                raise UsageError("trash restore takes items of one project, and of each volume one")
            kept = volume_trash.as_backup(world.engine, chosen)
            done = restore.restore(world, kept, names=(), confirm=confirm, ask=not silent, dry_run=dry_run, trash=names)
            _tell_way_back("restored", done, as_json=as_json)
        else:
            going = [item for item in chosen if not expired or item.has_expired(utc_now())]
            if not as_json:
                _tell_trash(world, going, as_json=False)
            if going and not dry_run:
                sys.stdout.flush()
                _agree_to_empty(going, yes=yes, confirm=confirm, ask=not silent)
                volume_trash.empty(world, going, wait=wait)
            if as_json:
                print_json({"emptied": [item.id for item in going], "done": not dry_run})


def _tell_trash(world: World, chosen: Sequence[volume_trash.Item], *, as_json: bool) -> None:
    sizes = world.engine.sizes([item.volume for item in chosen]) if chosen else {}
    holders = {item.id: world.engine.lock_of(item.volume) for item in chosen}
    held = {name: holder is not None and holder.state == "running" for name, holder in holders.items()}
    if as_json:
        shapes = [
            {
                "id": item.id, "volume": item.record.name, "project": item.project, "kind": item.record.data_kind,
                "created": item.created, "expires": item.expires, "expired": item.has_expired(utc_now()),
                "bytes": sizes.get(item.volume), "held": held[item.id],
            }
            for item in chosen
        ]  # fmt: skip
        print_json({"trash": shapes})
        return
    rows = [
        (item.id, item.record.name, item.project, size_text(sizes.get(item.volume)), item.created,
         "EXPIRED" if item.has_expired(utc_now()) else item.expires, "held" if held[item.id] else "NOT HELD")
        for item in chosen
    ]  # fmt: skip
    prompts.table("trash", ["id", "volume", "project", "size", "since", "expires", ""], rows)


def _agree_to_empty(going: Sequence[volume_trash.Item], *, yes: bool, confirm: str | None, ask: bool) -> None:
    """A yes for what has expired; the phrase while any item has not. Raises Refused."""
    if all(item.has_expired(utc_now()) for item in going):
        ask_yes(f"Delete these {len(going)} items for good?", yes=yes)
        return
    phrase = f"delete {len(going)} items"
    prompts.ask_phrase("To delete them for good", phrase, confirm, ask=ask, nothing="nothing was deleted")


def _sides(row: dict[str, Any]) -> list[str]:
    sides = [row[side] for side in ("before", "backup", "now")]
    return [row["volume"], row["database"], *(f"{s['tables']}, {s['rows']}" if s else "-" for s in sides)]
