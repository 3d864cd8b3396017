"""Which server it is, where its data lies, and how it is asked: recognised, proved, then talked to by psql.

psql and pg_dump run in a side container of the service's own image that shares its network; the data stays in a server that
proved to be the same one over its own socket. Where the network does not let us in, one bare program by exec: never a shell
in the service's container, because a process that loses its parent there can make Postgres restart (proved).
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO, Any

from safe_compose.engine import Engine, Helper, HelperFailed, Stream
from safe_compose.errors import BackupFailed, SafeComposeError
from safe_compose.methods.archive import last_words
from safe_compose.methods.database import Silent, another, lasting
from safe_compose.methods.postgres.scan import text
from safe_compose.observed import Container, Mount

APPLICATION = "safe-compose"
ASK_TIMEOUT = 60.0
"""Seconds for one small question."""

_NO_TIMEOUTS = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
"""What a connection asks for wins over ALTER DATABASE ... SET, from the first statement on."""

_USUAL_FOLDER = "/var/lib/postgresql"
_PACKED = re.compile(r"postgres|postgis|timescale|pgvector|pg_?\d|cloudnative-pg|citus|pgrouting")


@dataclass(frozen=True, slots=True)
class Address:
    """How one server is reached."""

    container: str
    """The container's id."""
    image: str
    """Its image's id: where side containers come from."""
    user: str
    port: int = 5432
    socket: str = "/var/run/postgresql"
    side: bool = False
    """By a side container over 127.0.0.1; else by exec over the socket."""

    def conninfo(self, database: str) -> str:
        """A connection string that no database name can break out of (`x=y`, `--help`); it never holds a password."""
        from psycopg.conninfo import make_conninfo  # 40 ms that the card does not wait for

        host = "127.0.0.1" if self.side else self.socket
        return make_conninfo(
            host=host,
            port=self.port,
            user=self.user,
            dbname=database,
            application_name=APPLICATION,
            connect_timeout=10,
            options=_NO_TIMEOUTS,
        )


@dataclass(frozen=True, slots=True)
class Server:
    """One database server that runs, answers, and keeps its data in a volume."""

    container: Container
    address: Address
    volume: str
    pgdata: str
    """The data directory relative to the volume's root; `.` is the root itself."""
    data_directory: str
    """The same within the container: `/var/lib/postgresql/data`."""
    version: str
    """`15.18`"""
    system_identifier: str
    databases: tuple[str, ...]
    """Those that accept connections and are no templates."""
    maintenance: str
    """A database that can be connected to for questions about the whole server."""
    settings: Mapping[str, str]
    """Those that another server needs to start on this data (prepared transactions) or to read it (preloaded libraries)."""
    foreign_sessions: tuple[str, ...] = ()
    """Clients that are connected besides us, in words."""
    warnings: tuple[str, ...] = ()
    in_folder: bool = False
    """`volume` is a folder of the host, mounted there: it can be dumped, not archived."""

    @property
    def title(self) -> str:
        return f"PostgreSQL {self.version}"

    @property
    def user(self) -> str:
        return self.address.user


@dataclass(frozen=True, slots=True)
class Reading:
    """A look at the transaction counter: equal `xmax` mean that nobody wrote in between, given that nobody was writing at
    the first look (`xmin` = `xmax`). ANALYZE moves it too: a false alarm."""

    xmin: int
    xmax: int

    def still(self, later: "Reading") -> bool:
        """Whether nothing at all was written between this reading and a later one."""
        return self.xmin == self.xmax == later.xmax


def data_mount(container: Container, data_directory: str | None = None) -> Mount | None:
    """The mount of a container under which the Postgres data directory lies (the deepest one), or None.

    Without a known directory the image's own PGDATA, then the usual folders of postgres images, decide.
    """
    directory = data_directory or container.environment.get("PGDATA")
    if directory is not None:
        above = [m for m in container.mounts if _holds(m.destination, directory)]
        return max(above, key=lambda m: len(PurePosixPath(m.destination).parts), default=None)
    usual = (f"{_USUAL_FOLDER}/data", _USUAL_FOLDER, "/bitnami/postgresql", "/pgdata", "/home/postgres/pgdata")
    return next((m for folder in usual for m in container.mounts if m.destination.rstrip("/") == folder), None)


