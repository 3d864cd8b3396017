"""One dump of all databases, counted in its own snapshot, the accounts beside it, and the proof from the bytes on disk.

One file for all databases, because they share one snapshot then and views across databases load in any order; the server's own
database is not in it: it belongs to one release. Accounts stand in a script of statements, with the hashes of their passwords.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from safe_compose.artifacts import Artifact, DatabaseStatistics, Evidence, ServerStatistics, TableCount, slug
from safe_compose.engine import Engine, Stream
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.methods.database import LeftBehind
from safe_compose.methods.lexer import BadDump
from safe_compose.methods.mysql.scan import ACCOUNTS_TRAILER, Scanner
from safe_compose.methods.mysql.server import (
    Reading,
    Server,
    Session,
    databases_of,
    fault,
    numbers_of,
    quoted,
    reading,
    session,
    stream,
)
from safe_compose.methods.stream import BLOCK, Sums, blocks_of, evidence, new_folder, nothing, pack, sync_folder, unpack, unproved

DUMP_FILE = "databases.sql.gz"
ACCOUNTS_FILE = "accounts.sql.gz"
BEGIN_SECONDS = 60.0
"""How long a dump may take to its first line: nobody can write meanwhile."""

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
"""What a client does not know and has `loose` before it is skipped with a warning: MariaDB has neither of the last two."""


@dataclass(frozen=True, slots=True)
class Dump:
    """What `dump` made of one server."""

    server: Server
    artifacts: tuple[Artifact, ...]
    statistics: ServerStatistics
    before: Reading
    """What moves with every write, before the first byte."""
    warnings: tuple[str, ...] = ()

    def written_since(self, engine: Engine) -> bool:
        """Whether anything may have been written since the dump began (the server must still run). Raises BackupFailed."""
        with fault(self.server.volume, "look whether anybody wrote"), session(engine, self.server.address) as asked:
            return not self.before.still(reading(asked))
        raise AssertionError  # a session that ends early raises

    def is_older_than(self, left: LeftBehind) -> bool:
        """Its files do not tell; the trial of the archive counts what they hold."""
        return False


def dump(engine: Engine, server: Server, volume: str, into: Path, progress: Callable[[int], None] = nothing) -> Dump:
    """Dump the accounts and all databases of a server into `into/<slug of the volume>/`.

    All is dumped and counted in one consistent view, which begins under a lock that nobody can write through; the lock is
    given back once both have begun, except where tables of an engine without transactions are dumped. `progress` gets the
    bytes so far. What was made counts for nothing before `verify_dump`. Raises BackupFailed.
    """
    if server.volume != volume:
        raise BackupFailed(f"volume {volume}: the server in {server.container.name} keeps its data in {server.volume}")
    folder = into / slug(volume)
    new_folder(folder, subject=volume, stage="dump")
    with (
        fault(volume, "dump", next_step="repeat the command"),
        ThreadPoolExecutor(1) as pool,
        session(engine, server.address) as asked,
    ):
        before = reading(asked)
        artifacts = [_accounts(server, asked, folder, into, volume)]
        asked.rows("FLUSH TABLES WITH READ LOCK;")
        contents = look(asked, server.own)
        asked.rows("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT;")
        if contents.databases:
            counting: list[Future[tuple[DatabaseStatistics, ...]]] = []

            def begun() -> None:
                if not contents.plain:
                    asked.rows("UNLOCK TABLES;")
                counting.append(pool.submit(counted, asked, contents))

            with stream(engine, server.address, _argv(server, contents)) as made:
                path = folder / DUMP_FILE
                blocks = _once_begun(made, begun)
                sums = pack(blocks, path, subject=volume, stage="dump", progress=progress)
            artifacts.append(_artifact(server, path, sums, into, volume, "database"))
            statistics = counting[0].result()
        else:
            statistics = ()
        asked.rows("UNLOCK TABLES; ROLLBACK;")
    sync_folder(folder, subject=volume, stage="dump")
    sync_folder(into, subject=volume, stage="dump")
    found = ServerStatistics(
        kind=server.kind,
        version=server.version,
        user=server.user,
        pgdata=server.data_directory,
        databases=statistics,
        settings=server.settings,
    )
    return Dump(server, tuple(artifacts), found, before, (*server.warnings, *contents.warnings()))


def _argv(server: Server, contents: "Contents") -> tuple[str, ...]:
    broken = [f"--ignore-table={database}.{view}" for database, view in contents.broken]
    return (server.address.dumper, *server.address.options(), *_OPTIONS, *broken, "--databases", "--", *contents.databases)


def _once_begun(made: Stream, begun: Callable[[], None]) -> Iterator[bytes]:
    """The blocks of a dump; `begun` is called as soon as its first database shows: its snapshot is older than that line.

    A dump that shows nothing in time is ended, because it holds up everybody who writes.
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
    yield from blocks_of(made.stdout)


