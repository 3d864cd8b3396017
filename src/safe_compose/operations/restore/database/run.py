"""The restore of one database into a running server, from a backup or a dump file.

The dump is read completely, the server is inspected, and the plan is shown and confirmed; then,
under the lock, the server is inspected again, and `swap` restores. Whatever fails before the names
are swapped, even by SIGKILL, the existing database stays as it was. Afterwards it exists under the
name that was printed, until somebody drops it.
"""

from typing import Any

from safe_compose.databases import postgres
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.errors import StateChanged, UsageError
from safe_compose.operations.recover.run import recover
from safe_compose.operations.restore.database.plan import (
    DatabaseRestorePlan,
    make_plain_name,
    make_plan,
    require_possible,
)
from safe_compose.operations.restore.database.servers import (
    find_server_container,
    require_same_server,
)
from safe_compose.operations.restore.database.sources import DumpSource
from safe_compose.operations.restore.database.swap import swap_in
from safe_compose.operations.restore.request import LOCK_SECONDS, GivenAnswer
from safe_compose.operations.transaction import locking
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace


def restore(
    workspace: Workspace,
    source: DumpSource,
    *,
    volume: str | None,
    project: str | None,
    database: str | None,
    answer: GivenAnswer,
    scratch: bool = False,
) -> dict[str, Any]:
    """Restore one database next to the existing one, swap it in, and return the result as JSON.

    When this fails, the existing database is as it was.

    Args:
        workspace: The workspace.
        source: The source of the dump.
        volume: The volume whose server gets the database. By default the only running PostgreSQL of
            `project`, or of the engine.
        project: The project.
        database: The name on that server; by default the name under which it was dumped.
        answer: What the flags answer.
        scratch: Restore it under a name of its own, to be inspected.

    Raises:
        UsageError: The server or the name is unclear.
        Refused: The dump does not fit, or it was not confirmed.
        StateChanged: The server or its clients changed.
        VerificationFailed: The dump is damaged, or the result differs from it.
        OperationFailed: It could not be loaded or swapped in.
    """
    engine = workspace.engine
    if not answer.dry_run:
        recover(engine, workspace.catalogue, workspace.journal, own_run=workspace.run_id)
    container = find_server_container(engine, engine.commands.look(), volume, project)
    server = postgres.server(EngineContainer(engine, container))
    dump = source.read(engine, server.client.image)
    name = database or dump.database or dump.part or None
    if scratch:
        name = f"scratch_{workspace.run_id[-6:]}_{make_plain_name(name or 'dump')}"
    if name is None:
        raise UsageError(
            f"{source.words} does not say the name of its database; nothing was restored",
            next_step=f"add --database NAME; the server has {', '.join(server.databases)}",
        )
    found = make_plan(workspace, source, dump, server, name, workspace.run_id[-6:])
    for line in found.lines():
        terminal.say(f"safe-compose: {line}")
    require_possible(found)
    if answer.dry_run:
        return {**found.shape(), "dry_run": True, "plan": list(found.lines())}
    if found.needs_phrase:
        _confirm(found, answer)
    done = _restore_locked(workspace, found, name)
    if scratch:
        terminal.say(
            f"safe-compose: nothing uses database {name}. To inspect it, then to delete it:"
        )
        for line in found.list_inspection_commands():
            terminal.say(f"  {line}")
    return done


def _restore_locked(workspace: Workspace, found: DatabaseRestorePlan, name: str) -> dict[str, Any]:
    """Inspect again under the project's lock, and restore.

    Raises:
        StateChanged: The server changed since the plan.
        SafeComposeError: As for `restore`.
    """
    source, dump, server = found.source, found.dump, found.server
    with locking(workspace, [found.project], ("restore",), wait=LOCK_SECONDS):
        require_same_server(server.at)
        again = make_plan(
            workspace, source, dump, server, name, workspace.run_id[-6:], found.before
        )
        if again.target.exists != found.target.exists:
            raise StateChanged(
                "the server changed between the plan and now; nothing was restored",
                next_step="run it again",
            )
        require_possible(again)
        return swap_in(workspace, again)


def _confirm(found: DatabaseRestorePlan, answer: GivenAnswer) -> None:
    """Have the phrase typed, or take it from the flags.

    Raises:
        Refused: It does not match, or nobody may be asked.
    """
    why = f"database {found.database} would be replaced"
    question = "To put it in the place of the current one"
    terminal.ask_phrase(
        question,
        found.database,
        answer.phrase,
        ask=answer.may_ask,
        nothing="nothing was restored",
        why=why,
    )
