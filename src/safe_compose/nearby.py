"""The engine where docker looks when nobody tells it otherwise, asked over its socket: one answer in 2 ms instead of 15.

Docker's own client says where it would go (`engine.connect`); starting it costs more than all the rest of a harmless command.
So the short questions of `shim` come here first, and only where nothing at all could send docker elsewhere. Everything unusual
is no answer, and then docker is asked.
"""
# pathlib and socket would cost more than all of this:
# ruff: noqa: PTH111, PTH118, PTH123

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SOCKET = "/var/run/docker.sock"
"""`DefaultHost` of docker/cli (opts/hosts.go) where there is no DOCKER_HOST, no context and no TLS."""
LONGEST = 5.0
"""Seconds for each step; an engine that is slower is asked by docker."""


class Container:
    """What docker would take along with a container."""

    def __init__(self, *, removes_itself: bool, mounts: "Sequence[str]") -> None:
        self.removes_itself = removes_itself
        self.mounts = mounts
        """The type of each: volume, bind, tmpfs."""


def container(name: str) -> Container | None:
    """The container that docker means by a name, an id or the beginning of one; None for anything that is not plain."""
    if not (name.isascii() and name.replace("_", "").replace(".", "").replace("-", "").isalnum() and name[0].isalnum()):
        return None
    body = _get(f"/containers/{name}/json")
    if body is None:
        return None
    import json

    try:
        found = json.loads(body)
        removes = found["HostConfig"]["AutoRemove"]
        mounts = [mount["Type"] for mount in found["Mounts"]]
    except (ValueError, KeyError, TypeError):
        return None
    return Container(removes_itself=removes, mounts=mounts) if isinstance(removes, bool) else None


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
