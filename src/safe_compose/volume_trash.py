"""The road of the trash: what a volume held is kept on the engine's own disk, out of docker's way and back by renaming.

Each item is a volume of ours that says in its labels what it holds, and that a lock holds against every prune. It costs no
copy and no time, and dies with the disk: a backup is more. (How a forgotten backup leaves the store is `catalogue.outgoing`.)
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from safe_compose import prompts
from safe_compose.artifacts import Backup, VolumeRecord
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, LookAgain, SafeComposeError, UsageError
from safe_compose.journal import Journal, Run, RunRecord
from safe_compose.methods import rename
from safe_compose.observed import TRASH_LABEL, Volume
from safe_compose.plan import TRASH_DAYS
from safe_compose.process import Process, stamp, utc_now, with_environment

if TYPE_CHECKING:
    from safe_compose.world import World

KEPT = timedelta(days=TRASH_DAYS)
"""How long an item is held before `trash empty --expired` takes it. Nothing else takes it then either."""
_SETTLED = timedelta(hours=1)
_PREFIX = "safe-compose-trash-"
_OF = f"{TRASH_LABEL}.of"
_RECORD = f"{TRASH_LABEL}.record"


@dataclass(frozen=True, slots=True)
class Item:
    """What one deleted volume held."""

    volume: str
    """The volume of ours that holds it now."""
    run: str
    """The run that moved it there."""
    created: str
    """UTC, RFC 3339."""
    project: str
    record: VolumeRecord = field(repr=False)
    """How to make the deleted volume again; without artifacts."""

    @property
    def id(self) -> str:
        """For people: `20261124T091329Z-f1b47a-1`."""
        return self.volume.removeprefix(_PREFIX)

    @property
    def expires(self) -> str:
        return stamp(_moment(self.created) + KEPT)

    def has_expired(self, now: datetime) -> bool:
        return now >= _moment(self.created) + KEPT


def items(engine: Engine) -> list[Item]:
    """Everything in the trash of an engine, the newest first."""
    found = [_item(volume) for volume in engine.labelled(TRASH_LABEL)]
    return sorted(found, key=lambda item: (item.created, item.id), reverse=True)


def of_run(engine: Engine, run_id: str) -> dict[str, Item]:
    """What one run moved there, by the name that the volume had."""
    return {item.record.name: item for item in items(engine) if item.run == run_id}


def find(engine: Engine, words: Sequence[str]) -> list[Item]:
    """The items with these ids, or unique beginnings of them. Raises UsageError."""
    there = items(engine)
    found = []
    for word in words:
        matching = [i for i in there if i.id == word] or [i for i in there if i.id.startswith(word) or i.record.name == word]
        if len(matching) != 1 or not word:
            what = f"{word!r} means {len(matching)} items" if matching else f"there is no item {word!r}"
            raise UsageError(f"{what} of the trash on {engine.endpoint}; nothing was changed", next_step="safe-compose trash list")
        found.append(matching[0])
    return list({item.volume: item for item in found}.values())


def as_backup(engine: Engine, some: Sequence[Item]) -> Backup:
    """Items of one project in the shape that the way back takes: without files, so without a folder."""
    newest = max(some, key=lambda item: item.created)
    records = tuple(item.record for item in some)
    return Backup(
        newest.id, 0, newest.created, newest.project, engine.endpoint, engine.id, "trash", (), "", records
    )  # fmt: skip


# -- out ---------------------------------------------------------------------------------------------------------------


class Thrown:
    """What one run moves into the trash, and the way back while docker has not deleted the volume."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self._engine = engine
        self._run = run
        self._begun: dict[str, str] = {}
        self._empty: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._begun)

    def throw(self, volume: Volume, record: VolumeRecord, project: str) -> None:
        """Move a volume's content into the trash; an empty folder takes its place. Locked, journaled and on disk afterwards.

        Raises rename.CannotMove, LookAgain when somebody uses the volume, BackupFailed. `settle` is due in every case.
        """
        trash = f"{_PREFIX}{self._run.id}-{len(self._begun) + 1}"
        self._begun[volume.name] = trash
        self._engine.create_volume(trash, labels=_labels(self._run.id, record, project, stamp(utc_now())))
        if not self._engine.lock_volume(trash):
            raise rename.CannotMove(f"volume {volume.name}: no local image can run, to hold the trash against a prune")
        self._run.step("trashing", volume=volume.name, trash=trash)
        rename.out(self._engine, volume.name, trash, lambda: rename.nobody_runs_on(self._engine, volume.name))
        now = self._engine.volume(volume.name)
        self._empty[volume.name] = now.created_at if now is not None else ""
        self._run.step("trashed", volume=volume.name, trash=trash, empty=self._empty[volume.name])

    def settle(self, *, docker_ran: bool) -> bool:
        """Put back the content of every volume that is still there, before anything may start on it.

        What docker deleted, or deleted and made anew, stays in the trash. No fault is raised; False when some content could
        not be put back, which is said.
        """
        whole = True
        for name, trash in self._begun.items():
            try:
                now = self._engine.volume(name)
                if now is None or (docker_ran and now.created_at != self._empty.get(name)):
                    continue
                with prompts.only_said():  # a journal that cannot be written keeps nobody's content away
                    self._run.step("untrashing", volume=name, trash=trash)
                back(self._engine, name, trash)
                with prompts.only_said():
                    self._run.step("untrashed", volume=name, trash=trash)
            except SafeComposeError as fault:
                whole = False
                prompts.say(f"safe-compose: volume {name}: {fault.message}; its content is in the trash: safe-compose trash list")
        return whole


