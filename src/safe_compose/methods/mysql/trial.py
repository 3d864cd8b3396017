"""L4: a backup is restored into a scratch volume, served by its own image on no network, and counted."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from safe_compose.artifacts import DatabaseStatistics, Evidence, VolumeRecord
from safe_compose.engine import Engine, HelperFailed
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.methods.archive import extract, last_words
from safe_compose.methods.mysql.dump import counted, look
from safe_compose.methods.mysql.restore import Place, own_databases, require_equal, restore_dump, serving_copy, serving_fresh
from safe_compose.methods.mysql.server import session
from safe_compose.methods.stream import evidence
from safe_compose.methods.trials import counted_words, scratch, statistics_of


def trial(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> list[Evidence]:
    """Try what an undo would use: the archive where there is one, else the dump.

    Returns the evidence, L4 of the volume. Raises VerifyFailed when it does not start or does not hold what was counted,
    BackupFailed when the engine cannot try it (which says nothing against the backup).
    """
    if record.statistics is None:
        return []
    if any(a.kind == "archive" for a in record.artifacts):
        return [trial_archive(engine, folder, record, image)]
    return [trial_dump(engine, folder, record, image)]


def trial_archive(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Extract, start, count. Where writes came after the dump, the counts are of the archive alone and only named."""
    statistics = statistics_of(record)
    place = Place.of(record, image)
    with scratch(engine) as volume:
        extract(engine, folder, record.artifacts, volume, [place.image])
        with serving_copy(engine, place, volume, record.name) as address:
            try:
                with session(engine, address) as asked:
                    contents = look(asked, own_databases(statistics))
                    found = counted(asked, contents)
            except HelperFailed as error:
                raise VerifyFailed(f"volume {record.name}: trial: the tables cannot be counted: {last_words(error)}") from error
    if not record.dump_older_than_archive:
        volatile = {(database, table) for database, table, engine_name in contents.tables if engine_name == "MEMORY"}
        require_equal(_without(statistics.databases, volatile), _without(found, volatile), record.name, "trial of the archive")
    return evidence("L4", record.name, f"archive restored and started: {counted_words(found)} counted")


def trial_dump(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> Evidence:
    """Make a fresh server, load the dump, count."""
    statistics = statistics_of(record)
    place = Place.of(record, image)
    with scratch(engine) as volume, serving_fresh(engine, place, volume, record.name) as (_, address):
        try:
            found = restore_dump(engine, address, folder, record.artifacts, statistics)
        except BackupFailed as error:  # the client took offence at it
            raise VerifyFailed(error.message, next_step=error.next_step) from error
    require_equal(statistics.databases, found, record.name, "trial of the dump")
    return evidence("L4", record.name, f"dump restored into a fresh server: {counted_words(found)} counted")


def _without(databases: tuple[DatabaseStatistics, ...], names: set[tuple[str, str]]) -> Iterator[DatabaseStatistics]:
    """Without the tables whose rows no restart of the server keeps, and without events: a server that asks nobody for a
    password shows none (run)."""
    for database in databases:
        yield replace(
            database,
            tables=tuple(t for t in database.tables if (t.schema, t.table) not in names),
            extensions=tuple(what for what in database.extensions if not what.startswith("event ")),
        )
