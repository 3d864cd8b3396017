"""Restore of one database next to the current one, and the swap by two renames in one transaction.

Until those renames are committed the current database is not touched; afterwards it exists under
another name. The names alone show which of the two is in place: `settle_restore` needs nothing else
after a crash.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from safe_compose.core.backup import DatabaseStatistics
from safe_compose.core.observed import describe_location
from safe_compose.databases.postgres.client import naming_client_fault
from safe_compose.databases.postgres.connection import Use, identifier, literal
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.restrict import feed_psql
from safe_compose.databases.postgres.row_counts import measure
from safe_compose.databases.postgres.target_server import (
    choose_maintenance_database,
    inspect_server,
    list_clients,
)
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.volumes.helper_program import read_last_words

_LIKE = """
SELECT pg_catalog.format(
    'CREATE DATABASE {new} TEMPLATE template0 OWNER %I ENCODING %L LC_COLLATE %L LC_CTYPE %L',
    pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding),
    d.datcollate, d.datctype) ||
  CASE r->>'datlocprovider'
    WHEN 'i' THEN pg_catalog.format(' LOCALE_PROVIDER icu ICU_LOCALE %L',
      COALESCE(r->>'datlocale', r->>'daticulocale'))
    WHEN 'b' THEN pg_catalog.format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', r->>'datlocale')
    ELSE '' END
FROM pg_catalog.pg_database d, pg_catalog.to_jsonb(d) r WHERE d.datname = {old} \\gexec
"""
_GRANTS = """
SELECT 'REVOKE ALL ON DATABASE {new} FROM PUBLIC' FROM pg_catalog.pg_database
  WHERE datname = {old} AND datacl IS NOT NULL \\gexec
