"""The examination of data in folders of the host: what may damage or lose it."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import normpath
from typing import Any

from safe_compose.core import file_systems
from safe_compose.core.known_images import PLAIN_KINDS, VolumeUse, claim_of_image, claim_of_path
from safe_compose.core.observed import ONEOFF_LABEL, Container, Observed, Project
from safe_compose.core.tier import Tier
from safe_compose.operations.doctor.findings import Findings
from safe_compose.system import git
from safe_compose.system.mount_table import MountedFileSystem, find_file_system

_MOST = 50
"""Most folders that are examined."""


@dataclass
class _Folder:
    """A folder with data."""

    path: str
    kind: str
    writers: dict[str, int] = field(default_factory=dict)
    """Services that may write to it or to a part of it, with the number of their containers."""

    @property
    def is_database(self) -> bool:
        return self.kind not in PLAIN_KINDS

    @property
    def content(self) -> str:
        """What is in it, in words."""
        return f"the {self.kind} database" if self.is_database else "the data"


def examine_folders(observed: Observed, known: Mapping[str, str], *, shared: bool) -> Findings:
    """Examine the folders in which the project's services keep data, databases above all.

    Args:
        observed: The state of the engine.
        known: Path -> kind of the data, of folders that a backup takes.
        shared: Whether the engine's paths are those of this machine.
    """
    found: list[dict[str, Any]] = []
    attention: list[str] = []
    for folder in _list_folders(observed, known)[:_MOST]:
        system = find_file_system(folder.path) if shared else None
        problems = list(_find_problems(folder, system, shared=shared))
        found.append(
            {
                "path": folder.path,
                "kind": folder.kind,
                "services": sorted(folder.writers),
                "file_system": system.type if system is not None else None,
                "problems": problems,
            }
        )
        attention += [f"{folder.content} in folder {folder.path} {p}" for p in problems]
    return Findings(found, tuple(attention))


def _list_folders(observed: Observed, known: Mapping[str, str]) -> Sequence[_Folder]:
    """Return the folders with data; a database by the image that mounts it, too."""
    project = observed.project
    if project is None:
        return ()
    found = {path: _Folder(path, kind) for path, kind in known.items()}
    own = [c for c in observed.containers if project.owns(c)]
    for path, use in _list_uses(own):
        claim = claim_of_image(use) or claim_of_path(use)
        if claim is not None and claim.tier is Tier.CRITICAL and claim.kind not in PLAIN_KINDS:
            found[path] = _Folder(path, claim.kind)
    for folder in found.values():
        folder.writers = _count_writers(folder.path, observed.containers, project)
    return [found[path] for path in sorted(found)]


def _list_uses(containers: Iterable[Container]) -> Iterator[tuple[str, VolumeUse]]:
    """Yield (path, use) of each folder of the host that may be written."""
    for container in containers:
        for mount in container.mounts:
            if mount.type == "bind" and mount.source and not mount.read_only:
                pgdata = container.environment.get("PGDATA", "")
                yield (
                    normpath(mount.source),
                    VolumeUse(container.image, mount.destination, False, pgdata),
                )


def _count_writers(path: str, containers: Iterable[Container], project: Project) -> dict[str, int]:
    """Return the services that may write to a folder or a part of it."""
    found: dict[str, int] = {}
    for container in containers:
        own = project.owns(container)
        name = container.service if own and container.service else container.name
        if container.labels.get(ONEOFF_LABEL) == "True" or container.is_marked_as_ours:
            continue
        if any(
            m.type == "bind" and not m.read_only and _is_inside(m.source, path)
            for m in container.mounts
        ):
            found[name] = found.get(name, 0) + 1
    for folder in project.folders:
        if (
            not folder.read_only
            and folder.user in project.services
            and _is_inside(folder.path, path)
        ):
            found.setdefault(folder.user, 1)
    return found


def _is_inside(path: str, folder: str) -> bool:
    """Return whether a path is a folder or lies in it.

    What mounts more, such as the whole project, is not meant to write there.
    """
    return normpath(path) == folder or normpath(path).startswith(folder.rstrip("/") + "/")


def _find_problems(
    folder: _Folder, system: MountedFileSystem | None, *, shared: bool
) -> Iterator[str]:
    if folder.is_database and len(folder.writers) > 1:
        names = " and ".join(sorted(folder.writers))
        yield f"is shared: {names} may all write to it. Give each a folder of its own"
    elif folder.is_database and any(number > 1 for number in folder.writers.values()):
        yield "is shared by two containers of one service, and two servers on it damage it"
    why = file_systems.explain_unsafe(system.type, system.options) if system is not None else None
    if folder.is_database and system is not None and why is not None:
        yield f"lies on {system.type} ({system.mount_point}), {why}"
    tree = git.find_work_tree(folder.path) if shared and os.path.exists(folder.path) else None  # noqa: PTH110
    if tree is not None and git.is_ignored(folder.path, tree) is False:
        inside = os.path.relpath(os.path.realpath(folder.path), tree)
        yield (
            f"is in the git work tree {tree}, which does not ignore it: `git clean -fd` deletes it,"
            f" and `git add` would publish it. Add /{inside}/ to {tree}/.gitignore"
        )
