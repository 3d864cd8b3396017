"""The counts of every table and large object of a database, in a snapshot that a dump can share."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from safe_compose.core.backup import DatabaseStatistics, TableCount
from safe_compose.databases.client import COUNT_SECONDS
from safe_compose.databases.postgres.client import PostgresClient, PsqlSession
from safe_compose.databases.postgres.connection import SEARCH_PATH
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.encodings import find_codec
from safe_compose.databases.postgres.server_facts import parse_name
from safe_compose.databases.protocol import understanding

LOCK_SECONDS = 60
"""Time that a dump waits for a table that somebody changes; then it fails instead of hanging."""

# Ordinary tables whose rows pg_dump writes (pg_dump.c: selectDumpableTable,
# processExtensionTables): partitions and children by themselves (ONLY), none of an extension but
# its configuration tables, those with the extension's condition.
#
# To plan a query the server folds the expressions of a table's indexes and statistics: that runs
# functions of their owners in our session, and fails if they look up a name in the schema of their
# database. COPY plans nothing. So the rows of a table with such an expression are counted as lines
# of `copied`, its shortest column.
_TABLES = """
  SELECT c.oid, n.nspname, c.relname, e.condition, CASE WHEN e.oid IS NULL AND EXISTS (
    SELECT FROM pg_catalog.pg_depend f
    JOIN pg_catalog.pg_depend o ON o.classid = f.classid AND o.objid = f.objid
      AND o.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.refobjid = c.oid
    WHERE f.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass,
                           'pg_catalog.pg_operator'::pg_catalog.regclass)
      AND f.classid IN ('pg_catalog.pg_class'::pg_catalog.regclass,
                        pg_catalog.to_regclass('pg_catalog.pg_statistic_ext'))
  ) THEN (
    SELECT a.attname FROM pg_catalog.pg_attribute a, pg_catalog.to_jsonb(a) r
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND COALESCE(r->>'attgenerated', '') = ''
    ORDER BY a.attlen < 0, a.attlen, a.attnum LIMIT 1) END AS copied
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN (SELECT pg_catalog.unnest(extconfig) AS oid,
                    pg_catalog.unnest(extcondition) AS condition
             FROM pg_catalog.pg_extension) e ON e.oid = c.oid
  WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (e.oid IS NOT NULL OR NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
        AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'))
"""

# Settings that older releases do not know (the others come with the connection): no timeout may end
# the transaction that holds the snapshot, and no view or foreign table that replaces a table
# meanwhile is read (CVE-2024-7348). Counts and dump use the database's own encoding, whatever it
# sets for its clients. \gset, because these must not answer with a line.
_SNAPSHOT = f"""
SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false)) AS timeouts
  FROM pg_catalog.pg_settings
  WHERE name IN ('transaction_timeout', 'idle_session_timeout') \\gset
SELECT pg_catalog.count(pg_catalog.set_config(name, 'view, foreign-table', false)) AS kinds
  FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind' \\gset
SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'),
  false) AS encoding \\gset
SET lock_timeout = '{LOCK_SECONDS}s';
SET search_path = {SEARCH_PATH};
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_export_snapshot(),
  pg_catalog.current_setting('server_encoding'));
"""

_FACTS = f"""
SELECT pg_catalog.jsonb_build_object(
  'bytes', pg_catalog.pg_database_size(pg_catalog.current_database()),
  'large_objects', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata),
  'extensions', (SELECT pg_catalog.jsonb_agg(pg_catalog.concat_ws(' ', extname, extversion)
                        ORDER BY extname) FROM pg_catalog.pg_extension),
  'tables', (SELECT pg_catalog.jsonb_agg(
               pg_catalog.jsonb_build_array(oid, nspname, relname, copied IS NOT NULL)
               ORDER BY nspname, relname)
             FROM ({_TABLES}) t));
