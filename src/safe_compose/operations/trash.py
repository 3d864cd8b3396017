"""The trash: the content of deleted volumes, on the engine's own disk.

Content is moved in and out by renaming. Each item is a volume of safe-compose whose labels say what
it holds, and that a lock protects against every prune. It costs no copy and no time, and is lost
with the disk: a backup is more. (`catalogue.trash` is about forgotten backups that leave the
store.)
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import TRASH_LABEL, Volume
from safe_compose.core.plan import TRASH_DAYS
from safe_compose.core.quantities import count
from safe_compose.core.short_id import find_matching, name_first
from safe_compose.core.text import drop_subject, shell_quote
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, Refused, SafeComposeError, StateChanged, UsageError
from safe_compose.operations.transaction import begin, locking
from safe_compose.store.journal import Journal, Run
from safe_compose.store.steps import Trashed, Trashing
from safe_compose.system.process import is_id, read_clock, stamp
from safe_compose.ui import terminal
from safe_compose.volumes import rename
from safe_compose.volumes.engine_location import EngineLocation

if TYPE_CHECKING:
    from safe_compose.workspace import Workspace

LIFETIME = timedelta(days=TRASH_DAYS)
"""How long an item is kept before `trash empty --expired` takes it; nothing else ever does."""
_SETTLED = timedelta(hours=1)
_PREFIX = "safe-compose-trash-"
_OF = f"{TRASH_LABEL}.of"
_RECORD = f"{TRASH_LABEL}.record"


@dataclass(frozen=True, slots=True)
class TrashItem:
    """An item of the trash: the content of one deleted volume."""

    volume: str
    """The name of the trash volume that holds the content now."""
    run: str
    """The id of the run that moved it there."""
    created: str
    """The time at which it was moved there: UTC, RFC 3339."""
    project: str
    record: VolumeRecord = field(repr=False)
    """How to create the deleted volume again; without artifacts."""
    facts: str = ""
    """A hash of what its labels say."""

    @property
    def id(self) -> str:
        """The id for people: `20261124T091329Z-f1b47a-1`."""
        return self.volume.removeprefix(_PREFIX)

    @property
    def expires(self) -> str:
        """The time from which the item counts as expired: UTC, RFC 3339."""
        return stamp(_parse_moment(self.created) + LIFETIME)

    def has_expired(self, now: datetime) -> bool:
        """Return whether the item has expired by now."""
        return now >= _parse_moment(self.created) + LIFETIME


def list_items(engine: Engine) -> list[TrashItem]:
    """Return all items in the trash of an engine, the newest first."""
    found = [_read_item(volume) for volume in engine.docker.list_labelled(TRASH_LABEL)]
    return sorted(found, key=lambda item: (item.created, item.id), reverse=True)


@dataclass(frozen=True, slots=True)
class Trash:
    """The trash of an engine, whose items the journal of a store tells from look-alikes."""

    engine: Engine
    journal: Journal

    def list_of_run(self, run_id: str) -> dict[str, TrashItem]:
        """Return the deleted volume's name -> its item, for all that one run moved to the trash."""
        return {
            item.record.name: item
            for item in list_items(self.engine)
            if item.run == run_id and self.is_own(item)
        }

    def is_own(self, item: TrashItem) -> bool:
        """Return whether this store's journal recorded the item, with this volume and these facts.

        Anybody can label a volume so that it looks like an item: to have it deleted, or to have it
        put into somebody else's volume.
        """
        run = self.journal.find(item.run) if is_id(item.run) else None
        steps = run.events if run is not None else ()
        made = [
            s
            for s in steps
            if isinstance(s, Trashing | Trashed)
            and s.trash == item.volume
            and s.volume == item.record.name
        ]
        return any(isinstance(s, Trashed) or s.facts in (None, item.facts) for s in made)

    def require_own(self, some: Sequence[TrashItem]) -> None:
        """Check that this store made all of the items.

        Raises:
            Refused: It did not make one of them (exit code 77).
        """
        if strange := [item.volume for item in some if not self.is_own(item)]:
            raise Refused(
                f"this store's journal knows nothing of {', '.join(strange)}, which only labels"
                " call an item of the trash; nothing was changed",
                next_step=(
                    "with the store that made it, if there is one; to look at its labels: docker"
                    f" volume inspect {shell_quote(strange[0])}"
                ),
            )

    def find(self, words: Sequence[str]) -> list[TrashItem]:
        """Return the items with these ids or short ids, beginnings of them, or volumes' names.

        Raises:
            UsageError: A word means no item, or several.
        """
        there = list_items(self.engine)
        found = []
        for word in words:
            meant = find_matching(word, there, lambda item: item.id)
            if [item.id for item in meant] != [word]:  # a label cannot hide an item by its whole id
                meant += [item for item in there if word and item.record.name == word]
            matching = list({item.volume: item for item in meant}.values())
            if len(matching) != 1:
                what = (
                    f"{word!r} means {len(matching)} items"
                    if matching
                    else f"there is no item {word!r}"
                )
                which = f": {name_first([item.id for item in matching])}" if matching else ""
                raise UsageError(
                    f"{what} of the trash on {self.engine.endpoint}{which}; nothing was changed",
                    next_step="safe-compose trash list",
                )
            found.append(matching[0])
        return list({item.volume: item for item in found}.values())

    def make_backup(self, some: Sequence[TrashItem]) -> Backup:
        """Return items of one project as a backup without files and folder, for a restore."""
        newest = max(some, key=lambda item: item.created)
        records = tuple(item.record for item in some)
        return Backup(
            newest.id,
            0,
            newest.created,
            newest.project,
            self.engine.endpoint,
            self.engine.id,
            "trash",
            (),
            "",
            records,
        )


