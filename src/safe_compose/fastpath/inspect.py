"""Queries to the engine at docker's default socket: an answer in 2 ms instead of 15.

docker's own client says where it would go (`engine.connect`), but starting it costs more than the
rest of a harmless command. So the short queries of `shim` are sent here first, and only where
nothing can send docker elsewhere. An unusual answer counts as none, and then docker is asked.
"""

# pathlib and socket would cost more than all of this:
# ruff: noqa: PTH111, PTH118, PTH123

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

SOCKET = "/var/run/docker.sock"
"""`DefaultHost` of docker/cli (opts/hosts.go) where there is no DOCKER_HOST, no context and no
TLS."""
LONGEST = 5.0
"""Seconds for each step; docker queries a slower engine."""
_AT_ONCE = 32
"""Most questions that wait for an answer at the same time."""
_LOCKS = (
    "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22io.github.safe-compose.lock%22%5D%7D"
)
"""The path that lists the containers with the label of our deletion locks."""


class InspectedContainer:
    """The facts about a container that decide what docker deletes with it."""

    def __init__(self, *, removes_itself: bool, volumes: bool) -> None:
        """Keep the two facts."""
        self.removes_itself = removes_itself
        self.volumes = volumes
        """Whether it mounts volumes; may also be true where it does not."""


def look(
    names: "Sequence[str]", *, locks: bool
) -> "tuple[bool | None, list[InspectedContainer | None]]":
    """Return whether there are deletion locks, and the containers of these names.

    All questions are sent before the first answer is read, so this is one round trip.

    Args:
        names: Names, ids or prefixes of ids.
        locks: Whether to ask for the containers with the label of our deletion locks.

    Returns:
        None for each unusual answer, and for the locks where they were not asked for.
    """
    paths = [_LOCKS] if locks else []
    answers = Queries(SOCKET).get_all([*paths, *map(find_path, names)])
    bodies = [body if whole else b"" for body, whole in answers]
    return (
        _read_listing(bodies[0]) if locks else None,
        [_read_container(body) for body in bodies[len(paths) :]],
    )


def find_path(name: str) -> str | None:
    """Return the path that describes a container, or None for a name that none has."""
    plain = name.replace("_", "").replace(".", "").replace("-", "")
    good = name.isascii() and plain.isalnum() and name[0].isalnum()
    return f"/containers/{name}/json" if good else None


def _read_container(body: bytes) -> InspectedContainer | None:
    """Return the container that an answer describes.

    The answer is searched, not parsed: importing json would double the cost. Within its strings
    each quote is escaped, so a word in quotes with a colon is a key, and one followed by `false` is
    no label.
    """
    removes, stays = b'"AutoRemove":true' in body, b'"AutoRemove":false' in body
    if removes == stays or b'"Mounts":[' not in body or not body.rstrip().endswith(b"}"):
        return None
    return InspectedContainer(removes_itself=removes, volumes=b'"Type":"volume"' in body)


def _read_listing(body: bytes) -> bool | None:
    """Return whether an answer lists anything."""
    body = body.strip()
    if body == b"[]":
        return False
    return True if body.startswith(b"[{") and body.endswith(b"}]") else None


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


class Queries:
    """Questions to one engine, that all together may take so long and no longer."""

    def __init__(self, path: str, patience: float = LONGEST, largest: int = 0) -> None:
        """Ask the engine at a socket.

        Args:
            path: The socket.
            patience: Seconds for each step; with `largest` for all answers together.
            largest: Most bytes of an answer that are read; 0: any number.
        """
        self._path = path
        self._patience = patience
        self._largest = largest
        self._end = 0.0
        self.reached = False
        """Whether anything listens at the socket."""

    def get_all(self, paths: "Sequence[str | None]") -> list[tuple[bytes, bool]]:
        """Return the body of the answer for each path, and whether the engine said all it has.

        The body is empty unless the status is 200. Only 404 says that there is nothing; no path
        asks nothing.
        """
        found: list[tuple[bytes, bool]] = []
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            asked = [None if path is None else self._ask(path) for path in some]
            found += [
                (b"", path is None) if connection is None else self._read(connection)
                for path, connection in zip(some, asked, strict=True)
            ]
        return found

    def _wait(self) -> float:
        """Return how many seconds the next step may take.

        Raises:
            TimeoutError: The time for all answers is over.
        """
        if not self._largest:
            return self._patience
        import time

        now = time.monotonic()
        self._end = self._end or now + self._patience
        if now >= self._end:
            raise TimeoutError
        return self._end - now

    def _ask(self, path: str) -> "socket | None":
        """Send a question; return the connection, or None where there is none.

        HTTP/1.0, so that the body is not chunked and ends with the connection.
        """
        import _socket

        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.settimeout(self._wait())
            connection.connect(self._path)
            self.reached = True
            connection.send(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        except OSError:
            connection.close()
            return None
        return connection

    def _read(self, connection: "socket") -> tuple[bytes, bool]:
        pieces, size, whole = [], 0, False
        try:
            while not self._largest or size < self._largest:
                connection.settimeout(self._wait())
                piece = connection.recv(1 << 16)
                if not piece:
                    whole = True
                    break
                pieces.append(piece)
                size += len(piece)
        except OSError:
            pass
        finally:
            connection.close()
        head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
        status = head.split(b" ", 2)[1:2]
        return (body, whole) if status == [b"200"] else (b"", whole and status == [b"404"])
