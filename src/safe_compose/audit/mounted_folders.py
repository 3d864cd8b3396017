"""Removals of files that a service of the folder's compose file mounts: docker deletes no volume.

A compose file is read as it is, without the values of variables, `include` and `extends`. Files,
their size, and how far they are looked for are limited.
"""

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from safe_compose.audit.data_folder import find_removed_words
from safe_compose.audit.programs import REMOVERS
from safe_compose.audit.shell_line import ShellLine, SimpleCommand
from safe_compose.audit.shell_words import Word

LARGEST = 64 << 10
"""Most bytes of a compose file that is read."""
_HIGHEST = 8
"""How many folders above the line's own are searched for a compose file."""
_MOST_MOUNTS = 1000
_MOST_LINES = 500
_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_DATA_TARGET = re.compile(r"/(?:var/(?:lib|opt)|data|bitnami|opt/[^/]+/data|mnt|srv|storage)\b")
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

    @property
    def holds_data(self) -> bool:
        """Return whether it looks like data of the service, and not like its source code."""
        around = self.root == self.source or self.root.startswith(self.source.rstrip("/") + "/")
        return not around and _DATA_TARGET.match(self.target) is not None


def find_removed_mount(command: SimpleCommand, line: ShellLine, here: Path) -> ServiceMount | None:
    """Return a mount that a removing command would remove files of, or None."""
    if command.via & {"container", "ssh"}:
        return None
    folder = _folder_of(line, here)
    if command.program == "git":
        return _find_cleaned(command, folder)
    if command.program not in REMOVERS or not _is_deep(command):
        return None
    paths = [p for word in find_removed_words(command, line) if (p := _path_of(word, folder))]
    for mount in _read_mounts(folder) if paths else ():
        for path in paths:
            if _covers(path, mount.source) or (mount.holds_data and _covers(mount.source, path)):
                return mount
    return None


def _folder_of(line: ShellLine, here: Path) -> str:
    """Return the folder in which the line's commands run, as far as a plain `cd` says."""
    folder = str(here)
    for command in line.commands:
        if command.program in ("cd", "pushd") and len(command.words) == 2 and command.words[1].sure:
            folder = posixpath.join(folder, os.path.expanduser(command.words[1].text))  # noqa: PTH111
    return posixpath.normpath(folder)


def _is_deep(command: SimpleCommand) -> bool:
    flags = [word.text for word in command.words[1:] if word.text.startswith("-")]
    if command.program == "rm":
        return any(re.fullmatch(r"-[A-Za-z]*[rR][A-Za-z]*|--recursive", flag) for flag in flags)
    return command.program in ("find", "rsync", "shred", "trash", "srm")


def _path_of(word: Word, folder: str) -> str:
    """Return the absolute path that a word names; empty when it is not known."""
    text = re.sub(r"^(?:\$PWD|\$\{PWD\}|\$\(pwd\)|`pwd`)(?=/|$)", ".", word.text)
    text = re.sub(r"^(?:\$HOME|\$\{HOME\})(?=/|$)", "~", text)
    if "\0" in text or (not word.sure and re.search(r"[$`]", text)):
        return ""
    return posixpath.normpath(posixpath.join(folder, os.path.expanduser(text)))  # noqa: PTH111


def _covers(path: str, inner: str) -> bool:
    """Return whether a path, which may be a pattern, is another one or lies above it."""
    parts, others = path.split("/"), inner.split("/")
    if path == "/":
        return True
    return len(parts) <= len(others) and all(
        fnmatchcase(other, part) for part, other in zip(parts, others, strict=False)
    )


