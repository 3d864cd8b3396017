"""Queries to the engine at docker's default socket: an answer in 2 ms instead of 15.

docker's own client says where it would go (`engine.connect`), but starting it costs more than the
rest of a harmless command. So the short queries of `shim` are sent here first, and only where
nothing can send docker elsewhere. An unusual answer counts as none, and then docker is asked.
"""

# pathlib and socket would cost more than all of this:
# ruff: noqa: PTH111, PTH118, PTH123

import os

SOCKET = "/var/run/docker.sock"
"""`DefaultHost` of docker/cli (opts/hosts.go) where there is no DOCKER_HOST, no context and no
TLS."""
LONGEST = 5.0
"""Seconds for each step; docker queries a slower engine."""


class InspectedContainer:
    """The facts about a container that decide what docker deletes with it."""

    def __init__(self, *, removes_itself: bool, volumes: bool) -> None:
        """Keep the two facts."""
        self.removes_itself = removes_itself
        self.volumes = volumes
        """Whether it mounts volumes; may also be true where it does not."""


def container(name: str) -> InspectedContainer | None:
    """Return the container with a name, an id or a prefix of one; None for any unusual answer.

    The engine's answer is searched, not parsed: importing json would double the cost. Within its
    strings each quote is escaped, so a word in quotes with a colon is a key, and one followed by
    `false` is no label.
    """
    if not (
        name.isascii()
        and name.replace("_", "").replace(".", "").replace("-", "").isalnum()
        and name[0].isalnum()
    ):
        return None
    body = _get(f"/containers/{name}/json") or b""
    removes, stays = b'"AutoRemove":true' in body, b'"AutoRemove":false' in body
    if removes == stays or b'"Mounts":[' not in body or not body.rstrip().endswith(b"}"):
        return None
    return InspectedContainer(removes_itself=removes, volumes=b'"Type":"volume"' in body)


def holds_locks() -> bool | None:
    """Return whether any container has the label of our deletion locks, or None.

    None for an unusual answer.
    """
    body = (
        _get(
            "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22io.github.safe-compose.lock%22%5D%7D"
        )
        or b""
    ).strip()
    return (
        False
        if body == b"[]"
        else True
        if body.startswith(b"[{") and body.endswith(b"}]")
        else None
    )


def is_dockers_choice() -> bool:
    """Return whether docker would go to SOCKET.

    That is so when none of its variables is set and its configuration names no context.
    """
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
    """Return the body of a 200 answer, or None.

    HTTP/1.0, so that the body is not chunked and ends with the connection.
    """
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
