"""The archive of a volume that nothing runs on, with the state its database was left in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from safe_compose.core.backup import Artifact, VolumeRecord
from safe_compose.core.observed import Location, describe_location
from safe_compose.databases.protocol import Database, Dump, ShutdownState, Stopped
from safe_compose.databases.registry import DATABASES, find_stopped_dump
from safe_compose.errors import OperationFailed, StateChanged, VerificationFailed
from safe_compose.operations.backup.location_copy import LocationCopy
from safe_compose.operations.backup.records import tell_labels_left_out
from safe_compose.ui import terminal
from safe_compose.volumes import archive


class EndedServer(NamedTuple):
    """A record of what is known about a volume's server before the volume is archived."""

    dump: Dump | None
    settled: Any
    """What its database reported before it was stopped; None when it reported nothing."""
    stopped: bool
    """It ran, and was stopped for the archive."""


def archive_stopped(copy: LocationCopy, ended: EndedServer, limit: int) -> VolumeRecord:
    """Archive a volume before it is deleted, and return its record.

    Args:
        copy: The volume; nothing runs on it.
        ended: What is known about its server.
        limit: The size in bytes up to which a volume without a dump is copied, started and dumped.

    Raises:
        OperationFailed: It cannot be archived, or its database was not shut down cleanly.
    """
    dump = ended.dump
    notes: list[str] = []
    statistics = None
    older = False
    if (database := DATABASES.get(copy.verdict.kind)) is not None:
        left, words = _describe_shutdown(copy, database, ended)
        statistics = left.statistics
        notes += words
        older = dump is not None and dump.is_older_than(left)
    artifacts = _archive(copy)
    notes += tell_losses(copy.location, artifacts)
    served = None
    if dump is None:
        dump, served, note = _dump_from_copy(copy, artifacts, limit)
        notes += [note] if note else []
    if dump is None:
        record = copy.make_record("cold", artifacts)
        return replace(record, statistics=statistics, notes=tuple(notes))
    record = copy.make_record("dump+cold", (*artifacts, *dump.artifacts))
    return replace(
        record,
        users=(served, *record.users) if served is not None else record.users,
        statistics=dump.statistics,
        notes=(*notes, *dump.warnings),
        dump_older_than_archive=older,
    )


def _describe_shutdown(
    copy: LocationCopy, database: Database, ended: EndedServer
) -> tuple[ShutdownState, list[str]]:
    """Return the state in which the database was left, and notes about it.

    Raises:
        OperationFailed: It was not shut down cleanly, although it was stopped for the archive.
    """
    dump, settled, stopped = ended
    left = _inspect_shutdown(copy, database, dump.server if dump else settled, needed=stopped)
    notes = list(left.notes)
    if stopped and (dump is not None or not database.dumped_before_deletion) and not left.clean:
        raise OperationFailed(
            f"{describe_location(copy.name)}:"
            f" the database did not shut down cleanly ({left.words});"
            " nothing was deleted",
            next_step="look at the server's log, start it again and repeat the command",
        )
    if dump is None and database.dumped_before_deletion:
        notes.append(
            f"no dump: server was not running, did not answer or could not be dumped; {left.words}"
        )
    return left, notes


def _archive(copy: LocationCopy) -> tuple[Artifact, ...]:
    with terminal.showing_progress(f"archive {copy.name}", total=copy.size) as report:
        return archive.archive(copy.on_engine, into=copy.into, progress=report)


def _inspect_shutdown(
    copy: LocationCopy, database: Database, known: Any, *, needed: bool
) -> ShutdownState:
    """Return the state in which a database was left on a volume that nothing runs on.

    If this cannot be determined for a database that did not run before, its files are as likely as
    not damaged, and are archived as they are.

    Raises:
        OperationFailed: It cannot be determined, and is `needed`.
    """
    try:
        return database.inspect_shutdown(copy.on_engine, known)
    except OperationFailed as fault:
        if needed:
            raise
        return ShutdownState(f"how it was left cannot be told: {fault.message}", clean=False)


def tell_losses(location: Location, artifacts: Sequence[Artifact]) -> list[str]:
    """Report what an archive could not preserve, and return it as notes."""
    notes = [
        f"lost in its archive: {a.detail['lost']}"
        for a in artifacts
        if a.kind == "archive" and a.detail.get("lost")
    ]
    for note in notes:
        terminal.say(f"safe-compose: {location.name}: {note}")
    return notes + tell_labels_left_out(location)


def _dump_from_copy(
    copy: LocationCopy, artifacts: tuple[Artifact, ...], limit: int
) -> tuple[Dump | None, Mapping[str, str] | None, str]:
    """Dump a copy of a volume that was archived without a dump.

    Returns:
        The dump, what served it, and a note. Where there is no dump, the note says why: the
        archive is the backup, a dump is more than is asked of it. The note is empty for a kind of
        which no copy is dumped.
    """
    if (made_from := find_stopped_dump(copy.verdict.kind)) is None:
        return None, None, ""
    if sum(a.uncompressed_bytes for a in artifacts) > limit:
        return (
            None,
            None,
            f"nor was a copy of it dumped: it is larger than trial_limit ({limit >> 20} MiB)",
        )
    project = copy.request.observed.project
    declared = (
        tuple(m for m in project.mounts if m.volume == copy.name) if project is not None else ()
    )
    stopped = Stopped(copy.name, copy.users, declared, copy.request.recorded.get(copy.name, ()))
    try:
        with terminal.showing_progress(f"dump a copy of {copy.name}"):
            dump, served = made_from(copy.on_engine, copy.into, artifacts, stopped)
    except (OperationFailed, VerificationFailed, StateChanged) as fault:
        return None, None, f"nor was a copy of it dumped: {fault.message}"
    return dump, served, "the dump was made by a server of ours on a copy of the volume"


def archive_at_rest(copy: LocationCopy) -> VolumeRecord:
    """Archive a volume that nothing runs on, and return its record.

    A note says in what state a database was left, damaged or not: the archive is faithful either
    way.

    Raises:
        OperationFailed: It cannot be archived.
    """
    notes = []
    if (database := DATABASES.get(copy.verdict.kind)) is not None:
        left = _inspect_shutdown(copy, database, None, needed=False)
        notes.append(f"no dump: its server does not run; {left.words}")
    for note in notes:
        terminal.say(f"safe-compose: {copy.name}: {note}")
    artifacts = _archive(copy)
    notes += tell_losses(copy.location, artifacts)
    return replace(copy.make_record("cold", artifacts), notes=tuple(notes))
