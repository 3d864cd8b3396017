"""Facts that a PostgreSQL server reports about itself, each checked for validity."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from safe_compose.core.backup import STANDBY
from safe_compose.core.initdb import LOCALE
from safe_compose.databases.client import ask_timeout
from safe_compose.databases.postgres.client import PostgresClient
from safe_compose.databases.postgres.connection import EVENT_TRIGGERS_SINCE
from safe_compose.databases.postgres.encodings import decode_answer, encode_text
from safe_compose.databases.protocol import understanding
from safe_compose.engine.client_stream import HelperFailed


def _bytes_of(name: str) -> str:
    """Return SQL for the exact bytes of a name.

    Names in shared catalogs may be in another encoding than the database of the session, and
    connecting to a database requires exactly these bytes.
    """
    written = f"pg_catalog.replace({name}::pg_catalog.text, '\\', '\\\\')"
    return f"pg_catalog.encode(pg_catalog.decode({written}, 'escape'), 'hex')"


TEMPLATE_LOCALE = """
SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype)
FROM pg_catalog.pg_database WHERE datname = 'template1'
"""
"""What a database gets that is created without more words."""
_FACTS = f"""
SELECT pg_catalog.jsonb_build_object(
  'version', pg_catalog.current_setting('server_version'),
  'data_directory', pg_catalog.current_setting('data_directory'),
  'system_identifier', (SELECT system_identifier::pg_catalog.text
                        FROM pg_catalog.pg_control_system()),
  'started', pg_catalog.pg_postmaster_start_time(),
  'bootstrap', (SELECT {_bytes_of("rolname")} FROM pg_catalog.pg_roles
                WHERE oid = 10 AND rolcanlogin AND rolsuper),
  'databases', (SELECT pg_catalog.jsonb_agg({_bytes_of("datname")} ORDER BY datname)
                FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate),
  'undumped', (SELECT pg_catalog.jsonb_agg(datname ORDER BY datname) FROM pg_catalog.pg_database
               WHERE (datistemplate OR NOT datallowconn)
                 AND datname NOT IN ('template0', 'template1')),
  'closed', (SELECT pg_catalog.jsonb_agg(datname ORDER BY datname) FROM pg_catalog.pg_database
             WHERE NOT datallowconn AND NOT datistemplate),
  'tablespaces', (SELECT pg_catalog.jsonb_agg(
                    pg_catalog.jsonb_build_array(spcname, pg_catalog.pg_tablespace_location(oid)))
                  FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')),
  'settings', (SELECT pg_catalog.jsonb_object_agg(name, setting) FROM pg_catalog.pg_settings
               WHERE name IN ('max_prepared_transactions', 'shared_preload_libraries',
                              'max_locks_per_transaction', 'data_checksums')
                 AND setting <> COALESCE(boot_val, '')),
  'standby', pg_catalog.pg_is_in_recovery(),
  'template', ({TEMPLATE_LOCALE}),
  'prepared', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts),
  'slots', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
  'lenient', (SELECT pg_catalog.jsonb_agg(what ORDER BY what) FROM (
                SELECT pg_catalog.concat(name, ' is off') AS what FROM pg_catalog.pg_settings
                WHERE name IN ('synchronous_commit', 'fsync', 'full_page_writes')
                  AND setting = 'off'
                UNION
                SELECT pg_catalog.concat_ws(' ', 'synchronous_commit is off',
                  'for role ' || r.rolname, 'in ' || d.datname)
                FROM pg_catalog.pg_db_role_setting s
                LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
                LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
                WHERE 'synchronous_commit=off' = ANY (s.setconfig)) l),
  'sessions', (SELECT pg_catalog.jsonb_agg(pg_catalog.format('%s in %s from %s', usename, datname,
                      COALESCE(client_addr::pg_catalog.text, 'the socket')) ORDER BY pid)
               FROM pg_catalog.pg_stat_activity
               WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()
                 AND application_name <> 'safe-compose'))
