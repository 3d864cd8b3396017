"""The plan to restore one database, after an inspection of its server."""

from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Any

from safe_compose.core.backup import DatabaseStatistics
from safe_compose.core.observed import Container
from safe_compose.core.quantities import count, format_size
from safe_compose.databases import postgres
from safe_compose.databases.postgres import target_server
from safe_compose.databases.postgres.connection import identifier
from safe_compose.databases.postgres.dump_reader import DumpSummary
from safe_compose.databases.postgres.row_counts import measure
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, Refused, StateChanged
from safe_compose.operations.restore.database.servers import list_clients
from safe_compose.operations.restore.database.sources import BackupSource, DumpSource, FileSource
from safe_compose.workspace import Workspace


@dataclass(frozen=True, slots=True)
class DatabaseRestorePlan:
    """A plan to restore one database, after one inspection."""

    engine: Engine
    source: DumpSource
    dump: DumpSummary
    server: postgres.PostgresServer
    target: target_server.TargetServer
    database: str
    new: str
    """The name of the database while it is restored."""
    old_name: str | None
    """The new name of the existing database; None when there is none."""
    stops: tuple[Container, ...]
    strangers: tuple[str, ...]
    """Connected clients that we cannot stop, in words."""
    missing: tuple[str, ...]
    """Roles that the dump names and the server lacks."""
    before: DatabaseStatistics | None

    @property
    def project(self) -> str:
        """The project of the server."""
        return self.server.container.project or "volumes"

    def list_inspection_commands(self) -> Iterator[str]:
        """Yield the commands that show the content, and the one that deletes the database."""
        client = f"docker exec -it {self.server.container.name} psql -U {quote(self.server.user)}"
        yield f"{client} -d {self.database}"
        yield (
            f"{client} -d {self.server.maintenance} -c"
            f" {quote(f'DROP DATABASE {identifier(self.database)}')}"
        )

    @property
    def unvouched(self) -> str | None:
        """The destination from which the dump was fetched without a signature.

        Its SQL is then not trusted. None for every other dump.
        """
        return self.source.backup.unsigned_from if isinstance(self.source, BackupSource) else None

    @property
    def needs_phrase(self) -> bool:
        """Whether a person has to type the phrase."""
        return self.target.exists or self.unvouched is not None

    def expects(self) -> DatabaseStatistics | None:
        """Return what must be in the database afterwards; None when the dump is not counted."""
        return self.source.expect_statistics(self.dump)

    def shape(self) -> dict[str, Any]:
        """Return the plan for `--json`."""
        return {
            "backup": self.source.backup_id,
            "file": str(self.source.file.path) if isinstance(self.source, FileSource) else None,
            "volumes": [],
            "database": {
                "name": self.database,
                "server": self.server.container.name,
                "volume": self.server.volume,
                "version": self.server.version,
                "kept_as": self.old_name,
                "dumped_from": self.dump.server or None,
                "dumped_by": self.dump.client or None,
                "roles": list(self.missing),
            },
            "stops": [c.name for c in self.stops],
            "phrase": self.database if self.needs_phrase else None,
        }

    def lines(self) -> Iterator[str]:
        """Yield the plan as lines for people."""
        dump, server = self.dump, self.server
        made = (
            f"PostgreSQL {dump.server}, by pg_dump {dump.client}"
            if dump.server
            else "it does not say of which server"
        )
        yield f"from {self.source.words}: {made}"
        expects = self.expects()
        tables = (
            f"{count(len(expects.tables), 'table')}, {count(expects.rows, 'row')}"
            if expects
            else "rows as INSERT: not counted beforehand"
        )
        large = dump.scanner.large_objects
        objects = f", {count(large, 'large object')}" if large else ""
        yield f"  whole: {tables}{objects}"
        yield (
            f"  into database {self.database} of {server.container.name} ({server.title}, volume"
            f" {server.volume})"
        )
        yield self._describe_target()
        yield from self._warnings()
        if self.stops:
            yield (
                "  stopped for the moment of the swap, then started again:"
                f" {', '.join(c.name for c in self.stops)}"
            )

    def _describe_target(self) -> str:
        """Return the line about the existing database."""
        if not self.target.exists:
            return "  there is none of that name yet"
        before = self.before
        counts = (
            f"{count(len(before.tables), 'table')}, {count(before.rows, 'row')}, "
            if before is not None
            else ""
        )
        return (
            f"  the current one ({counts}{format_size(self.target.bytes)}) stays on the server as"
            f" {self.old_name}, with its last writes"
        )

    def _warnings(self) -> Iterator[str]:
        """Yield the lines about whom the dump comes from, and what it needs."""
        if self.unvouched is not None:
            yield (
                f"  fetched without a signature from {self.unvouched}: nobody vouches for the SQL"
                " that this server will run"
            )
        if self.missing:
            yield f"  roles that the server lacks are made: {', '.join(self.missing)}"
        if self.dump.left_out:
            names = ", ".join(self.dump.left_out)
            yield (
                "  left out, because they would act with the rights of everybody: event triggers"
                f" {names}; make them with psql"
            )
        if self.dump.needs_superuser is not None:
            yield (
                "  loaded by the superuser, because nobody else may make what stands in"
                f" {self.dump.needs_superuser}"
            )
            yield (
                "  so functions that owners of its tables wrote run with the superuser's rights"
                " while rows come in"
            )


