"""The swap: a database is restored under a temporary name, counted, and renamed into place.

Two renames in one transaction swap it with the existing database.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from shlex import quote
from tempfile import SpooledTemporaryFile
from typing import Any

from safe_compose.core.backup import DatabaseStatistics
from safe_compose.databases import postgres
from safe_compose.databases.postgres import dump_roles, side_by_side, target_server
from safe_compose.databases.postgres import restricted_load as contained_load
from safe_compose.databases.postgres.connection import identifier
from safe_compose.databases.postgres.dump_lexer import split_dump
from safe_compose.databases.postgres.dump_loading import Loading
from safe_compose.databases.postgres.dump_reader import prepare_loading, rename_in_statement
from safe_compose.databases.postgres.restore import list_missing
from safe_compose.databases.postgres.restrict import new_key
from safe_compose.databases.postgres.service_login import LoginUntried, try_login
from safe_compose.databases.trials import require_same
from safe_compose.errors import OperationFailed, SafeComposeError, StateChanged, VerificationFailed
from safe_compose.operations.compose_stop import find_hooked_services
from safe_compose.operations.restore.database.plan import DatabaseRestorePlan
from safe_compose.operations.restore.database.servers import list_clients
from safe_compose.operations.stopped_containers import StoppedContainers
from safe_compose.operations.transaction import begin, transaction
from safe_compose.store.journal import Run
from safe_compose.system.signals import deferring_signals
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace

_SPOOLED = 16 << 20
"""The size in bytes up to which a dump's owners and grants are kept in memory.