"""

# One statement per table, made and quoted by the server itself. A rolled back savepoint releases
# its locks at once, on the table and each of its indexes (PostgreSQL's documentation, 13.3), while
# the transaction, and so the snapshot, continues. The server's table of locks holds 64 for each
# connection that may be open, and the dump needs one for each table.
_COUNT = f"""
SAVEPOINT counted;
SELECT pg_catalog.format(
    'SELECT pg_catalog.concat_ws('' '', %s, pg_catalog.count(*)) FROM %s %I.%I %s', oid,
    CASE WHEN condition <> '' THEN '' ELSE 'ONLY' END, nspname, relname, condition),
  'ROLLBACK TO SAVEPOINT counted'
  FROM ({_TABLES}) t WHERE copied IS NULL ORDER BY nspname, relname \\gexec
"""
_COPY = f"""
SELECT pg_catalog.format('COPY %I.%I (%I) TO STDOUT', nspname, relname, copied),
  'ROLLBACK TO SAVEPOINT counted'
  FROM ({_TABLES}) t WHERE oid = """


class Counting:
    """The counts of a session's database, taken in a snapshot that stays open for a dump."""

    def __init__(self, asked: PsqlSession) -> None:
        """Open the snapshot and list the tables."""
        self._asked = asked
        answer = asked.line(_SNAPSHOT)
        with understanding(f"database {asked.database}"):
            self.snapshot, self.encoding = answer.split(" ")
        asked.codec = find_codec(self.encoding)
        facts = asked.line(_FACTS)
        with understanding(f"database {asked.database}"):
            self._counted = _parse_counts(asked.database, json.loads(facts))

    @property
    def bytes(self) -> int:
        """Return the size of the database."""
        return self._counted[0].bytes

    def start(self) -> Iterator[str]:
        """Start counting on the server; the answers wait in the pipe while the dump streams."""
        return self._asked.begin(_COUNT)

    def finish(self, answers: Iterator[str]) -> DatabaseStatistics:
        """Collect the counts and end the snapshot.

        Raises:
            OperationFailed: The server does not answer in time.
        """
        statistics, oids, copied = self._counted
        rows: dict[int, int] = {}
        with self._asked.within(COUNT_SECONDS), understanding(f"database {statistics.name}"):
            for line in answers:
                oid, _, count = line.partition(" ")
                rows[int(oid)] = int(count)
                if len(rows) > len(oids):
                    raise ValueError("more counts than tables")
            for number in copied:
                rows[number] = sum(1 for _ in self._asked.begin(f"{_COPY}{number} \\gexec"))
            tables = tuple(
                replace(t, rows=rows[oid]) for t, oid in zip(statistics.tables, oids, strict=True)
            )
        self._asked.line("ROLLBACK;")
        return replace(statistics, tables=tables)


def _parse_counts(
    name: str, facts: dict[str, Any]
) -> tuple[DatabaseStatistics, tuple[int, ...], tuple[int, ...]]:
    """Parse the facts about a database before its rows are counted.

    Returns:
        The statistics without rows, the number of each table, and the numbers of those that are
        counted by copying.

    Raises:
        ValueError, TypeError, LookupError: The facts have another form.
    """
    tables = facts["tables"] or ()
    found = [
        (int(oid), TableCount(parse_name(schema), parse_name(table), 0))
        for oid, schema, table, _ in tables
    ]
    statistics = DatabaseStatistics(
        name=name,
        bytes=int(facts["bytes"]),
        tables=tuple(table for _, table in found),
        large_objects=int(facts["large_objects"]),
        extensions=tuple(map(parse_name, facts["extensions"] or ())),
    )
    return (
        statistics,
        tuple(oid for oid, _ in found),
        tuple(int(table[0]) for table in tables if table[3]),
    )


def measure(client: PostgresClient, databases: Sequence[str]) -> tuple[DatabaseStatistics, ...]:
    """Count every table of these databases.

    Raises:
        HelperFailed: A query failed.
    """
    counted: list[DatabaseStatistics] = []
    if databases:
        with client.session(databases[0]) as asked:
            for name in databases:
                asked.connect(name)
                count = Counting(asked)
                counted.append(count.finish(count.start()))
    return tuple(counted)


def count(server: PostgresServer) -> tuple[DatabaseStatistics, ...]:
    """Count every table of every database of a running server.

    Raises:
        OperationFailed: A query failed.
    """
    return measure(server.client, server.databases)
