"""The verbs that restore: undo and restore."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose.cli.latest import find_folder_project
from safe_compose.cli.offsite import tell_offsite
from safe_compose.cli.options import (
    AsJson,
    ComposeFile,
    Confirm,
    DryRun,
    IdentityFile,
    NonInteractive,
    ProjectName,
    VolumeName,
    app,
    make_down,
    print_json,
    read_location,
    read_locations,
    unlock,
)
from safe_compose.core.backup import Backup
from safe_compose.core.quantities import count
from safe_compose.core.relocation import SCRATCH
from safe_compose.core.text import shell_quote
from safe_compose.errors import UsageError
from safe_compose.grammar import parser
from safe_compose.operations import offsite
from safe_compose.operations.restore import finish as restore_finish
from safe_compose.operations.restore import layer as restore_layer
from safe_compose.operations.restore import path as restore_path
from safe_compose.operations.restore import undo as restore_undo
from safe_compose.operations.restore.database import run as restore_database
from safe_compose.operations.restore.database import sources
from safe_compose.operations.restore.extensions import require_extensions
from safe_compose.operations.restore.logins import require_logins
from safe_compose.operations.restore.request import GivenAnswer, RestoreChoice
from safe_compose.store import settings_approval
from safe_compose.ui import pickers, tables, terminal
from safe_compose.ui.table_layout import Cell, Column
from safe_compose.workspace import Workspace, open_workspace

BackupOrFile = Annotated[
    str | None,
    typer.Argument(help="A backup's id, its short id or latest; or a dump file (./FILE.sql)."),
]

DatabaseName = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="Only this database, loaded aside and swapped in.",
    ),
]

InnerPath = Annotated[
    str | None,
    typer.Option("--path", help="Only this file or folder; nothing is stopped."),
]

Into = Annotated[
    str | None,
    typer.Option(
        "--into",
        help="Another volume, folder or project; scratch: a new one.",
    ),
]

WithSettings = Annotated[
    bool,
    typer.Option(
        "--settings",
        help="Also the settings files of a dumped server.",
    ),
]

Finish = Annotated[
    bool,
    typer.Option(
        "--finish",
        help="Remove the folders that earlier restores replaced.",
    ),
]

Source = Annotated[
    str | None,
    typer.Option("--from", help="Fetch it from this off-site place first: NAME or URL."),
]


@app.command()
def undo(
    project: ProjectName = None,
    confirm: Confirm = None,
    non_interactive: NonInteractive = False,
    dry_run: DryRun = False,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Restore what the last guarded command in this project deleted: volumes, data, services."""
    workspace = open_workspace(make_down(None, None))
    unlock(workspace.settings, identity)
    done = restore_undo.undo(
        workspace, project=project, answer=GivenAnswer(confirm, not non_interactive, dry_run)
    )
    tell_restored("undone", done, as_json=as_json)


