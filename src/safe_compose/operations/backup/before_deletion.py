"""The backup without which docker does not run a destructive command.

Its order loses nothing (design, section 7): stop what may be stopped, dump, stop the databases,
archive, verify.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import Container, Location
from safe_compose.core.text import join_for_shell
from safe_compose.databases.protocol import Dump
from safe_compose.databases.registry import find_stopped_dump
from safe_compose.databases.servers import RunningServer
from safe_compose.engine import Engine
from safe_compose.engine.mount_events import MountEvents
from safe_compose.errors import StateChanged, VerificationFailed
from safe_compose.operations.backup import verify
from safe_compose.operations.backup.cold_archive import EndedServer, archive_stopped
from safe_compose.operations.backup.free_space import require_free_space
from safe_compose.operations.backup.location_copy import LocationCopy
from safe_compose.operations.backup.records import make_record, note_losses
from safe_compose.operations.backup.request import BackupRequest, open_draft
from safe_compose.operations.backup.running_dump import dump_running
from safe_compose.operations.backup.servers import add_servers, list_database_containers
from safe_compose.operations.backup.store_place import require_store_outside
from safe_compose.operations.backup.writers import require_no_writers, require_nobody_came
from safe_compose.operations.stopped_containers import RefillSource, StoppedContainers
from safe_compose.store.catalogue.catalogue import Catalogue, Draft
from safe_compose.store.journal import Run
from safe_compose.system.signals import ignoring_signals
from safe_compose.ui import terminal
from safe_compose.volumes import encryption, extraction, gzip_stream
from safe_compose.volumes.engine_location import EngineLocation

if TYPE_CHECKING:
    from safe_compose.settings.load import Settings

_ONLY_COPY = "the volume kept its content in memory, and lost it before it was archived"


@dataclass(frozen=True, slots=True)
class ColdBackup:
    """A backup on disk that is verified, with the state of its volumes when their archives began.

    That state shows what must not have happened since then.
    """

    backup: Backup
    started_at: Mapping[str, str] = field(default_factory=dict)
    """Container id -> its `State.StartedAt` when the archives began, of all the volumes' users."""
    created_at: Mapping[str, str] = field(default_factory=dict)
    """Volume name -> `CreatedAt` when the archives began and nothing ran on the volumes.

    A volume that was recreated since has another one. On engines up to 20.10, so has one whose root
    folder changed.
    """
    mounts: MountEvents | None = None
    """The mounts of these volumes since then; None when the engine's disk is full."""

    @property
    def id(self) -> str:
        """The id of the backup."""
        return self.backup.id

    def ran_since(self, user: Container) -> bool:
        """Return whether the container started after the archive began.

        It may then have written something that the archive lacks.
        """
        never = user.started_at.startswith("0001-") or not user.started_at
        return not never and self.started_at.get(user.id) != user.started_at

    def require_unwritten(self, nothing: str = "nothing was deleted") -> None:
        """Check that no container has mounted an archived volume since its archive began.

        This finds containers that are gone by now as well.

        Args:
            nothing: What was not done, for the message.

        Raises:
            StateChanged: A container mounted one.
            EngineUnavailable: The engine cannot be asked.
        """
        for volume, container in (
            self.mounts.find_writers() if self.mounts is not None else {}
        ).items():
            raise StateChanged(
                f"container {container[:12]} mounted volume {volume} after its archive began (it"
                f" may be gone by now); {nothing}",
                next_step=(
                    "find out what writes into it (docker run --rm, docker cp), stop that, then run"
                    " the command again"
                ),
            )


