"""The road of one backup: stop what may be stopped, dump, stop the database, archive, keep, verify, start again.

Before a deletion the order loses nothing (design, section 7); by hand nothing is stopped and databases are dumped hot.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_compose import plan, prompts, proof, threat
from safe_compose.artifacts import Artifact, Backup, VolumeRecord, shrunk, slug
from safe_compose.catalogue import Catalogue, Draft
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, LookAgain, VerifyFailed
from safe_compose.grammar import Invocation
from safe_compose.halted import Halted
from safe_compose.journal import Run
from safe_compose.methods import DATABASES, PHYSICAL, STOPPED, archive, seal, sqlite, stream
from safe_compose.methods.database import Database, Dump, NoCopy, Silent, Stopped
from safe_compose.observed import Container, Observed, Volume
from safe_compose.policy import Tier, Verdict

if TYPE_CHECKING:
    from safe_compose.config import Settings
    from safe_compose.world import World


_PLAIN = frozenset({"files", "certificates", "metrics", "cache", "logs", "secrets", "unknown"})
"""Kinds whose files mean something one by one; a copy of any other kind while it runs would be silently wrong."""

SMALLEST_WITH_TAR = 20 << 20
"""Bytes of an image below which it is hardly more than busybox (alpine's base has 8 MB, the smallest of Debian 70)."""

FILES_PER_VOLUME = 16
"""What a backup of one volume makes of files and folders, and some."""

ANEW_SECONDS = 60.0
"""How long a server that was restarted in mid-dump may take until it answers."""

NOTICED_SECONDS = 2.0
"""How long the engine may take to notice that a container has ended."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be backed up, why, and what may be stopped for it."""

    project: str
    reason: str
    """`pre-delete`, `pre-restore`, `pre-rotate`, `manual`."""
    command: tuple[str, ...]
    observed: Observed
    volumes: tuple[tuple[Volume, Verdict], ...]
    may_stop: tuple[Container, ...] = ()
    """What the command itself stops or removes. Nothing else is ever stopped."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the volumes, as far as the engine tells: for progress only."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup that is on disk and verified, and what must not have happened since its archives began."""

    backup: Backup
    started_at: Mapping[str, str] = field(default_factory=dict)
    """Container id -> `State.StartedAt` of every user of the archived volumes when the archive began."""
    created_at: Mapping[str, str] = field(default_factory=dict)
    """Volume name -> `CreatedAt` when the archive began, nobody running on it. A volume that was made anew since has another
    one; on engines up to 20.10 also one whose root folder changed."""

    @property
    def id(self) -> str:
        return self.backup.id

    def ran_since(self, user: Container) -> bool:
        """The container started after the archive began, so it may have written something the archive lacks."""
        never = user.started_at.startswith("0001-") or not user.started_at
        return not never and self.started_at.get(user.id) != user.started_at


def before_deletion(engine: Engine, catalogue: Catalogue, run: Run, request: Request, settings: "Settings", halted: Halted) -> Kept:
    """Make the backup without which docker is not run. Every volume of the request ends up archived cold and verified.

    Raises LookAgain (75) when a container that may not be stopped uses a volume, BackupFailed (73), VerifyFailed (65). What
    was stopped is the caller's to start again (`halted.restore()`), whatever the outcome.
    """
    if not seal.is_set():  # a road that did not ask for it must not write in the clear what the settings want encrypted
        seal.for_recipients(settings.recipients)
    _nobody_else_writes(request)
    _store_survives(catalogue, request)
    request = replace(request, sizes=_room_for(catalogue, engine, request))
    servers = _servers(request)
    databases = _databases(request)
    halted.stop(c for c in request.may_stop if c.id not in databases)
    names = [v.name for v, _ in request.volumes]
    with _draft(engine, catalogue, request) as draft:
        dumps = {name: _dump(engine, *serving, name, draft.path, request.sizes.get(name)) for name, serving in servers.items()}
        run.step("dumped", volumes=[name for name, dump in dumps.items() if dump is not None])
        late = {name for name, dump in dumps.items() if dump is not None and dump.written_since(engine)}
        settled = _stop_databases(engine, request, settings, halted)
        users = {c.id: c for name in names for u in request.observed.users(name) if (c := engine.container(u.id))}
        created = {name: v.created_at for name in names if (v := engine.volume(name)) is not None}
        records = []
        for volume, verdict in request.volumes:
            dump, known = dumps.get(volume.name), settled.get(volume.name)
            stopped, limit = volume.name in servers, settings.trial_limit
            record = _archived(engine, request, volume, verdict, draft.path, dump, known, stopped=stopped, limit=limit)
            records.append(replace(record, dump_older_than_archive=record.dump_older_than_archive or volume.name in late))
            run.step("archived", volume=volume.name)
        backup = draft.commit(stream.renamed(draft.path, record) for record in _compared(catalogue, engine, records))
    run.step("backed-up", backup=backup.id, path=backup.path)
    backup = proof.prove(engine, catalogue, backup, trial_limit=settings.trial_limit, run=run)
    if not backup.verified:
        raise VerifyFailed(f"backup {backup.id} lacks evidence for {', '.join(backup.unproved)}; nothing was deleted")
    run.step("verified", backup=backup.id, level=backup.level)
    prompts.say(f"safe-compose: backup {backup.id} is verified ({backup.level}): {backup.path}")
    return Kept(backup, {c.id: c.started_at for c in users.values()}, created)


def stop_all(engine: Engine, request: Request, settings: "Settings", halted: Halted) -> None:
    """Stop what the command itself stops, databases last and cleanly, for a deletion without a copy. Raises as
    `before_deletion` does; what was stopped is the caller's to start again."""
    _nobody_else_writes(request)
    databases = _databases(request)
    halted.stop(c for c in request.may_stop if c.id not in databases)
    _stop_databases(engine, request, settings, halted)


def _stop_databases(engine: Engine, request: Request, settings: "Settings", halted: Halted) -> Mapping[str, Any]:
    """Stop them when each has on disk what it holds; what is then known of each, by the volume."""
    servers, databases = _servers(request), _databases(request)
    with ExitStack() as stopping:
        settled = {name: stopping.enter_context(found.settled(engine, c)) for name, (found, c) in servers.items()}
        for name, known in settled.items():
            for session in getattr(known, "foreign_sessions", ()):
                prompts.say(f"safe-compose: still connected to {servers[name][1].name}: {session}")
        halted.stop((c for c in request.may_stop if c.id in databases), timeout=settings.stop_timeout)
    return settled


def _draft(engine: Engine, catalogue: Catalogue, request: Request) -> AbstractContextManager[Draft]:
    return catalogue.draft(request.project, request.reason, endpoint=engine.endpoint, engine_id=engine.id, command=request.command)


def _nobody_else_writes(request: Request) -> None:
    """Each lively user of a volume must be one that the command itself stops, and one that a stop does not destroy; nor may it
    be paused where what a stop leaves is all there will be, because a paused one cannot be asked to save."""
    may = {c.id for c in request.may_stop}
    for volume, verdict in request.volumes:
        database = DATABASES.get(verdict.kind)
        for user in request.observed.users(volume.name):
            asked = database is not None and not database.DUMPED_BEFORE_DELETION and database.serves(user, volume.name)
            if user.state == "paused" and asked:
                raise LookAgain(
                    f"volume {volume.name}: container {user.name} is paused and cannot be asked to save what it holds in memory; "
                    "nothing was deleted",
                    next_step=f"let it go on: docker unpause {user.name}, then run the command again",
                )
            if user.lively and (user.id not in may or user.auto_remove):
                why = "was started with --rm, so stopping it would destroy it" if user.auto_remove else "runs on it"
                raise LookAgain(
                    f"volume {volume.name}: container {user.name} {why}, and this command would not stop it; nothing was deleted",
                    next_step=f"stop it first: docker stop {user.name}",
                )


def _store_survives(catalogue: Catalogue, request: Request) -> None:
    """The store may not lie in what dies. Raises BackupFailed. On another machine's engine the same path is another place: then
    this asks too much, which costs a setting."""
    root = catalogue.root.resolve()
    for volume, _ in request.volumes:
        if volume.mountpoint and root.is_relative_to(volume.mountpoint):
            raise BackupFailed(
                f"the backups are kept in {root}, which is in volume {volume.name}: they would go with it; nothing was deleted",
                next_step="set SAFE_COMPOSE_HOME to a folder outside of docker's volumes",
            )


def _room_for(catalogue: Catalogue, engine: Engine, request: Request) -> Mapping[str, int]:
    """Bytes of each volume, as far as the engine tells. Raises BackupFailed when a backup of them would not fit."""
    sizes = engine.sizes([v.name for v, _ in request.volumes])
    need = plan.room_needed(sum(sizes.values()))
    free = catalogue.room()
    if free.bytes < need or (free.inodes is not None and free.inodes < FILES_PER_VOLUME * (1 + len(request.volumes))):
        room = f"{free.bytes >> 20} MiB" if free.bytes < need else f"that, but only {free.inodes} files"
        raise BackupFailed(
            f"no room for the backup: about {need >> 20} MiB are needed in {catalogue.root}, {room} are free; nothing was deleted",
            next_step="make room there, or set SAFE_COMPOSE_HOME to a folder with more room",
        )
    return sizes


def _databases(request: Request) -> frozenset[str]:
    """Ids of the containers that keep a database of any kind in one of the volumes: stopped last, and given their time."""
    kept = [v for v, verdict in request.volumes if verdict.kind not in _PLAIN]
    return frozenset(user.id for volume in kept for user in request.observed.users(volume.name))


def _servers(request: Request) -> Mapping[str, tuple[Database, Container]]:
    """Volume name -> the running database server whose data lies there."""
    found = {}
    for volume, verdict in request.volumes:
        if (database := DATABASES.get(verdict.kind)) is not None:
            for user in request.observed.users(volume.name):
                if user.state == "running" and database.serves(user, volume.name):
                    found[volume.name] = database, user
    return found


def _dump(engine: Engine, database: Database, container: Container, volume: str, into: Path, size: int | None) -> Dump | None:
    """Dump a server that runs and answers; None when it does not answer (its volume is archived cold all the same), or when
    a dump would tell nothing that the archive does not. `size`: bytes of the volume, where known."""
    if not database.DUMPED_BEFORE_DELETION:
        return None
    try:
        server = database.server(engine, container)
    except Silent as silent:
        prompts.say(f"safe-compose: no dump of {container.name}: {silent.message}")
        return None
    for session in server.foreign_sessions:
        prompts.say(f"safe-compose: still connected to {container.name}: {session}")
    try:
        with prompts.progress(f"dump {container.name} ({server.title})", total=size) as report:
            return database.dump(engine, server, volume, into, report)
    except BackupFailed:
        if (server := _restarted(engine, database, container)) is None:
            raise
    prompts.say(f"safe-compose: {container.name} was restarted meanwhile: its dump begins anew, once")
    shutil.rmtree(into / slug(volume))
    with prompts.progress(f"dump {container.name} ({server.title})", total=size) as report:
        return database.dump(engine, server, volume, into, report)


def _restarted(engine: Engine, database: Database, container: Container) -> Any:
    """The server as it answers after a restart of its container; None when that was not restarted, or does not answer."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < ANEW_SECONDS:
        now = engine.container(container.id)
        same = now is not None and now.state == "running" and now.started_at == container.started_at
        if now is None or not now.lively or (same and waited > NOTICED_SECONDS):
            return None
        with suppress(Silent):
            if not same:
                return database.server(engine, now)
        time.sleep(0.2)  # between two questions; the end is bounded
    return None


def _archived(
    engine: Engine,
    request: Request,
    volume: Volume,
    verdict: Verdict,
    into: Path,
    dump: Dump | None,
    settled: Any,
    *,
    stopped: bool,
    limit: int,
) -> VolumeRecord:
    """`limit`: bytes up to which a volume without a dump is copied, started and dumped."""
    images = image_candidates(engine, request.observed, volume.name)
    notes: list[str] = []
    statistics = None
    older = False
    if (database := DATABASES.get(verdict.kind)) is not None:
        left = database.left_behind(engine, volume.name, images, dump.server if dump else settled)
        statistics = left.statistics
        notes += left.notes
        older = dump is not None and dump.is_older_than(left)
        if stopped and (dump is not None or not database.DUMPED_BEFORE_DELETION) and not left.clean:
            raise BackupFailed(
                f"volume {volume.name}: the database did not shut down cleanly ({left.words}); nothing was deleted",
                next_step="look at the server's log, start it again and repeat the command",
            )
        if dump is None and database.DUMPED_BEFORE_DELETION:
            notes.append(f"no dump: server was not running or did not answer; {left.words}")
    with prompts.progress(f"archive {volume.name}", total=request.sizes.get(volume.name)) as report:
        artifacts = archive.archive(engine, volume, image_ids=images, into=into, progress=report)
    served = None
    if dump is None and verdict.kind in STOPPED:
        dump, served, note = _dumped_from_copy(engine, request, volume, verdict, into, artifacts, images, limit)
        notes.append(note)
    if dump is None:
        return replace(record_of(request, volume, verdict, "cold", artifacts), statistics=statistics, notes=tuple(notes))
    record = record_of(request, volume, verdict, "dump+cold", (*artifacts, *dump.artifacts))
    users = (served, *record.users) if served is not None else record.users
    notes += dump.warnings
    return replace(record, users=users, statistics=dump.statistics, notes=tuple(notes), dump_older_than_archive=older)


def _dumped_from_copy(
    engine: Engine,
    request: Request,
    volume: Volume,
    verdict: Verdict,
    into: Path,
    artifacts: tuple[Artifact, ...],
    images: tuple[str, ...],
    limit: int,
) -> tuple[Dump | None, Mapping[str, str] | None, str]:
    """The dump of a volume that was archived without one, what served it, and a note. Where there is none, a note says why:
    the archive is the backup, this is more than is asked of it."""
    if sum(a.uncompressed_bytes for a in artifacts) > limit:
        return None, None, f"nor was a copy of it dumped: it is larger than trial_limit ({limit >> 20} MiB)"
    project = request.observed.project
    declared = tuple(m for m in project.mounts if m.volume == volume.name) if project is not None else ()
    stopped = Stopped(volume.name, request.observed.users(volume.name), declared, images)
    try:
        with prompts.progress(f"dump a copy of {volume.name}"):
            dump, served = STOPPED[verdict.kind](engine, into, artifacts, volume.name, stopped)
    except (BackupFailed, VerifyFailed, LookAgain) as fault:
        return None, None, f"nor was a copy of it dumped: {fault.message}"
    return dump, served, "the dump was made by a server of ours on a copy of the volume"


def _compared(catalogue: Catalogue, engine: Engine, records: Iterable[VolumeRecord]) -> list[VolumeRecord]:
    """The records, with a note, which is said as well, where much less is there than in the last verified backup: then that
    earlier one may be what somebody will want."""
    earlier = catalogue.newest_of(engine.id, [r.name for r in records if r.statistics is not None])
    noted = []
    for record in records:
        before = earlier.get(record.name)
        old = next((r.statistics for r in before.volumes if r.name == record.name), None) if before else None
        less = shrunk(old, record.statistics) if old and record.statistics and old.kind == record.statistics.kind else None
        if less and before:
            words = f"{less}: see backup {before.id} of {before.created}"
            prompts.say(f"safe-compose: warning: {record.name}: {words}")
            record = replace(record, notes=(*record.notes, words))
        noted.append(record)
    return noted


def record_of(request: Request, volume: Volume, verdict: Verdict, method: str, artifacts: tuple[Artifact, ...]) -> VolumeRecord:
    users = tuple(
        _user(user, next(m.destination for m in user.mounts if m.name == volume.name))
        for user in request.observed.users(volume.name)
    )
    return VolumeRecord(
        name=volume.name,
        driver=volume.driver,
        options=volume.options,
        labels=volume.labels,
        created_at=volume.created_at,
        tier=verdict.tier.value,
        data_kind=verdict.kind,
        anonymous=volume.anonymous,
        method=method,
        users=users,
        artifacts=artifacts,
    )


def _user(container: Container, destination: str) -> Mapping[str, str]:
    return {
        "container": container.name,
        "service": container.service or "",
        "image": container.image,
        "image_id": container.image_id,
        "destination": destination,
    }


def image_candidates(engine: Engine, observed: Observed, volume: str) -> tuple[str, ...]:
    """Local images to run a helper from, the likeliest first: the volume's own users, the project's others, any other.

    Of those others the smallest that can be expected to have GNU tar: an engine may hold dozens of small ones and of nameless
    leftovers of builds, and to try one costs a container.
    """
    own = [c.image_id for c in observed.users(volume)]
    project = [c.image_id for c in observed.containers if c.project and c.project == getattr(observed.project, "name", None)]
    others = sorted(engine.images(), key=lambda i: (not i.references, i.size < SMALLEST_WITH_TAR, i.size))
    rest = [image.id for image in others]
    return tuple(dict.fromkeys([*own, *project, *rest]))


def seal_for(world: "World", observed: Observed) -> None:
    """Encrypt from now on what is backed up, where the settings name recipients. Raises BackupFailed, ConfigError."""
    seal.for_recipients(world.recipients(observed))


# -- by hand -----------------------------------------------------------------------------------------------------------


def by_hand(world: "World", invocation: Invocation, *, names: Sequence[str], wait: float, reason: str = "manual") -> Backup:
    """`safe-compose backup`: dump what serves, archive the rest, stop nothing. Returns the verified backup.

    `invocation` is the `down -v` of the project: what it would delete is what the backup holds, without the disposable ones
    unless they are named. Raises BackupFailed when a running database can neither be dumped nor archived honestly.
    """
    engine = world.engine
    observed = engine.look(invocation)
    seal_for(world, observed)
    rules = world.rules(observed)
    candidates = threat.threatened(invocation, observed).volumes
    if names:
        candidates = tuple(v for v in observed.volumes if v.name in names)
        if missing := sorted(set(names) - {v.name for v in candidates}):
            raise BackupFailed(f"no such volume: {', '.join(missing)}; no backup was made", next_step="docker volume ls")
    judged = list(zip(candidates, world.judge(candidates, observed, rules), strict=True))
    chosen = tuple((v, verdict) for v, verdict in judged if names or verdict.tier is not Tier.DISPOSABLE)
    if not chosen:
        raise BackupFailed("there is no volume here that would need a backup", next_step="safe-compose volumes")
    owners = {v.project for v, _ in chosen} if names else {observed.project.name if observed.project else None}
    project = (owners.pop() if len(owners) == 1 else None) or "volumes"

    def records(request: Request, into: Path) -> Iterator[VolumeRecord]:
        servers = _servers(request)
        for v, verdict in chosen:
            yield _hot(engine, request, v, verdict, into, servers.get(v.name), world.settings.method)

    return _kept_by_hand(world, Request(project, reason, (), observed, chosen), records, wait)


def of_folder(world: "World", observed: Observed, container: Container, kind: str, *, wait: float, reason: str) -> Backup:
    """A dump of a running server whose data lies in a folder of the host, so that there is no volume to archive or to put back.

    It is filed as what `restore` makes of it: a new volume, named after the service. Raises BackupFailed.
    """
    engine, database, project = world.engine, DATABASES[kind], container.project or "volumes"
    name = f"{project}_{container.service or container.name}-dump"
    seal_for(world, observed)

    def records(request: Request, into: Path) -> Iterator[VolumeRecord]:
        found = database.server(engine, container)
        mount = next(m for m in container.mounts if m.source == found.volume)
        with prompts.progress(f"dump {container.name} ({found.title})") as report:
            dump = database.dump(engine, replace(found, volume=name), name, into, report)
        note = f"its data lies in {mount.source}, a folder of the host; restored, it becomes the volume {name}"
        yield VolumeRecord(
            name=name,
            driver="local",
            options={},
            labels={},
            created_at="",
            tier=Tier.CRITICAL.value,
            data_kind=kind,
            anonymous=False,
            method="dump",
            users=(_user(container, mount.destination),),
            artifacts=dump.artifacts,
            statistics=dump.statistics,
            notes=(note, *dump.warnings),
        )

    return _kept_by_hand(world, Request(project, reason, (), observed, ()), records, wait)


def _kept_by_hand(
    world: "World", request: Request, records: Callable[[Request, Path], Iterable[VolumeRecord]], wait: float
) -> Backup:
    """Under the project's lock and in the journal: room, what `records` makes, and its proof. Returns the verified backup."""
    engine, catalogue = world.engine, world.catalogue
    catalogue.ensure()
    with catalogue.lock(engine.id, request.project, wait=wait, command=("safe-compose", "backup")):
        half = {name for run in world.journal.unfinished() if run.engine_id == engine.id for name in run.half}
        if torn := sorted(half.intersection(v.name for v, _ in request.volumes)):
            raise BackupFailed(
                f"a restore of {', '.join(torn)} was cut off, and a part of it may be there; no backup was made",
                next_step="safe-compose recover, then run it again",
            )
        run = world.journal.begin(
            world.run_id,
            command=("backup",),
            program="safe-compose",
            project=request.project,
            endpoint=engine.endpoint,
            engine_id=engine.id,
        )
        try:
            request = replace(request, sizes=_room_for(catalogue, engine, request))
            with _draft(engine, catalogue, request) as draft:
                made = list(records(request, draft.path))
                kept = draft.commit(stream.renamed(draft.path, record) for record in _compared(catalogue, engine, made))
            run.step("backed-up", backup=kept.id, path=kept.path)
            kept = proof.prove(None, catalogue, kept, trial_limit=world.settings.trial_limit)  # without an engine nothing is tried
            run.step("ended", outcome=f"backup {kept.id}")
        except BaseException as fault:
            run.step("ended", outcome=f"no backup: {type(fault).__name__}")
            raise
        finally:
            engine.sweep()
    return kept


def _hot(
    engine: Engine,
    request: Request,
    volume: Volume,
    verdict: Verdict,
    into: Path,
    serving: tuple[Database, Container] | None,
    method: str,
) -> VolumeRecord:
    if serving is not None:
        database, server = serving
        found = database.server(engine, server)  # Silent is a BackupFailed: there is no cold archive to fall back on
        count = len(found.databases)
        prompts.say(f"safe-compose: connected to {server.name}: {found.title}, {count} databases")
        notes: tuple[str, ...] = ()
        if method == "physical" and (copy := PHYSICAL.get(verdict.kind)) is not None:
            try:
                with prompts.progress(f"copy {server.name}", total=request.sizes.get(volume.name)) as report:
                    made = copy(engine, found, volume.name, into, report)
                record = record_of(request, volume, verdict, "physical", made.artifacts)
                late = made.written_since(engine)
                for warning in made.warnings:
                    prompts.say(f"safe-compose: {server.name}: {warning}")
                return replace(record, statistics=made.statistics, notes=made.warnings, dump_older_than_archive=late)
            except NoCopy as reason:
                notes = (f"no physical copy ({reason.message}): dumped instead",)
                prompts.say(f"safe-compose: {server.name}: {notes[0]}")
        with prompts.progress(f"dump {server.name}", total=request.sizes.get(volume.name)) as report:
            dump = database.dump(engine, found, volume.name, into, report)
        record = record_of(request, volume, verdict, "dump", dump.artifacts)
        return replace(record, statistics=dump.statistics, notes=(*notes, *dump.warnings))
    lively = [u.name for u in request.observed.users(volume.name) if u.lively]
    if lively and verdict.kind not in _PLAIN | {"sqlite"}:
        raise BackupFailed(
            f"volume {volume.name}: a running {verdict.kind} is not archived ({', '.join(lively)}): a copy of its files "
            "would be silently wrong; no backup was made",
            next_step=f"stop it for the backup: docker stop {lively[0]}",
        )
    with prompts.progress(f"archive {volume.name}", total=request.sizes.get(volume.name)) as report:
        images = image_candidates(engine, request.observed, volume.name)
        artifacts = archive.archive(engine, volume, image_ids=images, into=into, progress=report, live=bool(lively))
    record = record_of(request, volume, verdict, "live" if lively else "cold", artifacts)
    if not lively or not (found := sqlite.find(into, artifacts)):
        return record
    with prompts.progress(f"copy {len(found)} SQLite databases of {volume.name}") as report:
        copies, counted, notes = sqlite.copies(engine, volume.name, found, images, into, report)
    return replace(record, artifacts=(*artifacts, *copies), sqlite=counted, notes=notes)


def contents(engine: Engine, volume: Volume, verdict: Verdict, users: Sequence[Container], timeout: float) -> str | None:
    """What is in a volume, for the card, found out within `timeout` seconds; None for what is no database."""
    database = DATABASES.get(verdict.kind)
    if database is None:
        return None
    server = next((u for u in users if u.state == "running" and database.serves(u, volume.name)), None)
    if server is None:
        why = "; no dump: server was not running" if database.DUMPED_BEFORE_DELETION else "; its server does not run"
        return f"{verdict.kind}{why}"
    return (database.summary(engine, server, timeout=timeout) if timeout > 0 else None) or f"{verdict.kind}, not measured"
