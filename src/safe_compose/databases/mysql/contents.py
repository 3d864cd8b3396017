"""The content of a server besides its own databases, listed and counted in a session's snapshot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safe_compose.core.backup import DatabaseStatistics, TableCount
from safe_compose.databases.client import COUNT_SECONDS
from safe_compose.databases.mysql.client import MysqlSession, naming_client_fault, quote_name
from safe_compose.databases.mysql.discover import MysqlServer, list_databases
from safe_compose.databases.protocol import understanding

_ELSEWHERE = frozenset(
    {"MRG_MYISAM", "MRG_ISAM", "FEDERATED", "CONNECT", "OQGRAPH", "SPIDER", "VP"}
)
"""Engines whose tables only refer to rows elsewhere: dumps hold only their definitions."""
_TABLES = """
SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.TABLE_TYPE, COALESCE(t.ENGINE, ''),
  COALESCE(e.TRANSACTIONS, ''), COALESCE(t.DATA_LENGTH + t.INDEX_LENGTH, 0),
  t.TABLE_TYPE = 'VIEW' AND t.TABLE_COMMENT <> 'VIEW'
FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
WHERE LOWER(t.TABLE_SCHEMA) NOT IN ({own}) ORDER BY 1, 2;
"""
_PROGRAMS = """
SELECT ROUTINE_SCHEMA, CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_NAME)
  FROM information_schema.ROUTINES
  WHERE LOWER(ROUTINE_SCHEMA) NOT IN ({own})
UNION ALL SELECT TRIGGER_SCHEMA, CONCAT('trigger ', TRIGGER_NAME) FROM information_schema.TRIGGERS
  WHERE LOWER(TRIGGER_SCHEMA) NOT IN ({own})
UNION ALL SELECT EVENT_SCHEMA, CONCAT('event ', EVENT_NAME) FROM information_schema.EVENTS
  WHERE LOWER(EVENT_SCHEMA) NOT IN ({own})
ORDER BY 1, 2;
"""


@dataclass(frozen=True, slots=True)
class Contents:
    """The content of a server besides its own databases."""

    databases: tuple[str, ...]
    tables: tuple[tuple[str, str, str], ...]
    """(database, table, engine) of each table that holds rows."""
    objects: tuple[tuple[str, str], ...]
    """(database, object), where the object is `view NAME`, `procedure NAME`, ..."""
    bytes: dict[str, int]
    plain: tuple[tuple[str, str, str], ...] = ()
    """Tables of engines without transactions."""
    elsewhere: tuple[tuple[str, str], ...] = ()
    historic: tuple[tuple[str, str], ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    """Views that refer to something missing: no dump can hold them."""

    def warnings(self) -> Iterator[str]:
        """Yield a warning for each kind of content that a dump holds only in part."""
        if self.plain:
            engines = ", ".join(sorted({engine for *_, engine in self.plain}))
            yield (
                f"{len(self.plain)} tables have an engine without transactions ({engines}): nobody"
                f" could write while they were dumped ({_name_some(self.plain)})"
            )
        if volatile := [t for t in self.plain if t[2] == "MEMORY"]:
            yield (
                "rows of MEMORY tables are gone after any restart of the server"
                f" ({_name_some(volatile)})"
            )
        if self.elsewhere:
            yield (
                f"rows that lie in other tables or servers are in no dump"
                f" ({_name_some(self.elsewhere)})"
            )
        if self.historic:
            yield (
                "of system-versioned tables the dump holds the rows of now, not their history"
                f" ({_name_some(self.historic)})"
            )
        if self.broken:
            yield f"views on something that is not there are in no dump ({_name_some(self.broken)})"


def _name_some(names: Sequence[tuple[str, ...]]) -> str:
    return ", ".join(".".join(name[:2]) for name in names[:3]) + (", ..." if len(names) > 3 else "")


@understanding("the list of tables")
def list_contents(asked: MysqlSession, own: Sequence[str]) -> Contents:
    """List what a server holds now; nothing is counted yet."""
    names = ", ".join(f"'{name}'" for name in own)
    sizes: dict[str, int] = {}
    tables: list[tuple[str, str, str]] = []
    plain: list[tuple[str, str, str]] = []
    views: list[tuple[str, str]] = []
    broken: list[tuple[str, str]] = []
    elsewhere: list[tuple[str, str]] = []
    historic: list[tuple[str, str]] = []
    for database, name, kind, engine, transactions, size, invalid in asked.rows(
        _TABLES.format(own=names)
    ):
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
        databases=list_databases(asked, own),
        tables=tuple(tables),
        objects=tuple(objects),
        bytes=sizes,
        plain=tuple(plain),
        elsewhere=tuple(elsewhere),
        historic=tuple(historic),
        broken=tuple(broken),
    )


@understanding("the counts")
def count_tables(asked: MysqlSession, contents: Contents) -> tuple[DatabaseStatistics, ...]:
    """Count the rows of every table in the session's snapshot."""
    rows: dict[str, list[TableCount]] = {name: [] for name in contents.databases}
    for database, table, _ in contents.tables:
        number = asked.value(
            f"SELECT COUNT(*) FROM {quote_name(database)}.{quote_name(table)};",
            seconds=COUNT_SECONDS,
        )
        rows[database].append(TableCount(database, table, int(number)))
    return tuple(
        DatabaseStatistics(
            name=name,
            bytes=contents.bytes.get(name, 0),
            tables=tuple(rows[name]),
            extensions=tuple(
                sorted(what for database, what in contents.objects if database == name)
            ),
        )
        for name in contents.databases
    )


def count(server: MysqlServer) -> tuple[DatabaseStatistics, ...]:
    """Count the rows of every table of a running server.

    Raises:
        OperationFailed: The server does not answer.
    """
    with naming_client_fault(server.volume, "count"), server.client.session() as asked:
        return count_tables(asked, list_contents(asked, server.own))
    raise AssertionError  # a session that ends early raises
