"""The way back: `undo` what the last guarded command destroyed, or `restore` a backup; never over data, never half.

look -> show the plan -> read the whole backup -> ask -> lock -> look again -> keep what is there safe -> stop -> empty ->
fill -> start again -> count. A fault or a signal on the way puts back what was there.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safe_compose import backup, prompts, shim, volume_trash
from safe_compose.artifacts import HIDDEN, Artifact, Backup, DatabaseStatistics, VolumeRecord
from safe_compose.elsewhere import SCRATCH, Elsewhere, how_to_look
from safe_compose.elsewhere import elsewhere as places_for
from safe_compose.engine import Engine, connect, declared_mounts
from safe_compose.errors import (
    BackupFailed,
    EngineUnavailable,
    Interrupted,
    LookAgain,
    Refused,
    SafeComposeError,
    UsageError,
    VerifyFailed,
)
from safe_compose.grammar import parse
from safe_compose.journal import Run, RunRecord
from safe_compose.methods import archive, database_of, postgres, sqlite, stream
from safe_compose.methods.database import Database
from safe_compose.observed import PROJECT_LABEL, Container, DeclaredMount, Observed, Volume
from safe_compose.plan import size_text
from safe_compose.policy import Tier, Verdict
from safe_compose.recover import Begun, recover, take_back
from safe_compose.volume_trash import Item
from safe_compose.world import World

HEALTH_SECONDS = 120.0
"""How long `undo` waits for the services that it started to report healthy."""
LOCK_SECONDS = 60.0
_LOOK = parse(["volume", "ls"])
_DIVERGES = "doesn't match configuration in compose file"
"""In compose's question whether a volume may be deleted and made anew (2.32 and later)."""


@dataclass(frozen=True, slots=True)
class Target:
    """One volume to put back, and what stands in its place now."""

    record: VolumeRecord
    into: str
    """The volume that gets the content: the one of that name, or for an anonymous one its successor."""
    now: Volume | None
    holds: bool = False
    """There is content now that would be replaced: it is backed up first, and a person types the phrase."""
    trash: str = ""
    """The volume of the trash that holds its content: then that is renamed back, and nothing is copied."""
    server: str = ""
    """The image of another major version that serves the volume now: then `record` is how its dump goes into that one."""

    @property
    def source(self) -> str:
        if self.forgets:
            return "nothing"
        if self.trash:
            return "trash"
        if _archive_of(self.record) is not None:
            return "archive"
        return "physical copy" if self.record.method == "physical" else "dump"

    @property
    def forgets(self) -> bool:
        """A tmpfs: its content ends with the last container on it, so nothing can be put there beforehand."""
        return self.record.driver == "local" and self.record.options.get("type") == "tmpfs"

    @property
    def outside(self) -> bool:
        """The volume only points at a place, a folder of the host or a share, which no deletion of it touches."""
        return self.record.driver != "local" or bool(self.record.options.get("device"))

    @property
    def occupied(self) -> bool:
        return self.holds and not self.forgets

    def action(self) -> str:
        if self.forgets:
            what = "made again, empty" if self.now is None else "left as it is"
            return f"{what}: a tmpfs keeps its content only while a container runs on it"
        source = f"{self.source}{f', because {self.server} serves it now' if self.server else ''}"
        if self.now is None:
            return f"made{' again' if self.into == self.record.name else ''}, from its {source}"
        return f"{'replaced' if self.holds else 'empty now: filled'} from its {source}"


