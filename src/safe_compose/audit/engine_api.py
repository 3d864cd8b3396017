"""Deletions of volumes through the engine's API: curl, wget, nc and their like.

This module is pure.
"""

import re
from typing import NamedTuple

from safe_compose.audit.shell_line import SimpleCommand

_ENGINE = re.compile(r"(?:docker|podman|containerd|nerdctl)\.sock|:237[56]\b|^tcp://")
_VARIABLE = re.compile(r"\$\{?\w*(?:DOCKER|PODMAN|CONTAINER)\w*\}?", re.IGNORECASE)
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"})
_PATH = re.compile(
    r"/(volumes|containers|system|plugins)(?:/([^?\s\"'/]+))?(?:/[\w-]+)?(\?[^\s\"']*)?"
)


class ApiCall(NamedTuple):
    """A request to the engine's API, as far as the words show it."""

    deletes: bool
    """Whether it deletes a volume."""
    sure: bool
    """Whether it surely goes to an engine, and its words are known."""


def read_api_call(command: SimpleCommand, text: str) -> ApiCall | None:
    """Return the request to an engine's API that a sender makes, or None.

    Args:
        command: The sender.
        text: The line, which may name the socket in a variable.
    """
    words = [word.text for word in command.words[1:]]
    joined = " ".join(words)
    sure = bool(_ENGINE.search(joined))
    socket = "--unix-socket" in joined or "--abstract-unix-socket" in joined
    likely = socket or bool(_VARIABLE.search(joined) or re.search(r"\.sock\b", joined))
    if not (sure or likely):
        return None
    if command.program in ("nc", "ncat", "netcat", "socat"):
        body = " ".join(word.text for word in command.stdin) or text
        requests = re.findall(r"\b(DELETE|POST)\s+(/\S+)", body)
        return ApiCall(any(_deletes(method, path) for method, path in requests), sure)
    method = _read_method(words)
    known = all(word.sure for word in command.words) or "/" in joined.replace("$", "")
    paths = [word for word in words if "/" in word]
    if any(_deletes(method, path) for path in paths):
        return ApiCall(True, sure)
    unknown = [w for w in command.words[1:] if not w.sure and not _names_path(w.text)]
    if method in ("DELETE", "POST") and unknown and not any(_PATH.search(p) for p in paths):
        hidden = not any(re.search(r"/(images|networks|build|exec)\b", path) for path in paths)
        return ApiCall(False, False) if hidden and known else None
    return None


def _names_path(text: str) -> bool:
    return bool(re.search(r"/[a-z]+", re.sub(r"^\$\{?\w+\}?", "", text)))


def _read_method(words: list[str]) -> str:
    """Return the method of a request, by the flags of curl, wget, httpie and xh."""
    method = ""
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        if word.upper() in _METHODS and index < 3:
            method = word.upper()
        elif word in ("--request", "--method"):
            method = following.upper()
        elif found := re.match(r"--(?:request|method)=(.+)", word):
            method = found[1].upper()
        elif found := re.match(r"-[a-zA-Z]*?X(.*)", word):
            method = (found[1] or following).upper()
        elif re.match(r"-[a-zA-Z]*d|--data|--json|--form|-F|--post-data|--body-data", word):
            method = method or "POST"
    return method or "GET"


def _deletes(method: str, path: str) -> bool:
    """Return whether a request deletes a volume."""
    found = _PATH.search(path)
    if found is None:
        return False
    kind, name, query = found[1], found[2] or "", found[3] or ""
    if method == "DELETE":
        if kind == "containers":
            return bool(re.search(r"[?&](?:v|volumes)=(?:1|true|t)\b", query, re.IGNORECASE))
        return kind == "volumes"
    if method == "POST" and name == "prune":
        return kind == "volumes" or (kind == "system" and "volumes" in query)
    return method == "POST" and kind == "volumes" and "prune" in path
