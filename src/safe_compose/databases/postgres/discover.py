"""Detection of a PostgreSQL server, of a login to it, and of where its data lies."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Any

from safe_compose.core.backup import STANDBY
from safe_compose.core.observed import Container, Mount, describe_location
from safe_compose.core.text import shell_quote
from safe_compose.databases.client import ASK_TIMEOUT, ask_timeout, summary_words, time_left
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.postgres import login
from safe_compose.databases.postgres.client import LOOPBACK, PostgresClient
from safe_compose.databases.postgres.connection import EVENT_TRIGGERS_SINCE
from safe_compose.databases.postgres.encodings import encode_text
from safe_compose.databases.postgres.server_facts import facts, parse_major
from safe_compose.databases.protocol import (
    LoginRefused,
    OwnFiles,
    ServerUnreachable,
    report_other_server,
    require_persistent,
    understanding,
)
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed, SafeComposeError
from safe_compose.volumes.helper_program import read_last_words

_OWN_PATHS = re.compile(
    r"PG_VERSION|base/(?:\d+|pgsql_tmp)/.*|(?:global|log)/.*|logfile"
    r"|pg_(?:clog|commit_ts|dynshmem|log|logical|multixact|notify|replslot|serial|snapshots|stat"
    r"|stat_statements|stat_tmp|subtrans|tblspc|twophase|wal|xact|xlog)/.*"
    r"|(?:pg_\w+|postgresql)(?:\.auto)?\.conf(?:\.\w+)?|postmaster\.\w+|current_logfiles"
    r"|(?:backup_\w+|tablespace_map|recovery|standby)(?:\.\w+)*|server\.(?:crt|key)|lost\+found/.*",
    re.DOTALL,
)
"""Files that a server, initdb and pg_basebackup create in a data directory (documentation of
PostgreSQL 18, "Database File Layout").
"""
_USUAL_FOLDER = "/var/lib/postgresql"
_MOST_SECRETS = 8
"""Largest number of passwords that are tried: each wrong one is written to the server's log."""
_WITH_PASSWORD = (
    "let POSTGRES_PASSWORD of the service be the password that the database has, then repeat the"
    " command"
)
_WITH_LOGIN_RULE = (
    "let pg_hba.conf let its superuser in, such as by a first line `local all all peer`, and have"
    " the server read it (pg_ctl reload); then repeat the command"
)
_PACKED = re.compile(r"postgres|postgis|timescale|pgvector|pg_?\d|cloudnative-pg|citus|pgrouting")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running database server that answers and keeps its data in a volume."""

    container: Container
    client: PostgresClient
    volume: str
    pgdata: str
    """The data directory relative to the volume's root; `.` is the root itself."""
    data_directory: str
    """The data directory within the container: `/var/lib/postgresql/data`."""
    version: str
    """As in `15.18`."""
    system_identifier: str
    databases: tuple[str, ...]
    """Databases that accept connections and are no templates."""
    maintenance: str
    """A database to connect to for questions about the whole server."""
    settings: Mapping[str, str]
    """Settings that another server needs to start on this data (prepared transactions) or to read
    it (preloaded libraries).
    """
    closed: tuple[str, ...] = ()
    """Databases that accept no connections, without templates."""
    foreign_sessions: tuple[str, ...] = ()
    """Other connected clients, described in words."""
    warnings: tuple[str, ...] = ()
    part: bool = False
    """Only a part of the volume is mounted there."""
    in_folder: bool = False
    """`volume` is a folder of the host that is mounted there: it can be dumped, not archived."""

    @property
    def title(self) -> str:
        """Product and version, as in `PostgreSQL 15.18`."""
        return f"PostgreSQL {self.version}"

    @property
    def engine(self) -> Engine:
        """The engine that the server's container runs on."""
        return self.client.engine

    @property
    def at(self) -> EngineContainer:
        """The server's container, with its engine."""
        return EngineContainer(self.engine, self.container)

    @property
    def user(self) -> str:
        """The role that we connect as."""
        return self.client.user