def back(engine: Engine, volume: str, trash: str) -> None:
    """Content of the trash into a volume that exists and is empty; the trash's own volume then goes.

    Meanwhile docker deletes the volume for nobody. Raises rename.CannotMove, LookAgain, BackupFailed.
    """
    put_back(engine, volume, trash)
    discard(engine, trash)


def put_back(engine: Engine, volume: str, trash: str) -> None:
    """The same, and the trash's volume stays, empty, so that it can be taken back."""
    image = next((i.id for i in engine.images()), None)
    if image is None:
        raise rename.CannotMove(f"volume {volume}: there is no local image at all")
    with engine.held(volume, image):
        rename.back(engine, volume, trash, lambda: rename.nobody_runs_on(engine, volume))


def take_out(engine: Engine, volume: str, trash: str) -> None:
    """Undo `put_back`."""
    rename.out(engine, volume, trash, lambda: rename.nobody_runs_on(engine, volume))


def discard(engine: Engine, trash: str) -> None:
    """Remove a volume of the trash that is empty. Raises BackupFailed when it is not."""
    if engine.list_root(trash) != []:
        raise BackupFailed(f"volume {trash} is not empty; it stays in the trash")
    engine.unlock_volume(trash)
    engine.remove_volume(trash)


def hold(world: "World") -> None:
    """Put back the locks that items have lost. Under the lock of their project: somebody may be about to take one out."""
    for item in items(world.engine):
        holder = world.engine.lock_of(item.volume)
        fresh = utc_now() - _moment(item.created) < _SETTLED and world.journal.find(item.run) is None
        if (holder is not None and holder.state == "running") or fresh:
            continue  # a fresh one of another store's run may just be on its way, and that one's locks are none of ours
        words = ("safe-compose", "recover")
        world.catalogue.ensure()
        with suppress(LookAgain), world.catalogue.lock(world.engine.id, item.project, wait=0, command=words):
            if world.engine.volume(item.volume) is not None:
                world.engine.lock_volume(item.volume)
                prompts.say(f"safe-compose: item {item.id} of the trash is held again")


def empty(world: "World", going: Sequence[Item], *, wait: float) -> None:
    """Delete items for good, and journal it. Raises LookAgain while another safe-compose is about one of their projects, and
    BackupFailed."""
    engine = world.engine
    world.catalogue.ensure()
    with ExitStack() as locks:
        for project in sorted({item.project for item in going}):
            locks.enter_context(world.catalogue.lock(engine.id, project, wait=wait, command=("safe-compose", "trash", "empty")))
        run = world.journal.begin(
            world.run_id, command=("trash", "empty"), program="safe-compose", endpoint=engine.endpoint, engine_id=engine.id
        )
        done = 0
        try:
            for item in going:
                engine.unlock_volume(item.volume)
                engine.remove_volume(item.volume)
                run.step("emptied", trash=item.volume, volume=item.record.name)
                done += 1
        finally:
            run.step("ended", outcome=f"deleted {done} of {len(going)} items of the trash")
    prompts.say(f"safe-compose: deleted {done} items of the trash for good")


# -- after a crash -----------------------------------------------------------------------------------------------------