def make_plan(
    workspace: Workspace,
    source: DumpSource,
    dump: DumpSummary,
    server: postgres.PostgresServer,
    name: str,
    token: str,
    before: DatabaseStatistics | None = None,
) -> DatabaseRestorePlan:
    """Inspect the server and return the plan.

    Args:
        workspace: The workspace.
        source: The source of the dump.
        dump: The summary of the dump.
        server: The server.
        name: The name of the database on that server.
        token: A part of the temporary names.
        before: What the existing database holds, if that was counted before.
    """
    engine = workspace.engine
    target = target_server.inspect_server(server, name)
    observed = engine.commands.look()
    stops, strangers = list_clients(engine, observed, server, name) if target.exists else ((), ())
    missing = tuple(r for r in dump.roles if r not in target.roles)
    small = target.exists and target.bytes <= workspace.settings.trial_limit
    base = make_plain_name(name)
    if before is None and small:
        [before] = measure(server.client.by_exec(), [name])
    new, old_name = f"{base}_new_{token}", f"{base}_old_{token}" if target.exists else None
    return DatabaseRestorePlan(
        engine, source, dump, server, target, name, new, old_name, stops, strangers, missing, before
    )


def make_plain_name(name: str) -> str:
    """Return a name of plain letters, so that no statement of a dump has to quote it."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name.lower())[
        :40
    ]


def require_possible(found: DatabaseRestorePlan) -> None:
    """Check that the dump fits the server and that no foreign client uses the database.

    Raises:
        Refused: The dump does not fit.
        OperationFailed: The server's disk is too small.
        StateChanged: Clients that we cannot stop are connected.
    """
    expects = found.expects()
    extensions = [e.partition(" ")[0] for e in expects.extensions] if expects is not None else []
    reason = target_server.find_obstacle(
        found.dump, extensions, found.server, found.target, found.source.size(found.dump)
    )
    if reason is not None:
        fault = OperationFailed if "are needed" in reason[0] else Refused
        raise fault(
            f"{found.source.words} does not fit {found.server.container.name}: {reason[0]}; nothing"
            " was restored",
            next_step=reason[1],
        )
    if found.strangers:
        raise StateChanged(
            f"database {found.database} is in use by clients that are not services of this project:"
            f" {'; '.join(found.strangers)}; nothing was restored",
            next_step="end those sessions, then run it again",
        )
