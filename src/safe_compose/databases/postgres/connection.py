"""The settings of our connections to a PostgreSQL server, which override those of databases.

We connect as a superuser to databases that others own. Their owner may set nearly every parameter
for whoever connects (ALTER DATABASE ... SET: run on 15), and may make functions, operators and
types of any name there. The settings that a connection asks for at its start override those of
databases and roles, from the first statement on (guc.c: PGC_S_CLIENT), for psql, pg_dump,
pg_dumpall and pg_basebackup alike.
"""

from collections.abc import Mapping
from enum import Enum

EVENT_TRIGGERS_SINCE = 17
"""The first major version with a setting to run no event triggers; login triggers came with it."""

SEARCH_PATH = "pg_catalog,pg_temp"
"""No name and no operator of ours is looked up where others can make one. Temporary objects come
last: if they are not named, they are first among tables and types.
"""


class Use(Enum):
    """The purpose of a connection."""

    READ = "read"
    CHANGE = "change"
    LOAD = "load"
    """Loads a dump, which sets its own search_path and encoding."""


_ALWAYS: Mapping[str, str] = {
    # A database can make everybody act as another role, which sees fewer rows or runs its own
    # policies.
    "role": "none",
    "local_preload_libraries": "",  # one that does not exist ends every connection
    "row_security": "off",  # an error instead of hidden rows
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "exit_on_error": "off",
    "client_min_messages": "warning",
}
_OURS: Mapping[str, str] = {
    "search_path": SEARCH_PATH,
    "quote_all_identifiers": "off",
    "bytea_output": "hex",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "temp_tablespaces": "",
}


_ENGLISH = {"lc_messages": "C"}
"""Our code parses the server's messages, whose language is configurable. Only a superuser may set
it.
"""
IN_ENGLISH: Mapping[str, str] = {"LC_ALL": "C"}
"""English messages for a client program: its environment."""


def format_conninfo(**parameters: str | int) -> str:
    """Return a connection string that no value can break out of (`x=y`, `--help`).

    psycopg has a function for that, whose import takes 0.1 s: a tenth of the processor time of a
    backup.
    """
    return " ".join(f"{name}={_quote(str(value))}" for name, value in parameters.items())


def _quote(value: str) -> str:
    """Return a value as libpq reads it back (`conninfo_parse` of fe-connect.c)."""
    escaped = value.replace("\\", r"\\").replace("'", r"\'")
    return f"'{escaped}'" if not value or any(c.isspace() for c in value) else escaped


def options(use: Use, major: int, *, seconds: float | None = None, superuser: bool = True) -> str:
    """Return the `options` of a connection string.

    Args:
        use: The purpose: a connection that only reads could not write even if others' code ran in
            it.
        major: The server's major version; 0 if unknown.
        seconds: Time after which the server ends a statement, even if its client was killed; None
            for no limit.
        superuser: The user may change settings that only a superuser may.
    """
    settings = {**_ALWAYS, "default_transaction_read_only": "on" if use is Use.READ else "off"}
    if use is not Use.LOAD:
        settings |= _OURS
    if superuser:
        settings |= _ENGLISH
    if major >= EVENT_TRIGGERS_SINCE and superuser:
        settings["event_triggers"] = "off"
    if seconds is not None:
        settings["statement_timeout"] = str(max(1, int(seconds * 1000)))
    return " ".join(f"-c {name}={_escape(value)}" for name, value in settings.items())


def _escape(value: str) -> str:
    """Escape blanks and backslashes with a backslash, as libpq's `options` requires."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def literal(text: str) -> str:
    """Write a string of SQL that means the same whatever `standard_conforming_strings` is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'
