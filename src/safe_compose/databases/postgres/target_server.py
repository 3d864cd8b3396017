"""The server that gets a restored database: its current content, its clients, and what it lacks."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from safe_compose.databases.engine_container import FILE_LIMIT
from safe_compose.databases.postgres.client import naming_client_fault
from safe_compose.databases.postgres.connection import literal
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.dump_reader import DumpSummary
from safe_compose.databases.postgres.restrict import knows_restrict, psql_version
from safe_compose.databases.postgres.server_facts import parse_name
from safe_compose.databases.protocol import understanding
from safe_compose.engine.client_stream import HelperFailed


@dataclass(frozen=True, slots=True)
class ConnectedClient:
    """A client that is connected to a database."""

    user: str
    application: str
    address: str
    """Empty for the socket in the server's own container."""

    def __str__(self) -> str:
        """Describe the client for a message."""
        program = f" ({self.application})" if self.application else ""
        return f"{self.user}{program} from {self.address or 'the socket in the container'}"


@dataclass(frozen=True, slots=True)
class TargetServer:
    """The server that gets a database, and its current database of that name."""

    exists: bool
    bytes: int
    roles: frozenset[str]
    available: frozenset[str]
    """Extensions that can be created."""
    psql: tuple[int, ...]
    free: int | None
    """Free bytes on the file system of the server's data; None if unknown."""
    databases: frozenset[str]


_TARGET = """
SELECT pg_catalog.jsonb_build_object(
  'bytes', (SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database
            WHERE datname = {name}),
  'roles', (SELECT pg_catalog.jsonb_agg(rolname) FROM pg_catalog.pg_roles),
  'available', (SELECT pg_catalog.jsonb_agg(name) FROM pg_catalog.pg_available_extensions),
  'databases', (SELECT pg_catalog.jsonb_agg(datname) FROM pg_catalog.pg_database))
"""
_SESSIONS = """
SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(usename, application_name,
         COALESCE(pg_catalog.host(client_addr), '')) ORDER BY pid), '[]'::pg_catalog.jsonb)
FROM pg_catalog.pg_stat_activity
WHERE datname = {name} AND backend_type = 'client backend' AND application_name <> 'safe-compose'
"""


def choose_maintenance_database(server: PostgresServer, database: str) -> str:
    """Return a database for connections that is not the one to be renamed."""
    return server.maintenance if server.maintenance != database else "template1"


def inspect_server(server: PostgresServer, database: str) -> TargetServer:
    """Inspect the server for a restore of `database`.

    Raises:
        OperationFailed: The server does not answer.
    """
    with naming_client_fault(server.volume, "inspect the server"):
        answer = server.client.by_exec().ask(
            choose_maintenance_database(server, database), _TARGET.format(name=literal(database))
        )
        psql = psql_version(server.client.by_exec())
    with understanding(server.container.name):
        facts: dict[str, Any] = json.loads(answer)
        return TargetServer(
            exists=facts["bytes"] is not None,
            bytes=int(facts["bytes"] or 0),
            roles=frozenset(map(parse_name, facts["roles"])),
            available=frozenset(map(parse_name, facts["available"] or ())),
            psql=psql,
            free=_free(server),
            databases=frozenset(map(parse_name, facts["databases"])),
        )
    raise AssertionError  # an answer that cannot be parsed raises


def _free(server: PostgresServer) -> int | None:
    try:
        argv = ("df", "-Pk", server.data_directory)
        answer = server.engine.helpers.execute(
            server.container.id, argv, timeout=30, limit=FILE_LIMIT
        )
        return int(answer.decode("ascii", "replace").splitlines()[-1].split()[3]) << 10
    except (HelperFailed, IndexError, ValueError):
        return None  # no df in that image: a full disk will show itself