@dataclass(frozen=True, slots=True)
class Way:
    """What will be done, after one look."""

    engine: Engine
    kept: Backup
    observed: Observed
    targets: tuple[Target, ...]
    declared: tuple[DeclaredMount, ...] = ()
    """What the compose file says of today's services."""
    away: Elsewhere | None = None
    """Where the volumes go when they do not go home."""
    trash: Mapping[str, str] = field(default_factory=dict)
    """Name of a deleted volume -> the volume of the trash with its content."""
    strange: bool = False
    """The backup is of another engine, and lies in the store here: be it that docker was installed anew, a person says so."""

    @property
    def occupied(self) -> tuple[Target, ...]:
        return tuple(t for t in self.targets if t.occupied)

    @property
    def projects(self) -> frozenset[str]:
        """The projects whose data this is: locked meanwhile, and the only ones of which a container is stopped."""
        return frozenset({self.owner, *(p for t in self.targets if (p := t.record.labels.get(PROJECT_LABEL)))})

    @property
    def owner(self) -> str:
        """The project that gets the volumes."""
        return self.away.owner if self.away is not None else self.kept.project

    @property
    def phrase(self) -> str:
        """What is typed before content is replaced: the project's name; for a backup of loose volumes the volume's own; what
        was named with `--into`."""
        if self.away is not None:
            return self.away.name
        if self.kept.project != "volumes":
            return self.kept.project
        touched = self.occupied or self.targets
        return touched[0].into if len(touched) == 1 else f"replace {len(touched)} volumes"

    @property
    def asks(self) -> bool:
        """A person has to type the phrase."""
        return bool(self.occupied) or self.strange

    def users(self) -> tuple[Container, ...]:
        """The lively containers on a volume that is touched."""
        found = {u.id: u for t in self.targets if not t.forgets for u in self.observed.users(t.into) if u.lively}
        return tuple(found.values())

    def identity(self) -> frozenset[tuple[str, str, bool, bool]]:
        return frozenset((t.record.name, t.into, t.now is None, t.occupied) for t in self.targets)

    def shape(self) -> dict[str, Any]:
        """For `--json`."""
        volumes = [{"name": t.record.name, "into": t.into, "from": t.source, "action": t.action()} for t in self.targets]
        stops = [c.name for c in self.users()]
        return {"backup": self.kept.id, "volumes": volumes, "stops": stops, "phrase": self.phrase if self.asks else None}

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.kept.path:
            yield f"from backup {self.kept.id} of {self.kept.created} ({self.kept.level or 'not verified yet'}):"
        else:
            yield f"from the trash, where it is since {self.kept.created}:"
        if self.kept.engine_id != self.engine.id:
            yield f"  it was made on another engine, {self.kept.endpoint}; this one is {self.engine.endpoint}"
        where = "now" if self.away is None else "into"
        for t in self.targets:
            size = "renamed, not copied" if t.trash else size_text(sum(a.bytes for a in t.record.artifacts))
            name = t.record.name + (f" ({where} {t.into})" if t.into != t.record.name else "")
            yield f"  {name}: {t.action()} ({size}{_held(t.record)})"
        if users := self.users():
            yield f"  stopped meanwhile, then started again: {', '.join(c.name for c in users)}"
        if self.occupied:
            yield f"  content that is there now is kept as a safety backup first: {', '.join(t.into for t in self.occupied)}"


def _held(record: VolumeRecord) -> str:
    counted = record.statistics
    return f", {len(counted.databases)} databases, {counted.rows} rows" if counted is not None else ""


# -- the two roads -----------------------------------------------------------------------------------------------------


def undo(world: World, *, project: str | None, confirm: str | None, ask: bool = True, dry_run: bool = False) -> dict[str, Any]:
    """Bring back what the last guarded command destroyed: volumes with name, driver, options, labels and content, and the
    services that ran.

    Asks nothing unless content of today would be replaced; then that is kept as a safety backup and the phrase is needed.
    Raises Refused, LookAgain, VerifyFailed, BackupFailed; nothing is touched then, or what was there is there again.
    """
    if not dry_run:
        recover(world.engine, world.catalogue, world.journal, but=world.run_id)
    deletion = _deletion(world, project)
    engine = _same_engine(world, deletion)
    trash = volume_trash.of_run(engine, deletion.id)
    if deletion.backup is not None:
        kept = world.catalogue.find(deletion.backup)
    elif trash:
        kept = volume_trash.as_backup(engine, list(trash.values()))
    else:
        raise Refused("it went into the trash without a backup, and is not there any more; nothing can be undone")
    gone = _gone(deletion)
    command = _compose_command(world, deletion)
    _, declared = declared_mounts(command, dict(os.environ), deletion.cwd) if command else ("", ())
    way = _look(engine, kept, [r for r in kept.volumes if r.name in gone], declared, trash=_held_in(trash))
    prompts.say(f"safe-compose: undo of '{deletion.program} {' '.join(deletion.command)}' ({deletion.started})")
    if lost := sorted(gone - {r.name for r in kept.volumes}):
        prompts.say(f"safe-compose: not in the backup, because disposable: {', '.join(lost)}")
    if dry_run:
        return _only_shown(way)
    _agree(world, way, confirm, ask)
    with _acting(world, way, ("undo",), undoes=deletion.id) as act:
        act.put_back_all()
        act.settle()
        _move_in(act, deletion)
        started = _start_services(world, engine, deletion, way)
    return {**act.outcome(), "services": started, "statistics": _statistics(act)}


