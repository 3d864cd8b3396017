"""Which volumes a command may delete, given one look at the engine. Pure.

The error goes one way: a volume that may die is never left out, unless the engine itself is certain to refuse it because a
container that this command leaves alone references it (docker-facts, section 0). What is counted too widely is said at each
door. `stops` errs the other way: only what the command itself is certain to stop or remove (design, promise 10).
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from safe_compose.grammar import Invocation
from safe_compose.observed import (
    ANONYMOUS_LABEL,
    CONFIG_HASH_LABEL,
    HELPER_LABEL,
    ONEOFF_LABEL,
    TRASH_LABEL,
    Container,
    Observed,
    Project,
    Volume,
)


@dataclass(frozen=True, slots=True)
class Threat:
    """What a command threatens."""

    kind: str
    volumes: tuple[Volume, ...]
    """That may die, by name."""
    spared: tuple[tuple[str, str], ...] = ()
    """(name, why) of volumes that one could think would die."""
    stops: tuple[Container, ...] = ()
    """What the command itself will stop or remove; stopped containers included."""
    warnings: tuple[str, ...] = ()


def threatened(invocation: Invocation, observed: Observed) -> Threat:
    """Return what `invocation` threatens on the engine as `observed`."""
    door = _DOORS.get(invocation.kind)
    return door(invocation, observed) if door else Threat(invocation.kind, ())


# -- compose ---------------------------------------------------------------------------------------------------------


def _compose_down(invocation: Invocation, observed: Observed) -> Threat:
    """`compose down -v`: declared, labelled, and anonymous volumes of the containers that go.

    Wider than the truth: in config mode volumes that carry the project's label but are not in the file (renamed, of an
    inactive profile, unused) count although compose leaves them; in label mode every volume with the label counts although
    of several with one key only one dies; with services named, every volume counts that no container left alone holds; a
    container of somebody else protects nothing, because compose takes its time and that one may be gone by then.
    docker-compose 1.x takes what the file declares, used or not, and looks at no label of a volume.
    """
    project = observed.project
    if project is None:
        return Threat(invocation.kind, ())
    theirs = [c for c in observed.containers if project.owns(c)]
    surely = tuple(c for c in theirs if c.project == project.name and _is_removed(c, invocation, project, theirs, doubt=False))
    maybe = {c.id for c in theirs if _is_removed(c, invocation, project, theirs, doubt=True)}
    declared = {v.name for v in project.volumes if not v.external}
    external = {v.name for v in project.volumes if v.external}
    spared: dict[str, str] = {}
    if project.mode == "config":
        # The label of an external volume counts in label mode only (run: 2.26.1)
        spared = {v.name: "external" for v in observed.volumes if v.name in external - declared}
    labelled = set() if project.old else {v.name for v in observed.volumes if v.project == project.name}
    names = (declared | labelled) - set(spared)
    for container in theirs:
        if container.id in maybe and not _is_orphan(container, project):
            names |= _dying_with(container, spared)
    return _sift(
        invocation.kind,
        observed,
        names,
        spared,
        goes=lambda c: c.id in maybe or not project.owns(c),
        stops=surely,
    )


def _is_removed(
    container: Container, invocation: Invocation, project: Project, theirs: Sequence[Container], *, doubt: bool
) -> bool:
    """Whether `compose down` removes this container of the project (run with 2.26.1 and 2.40.3).

    Exactly the services named, else all services that are active (config mode) or have a container (label mode). One-offs
    and orphans go only with --remove-orphans; containers of inactive profiles are no orphans. `doubt` is the answer where
    it cannot be told.
    """
    service = container.service or ""
    if project.old:  # 1.29.2 (compose/project.py `down`), run: one-offs go as well, but not those of orphans
        return service in project.services or (invocation.is_set("remove-orphans") and not _is_oneoff(container))
    orphans_too = invocation.is_set("remove-orphans") or (project.removes_orphans and invocation.flag("remove-orphans") is None)
    if _is_oneoff(container) and not orphans_too:
        return False
    named = set(invocation.operands)
    if project.mode == "label":
        known = {c.service for c in theirs if not _is_oneoff(c)}
        if not named:
            return True
        if not named & known:
            # 2.26.1 takes a list of unknown names for all services, 2.30 does nothing (docker-facts, section 1)
            return doubt
        return service in named or (doubt and orphans_too)
    if _is_orphan(container, project):
        if service in project.disabled:
            return service in named
        return orphans_too
    return not named or service in named or (doubt and _is_oneoff(container))


def _is_orphan(container: Container, project: Project) -> bool:
    return project.mode == "config" and (container.service or "") not in project.services


def _is_oneoff(container: Container) -> bool:
    return container.labels.get(ONEOFF_LABEL, "").lower() == "true"


def _compose_rm(invocation: Invocation, observed: Observed) -> Threat:
    """`compose rm -v`: anonymous volumes of stopped service containers; with -s of all that the words name.

    Wider than the truth: one-off containers count, which only docker-compose 1.x removes.
    """
    project = observed.project
    if project is None:
        return Threat(invocation.kind, ())
    stopping = invocation.is_set("stop")
    going = [
        c
        for c in observed.containers
        if project.owns(c) and (not invocation.operands or c.service in invocation.operands) and (stopping or not c.lively)
    ]
    spared: dict[str, str] = {}
    names = {name for c in going for name in _dying_with(c, spared)}
    ids = {c.id for c in going}
    surely = (c for c in going if c.project == project.name)
    stops = tuple(c for c in surely if (c.service in project.services if project.old else not _is_oneoff(c)))
    return _sift(invocation.kind, observed, names, spared, goes=lambda c: c.id in ids, stops=stops)


def _compose_renew(invocation: Invocation, observed: Observed) -> Threat:
    """`compose up -V`: deletes nothing; the old anonymous volumes stay and nobody uses them any more."""
    return Threat(invocation.kind, (), warnings=_left_dangling(invocation, observed, observed.containers))


def _left_dangling(invocation: Invocation, observed: Observed, containers: Sequence[Container]) -> tuple[str, ...]:
    """One line about the anonymous volumes of these containers that new ones will not get."""
    project = observed.project
    dangling = sorted(
        {
            f"{mount.name} ({container.name}:{mount.destination})"
            for container in containers
            if project is not None and container.project == project.name
            if not invocation.operands or container.service in invocation.operands
            for mount in container.mounts
            if mount.type == "volume" and mount.name and _is_anonymous(mount.name, mount.declared, observed)
        }
    )
    if not dangling:
        return ()
    words = "new containers get empty anonymous volumes; the old ones stay but nothing uses them"
    return (f"{words}: {', '.join(dangling)}",)


def _compose_recreate(invocation: Invocation, observed: Observed) -> Threat:
    """`compose up -y`, or with `y` on a pipe: a declared volume whose definition changed is deleted and made anew, empty.

    Compose compares a hash that it left on the volume (2.32 and newer; volumes without it are spared). The containers of all
    services that mount it are removed first; their anonymous volumes stay, but are not inherited (docker/compose 2.40.3
    `removeDivergedVolume`, 5.5.0 `planRecreateVolumes`).
    Wider than the truth: also volumes of services that the words do not name.
    """
    project = observed.project
    renewed = invocation.is_set("renew-anon-volumes")
    quiet = _left_dangling(invocation, observed, observed.containers) if renewed else ()
    if project is None or not project.recreates:
        return Threat(invocation.kind, (), warnings=quiet)
    hashes: dict[str, set[str | None]] = {}
    for declared in project.volumes:
        if not declared.external:
            hashes.setdefault(declared.name, set()).add(declared.config_hash)
    names = {
        v.name
        for v in observed.volumes
        if v.labels.get(CONFIG_HASH_LABEL) and hashes.get(v.name, {v.labels[CONFIG_HASH_LABEL]}) != {v.labels[CONFIG_HASH_LABEL]}
    }
    users = tuple(c for c in observed.containers if c.project == project.name and c.volume_names() & names)
    ids = {c.id for c in users}
    stops = tuple(c for c in users if not _is_oneoff(c))
    made = _sift(invocation.kind, observed, names, {}, goes=lambda c: c.id in ids, stops=stops)
    return replace(made, warnings=made.warnings + (quiet or _left_dangling(invocation, observed, stops)))


# -- volumes and prunes ----------------------------------------------------------------------------------------------


def _volume_rm(invocation: Invocation, observed: Observed) -> Threat:
    """`volume rm`: exactly these names, external or not, of any driver; no prefixes, no ids."""
    names = {v.name for v in observed.volumes} & set(invocation.operands)
    return _sift(invocation.kind, observed, names, {}, goes=lambda c: False, stops=())


def _volume_prune(invocation: Invocation, observed: Observed) -> Threat:
    """`volume prune`: see `_prunable`; a volume counts as unused when no container at all references it."""
    names = {v.name for v in _prunable(invocation, observed)}
    return _sift(invocation.kind, observed, names, {}, goes=lambda c: False, stops=(), quiet=True)


def _system_prune(invocation: Invocation, observed: Observed) -> Threat:
    """`system prune --volumes`: stopped containers that pass the filters go first, so their volumes are unused then."""
    going = {c.id for c in observed.containers if not c.lively and _passes(_filters(invocation), c.labels)}
    names = {v.name for v in _prunable(invocation, observed, all_is_images=True)}
    return _sift(invocation.kind, observed, names, {}, goes=lambda c: c.id in going, stops=(), quiet=True)


def _prunable(invocation: Invocation, observed: Observed, *, all_is_images: bool = False) -> list[Volume]:
    """What the engine takes for prunable (docker-facts, traps 7 and 15): local, without driver options, label filters
    passed, and from API 1.42 on anonymous by label unless all are asked for.

    Wider than the truth: label filters in `pruneFilters` of docker's configuration are not applied, because client 20.10
    adds them to a prune and client 28.2 does not (run).
    """
    filters = _filters(invocation)
    takes_all = (
        observed.prune_takes_named
        or (invocation.is_set("all") and not all_is_images)
        or any(key == "all" and value not in ("0", "false") for key, value in filters)
    )
    return [
        v
        for v in observed.volumes
        if v.driver == "local" and not v.options
        if takes_all or ANONYMOUS_LABEL in v.labels
        if _passes(filters, v.labels)
    ]


def _filters(invocation: Invocation) -> list[tuple[str, str]]:
    """(key, value) of each --filter; `label!=x` has the key `label!`. Keys are compared in lower case, without blanks."""
    pairs = (value.partition("=") for name, value in invocation.flags if name == "filter")
    return [(key.strip().lower(), value.strip()) for key, _, value in pairs]


def _passes(filters: Sequence[tuple[str, str]], labels: Mapping[str, str]) -> bool:
    """moby's matchLabels: every `label` filter must match; `label!` keeps what matches all of its filters."""

    def matches(wanted: str) -> bool:
        key, equals, value = wanted.partition("=")
        return key in labels and (not equals or labels[key] == value)

    without = [value for key, value in filters if key == "label!"]
    return all(matches(value) for key, value in filters if key == "label") and not (without and all(map(matches, without)))


