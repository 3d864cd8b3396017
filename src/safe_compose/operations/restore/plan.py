"""The plan of a restore: which volume gets what content, and what it holds now.

The plan is made in one inspection, and a person confirms it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import (
    FOLDER,
    PROJECT_LABEL,
    Container,
    DeclaredMount,
    HostFolder,
    Observed,
    Volume,
)
from safe_compose.core.quantities import count, format_size, format_stamp
from safe_compose.core.redaction import hide_option
from safe_compose.core.relocation import Relocation
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.core.volume_reach import describe_reach_of, drop_own_labels
from safe_compose.databases.registry import find_upgraded_record, may_hold_in_memory
from safe_compose.engine import Engine
from safe_compose.errors import Refused, SafeComposeError
from safe_compose.operations.restore.target import RestoreTarget, find_archive
from safe_compose.system.files import find_real_path
from safe_compose.volumes import survivors
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.folder_swap import FolderState, FolderSwap, inspect_folder
from safe_compose.volumes.inner_mounts import list_inner_mounts

Known = Mapping[str, tuple[str, Mapping[str, str]]]
"""The name of a volume -> its driver and options, as a journal stores them."""


class RecordedVolumes(NamedTuple):
    """A summary of what this store's journal says about a deletion."""

    known: Known
    """The volumes as they were."""
    parts: frozenset[str]
    """Those of which docker may have left a part."""


