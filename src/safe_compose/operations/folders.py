"""The folders of the host that a project mounts: which of them hold data, and what is in them."""

import contextlib
import math
import os
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from posixpath import basename
from typing import NamedTuple

from safe_compose.core import backup_set, folders, policy
from safe_compose.core.backup import Omission
from safe_compose.core.folders import FolderContent, MountedFolder
from safe_compose.core.known_images import PLAIN_KINDS
from safe_compose.core.observed import FOLDER, HostFolder, Observed, Project
from safe_compose.core.policy import Verdict
from safe_compose.core.quantities import format_size
from safe_compose.core.tier import Tier
from safe_compose.databases.registry import DATABASES
from safe_compose.databases.sqlite.find import MAGIC
from safe_compose.engine import Engine, resolve_folders
from safe_compose.errors import SafeComposeError
from safe_compose.operations.verdicts import judge
from safe_compose.settings.load import PROJECT_FILE
from safe_compose.system import git
from safe_compose.system.files import find_real_path
from safe_compose.volumes import archive
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.inner_mounts import is_behind, list_inner_mounts
from safe_compose.volumes.tar import BadTar
from safe_compose.workspace import Workspace

_LOOK_SECONDS = 10.0
"""How long the files of one folder are counted, where a backup is not yet made."""
_AT_ONCE = 4
"""Most folders that are looked into at once."""
_MOST_MOUNTS = 10
"""Most mounts in one folder that are named one by one."""
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
    too_large: frozenset[str] = frozenset()
    """Those with data that a backup leaves out by itself, because of `backup.max_folder`."""


def find_folders(
    workspace: Workspace,
    observed: Observed,
    names: Iterable[str] | None = None,
    *,
    for_backup: bool = False,
) -> FoundFolders:
    """Find the folders with data of the observed project, with their verdicts.

    Args:
        workspace: The workspace.
        observed: The state of the engine, with the project.
        names: Only folders of these paths, which are taken whatever is in them.
        for_backup: Leave out the folders that are too large to be backed up by themselves, however
            long it takes to count their files.
    """
    observed = resolve(workspace.engine, observed)
    project = observed.project
    mounted = folders.list_mounted(observed)
    if project is None or not mounted:
        return FoundFolders((), (), {})
    rules = workspace.rules(observed)
    if names is not None:
        return _find_named(workspace, observed, mounted, set(names), for_backup=for_backup)
    wanted = {one.name for one in mounted if policy.is_wanted(one.folder, observed, rules)}
    shared = workspace.engine.docker.connection.shares_paths
    left, omitted = _select_by_path(mounted, wanted, project)
    verdicts = judge(workspace, [one.folder for one in left], observed, rules)
    limit = workspace.settings.max_folder if for_backup else math.inf
    seconds = math.inf if for_backup else _LOOK_SECONDS
    read_one = partial(read_content, workspace.engine, limit=limit, seconds=seconds)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look") as pool:
        looks = list(pool.map(read_one, [one.name for one in left]))
    data, sizes, too_large = [], {}, set()
    for one, verdict, look in zip(left, verdicts, looks, strict=True):
        if look.counted:
            sizes[one.name] = look.size
        why = None
        if one.name not in wanted:
            look = look._replace(tracked=_is_tracked(one.name) if shared else None)
            why = folders.explain_by_content(one, look, project)
            if _is_too_large(verdict, look, workspace.settings.max_folder):
                too_large.add(one.name)
        verdict = folders.judge_look(verdict, look)
        if why is not None:
            omitted.append(_omit(one, why))
        elif one.name not in wanted and _is_too_large(verdict, look, limit):
            omitted.append(_omit_large(verdict, look, workspace.settings.max_folder))
        elif verdict.tier is Tier.DISPOSABLE:
            omitted.append(backup_set.omit_disposable(verdict))
        else:
            data.append((replace(one.folder, is_file=look.kind == "file"), verdict))
    inner = _find_inner_mounts(workspace.engine, data) if for_backup else {}
    data, nested = _leave_out_nested(data, inner)
    unpacked = _omit_mounted(workspace, observed, data, inner, mounted)
    return FoundFolders(tuple(data), (*omitted, *nested, *unpacked), sizes, frozenset(too_large))