# -- containers ------------------------------------------------------------------------------------------------------


def _container_rm(invocation: Invocation, observed: Observed) -> Threat:
    """`rm -v`: anonymous volumes of these containers; running ones go only with --force."""
    force = invocation.is_set("force")
    spared: dict[str, str] = {}
    going = []
    for container in _meant(invocation.operands, observed):
        if force or not container.lively:
            going.append(container)
        else:
            for name in _dying_with(container, {}):
                spared[name] = f"container {container.name} is {container.state}: docker refuses without --force"
    names = {name for c in going for name in _dying_with(c, spared)}
    ids = {c.id for c in going}
    return _sift(invocation.kind, observed, names, spared, goes=lambda c: c.id in ids, stops=tuple(going))


def _autoremove(invocation: Invocation, observed: Observed) -> Threat:
    """`stop`, `kill`, `rm -f`: a --rm container removes itself when it ends, and its anonymous volumes with it.

    Wider than the truth: `kill` with a signal that the program survives counts too, but does not count as stopping it.
    `rm -f` without -v left them in two of two runs; it races with the daemon (docker-facts, section 1).
    `compose kill` and `compose down --remove-orphans` end the one-off containers of `compose run --rm` (run with 2.40.3).
    """
    project = observed.project
    if invocation.verb[:1] == ("compose",):
        named = invocation.operands
        theirs = (c for c in observed.containers if project is not None and project.owns(c) and _is_oneoff(c))
        meant = tuple(c for c in theirs if not named or c.service in named)
    else:
        meant = _meant(invocation.operands, observed)
    leaving = [c for c in meant if c.auto_remove]
    spared: dict[str, str] = {}
    names = {name for c in leaving for name in _dying_with(c, spared)}
    ids = {c.id for c in leaving}
    signal = (invocation.flag("signal") or "").upper().removeprefix("SIG")
    ends = invocation.verb[-1:] != ("kill",) or signal in ("", "KILL", "9", "TERM", "15", "INT", "2", "QUIT", "3")
    return _sift(invocation.kind, observed, names, spared, goes=lambda c: c.id in ids, stops=meant if ends else ())


