"""The copy of one volume while everything runs."""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from safe_compose.core.backup import Artifact, VolumeRecord
from safe_compose.core.known_images import PLAIN_KINDS
from safe_compose.core.observed import HELPER_LABEL, Container, Location
from safe_compose.core.quantities import count
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.databases import other_files, server_files, sqlite
from safe_compose.databases.protocol import CopyRefused, Database, Dump, ServerUnreachable
from safe_compose.databases.registry import DATABASES, find_physical_copy
from safe_compose.databases.servers import find_servers
from safe_compose.errors import OperationFailed, StateChanged, VerificationFailed
from safe_compose.operations import file_logs
from safe_compose.operations.backup.cold_archive import archive_at_rest, tell_losses
from safe_compose.operations.backup.location_copy import LocationCopy
from safe_compose.operations.backup.records import remove_half, tell_labels_left_out
from safe_compose.operations.backup.restarts import are_restarting, has_started_since
from safe_compose.operations.backup.servers import find_first_answering, require_one
from safe_compose.ui import terminal
from safe_compose.volumes import archive

RECREATED_SECONDS = 10.0
"""How long compose may take from the end of a container to the start of its replacement."""
RECREATION_SECONDS = 60.0
"""How long a server that was recreated during its dump may take until it answers."""
RESTARTS = 8
"""How often an archive is tried between two starts of a container that ends at every start."""
_MOUNT_FOLDER = "let the service mount the folder that it is in"


def copy_as_used_now(copy: LocationCopy) -> VolumeRecord:
    """Copy a volume as its current containers use it, and once more if they change meanwhile.

    A server may have been started on a volume that was to be archived at rest, or recreated while
    it was dumped.

    Raises:
        OperationFailed: There is no faithful copy.
    """
    record = _copy_once_or_twice(copy)
    copy.on_engine.require_in_place()
    return record


def _copy_once_or_twice(copy: LocationCopy) -> VolumeRecord:
    before = _find_users(copy)
    try:
        return copy_running(_replace_users(copy, before))
    except (OperationFailed, VerificationFailed, StateChanged):
        now = _find_users(copy)
        same = {(c.id, c.state, c.started_at) for c in now} == {
            (c.id, c.state, c.started_at) for c in before
        }
        # `copy_running` has already tried often enough for a container that ends at every start.
        if same or any(c.state == "restarting" for c in now):
            raise
    terminal.say(
        f"safe-compose: {copy.name}: the containers that use it changed meanwhile: its backup"
        " starts again, once"
    )
    until = time.monotonic() + RECREATION_SECONDS
    while True:
        remove_half(copy.into, copy.name)
        now = _wait_for_users(copy)
        try:
            return copy_running(_replace_users(copy, now))
        except ServerUnreachable:  # it is starting
            if time.monotonic() > until:
                raise
        time.sleep(0.5)  # retrying, with a time limit


def _wait_for_users(copy: LocationCopy) -> tuple[Container, ...]:
    """Return the containers that use a volume, as soon as one of them runs.

    If none does within `RECREATED_SECONDS`, they are returned as they are.
    """
    until = time.monotonic() + RECREATED_SECONDS
    while True:
        now = _find_users(copy)
        if any(c.state == "running" for c in now) or time.monotonic() > until:
            return now
        time.sleep(0.2)  # polling, with a time limit


def _find_users(copy: LocationCopy) -> tuple[Container, ...]:
    """Return the containers that use a volume at this moment, without ours."""
    return tuple(c for c in copy.engine.docker.users(copy.name) if not _is_ours(copy, c))


def _is_ours(copy: LocationCopy, container: Container) -> bool:
    """Return whether a container is a helper of ours that leaves the volume's content alone.

    It is a helper of this run or a deletion lock, or has the label of a helper and can only read
    the volume. That label alone proves nothing: a service, or its image, may have it.
    """
    run = container.labels.get(HELPER_LABEL)
    only_reads = all(mount.read_only for mount in container.mounts if mount.is_within(copy.name))
    return (
        run == copy.engine.run_id or container.locks(copy.name) or (run is not None and only_reads)
    )


