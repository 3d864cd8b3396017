"""The road of `safe-compose doctor`: which ways to docker pass by here (proved by trying), and what else is not in order.

Findings that need a person stand under `attention`; the exit code is then 1, else 0.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from safe_compose import __version__, config, grammar, lock, predecessors, retention, rotate, shim, volume_trash
from safe_compose.catalogue import Catalogue
from safe_compose.engine import Engine, Files, connect
from safe_compose.errors import SafeComposeError
from safe_compose.journal import Journal
from safe_compose.methods import DATABASES
from safe_compose.observed import Observed
from safe_compose.plan import size_text
from safe_compose.policy import Rule, Tier
from safe_compose.process import new_id, utc_now
from safe_compose.timetable import Timetable
from safe_compose.ways import install, tries
from safe_compose.world import World, enter

ROOM = 1 << 30
"""Bytes: with less than that in the store it is time to make room."""
OLD = timedelta(days=7)
"""Without a newer verified backup it is time to make one."""
SIZES_SECONDS = 10.0
"""The engine walks every volume that it has to tell the size of one."""
NAMELESS = 64
"""Volumes without a name that are looked into, the newest."""
LOGIN_SECONDS = 15.0
"""How long one trial login may take."""


def examine(on_each: Callable[[], object] = lambda: None, *, look: bool = True) -> dict[str, Any]:
    """Everything that doctor tells, as its JSON shape; `on_each` is called after every way that was tried.

    Without `look` the ways alone: no daemon and no store.
    """
    attention: list[str] = []
    found: dict[str, Any] = {"safe-compose": __version__, **_ways(attention, on_each)}
    if look:
        found["docker"] = _docker(attention)
        if "fault" not in found["docker"]:
            found["project"] = _project(attention)
        found["store"], found["backups"] = _store(attention)
    return {**found, "attention": list(dict.fromkeys(attention))}


# -- ways --------------------------------------------------------------------------------------------------------------


def _ways(attention: list[str], on_each: Callable[[], object]) -> dict[str, Any]:
    places = install.Places.here()
    known = install.recorded(places)
    installed = [kind for kind in install.KINDS if any(change.way == kind for change in known)]
    tried = tries.try_all(os.environ, on_each)
    if not any(t.verdict == "caught" for t in tried):
        attention.append(
            "no way to docker passes by safe-compose: safe-compose shell --install shims --install plugin --install rc"
        )
    missed = [t for t in tried if t.verdict == "missed" and set(t.by) & set(installed)]
    if missed:
        here = " (this shell may be older than the installation: log in again)" if _older(known) else ""
        names = ", ".join(t.way for t in missed)
        attention.append(f"installed, and still missed{here}: {names}")
    for path in _without_interpreter(known):
        attention.append(f"the Python in the first line of {path} has gone: safe-compose shell --install shims --install plugin")
    if os.environ.get("SAFE_COMPOSE") == "off":
        attention.append("SAFE_COMPOSE=off is set here: nothing is guarded")
    return {"installed": installed, "ways": [{**asdict(t), "by": list(t.by)} for t in tried]}


def _older(known: list[install.Change]) -> bool:
    folders = {str(Path(c.path).parent) for c in known if c.way == "shims" and Path(c.path).name == "docker"}
    return bool(folders) and folders.isdisjoint(os.environ.get("PATH", "").split(os.pathsep))


def _without_interpreter(known: list[install.Change]) -> list[str]:
    scripts = [change for change in known if change.text.startswith("#!")]
    return [c.path for c in scripts if not shim.is_program(c.text.partition("\n")[0][2:].partition(" ")[0])]


# -- docker ------------------------------------------------------------------------------------------------------------


def traps(api: tuple[int, int], compose: tuple[int, ...] | None) -> list[str]:
    """What is known to delete more than people expect, in these versions."""
    found = []
    if compose is not None and (2, 2, 3) <= compose < (2, 4):
        found.append(f"compose {_dotted(compose)} deletes `external: true` volumes on `down -v` (docker/compose#9172): upgrade it")
    if compose is not None and (2, 0) <= compose < (2, 29):
        found.append(f"compose {_dotted(compose)}: `down -v SERVICE` deletes volumes of other services too, those that nobody uses")
    if compose is not None and (2, 0) <= compose < (2, 30):
        found.append(f"compose {_dotted(compose)}: `-p PROJECT down -v WRONG-SERVICE` takes down all of the project")
    if api < (1, 42):
        found.append(f"API {_dotted(api)}: `docker volume prune` deletes named volumes too, not only anonymous ones (from 1.42 on)")
    return found


def _docker(attention: list[str]) -> dict[str, Any]:
    try:
        docker = shim.real_docker()
        with connect(docker, (), environ=dict(os.environ), run_id=new_id(utc_now())) as engine:
            client, compose = engine.client_versions()
            facts: dict[str, Any] = {
                "path": docker,
                "client": _dotted(client),
                "compose": _dotted(compose),
                "endpoint": engine.endpoint,
                "remote": engine.remote,
                "api": _dotted(engine.api_version),
                "traps": traps(engine.api_version, compose),
                "trash": _trash(engine, attention),
            }
    except SafeComposeError as fault:
        attention.append(fault.message)
        return {"fault": fault.message}
    attention.extend(trap for trap in facts["traps"] if "upgrade" in trap)
    return facts


def _trash(engine: Engine, attention: list[str]) -> dict[str, Any]:
    """How much is in the trash of the engine."""
    items = volume_trash.items(engine)
    sizes = engine.sizes([item.volume for item in items], timeout=SIZES_SECONDS) if items else {}
    if expired := [item for item in items if item.has_expired(utc_now())]:
        attention.append(f"{len(expired)} items of the trash are older than 30 days: safe-compose trash empty --expired")
    for item in items:
        if (holder := engine.lock_of(item.volume)) is None or holder.state != "running":
            attention.append(f"nothing holds item {item.id} of the trash against a prune: safe-compose recover")
    return {"items": len(items), "bytes": sum(sizes.values()) if len(sizes) == len(items) else None}


def _dotted(version: tuple[int, ...] | None) -> str | None:
    return ".".join(map(str, version)) if version is not None else None


# -- the project -------------------------------------------------------------------------------------------------------


def _project(attention: list[str]) -> dict[str, Any] | None:
    """The project of this folder: its volumes with their backups and locks, databases in anonymous volumes, passwords that
    differ, and volumes that look like what its own once were. None where there is no project."""
    invocation = grammar.parse(["compose", "down", "--volumes"])
    if not Files(invocation, os.environ).files:
        return None
    try:
        world = enter(invocation)
        with closing(world.engine) as engine:
            try:
                observed = engine.look(invocation)
                if observed.project is None:
                    attention.append("compose cannot load the project of this folder: docker compose config --quiet says why")
                    return None
                return {
                    "name": observed.project.name,
                    "volumes": _volumes(world, observed, attention),
                    "passwords": _passwords(engine, invocation, attention),
                    "anonymous_databases": _anonymous(observed, attention),
                    "predecessors": _predecessors(world, observed, attention),
                }
            finally:
                engine.sweep()
    except SafeComposeError as fault:
        attention.append(fault.message)
        return None


def _volumes(world: World, observed: Observed, attention: list[str]) -> list[dict[str, Any]]:
    """Of each volume that matters the newest verified backup, the newest that was restored for trial, and its lock."""
    project = observed.project
    declared = {d.name for d in project.volumes} if project is not None else set()
    there = [v for v in observed.volumes if v.name in declared or (project is not None and v.project == project.name)]
    verified = [b for b in world.catalogue.listed() if b.verified and b.engine_id == world.engine.id]
    locks = lock.states(world, observed)
    found = []
    for verdict in world.judge(there, observed, world.rules(observed)):
        if verdict.tier is Tier.DISPOSABLE:
            continue
        mine = [b for b in verified if verdict.volume in b.volumes]
        newest, drill = next(iter(mine), None), next((b for b in mine if b.level == "L4"), None)
        found.append(
            {
                "name": verdict.volume,
                "tier": verdict.tier.value,
                "backup": {"id": newest.id, "created": newest.created, "level": newest.level} if newest else None,
                "drill": {"id": drill.id, "created": drill.created} if drill else None,
                "lock": locks.get(verdict.volume),
            }
        )
        if newest is None and verdict.tier is Tier.CRITICAL:
            attention.append(f"volume {verdict.volume} is critical and has no verified backup: safe-compose backup")
        elif newest is not None and utc_now() - datetime.fromisoformat(newest.created) > OLD:
            attention.append(f"the newest verified backup of {verdict.volume} is of {newest.created[:10]}: safe-compose backup")
        if locks.get(verdict.volume) == "missing":
            attention.append(f"the lock of {verdict.volume} is missing: safe-compose protect --lock {verdict.volume}")
    return found


def _passwords(engine: Engine, invocation: grammar.Invocation, attention: list[str]) -> list[dict[str, Any]]:
    """Whether the databases that run have the passwords that the files say."""
    found = rotate.drifted(engine, invocation, timeout=LOGIN_SECONDS)
    for one in found:
        if one["agrees"] is False:
            attention.append(
                f"the database of service {one['service']} does not have the password that the project's files say: "
                f"safe-compose rotate-password --sync {one['service']}"
            )
    return found


def _anonymous(observed: Observed, attention: list[str]) -> list[dict[str, Any]]:
    """Databases of the project that lie in volumes without a name: the next `down` leaves them behind, and nobody finds them."""
    found = []
    for container in observed.containers:
        if observed.project is None or not observed.project.owns(container):
            continue
        for mount in container.mounts:
            volume = observed.volume(mount.name) if mount.name else None
            if volume is not None and volume.anonymous and any(d.serves(container, volume.name) for d in DATABASES.values()):
                found.append({"container": container.name, "volume": volume.name, "path": mount.destination})
                others = [m.destination for m in container.mounts if m.name and m.name != volume.name]
                where = f" (its other volumes are mounted at {', '.join(others)}, where this image keeps nothing)" if others else ""
                attention.append(
                    f"{container.name} keeps its database in a volume without a name{where}: back it up (safe-compose backup "
                    f"--volume {volume.name}), then mount a named volume at {mount.destination}"
                )
    return found


def _predecessors(world: World, observed: Observed, attention: list[str]) -> list[dict[str, Any]]:
    """Volumes that look like what the project's own once were, without the disposable ones. Those that only look alike need a
    person while the project's own is missing or smaller."""
    rules = world.rules(observed)
    found_by_name = predecessors.suspects(observed, lambda folder: world.engine.remote or Path(folder).is_dir())
    by_name = {s.volume: s for s in (*found_by_name, *_nameless(world, observed, rules))}
    volumes = [v for v in observed.volumes if v.name in by_name]
    if not volumes:
        return []
    kept = [v.volume for v in world.judge(volumes, observed, rules) if v.tier is not Tier.DISPOSABLE]
    sizes = world.engine.sizes([*kept, *(by_name[name].of for name in kept)], timeout=SIZES_SECONDS)
    found = []
    for name in kept:
        suspect = by_name[name]
        own = sizes.get(suspect.of, 0) if observed.volume(suspect.of) is not None else None
        found.append({**suspect._asdict(), "bytes": sizes.get(name), "of_bytes": own})
        if suspect.sure or own is None or own < sizes.get(name, 0):
            instead = f"{suspect.of} has {size_text(own)}" if own is not None else f"{suspect.of} is not there"
            attention.append(
                f"is data missing? volume {name} ({size_text(sizes.get(name))}) was {suspect.why}; {instead}. Keep it: "
                f"safe-compose backup --volume {name}"
            )
    return found