def restore(
    world: World,
    kept: Backup,
    *,
    names: Sequence[str],
    confirm: str | None,
    ask: bool = True,
    dry_run: bool = False,
    elsewhere: bool = False,
    into: str | None = None,
    trash: Mapping[str, Item] | None = None,
) -> dict[str, Any]:
    """Put the volumes of one backup back, all of them or those named. What runs on them is stopped and started again.

    into: not home, but into this volume or project, or `scratch`. elsewhere: it was fetched from off-site for this engine, be it
    another one than it was made on: that machine may be lost. trash: items of it by the name of the volume; then `kept` is
    `volume_trash.as_backup` of them.
    Raises as `undo` does.
    """
    if missing := sorted(set(names) - {r.name for r in kept.volumes}):
        raise UsageError(f"backup {kept.id} holds no volume {', '.join(missing)}", next_step=f"safe-compose show {kept.id}")
    _trusted(kept)
    if not dry_run:
        recover(world.engine, world.catalogue, world.journal, but=world.run_id)
    project, declared = declared_mounts((world.docker, "compose"), dict(os.environ))
    records = [r for r in kept.volumes if not names or r.name in names]
    away = None
    if into is not None:
        ids: dict[str, Any] = {"backup_id": kept.id, "project": kept.project, "token": world.run_id[-6:]}
        away = places_for(into, records, **ids, here=project, declared=declared)
        records = list(away.records)
    way = _look(world.engine, kept, records, declared if away or project == kept.project else (), away, _held_in(trash))
    way = replace(way, strange=kept.engine_id != world.engine.id and not elsewhere)
    if dry_run:
        return _only_shown(way)
    _agree(world, way, confirm, ask)
    with _acting(world, way, ("trash", "restore", kept.id) if trash else ("restore", kept.id)) as act:
        act.put_back_all()
        act.settle()
    if into == SCRATCH:
        _tell_how_to_look(act)
    return {**act.outcome(), "statistics": _statistics(act)}


def _tell_how_to_look(act: "Act") -> None:
    for target in act.way.targets:
        prompts.say(f"safe-compose: nothing was started on {target.into}. To look at it, then to throw it away:")
        recorded = next((u["image"] for u in target.record.users if act.way.engine.image(u["image"])), "busybox")
        for line in how_to_look(target.record, target.into, recorded):
            prompts.say(f"  {line}")


def usable(world: World, kept: Backup, *, elsewhere: bool = False) -> None:
    """Raises VerifyFailed for a backup that is broken, Refused for one of another engine unless it was fetched from elsewhere."""
    _trusted(kept)
    if kept.engine_id != world.engine.id and elsewhere:
        prompts.say(f"safe-compose: backup {kept.id} was made on another engine ({kept.endpoint}); it is restored to this one")
    elif kept.engine_id != world.engine.id:
        raise Refused(
            f"backup {kept.id} was made on another engine ({kept.endpoint}); nothing was restored",
            next_step="set DOCKER_HOST or DOCKER_CONTEXT to that engine; or restore the whole of it to this one: "
            f"safe-compose restore {kept.id}",
        )


def _held_in(trash: Mapping[str, Item] | None) -> dict[str, str]:
    return {name: item.volume for name, item in (trash or {}).items()}


def _only_shown(way: Way) -> dict[str, Any]:
    return {**way.shape(), "dry_run": True, "plan": list(way.lines())}


# -- which deletion, which engine --------------------------------------------------------------------------------------


def _deletion(world: World, project: str | None) -> RunRecord:
    """The newest deletion here that was not undone and has a backup. Raises UsageError, Refused."""
    cwd = None if project else str(Path.cwd())
    found = world.journal.last_deletion(project=project, cwd=cwd)
    runs = world.journal.runs()
    undone = {r.undid for r in runs}
    newer = [
        r
        for r in runs
        if r.id in undone
        and (found is None or r.seq > found.seq)
        and (r.project == project if project else cwd in (r.cwd, r.facts.get("working_dir")))
    ]
    where = f"project {project}" if project else "this folder"
    if found is None:
        already = f"; that of {newer[0].started} was undone already" if newer else ""
        raise UsageError(
            f"the journal knows no guarded deletion in {where} that could be undone{already}",
            next_step="safe-compose journal, then safe-compose undo --project NAME or safe-compose restore ID",
        )
    if newer:
        prompts.say(
            f"safe-compose: the deletion of {newer[0].started} in {where} was undone already; this is an older one, "
            f"of {found.started}"
        )
    if found.backup is None and found.last("trashed") is None:
        raise Refused(
            f"'{found.program} {' '.join(found.command)}' of {found.started} ran without a backup; nothing can be undone",
            next_step="safe-compose list, then safe-compose restore ID for an older state",
        )
    return found