More go to a temporary file.
"""


def swap_in(workspace: Workspace, found: DatabaseRestorePlan) -> dict[str, Any]:
    """Restore the planned database, swap it in, and return the result as JSON.

    Raises:
        SafeComposeError: It failed, and was rolled back or is left to `recover`.
    """
    engine, server = found.engine, found.server
    command = ("restore", found.source.backup_id or "FILE", "--database", found.database)
    run = begin(workspace, command, project=found.project)
    stopped_containers = StoppedContainers(
        engine, run, find_hooked_services(workspace.docker, engine, found.stops)
    )
    facts: dict[str, Any] = {
        "container": server.container.id,
        "volume": server.volume,
        "database": found.database,
        "beside": found.new,
        "aside": found.old_name,
        "roles": [],
    }

    def leave() -> bool:
        complete = stopped_containers.restore()
        with terminal.reporting_only():
            engine.helpers.sweep()
        return complete

    with transaction(run, lambda _: _roll_back(found, facts), leave=leave) as change:
        run.step("beside", **facts)
        now, words = _load_and_swap(found, run, stopped_containers, facts)
        change.outcome = f"database {found.database} restored"
    _tell(found)
    sides = {
        "before": _counts(found.before),
        "backup": _counts(found.expects()),
        "now": _counts(now),
    }
    row = {"volume": server.volume, "database": found.database, **sides}
    return {**found.shape(), "login": words, "statistics": [row]}


def _load_and_swap(
    found: DatabaseRestorePlan,
    run: Run,
    stopped_containers: StoppedContainers,
    facts: dict[str, Any],
) -> tuple[DatabaseStatistics, str]:
    """Load, compare, stop the clients, swap, and log in.

    The caller rolls back by `facts` when this fails.

    Returns:
        What was counted, and the result of the service's login in words.

    Raises:
        StateChanged: The database is in use again.
        VerificationFailed: The result differs from the dump, or its login does not work.
        OperationFailed: It cannot be loaded.
    """
    engine, server, source = found.engine, found.server, found.source
    key = new_key(found.target.psql)
    if found.missing:
        script = dump_roles.make_roles_script(
            source.globals(found.dump), found.missing, found.target.roles, own=source.own
        )
        dump_roles.make_roles(server, found.database, script, key)
        facts["roles"] = list(found.missing)  # only what is certainly ours is rolled back
        run.step("beside", **facts)
    now = _load(found, run, facts, key)
    if (expects := found.expects()) is not None:
        require_same(
            _flatten(expects),
            _flatten(now, of=expects),
            server.volume,
            f"restore of database {found.database}",
        )
    run.step("loaded", database=found.new, tables=len(now.tables), rows=now.rows)
    fits = _login(server, found.database if found.target.exists else server.maintenance)
    stopping = [there for c in found.stops if (there := engine.docker.container(c.id)) is not None]
    stopped_containers.stop(stopping)
    target_server.end_sessions(server, found.database, [at for c in stopping for at in c.addresses])
    _, strangers = list_clients(engine, engine.commands.look(), server, found.database)
    if strangers:
        raise StateChanged(
            f"database {found.database} is in use again ({'; '.join(strangers)})",
            next_step="run it again",
        )
    with deferring_signals():
        run.step("swapping", database=found.database, beside=found.new, aside=found.old_name)
        side_by_side.swap(server, found.database, found.new, found.old_name)
        run.step("swapped", database=found.database)
        after = _login(server, found.database)
        if fits[0] and not after[0]:
            if found.old_name is not None:
                side_by_side.swap(server, found.database, found.old_name, found.new)
            raise VerificationFailed(
                f"the service's own login does not work on what was restored: {after[1]}"
            )
        run.step("restored", database=found.database)
    return now, after[1]


def _load(
    found: DatabaseRestorePlan, run: Run, facts: dict[str, Any], key: str | None
) -> DatabaseStatistics:
    """Load the dump into the new database and count it.

    If it does not load as it is, it is loaded once more under the search_path of its database.

    Raises:
        StateChanged: The server has the role that would load it.
        OperationFailed: It cannot be loaded.
    """
    server, source, dump = found.server, found.source, found.dump
    name, superuser = contained_load.loader_name(found.new[-6:]), dump.needs_superuser is not None
    major = server.client.major
    if not superuser:
        if name in found.target.roles:
            raise StateChanged(
                f"the server has a role {name}, as a restore makes one; nothing was restored",
                next_step="run it again",
            )
        facts["roles"] = [*facts["roles"], name]
        run.step("beside", **facts)
        if source.own and not contained_load.is_let_in(server, found.database, name):
            dump.needs_superuser = "its pg_hba.conf"
            superuser = True
            terminal.say(
                "safe-compose: the server lets no other role in (pg_hba.conf), so the superuser"
                " loads it: functions that owners of its tables wrote run with the superuser's"
                " rights while rows come in"
            )
    try:
        now, how, messages = _load_once(
            found, name, prepare_loading(key, superuser=superuser, major=major)
        )
    except OperationFailed as first:
        # Otherwise another way of loading would not help.
        if "ERROR:" not in first.message or "invalid command" in first.message:
            raise
        side_by_side.drop_restored(server, found.database, found.new, [] if superuser else [name])
        path = dump.paths.path(split_dump([source.globals(dump)]))
        terminal.say(
            "safe-compose: it does not load as it stands; once more, under the search_path of its"
            " database"
        )
        now, how, messages = _load_once(
            found, name, prepare_loading(key, path, superuser=superuser, major=major)
        )
    for note in list_missing(found.database, how, messages):
        terminal.say(f"safe-compose: {note}")
    return now


def _load_once(
    found: DatabaseRestorePlan, name: str, how: Loading
) -> tuple[DatabaseStatistics, Loading, str]:
    """Load the dump once.

    Args:
        found: The plan.
        name: The name of the role that loads it.
        how: How it is loaded.

    Returns:
        What was counted, how it was loaded, and what psql printed about errors that it may ignore.

    Raises:
        OperationFailed: It cannot be loaded.
    """
    engine, server, source, dump, new = (
        found.engine,
        found.server,
        found.source,
        found.dump,
        found.new,
    )
    creation = how.adapt_creation(rename_in_statement(dump.creation, new.encode("ascii")))
    exists = found.target.exists
    loader = None
    if dump.needs_superuser is None:
        loader = contained_load.make_place(
            server, found.database, new, name, dump, creation, exists=exists
        )
    elif not creation:
        side_by_side.make_empty(server, found.database, new, exists=exists)
    with (
        terminal.showing_progress(f"restore {found.database} as {new}", total=dump.size) as report,
        SpooledTemporaryFile(max_size=_SPOOLED) as afterwards,
        source.script(engine, server.client.image, new, dump, how, afterwards) as blocks,
    ):
        reported = _report_progress(blocks, report)
        if loader is None:
            now, messages = side_by_side.load(
                server, found.database, new, reported, creates=bool(creation)
            )
            return now, how, messages
        messages = contained_load.make_settings(server, found.database, new, dump, how)
        messages += "\n" + contained_load.load(server, found.database, new, loader, reported)
        now, more = contained_load.hand_over(
            server, found.database, new, loader, dump, afterwards, how
        )
    return now, how, f"{messages}\n{more}"


def _login(server: postgres.PostgresServer, database: str) -> tuple[bool, str]:
    """Return whether the login of the service itself works, and that in words."""
    try:
        fault = try_login(server, database)
    except LoginUntried as reason:
        return False, f"not tried: {reason}"
    return (True, "works") if fault is None else (False, fault)


def _roll_back(found: DatabaseRestorePlan, facts: Mapping[str, Any]) -> str:
    """Complete or undo a swap after a fault, as the database names on the server decide.

    Returns:
        The outcome; empty when it has to wait for `recover`.
    """
    try:
        done, words = side_by_side.settle_restore(found.server, facts)
    except SafeComposeError as fault:
        terminal.say(
            f"safe-compose: database {found.new} could not be taken away: {fault.message}; database"
            f" {found.database} was not touched. Once the server runs again: safe-compose recover"
        )
        return ""
    terminal.say(f"safe-compose: {words}")
    return words if done else "nothing was changed"


def _report_progress(blocks: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    for block in blocks:
        done += len(block)
        report(done)
        yield block


def _flatten(
    counted: DatabaseStatistics, of: DatabaseStatistics | None = None
) -> Mapping[str, int]:
    """Return the rows of each table.

    With `of`, only its tables are included, because a dump file may leave some out.
    """
    wanted = {(t.schema, t.table) for t in (of or counted).tables}
    found = {
        f"{t.schema}.{t.table}": t.rows for t in counted.tables if (t.schema, t.table) in wanted
    }
    return {**found, "large objects": counted.large_objects}


def _counts(database: DatabaseStatistics | None) -> dict[str, int] | None:
    return {"tables": len(database.tables), "rows": database.rows} if database is not None else None


def _tell(found: DatabaseRestorePlan) -> None:
    terminal.say(
        f"safe-compose: database {found.database} of {found.server.container.name} is back, from"
        f" {found.source.words}"
    )
    if found.old_name is not None:
        sql = f"DROP DATABASE {identifier(found.old_name)}"
        ask = (
            f"docker exec {found.server.container.name} psql -U {quote(found.server.user)} -d"
            f" {found.server.maintenance}"
        )
        words = f"the one before it is kept as {found.old_name}; when nobody needs it any more"
        terminal.say(f"safe-compose: {words}: {ask} -c {quote(sql)}")