def _artifact(server: Server, path: Path, sums: Sums, into: Path, volume: str, kind: str) -> Artifact:
    return Artifact(
        file=path.relative_to(into).as_posix(),
        kind=kind,
        bytes=sums.bytes,
        sha256=sums.sha256,
        uncompressed_bytes=sums.uncompressed_bytes,
        volume=volume,
        detail={"by": "side container" if server.address.side else "exec", "client": server.address.prefix},
    )


# -- accounts ----------------------------------------------------------------------------------------------------------

HEALTHCHECK = "healthcheck"
"""The official image's own account for health checks: its password lies in a file of the data directory, which each fresh one
gets anew with it, so the account of a fresh server stays as it is."""
_INTERNAL = ("mariadb.sys", "mysql.sys", "mysql.session", "mysql.infoschema")
_NAME = r"(?:`(?:[^`]|``)*`|'(?:[^'\\]|\\.|'')*')"
_ACCOUNT = re.compile(rf"CREATE USER ({_NAME}@{_NAME})(.*)", re.DOTALL)
_DEFAULT_ROLE = re.compile(rf" DEFAULT ROLE (?:{_NAME}@{_NAME},?)+")


def _accounts(server: Server, asked: Session, folder: Path, into: Path, volume: str) -> Artifact:
    path = folder / ACCOUNTS_FILE
    sums = pack([accounts(asked, server.kind).encode()], path, subject=volume, stage="dump of the accounts")
    return _artifact(server, path, sums, into, volume, "globals")


def names_of_accounts(asked: Session, kind: str) -> list[tuple[str, str, bool]]:
    """(user, host, is a role) of all accounts but the server's internal ones."""
    role = "is_role" if kind == "mariadb" else "'N'"
    skipped = ", ".join(f"'{name}'" for name in _INTERNAL)
    sql = f"SELECT User, Host, {role} FROM mysql.user WHERE User NOT IN ({skipped}) ORDER BY {role} DESC, User, Host;"
    return [(user, host, role == "Y") for user, host, role in asked.rows(sql)]


def account(user: str, host: str, role: bool) -> str:
    """An account as SQL."""
    return quoted(user) if role else f"{quoted(user)}@{quoted(host)}"


def accounts(asked: Session, kind: str) -> str:
    """A script that makes the accounts of a server on another one, with hashes, rights and roles; it may be run twice."""
    if kind == "mysql" and numbers_of(asked.value("SELECT @@version;")) >= (8, 0, 17):
        asked.rows("SET SESSION print_identified_with_as_hex = ON;")  # its hashes hold any byte
    made: list[str] = []
    given: list[str] = []
    settled: list[str] = []
    for user, host, role in names_of_accounts(asked, kind):
        name = "PUBLIC" if role and user == "PUBLIC" else account(user, host, role)
        grants = [row[0] for row in asked.rows(f"SHOW GRANTS FOR {name};")]
        given += [line for line in grants if line.startswith("GRANT ") and (user != HEALTHCHECK or " IDENTIFIED " not in line)]
        if not role:
            create, alter = _user(asked.value(f"SHOW CREATE USER {name};"), user)
            made.append(create)
            settled += alter if user != HEALTHCHECK else []
        elif name != "PUBLIC":
            made.append(f"CREATE ROLE IF NOT EXISTS {name}")
        settled += [line for line in grants if not line.startswith("GRANT ")]
    # What an account is comes after its rights: MariaDB's GRANT names its password once more, and so ends an expiry.
    statements = ["SET SESSION sql_mode = ''", *made, *given, *settled, "FLUSH PRIVILEGES"]
    return "".join(f"{line};\n" for line in statements) + "-- accounts end here\n"


