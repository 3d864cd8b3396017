"""The folders of the host that a project mounts: which of them hold data, and what is in them."""

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from safe_compose.core import backup_set, folders
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

MAX_FOLDER = 5 << 30
"""The bytes of a folder up to which it is backed up by itself."""
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
    wanted = None if names is None else set(names)
    omitted: list[Omission] = []
    left = []
    for one in mounted:
        if wanted is not None:
            left += [one] if one.name in wanted else []
        elif (why := folders.explain_by_path(one, project)) is None:
            left.append(one)
        else:
            omitted.append(_omit(one, why))
    verdicts = judge(workspace, [one.folder for one in left], observed, workspace.rules(observed))
    data = []
    sizes = {}
    for one, verdict in zip(left, verdicts, strict=True):
        if wanted is not None:
            data.append((one.folder, verdict))
            continue
        look = look_into(workspace.engine, one.name)
        if look.counted:
            sizes[one.name] = look.size
        why = None if verdict.explicit else folders.explain_by_content(one, look, project)
        if why is None and verdict.tier is Tier.DISPOSABLE:
            omitted.append(backup_set.omit_disposable(verdict))
        elif why is None and not verdict.explicit and _is_too_large(verdict, look):
            size = f"more than {format_size(MAX_FOLDER)}"
            omitted.append(_omit(one, f"it has {size} (max_folder)", verdict.tier))
        elif why is not None:
            omitted.append(_omit(one, why))
        else:
            data.append((one.folder, verdict))
    return FoundFolders(tuple(data), tuple(omitted), sizes)


def _is_too_large(verdict: Verdict, look: Look) -> bool:
    return look.size > MAX_FOLDER and verdict.kind not in DATABASES


def _omit(mounted: MountedFolder, why: str, tier: Tier | None = None) -> Omission:
    return backup_set.omit_folder(
        mounted.name,
        f"{why} (a folder or file of the host, mounted at {mounted.where})",
        tier.value if tier is not None else "",
    )


def look_into(engine: Engine, path: str) -> Look:
    """Look into a folder of the host through the engine.

    It is counted up to MAX_FOLDER.
    """
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
                if size > MAX_FOLDER and len(files) >= _SEEN:
                    return Look("folder", tuple(names), tuple(files), size)
    except (SafeComposeError, BadTar) as fault:
        absent = "source path does not exist" in str(fault)
        return Look("absent" if absent else "unseen")
    return Look("folder", tuple(names), tuple(files), size, counted=True)
