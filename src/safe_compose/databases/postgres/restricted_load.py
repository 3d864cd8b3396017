"""Loading of a dump by a role that owns the new database and nothing else on the server.

A dump is a program: its checks, defaults, generated columns and indexes call its own functions
while rows are loaded. With the superuser's rights those could do anything to the server, so they
get the rights of a role made for this one database. What such a role cannot do (owners, grants,
some extensions) the superuser does before any object of the dump exists, or in statements that run
none of its code. The role is dropped before the database takes its place.
"""

import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO

from safe_compose.core.backup import DatabaseStatistics
from safe_compose.databases.postgres import side_by_side
from safe_compose.databases.postgres.client import PostgresClient, naming_client_fault
from safe_compose.databases.postgres.connection import Use, identifier, literal
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.dump_loading import AFTER_TIMESCALE, BEFORE_TIMESCALE, Loading
from safe_compose.databases.postgres.dump_reader import DumpSummary, rename_in_statement
from safe_compose.databases.postgres.login import is_refused, may_be_refused
from safe_compose.databases.postgres.password import verifier
from safe_compose.databases.postgres.restrict import feed_psql
from safe_compose.databases.postgres.row_counts import measure
from safe_compose.databases.postgres.target_server import choose_maintenance_database
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.volumes.gzip_stream import BLOCK

_PLAIN = (
    b"SET search_path = ''; SET standard_conforming_strings = on; SET client_encoding = UTF8; SET"
    b" client_min_messages = warning; SET quote_all_identifiers = off;\n"
)
"""The database's own settings would change how the server reads a script, and how it stores names
in settings.
"""
_CONFIGURED = """
SELECT pg_catalog.format('GRANT USAGE ON SCHEMA %I TO {role}', nspname),
    pg_catalog.format('GRANT ALL ON TABLE %I.%I TO {role}', nspname, relname)
  FROM pg_catalog.pg_extension, pg_catalog.unnest(extconfig) t,
    pg_catalog.pg_class c, pg_catalog.pg_namespace n
  WHERE c.oid = t AND n.oid = relnamespace \\gexec
"""
"""Tables of extensions whose rows a dump may have."""
_PUBLIC = """
SELECT pg_catalog.format('ALTER SCHEMA public OWNER TO %I', {to})
  FROM pg_catalog.pg_namespace, pg_catalog.pg_roles r
  WHERE nspname = 'public' AND r.oid = 10
    AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 150000 \\gexec
"""
"""From 15 on it is that of whoever owns the database."""
_MAY_CONNECT = (
    "SELECT pg_catalog.has_database_privilege({role}, pg_catalog.current_database(), 'CONNECT')"
)
"""Many take CONNECT on the usual database for questions from PUBLIC."""


@dataclass(frozen=True, slots=True)
class Loader:
    """The role that loads a dump into one database."""

    name: str
    password: str
    owner: str | None
    """Owner of the database afterwards if the dump does not set it; None if the dump does."""

    def at(self, server: PostgresServer) -> PostgresClient:
        """Return the role's client, without the parameters that only a superuser may set."""
        return replace(server.client, user=self.name, superuser=False)


def loader_name(token: str) -> str:
    """Return a name that no service's role has."""
    return f"{side_by_side.LOADER}{token}"


def _role(name: str, password: str) -> bytes:
    """Return the statements that create the role."""
    role = identifier(name)
    attributes = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    makes = f"CREATE ROLE {role} {attributes} PASSWORD {literal(verifier(password, name))};\n"
    # The role may not set that itself; its errors are parsed.
    return (makes + f"ALTER ROLE {role} SET lc_messages = 'C';\n").encode()


def is_let_in(server: PostgresServer, database: str, name: str) -> bool:
    """Return whether a server lets a role of ours in; pg_hba.conf may refuse it (`peer`, `reject`).

    Raises:
        OperationFailed: The login could not be tried.
    """
    where = choose_maintenance_database(server, database)
    loader = Loader(name, secrets.token_urlsafe(24), None)
    with naming_client_fault(server.volume, "try whether it lets a role of ours in"):
        feed_psql(server.client, where, [_PLAIN, _role(name, loader.password)])
        try:
            feed_psql(loader.at(server), where, [b"SELECT 1;\n"], {"PGPASSWORD": loader.password})
        except HelperFailed as error:
            if is_refused(error.stderr):
                return False
            if server.client.by_exec().ask(where, _MAY_CONNECT.format(role=literal(name))) == "f":
                # It was let in before that was checked, and the new database will be its own.
                return True
            if not may_be_refused(error.stderr, error.returncode):
                raise
            return False
        finally:
            server.client.by_exec().ask(where, f"DROP ROLE {identifier(name)}", use=Use.CHANGE)
        return True
    raise AssertionError  # a failure raises


