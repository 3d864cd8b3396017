"""Dumps of every database of a running server, counted in their own snapshot and verified.

The stream is not parsed, only packed: verification reads all of it from the disk, and finds the
same faults.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from safe_compose.core.backup import Artifact, DatabaseStatistics, Evidence, ServerStatistics
from safe_compose.core.observed import kind_of_location
from safe_compose.core.owners import FILES
from safe_compose.core.quantities import count
from safe_compose.core.slug import slug
from safe_compose.databases import owners, server_files
from safe_compose.databases.dumps import (
    compare_rows,
    join_first,
    make_artifact,
    making_dump_folder,
    scan_dump,
)
from safe_compose.databases.parallel import WorkQueue, work_through
from safe_compose.databases.postgres import settings
from safe_compose.databases.postgres.base_manifest import verify_base
from safe_compose.databases.postgres.client import PsqlSession, naming_client_fault
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.dump_scanner import CLUSTER_TRAILER, PostgresScanner
from safe_compose.databases.postgres.row_counts import LOCK_SECONDS, Counting
from safe_compose.databases.postgres.write_counter import (
    TransactionCounter,
    ask_counter,
    read_counter,
)
from safe_compose.databases.protocol import ShutdownState
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.named_pipe import AT as PIPE
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.volumes.backup_files import removing_on_fault
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import (
    GZIP,
    Sums,
    count_cores,
    make_damage_fault,
    make_evidence,
    pack,
    read_blocks,
    show_nothing,
    write_stream,
)

_COMPRESSED = "--compress=1"
"""For pg_dump when its bytes go through the daemon, which costs more per byte than compressing at
once, and may add a network. A pg_dump that was built without zlib sends plain bytes, or from 16 on
fails and is run again without this option.
"""
_PAYS = 32 << 20
"""Size of a database in bytes from which on the next one is dumped at the same time. That takes the
start of another container, and memory for some blocks.
"""
_MANY = 4
"""Number of databases, of any size, from which on it pays as well."""
_NO_ZLIB = "does not support compression"
"""pg_dump's message in that case (PostgreSQL 16, compress_io.c)."""


@dataclass(frozen=True, slots=True)
class PostgresDump:
    """The result of dumping one server."""

    server: PostgresServer
    artifacts: tuple[Artifact, ...]
    statistics: ServerStatistics
    before: TransactionCounter
    """The transaction counter before the first byte."""
    warnings: tuple[str, ...] = ()

    def was_written_since(self) -> bool:
        """Return whether anything may have been written since the dump began.

        The server must still run.

        Raises:
            OperationFailed: The server does not answer.
        """
        return not self.before.still(ask_counter(self.server))

    def is_older_than(self, left: ShutdownState) -> bool:
        """Return whether a transaction wrote after the first reading of the counter.

        A transaction that was running then counts.
        """
        return left.next_transaction is not None and not self.before.still(
            TransactionCounter(0, left.next_transaction)
        )


def dump(
    server: PostgresServer, volume: str, into: Path, progress: Callable[[int], None] = show_nothing
) -> PostgresDump:
    """Dump the globals and every database of a server into `into/<slug of the volume>/`.

    Each database is dumped and counted in one exported snapshot. `progress` gets the number of
    bytes of all dumps so far. The result counts for nothing before `verify_dump`.

    Raises:
        OperationFailed: The dump failed.
    """
    with making_dump_folder(server, volume, into) as folder, naming_client_fault(volume, "dump"):
        target = _Target(server, volume, folder, into)
        dumping = _Databases(target, progress)
        # Each of these tasks takes the start of a container.
        with (
            ThreadPoolExecutor(3, thread_name_prefix="globals") as pool,
            dumping.retrying_one_by_one(),
            server.client.session(server.maintenance) as asked,
        ):
            before = read_counter(asked)
            roles = pool.submit(_dump_globals, target)
            owned = pool.submit(find_owners, server)
            settings_read = pool.submit(_settings, server)
            dumping.dump(asked, several=count_cores() > 1)
        made = dumping.dumped()
        artifacts = [artifact for artifact, _ in made]
        databases = [statistics for _, statistics in made]
        globals_made = dumping.dump_globals(roles)
        artifacts.insert(0, replace(globals_made, detail={**globals_made.detail, **owned.result()}))
        files, slots, unread = settings_read.result()
        artifacts += server_files.keep(
            files, slots, folder, into, volume, server.pgdata, owned.result().get(FILES, "")
        )
    found = make_statistics(server, databases)
    unknown = () if owned.result() else (owners.UNKNOWN,)
    notes = (*server.warnings, *unknown, *unread, *server_files.note(artifacts))
    return PostgresDump(server, tuple(artifacts), found, before, notes)