_TYPED = re.compile(r"[\w.-]+", re.ASCII)
"""A project name that nobody types by accident; an empty one would be confirmed by Enter."""
_FEW = 3
"""Most mounts in a folder that are named."""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """A plan for a restore, after one inspection."""

    engine: Engine
    backup: Backup
    observed: Observed
    targets: tuple[RestoreTarget, ...]
    declared: tuple[DeclaredMount, ...] = ()
    """The mounts of the current services in the compose file."""
    relocation: Relocation | None = None
    """The new location of the volumes; None when they are restored to their own place."""
    recorded: RecordedVolumes | None = None
    """What this store's journal says about the deletion that is undone."""
    trash: Mapping[str, str] = field(default_factory=dict)
    """The name of a deleted volume -> the trash volume with its content."""
    of_other_engine: bool = False
    """The backup is of another engine and lies in this store.

    Even if docker was only installed again, a person has to confirm it.
    """

    @property
    def occupied(self) -> tuple[RestoreTarget, ...]:
        """The targets whose content would be replaced."""
        return tuple(t for t in self.targets if t.occupied)

    @property
    def projects(self) -> frozenset[str]:
        """The projects that own the data.

        They are locked meanwhile, and only their containers are stopped.
        """
        return frozenset(
            {self.owner, *(p for t in self.targets if (p := t.record.labels.get(PROJECT_LABEL)))}
        )

    @property
    def owner(self) -> str:
        """The project that gets the volumes."""
        return self.relocation.owner if self.relocation is not None else self.backup.project

    @property
    def phrase(self) -> str:
        """The phrase to type before content is replaced.

        It is the project's name, the name of the only volume, or what was named with `--into`.
        """
        if self.relocation is not None:
            return self.relocation.name
        if (
            self.backup.project != "volumes"
            and _TYPED.fullmatch(self.backup.project)
            and not self.unvouched
        ):
            return self.backup.project
        touched = self.occupied or self.targets
        return touched[0].into if len(touched) == 1 else f"replace {len(touched)} volumes"

    @property
    def reaching(self) -> tuple[RestoreTarget, ...]:
        """The targets that are written or mounted outside of the engine's own storage."""
        return tuple(t for t in self.targets if t.reach is not None)

    @property
    def unvouched(self) -> tuple[RestoreTarget, ...]:
        """The targets of other projects, if the backup was fetched without a signature."""
        return (
            tuple(t for t in self.targets if t.other_project)
            if self.backup.unsigned_from is not None
            else ()
        )

    @property
    def needs_phrase(self) -> bool:
        """Whether a person has to type the phrase."""
        return bool(self.occupied or self.reaching or self.unvouched) or self.of_other_engine

    def users(self) -> tuple[Container, ...]:
        """Return the running containers on the volumes that are touched.

        Those of the projects count too that mount, to write, a folder above one that is touched.
        """
        found = {u.id: u for t in self.targets for u in self.observed.users(t.into) if u.lively}
        above = {c.id: c for c in self._list_above() if c.project in self.projects}
        return tuple({**found, **above}.values())

    def _list_above(self) -> list[Container]:
        return [c for t in self.targets for c in self.observed.list_above(t.into)]

    def identity(self) -> frozenset[tuple[str, str, bool, bool, str | None, str]]:
        """Return what must be the same when the plan is made again."""
        return frozenset(
            (t.record.name, t.into, t.current is None, t.occupied, t.reach, t.other_project)
            for t in self.targets
        )

    def shape(self) -> dict[str, Any]:
        """Return the plan for `--json`."""
        volumes = [
            {"name": t.record.name, "into": t.into, "from": t.source, "action": t.action()}
            for t in self.targets
        ]
        stops = [c.name for c in self.users()]
        lacking = [o.name for o in self.backup.lacking]
        phrase = self.phrase if self.needs_phrase else None
        return {
            "backup": self.backup.id,
            "volumes": volumes,
            "stops": stops,
            "phrase": phrase,
            "lacking": lacking,
        }

    def _describe(self, target: RestoreTarget) -> str:
        """Return what is done to one volume."""
        record, where = target.record, "now" if self.relocation is None else "into"
        size = (
            "renamed, not copied"
            if target.trash
            else format_size(sum(a.bytes for a in record.artifacts))
        )
        name = record.name + (f" ({where} {target.into})" if target.into != record.name else "")
        return f"  {name}: {target.action()} ({size}{_describe_content(record)})"

    def lines(self, *, brief: bool = False) -> Iterator[str]:
        """Yield the plan as lines for people.

        With `brief`, for a plan that nobody is asked about, a volume that is only recreated is left
        out: it is named once it is back.
        """
        if self.backup.path:
            when = "" if brief else f" of {format_stamp(self.backup.created)}"
            level = self.backup.level or "not verified yet"
            yield f"from backup {self.backup.id}{when} ({level}){'' if brief else ':'}"
        else:
            since = format_stamp(self.backup.created)
            yield f"from the trash, where it is since {since}{'' if brief else ':'}"
        if self.backup.engine_id != self.engine.id:
            yield (
                f"  it was made on another engine, {self.backup.endpoint}; this one is"
                f" {self.engine.endpoint}"
            )
        for t in self.targets:
            remarks = tuple(t.remarks(self.backup.id))
            if remarks or not (brief and t.is_only_recreated):
                yield self._describe(t)
                yield from remarks
        for omission in self.backup.lacking:
            yield f"  {omission.name}: NOT in this backup, which is partial ({omission.reason})"
        if self.backup.unsigned_from is not None:
            yield (
                f"  fetched without a signature from {self.backup.unsigned_from}: nobody vouches"
                " for who made it"
            )
        if users := self.users():
            yield f"  will stop meanwhile, then start again: {', '.join(c.name for c in users)}"
        users = self.users()
        if others := {c.name: None for c in self._list_above() if c not in users}:
            yield f"  mount a folder above, and go on: {', '.join(others)}"
        if backed_up := [t.into for t in self.targets if t.backed_up_first]:
            yield (
                "  content that is there now is kept as a safety backup first:"
                f" {', '.join(backed_up)}"
            )


def _describe_content(record: VolumeRecord) -> str:
    counted = record.statistics
    if counted is None:
        return ""
    return f", {count(len(counted.databases), 'database')}, {count(counted.rows, 'row')}"


def make_plan(
    engine: Engine,
    backup: Backup,
    records: Sequence[VolumeRecord],
    declared: tuple[DeclaredMount, ...],
    relocation: Relocation | None = None,
    trash: Mapping[str, str] | None = None,
    recorded: RecordedVolumes | None = None,
) -> RestorePlan:
    """Inspect the engine and return the plan of a restore.

    Args:
        engine: The engine.
        backup: The backup.
        records: The records of the volumes to restore.
        declared: The mounts of the current services in the compose file.
        relocation: The new location of the volumes, unless it is their own place.
        trash: The name of a deleted volume -> the trash volume with its content.
        recorded: What this store's journal says about the deletion that is undone.

    Raises:
        Refused: The current server of a volume could not hold its content, or one folder lies in
            another.
    """
    observed = engine.commands.look_at_folders()
    empty = RestorePlan(engine, backup, observed, (), declared, relocation, recorded, trash or {})
    plan = replace(empty, targets=tuple(_plan_target(empty, record) for record in records))
    _require_apart(plan)
    return plan


