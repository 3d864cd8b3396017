"""The volumes that a command may delete, given one observation of the engine.

This module is pure.

Errors go one way: a volume that may be deleted is never left out, unless the engine is certain to
refuse because a container that this command leaves alone references it (docker-facts, section 0).
Each command documents where it counts too widely. `stops` errs the other way: it has only what the
command itself is certain to stop or remove (design, promise 10).
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

from safe_compose.core.compose_down import is_one_off, is_orphan, is_removed_by_down
from safe_compose.core.observed import (
    CONFIG_HASH_LABEL,
    HELPER_LABEL,
    LOCK_LABEL,
    TRASH_LABEL,
    Container,
    Observed,
    Volume,
    looks_anonymous,
)
from safe_compose.core.prune import list_prunable, passes_filters, read_filters
from safe_compose.grammar.parser import Invocation
from safe_compose.grammar.tables import LOCK


@dataclass(frozen=True, slots=True)
class Threat:
    """The effects of a command."""

    kind: str
    volumes: tuple[Volume, ...]
    """The volumes that may be deleted, by name."""
    spared: tuple[tuple[str, str], ...] = ()
    """(name, why) of volumes that seem to be deleted but are not."""
    stops: tuple[Container, ...] = ()
    """The containers that the command itself will stop or remove, stopped ones included."""
    warnings: tuple[str, ...] = ()
    unlocks: tuple[tuple[str, str], ...] = ()
    """(volume, container) of each deletion lock that is removed, so that docker would delete the
    volume again."""


def find_threat(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `invocation` on the engine as `observed`."""
    handler = _HANDLERS.get(invocation.kind)
    found = handler(invocation, observed) if handler else Threat(invocation.kind, ())
    return (
        replace(found, unlocks=_find_unlocked(invocation, observed))
        if invocation.removes
        else found
    )


# -- compose ---------------------------------------------------------------------------------------


def _compose_down(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `compose down -v`: declared and labelled volumes, and anonymous ones.

    The anonymous volumes are those of the removed containers. Wider than the truth: in config mode
    volumes that have the project's label but are not in the file (renamed, of an inactive profile,
    unused) count although compose leaves them; in label mode every volume with the label counts
    although of several with one key only one is deleted; with services named, every volume counts
    that no remaining container uses; a container of another project protects nothing, because
    compose takes its time and that container may be gone by then. docker-compose 1.x takes what the
    file declares, used or not, and ignores labels of volumes.
    """
    project = observed.project
    if project is None:
        return Threat(invocation.kind, ())
    theirs = [c for c in observed.containers if project.owns(c)]
    surely = tuple(
        c
        for c in theirs
        if c.project == project.name
        and is_removed_by_down(c, invocation, project, theirs, doubt=False)
    )
    maybe = {c.id for c in theirs if is_removed_by_down(c, invocation, project, theirs, doubt=True)}
    declared = {v.name for v in project.volumes if not v.external}
    external = {v.name for v in project.volumes if v.external}
    spared: dict[str, str] = {}
    if project.mode == "config":
        # The label of an external volume counts in label mode only (run: 2.26.1).
        spared = {v.name: "external" for v in observed.volumes if v.name in external - declared}
    labelled = (
        set() if project.old else {v.name for v in observed.volumes if v.project == project.name}
    )
    names = (declared | labelled) - set(spared)
    for container in theirs:
        if container.id in maybe and not is_orphan(container, project):
            names |= _find_removed_with(container, spared)
    return _sift(
        invocation.kind,
        observed,
        names,
        spared,
        goes=lambda c: c.id in maybe or not project.owns(c),
        stops=surely,
    )


def _compose_rm(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `compose rm -v`: anonymous volumes of stopped service containers.

    With -s those of all named containers. Wider than the truth: one-off containers count, which
    only docker-compose 1.x removes.
    """
    project = observed.project
    if project is None:
        return Threat(invocation.kind, ())
    stopping = invocation.is_set("stop")
    going = [
        c
        for c in observed.containers
        if project.owns(c)
        and (not invocation.operands or c.service in invocation.operands)
        and (stopping or not c.lively)
    ]
    spared: dict[str, str] = {}
    names = {name for c in going for name in _find_removed_with(c, spared)}
    ids = {c.id for c in going}
    surely = (c for c in going if c.project == project.name)
    stops = tuple(
        c for c in surely if (c.service in project.services if project.old else not is_one_off(c))
    )
    return _sift(invocation.kind, observed, names, spared, goes=lambda c: c.id in ids, stops=stops)


