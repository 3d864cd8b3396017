"""Dumps of every database of a running server, counted in their own snapshot, and the proof from the bytes on disk.

What streams by is not read, only packed: the proof reads all of it from the disk, and would find the same.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from safe_compose.artifacts import Artifact, DatabaseStatistics, Evidence, ServerStatistics, TableCount, slug
from safe_compose.engine import PIPE, Engine, HelperFailed
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.methods.database import LeftBehind
from safe_compose.methods.lexer import BadDump
from safe_compose.methods.postgres.manifest import verify_base
from safe_compose.methods.postgres.scan import CLUSTER_TRAILER, Scanner
from safe_compose.methods.postgres.server import (
    Address,
    Reading,
    Server,
    Session,
    fault,
    reading,
    session,
    stream,
)
from safe_compose.methods.stream import (
    GZIP,
    Sums,
    blocks_of,
    evidence,
    keep,
    new_folder,
    nothing,
    pack,
    sync_folder,
    unpack,
    unproved,
    whole,
)

_COMPRESSED = "--compress=1"
"""For pg_dump where its bytes go through the daemon, which costs more for each byte than to compress it at once, and where they may
have a network before them. One that was built without zlib sends them as they are, or from 16 on fails and is asked without."""
_NO_ZLIB = "does not support compression"
"""What it says then (PostgreSQL 16, compress_io.c)."""

LOCK_SECONDS = 60
"""How long a dump waits for a table that somebody changes; then it fails rather than hangs."""


@dataclass(frozen=True, slots=True)
class Dump:
    """What `dump` made of one server."""

    server: Server
    artifacts: tuple[Artifact, ...]
    statistics: ServerStatistics
    before: Reading
    """The transaction counter before the first byte."""
    warnings: tuple[str, ...] = ()

    def written_since(self, engine: Engine) -> bool:
        """Whether anything may have been written since the dump began (the server must still run). Raises BackupFailed."""
        return not self.before.still(reading(engine, self.server))

    def is_older_than(self, left: LeftBehind) -> bool:
        """Whether a transaction that wrote came after the first look at the counter, or was under way then."""
        return left.next_transaction is not None and not self.before.still(Reading(0, left.next_transaction))


def dump(engine: Engine, server: Server, volume: str, into: Path, progress: Callable[[int], None] = nothing) -> Dump:
    """Dump the globals and every database of a server into `into/<slug of the volume>/`.

    Each database is dumped and counted in one exported snapshot. `progress` gets the bytes of all dumps so far. What was made
    counts for nothing before `verify_dump`. Raises BackupFailed.
    """
    if server.volume != volume:
        raise BackupFailed(f"volume {volume}: the server in {server.container.name} keeps its data in {server.volume}")
    folder = into / slug(volume)
    new_folder(folder, subject=volume, stage="dump")
    done = 0

    def report(size: int) -> None:
        progress(done + size)

    artifacts: list[Artifact] = []
    databases = []
    with fault(volume, "dump"), session(engine, server.address, server.maintenance) as asked:
        before = asked.reading()
        with ThreadPoolExecutor(1, thread_name_prefix="globals") as beside:  # what they take is the start of a container
            roles = beside.submit(_globals, engine, server, volume, folder, into)
            for name in server.databases:
                done = sum(a.uncompressed_bytes for a in artifacts)
                artifact, statistics = _database(engine, server, asked, volume, name, folder, into, report)
                artifacts.append(artifact)
                databases.append(statistics)
        artifacts.insert(0, roles.result())
    sync_folder(folder, subject=volume, stage="dump")
    sync_folder(into, subject=volume, stage="dump")
    found = ServerStatistics(
        kind="postgres",
        version=server.version,
        user=server.user,
        system_identifier=server.system_identifier,
        pgdata=server.data_directory,
        databases=tuple(databases),
        settings=server.settings,
    )
    return Dump(server, tuple(artifacts), found, before, server.warnings)


def _globals(engine: Engine, server: Server, volume: str, folder: Path, into: Path) -> Artifact:
    """Roles with their password verifiers, memberships and settings: `pg_dumpall --globals-only`."""
    argv = (
        "pg_dumpall",
        "--globals-only",
        "--no-password",
        f"--lock-wait-timeout={LOCK_SECONDS}s",
        f"--database={server.maintenance}",
        f"--dbname={server.address.conninfo(server.maintenance)}",
    )
    return _streamed(engine, server, argv, folder / "globals.sql.gz", into, volume, None, nothing)


def _database(
    engine: Engine,
    server: Server,
    asked: Session,
    volume: str,
    name: str,
    folder: Path,
    into: Path,
    progress: Callable[[int], None],
) -> tuple[Artifact, DatabaseStatistics]:
    asked.connect(name)
    count = Counting(asked)
    argv = (
        "pg_dump",
        "--create",
        "--format=plain",
        "--no-password",
        f"--lock-wait-timeout={LOCK_SECONDS}s",
        f"--snapshot={count.snapshot}",
        f"--dbname={server.address.conninfo(name)}",
    )
    answers = count.start()
    path = folder / f"db-{slug(name)}.sql.gz"
    artifact = _streamed(engine, server, argv, path, into, volume, name, progress)
    return artifact, count.finish(answers)


def _streamed(
    engine: Engine,
    server: Server,
    argv: Sequence[str],
    path: Path,
    into: Path,
    volume: str,
    database: str | None,
    progress: Callable[[int], None],
) -> Artifact:
    stage = "dump of the globals" if database is None else f"dump of database {database}"
    # A pipe cannot be synced, and pg_dump takes that for a failure; releases before 10 neither sync nor know the flag.
    piped = () if server.version.startswith("9.") else (argv[0], f"--file={PIPE}", "--no-sync", *argv[1:])
    compressed = (argv[0], _COMPRESSED, *argv[1:])

    def streamed(through_daemon: Sequence[str]) -> Sums:
        with whole(path), stream(engine, server.address, through_daemon, piped=piped) as made:
            blocks = blocks_of(made.stdout)
            first = next(blocks, b"")
            write = keep if first.startswith(GZIP) else pack
            return write(chain((first,), blocks), path, subject=volume, stage=stage, progress=progress)
        raise AssertionError  # a stream that ends early raises

    with fault(volume, stage, next_step="repeat the command"):
        try:
            sums = streamed(argv if database is None else compressed)
        except HelperFailed as error:
            if _NO_ZLIB not in error.stderr:
                raise
            sums = streamed(argv)
    return Artifact(
        file=path.relative_to(into).as_posix(),
        kind="globals" if database is None else "database",
        bytes=sums.bytes,
        sha256=sums.sha256,
        uncompressed_bytes=sums.uncompressed_bytes,
        volume=volume,
        database=database,
        detail={"by": "side container" if server.address.side else "exec"},
    )


# -- counting ----------------------------------------------------------------------------------------------------------

# Ordinary tables whose rows pg_dump writes (pg_dump.c: selectDumpableTable, processExtensionTables): partitions and
# children by themselves (ONLY), none of an extension but its configuration tables, those under the extension's condition.
_TABLES = """
  SELECT c.oid, n.nspname, c.relname, e.condition
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN (SELECT pg_catalog.unnest(extconfig) AS oid, pg_catalog.unnest(extcondition) AS condition
             FROM pg_catalog.pg_extension) e ON e.oid = c.oid
  WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (e.oid IS NOT NULL OR NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
        AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'))
"""

# The time-outs that older releases do not know (the others come with the connection): none may end the transaction that holds
# the snapshot. \gset, because it must not answer with a line.
_SNAPSHOT = f"""
SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false)) AS timeouts FROM pg_catalog.pg_settings WHERE name IN
  ('transaction_timeout', 'idle_session_timeout') \\gset
