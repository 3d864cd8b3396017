"""Detection of writes to a PostgreSQL server, by its transaction counter."""

from dataclasses import dataclass

from safe_compose.databases.postgres.client import PsqlSession, naming_client_fault
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.protocol import understanding


@dataclass(frozen=True, slots=True)
class TransactionCounter:
    """A reading of the transaction counter.

    An equal `xmax` means that nobody wrote in between, provided that nobody was writing at the
    first reading (`xmin` = `xmax`). ANALYZE changes it too: a false alarm.
    """

    xmin: int
    xmax: int

    def still(self, later: "TransactionCounter") -> bool:
        """Return whether nothing at all was written between this reading and a later one."""
        return self.xmin == self.xmax == later.xmax


def read_counter(asked: PsqlSession) -> TransactionCounter:
    """Return the transaction counter now.

    Raises:
        SessionEnded: psql ended.
        ServerUnreachable: The answer cannot be parsed.
    """
    answer = asked.line(
        "SELECT pg_catalog.concat_ws(' ', pg_catalog.txid_snapshot_xmin(s),"
        " pg_catalog.txid_snapshot_xmax(s)) FROM pg_catalog.txid_current_snapshot() AS s;"
    )
    with understanding(asked.database):
        xmin, xmax = map(int, answer.split())
    return TransactionCounter(xmin, xmax)


def ask_counter(server: PostgresServer) -> TransactionCounter:
    """Return the transaction counter of a server now.

    Raises:
        OperationFailed: The server does not answer.
    """
    stage = "look at the transaction counter"
    with (
        naming_client_fault(server.volume, stage),
        server.client.session(server.maintenance) as asked,
    ):
        return read_counter(asked)
    raise AssertionError  # a session that ends early raises