def _gone(deletion: RunRecord) -> frozenset[str]:
    """The volumes that the deletion took; all that it meant to take when we died before we could look."""
    ran, running = deletion.last("ran"), deletion.last("running")
    if ran is not None:
        return frozenset(map(str, ran.get("gone", ())))
    return frozenset(str(v["name"]) for v in (running or {}).get("volumes", ()))


def _same_engine(world: World, deletion: RunRecord) -> Engine:
    """The engine that the journal recorded, reached by the same words; never another one."""
    words = deletion.docker_globals
    engine = world.engine if not words else connect(world.docker, words, environ=dict(os.environ), run_id=world.run_id)
    if engine.id != deletion.engine_id:
        raise EngineUnavailable(
            f"the deletion happened on {deletion.endpoint}, but {engine.endpoint} is another engine; nothing was restored",
            next_step="set DOCKER_HOST or DOCKER_CONTEXT as it was then",
        )
    return engine


# -- look, read, ask ---------------------------------------------------------------------------------------------------


def _look(
    engine: Engine,
    kept: Backup,
    records: Sequence[VolumeRecord],
    declared: tuple[DeclaredMount, ...],
    away: Elsewhere | None = None,
    trash: Mapping[str, str] | None = None,
) -> Way:
    """What would be put where. Raises Refused for a volume whose server of today could not hold it."""
    observed = engine.look(_LOOK)
    targets = []
    for record in records:
        into = away.places[record.name] if away else _successor(record, observed, kept.project) or record.name
        now = engine.volume(into)
        other = None
        if record.data_kind == "postgres":
            other = postgres.moved(engine, record, into, observed.users(into), declared)
        server = other.users[0]["image"] if other is not None else ""
        held = (trash or {}).get(record.name, "") if other is None else ""
        targets.append(Target(other or record, into, now, now is not None and engine.list_root(into) != [], held, server))
    return Way(engine, kept, observed, tuple(targets), declared, away, trash or {})


def _successor(record: VolumeRecord, observed: Observed, project: str) -> str | None:
    """The volume now mounted where an anonymous one was: in the container of the same name (service and replica), at the
    same path."""
    if not record.anonymous or observed.volume(record.name) is not None:
        return None
    places = {(u.get("container"), u.get("destination")) for u in record.users}
    for container in observed.containers:
        for mount in container.mounts:
            here = container.project == project and (container.name, mount.destination) in places
            if here and mount.type == "volume" and mount.name:
                return mount.name
    return None


def _agree(world: World, way: Way, confirm: str | None, ask: bool) -> None:
    """Show the plan, refuse what cannot work, read the backup to its end, then ask for the phrase where one is needed."""
    for line in way.lines():
        prompts.say(f"safe-compose: {line}")
    _possible(way)
    _read_whole(world, way)
    if way.asks:
        _consent(way, confirm, ask)


def _possible(way: Way) -> None:
    for target in way.targets:
        if any(HIDDEN in value for value in target.record.options.values()):
            name = target.record.name
            raise Refused(
                f"volume {name} was made with a password among its driver options, which no backup holds; nothing was restored",
                next_step=f"make it yourself with its options, then safe-compose restore {way.kept.id} --volume {name}",
            )
    for user in way.users():
        stranger = user.project is not None and user.project not in way.projects
        if stranger or user.auto_remove:
            why = f"of project {user.project} runs" if stranger else "was started with --rm and runs"
            raise LookAgain(
                f"container {user.name} {why} on a volume that would be written; nothing was restored",
                next_step=f"stop it first: docker stop {user.name}",
            )


def _trusted(kept: Backup) -> None:
    if kept.broken is not None:
        raise VerifyFailed(
            f"backup {kept.id} does not verify: {kept.broken}; nothing was touched",
            next_step="safe-compose list, then restore another one",
        )


def _read_whole(world: World, way: Way) -> None:
    """Every file of the volumes, before the first byte goes anywhere. A damaged backup is marked, and raises VerifyFailed."""
    copied = [target for target in way.targets if not target.trash]
    if not copied:
        return
    _trusted(way.kept)
    folder = Path(way.kept.path)
    with prompts.progress(f"verify {way.kept.id}") as report:
        for target in copied:
            try:
                if (locked := stream.locked(folder, target.record)) is not None:
                    raise locked
                backup.check_files(folder, target.record, report)
            except VerifyFailed as fault:
                world.catalogue.mark_broken(way.kept, fault.message)
                raise VerifyFailed(f"{fault.message}; nothing was touched", next_step=fault.next_step) from fault