# -- into the trash and back -----------------------------------------------------------------------


class TrashedVolumes:
    """A list of the volumes that one run moved to the trash.

    They can be moved back as long as docker has not deleted them.
    """

    def __init__(self, engine: Engine, run: Run) -> None:
        """Start with an empty list."""
        self._engine = engine
        self._run = run
        self._begun: dict[str, str] = {}
        self._empty: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the volumes."""
        return tuple(self._begun)

    def move_in(self, volume: Volume, record: VolumeRecord, project: str) -> None:
        """Move a volume's content to the trash and leave an empty folder in its place.

        Afterwards the item is locked, journaled and on disk. `settle` must be called in every case.

        Raises:
            rename.CannotMove: It cannot be moved; the content was not touched.
            StateChanged: Somebody uses the volume.
            OperationFailed: The move was interrupted.
        """
        trash = f"{_PREFIX}{self._run.id}-{len(self._begun) + 1}"
        self._begun[volume.name] = trash
        labels = _make_labels(self._run.id, record, project, stamp(read_clock()))
        # First, because a volume that the journal does not know belongs to nobody and would stay.
        self._run.step("trashing", volume=volume.name, trash=trash, facts=_hash(labels[_RECORD]))
        self._engine.docker.create_volume(trash, labels=labels)
        if not self._engine.locks.lock(trash):
            raise rename.CannotMove(
                f"volume {volume.name}: our own program cannot run here, to hold the trash against"
                " a prune"
            )
        rename.move_out(
            EngineLocation(self._engine, volume.name),
            trash,
            lambda: rename.require_unused(EngineLocation(self._engine, volume.name)),
        )
        now = self._engine.docker.volume(volume.name)
        self._empty[volume.name] = now.created_at if now is not None else ""
        self._run.step("trashed", volume=volume.name, trash=trash, empty=self._empty[volume.name])

    def settle(self, *, docker_ran: bool) -> bool:
        """Move the content of every volume that still exists back, before anything may start on it.

        What docker deleted, or deleted and recreated, stays in the trash. No fault is raised.

        Returns:
            False when some content could not be moved back, which is reported.
        """
        complete = True
        for name, trash in self._begun.items():
            try:
                now = self._engine.docker.volume(name)
                if now is None or (docker_ran and now.created_at != self._empty.get(name)):
                    continue
                # An unwritable journal must not keep content in the trash.
                with terminal.reporting_only():
                    self._run.step("untrashing", volume=name, trash=trash)
                move_back_all(EngineLocation(self._engine, name), trash)
                with terminal.reporting_only():
                    self._run.step("untrashed", volume=name, trash=trash)
            except SafeComposeError as fault:
                complete = False
                why = drop_subject(fault.message, f"volume {name}")
                terminal.say(
                    f"safe-compose: volume {name}: {why}; its content is in the trash:"
                    " safe-compose trash list"
                )
        return complete


def move_back_all(location: EngineLocation, trash: str) -> None:
    """Move a trashed item's content back into its empty volume, and remove the trash volume.

    Docker cannot delete the volume meanwhile.

    Raises:
        rename.CannotMove: It cannot be moved; nothing was touched.
        StateChanged: Somebody uses the volume.
        OperationFailed: The move was interrupted.
    """
    move_back(location, trash)
    discard(EngineLocation(location.engine, trash))


def move_back(location: EngineLocation, trash: str) -> None:
    """Move a trashed item's content back into its volume.

    The emptied trash volume is kept so that this can be reverted.

    Raises:
        rename.CannotMove: It cannot be moved; nothing was touched.
        StateChanged: Somebody uses the volume.
        OperationFailed: The move was interrupted.
    """
    with location.engine.helpers.holding(location.name):
        rename.move_back(
            location,
            trash,
            lambda: rename.require_unused(location),
        )


def take_from_trash(location: EngineLocation, trash: str) -> None:
    """Revert `move_back`: move the volume's content into the trash volume again."""
    rename.move_out(
        location,
        trash,
        lambda: rename.require_unused(location),
    )