def _compose_renew(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `compose up -V`.

    It deletes nothing; the old anonymous volumes stay and are unused.
    """
    return Threat(
        invocation.kind, (), warnings=_warn_of_dangling(invocation, observed, observed.containers)
    )


def _warn_of_dangling(
    invocation: Invocation, observed: Observed, containers: Sequence[Container]
) -> tuple[str, ...]:
    """Return a warning about anonymous volumes of these containers that new ones will not get."""
    project = observed.project
    dangling = sorted(
        {
            f"{mount.name} ({container.name}:{mount.destination})"
            for container in containers
            if project is not None and container.project == project.name
            if not invocation.operands or container.service in invocation.operands
            for mount in container.mounts
            if mount.type == "volume"
            and mount.name
            and _is_anonymous(mount.name, mount.declared, observed)
        }
    )
    if not dangling:
        return ()
    words = "new containers get empty anonymous volumes; the old ones stay but nothing uses them"
    return (f"{words}: {', '.join(dangling)}",)


def _compose_recreate(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `compose up -y`, or with `y` on a pipe.

    A declared volume whose definition changed is deleted and recreated, empty.

    Compose compares a hash that it left on the volume (2.32 and newer; volumes without it are
    spared). The containers of all services that mount it are removed first; their anonymous volumes
    stay, but are not inherited (docker/compose 2.40.3 `removeDivergedVolume`, 5.5.0
    `planRecreateVolumes`). Wider than the truth: also volumes of services that are not named.
    """
    project = observed.project
    renewed = invocation.is_set("renew-anon-volumes")
    quiet = _warn_of_dangling(invocation, observed, observed.containers) if renewed else ()
    if project is None or not project.recreates:
        return Threat(invocation.kind, (), warnings=quiet)
    hashes: dict[str, set[str | None]] = {}
    for declared in project.volumes:
        if not declared.external:
            hashes.setdefault(declared.name, set()).add(declared.config_hash)
    names = {
        v.name
        for v in observed.volumes
        if v.labels.get(CONFIG_HASH_LABEL)
        and hashes.get(v.name, {v.labels[CONFIG_HASH_LABEL]}) != {v.labels[CONFIG_HASH_LABEL]}
    }
    users = tuple(
        c for c in observed.containers if c.project == project.name and c.volume_names() & names
    )
    ids = {c.id for c in users}
    stops = tuple(c for c in users if not is_one_off(c))
    made = _sift(invocation.kind, observed, names, {}, goes=lambda c: c.id in ids, stops=stops)
    return replace(
        made, warnings=made.warnings + (quiet or _warn_of_dangling(invocation, observed, stops))
    )


# -- volumes and prunes ----------------------------------------------------------------------------


def _volume_rm(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `volume rm`.

    It deletes exactly these names, external or not, of any driver; no prefixes, no ids.
    """
    names = {v.name for v in observed.volumes} & set(invocation.operands)
    return _sift(invocation.kind, observed, names, {}, goes=lambda _: False, stops=())


def _volume_prune(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `volume prune`: see `list_prunable`.

    A volume counts as unused when no container at all references it.
    """
    names = {v.name for v in list_prunable(invocation, observed)}
    return _sift(invocation.kind, observed, names, {}, goes=lambda _: False, stops=(), quiet=True)


def _system_prune(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `system prune --volumes`.

    Stopped containers that pass the filters are removed first, so that their volumes are unused
    then.
    """
    going = {
        c.id
        for c in observed.containers
        if not c.lively and passes_filters(read_filters(invocation), c.labels)
    }
    names = {v.name for v in list_prunable(invocation, observed, all_is_images=True)}
    return _sift(
        invocation.kind, observed, names, {}, goes=lambda c: c.id in going, stops=(), quiet=True
    )


# -- containers ------------------------------------------------------------------------------------


def _container_rm(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `rm -v`: the anonymous volumes of these containers.

    Running containers are removed only with --force.
    """
    force = invocation.is_set("force")
    spared: dict[str, str] = {}
    going = []
    for container in match_containers(invocation.operands, observed):
        if force or not container.lively:
            going.append(container)
        else:
            for name in _find_removed_with(container, {}):
                spared[name] = (
                    f"container {container.name} is {container.state}: docker refuses without"
                    " --force"
                )
    names = {name for c in going for name in _find_removed_with(c, spared)}
    ids = {c.id for c in going}
    return _sift(
        invocation.kind, observed, names, spared, goes=lambda c: c.id in ids, stops=tuple(going)
    )


def _autoremove(invocation: Invocation, observed: Observed) -> Threat:
    """Return the effects of `stop`, `kill`, `rm -f` on --rm containers.

    Such a container removes itself when it ends, with its anonymous volumes.

    Wider than the truth: `kill` with a signal that the program survives counts too, but does not
    count as stopping it. `rm -f` without -v left them in two of two runs; it races with the daemon
    (docker-facts, section 1). `compose kill` and `compose down --remove-orphans` end the one-off
    containers of `compose run --rm` (run with 2.40.3).
    """
    project = observed.project
    if invocation.verb[:1] == ("compose",):
        named = invocation.operands
        theirs = (
            c
            for c in observed.containers
            if project is not None and project.owns(c) and is_one_off(c)
        )
        meant = tuple(c for c in theirs if not named or c.service in named)
    else:
        meant = match_containers(invocation.operands, observed)
    leaving = [c for c in meant if c.auto_remove]
    spared: dict[str, str] = {}
    names = {name for c in leaving for name in _find_removed_with(c, spared)}
    ids = {c.id for c in leaving}
    signal = (invocation.flag("signal") or "").upper().removeprefix("SIG")
    ends = invocation.verb[-1:] != ("kill",) or signal in (
        "",
        "KILL",
        "9",
        "TERM",
        "15",
        "INT",
        "2",
        "QUIT",
        "3",
    )
    return _sift(
        invocation.kind,
        observed,
        names,
        spared,
        goes=lambda c: c.id in ids,
        stops=meant if ends else (),
    )


def _swarm(invocation: Invocation, _observed: Observed) -> Threat:
    """Return the effects of swarm removals: anonymous volumes of task containers, never named ones.

    They are deleted on whichever node the tasks run.
    """
    words = "task containers that go take their anonymous volumes with them; named volumes stay"
    return Threat(invocation.kind, (), warnings=(words,))


def match_containers(operands: Sequence[str], observed: Observed) -> tuple[Container, ...]:
    """Return the containers with one of these words as id, name, or prefix of the id."""
    wanted = [word.removeprefix("/") for word in operands]
    return tuple(
        c
        for c in observed.containers
        if any(c.name == w or (w and c.id.startswith(w)) for w in wanted)
    )


def _find_unlocked(invocation: Invocation, observed: Observed) -> tuple[tuple[str, str], ...]:
    """Return the deletion locks that a removal of containers removes.

    They are named, or match a prefix of the id or a prune's filters. A lock that was stopped,
    killed, paused, renamed or set not to restart still keeps docker from deleting its volume, so
    only a removal ends it. Wider than the truth: filters of a prune other than labels are not
    applied, and any container with the label of a lock on a volume that it mounts counts as one.
    """
    if invocation.verb == ("container", "rm"):
        force = invocation.is_set("force")
        meant = () if invocation.is_set("link") else match_containers(invocation.operands, observed)
        going = [c for c in meant if force or not c.lively]
    else:
        going = [
            c
            for c in observed.containers
            if not c.lively and passes_filters(read_filters(invocation), c.labels)
        ]
    held = ((c.labels[LOCK_LABEL], c) for c in going if LOCK_LABEL in c.labels)
    return tuple(
        sorted(
            (name, c.name)
            for name, c in held
            if name in c.volume_names() and observed.volume(name) is not None
        )
    )


# -- shared ----------------------------------------------------------------------------------------


def _find_removed_with(container: Container, spared: dict[str, str]) -> set[str]:
    """Return the volumes that `DELETE /containers/ID?v=1` deletes: mounted, but not declared.

    One that another container shares survives if that one mounts it by its name. So does an
    anonymous one inherited at a recreation, which is put into `spared`.
    """
    names = set()
    for mount in container.mounts:
        if mount.type == "volume" and mount.name:
            if mount.shared and not looks_anonymous(mount.name):
                continue
            if not mount.declared:
                names.add(mount.name)
            elif looks_anonymous(mount.name):
                spared.setdefault(
                    mount.name,
                    f"anonymous, but {container.name} mounts it by name: it stays, unused",
                )
    return names


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
    """Keep the volumes of `names` that exist and that docker would delete.

    docker refuses volumes in use, also with --force.

    `goes` tells which containers the command may remove; a running one of our deletion locks is
    never among them. A user that may be gone at any moment (`--rm`, or one of our helpers) protects
    nothing, except the anonymous volumes of a --rm container: those are deleted with it, whatever
    this command does. With `quiet`, volumes in use are not reported (a prune considers every volume
    of the engine).
    """
    spared = dict(spared)
    doomed = []
    locked = []
    for volume in sorted(observed.volumes, key=lambda v: v.name):
        if volume.name not in names:
            continue
        lock = observed.lock(volume.name)
        if lock is not None and (lock.state == "running" or not goes(lock)):
            spared[volume.name] = "locked against deletion: docker refuses"
            locked += [] if quiet else [_of_lock(volume)]
            continue
        holders = [
            c
            for c in observed.users(volume.name)
            if not goes(c) and not _may_vanish(c, volume.name)
        ]
        if not holders:
            doomed.append(volume)
            spared.pop(volume.name, None)
        elif not quiet:
            held = ", ".join(sorted(c.name for c in holders))
            spared[volume.name] = (
                f"in use by {held}, which this command leaves alone: docker refuses"
            )
    existing = {v.name for v in observed.volumes}
    listed = tuple((name, why) for name, why in sorted(spared.items()) if name in existing)
    return Threat(kind, tuple(doomed), listed, stops, tuple(locked))


def _of_lock(volume: Volume) -> str:
    """Return a warning that docker will refuse because of a lock, and the remedy.

    docker's own message does not say why that container exists.
    """
    if TRASH_LABEL in volume.labels:
        return (
            f"volume {volume.name} is in the trash, so docker refuses; to look at it: safe-compose"
            " trash list"
        )
    return (
        f"volume {volume.name} is locked against deletion, so docker refuses; to let it go:"
        f" safe-compose unprotect {volume.name}"
    )


def _may_vanish(container: Container, volume: str) -> bool:
    if HELPER_LABEL in container.labels or container.state in ("removing", "dead"):
        return True
    return container.auto_remove and any(m.name == volume and m.declared for m in container.mounts)


_HANDLERS: dict[str, Callable[[Invocation, Observed], Threat]] = {
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
    LOCK: lambda invocation, _observed: Threat(invocation.kind, ()),
}