def _consent(way: Way, confirm: str | None, ask: bool) -> None:
    names = ", ".join(t.into for t in way.occupied)
    what = f"the content of {names} would be replaced" if names else f"backup {way.kept.id} was made on another engine"
    if confirm is not None:
        if confirm != way.phrase:
            raise Refused("--confirm does not match; nothing was restored", next_step=f"--confirm '{way.phrase}'")
        return
    terminal = prompts.Terminal.open() if ask else None
    if terminal is None:
        raise Refused(
            f"{what}, and nobody can be asked; nothing was restored",
            next_step=f"add --confirm '{way.phrase}'",
        )
    question = f"To replace the content of {names}" if names else "To restore it to this engine"
    if terminal.ask(f"{question}, type '{way.phrase}': ") != way.phrase:
        raise Refused(f"the phrase was not '{way.phrase}'; nothing was restored")


# -- act ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _acting(world: World, way: Way, command: tuple[str, ...], *, undoes: str | None = None) -> Iterator["Act"]:
    """Hold the projects' locks, keep safe what is there, stop what runs on it; in the block it is put back.

    Whatever ends the block but success puts back what was there. In every case what was stopped is started again.
    """
    world.catalogue.ensure()
    with ExitStack() as locks:
        for project in sorted(way.projects):
            lock = world.catalogue.lock(way.engine.id, project, wait=LOCK_SECONDS, command=("safe-compose", *command))
            locks.enter_context(lock)
        again = _look(way.engine, way.kept, [t.record for t in way.targets], way.declared, way.away, way.trash)
        if again.identity() != way.identity():
            raise LookAgain("the volumes changed between the plan and now; nothing was restored", next_step="run it again")
        _possible(again)
        run = world.journal.begin(
            world.run_id,
            command=command,
            program="safe-compose",
            project=way.owner,
            endpoint=way.engine.endpoint,
            engine_id=way.engine.id,
            restores=way.kept.id,
            projects=way.projects,
        )
        act = Act(world, again, run, undoes=undoes)
        try:
            act.keep_safe()
            yield act
        except BaseException as fault:
            act.roll_back()
            if isinstance(fault, KeyboardInterrupt):
                raise Interrupted(f"interrupted: {act.result}") from fault
            raise
        finally:
            act.leave()