@app.command("restore")
def restore_backup(
    id: BackupOrFile = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    volume: VolumeName = None,
    database: DatabaseName = None,
    path: InnerPath = None,
    into: Into = None,
    settings: WithSettings = False,
    finish: Finish = False,
    confirm: Confirm = None,
    non_interactive: NonInteractive = False,
    dry_run: DryRun = False,
    source: Source = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup; what is there now is kept: in another backup, or under another name."""
    invocation = make_down(project, files)
    workspace = open_workspace(invocation)
    unlock(workspace.settings, identity)
    answer = GivenAnswer(confirm, not non_interactive, dry_run)
    if finish:
        others = (id, project, files, database, path, into, source)
        if settings or any(word is not None for word in others):
            raise UsageError("--finish goes with --volume alone; nothing was removed")
        finished = restore_finish.finish(
            workspace, read_locations(workspace.engine, volume), answer
        )
        if as_json:
            print_json({"finished": finished})
        return
    arguments = RestoreArguments(
        id=id, project=project, volumes=read_locations(workspace.engine, volume),
        database=database, path=path,
        into=read_location(workspace.engine, into) if into else into, settings=settings,
        answer=answer, source=source, as_json=as_json,
    )  # fmt: skip
    done = _restore(workspace, invocation, arguments)
    if done is not None:
        tell_restored("restored", done, as_json=as_json)


@dataclass(frozen=True, kw_only=True)
class RestoreArguments:
    """The arguments of `restore`, before anything is looked up."""

    id: str | None
    """A backup's id, a short one, `latest`, or a file's path; None: a person chooses."""
    project: str | None
    volumes: tuple[str, ...]
    database: str | None
    path: str | None
    into: str | None
    settings: bool
    answer: GivenAnswer
    source: str | None
    """The off-site destination to fetch it from first."""
    as_json: bool

    @property
    def is_file(self) -> bool:
        """Return whether `id` is the path of a file: no backup's id has a slash or a dot."""
        return self.id is not None and ("/" in self.id or "." in self.id)

    def only_volume(self) -> str | None:
        """Return the one volume that was named, or None.

        Raises:
            UsageError: Several were named.
        """
        if len(self.volumes) > 1:
            raise UsageError(
                "one database or one path is of one volume: give --volume once; nothing was"
                " restored"
            )
        return self.volumes[0] if self.volumes else None


def _restore(
    workspace: Workspace, invocation: parser.Invocation, arguments: RestoreArguments
) -> dict[str, Any] | None:
    """Restore and return the report, or None where only the copy to fetch first was shown."""
    if arguments.settings and (
        arguments.path is not None or arguments.database is not None or arguments.is_file
    ):
        raise UsageError(
            "--settings goes with whole volumes of a backup: give it without --path, --database and"
            " a file"
        )
    if arguments.is_file:
        return _restore_file(workspace, invocation, arguments)
    if arguments.project is None and arguments.id in (None, "latest"):
        here = find_folder_project(workspace.engine.commands, invocation, workspace.catalogue)
        arguments = replace(arguments, project=here)
    if arguments.source is not None:
        id = _fetch(workspace, arguments, arguments.source)
        if id is None:
            return None
        arguments = replace(arguments, id=id, project=None)
    backup = _choose(workspace, arguments)
    if arguments.path is not None:
        return _restore_path(workspace, backup, arguments, arguments.path)
    if arguments.database is not None:
        return _restore_database(workspace, backup, arguments, arguments.database)
    choice = RestoreChoice(
        arguments.volumes, source=arguments.source, into=arguments.into, settings=arguments.settings
    )
    return restore_layer.restore(workspace, backup, choice, arguments.answer)


def _fetch(workspace: Workspace, arguments: RestoreArguments, source: str) -> str | None:
    """Fetch the backup from a destination into the store and return its id.

    None where that was only shown.
    """
    if arguments.id is None:
        raise UsageError(
            "restore --from needs a backup's id, or latest",
            next_step=f"safe-compose offsite list --from {shell_quote(source)}",
        )
    settings_approval.require(workspace.whole or workspace.settings, "nothing was fetched")
    where = offsite.choose_destinations(workspace.settings, source)
    backup, fetched = offsite.pull(
        workspace.catalogue,
        where,
        arguments.id,
        arguments.project,
        dry_run=arguments.answer.dry_run,
    )
    if fetched.state == "would-fetch":
        tell_offsite("pull", [fetched], as_json=arguments.as_json)
        return None
    terminal.say(f"safe-compose: {backup.id} {fetched.words}")
    return backup.id


def _choose(workspace: Workspace, arguments: RestoreArguments) -> Backup:
    """Return the backup that was named, or that a person chooses now."""
    id = arguments.id
    if id is None:
        if not arguments.answer.may_ask:
            raise UsageError(
                "with --non-interactive restore needs a backup's id", next_step="safe-compose list"
            )
        id = pickers.choose_backup(workspace.catalogue.reader.list_summaries(arguments.project))
    reader = workspace.catalogue.reader
    backup = reader.find(
        id, arguments.project, holding=arguments.volumes, fits=_make_filter(arguments)
    )
    for newer in reader.list_passed_over(backup) if id == "latest" else ():
        terminal.say(
            f"safe-compose: latest is {backup.id}: {newer.id}, which is newer, was passed over"
            f" ({newer.broken or 'not verified'})"
        )
    return backup


def _restore_path(
    workspace: Workspace, backup: Backup, arguments: RestoreArguments, path: str
) -> dict[str, Any]:
    if arguments.into is not None or arguments.database is not None:
        raise UsageError(
            "--path goes into the volume itself: give it without --into and --database"
        )
    restore_undo.require_usable(workspace, backup, elsewhere=arguments.source is not None)
    return restore_path.restore(
        workspace, backup, volume=arguments.only_volume(), path=path, answer=arguments.answer
    )


def _restore_database(
    workspace: Workspace, backup: Backup, arguments: RestoreArguments, database: str
) -> dict[str, Any]:
    restore_undo.require_usable(workspace, backup, elsewhere=arguments.source is not None)
    dump = sources.BackupSource.of(
        workspace, backup, database, arguments.only_volume(), own=arguments.source is None
    )
    server, of = _find_server(workspace, arguments.into) or (dump.record.name, None)
    return _restore_dump(workspace, arguments, dump, server, of)


def _make_filter(arguments: RestoreArguments) -> Callable[[Backup], bool] | None:
    """Return the condition that `latest` must meet for one database or one path.

    A safety copy made before a restore may have no dump, a backup by dump no archive.

    Returns:
        None where any backup will do.
    """
    database, names = arguments.database, arguments.volumes
    if database is not None:
        return lambda backup: sources.has_dump(backup, database, names)
    if arguments.path is not None:
        return lambda backup: any(
            a.kind == "archive"
            for r in backup.volumes
            if not names or r.name in names
            for a in r.artifacts
        )
    return None


def _find_server(workspace: Workspace, into: str | None) -> tuple[str | None, str | None] | None:
    """Return (volume, project) of the server that `--into` names for one database, or None.

    Either the volume or the project is None.
    """
    if into in (None, SCRATCH):
        return None
    return (into, None) if workspace.engine.docker.volume(str(into)) is not None else (None, into)


def _restore_file(
    workspace: Workspace, invocation: parser.Invocation, arguments: RestoreArguments
) -> dict[str, Any]:
    if arguments.path is not None:
        raise UsageError("--path goes with a backup's id, not with a file; nothing was restored")
    if arguments.source is not None:
        raise UsageError("--from goes with a backup's id, not with a file; nothing was restored")
    volume = arguments.only_volume()
    here = (
        volume,
        arguments.project
        or (
            None
            if arguments.volumes
            else find_folder_project(workspace.engine.commands, invocation, workspace.catalogue)
        ),
    )
    server, of = _find_server(workspace, arguments.into) or here
    dump = sources.open_dump_file(
        workspace, Path(arguments.id or ""), database=arguments.database, volume=server, project=of
    )
    return _restore_dump(workspace, arguments, dump, server, of)


def _restore_dump(
    workspace: Workspace,
    arguments: RestoreArguments,
    dump: sources.DumpSource,
    server: str | None,
    of: str | None,
) -> dict[str, Any]:
    return restore_database.restore(
        workspace,
        dump,
        volume=server,
        project=of,
        database=arguments.database,
        answer=arguments.answer,
        scratch=arguments.into == SCRATCH,
    )


def tell_restored(title: str, done: dict[str, Any], *, as_json: bool) -> None:
    """Print what a restore or an undo did.

    Raises:
        OperationFailed: It is done, but a restored database needs an extension that its image does
            not have, or lets its own service in no more.
    """
    judged = {name: done[name] for name in ("logins", "missing_extensions") if name in done}
    if as_json:
        shapes = {name: [one.shape() for one in found] for name, found in judged.items()}
        print_json({title: {**done, **shapes}})
    else:
        _tell_statistics(done)
    require_extensions(judged.get("missing_extensions", ()))
    require_logins(judged.get("logins", ()))


def _tell_statistics(done: dict[str, Any]) -> None:
    for line in done.get("plan", ()):
        terminal.tell(line)
    statistics = done.get("statistics", ())
    if any(row["before"] is not None or row["now"] != row["backup"] for row in statistics):
        columns = [
            Column("volume", 1),
            Column("database"),
            *(Column(moment) for moment in ("before", "backup", "now")),
        ]
        tables.print_table(columns, [_format_counts(row) for row in statistics])


def _format_counts(row: dict[str, Any]) -> list[Cell]:
    counts = [row[moment] for moment in ("before", "backup", "now")]
    return [
        Cell(row["volume"]),
        Cell(row["database"]),
        *(
            Cell(f"{count(c['tables'], 'table')}, {count(c['rows'], 'row')}" if c else "-")
            for c in counts
        ),
    ]