def _replace_users(copy: LocationCopy, users: Iterable[Container]) -> LocationCopy:
    """Return the copy with these containers as the users of the volume."""
    observed = copy.request.observed
    others = (c for c in observed.containers if not c.uses(copy.name) or _is_ours(copy, c))
    observed = replace(observed, containers=(*others, *users))
    return replace(copy, request=replace(copy.request, observed=observed))


def _require_nobody_ran(copy: LocationCopy) -> None:
    """Check that no container was started on a volume while it was archived at rest.

    Raises:
        OperationFailed: One was, so the archive may be inconsistent.
    """
    known = {c.id: c.started_at for c in copy.users}
    for now in _find_users(copy):
        if now.lively or (
            now.started_at != known.get(now.id) and not now.started_at.startswith("0001-")
        ):
            raise OperationFailed(
                f"container {now.name} was started on {copy.title} while that was archived at rest"
            )


def copy_running(copy: LocationCopy) -> VolumeRecord:
    """Copy one volume while everything runs, and return its record.

    Raises:
        OperationFailed: There is no faithful copy.
    """
    engine, observed, kind = copy.engine, copy.request.observed, copy.verdict.kind
    if servers := find_servers(engine, observed, copy.name, kind):
        require_one(copy.location, servers)
        database = servers[0].database
        serving = [s.container for s in servers if s.database is database]
        of_server = replace(copy, verdict=replace(copy.verdict, kind=servers[0].kind))
        try:
            return _dump_running(of_server, database, serving)
        except ServerUnreachable:
            if not are_restarting(engine, serving):
                raise
        remove_half(copy.into, copy.name)
        return _archive_between_restarts(copy, serving)
    if copy.location.in_memory and not observed.is_mounted(copy.name):
        raise OperationFailed(
            f"{copy.title} keeps its content in memory, and no container runs on it: there"
            " is nothing to back up",
            next_step="start the service that uses it, then repeat the command",
        )
    lively = [u for u in copy.users if u.lively]
    if lively and _may_hold_running_database(copy):
        if all(u.state == "restarting" for u in lively):
            return _archive_between_restarts(copy, lively)
        _require_not_paused(copy, lively)
        raise _refuse_in_use(copy, lively)
    if lively or _list_above(copy):
        _require_no_hidden_log(copy, lively)
        return _archive_running(copy)
    record = archive_at_rest(copy)
    _require_nobody_ran(copy)
    _require_no_hidden_log(copy, ())
    return record


def _list_above(copy: LocationCopy) -> list[Container]:
    """Return the running containers that may write to plain files by a folder above.

    A database, whose own server is stopped, is at rest: of the others none would touch its files.
    """
    plain = copy.verdict.kind in PLAIN_KINDS | {"sqlite"}
    return copy.request.observed.list_above(copy.name) if plain else []


def _require_no_hidden_log(copy: LocationCopy, lively: Sequence[Container]) -> None:
    """Check that no part of a SQLite file that is mounted alone is in a container's layer.

    Raises:
        OperationFailed: Commits may be in a log there, which no copy of the file has.
    """
    location = copy.on_engine
    if not location.is_file or copy.verdict.kind != "sqlite":
        return
    if lively and file_logs.has_write_ahead_log(location):
        names = ", ".join(c.name for c in lively)
        raise OperationFailed(
            f"{copy.title}: {names} keeps the write-ahead log of this SQLite database in its own"
            " layer, since only the file is mounted: a copy of the file would lack commits",
            next_step=f"{_MOUNT_FOLDER}; or stop it for the backup: docker stop"
            f" {join_for_shell(c.name for c in lively)}",
        )
    if not lively and (log := file_logs.find_log(copy.engine, copy.users, copy.name)) is not None:
        raise OperationFailed(
            f"{copy.title}: container {log.container.name} was not stopped cleanly: commits may be"
            f" in {log.path} in its own layer, and a copy of the file alone would lack them",
            next_step=f"start it and stop it again, then repeat the command; then {_MOUNT_FOLDER}",
        )


