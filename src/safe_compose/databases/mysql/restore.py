"""Restore of a dump, or of an extracted archive, into a server; files are read to the end first."""

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from safe_compose.core.backup import Artifact, DatabaseStatistics, ServerStatistics, VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.databases import owners
from safe_compose.databases.mysql.accounts import HEALTHCHECK, account, accounts, list_accounts
from safe_compose.databases.mysql.client import MysqlClient, MysqlSession, naming_client_fault
from safe_compose.databases.mysql.contents import count_tables, list_contents
from safe_compose.databases.mysql.discover import SYSTEM
from safe_compose.databases.mysql.dump import verify_dump
from safe_compose.databases.mysql.helper_server import MysqlHelper, MysqlLocation
from safe_compose.databases.mysql.shutdown_state import inspect_shutdown
from safe_compose.databases.protocol import read_statistics
from safe_compose.databases.trials import STOP_SECONDS, require_same
from safe_compose.errors import Refused, VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import show_nothing, unpack
from safe_compose.volumes.helper_program import feed


def own_databases(statistics: ServerStatistics) -> tuple[str, ...]:
    """Return the server's own databases, as they were distinguished when the backup was counted."""
    counted_too = {d.name.lower() for d in statistics.databases}
    return tuple(name for name in SYSTEM if name not in counted_too)


def restore_dump(
    client: MysqlClient,
    folder: Path,
    artifacts: Sequence[Artifact],
    statistics: ServerStatistics,
    progress: Callable[[int], None] = show_nothing,
) -> tuple[DatabaseStatistics, ...]:
    """Load databases and then accounts into a fresh server of ours, and count its content.

    Every file is verified before a client gets a byte. Afterwards the password of the fresh server
    no longer works.

    Raises:
        Refused: The server holds a table.
        VerificationFailed: A file is damaged, or the accounts differ.
        OperationFailed: The client failed.
    """
    verify_dump(folder, artifacts, statistics)
    subject = next(a.volume for a in artifacts)
    found: tuple[DatabaseStatistics, ...] = ()
    with naming_client_fault(subject, "restore the dump"), client.session() as asked:
        own = own_databases(statistics)
        if list_contents(asked, own).tables:
            raise Refused(
                "the server that the dump goes into is not empty; nothing was restored",
                next_step="restore into an empty volume",
            )
        for dump in (a for a in artifacts if a.kind == "database"):
            _load(client, unpack(folder, dump, progress=progress))
        found = count_tables(asked, list_contents(asked, own))
        for script in (a for a in artifacts if a.kind == "globals"):
            text = b"".join(unpack(folder, script))
            _load(client, [text])
            _require_same_accounts(asked, text.decode("utf-8", "replace"), statistics.kind, subject)
    return found


def _load(client: MysqlClient, blocks: Iterable[bytes]) -> None:
    """Feed a verified script to the client, which stops at the first error."""
    argv = client.argv("--binary-mode")
    with client.stream(argv, stdin=subprocess.PIPE, discard=True) as opened:
        feed(blocks, opened.stdin)


def _require_same_accounts(asked: MysqlSession, script: str, kind: str, subject: str) -> None:
    """Drop the fresh server's own accounts that the old one lacked, and compare all others.

    Raises:
        VerificationFailed: An account differs from the dump.
    """
    names = [
        account(*name)
        for name in list_accounts(asked, kind)
        if name[0] not in (HEALTHCHECK, "PUBLIC")
    ]
    for name in names:
        if (
            f"CREATE USER IF NOT EXISTS {name} " not in script
            and f"CREATE ROLE IF NOT EXISTS {name};" not in script
        ):
            asked.rows(f"DROP USER {name};")
    old, new = _statements(script), _statements(accounts(asked, kind))
    if old != new:
        raise VerificationFailed(
            f"{describe_location(subject)}:"
            f" restore: {len(old ^ new)} statements about accounts differ from"
            " what was dumped"
        )


def _statements(script: str) -> frozenset[str]:
    """Return the statements about every account but the one that a fresh server keeps."""
    return frozenset(line for line in script.splitlines() if HEALTHCHECK not in line)


def rebuild(
    location: EngineLocation,
    folder: Path,
    record: VolumeRecord,
    progress: Callable[[int], None] = show_nothing,
) -> tuple[str, ...]:
    """Restore a volume's data from its dump into the existing empty volume.

    A fresh data directory of the service's own image is made there, loaded, counted, given the old
    accounts, and stopped cleanly.

    Raises:
        StateChanged: The volume is not empty.
        VerificationFailed: The dump is damaged, or the restored server holds something else.
        OperationFailed: The engine cannot restore the volume.
    """
    place = MysqlLocation.of(record, "")
    statistics = read_statistics(location, record, place.image)
    verify_dump(folder, record.artifacts, statistics)
    with MysqlHelper(place, location, record.name).serving_fresh() as client:
        found = restore_dump(client, folder, record.artifacts, statistics, progress)
        code = location.engine.docker.stop(client.container, timeout=STOP_SECONDS)
    require_equal(statistics.databases, found, record.name, "restore")
    left = inspect_shutdown(location, None)
    if code != 0 or not left.clean:
        raise VerificationFailed(
            f"{describe_location(record.name)}:"
            f" the restored server did not stop cleanly ({left.words}; it"
            f" ended with {code})"
        )
    owners.restore_owners(location, place.image, place.owners, place.inside, record.name)
    return ()


def require_equal(
    wanted: Iterable[DatabaseStatistics],
    found: Iterable[DatabaseStatistics],
    subject: str,
    stage: str,
) -> None:
    """Require that every table has the rows it had, and that every other object is there.

    Raises:
        VerificationFailed: Something differs; the message names some of it.
    """
    require_same(_flat(wanted), _flat(found), subject, stage)


def _flat(databases: Iterable[DatabaseStatistics]) -> Mapping[str, int]:
    found = {}
    for database in databases:
        found[f"database {database.name}"] = 1
        for table in database.tables:
            found[f"{table.schema}.{table.table}"] = table.rows
        for name in database.extensions:
            found[f"{name} of {database.name}"] = 1
    return found