def make_statistics(
    server: PostgresServer, databases: Sequence[DatabaseStatistics]
) -> ServerStatistics:
    """Return the record of a server with the counts of its databases."""
    return ServerStatistics(
        kind="postgres",
        version=server.version,
        user=server.user,
        system_identifier=server.system_identifier,
        pgdata=server.data_directory,
        databases=tuple(databases),
        settings=server.settings,
        closed=server.closed,
    )


def _settings(server: PostgresServer) -> tuple[dict[str, bytes], str, tuple[str, ...]]:
    """Return the server's settings files, its slots, and why they could not be read, in words.

    They are worth less than the dump, which never fails because of them.
    """
    try:
        return settings.files(server), settings.slots(server), ()
    except OperationFailed as fault:
        return {}, "", (f"the settings next to its databases are in no dump: {fault.message}",)


def find_owners(server: PostgresServer) -> dict[str, str]:
    """Return the owners of the data directory and the folders above it, for an artifact's `detail`.

    The result is empty if they are unknown.
    """
    elsewhere = server.in_folder and kind_of_location(server.volume) == "volume"
    location = None if elsewhere else EngineLocation(server.engine, server.volume)
    return owners.record(
        server.at,
        location,
        server.data_directory,
        server.pgdata,
        "PG_VERSION",
        part=server.part,
    )


@dataclass(frozen=True, slots=True)
class _Target:
    """A server that is dumped, and where its dumps go."""

    server: PostgresServer
    volume: str
    folder: Path
    into: Path


def _dump_globals(target: _Target) -> Artifact:
    """Dump roles with their password verifiers, memberships and settings.

    The program is `pg_dumpall --globals-only`.
    """
    server = target.server
    argv = (
        "pg_dumpall",
        "--globals-only",
        "--no-password",
        f"--lock-wait-timeout={LOCK_SECONDS}s",
        f"--database={server.maintenance}",
        f"--dbname={server.client.conninfo(server.maintenance)}",
    )
    return _stream(target, argv, "globals.sql.gz", None, show_nothing, WorkQueue(()))


_Dumped = tuple[Artifact, DatabaseStatistics]


class _Databases:
    """The databases of a server, dumped one after the other or two at the same time.

    More than two gain little: a dump keeps more than one core busy.
    """

    def __init__(self, target: _Target, progress: Callable[[int], None]) -> None:
        """Prepare; nothing is dumped yet."""
        self._target = target
        self._progress = progress
        self._dumped: dict[str, _Dumped] = {}
        self._bytes: Counter[str] = Counter()
        self._telling = threading.Lock()
        self._both = False

    @contextmanager
    def retrying_one_by_one(self) -> Iterator[None]:
        """Dump what is left one after the other where the block failed on two at the same time.

        The server may have too few connections or locks for two, but enough for one.

        Raises:
            OperationFailed: A dump failed.
        """
        try:
            yield
        except OperationFailed as failed:
            if not self._may_fit_alone(failed):
                raise
            server = self._target.server
            with server.client.session(server.maintenance) as again:
                self.dump(again, several=False)

    def _may_fit_alone(self, failed: OperationFailed) -> bool:
        """Return whether a client failed, a dump's or a session's, and two dumps ran at once."""
        return self._both and any(
            isinstance(fault, HelperFailed) for fault in (failed, failed.__cause__)
        )

    def dump_globals(self, roles: Future[Artifact]) -> Artifact:
        """Return the dump of the globals, made once more if it ran beside two other dumps.

        Raises:
            OperationFailed: It failed.
        """
        try:
            return roles.result()
        except OperationFailed as failed:
            if not self._may_fit_alone(failed):
                raise
        return _dump_globals(self._target)

    def dumped(self) -> list[_Dumped]:
        """Return the dump of each database, in the server's order."""
        return [self._dumped[name] for name in self._target.server.databases]

    def dump(self, asked: PsqlSession, *, several: bool) -> None:
        """Dump every database that is not dumped yet, the first ones in this session.

        Raises:
            SessionEnded: psql ended.
            OperationFailed: A dump failed.
        """
        server = self._target.server
        queue = WorkQueue(name for name in server.databases if name not in self._dumped)

        def dump_own(start_other: Callable[[], None]) -> None:
            for size in self._dump_next(asked, queue):
                if several and queue and (size >= _PAYS or len(queue) >= _MANY):
                    self._both = True
                    start_other()

        def dump_others() -> None:
            with (
                naming_client_fault(self._target.volume, "dump"),
                server.client.session(server.maintenance) as other,
            ):
                for _ in self._dump_next(other, queue):
                    pass

        work_through(queue, dump_own, dump_others)

    def _dump_next(self, asked: PsqlSession, queue: WorkQueue[str]) -> Iterator[int]:
        """Dump what nobody else has begun; yield the size of each database before that."""
        with queue.ending_by(asked.abort):
            for name in queue:
                asked.connect(name)
                counting = Counting(asked)
                yield counting.bytes
                report = partial(self._report, name)
                self._dumped[name] = _dump_database(self._target, counting, name, report, queue)

    def _report(self, name: str, size: int) -> None:
        with self._telling:
            self._bytes[name] = size
            self._progress(self._bytes.total())