SET lock_timeout = '{LOCK_SECONDS}s';
SET search_path = pg_catalog;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_catalog.pg_export_snapshot();
"""

_FACTS = f"""
SELECT pg_catalog.jsonb_build_object(
  'bytes', pg_catalog.pg_database_size(pg_catalog.current_database()),
  'large_objects', (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata),
  'extensions', (SELECT pg_catalog.jsonb_agg(extname || ' ' || extversion ORDER BY extname) FROM pg_catalog.pg_extension),
  'tables', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(oid, nspname, relname) ORDER BY nspname, relname)
             FROM ({_TABLES}) t));
"""

# One statement per table, made and quoted by the server itself.
_COUNT = f"""
SELECT pg_catalog.format('SELECT %s || '' '' || count(*) FROM %s %I.%I %s', oid, CASE WHEN condition <> '' THEN '' ELSE
  'ONLY' END, nspname, relname, condition) FROM ({_TABLES}) t ORDER BY nspname, relname \\gexec
"""


class Counting:
    """The counts of the database that a session is in, taken in a snapshot that stays open for a dump."""

    def __init__(self, asked: Session) -> None:
        self._asked = asked
        self.snapshot = asked.line(_SNAPSHOT)
        self._facts: dict[str, Any] = json.loads(asked.line(_FACTS))

    def start(self) -> Iterator[str]:
        """Set the server counting; the answers wait in the pipe while the dump streams."""
        return self._asked.begin(_COUNT)

    def finish(self, answers: Iterator[str]) -> DatabaseStatistics:
        """Collect the counts and end the snapshot."""
        rows = dict(line.split(" ") for line in answers)
        self._asked.line("ROLLBACK;")
        tables = tuple(TableCount(schema, table, int(rows[str(oid)])) for oid, schema, table in self._facts["tables"] or ())
        return DatabaseStatistics(
            name=self._asked.database,
            bytes=int(self._facts["bytes"]),
            tables=tables,
            large_objects=int(self._facts["large_objects"]),
            extensions=tuple(self._facts["extensions"] or ()),
        )


def measure(engine: Engine, address: Address, databases: Sequence[str]) -> tuple[DatabaseStatistics, ...]:
    """Count every table of these databases now. Raises HelperFailed."""
    counted: list[DatabaseStatistics] = []
    if databases:
        with session(engine, address, databases[0]) as asked:
            for name in databases:
                asked.connect(name)
                count = Counting(asked)
                counted.append(count.finish(count.start()))
    return tuple(counted)


def count(engine: Engine, server: Server) -> tuple[DatabaseStatistics, ...]:
    """Count every table of every database of a running server now. Raises BackupFailed."""
    return measure(engine, server.address, server.databases)


def differences(scanner: Scanner, statistics: DatabaseStatistics) -> str:
    """What the dump does not hold as counted, in words; empty when it is all there."""
    counted = {(t.schema, t.table): t.rows for t in statistics.tables}
    found = [
        f"{'.'.join(table)} has {scanner.rows.get(table, 'no')} rows in the dump, {counted.get(table, 'no')} were counted"
        for table in sorted(counted.keys() | scanner.rows.keys())
        if counted.get(table) != scanner.rows.get(table)
    ]
    if scanner.large_objects != statistics.large_objects:
        found.append(f"{scanner.large_objects} large objects in the dump, {statistics.large_objects} were counted")
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


# -- proof -------------------------------------------------------------------------------------------------------------


def verify_dump(folder: Path, artifacts: Sequence[Artifact], statistics: ServerStatistics) -> list[Evidence]:
    """Read the dumps of one volume from the disk: sums, whole gzip streams, trailers (L2); rows equal to the counts (L3).

    A physical copy stands for the dumps (L3 by its manifest). Artifacts of other kinds are ignored. Raises VerifyFailed, also
    when a counted database has no dump.
    """
    if copies := [a for a in artifacts if a.kind == "base"]:
        return [verify_base(folder, artifact) for artifact in copies]
    found = []
    wanted = {d.name: d for d in statistics.databases}
    for artifact in artifacts:
        if artifact.kind == "globals":
            _scanned(folder, artifact, Scanner(CLUSTER_TRAILER))
            found.append(evidence("L2", artifact.file, "whole file read, last line found"))
        elif artifact.kind == "database":
            scanner = _scanned(folder, artifact, Scanner())
            counted = wanted.pop(artifact.database or "", None)
            if counted is None:
                raise unproved(artifact, "its database was not counted when it was made")
            if wrong := differences(scanner, counted):
                raise unproved(artifact, wrong)
            found.append(evidence("L3", artifact.file, f"{len(scanner.rows)} tables, {counted.rows} rows equal to their counts"))
    if wanted or not any(e.level == "L2" for e in found):
        missing = ", ".join(sorted(wanted)) or "the globals"
        raise VerifyFailed(f"the backup has no dump of {missing}; it is not counted as good", next_step="make a new backup")
    return found


def _scanned(folder: Path, artifact: Artifact, scanner: Scanner) -> Scanner:
    try:
        for block in unpack(folder, artifact):
            scanner.feed(block)
        scanner.finish()
    except BadDump as error:
        raise unproved(artifact, str(error)) from error
    return scanner
