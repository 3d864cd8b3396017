"""Restore of a dump into a fresh server, from files that were read to the end first."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from safe_compose.core.backup import Artifact, DatabaseStatistics, ServerStatistics, VolumeRecord
from safe_compose.core.initdb import CHECKSUMS, LOCALE
from safe_compose.core.observed import describe_location
from safe_compose.databases import owners
from safe_compose.databases.dumps import join_first
from safe_compose.databases.postgres.authentication import keep_method
from safe_compose.databases.postgres.base_backup import find_base, restore_copy
from safe_compose.databases.postgres.client import PostgresClient, naming_client_fault
from safe_compose.databases.postgres.connection import Use, identifier
from safe_compose.databases.postgres.control_data import clean, control_state
from safe_compose.databases.postgres.dump import verify_dump
from safe_compose.databases.postgres.dump_lexer import split_dump
from safe_compose.databases.postgres.dump_loading import Loading, failures, search_path
from safe_compose.databases.postgres.dump_reader import prepare_loading, restrict_script
from safe_compose.databases.postgres.encodings import decode_name, encode_text
from safe_compose.databases.postgres.helper_server import PostgresHelper, PostgresLocation
from safe_compose.databases.postgres.restrict import feed_psql, restrict_key
from safe_compose.databases.postgres.row_counts import measure
from safe_compose.databases.postgres.server_facts import TEMPLATE_LOCALE
from safe_compose.databases.protocol import read_statistics
from safe_compose.databases.trials import STOP_SECONDS, require_same
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import Refused, VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import show_nothing, unpack
from safe_compose.volumes.helper_program import read_last_words

_CREATE_ROLE = re.compile(rb'CREATE ROLE ("(?:[^"\n]|"")+"|[^\s";]+);')


def restore_dump(
    client: PostgresClient,
    folder: Path,
    artifacts: Sequence[Artifact],
    statistics: ServerStatistics,
    progress: Callable[[int], None] = show_nothing,
    notes: list[str] | None = None,
) -> tuple[DatabaseStatistics, ...]:
    """Load globals and databases into a fresh server of ours, and count its content.

    Every file is verified before psql gets a byte. Empty databases of the fresh server that the
    dump creates are dropped. `notes` gets what could not be restored, in words.

    Raises:
        Refused: A database of the server is not empty.
        VerificationFailed: A file is damaged.
        OperationFailed: psql failed.
    """
    verify_dump(folder, artifacts, statistics)
    notes = [] if notes is None else notes
    wanted = [a for a in artifacts if a.kind == "database" and a.database is not None]
    subject = next(a.volume for a in artifacts)
    roles = next(a for a in artifacts if a.kind == "globals")
    with naming_client_fault(subject, "restore the dump"):
        there = _names(client, "SELECT datname FROM pg_catalog.pg_database WHERE NOT datistemplate")
        made = {a.database for a in wanted}
        for name in there:
            if name in made:
                _drop_empty(client, name)
        known = set(_names(client, "SELECT rolname FROM pg_catalog.pg_roles"))
        script = b"".join(unpack(folder, roles))
        key = restrict_key(client)
        feed_psql(client, "template1", restrict_script([make_idempotent(script, known)], key))
    done = 0
    counted: list[DatabaseStatistics] = []
    for artifact in wanted:
        assert artifact.database is not None
        with naming_client_fault(subject, f"restore database {artifact.database}"):
            onwards = partial(_report_onwards, progress, done)
            notes += _load_database(client, folder, artifact, script, key, onwards)
            notes += analyze(client, artifact.database)
            counted += measure(client, [artifact.database])
        done += artifact.uncompressed_bytes
    return tuple(counted)


def _load_database(
    client: PostgresClient,
    folder: Path,
    artifact: Artifact,
    roles: bytes,
    key: str | None,
    progress: Callable[[int], None],
) -> list[str]:
    """Load one database and return what it lacks, in words.

    The dump is loaded unchanged, or if that fails under the database's own search_path.

    Raises:
        HelperFailed: psql failed.
    """
    how, name = prepare_loading(key, major=client.major), artifact.database or ""
    try:
        output = feed_psql(
            client,
            "template1",
            restrict_script(unpack(folder, artifact, progress=progress), key, how),
        )
    except HelperFailed as first:
        # This is an error of psql itself, which no other way of loading avoids.
        if "invalid command" in first.stderr:
            raise
        client.ask("template1", f"DROP DATABASE IF EXISTS {identifier(name)}", use=Use.CHANGE)
        path = search_path(split_dump(unpack(folder, artifact)), split_dump([roles]))
        how = prepare_loading(key, path, major=client.major)
        output = feed_psql(
            client,
            "template1",
            restrict_script(unpack(folder, artifact, progress=progress), key, how),
        )
    return list_missing(name, how, output)


def list_missing(database: str, how: Loading, output: str) -> list[str]:
    """Describe what a loaded database lacks, according to psql's errors."""
    if not (errors := failures(output)):
        return []
    views = (
        "; until they are filled (REFRESH MATERIALIZED VIEW) these have no rows:"
        f" {', '.join(how.refreshed)}"
    )
    return [
        f"database {database}: every row is there, but not all else:"
        f" {join_first(errors)}{views if how.refreshed else ''}"
    ]


def analyze(client: PostgresClient, database: str) -> list[str]:
    """Update the planner's statistics, and return why they are incomplete, in words.

    ANALYZE calls the database's own functions, which may fail.
    """
    try:
        client.ask(database, "ANALYZE", use=Use.CHANGE, timeout=None)
    except HelperFailed as error:
        return [
            f"database {database}: the planner's statistics are not all there (ANALYZE makes them):"
            f" {read_last_words(error)}"
        ]
    return []