def serves(container: Container, volume_name: str) -> bool:
    """Whether, by its image and mounts, this is a Postgres server with its data in that volume."""
    environment = container.environment
    name = container.image.rpartition("/")[2].partition("@")[0].lower()
    if not ("PG_MAJOR" in environment or "PGDATA" in environment or _PACKED.search(name)):
        return False
    mount = data_mount(container)
    return mount is not None and mount.type == "volume" and mount.name == volume_name


def server(engine: Engine, container: Container) -> Server:
    """Find out all about the server in a running container, and prove that a side container reaches the same one.

    Raises Silent when it does not answer, BackupFailed when its data does not lie in one volume alone.
    """
    address, facts, maintenance = _found(engine, container)
    directory = str(facts["data_directory"])
    mount = lasting(container, data_mount(container, directory), directory)
    volume = mount.name or mount.source
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:  # a container starts meanwhile
        beside = pool.submit(_beside, engine, container, address, facts, maintenance)
        _refuse_outside(engine, container, volume, directory, facts)
    return Server(
        container=container,
        address=beside.result(),
        volume=volume,
        in_folder=mount.type == "bind",
        pgdata=str(PurePosixPath(directory).relative_to(mount.destination)),
        data_directory=directory,
        version=str(facts["version"]).split()[0],
        system_identifier=str(facts["system_identifier"]),
        databases=tuple(facts["databases"] or ()),
        maintenance=maintenance,
        settings=facts["settings"] or {},
        foreign_sessions=tuple(facts["sessions"] or ()),
        warnings=_warnings(facts),
    )


def reading(engine: Engine, found: Server) -> Reading:
    """The transaction counter now. Raises BackupFailed."""
    with fault(found.volume, "look at the transaction counter"), session(engine, found.address, found.maintenance) as asked:
        return asked.reading()
    raise AssertionError  # a session that ends early raises


def summary(engine: Engine, container: Container, *, timeout: float) -> str | None:
    """`PostgreSQL 15.18, 3 databases, 41 tables, about 1.2 M rows` from the planner's estimates, by exec only; None when it
    cannot be told. `timeout`: seconds for all questions together."""
    sql = (
        "SELECT count(*) || ' ' || COALESCE(sum(GREATEST(reltuples, n_live_tup, 0)), 0)::bigint "
        "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid "
        "WHERE c.relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
    )
    until = time.monotonic() + timeout

    def left() -> float:
        if (seconds := until - time.monotonic()) <= 0:
            raise Silent(f"container {container.name}: its server did not answer in time")
        return seconds

    tables = rows = 0
    try:
        address, facts, _ = _found(engine, container, left)
        for database in facts["databases"] or ():
            more = ask(engine, address, database, sql, timeout=left()).split()
            tables += int(more[0])
            rows += int(more[1])
    except SafeComposeError:
        return None
    version, databases = str(facts["version"]).split()[0], len(facts["databases"] or ())
    return (
        f"PostgreSQL {version}, {databases} database{'s' * (databases != 1)}, {tables} table{'s' * (tables != 1)}, "
        f"about {_short(rows)} rows"
    )


