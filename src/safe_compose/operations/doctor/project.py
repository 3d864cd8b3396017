"""The examination of the project in this folder: backups, locks, passwords and missing data."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

from safe_compose.compose.files import Files
from safe_compose.core import backup_set, predecessors
from safe_compose.core.backup_summary import BackupSummary
from safe_compose.core.observed import Observed, describe_location, kind_of_location
from safe_compose.core.policy import Rule, Verdict
from safe_compose.core.quantities import format_size, format_stamp
from safe_compose.core.text import shell_quote
from safe_compose.core.tier import Tier
from safe_compose.databases.registry import DATABASES
from safe_compose.engine import Engine
from safe_compose.errors import SafeComposeError
from safe_compose.grammar import parser
from safe_compose.operations import deletion_lock, folders
from safe_compose.operations.doctor.findings import Findings
from safe_compose.operations.doctor.folders import examine_folders
from safe_compose.operations.doctor.layers import examine_layers, judge_layers, list_layers
from safe_compose.operations.passwords.inspect import list_drifted
from safe_compose.operations.verdicts import judge
from safe_compose.system.process import read_clock
from safe_compose.workspace import Workspace, open_workspace

OLD = timedelta(days=7)
"""The age from which a verified backup should be replaced by a newer one."""

SIZES_SECONDS = 10.0
"""How long the engine may take for sizes: it walks every volume it has to size one."""

NAMELESS = 64
"""How many anonymous volumes are inspected, the newest first."""

LOGIN_SECONDS = 15.0
"""How long one test login may take."""

_NOT_LOADED = (
    "compose cannot load the project of this folder: docker compose config --quiet says why"
)


def examine_project() -> Findings:
    """Examine the project of this folder.

    That is its volumes with their backups and locks, its databases in anonymous volumes, folders
    and layers of containers, passwords that differ, and volumes that look like earlier ones of the
    project. The facts are None when there is no project, or when it cannot be inspected.
    """
    invocation = parser.parse(["compose", "down", "--volumes", "--remove-orphans"])
    if not Files(invocation, os.environ).files:
        return Findings(None)
    found: dict[str, Findings] = {}
    try:
        workspace = open_workspace(invocation)
        with closing(workspace.engine) as engine:
            try:
                observed = engine.commands.look(invocation)
                if observed.project is None:
                    return Findings(None, (_NOT_LOADED,))
                layers = list_layers(engine, observed)
                found["volumes"] = _examine_volumes(workspace, observed, judge_layers(layers))
                found["passwords"] = _examine_passwords(engine, invocation)
                found["anonymous_databases"] = _list_anonymous_databases(observed)
                shared = engine.docker.connection.shares_paths
                known = {
                    one["name"]: one["kind"]
                    for one in found["volumes"].facts
                    if one["location"] == "folder"
                }
                found["folders"] = examine_folders(observed, known, shared=shared)
                found["layer_databases"] = examine_layers(layers)
                found["predecessors"] = _find_predecessors(workspace, observed)
            finally:
                engine.helpers.sweep()
    except SafeComposeError as fault:  # what was found before it counts
        return Findings(None, (*_list_attention(found), fault.message))
    return Findings(
        {"name": observed.project.name, **{name: part.facts for name, part in found.items()}},
        _list_attention(found),
    )


def _list_attention(found: Mapping[str, Findings]) -> tuple[str, ...]:
    return tuple(line for part in found.values() for line in part.attention)


def _examine_volumes(
    workspace: Workspace, observed: Observed, of_layers: Sequence[Verdict]
) -> Findings:
    """Examine each location that matters: newest verified backup, newest test restore, lock.

    Args:
        workspace: The workspace.
        observed: The state of the engine, with the project.
        of_layers: The verdicts about data in layers of containers.
    """
    observed = backup_set.add_idle_mounts(observed)
    verified = [
        b
        for b in workspace.catalogue.reader.list_summaries()
        if b.counts and b.engine_id == workspace.engine.id
    ]
    locks = deletion_lock.read_states(workspace, observed)
    there = backup_set.select_volumes(observed).volumes
    of_host = folders.find_folders(workspace, observed)
    verdicts = [
        *judge(workspace, there, observed, workspace.rules(observed)),
        *(verdict for _, verdict in of_host.data),
        *of_layers,
    ]
    found: list[dict[str, Any]] = []
    attention: list[str] = []
    for verdict in verdicts:
        if verdict.tier is Tier.DISPOSABLE:
            continue
        mine = [b for b in verified if verdict.volume in b.volumes]
        newest, drill = next(iter(mine), None), next((b for b in mine if b.level == "L4"), None)
        lock = locks.get(verdict.volume)
        found.append(
            {
                "name": verdict.volume,
                "location": kind_of_location(verdict.volume),
                "tier": verdict.tier.value,
                "kind": verdict.kind,
                "backup": (
                    {"id": newest.id, "created": newest.created, "level": newest.level}
                    if newest
                    else None
                ),
                "drill": {"id": drill.id, "created": drill.created} if drill else None,
                "lock": lock,
            }
        )
        large = verdict.volume in of_host.too_large
        attention += _list_neglected(verdict, newest, lock, too_large=large)
    return Findings(found, tuple(attention))


def _list_neglected(
    verdict: Verdict, newest: BackupSummary | None, lock: str | None, *, too_large: bool
) -> Iterator[str]:
    """Yield what a person must do for a location: back it up, lock it again."""
    name = verdict.volume
    step = "safe-compose backup"
    if too_large:
        step = "it takes more than backup.max_folder; name it under [folders] in safe-compose.toml"
    if newest is None and verdict.tier is Tier.CRITICAL:
        yield f"{describe_location(name)} is critical and has no verified backup: {step}"
    elif newest is not None and read_clock() - datetime.fromisoformat(newest.created) > OLD:
        yield (f"the newest verified backup of {name} is of {format_stamp(newest.created)}: {step}")
    if lock == "missing":
        yield (f"the lock of {name} is missing: safe-compose protect --lock {shell_quote(name)}")


def _examine_passwords(engine: Engine, invocation: parser.Invocation) -> Findings:
    """Examine whether the running databases have the passwords in the files."""
    found = list_drifted(engine, invocation, timeout=LOGIN_SECONDS)
    attention: list[str] = []
    for one in found:
        if one["agrees"] is False:
            attention.append(
                f"the database of service {one['service']} does not have the password that the"
                " project's files say: safe-compose rotate-password --sync"
                f" {shell_quote(one['service'])}"
            )
    return Findings(found, tuple(attention))


def _list_anonymous_databases(observed: Observed) -> Findings:
    """Find the project's databases in anonymous volumes, which the next `down` leaves unused.

    Nobody finds them afterwards.
    """
    found: list[dict[str, Any]] = []
    attention: list[str] = []
    for container in observed.containers:
        if observed.project is None or not observed.project.owns(container):
            continue
        for mount in container.mounts:
            volume = observed.volume(mount.name) if mount.name else None
            if (
                volume is not None
                and volume.anonymous
                and any(d.serves(container, volume.name) for d in DATABASES.values())
            ):
                found.append(
                    {"container": container.name, "volume": volume.name, "path": mount.destination}
                )
                others = [
                    m.destination for m in container.mounts if m.name and m.name != volume.name
                ]
                where = (
                    f" (its other volumes are mounted at {', '.join(others)}, where this image"
                    " keeps nothing)"
                    if others
                    else ""
                )
                attention.append(
                    f"{container.name} keeps its database in a volume without a name{where}: back"
                    f" it up (safe-compose backup --volume {volume.name}), then mount a named"
                    f" volume at {mount.destination}"
                )
    return Findings(found, tuple(attention))


def _find_predecessors(workspace: Workspace, observed: Observed) -> Findings:
    """Find volumes that look like earlier ones of the project, without the disposable ones.

    A volume that only looks similar needs a person while the project's own is missing or smaller.
    """
    rules = workspace.rules(observed)
    found_by_name = predecessors.find_suspects(
        observed,
        lambda folder: workspace.engine.docker.remote or os.path.isdir(folder),  # noqa: PTH112
    )
    by_name = {s.volume: s for s in (*found_by_name, *_find_nameless(workspace, observed, rules))}
    volumes = [v for v in observed.volumes if v.name in by_name]
    if not volumes:
        return Findings([])
    important = [
        v.volume
        for v in judge(workspace, volumes, observed, rules)
        if v.tier is not Tier.DISPOSABLE
    ]
    sizes = workspace.engine.docker.sizes(
        [*important, *(by_name[name].of for name in important)], timeout=SIZES_SECONDS
    )
    found: list[dict[str, Any]] = []
    attention: list[str] = []
    for name in important:
        suspect = by_name[name]
        own = sizes.get(suspect.of, 0) if observed.volume(suspect.of) is not None else None
        found.append({**suspect._asdict(), "bytes": sizes.get(name), "of_bytes": own})
        if suspect.sure or own is None or own < sizes.get(name, 0):
            instead = (
                f"{suspect.of} has {format_size(own)}"
                if own is not None
                else f"{suspect.of} is not there"
            )
            attention.append(
                f"is data missing? volume {name} ({format_size(sizes.get(name))}) was"
                f" {suspect.why}; {instead}. Keep it: safe-compose backup --volume"
                f" {shell_quote(name)}"
            )
    return Findings(found, tuple(attention))


def _find_nameless(
    workspace: Workspace, observed: Observed, rules: Sequence[Rule]
) -> list[predecessors.Suspect]:
    """Find unused anonymous volumes with a database like one that the project has a volume for.

    A changed mount path leaves such volumes behind.
    """
    declared = {d.name for d in observed.project.volumes} if observed.project is not None else set()
    own = {
        v.kind: v.volume
        for v in judge(
            workspace, [v for v in observed.volumes if v.name in declared], observed, rules
        )
    }
    free = [v for v in observed.volumes if v.anonymous and not observed.users(v.name)]
    if not own.keys() & DATABASES.keys() or not free:
        return []
    newest = sorted(free, key=lambda v: v.created_at, reverse=True)[:NAMELESS]
    return [
        predecessors.Suspect(
            v.volume,
            own[v.kind],
            f"left without a name and a container, and holds a {v.kind} database",
            False,
        )
        for v in judge(workspace, newest, observed, rules)
        if v.kind in DATABASES and v.kind in own
    ]
