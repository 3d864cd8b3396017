"""Detection of writes to a MySQL or MariaDB server, and of its connected clients."""

import re
from dataclasses import dataclass

from safe_compose.databases.mysql.client import MysqlSession
from safe_compose.databases.protocol import understanding
from safe_compose.errors import OperationFailed


@dataclass(frozen=True, slots=True)
class WriteCounter:
    """A reading of values that change with every write.

    They are InnoDB's transaction counter, and the number of statements that can change something.
    Equal readings mean that nobody wrote in between, provided that nobody was busy at the first
    one.
    """

    transactions: str
    commands: int
    busy: bool
    """Another session was within a statement or transaction, or applied another server's writes."""

    def still(self, later: "WriteCounter") -> bool:
        """Return whether nothing at all was written between this reading and a later one."""
        return not self.busy and (self.transactions, self.commands) == (
            later.transactions,
            later.commands,
        )


SESSIONS = (
    "SELECT USER, HOST, COALESCE(DB, ''), COMMAND FROM information_schema.PROCESSLIST "
    "WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon' ORDER BY ID;"
)
_HARMLESS = re.compile(
    r"Com_(?:select|show_.*|set_option|change_db|begin|commit|rollback|savepoint|release_savepoint"
    r"|rollback_to_savepoint|flush"
    r"|lock_tables|unlock_tables|admin_commands|checksum|help|kill|empty_query|explain.*|stmt_.*"
    r"|prepare_sql|execute_sql"
    r"|dealloc_sql|ha_.*)"
)
"""Statements that change nothing by themselves; prepared ones are counted again under their own
kind. A commit of something that was written moves the transaction counter, or was busy at the first
reading.
"""


@understanding("the transaction counter")
def read_counter(asked: MysqlSession) -> WriteCounter:
    """Read the values that change with every write.

    Raises:
        OperationFailed: The server does not show its transaction counter.
    """
    others = asked.rows(SESSIONS)
    idle = [row for row in others if row[3] == "Sleep" and row[0] != "system user"]
    open_elsewhere = asked.value(
        "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id <>"
        " CONNECTION_ID();"
    )
    commands = sum(
        int(n)
        for name, n in asked.rows("SHOW GLOBAL STATUS LIKE 'Com\\_%';")
        if not _HARMLESS.fullmatch(name)
    )
    state = "".join(asked.rows("SHOW ENGINE INNODB STATUS;")[0])
    counter = re.search(r"Trx id counter (\w+)", state)
    if counter is None:
        raise OperationFailed("the server does not tell its transaction counter")
    return WriteCounter(
        counter[1], commands, busy=len(idle) != len(others) or open_elsewhere != "0"
    )