def discard(trash: EngineLocation) -> None:
    """Remove an empty trash volume.

    Raises:
        OperationFailed: It is not empty.
    """
    if trash.engine.archives.list_root(trash.name) != []:
        raise OperationFailed(f"volume {trash.name} is not empty; it stays in the trash")
    trash.engine.locks.unlock(trash.name)
    trash.engine.docker.remove_volume(trash.name)


def recreate_locks(workspace: "Workspace") -> None:
    """Recreate the missing locks of items.

    Each is recreated under the lock of its project, because somebody may be about to restore the
    item.
    """
    trash = Trash(workspace.engine, workspace.journal)
    for item in list_items(workspace.engine):
        holder = workspace.engine.locks.find(item.volume)
        fresh = (
            read_clock() - _parse_moment(item.created) < _SETTLED
            and workspace.journal.find(item.run) is None
        )
        if (holder is not None and holder.state == "running") or fresh or not trash.is_own(item):
            # A fresh item may be under way in another store's run, whose locks are not ours.
            continue
        words = ("safe-compose", "recover")
        workspace.catalogue.folder.ensure()
        with (
            suppress(StateChanged),
            workspace.catalogue.folder.lock(
                workspace.engine.id, item.project, wait=0, command=words
            ),
        ):
            if workspace.engine.docker.volume(item.volume) is not None:
                workspace.engine.locks.lock(item.volume)
                terminal.say(f"safe-compose: item {item.id} of the trash is held again")


def empty(workspace: "Workspace", going: Sequence[TrashItem], *, wait: float) -> None:
    """Delete items for good, and journal it.

    Raises:
        StateChanged: Another safe-compose works on one of their projects.
        OperationFailed: An item cannot be deleted.
        Refused: This store did not make one of them.
    """
    engine = workspace.engine
    Trash(engine, workspace.journal).require_own(going)
    with locking(workspace, {item.project for item in going}, ("trash", "empty"), wait=wait):
        run = begin(workspace, ("trash", "empty"))
        done = 0
        try:
            for item in going:
                engine.locks.unlock(item.volume)
                engine.docker.remove_volume(item.volume)
                run.step("emptied", trash=item.volume, volume=item.record.name)
                done += 1
        finally:
            run.step("ended", outcome=f"deleted {done} of {len(going)} items of the trash")
    terminal.say(f"safe-compose: deleted {count(done, 'item')} of the trash for good")


# -- labels ----------------------------------------------------------------------------------------


def _make_labels(run_id: str, record: VolumeRecord, project: str, created: str) -> dict[str, str]:
    facts = {
        "created": created,
        "project": project,
        "labels": dict(record.labels),
        "created_at": record.created_at,
        "tier": record.tier,
        "kind": record.data_kind,
        "users": [dict(user) for user in record.users],
    }
    return {TRASH_LABEL: run_id, _OF: record.name, _RECORD: json.dumps(facts, sort_keys=True)}


def _read_item(volume: Volume) -> TrashItem:
    """Return the item that a trash volume's labels describe.

    If they cannot be read, the item has the name alone: the content is there all the same.
    """
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
    project = str(facts.get("project") or "volumes")
    return TrashItem(
        volume.name,
        volume.labels[TRASH_LABEL],
        created,
        project,
        record,
        _hash(volume.labels.get(_RECORD, "")),
    )


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _parse_moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        found = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC)
        _ = found + LIFETIME
    except (ValueError, OverflowError):
        return datetime.now(UTC)  # an item without a valid time never expires
    return found