def _swarm(invocation: Invocation, observed: Observed) -> Threat:
    """Swarm removals: anonymous volumes of task containers, on whichever node they run; named ones never."""
    words = "task containers that go take their anonymous volumes with them; named volumes stay"
    return Threat(invocation.kind, (), warnings=(words,))


def _meant(operands: Sequence[str], observed: Observed) -> tuple[Container, ...]:
    """Containers that these words name: full id, name, or the beginning of an id."""
    wanted = [word.removeprefix("/") for word in operands]
    return tuple(c for c in observed.containers if any(c.name == w or (w and c.id.startswith(w)) for w in wanted))


# -- shared ----------------------------------------------------------------------------------------------------------


def _dying_with(container: Container, spared: dict[str, str]) -> set[str]:
    """Volumes that `DELETE /containers/ID?v=1` deletes: mounted, but named nowhere in the container's own words.

    An anonymous one inherited at a recreation is mounted by its name; it survives and is put into `spared`.
    """
    names = set()
    for mount in container.mounts:
        if mount.type == "volume" and mount.name:
            if not mount.declared:
                names.add(mount.name)
            elif _looks_anonymous(mount.name):
                spared.setdefault(mount.name, f"anonymous, but {container.name} mounts it by name: it stays, unused")
    return names


def _looks_anonymous(name: str) -> bool:
    return len(name) == 64 and all(c in "0123456789abcdef" for c in name)