def _require_apart(plan: RestorePlan) -> None:
    """Check that no folder to restore lies in another one, with which it would be renamed.

    Raises:
        Refused: One does.
    """
    outers = [t.into for t in plan.targets if t.swap is not None and not t.swap.is_file]
    for inner in (t.into for t in plan.targets):
        outer = next((path for path in outers if inner.startswith(f"{path}/")), None)
        if outer is not None:
            raise Refused(
                f"{inner} lies in {outer}: the two are restored one after the other; nothing was"
                " restored",
                next_step=f"safe-compose restore {plan.backup.id} --volume {shell_quote(outer)},"
                f" then the same for {shell_quote(inner)}",
            )


def _plan_target(plan: RestorePlan, record: VolumeRecord) -> RestoreTarget:
    """Inspect the place of one volume and return what a restore makes of it.

    Args:
        plan: The plan, as far as it is made.
        record: The record of the volume.

    Raises:
        Refused: The current server of the volume could not hold its content.
    """
    engine, backup, observed = plan.engine, plan.backup, plan.observed
    relocation, recorded = plan.relocation, plan.recorded
    into = (
        relocation.new_names[record.name]
        if relocation
        else find_successor(record, observed, backup.project) or record.name
    )
    if into.startswith(FOLDER):
        return _plan_folder(plan, record, into, _resolve_parent(engine, into))
    users = observed.users(into)
    current = engine.docker.volume(into)
    other = None
    if (upgraded := find_upgraded_record(record.data_kind)) is not None:
        other = upgraded(EngineLocation(engine, into), record, users, plan.declared)
    trashed = plan.trash.get(record.name, "") if other is None else ""
    # An empty volume of a server that saves when it stops is not empty any more then.
    has_content = current is not None and (
        engine.archives.list_root(into) != [] or may_hold_in_memory(users, into)
    )
    in_part = recorded is not None and record.name in recorded.parts
    owner = (current.labels if current is not None else record.labels).get(PROJECT_LABEL, "")
    made = other or record
    return RestoreTarget(
        made if relocation else replace(made, labels=drop_own_labels(record.labels)),
        into,
        current,
        has_content,
        trashed,
        None if _is_recorded_so(record, current, recorded) else describe_reach_of(record, current),
        owner if owner != backup.project and relocation is None else "",
        has_content
        and in_part
        and not trashed
        and other is None
        and _is_left_in(engine, backup, record, users),
        other.users[0]["image"] if other is not None else "",
        # A record of an earlier inspection may be without it.
        any(
            find_archive(whole) is not None for whole in backup.volumes if whole.name == record.name
        ),
    )


def _resolve_parent(engine: Engine, path: str) -> str:
    """Return a path of the host with the real path of the folder above, as far as known here.

    A folder above may have become a link since the backup. The containers that use the folder are
    found by its real path.
    """
    if not engine.docker.connection.shares_paths:
        return path
    place = PurePosixPath(path)
    return str(PurePosixPath(find_real_path(str(place.parent)), place.name))


def _plan_folder(plan: RestorePlan, record: VolumeRecord, named: str, into: str) -> RestoreTarget:
    """Inspect the place of a folder of the host and return what a restore makes of it.

    Args:
        plan: The plan, as far as it is made.
        record: The record of the folder.
        named: The path as the backup, or `--into`, names it.
        into: Its real path.

    Raises:
        Refused: Something else than such a folder or file is there.
        StateChanged: The folder above is not there.
        OperationFailed: Nobody can look there.
    """
    engine, users = plan.engine, plan.observed.users(into)
    folder, is_file = EngineLocation(engine, into), record.location == "file"
    state = inspect_folder(folder)
    _require_fitting(engine, into, state, is_file=is_file)
    if state in (FolderState.FOLDER, FolderState.MOUNT):
        _require_no_inner_mounts(folder)
    other = None
    if (upgraded := find_upgraded_record(record.data_kind)) is not None:
        other = upgraded(folder, record, users, plan.declared)
    there = state is not FolderState.MISSING
    token = engine.run_id[-6:]
    has_content = there and (
        state is FolderState.FILE
        or engine.archives.list_root(into) != []
        or may_hold_in_memory(users, into)
    )
    # Whoever wrote an unsigned backup chose the path, and everything on the host is in reach.
    known = plan.backup.unsigned_from is None and plan.relocation is None
    mounted = known and (bool(users) or any(m.volume in (into, named) for m in plan.declared))
    owner = next((u.project for u in users if u.project), "")
    return RestoreTarget(
        other or record,
        into,
        HostFolder(into, labels={PROJECT_LABEL: owner} if owner else {}, is_file=is_file)
        if there
        else None,
        has_content,
        reach=None if mounted else f"a {record.location} of the engine's host",
        other_project=owner
        if owner not in ("", plan.backup.project) and plan.relocation is None
        else "",
        server=other.users[0]["image"] if other is not None else "",
        archived=any(
            find_archive(whole) is not None
            for whole in plan.backup.volumes
            if whole.name == record.name
        ),
        swap=None if state is FolderState.MOUNT else FolderSwap.of(folder, token, is_file=is_file),
    )