def _find_cleaned(command: SimpleCommand, folder: str) -> ServiceMount | None:
    """Return a mount that `git clean` removes with what git ignores, or None."""
    texts = [word.text for word in command.words[1:]]
    if "clean" not in texts:
        return None
    rest = texts[texts.index("clean") + 1 :]
    letters = {letter for text in rest if re.match(r"-\w", text) for letter in text[1:]}
    forced = "f" in letters or "--force" in rest
    ignored = letters & {"x", "X"}
    if not forced or not ignored or "d" not in letters or "n" in letters or "--dry-run" in rest:
        return None
    left_out = [
        value.strip("/")
        for before, text in zip(["", *rest], rest, strict=False)
        for value in (text, text.partition("=")[2])
        if value and (before in ("-e", "--exclude") or text.startswith("--exclude="))
    ]
    paths = [text for text in rest if not text.startswith("-") and text not in left_out] or ["."]
    cleaned = [posixpath.normpath(posixpath.join(folder, path)) for path in paths]
    for mount in _read_mounts(folder):
        names = mount.source.split("/")
        below = any(_covers(path, mount.source) for path in cleaned)
        removed = below and not set(left_out) & set(names) and Path(mount.source).exists()
        if removed and (mount.holds_data or _is_ignored(mount)):
            return mount
    return None


def _is_ignored(mount: ServiceMount) -> bool:
    """Return whether a line of the `.gitignore` next to the compose file names a mount."""
    inner = mount.source.removeprefix(mount.root + "/")
    lines = (_read(Path(mount.root) / ".gitignore") or "").splitlines()[:_MOST_LINES]
    patterns = [line.strip().strip("/") for line in lines if line[:1] not in ("#", "!", "")]
    return inner != mount.source and any(
        fnmatchcase(part, pattern) or _covers(pattern, inner)
        for pattern in patterns
        for part in inner.split("/")
    )


# -- compose files ---------------------------------------------------------------------------------


def _read_mounts(folder: str) -> Sequence[ServiceMount]:
    """Return what the services of the compose file of a folder, or of one above it, may write."""
    root = Path(folder)
    for above in islice((root, *root.parents), _HIGHEST):
        for name in _NAMES:
            text = _read(above / name)
            if text is not None:
                stem, _, ending = name.rpartition(".")
                extra = _read(above / f"{stem}.override.{ending}") or ""
                return list(
                    islice(
                        (m for one in (text, extra) if one for m in _mounts_of(one, str(above))),
                        _MOST_MOUNTS,
                    )
                )
    return ()


def _read(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError):
        return None
    return data.decode("utf-8", "replace") if len(data) <= LARGEST else ""


def _mounts_of(text: str, root: str) -> Iterator[ServiceMount]:
    from ruamel.yaml import YAML  # takes 30 ms, and few lines remove folders
    from ruamel.yaml.error import YAMLError

    try:
        whole = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        return
    services = whole.get("services") if isinstance(whole, dict) else None
    for name, service in services.items() if isinstance(services, dict) else ():
        volumes = service.get("volumes") if isinstance(service, dict) else None
        for volume in volumes if isinstance(volumes, list) else ():
            source, target = _read_volume(volume)
            source = os.path.expanduser(source)  # noqa: PTH111
            if source.startswith(("/", "./", "../")) or source in (".", ".."):
                path = posixpath.normpath(posixpath.join(root, source))
                yield ServiceMount(path, target, str(name), root)


def _read_volume(volume: Any) -> tuple[str, str]:
    """Return source and target of an entry of `volumes` that may be written; else empty."""
    if isinstance(volume, str):
        source, _, rest = _replace_variables(volume).partition(":")
        target, _, mode = rest.partition(":")
        return ("", "") if "ro" in mode.split(",") else (source, target)
    if isinstance(volume, dict) and volume.get("type", "bind") == "bind":
        given = volume.get("source", volume.get("src"))
        if isinstance(given, str) and volume.get("read_only") is not True:
            return _replace_variables(given), str(volume.get("target", ""))
    return "", ""


def _replace_variables(text: str) -> str:
    """Return a text with the defaults of its variables; one without a default is no path."""

    def value(found: "re.Match[str]") -> str:
        name = found[1] or found[3]
        return {"PWD": ".", "HOME": "~"}.get(name, found[2] or _UNKNOWN)

    return _VARIABLE.sub(value, text)