class Act:
    """One restore under way, and the way back from any point of it."""

    def __init__(self, world: World, way: Way, run: Run, *, undoes: str | None) -> None:
        self.world = world
        self.way = way
        self.run = run
        self.undoes = undoes
        self.safety: Backup | None = None
        self.touched: list[Target] = []
        self.filled: list[dict[str, Any]] = []
        self.homes: dict[str, str] = {}
        """Old name of an anonymous volume -> the one that has its content now."""
        self.result = "nothing was changed"
        self._users: dict[str, dict[str, str]] = {}
        """Volume -> id of each container on it -> its `StartedAt`, when the putting back began."""
        self._halted = backup.Halted(way.engine, run)

    def keep_safe(self) -> None:
        """Back up what the occupied volumes hold now, and stop whatever runs on a target. Raises BackupFailed, LookAgain."""
        way = self.way
        judged = tuple((t.now, _verdict_of(t)) for t in way.occupied if t.now is not None)
        if judged:
            backup.seal_for(self.world, way.observed)
            users = tuple({u.id: u for v, _ in judged for u in way.observed.users(v.name)}.values())
            request = backup.Request(way.owner, "pre-restore", (), way.observed, judged, users)
            made = backup.before_deletion(way.engine, self.world.catalogue, self.run, request, self.world.settings, self._halted)
            self.safety = made.backup
        self._halted.stop(c for u in way.users() if (c := way.engine.container(u.id)) is not None)

    def put_back_all(self) -> None:
        observed = self.way.engine.look(_LOOK)
        for target in self.way.targets:
            users = observed.users(target.into)
            self._users[target.into] = {u.id: full.started_at for u in users if (full := self.way.engine.container(u.id))}
            for user in users:
                if user.lively and not target.forgets:
                    raise LookAgain(
                        f"container {user.name} was started on {target.into} meanwhile; what was there is there again",
                        next_step="stop what starts it, then run the command again",
                    )
        for target in self.way.targets:
            self._put_back(target)

    def settle(self) -> None:
        """All of it is back: from here on nothing is rolled back any more."""
        self.result = f"restored from {self.way.kept.id}"
        if self.undoes is not None:  # one step tells both: no kill falls between them
            self.run.step("undid", run=self.undoes, backup=self.way.kept.id)
        else:
            self.run.step("restored", backup=self.way.kept.id)
        self.touched.clear()
        for target in self.way.targets:
            if target.trash:
                with prompts.only_said():
                    volume_trash.discard(self.way.engine, target.trash)

    def _put_back(self, target: Target) -> None:
        engine, record = self.way.engine, target.record
        self.run.step("putting-back", **self._begun(target)._asdict())
        self.touched.append(target)
        if target.now is None:
            engine.create_volume(target.into, driver=record.driver, options=record.options, labels=record.labels)
        else:
            _tell_difference(target)
        if target.forgets:
            source = target.action()
        elif target.now is None and target.outside and engine.list_root(target.into) != []:
            source = self._left_outside(target)
        else:
            source = self.fill(target, target.into, empty_first=target.occupied)
        self.run.step("put-back", volume=target.into, source=source)
        self.filled.append({"name": record.name, "into": target.into, "from": source})
        size = size_text(sum(a.bytes for a in record.artifacts))
        told = f" is back, from its {source} ({size})" if source in ("archive", "physical copy", "dump") else f": {source}"
        told = " is back, from the trash" if source == "trash" else told
        prompts.say(f"safe-compose: {record.name}{told}")

    def _left_outside(self, target: Target) -> str:
        """A made again volume that shows content at once: the place that it points at was never deleted."""
        if self.undoes is not None:
            return "left as it was: its content lies outside of docker, where no deletion of the volume reached it"
        self.touched.remove(target)  # the volume stays: then the next run sees what it holds, asks, and keeps that safe
        raise LookAgain(
            f"volume {target.into} was made again and points at a place that has content; that was not touched",
            next_step=f"run it again to replace that content: safe-compose restore {self.way.kept.id}",
        )

    def fill(self, target: Target, into: str, *, empty_first: bool) -> str:
        """Content into a volume: from the archive when there is one, else from the dump. Says which."""
        engine, folder, record = self.way.engine, Path(self.way.kept.path), target.record
        images = self._images(record)
        if empty_first:
            archive.empty(engine, into, images)
        if target.trash:
            volume_trash.put_back(engine, into, target.trash)
            return "trash"
        tar = _archive_of(record)
        if tar is not None:
            with prompts.progress(f"restore {into}", total=tar.uncompressed_bytes) as report:
                archive.extract(engine, folder, record.artifacts, into, images, report)
            if count := sqlite.put_copies(engine, folder, record.artifacts, into, images):
                prompts.say(f"safe-compose: {into}: {count} SQLite databases are the consistent copies, not the archive's")
            return "archive"
        size = sum(a.uncompressed_bytes for a in record.artifacts if a.kind in ("database", "base"))
        with prompts.progress(f"restore {into} from its {target.source}", total=size) as report:
            _database_of(record).rebuild(engine, folder, _at_hand(engine, record), into, report)
        return target.source

    def _images(self, record: VolumeRecord) -> tuple[str, ...]:
        """Local images to run helpers from: those that used the volume then, its users now, the others."""
        recorded = [u["image_id"] for u in record.users if self.way.engine.image(u["image_id"])]
        return tuple(dict.fromkeys([*recorded, *backup.image_candidates(self.way.engine, self.way.observed, record.name)]))

    def roll_back(self) -> None:
        """Put back what was there in everything that was touched. What became of it is told, and kept as `result`; a failure
        hides nothing that happened before."""
        if not self.touched:
            return
        failed = []
        with backup.undisturbed():
            for target in reversed(self.touched):
                try:
                    self._roll_back_one(target)
                except SafeComposeError as fault:
                    failed.append(target.into)
                    prompts.say(f"safe-compose: {target.into} could not be rolled back: {fault.message}")
        where = f"; what was there is in backup {self.safety.id}" if self.safety else ""
        self.result = f"cut off while putting back {', '.join(failed)}{where}" if failed else "what was there is there again"
        prompts.say(f"safe-compose: {self.result}")

    def _roll_back_one(self, target: Target) -> None:
        take_back(self.way.engine, self.world.catalogue, self._begun(target), self._images(target.record))
        self.run.step("rolled-back", volume=target.into)

    def _begun(self, target: Target) -> Begun:
        return Begun(
            target.into,
            target.now is not None,
            self.safety.id if self.safety and target.holds else None,
            target.trash or None,
            target.forgets,
            target.outside,
            self._users[target.into],
        )

    def leave(self) -> None:
        """Start again what was stopped and close the journal. No fault here hides what happened before; a run that could not
        start everything again stays open for `recover`."""
        whole = self._halted.restore()
        with prompts.only_said():
            self.way.engine.sweep()
        with prompts.only_said():
            if whole:
                self.run.step("ended", outcome=self.result)

    def outcome(self) -> dict[str, Any]:
        volumes = [{**filled, "into": self.homes.get(filled["into"], filled["into"])} for filled in self.filled]
        return {"backup": self.way.kept.id, "volumes": volumes, "safety": self.safety.id if self.safety else None}


