"""Every file of a project that may hold a password: compose files and what they name, `.env` and others, what services mount."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safe_compose import composefile, consumers, edits
from safe_compose.consumers import Source
from safe_compose.engine import Files
from safe_compose.grammar import Invocation


def find(invocation: Invocation, model: Mapping[str, Any]) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """Every file of the project that may hold the password, and what could not be followed."""
    files = Files(invocation, os.environ)
    found: dict[str, Source] = {}
    notes = ["compose files that are not on this machine were not searched"] if files.unseen else []

    def add(path: Path, kind: str, services: tuple[str, ...] = ()) -> Source | None:
        real = os.path.realpath(path)
        if real in found:
            found[real] = replace(found[real], services=tuple(dict.fromkeys((*found[real].services, *services))))
            return None
        text = edits.read(real)
        if text is None:
            return None
        found[real] = Source(short(path), kind, text, services)
        return found[real]

    waiting = [(file, files.working_dir) for file in files.files]
    while waiting:
        file, base = waiting.pop(0)
        source = add(file, "compose")
        if source is None:
            continue
        try:
            scalars = composefile.scalars(source.text)
        except composefile.Unreadable:
            continue  # the survey refuses it
        for kind, word in _references(scalars):
            if "$" in word or "://" in word:
                notes.append(f"{source.path} names {kind} by a variable or an address: {word}; it was not searched")
            elif kind == "include":
                waiting.append((base / word, (base / word).parent))
            elif kind == "extends":
                waiting.append((file.parent / word, file.parent))
            else:
                add(base / word, kind)
    named = [f for f in os.environ.get("COMPOSE_ENV_FILES", "").split(",") if f]
    for folder in files.folders():
        for name in named or [".env"]:
            add(folder / name, "env")
    for service in model.get("services") or {}:
        for path, _ in consumers.mounted_files(model, str(service)):
            add(Path(path), "file", (str(service),))
    return tuple(found.values()), tuple(notes)


def _references(scalars: Iterable[composefile.Scalar]) -> Iterator[tuple[str, str]]:
    """Files that a compose file names: ("include" | "extends" | "env" | "env_file" | "env_file raw", path)."""
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


def short(path: Path) -> str:
    """As people name it: relative to where we are, when it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