def list_clients(server: PostgresServer, database: str) -> list[ConnectedClient]:
    """Return the other clients that are connected to a database.

    Raises:
        OperationFailed: The server does not answer.
    """
    with naming_client_fault(server.volume, "look who is connected"):
        answer = server.client.by_exec().ask(
            choose_maintenance_database(server, database), _SESSIONS.format(name=literal(database))
        )
    with understanding(server.container.name):
        return [
            ConnectedClient(parse_name(user), parse_name(program), parse_name(at))
            for user, program, at in json.loads(answer)
        ]
    raise AssertionError  # an answer that cannot be parsed raises


def end_sessions(server: PostgresServer, database: str, addresses: Iterable[str]) -> None:
    """End the sessions of stopped clients; a server notices their end only when it sends something.

    Raises:
        OperationFailed: The server does not answer.
    """
    here = ", ".join(map(literal, addresses)) or "''"
    sql = (
        "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM"
        f" pg_catalog.pg_stat_activity WHERE datname = {literal(database)} AND"
        f" pg_catalog.host(client_addr) IN ({here})"
    )
    with naming_client_fault(server.volume, "end the sessions of stopped services"):
        server.client.by_exec().ask(choose_maintenance_database(server, database), sql)


def find_obstacle(
    dump: DumpSummary,
    extensions: Iterable[str],
    server: PostgresServer,
    found: TargetServer,
    size: int,
) -> tuple[str, str] | None:
    """Return why a dump cannot be restored into a server, and what could be done, or None.

    None means that nothing is known against it. `size`: bytes that the database is likely to take.
    """
    return _find_version_obstacle(dump, server, found) or _find_lack(
        {*dump.extensions, *extensions}, dump.prefixes, found, size
    )


def _find_version_obstacle(
    dump: DumpSummary, server: PostgresServer, found: TargetServer
) -> tuple[str, str] | None:
    """Return why a server's version cannot take a dump, and what could be done, or None."""
    major = _major(server.version)
    if dump.server and _major(dump.server) > major:
        return (
            (
                f"it was made from PostgreSQL {dump.server}, and the server is {server.version}: an"
                " older one does not take it"
            ),
            f"give the service an image of PostgreSQL {_major(dump.server)}, with a new volume",
        )
    # One of ours is loaded without the settings that an older server does not know.
    if dump.client and not dump.own and _major(dump.client) > major:
        return (
            (
                f"it was made by pg_dump {dump.client}, whose scripts a server {server.version}"
                " need not understand"
            ),
            f"make the dump with the server's own pg_dump {major}",
        )
    if dump.ambiguous is not None and not knows_restrict(found.psql):
        psql = ".".join(map(str, found.psql))
        return (
            (
                f"line {dump.ambiguous} has a backslash before the end of a string, and the"
                f" server's own psql {psql} has no \\restrict, without which a dump can make it"
                " read that in another way"
            ),
            f"pull the latest minor release of PostgreSQL {major}",
        )
    return None


def _find_lack(
    extensions: set[str], prefixes: Iterable[str], found: TargetServer, size: int
) -> tuple[str, str] | None:
    """Return which extension or space a server lacks, or must not have, and what could be done.

    `prefixes`: prefixes of settings that belong to no library where the dump was made.
    """
    if missing := sorted(extensions - found.available):
        return (
            f"the server has no extension {', '.join(missing)}",
            "give the service an image that has it",
        )
    if taken := sorted({*prefixes} & {name.lower() for name in found.available}):
        return (
            (
                f"it has settings of {', '.join(taken)}, which is an extension on this server:"
                " they are a superuser's to make"
            ),
            (
                "take those lines out of the script, restore it, and make the settings with psql"
                " afterwards"
            ),
        )
    if found.free is not None and found.free < size * 6 // 5:
        return (
            (
                f"about {size * 6 // 5 >> 20} MiB are needed next to the current database,"
                f" {found.free >> 20} MiB are free"
            ),
            "make room where docker keeps its volumes",
        )
    return None


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isdecimal() else 0
