"""The plan of a destructive command from the engine, within a time that a hook may take."""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safe_compose.audit.agent_verdicts import Look, explain

_TO_CONNECT = 0.15
"""Seconds in which an engine's socket must take a connection."""
_LEAST = 0.3
"""Seconds below which no look is begun: the child that looks takes longer to start."""
_GLOBAL_FLAGS = ("-H", "-c", "--host", "--context", "--config", "--tls")
_CONFIG_BYTES = 1 << 20


def make_look(until: float) -> Look:
    """Return a look that ends at a moment of the monotonic clock, and then knows nothing."""

    def look(words: Sequence[str], here: Path) -> Mapping[str, Any] | None:
        if until - time.monotonic() < _LEAST or not _may_answer(words):
            return None
        return explain(words, here, seconds=until - time.monotonic())

    return look


def _may_answer(words: Sequence[str]) -> bool:
    """Return False when the engine of a command surely does not answer.

    True also where that is not known: another machine, or a context of the command itself.
    """
    if any(word.startswith(_GLOBAL_FLAGS) for word in words):
        return True
    endpoint = os.environ.get("DOCKER_HOST") or _read_endpoint_of_context()
    scheme, _, address = endpoint.partition("://")
    try:
        if scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_TO_CONNECT)
                connection.connect(address)
        elif scheme == "tcp":
            host, _, port = address.rstrip("/").rpartition(":")
            if host.replace(".", "").isdecimal():  # a name may take long to look up
                socket.create_connection((host, int(port)), _TO_CONNECT).close()
    except (OSError, ValueError):
        return False
    return True


def _read_endpoint_of_context() -> str:
    """Return the endpoint of docker's current context; empty where it is not known."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    name = os.environ.get("DOCKER_CONTEXT")
    try:
        name = name or _read_json(folder / "config.json").get("currentContext")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError):
        return ""
    if name in (None, "", "default"):
        return "unix:///var/run/docker.sock"
    try:
        import hashlib  # takes 10 ms, and contexts are rare

        stored = hashlib.sha256(str(name).encode()).hexdigest()
        meta = _read_json(folder / "contexts" / "meta" / stored / "meta.json")
        return str(meta["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _read_json(path: Path) -> Any:
    with path.open("rb") as file:
        return json.loads(file.read(_CONFIG_BYTES))
