"""Test restores at level L4: in a scratch volume, served by the backup's own image, counted."""

from pathlib import Path

from safe_compose.core.backup import Evidence, VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.databases.postgres.base_backup import base_of
from safe_compose.databases.postgres.helper_server import PostgresLocation, serving
from safe_compose.databases.postgres.helper_settings import blames_data
from safe_compose.databases.postgres.restore import require_equal, restore_dump, revive
from safe_compose.databases.postgres.row_counts import measure
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
    """Test the restore of a volume: of its archive, or else its physical copy, or else its dump.

    Returns:
        The evidence, at level L4 of the volume.

    Raises:
        VerificationFailed: The server does not start, or does not hold what was counted.
        TrialSkipped, OperationFailed: The engine cannot run the test, which says nothing about the
            backup.
    """
    if record.statistics is None:
        return []
    if any(a.kind == "archive" for a in record.artifacts):
        return [trial_archive(engine, folder, record, image)]
    if base_of(record.artifacts) is not None:
        return [trial_base(engine, folder, record, image)]
    return [trial_dump(engine, folder, record, image)]


def trial_archive(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Extract an archive, start a server on it and count its rows.

    If there were writes after the dump, the counts are of the archive alone and are not compared.

    Raises:
        VerificationFailed: The server does not start because of the data, or holds something else.
        TrialSkipped: The test cannot be run here.
    """
    statistics = require_statistics(record)
    place = PostgresLocation.of(record, image)
    with making_scratch_volume(engine) as volume:
        extract(engine, folder, record.artifacts, volume)
        with serving(
            engine, place, volume, statistics.user, fresh=False, subject=record.name
        ) as client:
            try:
                counted = measure(client, [d.name for d in statistics.databases])
            except HelperFailed as error:
                lost = is_server_lost(error)
                blamed = (
                    is_fault_of_data(engine, client.container)
                    if lost
                    else blames_data(error.stderr, error.returncode, bare=True)
                )
                words = (
                    f"{describe_location(record.name)}: trial: the tables cannot be counted:"
                    f" {read_last_words(error)}"
                )
                raise (VerificationFailed if blamed else TrialSkipped)(words) from error
    if not record.dump_older_than_archive:
        require_equal(statistics.databases, counted, record.name, "trial of the archive")
    return make_evidence(
        "L4", record.name, f"archive restored and started: {format_counts(counted)} counted"
    )


def trial_base(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Restore and verify a physical copy, start a server on it and count its rows.

    pg_verifybackup does the verification.

    Raises:
        VerificationFailed: The copy is damaged, or the server holds something else.
        TrialSkipped: The test cannot be run here.
    """
    with making_scratch_volume(engine) as volume:
        counted = revive(engine, folder, record, PostgresLocation.of(record, image), volume)
    return make_evidence(
        "L4", record.name, f"physical copy restored and started: {format_counts(counted)} counted"
    )


def trial_dump(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Load a dump into a fresh cluster and count its rows.

    Raises:
        VerificationFailed: The server holds something else.
        TrialSkipped: The dump does not load by itself. That says nothing about it: it holds every
            row that was counted.
    """
    statistics = require_statistics(record)
    place, notes = PostgresLocation.of(record, image), list[str]()
    with (
        making_scratch_volume(engine) as volume,
        serving(engine, place, volume, statistics.user, fresh=True, subject=record.name) as client,
    ):
        try:
            counted = restore_dump(client, folder, record.artifacts, statistics, notes=notes)
        except (OperationFailed, Refused) as error:  # psql, or a server that is not empty
            raise TrialSkipped(
                f"{error.message}; every row that was counted is in it", next_step=error.next_step
            ) from error
    require_equal(statistics.databases, counted, record.name, "trial of the dump")
    result = f"dump restored into a fresh server: {format_counts(counted)} counted"
    return make_evidence("L4", record.name, "; ".join((result, *notes)))