def _require_fitting(engine: Engine, into: str, state: FolderState, *, is_file: bool) -> None:
    """Check that what is at a path can be replaced.

    For a file that is missing docker makes an empty folder, which may be replaced.

    Raises:
        Refused: Something else is there.
    """
    if state in (FolderState.MISSING, FolderState.FILE if is_file else FolderState.FOLDER):
        return
    if state is FolderState.MOUNT and not is_file:
        return
    if state is FolderState.FOLDER and engine.archives.list_root(into) == []:
        return
    what = {
        FolderState.FILE: "a file",
        FolderState.FOLDER: "a folder with content",
        FolderState.MOUNT: "a mount point",
    }.get(state, "a link or the like")
    raise Refused(
        f"{into} is {what} now, and no {'file' if is_file else 'folder'} is put in its place;"
        " nothing was restored",
        next_step="move it away first, or restore into a volume for a look: --into scratch",
    )


def _require_no_inner_mounts(folder: EngineLocation) -> None:
    """Check that nothing is mounted in a folder that is replaced.

    It would go away with the old content, and services would write to the disk below it.

    Raises:
        Refused: Something is.
    """
    if not (mounts := list_inner_mounts(folder)):
        return
    names = ", ".join(mounts[:_FEW]) + (f" and {len(mounts) - _FEW} more" * (len(mounts) > _FEW))
    raise Refused(
        f"in {folder.name} something is mounted: {names}; it would be moved away with what is there"
        " now, so nothing was restored",
        next_step=f"unmount it first: umount {join_for_shell(mounts[:_FEW])}; or restore into a"
        " volume for a look: --into scratch",
    )


def _is_left_in(
    engine: Engine, backup: Backup, record: VolumeRecord, users: Sequence[Container]
) -> bool:
    """Return whether a volume holds nothing but what docker left of it.

    Then what is missing can be added. Otherwise, and if that cannot be determined, all of it is
    replaced as usual, after confirmation.
    """
    if find_archive(record) is None or any(user.lively for user in users):
        return False
    try:
        return survivors.is_part_of_archive(
            EngineLocation(engine, record.name), Path(backup.path), record.artifacts
        )
    except SafeComposeError:
        return False


def _is_recorded_so(
    record: VolumeRecord, now: Volume | None, recorded: RecordedVolumes | None
) -> bool:
    """Return whether this store's journal saw the volume with this driver and these options.

    The journal holds no secrets; for them, only their position is compared.
    """
    before = recorded.known.get(record.name) if recorded is not None else None
    if before is None:
        return False
    options = now.options if now is not None else record.options
    driver = now.driver if now is not None else record.driver
    return before == (
        driver,
        {name: f"{name}={hide_option(name, value)}" for name, value in options.items()},
    )


def find_successor(record: VolumeRecord, observed: Observed, project: str) -> str | None:
    """Return the volume that is now mounted where an anonymous one was; None when there is none.

    It is mounted in the container of the same name (service and replica) at the same path.
    """
    if not record.anonymous or observed.volume(record.name) is not None:
        return None
    places = {(u.get("container"), u.get("destination")) for u in record.users}
    for container in observed.containers:
        for mount in container.mounts:
            here = container.project == project and (container.name, mount.destination) in places
            if here and mount.type == "volume" and mount.name:
                return mount.name
    return None