def _short(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= 10 * size or (number >= size and unit != "k"):
            return f"{number / size:.1f} {unit}"
    return str(number)


# -- asking ------------------------------------------------------------------------------------------------------------


PSQL = (
    "psql",
    "--no-psqlrc",
    "--quiet",
    "--no-align",
    "--tuples-only",
    "--no-password",
    "--set=ON_ERROR_STOP=1",
    "--set=VERBOSITY=terse",
)
"""Terse, because the details of an error hold rows and statements: other people's data, verifiers of passwords."""


def ask(engine: Engine, address: Address, database: str, sql: str, *, timeout: float | None = ASK_TIMEOUT) -> str:
    """The answer to one statement, without its last newline. Raises HelperFailed."""
    argv = (*PSQL, f"--dbname={address.conninfo(database)}", f"--command={sql}")
    return text(run(engine, address, argv, timeout=timeout)).removesuffix("\n")


def run(engine: Engine, address: Address, argv: Sequence[str], *, timeout: float | None = None) -> bytes:
    """Run a client program to its end and return what it wrote. Raises HelperFailed."""
    if address.side:
        return engine.run(_side(address, argv), timeout=timeout)
    return engine.execute(address.container, tuple(argv), timeout=timeout)


@contextmanager
def stream(
    engine: Engine,
    address: Address,
    argv: Sequence[str],
    *,
    piped: Sequence[str] = (),
    stdin: int | None = None,
    discard: bool = False,
) -> Iterator[Stream]:
    """Run a client program and read (and write) while it runs; `piped` as of a Helper, for a side container only. Raises
    HelperFailed at the end unless it ended with 0."""
    if address.side:
        with engine.stream(_side(address, argv, piped), stdin=stdin, discard=discard) as opened:
            yield opened
    else:
        with engine.execute_stream(address.container, tuple(argv), stdin=stdin, discard=discard) as opened:
            yield opened


def _side(address: Address, argv: Sequence[str], piped: Sequence[str] = ()) -> Helper:
    return Helper(image=address.image, argv=tuple(argv), piped=tuple(piped), network=f"container:{address.container}")


@contextmanager
def fault(volume: str, stage: str, *, next_step: str | None = None) -> Iterator[None]:
    """Name volume, stage and cause when a client program fails."""
    try:
        yield
    except HelperFailed as error:
        raise BackupFailed(f"volume {volume}: {stage}: {last_words(error)}", next_step=next_step or error.next_step) from error


_ANSWERED = "---- safe-compose: answered ----"


class Session:
    """psql that is asked one thing after the other over its stdin and stdout: a program's start costs more than most answers."""

    def __init__(self, opened: Stream, address: Address, database: str) -> None:
        self._opened = opened
        self._address = address
        self.database = database

    def connect(self, database: str) -> None:
        """Go on in another database of the same server."""
        if database != self.database:
            # psql reads this word as an identifier: in double quotes all but these stands for itself. A name with a newline
            # ends the session, and pg_dump would refuse it as well.
            target = self._address.conninfo(database).replace('"', '""')
            self.line(f'\\connect -reuse-previous=off "{target}"')
            self.database = database

    def reading(self) -> Reading:
        """The transaction counter now."""
        xmin, xmax = self.line(
            "SELECT pg_catalog.txid_snapshot_xmin(s) || ' ' || pg_catalog.txid_snapshot_xmax(s) "
            "FROM pg_catalog.txid_current_snapshot() AS s;"
        ).split()
        return Reading(int(xmin), int(xmax))

    def begin(self, script: str) -> Iterator[str]:
        """Send statements now; their answers are there to be read later, line by line.

        Raises SessionOver when psql ended. One script at a time.
        """
        stdin: IO[bytes] = _pipe(self._opened.stdin)
        try:
            stdin.write(f"{script}\nSELECT '{_ANSWERED}';\n".encode())
            stdin.flush()
        except BrokenPipeError as error:
            raise SessionOver from error
        return self._answers()

    def _answers(self) -> Iterator[str]:
        while line := self._opened.stdout.readline():
            answer = text(line).removesuffix("\n")
            if answer == _ANSWERED:
                return
            yield answer
        raise SessionOver

    def line(self, script: str) -> str:
        """The one line that statements answer with."""
        return "\n".join(self.begin(script))


class SessionOver(Exception):
    """psql ended before it was told to; its exit code and words come with the end of the stream."""


@contextmanager
def session(engine: Engine, address: Address, database: str) -> Iterator[Session]:
    """An open psql session. Raises HelperFailed with psql's words when it ends by itself."""
    over: SessionOver | None = None
    argv = (*PSQL, f"--dbname={address.conninfo(database)}")
    with stream(engine, address, argv, stdin=-1) as opened:
        try:
            yield Session(opened, address, database)
        except SessionOver as error:
            over = error
        with suppress(BrokenPipeError):  # then it has ended; its exit code tells how
            _pipe(opened.stdin).close()
    if over is not None:
        raise BackupFailed(f"psql ended before it was told to (database {database})") from over


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise TypeError("the program was started without stdin")
    return pipe


# -- finding out -------------------------------------------------------------------------------------------------------

_FACTS = """
SELECT pg_catalog.jsonb_build_object(
  'version', pg_catalog.current_setting('server_version'),
  'data_directory', pg_catalog.current_setting('data_directory'),
  'system_identifier', (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
  'started', pg_catalog.pg_postmaster_start_time(),
  'bootstrap', (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10 AND rolcanlogin AND rolsuper),
  'databases', (SELECT pg_catalog.jsonb_agg(datname ORDER BY datname) FROM pg_catalog.pg_database
                WHERE datallowconn AND NOT datistemplate),
  'undumped', (SELECT pg_catalog.jsonb_agg(datname ORDER BY datname) FROM pg_catalog.pg_database
               WHERE (datistemplate OR NOT datallowconn) AND datname NOT IN ('template0', 'template1')),
  'tablespaces', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(spcname, pg_catalog.pg_tablespace_location(oid)))
                  FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')),
  'settings', (SELECT pg_catalog.jsonb_object_agg(name, setting) FROM pg_catalog.pg_settings
               WHERE name IN ('max_prepared_transactions', 'shared_preload_libraries', 'max_locks_per_transaction')
                 AND setting <> COALESCE(boot_val, '')),
  'prepared', (SELECT count(*) FROM pg_catalog.pg_prepared_xacts),
  'slots', (SELECT count(*) FROM pg_catalog.pg_replication_slots),
  'lenient', (SELECT pg_catalog.jsonb_agg(what ORDER BY what) FROM (
                SELECT name || ' is off' AS what FROM pg_catalog.pg_settings
                WHERE name IN ('synchronous_commit', 'fsync', 'full_page_writes') AND setting = 'off'
                UNION
                SELECT concat_ws(' ', 'synchronous_commit is off', 'for role ' || r.rolname, 'in ' || d.datname)
                FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
                LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
                WHERE 'synchronous_commit=off' = ANY (s.setconfig)) l),
  'sessions', (SELECT pg_catalog.jsonb_agg(pg_catalog.format('%s in %s from %s', usename, datname,
                      COALESCE(client_addr::text, 'the socket')) ORDER BY pid)
               FROM pg_catalog.pg_stat_activity
               WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()
                 AND application_name <> 'safe-compose'))
"""


def locate(engine: Engine, container: Container, user: str, *, timeout: float = ASK_TIMEOUT) -> Address:
    """Where the server in a container listens, as its own `postmaster.pid` says (line 4 is the port, line 5 the socket's
    folder: Postgres' pidfile.h); the defaults where that cannot be read."""
    folder = container.environment.get("PGDATA", f"{_USUAL_FOLDER}/data")
    address = Address(container.id, container.image_id, user)
    try:
        lines = engine.execute(container.id, ("cat", f"{folder}/postmaster.pid"), timeout=timeout).decode("utf-8").split("\n")
    except HelperFailed:
        return address
    if len(lines) < 5 or not lines[3].isdigit():
        return address
    return Address(container.id, container.image_id, user, int(lines[3]), lines[4] or address.socket)


def _found(
    engine: Engine, container: Container, timeout: Callable[[], float] = lambda: ASK_TIMEOUT
) -> tuple[Address, dict[str, Any], str]:
    """How the server is reached by exec, what it says of itself, and a database that lets us in.

    `timeout`: seconds for the next question; may raise Silent.
    """
    if container.state != "running":
        raise Silent(f"container {container.name}: the database does not run ({container.state})")
    users = dict.fromkeys([container.environment.get("POSTGRES_USER") or "postgres", "postgres"])
    usual = Address(container.id, container.image_id, next(iter(users)))
    with ThreadPoolExecutor(1, thread_name_prefix="located") as pool:  # the usual place is asked meanwhile
        looked = pool.submit(locate, engine, container, usual.user, timeout=timeout())
        found = _asked(engine, usual, users, timeout)
        located = looked.result()
    if located != usual:  # whoever answered there is another server: containers may share a folder of sockets
        found = _asked(engine, located, users, timeout)
    if isinstance(found, str):
        raise Silent(
            f"container {container.name}: the database server does not answer: {found}; it was not dumped",
            next_step=f"docker logs --tail 20 {container.name}",
        )
    return found


def _asked(
    engine: Engine, place: Address, users: Iterable[str], timeout: Callable[[], float]
) -> tuple[Address, dict[str, Any], str] | str:
    """`_found` for one place; in words why nobody answers there."""
    cause = ""
    for user in users:
        for database in ("postgres", "template1"):
            address = replace(place, user=user)
            try:
                facts: dict[str, Any] = json.loads(ask(engine, address, database, _FACTS, timeout=timeout()))
            except HelperFailed as error:
                cause = last_words(error)
                continue
            return replace(address, user=facts["bootstrap"] or user), facts, database
    return cause


def _beside(engine: Engine, container: Container, address: Address, facts: dict[str, Any], maintenance: str) -> Address:
    """The same server through a side container, when that is proved to reach it; else the address as it is.

    The identifier alone does not tell a server from a clone of it: the moment at which it started does. Raises Silent where it
    was another container's server that answered at the socket.
    """
    side = replace(address, side=True)
    try:
        seen = json.loads(ask(engine, side, maintenance, _FACTS))
    except HelperFailed:
        return address  # other pg_hba.conf, no TCP: exec over the socket is the proved way
    if seen["system_identifier"] != facts["system_identifier"] and container.is_alone_at_its_ports:
        raise another(container)
    same = all(seen[key] == facts[key] for key in ("system_identifier", "started", "data_directory"))
    return side if same else address


def _refuse_outside(engine: Engine, container: Container, volume: str, directory: str, facts: dict[str, Any]) -> None:
    """Neither a tablespace nor the log of transactions may lie outside: an archive of the volume would be no database."""
    outside = [f"tablespace {name} in {at}" for name, at in facts["tablespaces"] or () if not _holds(directory, at)]
    try:
        argv = ("readlink", "-f", directory, f"{directory}/pg_wal")
        real, _, link = engine.execute(container.id, argv, timeout=ASK_TIMEOUT).decode().strip().partition("\n")
        if link and not _holds(real, link):
            outside.append(f"its log of transactions in {link}")
    except HelperFailed:
        pass  # no readlink in that image: the trial restore would find it out
    if outside:
        raise BackupFailed(
            f"volume {volume}: the database of {container.name} also lives outside of it: {', '.join(outside)}; that cannot "
            "be backed up yet, nothing was dumped",
            next_step="move it into the data directory, or back it up by your own means",
        )


def _holds(folder: str, path: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))


def _warnings(facts: dict[str, Any]) -> tuple[str, ...]:
    found = []
    if facts["prepared"]:
        found.append(f"{facts['prepared']} prepared transactions are in no dump")
    if facts["slots"]:
        found.append(f"{facts['slots']} replication slots are in no dump")
    if facts["lenient"]:
        found.append(
            f"{', '.join(facts['lenient'])}: a crash of the server or of its machine can lose what clients saw committed; "
            "stopped in order, as before a deletion, it loses nothing"
        )
    if facts["undumped"]:
        found.append(f"databases that are templates or take no connections are in no dump: {', '.join(facts['undumped'])}")
    return tuple(found)