def _user(said: str, user: str) -> tuple[str, list[str]]:
    """The statement that makes an account where it is missing, and those that set it to what it was. MariaDB names no empty
    password; MySQL names default roles, which must have been granted before."""
    found = _ACCOUNT.fullmatch(said)
    if found is None:
        raise BackupFailed(f"the server describes the account {user} in a way that is not understood")
    name, rest = found.groups()
    roles = _DEFAULT_ROLE.search(rest)
    rest = _DEFAULT_ROLE.sub("", rest)
    if " IDENTIFIED " not in rest:
        rest = f" IDENTIFIED BY ''{rest}"
    more = [f"ALTER USER {name}{roles[0]}"] if roles is not None else []
    return f"CREATE USER IF NOT EXISTS {name}{rest}", [f"ALTER USER {name}{rest}", *more]


# -- counting ----------------------------------------------------------------------------------------------------------

_ELSEWHERE = frozenset({"MRG_MYISAM", "MRG_ISAM", "FEDERATED", "CONNECT", "OQGRAPH", "SPIDER", "VP"})
"""Engines whose tables only point at rows elsewhere: dumps hold their definitions only."""

_TABLES = """
SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.TABLE_TYPE, COALESCE(t.ENGINE, ''), COALESCE(e.TRANSACTIONS, ''),
  COALESCE(t.DATA_LENGTH + t.INDEX_LENGTH, 0), t.TABLE_TYPE = 'VIEW' AND t.TABLE_COMMENT <> 'VIEW'
FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
WHERE LOWER(t.TABLE_SCHEMA) NOT IN ({own}) ORDER BY 1, 2;
"""
_PROGRAMS = """
SELECT ROUTINE_SCHEMA, CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_NAME) FROM information_schema.ROUTINES
  WHERE LOWER(ROUTINE_SCHEMA) NOT IN ({own})
UNION ALL SELECT TRIGGER_SCHEMA, CONCAT('trigger ', TRIGGER_NAME) FROM information_schema.TRIGGERS
  WHERE LOWER(TRIGGER_SCHEMA) NOT IN ({own})
UNION ALL SELECT EVENT_SCHEMA, CONCAT('event ', EVENT_NAME) FROM information_schema.EVENTS
  WHERE LOWER(EVENT_SCHEMA) NOT IN ({own})
ORDER BY 1, 2;
"""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a server holds besides its own databases."""

    databases: tuple[str, ...]
    tables: tuple[tuple[str, str, str], ...]
    """(database, table, engine) of each table that holds rows."""
    objects: tuple[tuple[str, str], ...]
    """(database, `view name`, `procedure name`, ...)."""
    bytes: dict[str, int]
    plain: tuple[tuple[str, str, str], ...] = ()
    """The tables of engines without transactions."""
    elsewhere: tuple[tuple[str, str], ...] = ()
    historic: tuple[tuple[str, str], ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    """Views on something that is not there: no dump can hold them."""

    def warnings(self) -> Iterator[str]:
        if self.plain:
            engines = ", ".join(sorted({engine for *_, engine in self.plain}))
            yield (
                f"{len(self.plain)} tables have an engine without transactions ({engines}): nobody could write while they were "
                f"dumped ({_some(self.plain)})"
            )
        if volatile := [t for t in self.plain if t[2] == "MEMORY"]:
            yield f"rows of MEMORY tables are gone after any restart of the server ({_some(volatile)})"
        if self.elsewhere:
            yield f"rows that lie in other tables or servers are in no dump ({_some(self.elsewhere)})"
        if self.historic:
            yield f"of system-versioned tables the dump holds the rows of now, not their history ({_some(self.historic)})"
        if self.broken:
            yield f"views on something that is not there are in no dump ({_some(self.broken)})"


def _some(names: Sequence[tuple[str, ...]]) -> str:
    return ", ".join(".".join(name[:2]) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def look(asked: Session, own: Sequence[str]) -> Contents:
    """What there is now; nothing is counted yet."""
    names = ", ".join(f"'{name}'" for name in own)
    sizes: dict[str, int] = {}
    tables: list[tuple[str, str, str]] = []
    plain: list[tuple[str, str, str]] = []
    views: list[tuple[str, str]] = []
    broken: list[tuple[str, str]] = []
    elsewhere: list[tuple[str, str]] = []
    historic: list[tuple[str, str]] = []
    for database, name, kind, engine, transactions, size, invalid in asked.rows(_TABLES.format(own=names)):
        sizes[database] = sizes.get(database, 0) + int(size)
        if kind == "VIEW":
            (broken if invalid == "1" else views).append((database, name))
        elif engine.upper() in _ELSEWHERE:
            elsewhere.append((database, name))
        elif kind in ("BASE TABLE", "SYSTEM VERSIONED"):
            tables.append((database, name, engine))
            if transactions != "YES":
                plain.append((database, name, engine))
            if kind == "SYSTEM VERSIONED":
                historic.append((database, name))
    objects = [(database, f"view {name}") for database, name in views]
    objects += [(database, name) for database, name in asked.rows(_PROGRAMS.format(own=names))]
    return Contents(
        databases=databases_of(asked, own),
        tables=tuple(tables),
        objects=tuple(objects),
        bytes=sizes,
        plain=tuple(plain),
        elsewhere=tuple(elsewhere),
        historic=tuple(historic),
        broken=tuple(broken),
    )


def counted(asked: Session, contents: Contents) -> tuple[DatabaseStatistics, ...]:
    """Count every table, in the view that the session has."""
    rows: dict[str, list[TableCount]] = {name: [] for name in contents.databases}
    for database, table, _ in contents.tables:
        number = asked.value(f"SELECT COUNT(*) FROM {quoted(database)}.{quoted(table)};")
        rows[database].append(TableCount(database, table, int(number)))
    return tuple(
        DatabaseStatistics(
            name=name,
            bytes=contents.bytes.get(name, 0),
            tables=tuple(rows[name]),
            extensions=tuple(sorted(what for database, what in contents.objects if database == name)),
        )
        for name in contents.databases
    )


def count(engine: Engine, server: Server) -> tuple[DatabaseStatistics, ...]:
    """Count every table of every database of a running server now. Raises BackupFailed."""
    with fault(server.volume, "count"), session(engine, server.address) as asked:
        return counted(asked, look(asked, server.own))
    raise AssertionError  # a session that ends early raises


def differences(scanner: Scanner, statistics: Sequence[DatabaseStatistics]) -> str:
    """What the dump does not hold as counted, in words; empty when it is all there."""
    expected = {(t.schema, t.table): t.rows for d in statistics for t in d.tables}
    found = [
        f"{'.'.join(table)} has {scanner.rows.get(table, 'no')} rows in the dump, {expected.get(table, 'no')} were counted"
        for table in sorted(expected.keys() | scanner.rows.keys())
        if expected.get(table) != scanner.rows.get(table)
    ]
    names = {d.name for d in statistics}
    found += [f"database {name} is not both in the dump and counted" for name in sorted(names ^ scanner.databases)]
    programs = sum(not what.startswith("view ") for d in statistics for what in d.extensions)
    if scanner.programs != programs:
        found.append(f"{scanner.programs} procedures, triggers and events are in the dump, {programs} were counted")
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


# -- proof -------------------------------------------------------------------------------------------------------------


def verify_dump(folder: Path, artifacts: Sequence[Artifact], statistics: ServerStatistics) -> list[Evidence]:
    """Read the dump of one volume from the disk: sums, whole gzip streams, last lines (L2); rows equal to the counts (L3).

    Artifacts of other kinds are ignored. Raises VerifyFailed, also when databases were counted and there is no dump.
    """
    found = []
    for artifact in artifacts:
        if artifact.kind == "globals":
            _scanned(folder, artifact, Scanner(ACCOUNTS_TRAILER))
            found.append(evidence("L2", artifact.file, "whole file read, last line found"))
        elif artifact.kind == "database":
            scanner = _scanned(folder, artifact, Scanner())
            if wrong := differences(scanner, statistics.databases):
                raise unproved(artifact, wrong)
            total = sum(d.rows for d in statistics.databases)
            found.append(evidence("L3", artifact.file, f"{len(scanner.rows)} tables, {total} rows equal to their counts"))
    levels = sorted(e.level for e in found)
    if levels != (["L2", "L3"] if statistics.databases else ["L2"]):
        raise VerifyFailed(
            "the backup does not have one dump of its databases and one of its accounts; it is not counted as good",
            next_step="make a new backup",
        )
    return found


def _scanned(folder: Path, artifact: Artifact, scanner: Scanner) -> Scanner:
    try:
        for block in unpack(folder, artifact):
            scanner.feed(block)
        scanner.finish()
    except BadDump as error:
        raise unproved(artifact, str(error)) from error
    return scanner
