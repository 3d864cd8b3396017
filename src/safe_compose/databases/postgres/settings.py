"""Settings files and replication slots of a running PostgreSQL server, which reads them itself."""

import json

from safe_compose.databases.postgres.client import naming_client_fault
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.server_facts import parse_name
from safe_compose.databases.protocol import understanding
from safe_compose.databases.server_files import LARGEST, MOST

_ITS_OWN = (
    "PG_VERSION", "postmaster.pid", "postmaster.opts", "current_logfiles", "backup_label",
    "backup_label.old", "tablespace_map", "tablespace_map.old", "backup_manifest", "standby.signal",
    "recovery.signal", "recovery.done", "logfile",
)  # fmt: skip
"""Files of the data directory that each cluster creates for itself, or that would make it a
different kind of server.
"""
_NOT_READ = "base|global|log|pg_.*|lost\\+found|\\..*"
"""Folders of the data directory that hold the data, or logs."""

_FILES = f"""
WITH RECURSIVE places AS (
  SELECT name AS path FROM pg_catalog.pg_ls_dir('.') AS name
    WHERE name NOT IN ({", ".join(f"'{name}'" for name in _ITS_OWN)}) AND name !~ '\\.log$'
  UNION ALL
  SELECT pg_catalog.concat(above.path, '/', below) FROM places AS above
    CROSS JOIN LATERAL pg_catalog.pg_stat_file(above.path, true) AS facts
    CROSS JOIN LATERAL pg_catalog.pg_ls_dir(
      CASE WHEN facts.isdir AND above.path !~ '^({_NOT_READ})$' THEN above.path END) AS below
    WHERE above.path !~ '/.*/'
)
SELECT pg_catalog.jsonb_object_agg(path,
    pg_catalog.encode(pg_catalog.pg_read_binary_file(path), 'hex')) FROM (
  SELECT path FROM places CROSS JOIN LATERAL pg_catalog.pg_stat_file(path, true) AS facts
  WHERE NOT facts.isdir AND facts.size <= {LARGEST} AND path !~ '[,\\n\\r]'
  ORDER BY path LIMIT {MOST}) AS small
"""
_SLOTS = """
SELECT pg_catalog.jsonb_agg(pg_catalog.format(
    'SELECT pg_catalog.pg_create_%s_replication_slot(%L%s);%s', slot_type, slot_name,
    CASE WHEN slot_type = 'logical' THEN pg_catalog.format(', %L', plugin) END,
    CASE WHEN database IS NOT NULL THEN pg_catalog.format('  -- in database %I', database) END)
  ORDER BY slot_name)
FROM pg_catalog.pg_replication_slots WHERE NOT temporary
"""


def files(server: PostgresServer) -> dict[str, bytes]:
    """Return the small files of the data directory that are settings, by their paths in it.

    Raises:
        OperationFailed: The server does not answer.
    """
    with naming_client_fault(server.volume, "read its settings"):
        answer = server.client.by_exec().ask(server.maintenance, _FILES)
    with understanding(server.container.name):
        return {
            parse_name(path): bytes.fromhex(content)
            for path, content in json.loads(answer or "{}").items()
        }
    raise AssertionError  # an answer that cannot be parsed raises


def slots(server: PostgresServer) -> str:
    """Return the statements that recreate the server's replication slots, empty.

    The text is empty if there are no slots.

    Raises:
        OperationFailed: The server does not answer.
    """
    with naming_client_fault(server.volume, "read its replication slots"):
        answer = server.client.by_exec().ask(server.maintenance, _SLOTS)
    with understanding(server.container.name):
        return "".join(f"{parse_name(line)}\n" for line in json.loads(answer or "[]"))
    raise AssertionError  # an answer that cannot be parsed raises