def recover(engine: Engine, journal: Journal, run: RunRecord) -> tuple[list[str], bool]:
    """Finish the renames of a run that died: what docker did not delete goes back, what was half put back goes out again.

    Returns what was done, in words, and whether that was all; when not, the run stays open, and its containers stopped.
    """
    told: list[str] = []
    whole = True
    for item in (i for i in items(engine) if i.run == run.id):
        try:
            words = _recover_out(engine, run, item)
        except rename.CannotMove as fault:
            words = f"volume {item.record.name}: {fault.message}; its content is in the trash: safe-compose trash restore {item.id}"
        except SafeComposeError as fault:
            words, whole = f"volume {item.record.name}: {fault.message}; its content is in the trash", False
        told += [words] if words else []
        whole = whole and not words.startswith("docker")
    for volume, trash in _half_back(run).items():
        if engine.volume(trash) is None:
            continue
        try:
            if run.restored:
                discard(engine, trash)
                continue
            if engine.volume(volume) is not None:
                take_out(engine, volume, trash)
            told.append(f"volume {volume}: its content is in the trash again")
            journal.reopen(run.id).step("taken-out", volume=volume, trash=trash)
        except rename.CannotMove as fault:
            told.append(f"volume {volume}: {fault.message}")
        except SafeComposeError as fault:
            whole = False
            told.append(f"volume {volume}: {fault.message}")
    return told, whole


def _recover_out(engine: Engine, run: RunRecord, item: Item) -> str:
    name = item.record.name
    now = engine.volume(name)
    if now is None:
        return ""  # docker deleted it: `undo` knows where its content is
    running, ran, docker = run.last("running"), run.last("ran"), run.last("docker")
    going_back = any(s["step"] == "untrashing" and s["volume"] == name for s in run.steps)
    if running is not None and not going_back and (ran is None or name not in ran.get("survived", ())):
        if ran is not None:
            return ""  # made anew under the same name
        if not _has_ended(run, Process.read(docker["process"]) if docker is not None else None):
            return f"docker may still be deleting volume {name}; its content is in the trash: safe-compose trash list"
        empty = next((s.get("empty") for s in run.steps if s["step"] == "trashed" and s["volume"] == name), None)
        if now.created_at != empty:
            return f"volume {name} was made anew, or written, meanwhile; what was in it is in the trash: safe-compose undo"
    back(engine, name, item.volume)
    return f"volume {name} has its content again, from the trash"


def _has_ended(run: RunRecord, docker: Process | None) -> bool:
    """Whether the docker of a dead run has certainly ended. Should it have died between docker's start and the step that names
    it, docker has our mark: the process id of who started it (`shim.guarded_environment`)."""
    if docker is not None:
        return docker.is_dead()
    if run.process is None:
        return False
    if run.process.boot != Process.current().boot:
        return True
    return with_environment(f"SAFE_COMPOSE_GUARDED={run.process.pid}".encode()) == []


def _half_back(run: RunRecord) -> dict[str, str]:
    """Volume -> trash, of what an `undo` or `restore` began to put back from there and did not take back itself."""
    begun = {str(s["volume"]): str(s["trash"]) for s in run.steps if s["step"] == "putting-back" and s.get("trash")}
    done = {str(s["volume"]) for s in run.steps if s["step"] in ("rolled-back", "taken-out")}
    return {volume: trash for volume, trash in begun.items() if volume not in done}


# -- labels ------------------------------------------------------------------------------------------------------------


def _labels(run_id: str, record: VolumeRecord, project: str, created: str) -> dict[str, str]:
    facts = {
        "created": created, "project": project, "labels": dict(record.labels), "created_at": record.created_at,
        "tier": record.tier, "kind": record.data_kind, "users": [dict(user) for user in record.users],
    }  # fmt: skip
    return {TRASH_LABEL: run_id, _OF: record.name, _RECORD: json.dumps(facts, sort_keys=True)}


def _item(volume: Volume) -> Item:
    """What the labels tell; where they do not read, the name alone: the content is there all the same."""
    try:
        facts: Mapping[str, Any] = json.loads(volume.labels.get(_RECORD, "{}"))
        users = tuple({str(k): str(v) for k, v in user.items()} for user in facts.get("users", ()))
        labels = {str(k): str(v) for k, v in facts.get("labels", {}).items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        facts, users, labels = {}, (), {}
    record = VolumeRecord(
        name=volume.labels.get(_OF, volume.name),
        driver="local",
        options={},
        labels=labels,
        created_at=str(facts.get("created_at", "")),
        tier=str(facts.get("tier", "critical")),
        data_kind=str(facts.get("kind", "unknown")),
        anonymous=False,
        method="trash",
        users=users,
    )
    created = str(facts.get("created") or volume.created_at)
    return Item(volume.name, volume.labels[TRASH_LABEL], created, str(facts.get("project") or "volumes"), record)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC)  # what cannot be told never expires
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
