"""The files of a project that may hold a password.

They are the compose files and those they name, `.env` and other environment files, and mounted
files.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safe_compose import credentials
from safe_compose.compose.files import Files
from safe_compose.core.redaction import hide_secrets
from safe_compose.credentials import CredentialFile, compose_yaml
from safe_compose.grammar.parser import Invocation
from safe_compose.system import project_files


def find(
    invocation: Invocation, model: Mapping[str, Any]
) -> tuple[tuple[CredentialFile, ...], tuple[str, ...]]:
    """Return the files of the project that may hold the password.

    Returns:
        The files, and a note about each reference that could not be followed.
    """
    files = Files(invocation, os.environ)
    search = _Search()
    if files.unseen:
        search.notes.append("compose files that are not on this machine were not searched")
    search.follow([(file, files.working_dir) for file in files.files])
    named = [f for f in os.environ.get("COMPOSE_ENV_FILES", "").split(",") if f]
    for folder in files.folders():
        for name in named or [".env"]:
            search.add(folder / name, "env")
    for service in model.get("services") or {}:
        for path, _ in credentials.list_mounted_files(model, str(service)):
            search.add(Path(path), "file", (str(service),))
    return tuple(search.found.values()), tuple(search.notes)


class _Search:
    """A search for the files of a project."""

    def __init__(self) -> None:
        """Start with nothing found."""
        self.found: dict[str, CredentialFile] = {}
        """The real path of each file -> the file."""
        self.notes: list[str] = []

    def add(self, path: Path, kind: str, services: tuple[str, ...] = ()) -> CredentialFile | None:
        """Add a file and return it.

        Returns:
            The file; None when it was added before or cannot be read.
        """
        real = os.path.realpath(path)
        if (known := self.found.get(real)) is not None:
            both = tuple(dict.fromkeys((*known.services, *services)))
            self.found[real] = replace(known, services=both)
            return None
        text = project_files.read(real)
        if text is None:
            return None
        self.found[real] = CredentialFile(shorten(path), kind, text, services)
        return self.found[real]

    def follow(self, waiting: list[tuple[Path, Path]]) -> None:
        """Add compose files and what they name; each with the folder of its relative paths."""
        while waiting:
            file, base = waiting.pop(0)
            source = self.add(file, "compose")
            if source is None:
                continue
            try:
                scalars = compose_yaml.scalars(source.text)
            except compose_yaml.BadYaml:
                continue  # the survey refuses it
            for kind, word in _list_references(scalars):
                if "$" in word or "://" in word:
                    self.notes.append(
                        f"{source.path} names {kind} by a variable or an address:"
                        f" {hide_secrets(word)}; it was not searched"
                    )
                elif kind == "include":
                    waiting.append((base / word, (base / word).parent))
                elif kind == "extends":
                    waiting.append((file.parent / word, file.parent))
                else:
                    self.add(base / word, kind)


def _list_references(scalars: Iterable[compose_yaml.Scalar]) -> Iterator[tuple[str, str]]:
    """Yield the kind and the path of each file that a compose file names.

    The kinds are `include`, `extends`, `env`, `env_file` and `env_file raw`.
    """
    raw = {s.path[:-1] for s in scalars if s.path[-1:] == ("format",) and s.value == "raw"}
    for s in scalars:
        match s.path:
            case ("include", _) | ("include", _, "path") | ("include", _, "path", _):
                yield "include", s.value
            case ("include", _, "env_file") | ("include", _, "env_file", _):
                yield "env", s.value
            case ("services", _, "extends", "file"):
                yield "extends", s.value
            case ("services", _, "env_file") | ("services", _, "env_file", _):
                yield "env_file", s.value
            case ("services", _, "env_file", _, "path"):
                yield ("env_file raw" if s.path[:-1] in raw else "env_file"), s.value
            case _:
                continue


def shorten(path: Path) -> str:
    """Return a path as people write it: relative to the current folder if it is below."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
