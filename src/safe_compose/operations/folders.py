"""The folders of the host that a project mounts: which of them hold data, and what is in them."""

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from safe_compose.core import backup_set, folders, policy
from safe_compose.core.backup import Omission
from safe_compose.core.folders import Look, MountedFolder
from safe_compose.core.observed import HostFolder, Observed
from safe_compose.core.policy import Verdict
from safe_compose.core.quantities import format_size
from safe_compose.core.tier import Tier
from safe_compose.databases.registry import DATABASES
from safe_compose.engine import Engine
from safe_compose.errors import SafeComposeError
from safe_compose.operations.verdicts import judge
from safe_compose.volumes import archive
from safe_compose.volumes.tar import BadTar
from safe_compose.workspace import Workspace

_SEEN = 2000
"""Most files of a folder whose names are looked at."""


class FoundFolders(NamedTuple):
    """The folders of the host that a project mounts."""

    data: tuple[tuple[HostFolder, Verdict], ...]
    """Those that hold data."""
    omitted: tuple[Omission, ...]
    """The others, each with the reason."""
    sizes: dict[str, int]
    """The bytes of those that were counted."""


def find_data(
    workspace: Workspace, observed: Observed, names: Iterable[str] | None = None
) -> FoundFolders:
    """Find the folders with data of the observed project, with their verdicts.

    Args:
        workspace: The workspace.
        observed: The state of the engine, with the project.
        names: Only folders of these paths, which are taken whatever is in them.
    """
    project = observed.project
    mounted = folders.list_mounted(observed)
    if project is None or not mounted:
        return FoundFolders((), (), {})
    rules = workspace.rules(observed)
    named = None if names is None else set(names)
    wanted = {
        one.name
        for one in mounted
        if named is None and policy.is_wanted(one.folder, observed, rules)
    }
    omitted: list[Omission] = []
    left = []
    for one in mounted if named is None else (m for m in mounted if m.name in named):
        why = folders.explain_impossible(one)
        if why is None and named is None and one.name not in wanted:
            why = folders.explain_by_path(one, project)
        if why is None:
            left.append(one)
        else:
            omitted.append(_omit(one, why))
    verdicts = judge(workspace, [one.folder for one in left], observed, rules)
    limit = workspace.settings.max_folder
    data = []
    sizes = {}
    for one, verdict in zip(left, verdicts, strict=True):
        if named is not None:
            data.append((one.folder, verdict))
            continue
        look = look_into(workspace.engine, one.name, limit)
        if look.counted:
            sizes[one.name] = look.size
        why = None if one.name in wanted else folders.explain_by_content(one, look, project)
        if why is None and verdict.tier is Tier.DISPOSABLE:
            omitted.append(backup_set.omit_disposable(verdict))
        elif why is None and one.name not in wanted and _is_too_large(verdict, look, limit):
            why = f"its files take more than max_folder ({format_size(limit)})"
            omitted.append(_omit(one, why, verdict.tier))
        elif why is not None:
            omitted.append(_omit(one, why))
        else:
            data.append((one.folder, verdict))
    return FoundFolders(tuple(data), tuple(omitted), sizes)


def _is_too_large(verdict: Verdict, look: Look, limit: int) -> bool:
    return look.size > limit and verdict.kind not in DATABASES


def _omit(mounted: MountedFolder, why: str, tier: Tier | None = None) -> Omission:
    return backup_set.omit_folder(
        mounted.name,
        f"{why} (a folder or file of the host, mounted at {mounted.where})",
        tier.value if tier is not None else "",
    )


def look_into(engine: Engine, path: str, limit: int) -> Look:
    """Look into a folder of the host through the engine, which is counted up to `limit` bytes."""
    names: dict[str, None] = {}
    files: list[str] = []
    size = 0
    try:
        with contextlib.closing(archive.read_entries(engine, path)) as entries:
            for entry in entries:
                member = entry.path.decode("utf-8", "surrogateescape")
                if member:
                    names[member.partition("/")[0]] = None
                if entry.type in "fh":
                    size += entry.size
                    if len(files) < _SEEN:
                        files.append(member)
                if size > limit and len(files) >= _SEEN:
                    return Look("folder", tuple(names), tuple(files), size)
    except (SafeComposeError, BadTar) as fault:
        absent = "source path does not exist" in str(fault)
        return Look("absent" if absent else "unseen")
    return Look("folder", tuple(names), tuple(files), size, counted=True)
