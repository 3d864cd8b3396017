"""GET requests for JSON to the daemon's socket, by the standard library.

They deliver all that the confirmation screen needs before it is shown. Everything else uses
docker-py, whose import takes as long as docker itself takes for two answers: too much before the
confirmation screen (design, section 12).
"""

import json
import socket
import threading
from http.client import HTTPConnection, HTTPException, IncompleteRead
from typing import Any
from urllib.parse import urlencode

LARGEST = 128 << 20
"""Most bytes of one answer; an engine with ten thousand containers sends less."""
MOST_SHAPES = 4_000_000
"""Most objects and lists of one answer: empty ones take thirty times their size in memory."""


class NoAnswer(Exception):
    """An error that says why the daemon could not be asked, or how it refused."""


class SocketConnection(HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        """Prepare a connection to the socket at `path`; `timeout` is in seconds."""
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class HttpReader:
    """A connection, used by one thread at a time and reopened when the daemon has closed it."""

    def __init__(self, path: str, timeout: float) -> None:
        """Prepare a connection; nothing is requested yet.

        Args:
            path: The socket.
            timeout: Seconds for each answer.
        """
        self._connection = SocketConnection(path, timeout)
        self._lock = threading.Lock()
        self.version = ""
        """The API version, as the daemon names it (`1.41`); empty until `greet`."""

    def greet(self) -> dict[str, Any]:
        """Return the daemon's version document, and use its API version from now on.

        Raises:
            NoAnswer: The daemon could not be asked.
            ValueError: The answer is no JSON.
            LookupError: The answer names no version.
        """
        version: dict[str, Any] = self.get("/version")
        self.version = str(version["ApiVersion"])
        return version

    def get(self, path: str, **query: str) -> Any:
        """Return the body of an answer; None when there is no such object (404).

        Raises:
            NoAnswer: The daemon could not be asked, or answered with an error.
            ValueError: The answer is no JSON, or is larger than any engine's.
        """
        target = (
            (f"/v{self.version}" if self.version else "")
            + path
            + (f"?{urlencode(query)}" if query else "")
        )
        with self._lock:
            try:
                status, body = self._ask(target)
            except (OSError, HTTPException) as error:
                self._connection.close()
                raise NoAnswer(
                    getattr(error, "strerror", None) or str(error) or type(error).__name__
                ) from error
        if status == 404:
            return None
        if status != 200:
            raise NoAnswer(_message(body) or f"HTTP {status}")
        return read_json(body)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, target: str) -> tuple[int, bytes]:
        reused = self._connection.sock is not None
        try:
            return self._once(target)
        except (ConnectionError, HTTPException):
            # The other side may have closed an idle connection in the meantime; a GET can be
            # repeated safely.
            self._connection.close()
            if not reused:
                raise
            return self._once(target)

    def _once(self, target: str) -> tuple[int, bytes]:
        self._connection.request("GET", target, headers={"Accept": "application/json"})
        answer = self._connection.getresponse()
        body = answer.read(LARGEST + 1)
        if len(body) > LARGEST:
            self._connection.close()  # the rest is still on its way
        elif answer.length:
            raise IncompleteRead(body, answer.length)
        return answer.status, body


def read_json(body: bytes) -> Any:
    """Return the content of an answer.

    Raises:
        ValueError: It is no JSON, is larger than any engine's, or has a text with half of a
            surrogate pair, which no file, header or terminal takes.
    """
    if len(body) > LARGEST or body.count(b"{") + body.count(b"[") > MOST_SHAPES:
        raise ValueError("it is larger than any of an engine")
    found = json.loads(body)
    if b"\\ud" in body or b"\\uD" in body:
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _message(body: bytes) -> str:
    try:
        return str(read_json(body)["message"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return ""
