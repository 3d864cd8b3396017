"""The engine where docker looks when nobody tells it otherwise, asked over its socket: one answer in 2 ms instead of 15.

Docker's own client says where it would go (`engine.connect`); starting it costs more than all the rest of a harmless command.
So the short questions of `shim` come here first, and only where nothing at all could send docker elsewhere. Everything unusual
is no answer, and then docker is asked.
"""
# pathlib and socket would cost more than all of this:
# ruff: noqa: PTH111, PTH118, PTH123

import os

SOCKET = "/var/run/docker.sock"
"""`DefaultHost` of docker/cli (opts/hosts.go) where there is no DOCKER_HOST, no context and no TLS."""
LONGEST = 5.0
"""Seconds for each step; an engine that is slower is asked by docker."""


class Container:
    """What docker would take along with a container."""

    def __init__(self, *, removes_itself: bool, volumes: bool) -> None:
        self.removes_itself = removes_itself
        self.volumes = volumes
        """It mounts some; perhaps also true where it does not."""


def container(name: str) -> Container | None:
    """The container that docker means by a name, an id or the beginning of one; None for anything that is not plain.

    What the engine tells is searched, not parsed: to import json would double what this costs. Within its strings each quote
    is escaped, so a word in quotes with a colon is a key, and one with `false` behind it no label.
    """
    if not (name.isascii() and name.replace("_", "").replace(".", "").replace("-", "").isalnum() and name[0].isalnum()):
        return None
    body = _get(f"/containers/{name}/json") or b""
    removes, stays = b'"AutoRemove":true' in body, b'"AutoRemove":false' in body
    if removes == stays or b'"Mounts":[' not in body or not body.rstrip().endswith(b"}"):
        return None
    return Container(removes_itself=removes, volumes=b'"Type":"volume"' in body)


def is_dockers_choice() -> bool:
    """Whether docker would go to SOCKET: no variable of its own is set, and its configuration names no context."""
    if any(name.startswith("DOCKER_") for name in os.environ):
        return False
    try:
        with open(os.path.join(os.path.expanduser("~"), ".docker", "config.json"), "rb") as file:
            return b"currentContext" not in file.read()
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _get(path: str) -> bytes | None:
    """The body of a 200. HTTP/1.0, so that it comes in one piece and ends with the connection."""
    import _socket

    try:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.settimeout(LONGEST)
            connection.connect(SOCKET)
            connection.send(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(1 << 16):
                answer += piece
        finally:
            connection.close()
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    return body if head.split(b" ", 2)[1:2] == [b"200"] else None
