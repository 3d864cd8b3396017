"""Test restores at level L4: in a scratch volume, served by the backup's own image, counted."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from safe_compose.core.backup import DatabaseStatistics, Evidence, VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.databases.mysql.contents import count_tables, list_contents
from safe_compose.databases.mysql.helper_server import MysqlLocation, serving_copy, serving_fresh
from safe_compose.databases.mysql.restore import own_databases, require_equal, restore_dump
from safe_compose.databases.trials import (
    TrialSkipped,
    format_counts,
    is_fault_of_data,
    is_server_lost,
    making_scratch_volume,
    require_statistics,
)
from safe_compose.engine import Engine, HelperFailed
from safe_compose.errors import OperationFailed, Refused, VerificationFailed
from safe_compose.volumes.extraction import extract
from safe_compose.volumes.gzip_stream import make_evidence
from safe_compose.volumes.helper_program import read_last_words


def trial(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> list[Evidence]:
    """Test the restore of a volume: of its archive if there is one, otherwise of its dump.

    Returns:
        The evidence, at level L4 of the volume.

    Raises:
        VerificationFailed: The server does not start, or does not hold what was counted.
        OperationFailed: The engine cannot run the test, which says nothing about the backup.
    """
    if record.statistics is None:
        return []
    if any(a.kind == "archive" for a in record.artifacts):
        return [trial_archive(engine, folder, record, image)]
    return [trial_dump(engine, folder, record, image)]


def trial_archive(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Extract an archive, start a server on it and count its rows.

    If there were writes after the dump, the counts are of the archive alone and are not compared.

    Raises:
        VerificationFailed: The server does not start because of the data, or holds something else.
        TrialSkipped: The test cannot be run here.
    """
    statistics = require_statistics(record)
    place = MysqlLocation.of(record, image)
    with making_scratch_volume(engine) as volume:
        extract(engine, folder, record.artifacts, volume)
        with serving_copy(engine, place, volume, record.name) as client:
            try:
                with client.session() as asked:
                    contents = list_contents(asked, own_databases(statistics))
                    found = count_tables(asked, contents)
            except HelperFailed as error:
                blamed = not is_server_lost(error) or is_fault_of_data(engine, client.container)
                words = (
                    f"{describe_location(record.name)}: trial: the tables cannot be counted:"
                    f" {read_last_words(error)}"
                )
                raise (VerificationFailed if blamed else TrialSkipped)(words) from error
    if not record.dump_older_than_archive:
        volatile = {
            (database, table)
            for database, table, engine_name in contents.tables
            if engine_name == "MEMORY"
        }
        require_equal(
            _without(statistics.databases, volatile),
            _without(found, volatile),
            record.name,
            "trial of the archive",
        )
    return make_evidence(
        "L4", record.name, f"archive restored and started: {format_counts(found)} counted"
    )


def trial_dump(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Load a dump into a fresh server and count its rows.

    Raises:
        VerificationFailed: The server holds something else.
        TrialSkipped: The dump does not load by itself. That says nothing about it: it holds every
            row that was counted.
    """
    statistics = require_statistics(record)
    place = MysqlLocation.of(record, image)
    with (
        making_scratch_volume(engine) as volume,
        serving_fresh(engine, place, volume, record.name) as client,
    ):
        try:
            found = restore_dump(client, folder, record.artifacts, statistics)
        except (OperationFailed, Refused) as error:  # the client, or a server that is not empty
            raise TrialSkipped(
                f"{error.message}; every row that was counted is in it", next_step=error.next_step
            ) from error
    require_equal(statistics.databases, found, record.name, "trial of the dump")
    return make_evidence(
        "L4", record.name, f"dump restored into a fresh server: {format_counts(found)} counted"
    )


def _without(
    databases: tuple[DatabaseStatistics, ...], names: set[tuple[str, str]]
) -> Iterator[DatabaseStatistics]:
    """Yield the statistics without tables whose rows no restart keeps, and without events.

    A server that asks nobody for a password shows no events (run).
    """
    for database in databases:
        yield replace(
            database,
            tables=tuple(t for t in database.tables if (t.schema, t.table) not in names),
            extensions=tuple(name for name in database.extensions if not name.startswith("event ")),
        )