@dataclass(frozen=True, slots=True)
class DeletionBackup:
    """The making of the backup without which docker does not run a destructive command."""

    engine: Engine
    catalogue: Catalogue
    run: Run
    """The run to journal to."""
    settings: "Settings"
    """The settings that apply to the volumes."""
    stopped_containers: StoppedContainers
    """Receives what is stopped."""

    def make(self, request: BackupRequest) -> ColdBackup:
        """Make the backup: every volume archived cold, and verified.

        Whatever the outcome, the caller must start again what was stopped
        (`stopped_containers.restore()`). `request` names the volumes, and what may be stopped for
        them.

        Raises:
            StateChanged: A container that may not be stopped uses a volume (exit code 75).
            OperationFailed: The backup could not be made (exit code 73).
            VerificationFailed: The backup does not verify (exit code 65).
        """
        engine = self.engine
        request = self._prepare(request)
        request, servers = add_servers(engine, request)
        _stop_all_but(list_database_containers(request, servers), request, self.stopped_containers)
        names = [v.name for v, _ in request.volumes]
        with open_draft(engine, self.catalogue, request) as draft:
            dumped = _dump_each(request, servers, draft.path, self.run)
            with self._keeping_dumps(request, draft, dumped.dumps):
                settled = _stop_databases(request, servers, self.settings, self.stopped_containers)
                mounts = engine.mounts.watch(names) if not engine.docker.disk_is_full else None
                require_nobody_came(engine, request)
                started_at, created_at = _read_state(engine, request)
                records = []
                for volume, verdict in request.volumes:
                    name = volume.name
                    copy = LocationCopy(engine, request, volume, verdict, draft.path)
                    ended = EndedServer(dumped.dumps.get(name), settled.get(name), name in servers)
                    record = archive_stopped(copy, ended, self.settings.trial_limit)
                    notes = (
                        *record.notes,
                        *dumped.notes.get(name, ()),
                        *_notes_of_kill(volume, self.stopped_containers),
                    )
                    older = record.dump_older_than_archive or name in dumped.late
                    records.append(replace(record, notes=notes, dump_older_than_archive=older))
                    self.run.step("archived", volume=name)
                self.stopped_containers.require_kept()
                renamed = (
                    gzip_stream.rename_encrypted(draft.path, record)
                    for record in note_losses(self.catalogue, engine, records)
                )
                backup = draft.commit(renamed, omitted=request.omitted)
        self.run.step("backed-up", backup=backup.id, path=backup.path)
        backup = self._verify(backup)
        for record in backup.volumes:
            filled = EngineLocation(engine, record.name)
            fill = partial(_fill, filled, Path(backup.path), record)
            self.stopped_containers.can_fill(record.name, RefillSource(backup.id, fill))
        terminal.say(
            f"safe-compose: backup {backup.id} is verified ({backup.level}): {backup.path}"
        )
        return ColdBackup(backup, started_at, created_at, mounts)

    def _prepare(self, request: BackupRequest) -> BackupRequest:
        """Check that the backup can be made, and return the request with what the checks found.

        Raises:
            StateChanged: A container that may not be stopped uses a volume.
            OperationFailed: There is no space for it, or the store lies in a volume.
            EngineUnavailable: The engine's events, which show late writers, cannot be read.
        """
        # Unless a caller has done so: nothing that the settings want encrypted is written in the
        # clear.
        if not encryption.is_set():
            encryption.set_recipients(self.settings.recipients)
        require_no_writers(request)
        _require_store_outside(self.catalogue, request)
        if self.engine.helpers.notice_full_disk():
            terminal.say(
                "safe-compose: the engine's disk is full: volumes are read through the containers"
                " that have them"
            )
            self.engine.archives.require_readable(v.name for v, _ in request.volumes)
        else:
            self.engine.mounts.require_watchable()
        return replace(
            request,
            sizes=require_free_space(self.catalogue, self.engine, request),
            recorded=_read_recorded_images(self.catalogue, self.engine, request),
        )

    def _verify(self, backup: Backup) -> Backup:
        """Verify the backup, and return it with its evidence.

        Raises:
            VerificationFailed: It does not verify, or there is too little evidence.
        """
        backup = verify.verify_draft(
            self.engine,
            self.catalogue,
            backup,
            trial_limit=self.settings.trial_limit,
            run=self.run,
        )
        if not backup.verified:
            raise VerificationFailed(
                f"backup {backup.id} lacks evidence for {', '.join(backup.unproved)}; nothing was"
                " deleted"
            )
        self.run.step("verified", backup=backup.id, level=backup.level)
        return backup

    @contextmanager
    def _keeping_dumps(
        self, request: BackupRequest, draft: Draft, dumps: Mapping[str, Dump | None]
    ) -> Iterator[None]:
        """Keep the dump of a volume in memory as a backup if the block fails and loses its content.

        The block stops the databases and archives their volumes. The dump, made before, is then the
        only copy.
        """
        try:
            yield
        except BaseException:
            lost = set(self.stopped_containers.list_lost())
            only = [
                (v, verdict, dump)
                for v, verdict in request.volumes
                if v.name in lost and (dump := dumps.get(v.name)) is not None
            ]
            if only and draft.backup is None:
                with (
                    ignoring_signals(),
                    terminal.reporting_only(),
                    open_draft(self.engine, self.catalogue, request) as own,
                ):
                    records = []
                    for volume, verdict, dump in only:
                        own.folder(volume.name)
                        for artifact in dump.artifacts:
                            (draft.path / artifact.file).rename(own.path / artifact.file)
                        record = make_record(request, volume, verdict, "dump", dump.artifacts)
                        records.append(
                            replace(
                                record,
                                statistics=dump.statistics,
                                notes=(*dump.warnings, _ONLY_COPY),
                            )
                        )
                    backup = own.commit(
                        gzip_stream.rename_encrypted(own.path, record) for record in records
                    )
                    names = ", ".join(record.name for record in records)
                    terminal.say(
                        f"safe-compose: the dump of {names}, made before the stop, is kept as"
                        f" backup {backup.id}: {backup.path}"
                    )
                    verify.verify_draft(None, self.catalogue, backup, trial_limit=0)
            raise


class _Dumped(NamedTuple):
    """The dumps of all servers that run."""

    dumps: Mapping[str, Dump | None]
    """Volume -> its dump; None when there is none."""
    notes: Mapping[str, tuple[str, ...]]
    """Volume -> notes for the backup."""
    late: frozenset[str]
    """The volumes whose server wrote something after its dump."""


