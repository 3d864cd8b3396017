"""Common parts of all test restores: a scratch volume, the counts, and the log of a dead server."""

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from safe_compose.core.backup import DatabaseStatistics, ServerStatistics, VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.core.quantities import count
from safe_compose.core.redaction import hide_secrets
from safe_compose.databases.dumps import join_first
from safe_compose.engine import Engine, HelperFailed
from safe_compose.errors import OperationFailed, VerificationFailed

KILLED = (125, 126, 127, 137)
"""Exit codes that say nothing about a program: it was not started, or killed."""


class TrialSkipped(OperationFailed):
    """A backup cannot be tested here, for a reason that says nothing about the backup.

    Its other evidence stands.
    """


@contextmanager
def making_scratch_volume(engine: Engine) -> Iterator[str]:
    """Make an empty volume of ours for a block, and remove it afterwards."""
    name = f"safe-compose-trial-{engine.helpers.run_id}-{secrets.token_hex(4)}"
    engine.docker.create_volume(name, labels=engine.helpers.marks_for(name))
    try:
        yield name
    finally:
        engine.docker.remove_volume(name)


def require_statistics(record: VolumeRecord) -> ServerStatistics:
    """Return the statistics of a volume's backup.

    Raises:
        VerificationFailed: The backup has none.
    """
    if record.statistics is None:
        raise VerificationFailed(
            f"{describe_location(record.name)}: trial: nothing was counted when it was backed up"
        )
    return record.statistics


def format_counts(databases: Sequence[DatabaseStatistics]) -> str:
    """Format counts, as in `3 tables, 4,711 rows`."""
    tables, rows = sum(len(d.tables) for d in databases), sum(d.rows for d in databases)
    return f"{count(tables, 'table')}, {count(rows, 'row')}"


def require_same(
    wanted: Mapping[str, int], found: Mapping[str, int], subject: str, stage: str
) -> None:
    """Require that all counts are the same, and that nothing else was found.

    Raises:
        VerificationFailed: Something differs; the message names some of it.
    """
    wrong = [
        f"{name}: {found.get(name, 'not there')}, was {wanted.get(name, 'not there')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        raise VerificationFailed(
            f"{describe_location(subject)}:"
            f" {stage}: counts differ: {join_first(wrong)}; it is not counted as"
            " good",
            next_step="make a new backup, or restore from another one: safe-compose list",
        )


_CONNECTION_LOST = re.compile(
    r"server closed the connection|connection to server was lost|terminating connection"
    r"|ERROR 20(?:06|13) |gone away"
    r"|is not running|No such container",
)
"""Messages of a client, or of docker, about a server that is gone: psql and libpq; MariaDB and
MySQL (2006, 2013).
"""
_FELL = re.compile(
    r"PANIC:|(?:terminated by|got) (?:signal|exception) (?!(?:9|15)\b)|[Aa]ssertion failure"
)


def is_server_lost(error: HelperFailed) -> bool:
    """Return whether a query failed because the server or its container is gone.

    Such a failure does not come from the data that was read.
    """
    return error.returncode in KILLED or _CONNECTION_LOST.search(error.stderr) is not None


def is_crash_of_data(log: str, exit_code: int) -> bool:
    """Return whether a server crashed because of the data it read, according to its log.

    A server that was killed, as for lack of memory or by a cleanup, does not count.
    """
    return exit_code not in KILLED and _FELL.search(log) is not None


def is_fault_of_data(engine: Engine, container_id: str) -> bool:
    """Return whether a server of ours that is gone crashed because of its data.

    If its container is gone too, that is unknown and the answer is False.
    """
    container = engine.docker.container(container_id)
    return container is not None and is_crash_of_data(
        read_last_log(engine, container_id), container.exit_code
    )


def read_last_log(engine: Engine, container_id: str) -> str:
    """Return the last log lines of a server of ours for a message.

    They are at most 900 characters, with secrets hidden.
    """
    lines = engine.docker.logs_tail(container_id, 8).splitlines()
    return hide_secrets(" / ".join(line.strip() for line in lines if line.strip()))[-900:]