def _dump_database(
    target: _Target,
    counting: Counting,
    name: str,
    progress: Callable[[int], None],
    queue: WorkQueue[str],
) -> _Dumped:
    """Dump and count a database; a dump whose counts are lost is removed, since it proves nothing.

    Only the snapshot that is open now has these rows.
    """
    argv = (
        "pg_dump",
        "--create",
        "--format=plain",
        "--no-password",
        f"--lock-wait-timeout={LOCK_SECONDS}s",
        f"--snapshot={counting.snapshot}",
        f"--encoding={counting.encoding}",
        f"--dbname={target.server.client.conninfo(name)}",
    )
    file = f"db-{slug(name)}.sql.gz"
    with removing_on_fault(target.folder / file):
        answers = counting.start()
        artifact = _stream(target, argv, file, name, progress, queue)
        return artifact, counting.finish(answers)


def _stream(
    target: _Target,
    argv: Sequence[str],
    file: str,
    database: str | None,
    progress: Callable[[int], None],
    queue: WorkQueue[str],
) -> Artifact:
    """Dump one database, or for None the globals, into a file."""
    server, volume, path = target.server, target.volume, target.folder / file
    stage = "dump of the globals" if database is None else f"dump of database {database}"
    # A pipe cannot be synced, which pg_dump takes for a failure; releases before 10 neither sync
    # nor know the flag.
    piped = (
        ()
        if server.version.startswith("9.")
        else (argv[0], f"--file={PIPE}", "--no-sync", *argv[1:])
    )
    compressed = (argv[0], _COMPRESSED, *argv[1:])

    def stream(through_daemon: Sequence[str]) -> Sums:
        with (
            removing_on_fault(path),
            # pg_dump waits for the locks of all tables before it opens its pipe
            server.client.stream(through_daemon, piped=piped, ending=queue.ending_by) as made,
            queue.ending_by(made.abort),
        ):
            blocks = read_blocks(made.stdout)
            first = next(blocks, b"")
            # pg_dump is slower than two threads, and another dump may run.
            write = write_stream if first.startswith(GZIP) else partial(pack, threads=2)
            return write(
                chain((first,), blocks), path, subject=volume, stage=stage, progress=progress
            )
        raise AssertionError  # a stream that ends early raises

    with naming_client_fault(volume, stage, next_step="repeat the command"):
        try:
            sums = stream(argv if database is None else compressed)
        except HelperFailed as error:
            if _NO_ZLIB not in error.stderr:
                raise
            sums = stream(argv)
    kind, detail = "globals" if database is None else "database", {"by": server.client.words}
    return make_artifact(path, target.into, sums, volume, kind, database=database, detail=detail)


def verify_dump(
    folder: Path, artifacts: Sequence[Artifact], statistics: ServerStatistics
) -> list[Evidence]:
    """Verify the dumps of one volume, read from the disk, and return the evidence.

    L2 means: checksums match, gzip streams are complete, and the last lines are there. L3 means:
    the rows equal the counts. A physical copy replaces the dumps (L3 by its manifest). Artifacts of
    other kinds are ignored.

    Raises:
        VerificationFailed: A dump is damaged or differs, or a counted database has no dump.
    """
    if copies := [a for a in artifacts if a.kind == "base"]:
        return [verify_base(folder, artifact) for artifact in copies]
    found = []
    wanted = {d.name: d for d in statistics.databases}
    for artifact in artifacts:
        if artifact.kind == "globals":
            scan_dump(folder, artifact, PostgresScanner(CLUSTER_TRAILER))
            found.append(make_evidence("L2", artifact.file, "whole file read, last line found"))
        elif artifact.kind == "database":
            scanner = scan_dump(folder, artifact, PostgresScanner())
            counted = wanted.pop(artifact.database or "", None)
            if counted is None:
                raise make_damage_fault(artifact, "its database was not counted when it was made")
            if wrong := describe_differences(scanner, counted):
                raise make_damage_fault(artifact, wrong)
            found.append(
                make_evidence(
                    "L3",
                    artifact.file,
                    f"{count(len(scanner.rows), 'table')}, {count(counted.rows, 'row')} equal to"
                    " their counts",
                )
            )
    if wanted or not any(e.level == "L2" for e in found):
        missing = ", ".join(sorted(wanted)) or "the globals"
        raise VerificationFailed(
            f"the backup has no dump of {missing}; it is not counted as good",
            next_step="make a new backup",
        )
    return found


def describe_differences(scanner: PostgresScanner, statistics: DatabaseStatistics) -> str:
    """Describe how the dump differs from the counts; empty if it matches."""
    found = compare_rows(scanner.rows, statistics.tables)
    if scanner.large_objects != statistics.large_objects:
        found.append(
            f"{scanner.large_objects} large objects in the dump, {statistics.large_objects} were"
            " counted"
        )
    return join_first(found)
