"""L4: a backup is restored into a scratch volume, served by its own image on no network, and counted."""

from pathlib import Path

from safe_compose.artifacts import Evidence, VolumeRecord
from safe_compose.engine import Engine, HelperFailed
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.methods.archive import extract, last_words
from safe_compose.methods.postgres.dump import measure
from safe_compose.methods.postgres.physical import base_of
from safe_compose.methods.postgres.restore import Place, require_equal, restore_dump, revive, serving
from safe_compose.methods.stream import evidence
from safe_compose.methods.trials import counted_words, scratch, statistics_of


def trial(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> list[Evidence]:
    """Try what an undo would use: the archive where there is one, else the physical copy, else the dump.

    Returns the evidence, L4 of the volume. Raises VerifyFailed when it does not start or does not hold what was counted,
    BackupFailed when the engine cannot try it (which says nothing against the backup).
    """
    if record.statistics is None:
        return []
    if any(a.kind == "archive" for a in record.artifacts):
        return [trial_archive(engine, folder, record, image)]
    if base_of(record.artifacts) is not None:
        return [trial_base(engine, folder, record, image)]
    return [trial_dump(engine, folder, record, image)]


def trial_archive(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Extract, start, count. Where writes came after the dump, the counts are of the archive alone and only named."""
    statistics = statistics_of(record)
    place = Place.of(record, image)
    with scratch(engine) as volume:
        extract(engine, folder, record.artifacts, volume, [place.image])
        with serving(engine, place, volume, statistics.user, fresh=False, subject=record.name) as (_, address):
            try:
                counted = measure(engine, address, [d.name for d in statistics.databases])
            except HelperFailed as error:
                raise VerifyFailed(f"volume {record.name}: trial: the tables cannot be counted: {last_words(error)}") from error
    if not record.dump_older_than_archive:
        require_equal(statistics.databases, counted, record.name, "trial of the archive")
    return evidence("L4", record.name, f"archive restored and started: {counted_words(counted)} counted")


def trial_base(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Put a physical copy back, let pg_verifybackup look at it, start, count."""
    with scratch(engine) as volume:
        counted = revive(engine, folder, record, Place.of(record, image), volume)
    return evidence("L4", record.name, f"physical copy restored and started: {counted_words(counted)} counted")


def trial_dump(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Make a fresh cluster, load the dump, count."""
    statistics = statistics_of(record)
    place = Place.of(record, image)
    with (
        scratch(engine) as volume,
        serving(engine, place, volume, statistics.user, fresh=True, subject=record.name) as (_, address),
    ):
        try:
            counted = restore_dump(engine, address, folder, record.artifacts, statistics)
        except BackupFailed as error:  # psql took offence at it
            raise VerifyFailed(error.message, next_step=error.next_step) from error
    require_equal(statistics.databases, counted, record.name, "trial of the dump")
    return evidence("L4", record.name, f"dump restored into a fresh server: {counted_words(counted)} counted")
