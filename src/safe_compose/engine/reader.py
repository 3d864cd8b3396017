"""GET of JSON from the daemon's socket, by the standard library: all that a card needs before it is painted.

Everything else goes by docker-py. Importing that takes as long as docker itself takes for two answers, which is too much for
the first look (design, section 12).
"""

import json
import socket
import threading
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode


class Unanswered(Exception):
    """The daemon could not be asked, or answered with a fault; why, in words."""


class SocketConnection(HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Reader:
    """One connection, used by one thread at a time and opened again when the daemon has closed it."""

    def __init__(self, path: str, timeout: float) -> None:
        """`path` of the socket; `timeout` in seconds for each answer. Nothing is asked yet."""
        self._connection = SocketConnection(path, timeout)
        self._lock = threading.Lock()
        self.version = ""
        """Of the API, as the daemon names it (`1.41`); empty until `greet`."""

    def greet(self) -> dict[str, Any]:
        """What the daemon says of its version, which is then the one that is spoken. Raises Unanswered, ValueError, ..."""
        told: dict[str, Any] = self.get("/version")
        self.version = str(told["ApiVersion"])
        return told

    def get(self, path: str, **query: str) -> Any:
        """The body of an answer; None when there is no such thing (404). Raises Unanswered, ValueError when it is no JSON."""
        target = (f"/v{self.version}" if self.version else "") + path + (f"?{urlencode(query)}" if query else "")
        with self._lock:
            try:
                status, body = self._asked(target)
            except (OSError, HTTPException) as error:
                self._connection.close()
                raise Unanswered(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
        if status == 404:
            return None
        if status != 200:
            raise Unanswered(_message(body) or f"HTTP {status}")
        return json.loads(body)

    def close(self) -> None:
        self._connection.close()

    def _asked(self, target: str) -> tuple[int, bytes]:
        again = self._connection.sock is not None
        try:
            return self._once(target)
        except (ConnectionError, HTTPException):
            # A connection that lay idle may have been closed by the other side meanwhile; asking is free of consequences.
            self._connection.close()
            if not again:
                raise
            return self._once(target)

    def _once(self, target: str) -> tuple[int, bytes]:
        self._connection.request("GET", target, headers={"Accept": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return ""