def _archive_of(record: VolumeRecord) -> Artifact | None:
    return next((a for a in record.artifacts if a.kind == "archive"), None)


def _database_of(record: VolumeRecord) -> Database:
    """How the kind of database that was dumped is handled. Raises BackupFailed where there is no dump."""
    if record.statistics is None:
        raise BackupFailed(f"volume {record.name}: it cannot be made again from a dump: it has none")
    return database_of(record.statistics.kind)


def _verdict_of(target: Target) -> Verdict:
    record = target.record
    return Verdict(target.into, Tier(record.tier), "in the backup", record.data_kind, explicit=False)


def _tell_difference(target: Target) -> None:
    now, record = target.now, target.record
    if now is None or target.into != record.name:
        return
    if (now.driver, dict(now.options)) != (record.driver, dict(record.options)):
        prompts.say(f"safe-compose: {record.name} exists with another driver or other options than recorded; it keeps them")
    if dict(now.labels) != dict(record.labels):
        prompts.say(f"safe-compose: {record.name} exists with other labels than recorded; it keeps them")


def _at_hand(engine: Engine, record: VolumeRecord) -> VolumeRecord:
    """The record with the image that its references mean today where the recorded one is gone: a dump loads into a later
    build of the same image as well."""
    users = []
    for user in record.users:
        image = engine.image(user["image_id"]) or engine.image(user["image"])
        users.append({**user, "image_id": image.id} if image is not None else user)
    return replace(record, users=tuple(users))


# -- anonymous volumes -------------------------------------------------------------------------------------------------


def _move_in(act: Act, deletion: RunRecord) -> None:
    """Content of anonymous volumes, which was put back under the old names that no container asks for any more, goes into
    the new volumes of the same service, replica and path. Their containers are created for that, not started.

    What cannot be moved stays under its old name, and is said.
    """
    waiting = [t for t in act.way.targets if t.record.anonymous and t.now is None and t.into == t.record.name]
    if not waiting:
        return
    services = sorted({s for t in waiting for u in t.record.users if (s := u.get("service"))})
    if services:
        _compose(act.world, deletion, "up", "--no-start", "--no-deps", *services)
    observed = act.way.engine.look(_LOOK)
    for target in waiting:
        with prompts.only_said():
            _move_one(act, target, observed)
        places = ", ".join(f"{u.get('container')}:{u.get('destination')}" for u in target.record.users) or "no container"
        if new := act.homes.get(target.into):
            prompts.say(f"safe-compose: the anonymous volume of {places} is {new} now, with the old content")
        else:
            prompts.say(
                f"safe-compose: the anonymous volume of {places} is back under its old name {target.into}, but no container "
                "uses it: copy from it what you need"
            )


def _move_one(act: Act, target: Target, observed: Observed) -> None:
    nameless = replace(target.record, name="")  # its old name is there again; what is asked for is its successor
    into = _successor(nameless, observed, act.way.kept.project)
    if into is None or any(u.lively for u in observed.users(into)):
        return
    act.fill(target, into, empty_first=True)  # what the image put there a moment ago
    act.homes[target.into] = into
    act.run.step("moved", volume=target.into, into=into)
    act.way.engine.remove_volume(target.into)


# -- services ----------------------------------------------------------------------------------------------------------