def _find_named(
    workspace: Workspace,
    observed: Observed,
    mounted: Iterable[MountedFolder],
    names: Container[str],
    *,
    for_backup: bool,
) -> FoundFolders:
    """Return the folders and files of these paths, whatever is in them."""
    chosen: list[HostFolder] = []
    looks: list[FolderContent] = []
    for one in mounted:
        if one.name in names and not folders.explain_impossible(one):
            look = read_content(workspace.engine, one.name, limit=0, seconds=0)
            chosen.append(replace(one.folder, is_file=look.kind == "file"))
            looks.append(look)
    verdicts = judge(workspace, chosen, observed, workspace.rules(observed))
    judged = tuple(map(folders.judge_look, verdicts, looks))
    data = tuple(zip(chosen, judged, strict=True))
    inner = _find_inner_mounts(workspace.engine, data) if for_backup else {}
    return FoundFolders(data, tuple(_omit_mounted(workspace, observed, data, inner, mounted)), {})


def _is_too_large(verdict: Verdict, look: FolderContent, limit: float) -> bool:
    return look.size > limit and verdict.kind not in DATABASES


def _omit_large(verdict: Verdict, look: FolderContent, limit: int) -> Omission:
    """Return the omission of a folder that is only too large: a critical one is lacking."""
    size = f"{'' if look.counted else 'more than '}{format_size(look.size)}"
    why = f"its files take {size}, and max_folder is {format_size(limit)}"
    if verdict.tier is not Tier.CRITICAL:
        return backup_set.omit_folder(verdict.volume, why, verdict.tier.value)
    step = (
        f'name it under [folders] in {PROJECT_FILE}: "critical" takes it, "disposable" leaves'
        " it out for good"
    )
    return backup_set.omit_failed(verdict.volume, verdict.tier.value, why, step)


def resolve(engine: Engine, observed: Observed) -> Observed:
    """Return the observed state with the real paths of the host's folders, as far as known here.

    A folder that is mounted by a symbolic link is then known by one path alone.
    """
    project = observed.project
    if project is None or not engine.docker.connection.shares_paths:
        return observed
    project = replace(
        project,
        working_dir=find_real_path(project.working_dir) if project.working_dir else "",
        config_files=tuple(map(find_real_path, project.config_files)),
        folders=tuple(
            # a path of another kind of host would be one below the current folder
            replace(f, path=find_real_path(f.path)) if f.path.startswith(FOLDER) else f
            for f in project.folders
        ),
    )
    containers = tuple(map(resolve_folders, observed.containers))
    return replace(observed, project=project, containers=containers)


def resolve_names(engine: Engine, names: Iterable[str]) -> list[str]:
    """Return the names of locations as people give them, with folders by their real paths."""
    found = []
    for name in names:
        if "/" in name:
            path = os.path.abspath(name)  # noqa: PTH100
            name = find_real_path(path) if engine.docker.connection.shares_paths else path
        found.append(name)
    return found


def _select_by_path(
    mounted: Iterable[MountedFolder], wanted: Container[str], project: Project
) -> tuple[list[MountedFolder], list[Omission]]:
    """Return the folders that may hold data by their paths and mounts, and the others."""
    left: list[MountedFolder] = []
    omitted: list[Omission] = []
    for one in mounted:
        why = folders.explain_impossible(one)
        if why is None and one.name not in wanted:
            why = folders.explain_by_path(one, project)
        if why is None:
            left.append(one)
        else:
            omitted.append(_omit(one, why))
    return left, omitted


def _omit(mounted: MountedFolder, why: str) -> Omission:
    return backup_set.omit_folder(
        mounted.name, f"{why} (a folder or file of the host, mounted at {mounted.where})"
    )


def _find_inner_mounts(
    engine: Engine, data: Iterable[tuple[HostFolder, Verdict]]
) -> dict[str, list[str]]:
    """Return what is mounted in each of these folders.

    A folder that cannot be read has nothing here: its backup fails, with the cause.
    """

    def look(path: str) -> list[str]:
        try:
            return list_inner_mounts(EngineLocation(engine, path))
        except SafeComposeError:
            return []

    names = [folder.name for folder, _ in data if not folder.is_file]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mounts") as pool:
        return dict(zip(names, pool.map(look, names), strict=True))


def _omit_mounted(
    workspace: Workspace,
    observed: Observed,
    data: Iterable[tuple[HostFolder, Verdict]],
    inner: Mapping[str, Sequence[str]],
    mounted: Iterable[MountedFolder],
) -> list[Omission]:
    """Return the omissions of what is mounted in folders, and is therefore not packed with them.

    What a service mounts by itself is left out: it is backed up by itself, or omitted with a
    reason of its own. So is what is mounted among the files of a database, which is dumped.
    """
    known = {one.name for one in mounted}
    rules = workspace.rules(observed)
    omitted = []
    for folder, verdict in data:
        if verdict.kind in DATABASES:
            continue
        found = [path for path in inner.get(folder.name, ()) if path not in known]
        places = [HostFolder(path, labels=folder.labels) for path in found]
        verdicts = judge(workspace, places, observed, rules)
        dropped = [v.volume for v in verdicts if v.explicit and v.tier is Tier.DISPOSABLE]
        omitted += [backup_set.omit_disposable(v) for v in verdicts if v.volume in dropped]
        left = [path for path in found if not is_behind(path, dropped)]
        for number, path in enumerate(left[:_MOST_MOUNTS], start=1):
            more = len(left) - number if number == _MOST_MOUNTS else 0
            why = f"something is mounted there, and a backup of {folder.name} does not enter it" + (
                f"; nor {more} other mounts" if more else ""
            )
            step = (
                f"let a service mount it by itself; or name it under [folders] in {PROJECT_FILE}:"
                ' "disposable" leaves it out for good'
            )
            omitted.append(backup_set.omit_failed(path, verdict.tier.value, why, step))
    return omitted


