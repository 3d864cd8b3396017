"""One dump of all databases, counted in its own snapshot, with the accounts; and its verification.

All databases are in one file, because they share one snapshot then, and views across databases load
in any order. The server's own database is not dumped: it belongs to one release. Accounts are
written as a script of statements, with the hashes of their passwords.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from safe_compose.core.backup import Artifact, DatabaseStatistics, Evidence, ServerStatistics
from safe_compose.core.observed import kind_of_location
from safe_compose.core.owners import FILES
from safe_compose.core.quantities import count
from safe_compose.databases import owners, server_files
from safe_compose.databases.dumps import (
    compare_rows,
    join_first,
    make_artifact,
    making_dump_folder,
    scan_dump,
)
from safe_compose.databases.mysql.accounts import accounts
from safe_compose.databases.mysql.client import MysqlSession, naming_client_fault
from safe_compose.databases.mysql.contents import Contents, count_tables, list_contents
from safe_compose.databases.mysql.discover import MysqlServer
from safe_compose.databases.mysql.dump_scanner import ACCOUNTS_TRAILER, MySQLDumpScanner
from safe_compose.databases.mysql.write_counter import WriteCounter, read_counter
from safe_compose.databases.protocol import ShutdownState
from safe_compose.engine.client_stream import Stream
from safe_compose.errors import VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import (
    BLOCK,
    Sums,
    make_damage_fault,
    make_evidence,
    pack,
    read_blocks,
    show_nothing,
)

DUMP_FILE = "databases.sql.gz"
ACCOUNTS_FILE = "accounts.sql.gz"
BEGIN_SECONDS = 60.0
"""Time limit for a dump to print its first line: nobody can write meanwhile."""
_OPTIONS = (
    "--single-transaction",
    "--quick",
    "--opt",
    "--routines",
    "--events",
    "--triggers",
    "--hex-blob",
    "--no-tablespaces",
    "--loose-set-gtid-purged=OFF",
    "--loose-column-statistics=0",
)
"""An option with `loose` that a client does not know is skipped with a warning: MariaDB has neither
of the last two.
"""


@dataclass(frozen=True, slots=True)
class MysqlDump:
    """The result of dumping one server."""

    server: MysqlServer
    artifacts: tuple[Artifact, ...]
    statistics: ServerStatistics
    before: WriteCounter
    """The write counter before the first byte of the dump."""
    warnings: tuple[str, ...] = ()

    def was_written_since(self) -> bool:
        """Return whether anything may have been written since the dump began.

        The server must still run.

        Raises:
            OperationFailed: The server does not answer.
        """
        with (
            naming_client_fault(self.server.volume, "look whether anybody wrote"),
            self.server.client.session() as asked,
        ):
            return not self.before.still(read_counter(asked))
        raise AssertionError  # a session that ends early raises

    def is_older_than(self, _left: ShutdownState) -> bool:
        """Return False: the files do not show it.

        The test restore of the archive counts their content.
        """
        return False


def dump(
    server: MysqlServer, volume: str, into: Path, progress: Callable[[int], None] = show_nothing
) -> MysqlDump:
    """Dump the accounts and all databases of a server into `into/<slug of the volume>/`.

    Everything is dumped and counted in one consistent snapshot. It begins under a lock that blocks
    all writers; the lock is released once both have begun, except if tables of an engine without
    transactions are dumped. `progress` gets the number of bytes so far. The result counts for
    nothing before `verify_dump`.

    Raises:
        OperationFailed: The dump failed.
    """
    with (
        making_dump_folder(server, volume, into) as folder,
        naming_client_fault(volume, "dump", next_step="repeat the command"),
        ThreadPoolExecutor(1) as pool,
        server.client.session() as asked,
    ):
        before = read_counter(asked)
        owned = pool.submit(_owners, server)
        made_accounts = _dump_accounts(server, asked, folder, into, volume)
        artifacts = [replace(made_accounts, detail={**made_accounts.detail, **owned.result()})]
        files = server_files.read_by_programs(server.at, server.data_directory, *_SETTINGS)
        others = server_files.keep(
            files, "", folder, into, volume, server.inside, owned.result().get(FILES, "")
        )
        asked.rows("FLUSH TABLES WITH READ LOCK;")
        contents = list_contents(asked, server.own)
        asked.rows(
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH"
            " CONSISTENT SNAPSHOT;"
        )
        statistics: tuple[DatabaseStatistics, ...] = ()
        if contents.databases:
            sums, statistics = _dump_databases(
                server, asked, contents, pool, folder / DUMP_FILE, progress
            )
            artifacts.append(_artifact(server, folder / DUMP_FILE, sums, into, volume, "database"))
        asked.rows("UNLOCK TABLES; ROLLBACK;")
        artifacts += others
    unknown = () if owned.result() else (owners.UNKNOWN,)
    notes = (*server.warnings, *contents.warnings(), *unknown, *server_files.note(artifacts))
    return MysqlDump(server, tuple(artifacts), _statistics_of(server, statistics), before, notes)


def _statistics_of(
    server: MysqlServer, databases: tuple[DatabaseStatistics, ...]
) -> ServerStatistics:
    return ServerStatistics(
        kind=server.kind,
        version=server.version,
        user=server.user,
        pgdata=server.data_directory,
        databases=databases,
        settings=server.settings,
    )


def _dump_databases(
    server: MysqlServer,
    asked: MysqlSession,
    contents: Contents,
    pool: ThreadPoolExecutor,
    path: Path,
    progress: Callable[[int], None],
) -> tuple[Sums, tuple[DatabaseStatistics, ...]]:
    """Dump all databases into one file while they are counted.

    The lock is released once both have begun.
    """
    counting: list[Future[tuple[DatabaseStatistics, ...]]] = []

    def begun() -> None:
        if not contents.plain:
            asked.rows("UNLOCK TABLES;")
        counting.append(pool.submit(count_tables, asked, contents))

    with server.client.stream(_argv(server, contents)) as made:
        sums = pack(
            _notify_when_begun(made, begun),
            path,
            subject=server.volume,
            stage="dump",
            progress=progress,
        )
    return sums, counting[0].result()


_SETTINGS = ("(", "-name", "*.cnf", "-o", "-name", "*.pem", ")", "!", "-name", ".*")
"""Tests of `find` for settings among the files of the data directory: `mysqld-auto.cnf` (SET
PERSIST), the server's identity, certificates. Names that begin with a dot hold passwords of the
image's own account for health checks.
"""


def _owners(server: MysqlServer) -> dict[str, str]:
    """Return the owners of the data directory and the folders above it, for an artifact's `detail`.

    The result is empty if they are unknown.
    """
    elsewhere = server.in_folder and kind_of_location(server.volume) == "volume"
    location = None if elsewhere else EngineLocation(server.engine, server.volume)
    return owners.record(
        server.at,
        location,
        server.data_directory,
        server.inside,
        "mysql",
        part=server.part,
    )


def _argv(server: MysqlServer, contents: Contents) -> tuple[str, ...]:
    broken = [f"--ignore-table={database}.{view}" for database, view in contents.broken]
    return (
        server.client.dumper,
        *server.client.options(),
        *_OPTIONS,
        *broken,
        "--databases",
        "--",
        *contents.databases,
    )


def _notify_when_begun(made: Stream, begun: Callable[[], None]) -> Iterator[bytes]:
    """Yield the blocks of a dump; `begun` is called as soon as its first database appears.

    The snapshot of the dump is older than that line. A dump that prints nothing in time is killed,
    because it blocks all writers.
    """
    late = threading.Timer(BEGIN_SECONDS, made.abort)
    late.start()
    head = b""
    try:
        while b"\nUSE `" not in head and (piece := made.stdout.read1(BLOCK)):  # type: ignore[attr-defined]  # it is buffered
            head += piece
    finally:
        late.cancel()
    begun()
    yield head
    yield from read_blocks(made.stdout)


def _artifact(
    server: MysqlServer, path: Path, sums: Sums, into: Path, volume: str, kind: str
) -> Artifact:
    detail = {"by": server.client.words, "client": server.client.prefix}
    return make_artifact(path, into, sums, volume, kind, detail=detail)


def _dump_accounts(
    server: MysqlServer, asked: MysqlSession, folder: Path, into: Path, volume: str
) -> Artifact:
    path = folder / ACCOUNTS_FILE
    sums = pack(
        [accounts(asked, server.kind).encode()], path, subject=volume, stage="dump of the accounts"
    )
    return _artifact(server, path, sums, into, volume, "globals")


def describe_differences(
    scanner: MySQLDumpScanner, statistics: Sequence[DatabaseStatistics]
) -> str:
    """Describe how a dump differs from the counts; empty if it matches."""
    found = compare_rows(scanner.rows, (t for d in statistics for t in d.tables))
    names = {d.name for d in statistics}
    found += [
        f"database {name} is not both in the dump and counted"
        for name in sorted(names ^ scanner.databases)
    ]
    programs = sum(not name.startswith("view ") for d in statistics for name in d.extensions)
    if scanner.programs != programs:
        found.append(
            f"{scanner.programs} procedures, triggers and events are in the dump, {programs} were"
            " counted"
        )
    return join_first(found)


def verify_dump(
    folder: Path, artifacts: Sequence[Artifact], statistics: ServerStatistics
) -> list[Evidence]:
    """Verify the dump of one volume, read from the disk, and return the evidence.

    L2 means: checksums match, gzip streams are complete, and the last lines are there. L3 means:
    the rows equal the counts. Artifacts of other kinds are ignored.

    Raises:
        VerificationFailed: A dump is damaged or differs, or databases were counted and there is no
            dump.
    """
    found = []
    for artifact in artifacts:
        if artifact.kind == "globals":
            scan_dump(folder, artifact, MySQLDumpScanner(ACCOUNTS_TRAILER))
            found.append(make_evidence("L2", artifact.file, "whole file read, last line found"))
        elif artifact.kind == "database":
            scanner = scan_dump(folder, artifact, MySQLDumpScanner())
            if wrong := describe_differences(scanner, statistics.databases):
                raise make_damage_fault(artifact, wrong)
            total = sum(d.rows for d in statistics.databases)
            found.append(
                make_evidence(
                    "L3",
                    artifact.file,
                    f"{count(len(scanner.rows), 'table')}, {count(total, 'row')} equal to their"
                    " counts",
                )
            )
    levels = sorted(e.level for e in found)
    if levels != (["L2", "L3"] if statistics.databases else ["L2"]):
        raise VerificationFailed(
            "the backup does not have one dump of its databases and one of its accounts; it is not"
            " counted as good",
            next_step="make a new backup",
        )
    return found
