"""Which volume gets what content on the way back, and what stands there now: one look, the plan of it, and a person's consent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safe_compose import prompts, proof
from safe_compose.artifacts import HIDDEN, Artifact, Backup, VolumeRecord
from safe_compose.elsewhere import Elsewhere
from safe_compose.engine import Engine
from safe_compose.errors import LookAgain, Refused, VerifyFailed
from safe_compose.grammar import parse
from safe_compose.methods import postgres, stream
from safe_compose.observed import PROJECT_LABEL, Container, DeclaredMount, Observed, Volume
from safe_compose.plan import size_text
from safe_compose.world import World

_LOOK = parse(["volume", "ls"])


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
        if archive_of(self.record) is not None:
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


def archive_of(record: VolumeRecord) -> Artifact | None:
    return next((a for a in record.artifacts if a.kind == "archive"), None)


# -- look, read, ask ---------------------------------------------------------------------------------------------------


def look(
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
        into = away.places[record.name] if away else successor(record, observed, kept.project) or record.name
        now = engine.volume(into)
        other = None
        if record.data_kind == "postgres":
            other = postgres.moved(engine, record, into, observed.users(into), declared)
        server = other.users[0]["image"] if other is not None else ""
        held = (trash or {}).get(record.name, "") if other is None else ""
        targets.append(Target(other or record, into, now, now is not None and engine.list_root(into) != [], held, server))
    return Way(engine, kept, observed, tuple(targets), declared, away, trash or {})


def successor(record: VolumeRecord, observed: Observed, project: str) -> str | None:
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


def agree(world: World, way: Way, confirm: str | None, ask: bool) -> None:
    """Show the plan, refuse what cannot work, read the backup to its end, then ask for the phrase where one is needed."""
    for line in way.lines():
        prompts.say(f"safe-compose: {line}")
    possible(way)
    _read_whole(world, way)
    if way.asks:
        _consent(way, confirm, ask)


def possible(way: Way) -> None:
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


def trusted(kept: Backup) -> None:
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
    trusted(way.kept)
    folder = Path(way.kept.path)
    with prompts.progress(f"verify {way.kept.id}") as report:
        for target in copied:
            try:
                if (locked := stream.locked(folder, target.record)) is not None:
                    raise locked
                proof.check_before_use(way.kept, target.record, report)
            except VerifyFailed as fault:
                world.catalogue.mark_broken(way.kept, fault.message)
                raise VerifyFailed(f"{fault.message}; nothing was touched", next_step=fault.next_step) from fault


def _consent(way: Way, confirm: str | None, ask: bool) -> None:
    names = ", ".join(t.into for t in way.occupied)
    what = f"the content of {names} would be replaced" if names else f"backup {way.kept.id} was made on another engine"
    question = f"To replace the content of {names}" if names else "To restore it to this engine"
    prompts.ask_phrase(question, way.phrase, confirm, ask=ask, nothing="nothing was restored", why=what)