def _refuse_in_use(copy: LocationCopy, lively: Sequence[Container]) -> OperationFailed:
    """Make the fault of a database that is not archived because of these containers.

    Of a kind that can be dumped none of them is a server that is known: another container of the
    project may use the same volume.
    """
    kind, names = copy.verdict.kind, ", ".join(u.name for u in lively)
    what = (
        f"data of {kind} is not archived while {names} runs on it, in which no {kind} was found to"
        " dump: a copy of files that it may write to"
        if kind in DATABASES
        else f"a running {kind} is not archived ({names}): a copy of its files"
    )
    return OperationFailed(
        f"{copy.title}: {what} would be silently wrong",
        next_step=(f"stop it for the backup: docker stop {join_for_shell(u.name for u in lively)}"),
    )


def _may_hold_running_database(copy: LocationCopy) -> bool:
    """Return whether a copy of a volume that containers write to may be inconsistent."""
    if copy.verdict.kind in PLAIN_KINDS | {"sqlite"}:
        return False
    # Docker creates an empty volume for an image's data folder even when its server keeps the data
    # elsewhere.
    return (
        copy.verdict.kind not in DATABASES
        or any(u.state == "paused" for u in copy.users)
        or copy.engine.archives.list_root(copy.name) != []
    )


def _require_not_paused(copy: LocationCopy, lively: Sequence[Container]) -> None:
    """Check that no container is paused on a volume that may hold a running database.

    What a paused server holds in memory is in no file, and a stop would kill it.

    Raises:
        OperationFailed: One is paused.
    """
    for user in lively:
        if user.state == "paused":
            raise OperationFailed(
                f"{copy.title}: container {user.name} is paused: what it holds in memory"
                " cannot be backed up, and a copy of its files alone may lack it",
                next_step=f"let it go on: docker unpause {shell_quote(user.name)}, then repeat the"
                " command",
            )


def _archive_running(copy: LocationCopy) -> VolumeRecord:
    """Archive the files of a volume in use, with consistent copies of its SQLite databases."""
    with terminal.showing_progress(f"archive {copy.name}", total=copy.size) as report:
        artifacts = archive.archive(copy.on_engine, into=copy.into, progress=report, live=True)
    lost = tell_losses(copy.location, artifacts)
    record = replace(copy.make_record("live", artifacts), notes=tuple(lost))
    if not (found := sqlite.find(copy.into, artifacts)):
        return record
    with terminal.showing_progress(
        f"copy {count(len(found), 'SQLite database')} of {copy.name}"
    ) as report:
        copies, counted, notes = sqlite.copy_databases(copy.on_engine, found, copy.into, report)
    for note in notes:
        terminal.say(f"safe-compose: {copy.name}: {note}")
    return replace(record, artifacts=(*artifacts, *copies), sqlite=counted, notes=(*lost, *notes))


def _dump_running(
    copy: LocationCopy, database: Database, serving: Sequence[Container]
) -> VolumeRecord:
    """Dump, or copy physically, the first of these servers that answers, and return the record.

    Raises:
        OperationFailed: It cannot be dumped; there is no cold archive to fall back on.
    """
    server, found = find_first_answering(copy.engine, database, serving)
    terminal.say(
        f"safe-compose: connected to {server.name}: {found.title},"
        f" {count(len(found.databases), 'database')}"
    )
    notes = tuple(tell_labels_left_out(copy.location))
    if copy.method == "physical":
        try:
            if (record := _copy_physically(copy, database, server, found)) is not None:
                return replace(record, notes=(*notes, *record.notes))
        except CopyRefused as reason:
            notes = (*notes, f"no physical copy ({reason.message}): dumped instead")
            terminal.say(f"safe-compose: {server.name}: {notes[-1]}")
    with (
        terminal.showing_progress(f"dump {server.name}", total=copy.size) as report,
        _suggesting_stop(server, copy.location),
    ):
        dump = database.dump(found, copy.name, copy.into, report)
    record = _record_dump(copy, database, server, dump, "dump")
    return replace(record, notes=(*notes, *record.notes))