SELECT pg_catalog.format('GRANT %s ON DATABASE {new} TO %s%s', a.privilege_type,
    CASE a.grantee WHEN 0 THEN 'PUBLIC'
      ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
  FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
  WHERE d.datname = {old} \\gexec
"""
_SETTINGS = """
SELECT pg_catalog.format('SELECT FROM pg_catalog.set_config(%L, %L, false)', n, v),
  pg_catalog.format('ALTER %s SET %I FROM CURRENT', {whose}, n), pg_catalog.format('RESET %I', n)
  FROM {of} AND n IN ({lists}) \\gexec
SELECT pg_catalog.format('ALTER %s SET %I = %L', {whose}, n, v)
  FROM {of} AND n NOT IN ({lists}) \\gexec
"""
"""FROM CURRENT for values that cannot be written as one string; no other setting of another user
enters our own session.
"""
_LISTS = "'search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries'"
"""Lists that a database or a role may set (guc.c: GUC_LIST_QUOTE)."""
_WHOSE = """CASE s.setrole WHEN 0 THEN 'DATABASE {new}' ELSE
    pg_catalog.format('ROLE %I IN DATABASE {new}', pg_catalog.pg_get_userbyid(s.setrole)) END"""
_OF = """pg_catalog.pg_db_role_setting s
    JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase, pg_catalog.unnest(s.setconfig) c,
    pg_catalog.split_part(c, '=', 1) n, pg_catalog.substr(c, pg_catalog.length(n) + 2) v
  WHERE d.datname = {old}"""


def make_empty(server: PostgresServer, database: str, new: str, *, exists: bool) -> None:
    """Create an empty database for a dump that does not create its own.

    It is like the current one if that exists.

    Raises:
        OperationFailed: The server refuses.
    """
    names = {"new": identifier(new), "old": literal(database)}
    names |= {"whose": _WHOSE.format(**names), "of": _OF.format(**names), "lists": _LISTS}
    script = (
        "".join((_LIKE, _GRANTS, _SETTINGS)).format(**names)
        if exists
        else f"CREATE DATABASE {names['new']};"
    )
    where = choose_maintenance_database(server, database)
    with (
        naming_client_fault(server.volume, f"make database {new}"),
        server.client.session(where, Use.CHANGE) as asked,
    ):
        asked.line(script)


def load(
    server: PostgresServer, database: str, new: str, blocks: Iterable[bytes], *, creates: bool
) -> tuple[DatabaseStatistics, str]:
    """Load a dump into `new`, analyze and count it.

    psql stops at the first error that it is not allowed to ignore.

    Returns:
        The counts, and the errors that psql ignored.

    Raises:
        OperationFailed: The dump cannot be loaded.
    """
    with naming_client_fault(server.volume, f"restore database {database} next to the current one"):
        errors = feed_psql(
            server.client, choose_maintenance_database(server, database) if creates else new, blocks
        )
        # ANALYZE calls functions of the database, which may fail; the server repeats it later.
        with suppress(HelperFailed):
            server.client.by_exec().ask(new, "ANALYZE", use=Use.CHANGE, timeout=None)
        [counted] = measure(server.client.by_exec(), [new])
        return counted, errors
    raise AssertionError  # a failure raises


def swap(server: PostgresServer, database: str, new: str, old_name: str | None) -> None:
    """Swap in a restored database by renaming it and the current one, both or none.

    `old_name` is the new name of the current one; None if there is none. The server itself waits
    five seconds for its clients to leave.

    Raises:
        StateChanged: Somebody is connected to the current one.
        OperationFailed: The server refuses.
    """
    renames = (
        [f"ALTER DATABASE {identifier(database)} RENAME TO {identifier(old_name)}"]
        if old_name is not None
        else []
    )
    renames.append(f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(database)}")
    try:
        # One string is one transaction.
        sql = "; ".join(["SET lock_timeout = '20s'", *renames])
        server.client.by_exec().ask(
            choose_maintenance_database(server, database), sql, use=Use.CHANGE
        )
    except HelperFailed as error:
        if "being accessed by other users" in error.stderr:
            there = "; ".join(map(str, list_clients(server, database))) or "somebody"
            raise StateChanged(
                f"database {database} is in use ({there}); it was left as it was",
                next_step="end those sessions, then run it again",
            ) from error
        raise OperationFailed(
            f"{describe_location(server.volume)}:"
            f" rename database {database}: {read_last_words(error)}"
        ) from error


# -- an interrupted restore ------------------------------------------------------------------------

LOADER = "safe_compose_"
"""Prefix of the names of roles that load a dump and are dropped afterwards."""
_REVOKES = """
SELECT pg_catalog.string_agg(
    pg_catalog.format('REVOKE ALL ON TABLESPACE %I FROM %I', spcname, rolname), '; ')
  FROM pg_catalog.pg_tablespace, pg_catalog.pg_roles r
  WHERE rolname = {role}
    AND EXISTS (SELECT FROM pg_catalog.aclexplode(spcacl) a WHERE a.grantee = r.oid)
"""
"""The statements that revoke a role's privileges on tablespaces: these outlive the database, and a
role that has any cannot be dropped.
"""


def settle_restore(server: PostgresServer, facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Finish or revert an interrupted restore of one database.

    The server's names of databases decide. `facts` are those of the journal.

    Returns:
        Whether the new database is in place, and that in words.

    Raises:
        OperationFailed: The server refuses.
    """
    database, new, old_name = str(facts["database"]), str(facts["beside"]), facts.get("aside")
    names = inspect_server(server, database).databases
    if new not in names and (old_name in names if old_name else database in names):
        replaced = f"; the one before it is {old_name}" if old_name else ""
        return True, f"database {database} of {server.container.name} was restored whole{replaced}"
    drop_restored(server, database, new, [str(role) for role in facts.get("roles", ())])
    return (
        False,
        (
            f"database {database} of {server.container.name} is as it was: what was restored next"
            " to it was removed"
        ),
    )


def drop_restored(server: PostgresServer, database: str, new: str, roles: Sequence[str]) -> None:
    """Drop the database that was created next to the current one, and the roles created for it.

    Raises:
        OperationFailed: The server refuses.
    """
    where, client = choose_maintenance_database(server, database), server.client.by_exec()
    with naming_client_fault(server.volume, f"take away database {new}"):
        client.ask(
            where,
            "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM"
            f" pg_catalog.pg_stat_activity WHERE datname = {literal(new)}",
        )
        client.ask(where, f"DROP DATABASE IF EXISTS {identifier(new)}", use=Use.CHANGE)
        for role in roles:
            if role.startswith(LOADER) and (
                revokes := client.ask(where, _REVOKES.format(role=literal(role)))
            ):
                client.ask(where, revokes, use=Use.CHANGE)
            client.ask(where, f"DROP ROLE IF EXISTS {identifier(role)}", use=Use.CHANGE)