def _report_onwards(progress: Callable[[int], None], done: int, size: int) -> None:
    progress(done + size)


def rebuild(
    location: EngineLocation,
    folder: Path,
    record: VolumeRecord,
    progress: Callable[[int], None] = show_nothing,
) -> tuple[str, ...]:
    """Restore a Postgres volume's data from its dump or physical copy into the empty volume.

    The volume exists. From a dump, a fresh cluster of the service's own image is made, loaded,
    counted, and stopped cleanly. A physical copy is extracted, recovered and counted.

    Returns:
        What could not be restored besides the rows, in words.

    Raises:
        StateChanged: The volume is not empty.
        VerificationFailed: The backup is damaged, or the restored server holds something else.
        OperationFailed: The engine cannot restore the volume.
    """
    place = PostgresLocation.of(record, "")
    statistics = read_statistics(location, record, place.image)
    verify_dump(folder, record.artifacts, statistics)
    notes: list[str] = []
    if find_base(record.artifacts) is not None:
        revive(location, folder, record, place, progress)
    else:
        with PostgresHelper(place, location, record.name).serving(
            statistics.user, fresh=True
        ) as client:
            counted = restore_dump(client, folder, record.artifacts, statistics, progress, notes)
            with naming_client_fault(record.name, "look at the new cluster"):
                notes += _compare_cluster(client, statistics.settings)
            location.engine.docker.stop(client.container, timeout=STOP_SECONDS)
        require_equal(statistics.databases, counted, record.name, "restore")
        notes += keep_method(location, folder, record.artifacts, place.inside)
    state = control_state(location, None)
    if not clean(state):
        raise VerificationFailed(
            f"{describe_location(record.name)}:"
            " the restored server was not stopped cleanly (control state"
            f" '{state}')"
        )
    owners.restore_owners(location, place.image, place.owners, place.inside, record.name)
    return tuple(notes)


def _compare_cluster(client: PostgresClient, before: Mapping[str, str]) -> list[str]:
    """Return how a cluster differs from the dumped one in what only its creation decides."""
    notes = []
    if before.get(CHECKSUMS) == "on" and client.ask("template1", "SHOW data_checksums") != "on":
        notes.append("its pages had checksums (initdb --data-checksums) and have none now")
    now = client.ask("template1", TEMPLATE_LOCALE)
    if (locale := before.get(LOCALE, now)) != now:
        notes.append(
            f"new databases had encoding and locale {locale} and get {now} now; those of the dump"
            " have their own as before"
        )
    return notes


def revive(
    location: EngineLocation,
    folder: Path,
    record: VolumeRecord,
    place: PostgresLocation,
    progress: Callable[[int], None] = show_nothing,
) -> tuple[DatabaseStatistics, ...]:
    """Restore a verified physical copy into an empty volume, and return the counts of its rows.

    The server recovers on the copy, its rows are counted, and it is stopped properly. If there were
    writes while the backup was counted, the counts are not compared.

    Raises:
        VerificationFailed: The copy is damaged, or the server holds something else.
        TrialSkipped: The server cannot run here.
        OperationFailed: The engine cannot extract the copy.
    """
    statistics, base = record.statistics, find_base(record.artifacts)
    assert statistics is not None and base is not None  # the callers checked it
    restore_copy(location, folder, base, place.image, progress)
    with (
        PostgresHelper(place, location, record.name).serving(statistics.user) as client,
        naming_client_fault(record.name, "count what was restored"),
    ):
        counted = measure(client, [d.name for d in statistics.databases])
        location.engine.docker.stop(client.container, timeout=STOP_SECONDS)
    if not record.dump_older_than_archive:
        require_equal(statistics.databases, counted, record.name, "restore of the physical copy")
    return counted


def require_equal(
    wanted: Iterable[DatabaseStatistics],
    found: Iterable[DatabaseStatistics],
    subject: str,
    stage: str,
) -> None:
    """Require that every table of every database has the rows it had.

    Raises:
        VerificationFailed: Something differs; the message names some of it.
    """
    require_same(_flat(wanted), _flat(found), subject, stage)


def _flat(databases: Iterable[DatabaseStatistics]) -> Mapping[str, int]:
    found = {}
    for database in databases:
        found[f"large objects of {database.name}"] = database.large_objects
        for table in database.tables:
            found[f"{database.name}: {table.schema}.{table.table}"] = table.rows
    return found


def make_idempotent(script: bytes, known: set[str]) -> bytes:
    """Return the globals for a server that already has some of the roles.

    Their CREATE ROLE becomes a comment, and everything else is unchanged, so that every other error
    still stops psql.
    """
    changed = []
    for piece in split_dump([script]):
        role = _CREATE_ROLE.fullmatch(piece.raw)
        changed.append(
            b"-- there already: " + piece.raw
            if role is not None and decode_name(role[1]) in known
            else piece.raw
        )
    return b"".join(changed)


def _names(client: PostgresClient, sql: str) -> list[str]:
    """Return the names that a query answers with.

    Names cannot hold newlines here: pg_dump refuses such databases, pg_dumpall such roles.
    """
    return [encode_text(line) for line in client.ask("template1", sql).split("\n") if line]


def _drop_empty(client: PostgresClient, name: str) -> None:
    [statistics] = measure(client, [name])
    if statistics.tables or statistics.large_objects:
        raise Refused(
            f"database {name} of the server that the dump goes into is not empty; nothing was"
            " restored",
            next_step="restore into an empty volume",
        )
    client.ask("template1", f"DROP DATABASE {identifier(name)}", use=Use.CHANGE)