def data_mount(container: Container, data_directory: str | None = None) -> Mount | None:
    """Return the deepest mount of a container that holds the Postgres data directory, or None.

    If the directory is unknown, the image's own PGDATA decides, and then the usual folders of
    postgres images.
    """
    directory = data_directory or container.environment.get("PGDATA")
    if directory is not None:
        above = [m for m in container.mounts if _holds(m.destination, directory)]
        return max(above, key=lambda m: len(PurePosixPath(m.destination).parts), default=None)
    usual = (
        f"{_USUAL_FOLDER}/data",
        _USUAL_FOLDER,
        "/bitnami/postgresql",
        "/pgdata",
        "/home/postgres/pgdata",
    )
    return next(
        (m for folder in usual for m in container.mounts if m.destination.rstrip("/") == folder),
        None,
    )


def is_server(container: Container) -> bool:
    """Return whether the image is one of a Postgres server."""
    environment = container.environment
    name = container.image.rpartition("/")[2].partition("@")[0].lower()
    return "PG_MAJOR" in environment or "PGDATA" in environment or _PACKED.search(name) is not None


def serves(container: Container, volume_name: str) -> bool:
    """Return whether image and mounts are those of a server with its data in that volume."""
    if not is_server(container):
        return False
    mount = data_mount(container)
    return mount is not None and mount.location == volume_name


def server(at: EngineContainer) -> PostgresServer:
    """Inspect the server in a running container.

    A side container is used if it verifiably reaches the same server.

    Raises:
        ServerUnreachable: The server does not answer.
        OperationFailed: Its data does not lie in one volume alone.
    """
    container = at.container
    client, reported, maintenance = _find(at)
    _refuse_names(container, reported["databases"])
    directory = reported["data_directory"]
    mount = require_persistent(container, data_mount(container, directory), directory)
    volume = mount.name or mount.source
    with ThreadPoolExecutor(1, thread_name_prefix="side") as pool:  # a container starts meanwhile
        side = pool.submit(_use_side_container, container, client, reported, maintenance)
        _refuse_outside(at, volume, directory, reported)
    return PostgresServer(
        container=container,
        client=side.result(),
        volume=volume,
        in_folder=mount.type == "bind",
        pgdata=mount.inside(directory),
        part=bool(mount.subpath),
        data_directory=directory,
        version=reported["version"],
        system_identifier=reported["system_identifier"],
        databases=tuple(reported["databases"]),
        maintenance=maintenance,
        settings=reported["settings"],
        foreign_sessions=tuple(reported["sessions"]),
        closed=tuple(reported["closed"]),
        warnings=_warnings(reported),
    )


def _refuse_names(container: Container, databases: Iterable[str]) -> None:
    """Refuse database names that pg_dump or docker does not take.

    pg_dump takes none with a newline (fe_utils/string_utils.c, appendPsqlMetaConnect); docker takes
    none that is not UTF-8, since it is sent JSON.

    Raises:
        ServerUnreachable: A database has such a name.
    """
    for name in databases:
        cause = (
            "has a newline"
            if "\n" in name or "\r" in name
            else "is not UTF-8"
            if encode_text(name) != name
            else None
        )
        if cause is not None:
            raise ServerUnreachable(
                f"container {container.name}: the name of database {encode_text(name)!r} {cause},"
                " so it cannot be dumped",
                next_step=(
                    "give it another name (ALTER DATABASE ... RENAME TO ...), then repeat the"
                    " command"
                ),
            )


def own_files(found: PostgresServer) -> OwnFiles:
    """Return the data directory, and the paths in it that a server creates."""
    return OwnFiles((found.pgdata,), known=_OWN_PATHS)


def summary(at: EngineContainer, *, timeout: float) -> str | None:
    """Describe a server as in `PostgreSQL 15.18, 3 databases, 41 tables, about 1.2 M rows`.

    The numbers are the planner's estimates, asked by exec only. `timeout`: seconds for all
    questions together.

    Returns:
        None if the server does not answer.
    """
    sql = (
        "SELECT pg_catalog.concat_ws(' ', pg_catalog.count(*), "
        "COALESCE(pg_catalog.sum(GREATEST(reltuples, n_live_tup, 0)), 0)::pg_catalog.int8) "
        "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid "
        "WHERE c.relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
    )
    left = time_left(at.name, timeout)
    tables = rows = 0
    try:
        client, reported, _ = _find(at, left)
        for database in reported["databases"]:
            with understanding(at.name):
                more = list(map(int, client.ask(database, sql, timeout=left()).split()))
                tables += more[0]
                rows += more[1]
    except SafeComposeError:
        return None
    return summary_words(
        f"PostgreSQL {reported['version']}", len(reported["databases"]), tables, rows
    )