"""


def facts(
    client: PostgresClient, database: str, timeout: Callable[[], float] = ask_timeout
) -> tuple[PostgresClient, dict[str, Any]]:
    """Return a server's facts, and its client with the server's real version.

    Raises:
        HelperFailed: The server does not answer.
        ServerUnreachable: The time is over, or the answer has another form.
    """
    try:
        answer = client.ask(database, _FACTS, timeout=timeout())
    except HelperFailed as error:
        if not _is_too_old(client, error):
            raise
        # A server older than its image declares ends a connection that asks for it.
        client = replace(client, major=0)
        answer = client.ask(database, _FACTS, timeout=timeout())
    with understanding(client.container[:12]):
        found = parse_facts(answer)
    return replace(client, major=parse_major(found["version"])), found


def _is_too_old(client: PostgresClient, error: HelperFailed) -> bool:
    """Return whether the server refused a connection because of a setting that it does not know.

    Its message is in its own language.
    """
    return bool(client.major) and "event_triggers" in error.stderr


def add_version(client: PostgresClient) -> PostgresClient:
    """Return the client with its server's real version, which an image may not declare.

    If the server does not answer, the client is unchanged: the next query shows why.
    """
    if client.major < EVENT_TRIGGERS_SINCE:
        return client
    for tried in (client, replace(client, major=0)):
        try:
            return replace(client, major=parse_major(tried.ask("template1", "SHOW server_version")))
        except HelperFailed as error:
            if not _is_too_old(tried, error):
                break
    return client


_VERSION = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,2}(?:(?:beta|rc)\d{1,2}|devel)?(?![^ ])", re.ASCII)
_TEXTS = ("data_directory", "system_identifier", "started")
_LISTS = ("databases", "undumped", "closed", "tablespaces", "lenient", "sessions")


def parse_facts(answer: str) -> dict[str, Any]:
    """Parse the answer to `_FACTS` and check the type of each part.

    Raises:
        ValueError, TypeError, LookupError: The answer has another form.
    """
    facts: dict[str, Any] = json.loads(answer)
    version = _VERSION.match(facts["version"])
    if version is None:
        raise ValueError(facts["version"])
    found: dict[str, Any] = {
        "version": version[0],
        "bootstrap": facts["bootstrap"] and _from_bytes(facts["bootstrap"]),
    }
    found |= {name: parse_name(facts[name]) for name in _TEXTS}
    found |= {name: int(facts[name]) for name in ("prepared", "slots")}
    lists = {name: facts[name] or [] for name in _LISTS}
    if not all(isinstance(one, list) for one in lists.values()):
        raise TypeError("no list")
    found["tablespaces"] = [
        (parse_name(name), parse_name(at)) for name, at in lists.pop("tablespaces")
    ]
    found["databases"] = [_from_bytes(one) for one in lists.pop("databases")]
    found |= {name: [parse_name(one) for one in some] for name, some in lists.items()}
    found["settings"] = {
        parse_name(name): parse_name(value) for name, value in (facts["settings"] or {}).items()
    }
    if facts["template"] is not None:
        found["settings"][LOCALE] = parse_name(facts["template"]).replace("\n", " ")
    if facts["standby"] is True:
        found["settings"][STANDBY] = "on"
    directory = PurePosixPath(found["data_directory"])
    if not directory.is_absolute() or ".." in directory.parts:
        raise ValueError(found["data_directory"])
    return found


def _from_bytes(value: object) -> str:
    """Decode a name from hexadecimal digits; bytes that are not UTF-8 are kept.

    Raises:
        TypeError, ValueError: It is no such name.
    """
    name = decode_answer(bytes.fromhex(parse_name(value)))
    if "\0" in name:
        raise ValueError(name)
    return name


def parse_name(value: object) -> str:
    """Return a text that can be an argument of a program.

    Raises:
        TypeError, ValueError: It cannot.
    """
    if not isinstance(value, str):
        raise TypeError(type(value))
    if "\0" in value:
        raise ValueError(value)
    return encode_text(value)


def parse_major(version: str) -> int:
    """Return the major version: `15.18` -> 15, `17beta1` -> 17; 0 without a leading number."""
    digits = re.match(r"\d{1,3}", version, re.ASCII)
    return int(digits[0]) if digits else 0
