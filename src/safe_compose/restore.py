"""The way back: `undo` what the last guarded command destroyed, or `restore` a backup; never over data, never half.

look -> show the plan -> read the whole backup -> ask -> lock -> look again -> keep what is there safe -> stop -> empty ->
fill -> start again -> count. A fault or a signal on the way puts back what was there; after a kill `recover` does.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safe_compose import prompts, services, volume_trash
from safe_compose.artifacts import Backup, DatabaseStatistics
from safe_compose.elsewhere import SCRATCH, how_to_look
from safe_compose.elsewhere import elsewhere as places_for
from safe_compose.engine import Engine, connect, declared_mounts
from safe_compose.errors import EngineUnavailable, Refused, SafeComposeError, UsageError
from safe_compose.grammar import parse
from safe_compose.journal import RunRecord
from safe_compose.observed import Observed
from safe_compose.putting_back import Act, acting, database_of_dump
from safe_compose.recover import recover
from safe_compose.targets import Target, Way, agree, look, successor, trusted
from safe_compose.volume_trash import Item
from safe_compose.world import World

_LOOK = parse(["volume", "ls"])


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
    command = services.command_of(world, deletion)
    _, declared = declared_mounts(command, dict(os.environ), deletion.cwd) if command else ("", ())
    way = look(engine, kept, [r for r in kept.volumes if r.name in gone], declared, trash=_held_in(trash))
    prompts.say(f"safe-compose: undo of '{deletion.program} {' '.join(deletion.command)}' ({deletion.started})")
    lost = gone - {r.name for r in kept.volumes}
    thrown = {str(step["volume"]) for step in deletion.steps if step["step"] == "trashed"}
    for why, names in (("not in the backup, because disposable", lost - thrown), ("not in the trash any more", lost & thrown)):
        if names:
            prompts.say(f"safe-compose: {why}: {', '.join(sorted(names))}")
    if dry_run:
        return _only_shown(way)
    agree(world, way, confirm, ask)
    with acting(world, way, ("undo",), undoes=deletion.id) as act:
        act.put_back_all()
        act.settle()
        _move_in(act, deletion)
        started = services.start(world, engine, deletion, way)
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
    trusted(kept)
    if not dry_run:
        recover(world.engine, world.catalogue, world.journal, but=world.run_id)
    project, declared = declared_mounts((world.docker, "compose"), dict(os.environ))
    records = [r for r in kept.volumes if not names or r.name in names]
    away = None
    if into is not None:
        ids: dict[str, Any] = {"backup_id": kept.id, "project": kept.project, "token": world.run_id[-6:]}
        away = places_for(into, records, **ids, here=project, declared=declared)
        records = list(away.records)
    way = look(world.engine, kept, records, declared if away or project == kept.project else (), away, _held_in(trash))
    way = replace(way, strange=kept.engine_id != world.engine.id and not elsewhere)
    if dry_run:
        return _only_shown(way)
    agree(world, way, confirm, ask)
    with acting(world, way, ("trash", "restore", kept.id) if trash else ("restore", kept.id)) as act:
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
    trusted(kept)
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
            next_step=f"safe-compose journal, then {_undo_elsewhere(world)} or safe-compose restore ID",
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


def _undo_elsewhere(world: World) -> str:
    """The command for the newest deletion of all that can be undone."""
    other = world.journal.last_deletion()
    if other is None:
        return "safe-compose undo --project NAME"
    how = f"safe-compose undo --project {other.project}" if other.project else f"safe-compose undo in {other.cwd}"
    return f"{how} (it undoes '{other.program} {' '.join(other.command)}' of {other.started})"


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


# -- anonymous volumes -------------------------------------------------------------------------------------------------


def _move_in(act: Act, deletion: RunRecord) -> None:
    """Content of anonymous volumes, which was put back under the old names that no container asks for any more, goes into
    the new volumes of the same service, replica and path. Their containers are created for that, not started.

    What cannot be moved stays under its old name, and is said.
    """
    waiting = [t for t in act.way.targets if t.record.anonymous and t.now is None and t.into == t.record.name]
    if not waiting:
        return
    wanted = sorted({s for t in waiting for u in t.record.users if (s := u.get("service"))})
    for service in wanted:  # each by itself: one of them may have left the compose file
        services.compose(act.world, deletion, "up", "--no-start", "--no-deps", service)
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
    into = successor(nameless, observed, act.way.kept.project)
    if into is None or any(u.lively for u in observed.users(into)):
        return
    act.fill(target, into, empty_first=True)  # what the image put there a moment ago
    act.homes[target.into] = into
    act.run.step("moved", volume=target.into, into=into)
    act.way.engine.remove_volume(target.into)


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
    database = database_of_dump(target.record)
    serving = next((u for u in users if u.state == "running" and database.serves(u, volume)), None)
    if serving is None:
        return None
    try:
        return {d.name: d for d in database.count(engine, database.server(engine, serving))}
    except SafeComposeError as fault:
        prompts.say(f"safe-compose: the rows could not be counted: {fault.message}")
        return None