def _start_services(world: World, engine: Engine, deletion: RunRecord, way: Way) -> list[str]:
    """Start what ran before the deletion: `compose up -d --no-deps` with the recorded words, in the recorded folder.

    Never `-V`, never `-y`, stdin empty (so a question of compose is answered no). When compose cannot be asked like that, or
    would ask whether a volume may be deleted, the command is printed instead.
    """
    services = [str(s) for s in (deletion.last("running") or {}).get("services", ())]
    if not services:
        return []
    words = ("up", "-d", "--no-deps", *services)
    shown = " ".join([deletion.program, *_compose_words(deletion, *words)])
    if _compose_command(world, deletion) is None or "-" in deletion.compose_globals:
        prompts.say(f"safe-compose: the volumes are back; start the services yourself: {shown}")
        return []
    if name := _diverging(world, deletion, way, words):
        prompts.say(
            f"safe-compose: the volumes are back as they were, but the compose file now defines {name} otherwise and compose "
            f"would delete it to make it anew; nothing was started. Put its definition back, then: {shown}"
        )
        return []
    prompts.say(f"safe-compose: {shown}")
    if code := _compose(world, deletion, *words):
        prompts.say(f"safe-compose: the volumes are back, but compose ended with {code}; run it yourself: {shown}")
        return []
    for container in engine.containers():
        if container.project == deletion.project and container.service in services and container.health is not None:
            with prompts.only_said():
                engine.wait_healthy(container.id, timeout=HEALTH_SECONDS)
    return services


def _compose_words(deletion: RunRecord, *words: str) -> list[str]:
    """What follows `docker`, or the standalone `docker-compose`."""
    verb = [] if deletion.program == "docker-compose" else ["compose"]
    return [*deletion.docker_globals, *verb, *deletion.compose_globals, *words]


def _compose_command(world: World, deletion: RunRecord, *words: str) -> list[str] | None:
    """The program that ran the deletion, with these words for compose; None when it cannot be run as it was then.

    Another version of compose would make its containers anew, under other names.
    """
    program = shim.search("docker-compose") if deletion.program == "docker-compose" else world.docker
    if program is None or not Path(deletion.cwd).is_dir():
        return None
    return [program, *_compose_words(deletion, *words)]


def _compose(world: World, deletion: RunRecord, *words: str) -> int:
    """Run compose as it was run then; its exit code. What it prints goes to stderr."""
    command = _compose_command(world, deletion, *words)
    if command is None:
        return 1
    ended = subprocess.run(
        command,
        cwd=deletion.cwd,
        stdin=subprocess.DEVNULL,
        stdout=2,
        env=shim.original_environment(),
        check=False,
    )
    return ended.returncode


def _diverging(world: World, deletion: RunRecord, way: Way, words: Sequence[str]) -> str | None:
    """The volumes that compose would want to delete and make anew, as its own dry run says; None when there are none.

    docker-compose 1.x takes `--dry-run` for a mistake and ends; it never deletes a changed volume.
    """
    command = _compose_command(world, deletion, "--dry-run", *words)
    if command is None:
        return None
    ended = subprocess.run(
        command,
        cwd=deletion.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=shim.original_environment(),
        check=False,
    )
    said = ended.stdout.decode("utf-8", "replace")
    if _DIVERGES not in said:
        return None
    named = [t.record.name for t in way.targets if any(t.record.name in line for line in said.splitlines() if _DIVERGES in line)]
    return ", ".join(named) or "a volume"


# -- what is in it -----------------------------------------------------------------------------------------------------


def _statistics(act: Act) -> list[dict[str, Any]]:
    """Databases, tables and rows: what was there, what the backup holds, what a running server counts now."""
    rows = []
    for target in act.way.targets:
        if target.record.statistics is None:
            continue
        then = {d.name: d for d in target.record.statistics.databases}
        old = next((r for r in (act.safety.volumes if act.safety else ()) if r.name == target.into), None)
        before = {d.name: d for d in old.statistics.databases} if old and old.statistics else {}
        now = _counted(act, target) or {}
        for name in sorted({*then, *before, *now}):
            sides = (("before", before), ("backup", then), ("now", now))
            counts: Mapping[str, Any] = {side: _counts(found.get(name)) for side, found in sides}
            rows.append({"volume": act.homes.get(target.into, target.into), "database": name, **counts})
    return rows


def _counts(database: DatabaseStatistics | None) -> dict[str, int] | None:
    return {"tables": len(database.tables), "rows": database.rows} if database is not None else None


def _counted(act: Act, target: Target) -> dict[str, DatabaseStatistics] | None:
    """What the server on the volume counts now; None where none runs, or where counting would take long."""
    engine = act.way.engine
    if sum(a.uncompressed_bytes for a in target.record.artifacts) > act.world.settings.trial_limit:
        return None
    volume = act.homes.get(target.into, target.into)
    users = engine.look(_LOOK).users(volume)
    database = _database_of(target.record)
    serving = next((u for u in users if u.state == "running" and database.serves(u, volume)), None)
    if serving is None:
        return None
    try:
        return {d.name: d for d in database.count(engine, database.server(engine, serving))}
    except SafeComposeError as fault:
        prompts.say(f"safe-compose: the rows could not be counted: {fault.message}")
        return None