def locate(at: EngineContainer, user: str, *, timeout: float = ASK_TIMEOUT) -> PostgresClient:
    """Return a client for the port and socket in a server's `postmaster.pid`.

    Line 4 is the port, line 5 the socket's folder (Postgres' pidfile.h). The defaults are used if
    the file cannot be read.
    """
    container = at.container
    folder = container.environment.get("PGDATA", f"{_USUAL_FOLDER}/data")
    client = PostgresClient(
        at.engine, container.id, container.image_id, user, major=_guess_major(container)
    )
    try:
        output = at.execute("cat", f"{folder}/postmaster.pid", timeout=timeout)
    except HelperFailed:
        return client
    lines = output.decode("utf-8", "replace").split("\n")
    if len(lines) < 5 or not re.fullmatch(r"\d{1,5}", lines[3], re.ASCII):
        return client
    return replace(client, port=int(lines[3]), socket=lines[4] or client.socket)


def _guess_major(container: Container) -> int:
    """Return the major version that an image declares.

    If it declares none, the result is a version that accepts all our settings; a server that
    refuses them is asked again without them.
    """
    return parse_major(container.environment.get("PG_MAJOR", "")) or EVENT_TRIGGERS_SINCE


def _find(
    at: EngineContainer, timeout: Callable[[], float] = ask_timeout
) -> tuple[PostgresClient, dict[str, Any], str]:
    """Return a client that reaches the server by exec, its facts, and a database that lets us in.

    `timeout`: seconds for the next question; it may raise ServerUnreachable.

    Raises:
        LoginRefused: The server refuses all known logins.
        ServerUnreachable: The server does not run or does not answer.
    """
    container = at.container
    if container.state != "running":
        raise ServerUnreachable(
            f"container {container.name}: the database does not run ({container.state})"
        )
    users = dict.fromkeys([container.environment.get("POSTGRES_USER") or "postgres", "postgres"])
    usual = PostgresClient(
        at.engine,
        container.id,
        container.image_id,
        next(iter(users)),
        major=_guess_major(container),
    )
    # The usual location is asked meanwhile.
    with ThreadPoolExecutor(1, thread_name_prefix="located") as pool:
        locating = pool.submit(locate, at, usual.user, timeout=timeout())
        found = _ask_place(container, usual, users, timeout)
        located = locating.result()
    # If they differ, another server answered: containers may share a folder of sockets.
    if located != usual:
        found = _ask_place(container, located, users, timeout)
    if isinstance(found, str):
        if login.is_refused(found):
            raise LoginRefused(
                f"container {container.name}: the server lets us in by no way that is known:"
                f" {found}; it was not dumped",
                next_step=_WITH_LOGIN_RULE if "pg_hba.conf" in found else _WITH_PASSWORD,
            )
        raise ServerUnreachable(
            f"container {container.name}: the database server does not answer: {found}; it was not"
            " dumped",
            next_step=f"docker logs --tail 20 {shell_quote(container.name)}",
        )
    return found


def find_reachable(found: PostgresServer) -> PostgresClient:
    """Return a client that reaches a server by exec now, even if a password changed meanwhile.

    Raises:
        ServerUnreachable: There is none.
    """
    client, _, _ = _find(found.at)
    return client.by_exec()


def _ask_place(
    container: Container, place: PostgresClient, users: Iterable[str], timeout: Callable[[], float]
) -> tuple[PostgresClient, dict[str, Any], str] | str:
    """Return the result of `_find` for one location, or why nobody answers or lets us in there."""
    causes: list[str] = []
    closed: list[bool] = []
    open_logins = (replace(place, user=user) for user in users)
    for client in chain(
        open_logins, _list_other_logins(container, place, list(users), causes, closed)
    ):
        for database in ("postgres", "template1"):
            try:
                reached, reported = facts(client, database, timeout)
            except HelperFailed as error:
                causes.append(read_last_words(error))
                closed.append(login.may_be_refused(error.stderr, error.returncode))
                if login.is_refused(causes[-1]) and "pg_hba.conf" not in causes[-1]:
                    break  # the other database asks for the same password
                continue
            return replace(reached, user=reported["bootstrap"] or client.user), reported, database
    return causes[-1] if causes else "nobody was asked"


