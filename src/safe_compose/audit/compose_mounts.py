"""The paths of this machine that services mount, by the compose files of a folder.

A compose file is read as it is, without `include` and `extends`; variables have the values of the
`.env` file next to it. Files, their size, and how far they are looked for are limited.
"""

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from safe_compose.core import folders
from safe_compose.core.observed import FolderMount, HostFolder, Project
from safe_compose.credentials import dotenv

LARGEST = 64 << 10
"""Most bytes of a compose file that is read."""
_HIGHEST = 8
"""How many folders above the first one are searched for a compose file."""
_MOST_MOUNTS = 1000
_MOST_VOLUMES = 10_000
"""Most entries of `volumes` that are read; an alias repeats many in a few bytes."""
_MOST_MERGED = 20
"""Most mappings in lists of `<<`: some hundred could stand for more pairs than memory holds."""
_LONGEST = 4096
"""Most characters of a path, and of the value of a variable."""
_MOST_FILES = 8
"""Most compose files of one folder that are read."""
_MOST_NAMES = 10_000
"""Most names of one folder among which compose files are looked for."""
_NAME = re.compile(r"(?:docker-)?compose(?:[.-][\w.-]+)?\.ya?ml")
_MOST_FOLDERS = 50
_SEEN = 200
"""Most folders in a mounted one that are looked into, and entries of each."""
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}|\$(\w+)")
_UNKNOWN = "?"
"""Where a variable has no default: a path that begins so is none, and no other one is the same."""


class ServiceMount(NamedTuple):
    """A folder or file of this machine that a service may write to."""

    source: str
    """Its absolute path."""
    target: str
    service: str
    root: str
    """The folder of the compose file."""
    image: str = ""
    holds_data: bool = False
    """Whether a backup would take it, as far as its path and its content here show."""


def is_compose_file(path: str) -> bool:
    """Return whether a path is named as compose files are, those of `-f` included.

    >>> is_compose_file("deploy/docker-compose.prod.yml"), is_compose_file("composer.json")
    (True, False)
    """
    return _NAME.fullmatch(path.rpartition("/")[2]) is not None


def find_mounts(folder: Path) -> Sequence[ServiceMount]:
    """Return what services may write, by the compose files of a folder or of the next one above."""
    for above in islice((folder, *folder.parents), _HIGHEST):
        paths = _list_compose_files(above)
        if paths:
            return list(islice((m for path in paths for m in read_mounts(path)), _MOST_MOUNTS))
    return ()


def read_mounts(path: Path) -> Sequence[ServiceMount]:
    """Return what the services of one compose file may write; nothing if it does not read."""
    text = read_small(path)
    if not text:
        return ()
    variables = (read_small(path.parent / ".env") or "") if "$" in text else ""
    found = _parse_mounts(text, str(path.parent), variables)
    return [mount._replace(holds_data=_holds_data(mount)) for mount in found]


def _holds_data(mount: ServiceMount) -> bool:
    """Return whether a mount is data, by the judgement that backups use.

    One that is not there yet may become data.
    """
    of_folder = FolderMount(mount.source, mount.service, mount.target, False, mount.image)
    mounted = folders.MountedFolder(HostFolder(mount.source), (of_folder,))
    project = Project("", "folder", "config", working_dir=mount.root)
    if folders.explain_impossible(mounted) or folders.explain_by_path(mounted, project):
        return False
    return folders.explain_by_content(mounted, _look_into(mount.source), project) is None


def _look_into(path: str) -> folders.FolderContent:
    """Return the names of some files in a folder; those of a file are its own."""
    if Path(path).is_file():
        name = Path(path).name
        return folders.FolderContent("folder", (name,), (name,))
    names: tuple[str, ...] = ()
    files: list[str] = []
    waiting = [path]
    for folder in islice(_take_all(waiting), _MOST_FOLDERS):
        entries = _list_some(folder)
        names = names or tuple(sorted(entry.name for entry in entries))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                files.append(posixpath.relpath(entry.path, path))
    return folders.FolderContent("folder", names, tuple(files))


def _take_all(waiting: list[str]) -> Iterator[str]:
    """Yield what is in a list, also what is added meanwhile."""
    while waiting:
        yield waiting.pop(0)