def _leave_out_nested(
    data: Sequence[tuple[HostFolder, Verdict]], inner: Mapping[str, Sequence[str]]
) -> tuple[list[tuple[HostFolder, Verdict]], list[Omission]]:
    """Return the folders without those that lie in another one, or hold a database's.

    A copy of the files around a running database would hold a torn copy of it, which a restore
    would put in its place. No copy of a folder has what is mounted in it (`inner`).
    """

    def holds(outer: str, name: str) -> bool:
        return name.startswith(f"{outer}/") and not is_behind(name, inner.get(outer, ()))

    databases = [f.name for f, verdict in data if verdict.kind not in PLAIN_KINDS | {"sqlite"}]
    omitted: list[Omission] = []
    whole: list[tuple[HostFolder, Verdict]] = []
    for folder, verdict in data:
        database = next((name for name in databases if holds(folder.name, name)), None)
        if database is None:
            whole.append((folder, verdict))
            continue
        why = f"the database in {database} lies in it, and is backed up by itself"
        step = f"let a service mount the other folders in {folder.name} one by one"
        omitted.append(backup_set.omit_failed(folder.name, verdict.tier.value, why, step))
    left = []
    for folder, verdict in whole:
        outer = next((f.name for f, _ in whole if holds(f.name, folder.name)), None)
        if outer is None or folder.name in databases:
            left.append((folder, verdict))
        else:
            why = f"it lies in {outer}, which is in this backup"
            omitted.append(backup_set.omit_folder(folder.name, why, verdict.tier.value))
    return left, omitted


def _is_tracked(path: str) -> bool | None:
    """Return whether git has a file, or everything in a folder; None where that is unknown."""
    tree = git.find_work_tree(path) if os.path.exists(path) else None  # noqa: PTH110
    return git.has_all(path, tree) if tree is not None else None


def read_content(engine: Engine, path: str, *, limit: float, seconds: float) -> FolderContent:
    """Return the content of a folder of the host, as the engine shows it.

    Args:
        engine: The engine.
        path: The folder.
        limit: The bytes up to which its files are counted, however long that takes.
        seconds: How long they are counted at most.
    """
    until = time.monotonic() + seconds
    counted_until = time.monotonic() + min(seconds, _LOOK_SECONDS)
    names: dict[str, None] = {}
    files: list[str] = []
    size = 0
    try:
        with contextlib.closing(archive.read_entries(EngineLocation(engine, path))) as entries:
            for entry in entries:
                member = entry.path.decode("utf-8", "surrogateescape")
                if member:
                    names[member.partition("/")[0]] = None
                if entry.type in "fh":
                    size += entry.size
                    if len(files) < _SEEN:
                        files.append(member)
                late = time.monotonic() > (until if size <= limit else counted_until)
                if len(files) >= _SEEN and late:
                    return FolderContent("folder", tuple(names), tuple(files), size)
    except (SafeComposeError, BadTar) as fault:
        words = str(fault)
        if "source path does not exist" in words:
            return FolderContent("absent")
        return (
            _read_file_content(engine, path)
            if "Not a directory" in words
            else FolderContent("unseen")
        )
    return FolderContent("folder", tuple(names), tuple(files), size, counted=True)


def _read_file_content(engine: Engine, path: str) -> FolderContent:
    """Return the content of a single file of the host, as the engine shows it."""
    location, name = EngineLocation(engine, path, is_file=True), basename(path)
    try:
        entry = location.look([name]).get(name)
        if entry is None:
            return FolderContent("absent")
        if entry.type != "f":
            return FolderContent("odd")
        head = location.read_head(name, len(MAGIC)) if entry.size else b""
    except (SafeComposeError, BadTar):
        return FolderContent("unseen")
    return FolderContent(
        "file", (name,), (name,), entry.size, counted=True, is_sqlite=head == MAGIC
    )