def _list_other_logins(
    container: Container,
    place: PostgresClient,
    users: Sequence[str],
    causes: Sequence[str],
    closed: Sequence[bool],
) -> Iterator[PostgresClient]:
    """Yield other logins to a server that refused the first ones.

    They are its own system user, and the passwords of its container: over the socket, and over TCP
    if no other server can be there. `closed` tells for each cause whether it may be a refusal.
    """
    if not any(closed):
        return
    if any(map(login.is_for_its_own_user, causes)):
        yield from (replace(place, user=user, system_user=user) for user in users)
    environment = place.engine.docker.private(container.id).environment
    known = list(islice(login.find_secrets(environment, users), _MOST_SECRETS))
    for host in (place.socket, LOOPBACK) if container.is_alone_at_its_ports else (place.socket,):
        yield from (replace(place, user=user, socket=host, secret=secret) for user, secret in known)


def _use_side_container(
    container: Container, client: PostgresClient, reported: dict[str, Any], maintenance: str
) -> PostgresClient:
    """Return a client in a side container, if it verifiably reaches the same server.

    Otherwise the client is returned unchanged. The identifier alone does not distinguish a server
    from a clone of it; its start time does.

    Raises:
        ServerUnreachable: Another container's server answered at the socket.
    """
    side = replace(client, side=True, system_user=None)
    try:
        _, seen = facts(side, maintenance)
    except HelperFailed:
        return client  # other pg_hba.conf, no TCP: exec over the socket is the verified connection
    if (
        seen["system_identifier"] != reported["system_identifier"]
        and container.is_alone_at_its_ports
    ):
        raise report_other_server(container)
    same = all(
        seen[key] == reported[key] for key in ("system_identifier", "started", "data_directory")
    )
    return side if same else client


def _refuse_outside(
    at: EngineContainer, volume: str, directory: str, facts: dict[str, Any]
) -> None:
    """Require that no tablespace and no log of transactions lies outside of the data directory.

    An archive of the volume would not be a complete database otherwise.

    Raises:
        OperationFailed: One of them lies outside.
    """
    outside = [
        f"tablespace {name} in {at}"
        for name, at in facts["tablespaces"]
        if not _holds(directory, at)
    ]
    try:
        argv = ("readlink", "-f", directory, f"{directory}/pg_wal")
        output = at.execute(*argv)
        real, _, link = output.decode("utf-8", "replace").strip().partition("\n")
        if link and not _holds(real, link):
            outside.append(f"its log of transactions in {link}")
    except HelperFailed:
        pass  # no readlink in that image: the test restore would detect it
    if outside:
        raise OperationFailed(
            f"{describe_location(volume)}: the database of {at.name} also lives outside of it:"
            f" {', '.join(outside)}; that cannot be backed up yet, nothing was dumped",
            next_step="move it into the data directory, or back it up by your own means",
        )


def _holds(folder: str, path: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))


def _warnings(facts: dict[str, Any]) -> tuple[str, ...]:
    found = []
    if facts["prepared"]:
        found.append(f"{facts['prepared']} prepared transactions are in no dump")
    if facts["settings"].get(STANDBY):
        found.append(
            "it follows another server; from a dump alone nothing is made that follows one"
        )
    if facts["slots"]:
        found.append(
            f"{facts['slots']} replication slots are in no dump; the statements that recreate them"
            " are stored with it"
        )
    if facts["lenient"]:
        found.append(
            f"{', '.join(facts['lenient'])}: a crash of the server or of its machine can lose what"
            " clients saw committed; stopped in order, as before a deletion, it loses nothing"
        )
    if facts["undumped"]:
        found.append(
            "databases that are templates or take no connections are in no dump:"
            f" {', '.join(facts['undumped'])}"
        )
    return tuple(found)