def _is_anonymous(name: str, declared: bool, observed: Observed) -> bool:
    volume = observed.volume(name)
    return not declared or (volume is not None and volume.anonymous)


def _sift(
    kind: str,
    observed: Observed,
    names: Set[str],
    spared: dict[str, str],
    *,
    goes: Callable[[Container], bool],
    stops: tuple[Container, ...],
    quiet: bool = False,
) -> Threat:
    """Keep of `names` what exists and what docker would not refuse as in use, also with --force.

    `goes` tells which containers the command may remove; a deletion lock of ours that runs is never among them. A user that
    may be gone at any moment (`--rm`, or a helper of ours) protects nothing, except the anonymous volumes of a --rm container:
    those go with it, whatever this command does.
    `quiet`: volumes in use are not worth a word (a prune looks at every one of the engine).
    """
    spared = dict(spared)
    dying = []
    locked = []
    for volume in sorted(observed.volumes, key=lambda v: v.name):
        if volume.name not in names:
            continue
        lock = observed.lock(volume.name)
        if lock is not None and (lock.state == "running" or not goes(lock)):
            spared[volume.name] = "locked against deletion: docker refuses"
            locked += [] if quiet else [_of_lock(volume)]
            continue
        holders = [c for c in observed.users(volume.name) if not goes(c) and not _may_vanish(c, volume.name)]
        if not holders:
            dying.append(volume)
            spared.pop(volume.name, None)
        elif not quiet:
            held = ", ".join(sorted(c.name for c in holders))
            spared[volume.name] = f"in use by {held}, which this command leaves alone: docker refuses"
    existing = {v.name for v in observed.volumes}
    told = tuple((name, why) for name, why in sorted(spared.items()) if name in existing)
    return Threat(kind, tuple(dying), told, stops, tuple(locked))


def _of_lock(volume: Volume) -> str:
    """Why docker will refuse, which it says without telling what the container is for; and what to do about it."""
    if TRASH_LABEL in volume.labels:
        return f"volume {volume.name} is in the trash, so docker refuses; to look at it: safe-compose trash list"
    return f"volume {volume.name} is locked against deletion, so docker refuses; to let it go: safe-compose unprotect {volume.name}"


def _may_vanish(container: Container, volume: str) -> bool:
    if HELPER_LABEL in container.labels or container.state in ("removing", "dead"):
        return True
    return container.auto_remove and any(m.name == volume and m.declared for m in container.mounts)


_DOORS: dict[str, Callable[[Invocation, Observed], Threat]] = {
    "compose_down_volumes": _compose_down,
    "compose_rm_anon": _compose_rm,
    "compose_renew_anon": _compose_renew,
    "compose_recreate_changed_volume": _compose_recreate,
    "volume_rm": _volume_rm,
    "volume_prune": _volume_prune,
    "system_prune_volumes": _system_prune,
    "container_rm_anon": _container_rm,
    "autoremove_anon": _autoremove,
    "swarm_task_anon": _swarm,
}