def _list_some(folder: str) -> list[os.DirEntry[str]]:
    """Return some entries of a folder, which may have a million."""
    try:
        with os.scandir(folder) as entries:
            return list(islice(entries, _SEEN))
    except OSError:
        return []


def read_small(path: Path) -> str | None:
    """Return the text of a file, empty if it is too large, or None if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError):
        return None
    return data.decode("utf-8", "replace") if len(data) <= LARGEST else ""


def _list_compose_files(folder: Path) -> list[Path]:
    """Return the compose files of a folder, the shortest names first."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in islice(entries, _MOST_NAMES) if is_compose_file(e.name)]
    except OSError:
        return []
    return [folder / name for name in sorted(names, key=lambda n: (len(n), n))[:_MOST_FILES]]


@lru_cache(maxsize=32)
def _parse_mounts(text: str, root: str, variables: str) -> tuple[ServiceMount, ...]:
    values = {e.key: e.value for e in dotenv.entries(variables) if len(e.value) <= _LONGEST}
    return tuple(islice(_mounts_of(text, root, values), _MOST_MOUNTS))


def _mounts_of(text: str, root: str, values: Mapping[str, str]) -> Iterator[ServiceMount]:
    whole = _load(text)
    services = whole.get("services") if isinstance(whole, dict) else None
    if not isinstance(services, dict):
        return
    for name, image, volume in islice(_list_volumes(services), _MOST_VOLUMES):
        source, target = _read_volume(volume, values)
        source = os.path.expanduser(source)  # noqa: PTH111
        is_path = source.startswith(("/", "./", "../")) or source in (".", "..")
        if is_path and "\0" not in source:
            path = posixpath.normpath(posixpath.join(root, source))
            yield ServiceMount(path, target, name, root, _replace_variables(image, values))


def _load(text: str) -> Any:
    """Return what a compose file says; None if it does not read."""
    from ruamel.yaml import YAML  # takes 30 ms, and few lines remove folders
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    # All of these come for tags whose value does not fit: `!!bool x`, `!!int ""`.
    try:
        may_merge = "*" in text and ("<<" in text or "!" in text)
        return None if may_merge and _merges_lists(yaml.compose(text)) else yaml.load(text)
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _merges_lists(top: Any) -> bool:
    """Return whether a mapping takes over lists of others: of lists, too many pairs can come."""
    seen, waiting, merged = set(), [top], 0
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):
            continue
        seen.add(id(node))
        for part in node.value:
            if isinstance(part, tuple):
                key, value = part
                if key.tag.endswith(":merge") and isinstance(value.value, list):
                    merged += sum(not isinstance(one, tuple) for one in value.value)
            waiting += part if isinstance(part, tuple) else [part]
    return merged > _MOST_MERGED


def _list_volumes(services: Mapping[Any, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (service, image, volume) of each entry of `volumes`."""
    for name, service in services.items():
        volumes = service.get("volumes") if isinstance(service, dict) else None
        if isinstance(name, str) and isinstance(volumes, list):
            image = service.get("image")
            for volume in volumes:
                yield name, image if isinstance(image, str) else "", volume


def _read_volume(volume: Any, values: Mapping[str, str]) -> tuple[str, str]:
    """Return source and target of an entry of `volumes` that may be written; else empty."""
    if isinstance(volume, str):
        source, _, rest = _replace_variables(volume, values).partition(":")
        target, _, mode = rest.partition(":")
        return ("", "") if "ro" in mode.split(",") else (source, target)
    if isinstance(volume, dict) and volume.get("type", "bind") == "bind":
        given = volume.get("source", volume.get("src"))
        target = volume.get("target", "")
        if (
            isinstance(given, str)
            and isinstance(target, str)
            and volume.get("read_only") is not True
        ):
            return _replace_variables(given, values), target
    return "", ""


def _replace_variables(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the values of its variables; one that is not known is no path."""
    if len(text) > _LONGEST:
        return _UNKNOWN

    def value(found: "re.Match[str]") -> str:
        name = found[1] or found[3]
        known = {"PWD": ".", "HOME": "~", **values}.get(name, "")
        return known or found[2] or _UNKNOWN

    return _VARIABLE.sub(value, text)