def make_place(
    server: PostgresServer,
    database: str,
    new: str,
    name: str,
    dump: DumpSummary,
    creation: bytes,
    *,
    exists: bool,
) -> Loader:
    """Create the role and the empty database that it owns.

    `creation` is the statement for the database; empty if the dump has none.

    Raises:
        OperationFailed: The server refuses.
    """
    role, password = identifier(name), secrets.token_urlsafe(24)
    where, owner = choose_maintenance_database(server, database), None
    with naming_client_fault(server.volume, f"make database {new}"):
        feed_psql(server.client, where, [_PLAIN, _role(name, password), creation])
    if not creation:
        side_by_side.make_empty(server, database, new, exists=exists)
        owned = (
            "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database WHERE datname ="
            f" {literal(new)}"
        )
        with naming_client_fault(server.volume, f"read the owner of database {new}"):
            owner = server.client.by_exec().ask(where, owned)
    spaces = [
        b"GRANT CREATE ON TABLESPACE " + space + b" TO " + role.encode() + b";"
        for space in dump.tablespaces
    ]
    schemas = [
        b"ALTER SCHEMA " + schema + b" OWNER TO " + role.encode() + b";" for schema in dump.schemas
    ]
    script = (
        _PLAIN,
        f"ALTER DATABASE {identifier(new)} OWNER TO {role};\n".encode(),
        _PUBLIC.format(to=literal(name)).encode(),
        dump.encoding,
        b"\n".join((b"", *dump.before, *schemas, *spaces)),
        BEFORE_TIMESCALE if "timescaledb" in dump.extensions else b"",
        _CONFIGURED.format(role=role).encode(),
    )
    with naming_client_fault(server.volume, f"prepare database {new}"):
        feed_psql(server.client, new, script)
    return Loader(name, password, owner)


def make_settings(
    server: PostgresServer, database: str, new: str, dump: DumpSummary, how: Loading
) -> str:
    """Make the settings of a database that comes back from our own dump.

    They count for whoever connects from now on, as when pg_dump's own script is loaded.

    Returns:
        psql's messages about errors that it may ignore.

    Raises:
        OperationFailed: A setting could not be made.
    """
    if not dump.settings:
        return ""
    made = [
        how.tolerate(rename_in_statement(setting, new.encode("ascii"))) + b"\n"
        for setting in dump.settings
    ]
    with naming_client_fault(server.volume, f"make the settings of database {new}"):
        where = choose_maintenance_database(server, database)
        return feed_psql(
            server.client, where, [_PLAIN, how.begins, dump.encoding, b"\n", *made, how.ends]
        )
    raise AssertionError  # what fails raises


def load(
    server: PostgresServer, database: str, new: str, loader: Loader, blocks: Iterable[bytes]
) -> str:
    """Load a dump as the role, analyze it, and return the errors that psql was allowed to ignore.

    ANALYZE runs the dump's functions too, so the role does it.

    Raises:
        OperationFailed: The dump cannot be loaded.
    """
    stage, step = (
        f"restore database {database} next to the current one",
        (
            "where it asks for what only a superuser may do, and you trust every line of the dump:"
            " load it with psql yourself"
        ),
    )
    with naming_client_fault(server.volume, stage, next_step=step):
        environment = {"PGPASSWORD": loader.password}
        errors = feed_psql(loader.at(server), new, blocks, environment)
        with suppress(HelperFailed):  # the server updates its statistics later
            feed_psql(
                loader.at(server),
                new,
                [b"SET client_min_messages = error;\nANALYZE;\n"],
                environment,
            )
        return errors
    raise AssertionError  # a failure raises


def hand_over(
    server: PostgresServer,
    database: str,
    new: str,
    loader: Loader,
    dump: DumpSummary,
    afterwards: IO[bytes],
    how: Loading,
) -> tuple[DatabaseStatistics, str]:
    """Give everything its owner and its grants, drop the loader's role, and count.

    Returns:
        The counts, and psql's messages about errors that it may ignore.

    Raises:
        OperationFailed: psql ended with an error.
    """
    role, user = identifier(loader.name), identifier(server.user)

    def script() -> Iterable[bytes]:
        yield _PLAIN + f"REASSIGN OWNED BY {role} TO {user};\n".encode()
        yield _PUBLIC.format(to="r.rolname").encode() + how.begins
        if loader.owner is not None:
            yield (
                f"ALTER DATABASE {identifier(new)} OWNER TO {identifier(loader.owner)};\n".encode()
            )
        if "timescaledb" in dump.extensions:
            yield AFTER_TIMESCALE
        yield dump.encoding + b"\n"
        afterwards.seek(0)
        while block := afterwards.read(BLOCK):
            yield block
        yield b"\nRESET SESSION AUTHORIZATION;\nSET client_encoding = UTF8;\n"
        yield f"DROP OWNED BY {role};\n".encode()
        yield dump.encoding + b"\n"
        yield from how.event_triggers()
        yield how.ends

    with naming_client_fault(server.volume, f"give database {new} its owners"):
        errors = feed_psql(server.client, new, script())
        server.client.by_exec().ask(
            choose_maintenance_database(server, database),
            f"DROP ROLE {role}",
            use=Use.CHANGE,
        )
        [counted] = measure(server.client.by_exec(), [new])
        return counted, errors
    raise AssertionError  # what fails raises