def _copy_physically(
    copy: LocationCopy, database: Database, container: Container, server: Any
) -> VolumeRecord | None:
    """Copy a server's data physically, and return the record.

    Returns:
        The record; None for a kind of database that is only dumped.

    Raises:
        CopyRefused: The server does not allow it.
    """
    if (copy_data := find_physical_copy(copy.verdict.kind)) is None:
        return None
    with terminal.showing_progress(f"copy {container.name}", total=copy.size) as report:
        made = copy_data(server, copy.name, copy.into, report)
    late = made.was_written_since()
    record = _record_dump(copy, database, container, made, "physical")
    return replace(record, dump_older_than_archive=late)


def _record_dump(
    copy: LocationCopy, database: Database, container: Container, dump: Dump, method: str
) -> VolumeRecord:
    """Report what a dump, or a physical copy, lacks, add the other files and return the record."""
    for warning in dump.warnings:
        terminal.say(f"safe-compose: {container.name}: {warning}")
    # A physical copy has all files of the data directory.
    copied = server_files.list_paths(dump.artifacts) if method == "dump" else None
    others, of_others = _archive_other_files(copy, database, dump.server, copied)
    record = copy.make_record(method, (*dump.artifacts, *others))
    return replace(record, statistics=dump.statistics, notes=(*dump.warnings, *of_others))


@contextmanager
def _suggesting_stop(server: Container, location: Location) -> Iterator[None]:
    """Add a next step to a fault of a hot dump, for data that is itself damaged.

    The volume of a stopped server is archived as it is.
    """
    try:
        yield
    except OperationFailed as fault:
        once = (
            f"docker stop {shell_quote(server.name)}, then safe-compose backup --volume"
            f" {shell_quote(location.name)}"
        )
        fault.next_step = (
            f"{fault.next_step or 'look at its log'}; if its data is damaged, have it archived as"
            f" it is: {once}"
        )
        raise


def _archive_between_restarts(copy: LocationCopy, users: Sequence[Container]) -> VolumeRecord:
    """Archive a database whose server dies at every start, while docker waits to start it again.

    A server with damaged data behaves like this.

    Raises:
        OperationFailed: The server ran during every attempt.
    """
    for _ in range(RESTARTS):
        before = [copy.engine.docker.container(u.id) for u in users]
        if not any(now is not None and now.state in ("running", "paused") for now in before):
            try:
                record = archive_at_rest(copy)
            except OperationFailed:
                if not has_started_since(copy.engine, before):
                    raise
            else:
                if not has_started_since(copy.engine, before):
                    return record
            remove_half(copy.into, copy.name)
        time.sleep(1)  # docker waits longer with each restart; the number of attempts is limited
    raise OperationFailed(
        f"{copy.title}: container {users[0].name} is started again and again, and ran"
        " during each attempt to archive it",
        next_step=f"stop it for the backup: docker stop {shell_quote(users[0].name)}",
    )


def _archive_other_files(
    copy: LocationCopy, database: Database, server: Any, copied: Collection[str] | None = None
) -> tuple[tuple[Artifact, ...], tuple[str, ...]]:
    """Archive what the volume holds besides the database, and return artifacts and notes.

    This is done after the dump, so every file that a row names is there. `copied`: see
    `other_files.keep`.
    """
    own_files = database.own_files(server)
    with terminal.showing_progress(
        f"archive what {copy.name} holds besides its database"
    ) as report:
        artifacts, notes = other_files.keep(
            copy.on_engine, own_files, copy.into, report, copied=copied
        )
    for note in notes:
        terminal.say(f"safe-compose: {copy.name}: {note}")
    return artifacts, notes
