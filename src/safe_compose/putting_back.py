"""Content put back into volumes: kept safe before, stopped, emptied, filled, started again; from any point of it all can be
as it was."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safe_compose import backup, prompts, volume_trash
from safe_compose.artifacts import Backup, VolumeRecord
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, Interrupted, LookAgain, SafeComposeError
from safe_compose.grammar import parse
from safe_compose.halted import Halted, undisturbed
from safe_compose.journal import Run
from safe_compose.methods import archive, database_of, sqlite, stream
from safe_compose.methods.database import Database
from safe_compose.plan import size_text
from safe_compose.policy import Tier, Verdict
from safe_compose.recover import Begun, beating, take_back
from safe_compose.targets import Target, Way, archive_of, look, possible
from safe_compose.world import World

LOCK_SECONDS = 60.0
_LOOK = parse(["volume", "ls"])


@contextmanager
def acting(world: World, way: Way, command: tuple[str, ...], *, undoes: str | None = None) -> Iterator["Act"]:
    """Hold the projects' locks, keep safe what is there, stop what runs on it; in the block it is put back.

    Whatever ends the block but success puts back what was there. In every case what was stopped is started again.
    """
    world.catalogue.ensure()
    with ExitStack() as locks:
        for project in sorted(way.projects):
            lock = world.catalogue.lock(way.engine.id, project, wait=LOCK_SECONDS, command=("safe-compose", *command))
            locks.enter_context(lock)
        again = look(way.engine, way.kept, [t.record for t in way.targets], way.declared, way.away, way.trash)
        if again.identity() != way.identity():
            raise LookAgain("the volumes changed between the plan and now; nothing was restored", next_step="run it again")
        possible(again)
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
        self._halted = Halted(way.engine, run)

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
        where = "is back" if self.way.away is None else f"is in {target.into} now"
        told = f" {where}, from its {source} ({size})" if source in ("archive", "physical copy", "dump") else f": {source}"
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
        tar = archive_of(record)
        if tar is not None:
            with prompts.progress(f"restore {into}", total=tar.uncompressed_bytes) as report:
                archive.extract(engine, folder, record.artifacts, into, images, beating(self.run, into, report))
            if count := sqlite.put_copies(engine, folder, record.artifacts, into, images):
                prompts.say(f"safe-compose: {into}: {count} SQLite databases are the consistent copies, not the archive's")
        else:
            size = sum(a.uncompressed_bytes for a in record.artifacts if a.kind in ("database", "base"))
            with prompts.progress(f"restore {into} from its {target.source}", total=size) as report:
                database_of_dump(record).rebuild(engine, folder, _at_hand(engine, record), into, beating(self.run, into, report))
        archive.sync(engine, into, images)
        return "archive" if tar is not None else target.source

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
        with undisturbed():
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
        told = beating(self.run, target.into, stream.nothing)
        take_back(self.way.engine, self.world.catalogue, self._begun(target), self._images(target.record), told)
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


def database_of_dump(record: VolumeRecord) -> Database:
    """How the kind of database that was dumped is handled. Raises BackupFailed where there is no dump."""
    if record.statistics is None:
        raise BackupFailed(f"volume {record.name}: it cannot be made again from a dump: it has none")
    return database_of(record.statistics.kind)