def _nameless(world: World, observed: Observed, rules: Sequence[Rule]) -> list[predecessors.Suspect]:
    """Volumes without a name and without a container that hold a database of the kind that a volume of the project is for: so
    they are left behind when a mount path changes."""
    declared = {d.name for d in observed.project.volumes} if observed.project is not None else set()
    own = {v.kind: v.volume for v in world.judge([v for v in observed.volumes if v.name in declared], observed, rules)}
    free = [v for v in observed.volumes if v.anonymous and not observed.users(v.name)]
    if not own.keys() & DATABASES.keys() or not free:
        return []
    newest = sorted(free, key=lambda v: v.created_at, reverse=True)[:NAMELESS]
    return [
        predecessors.Suspect(v.volume, own[v.kind], f"left without a name and a container, and holds a {v.kind} database", False)
        for v in world.judge(newest, observed, rules)
        if v.kind in DATABASES and v.kind in own
    ]


# -- the store ---------------------------------------------------------------------------------------------------------


def _store(attention: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Health of the store, and of each volume the newest backup."""
    try:
        settings = config.load(Path.cwd(), dict(os.environ))
        catalogue = Catalogue(settings.store, settings.access)
        facts: dict[str, Any] = {
            "path": str(catalogue.root),
            "configured": settings.store_configured,
            "exists": catalogue.root.exists(),
        }
        if not facts["exists"]:
            return facts, []
        catalogue.ensure()
        unfinished = Journal(settings.store, settings.access).unfinished()
        backups = catalogue.listed()
    except SafeComposeError as fault:
        attention.append(fault.message)
        return {"fault": fault.message}, []
    broken = [b.id for b in backups if b.broken]
    facts |= {"free": catalogue.room().bytes, "bytes": sum(b.bytes for b in backups), "backups": len(backups), "broken": broken}
    facts["unfinished"] = [run.id for run in unfinished]
    timetable = Timetable(settings.store, settings.access)
    facts["schedules"] = [record.project for record in timetable.all()]
    attention += [f"{project}: {trouble}: safe-compose schedule status" for project, trouble in timetable.troubles().items()]
    if facts["free"] < ROOM:
        attention.append(f"the store has {size_text(facts['free'])} left ({catalogue.root})")
    facts["max_size"] = settings.max_size
    if command := retention.over_budget(facts["bytes"], settings.max_size, settings.retention):
        attention.append(f"the backups take {size_text(facts['bytes'])}, more than max_size; see what could go: {command}")
    if broken:
        attention.append(f"{len(broken)} backups do not verify: safe-compose list")
    if unfinished:
        attention.append(f"{len(unfinished)} runs did not end: safe-compose recover")
    newest: dict[str, dict[str, Any]] = {}
    for kept in backups:
        if kept.verified:
            for volume in kept.volumes:
                newest.setdefault(volume, {"volume": volume, "id": kept.id, "created": kept.created, "level": kept.level})
    return facts, list(newest.values())


def as_rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The ways as a table: way, what came of it, what would catch it."""
    return [
        (
            t["way"],
            f"{t['verdict']}{' by ' + t['place'] if t['place'] else ''}",
            t["why"] or t["hint"] or " or ".join(t["by"]) or "nothing can",
        )
        for t in found["ways"]
    ]