def _dump_each(
    request: BackupRequest,
    servers: Mapping[str, Sequence[RunningServer]],
    into: Path,
    run: Run,
) -> _Dumped:
    """Dump the first server of each volume that has one, and journal that.

    Whether one has written since is asked last, directly before the stop.
    """
    made = {
        name: dump_running(found[0], name, into, request.sizes.get(name))
        for name, found in servers.items()
    }
    dumps = {name: dump for name, (dump, _) in made.items()}
    run.step("dumped", volumes=[name for name, dump in dumps.items() if dump is not None])
    late = (name for name, dump in dumps.items() if dump is not None and dump.was_written_since())
    return _Dumped(dumps, {name: notes for name, (_, notes) in made.items()}, frozenset(late))


def _read_state(
    engine: Engine, request: BackupRequest
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return `started_at` and `created_at` of a `ColdBackup` whose archives begin now."""
    names = [v.name for v, _ in request.volumes]
    started_at = {
        c.id: c.started_at
        for name in names
        for u in request.observed.users(name)
        if (c := engine.docker.container(u.id))
    }
    created_at = {
        name: v.created_at for name in names if (v := engine.docker.volume(name)) is not None
    }
    return started_at, created_at


def _fill(location: EngineLocation, folder: Path, record: VolumeRecord) -> None:
    """Restore the content of an archive to its volume, which is empty.

    Raises:
        SafeComposeError: That failed, for example because the archive is encrypted for others.
    """
    gzip_stream.require_key(folder, record.artifacts)
    extraction.extract(location, folder, record.artifacts)


def _notes_of_kill(location: Location, stopped_containers: StoppedContainers) -> Iterator[str]:
    for killed in stopped_containers.killed:
        if location.name in killed.volumes:
            yield (
                f"{killed.name} was killed when it was stopped (exit code 137): what it had not"
                " written by then is not in it"
            )


def stop_all(
    engine: Engine,
    request: BackupRequest,
    settings: "Settings",
    stopped_containers: StoppedContainers,
) -> None:
    """Stop what the command itself stops, databases last, for a deletion without a backup.

    The caller must start again what was stopped.

    Raises:
        StateChanged: A container that may not be stopped uses a volume.
        OperationFailed: A container cannot be stopped.
    """
    require_no_writers(request)
    request, servers = add_servers(engine, request)
    databases = list_database_containers(request, servers)
    _stop_all_but(databases, request, stopped_containers)
    _stop_databases(request, servers, settings, stopped_containers)


def _stop_all_but(
    databases: Collection[str], request: BackupRequest, stopped_containers: StoppedContainers
) -> None:
    """Stop the containers that use the databases, before these are dumped.

    Raises:
        StateChanged: That would also stop a database.
    """
    first = [c for c in request.may_stop if c.lively and c.id not in databases]
    if along := [c for c in stopped_containers.list_stopped_with(first) if c.id in databases]:
        services = sorted({str(c.service) for c in along})
        raise StateChanged(
            f"compose stops every container of {', '.join(services)} at once, because of its"
            f" pre_stop hooks, and {', '.join(c.name for c in along)} keeps a database that must be"
            " stopped last; nothing was deleted",
            next_step=f"docker compose stop {join_for_shell(services)}, then run the command again",
        )
    stopped_containers.stop(first)


def _stop_databases(
    request: BackupRequest,
    servers: Mapping[str, Sequence[RunningServer]],
    settings: "Settings",
    stopped_containers: StoppedContainers,
) -> Mapping[str, Any]:
    """Stop the databases once each has written its data to disk.

    Returns:
        The name of each volume -> what its first server reported before it was stopped.
    """
    databases = list_database_containers(request, servers)
    settled: dict[str, Any] = {}
    with ExitStack() as stopping:
        for name, found in servers.items():
            for serving in (s for s in found if s.confirmed or s is found[0]):
                known = stopping.enter_context(serving.database.settling(serving.at))
                settled.setdefault(name, known)
                for session in getattr(known, "foreign_sessions", ()):
                    terminal.say(
                        f"safe-compose: still connected to {serving.container.name}: {session}"
                    )
        stopped_containers.stop(
            (c for c in request.may_stop if c.id in databases), timeout=settings.stop_timeout
        )
    return settled


def _require_store_outside(catalogue: Catalogue, request: BackupRequest) -> None:
    """Check that the store lies in no volume that is deleted, not even in a disposable one.

    Raises:
        OperationFailed: It does.
    """
    deleted = {v.name for v, _ in request.volumes} | {
        o.name for o in request.omitted if o.kind == "volume"
    }
    require_store_outside(
        catalogue.root, (v for v in request.observed.volumes if v.name in deleted)
    )


def _read_recorded_images(
    catalogue: Catalogue, engine: Engine, request: BackupRequest
) -> Mapping[str, tuple[str, ...]]:
    """Return volume -> the images that served it at its last backup, for kinds that need them."""
    names = [
        volume.name
        for volume, verdict in request.volumes
        if find_stopped_dump(verdict.kind) is not None
    ]
    found = {}
    for name, backup in catalogue.reader.find_newest(engine.id, names).items():
        users = next((record.users for record in backup.volumes if record.name == name), ())
        found[name] = tuple(
            dict.fromkeys(user["image_id"] for user in users if user.get("image_id"))
        )
    return found
