"""GET requests for JSON to the daemon's socket.

They deliver all that the confirmation screen needs before it is shown. Everything else uses
docker-py, whose import takes as long as docker itself takes for two answers: too much before the
confirmation screen (design, section 12). `http.client` imports a parser of mail and a library for
TLS, which is a tenth of the time until then; of HTTP the daemon's answers need only this much.
"""

import json
import re
import socket
import threading
from typing import IO, Any
from urllib.parse import urlencode

LARGEST = 128 << 20
"""Most bytes of one answer; an engine with ten thousand containers sends less."""
MOST_SHAPES = 4_000_000
"""Most objects and lists of one answer: empty ones take thirty times their size in memory."""
_LONGEST_LINE = 1 << 16
_MOST_LINES = 200
"""Most lines of an answer's head, and most trailing lines after its last chunk."""
_TARGET = re.compile(r"[!-~]+")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\n]*)?\r?\n")
_WITHOUT_BODY = (204, 304)
_FRAMES = frozenset({b"content-length", b"transfer-encoding"})
"""The headers that say where a body ends; without one it ends with the connection."""
_TOO_LARGE = "it is larger than any of an engine"
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")


class NoAnswer(Exception):
    """An error that says why the daemon could not be asked, or how it refused."""


class _Broken(Exception):
    """An error that says how an answer breaks the rules of HTTP, or breaks off."""


class HttpReader:
    """A connection, used by one thread at a time and reopened when the daemon has closed it."""

    def __init__(self, path: str, timeout: float) -> None:
        """Prepare a connection; nothing is requested yet.

        Args:
            path: The socket.
            timeout: Seconds for each read of an answer.
        """
        self._path = path
        self._timeout = timeout
        self._wire: socket.socket | None = None
        self._stream: IO[bytes] | None = None
        """What `_wire` receives."""
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
        if _TARGET.fullmatch(target) is None:
            raise NoAnswer("the address has characters that none of an engine has")
        with self._lock:
            try:
                status, body = self._ask(target)
            except (OSError, _Broken) as error:
                self.close()
                raise NoAnswer(
                    getattr(error, "strerror", None) or str(error) or type(error).__name__
                ) from error
            except BaseException:  # the rest of the answer would be taken for the next one
                self.close()
                raise
        if status == 404:
            return None
        if status != 200:
            raise NoAnswer(_message(body) or f"HTTP {status}")
        return read_json(body)

    def close(self) -> None:
        """Close the connection."""
        for open_one in (self._stream, self._wire):
            if open_one is not None:
                open_one.close()
        self._wire = self._stream = None

    def _ask(self, target: str) -> tuple[int, bytes]:
        reused = self._stream is not None
        try:
            return self._ask_once(target)
        except (ConnectionError, _Broken):
            # The other side may have closed an idle connection in the meantime; a GET can be
            # repeated safely.
            self.close()
            if not reused:
                raise
            return self._ask_once(target)

    def _ask_once(self, target: str) -> tuple[int, bytes]:
        if self._wire is None or self._stream is None:
            self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._wire.settimeout(self._timeout)
            self._wire.connect(self._path)
            self._stream = self._wire.makefile("rb")
        stream = self._stream
        self._wire.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n"
            "Accept: application/json\r\n\r\n".encode("ascii")
        )
        status, stays_open = _read_status(stream)
        headers = _read_headers(stream)
        body = b"" if status in _WITHOUT_BODY else _read_body(stream, headers)
        length_is_known = not _FRAMES.isdisjoint(headers) or status in _WITHOUT_BODY
        if not stays_open or not length_is_known or b"close" in headers.get(b"connection", b""):
            self.close()
        return status, body


def _read_line(stream: IO[bytes]) -> bytes:
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise _Broken("its answer breaks off" if len(line) < _LONGEST_LINE else "no HTTP")
    return line


def _read_status(stream: IO[bytes]) -> tuple[int, bool]:
    """Return the status of an answer, and whether the connection may stay open."""
    line = _read_line(stream)
    found = _STATUS.fullmatch(line)
    if found is None or found[2] < b"200":  # nothing was asked that has an interim answer
        raise _Broken("its answer is no HTTP")
    return int(found[2]), found[1] == b"1"


def _read_headers(stream: IO[bytes]) -> dict[bytes, bytes]:
    """Return the headers of an answer in small letters; of repeated ones the first counts."""
    headers: dict[bytes, bytes] = {}
    for _ in range(_MOST_LINES):
        line = _read_line(stream).strip().lower()
        if not line:
            return headers
        name, _, value = line.partition(b":")
        headers.setdefault(name, value.strip())
    raise _Broken("the head of its answer does not end")


def _read_body(stream: IO[bytes], headers: dict[bytes, bytes]) -> bytes:
    """Return the body of an answer.

    Raises:
        ValueError: It is larger than any of an engine.
    """
    if (coding := headers.get(b"transfer-encoding")) is not None:
        if coding != b"chunked":
            raise _Broken("its answer comes in a coding that nobody asked for")
        return _read_chunks(stream)
    if (length := headers.get(b"content-length")) is None:
        body = stream.read(LARGEST + 1)
        if len(body) > LARGEST:
            raise ValueError(_TOO_LARGE)
        return body
    if _LENGTH.fullmatch(length) is None:
        raise _Broken("its answer is of no length")
    return _read_exactly(stream, int(length))


def _read_chunks(stream: IO[bytes]) -> bytes:
    body = bytearray()
    while True:
        found = _CHUNK.fullmatch(_read_line(stream))
        if found is None:
            raise _Broken("its answer is no HTTP")
        size = int(found[1], 16)
        if size == 0:
            break
        if len(body) + size > LARGEST:
            raise ValueError(_TOO_LARGE)
        body += _read_exactly(stream, size)
        if _read_line(stream).strip():
            raise _Broken("its answer is no HTTP")
    _read_headers(stream)
    return bytes(body)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    if size > LARGEST:
        raise ValueError(_TOO_LARGE)
    found = stream.read(size)
    if len(found) < size:
        raise _Broken("its answer breaks off")
    return found


def read_json(body: bytes) -> Any:
    """Return the content of an answer.

    Raises:
        ValueError: It is no JSON, is larger than any engine's, or has a text with half of a
            surrogate pair, which no file, header or terminal takes.
    """
    if len(body) > LARGEST or body.count(b"{") + body.count(b"[") > MOST_SHAPES:
        raise ValueError(_TOO_LARGE)
    found = json.loads(body)
    if b"\\ud" in body or b"\\uD" in body:
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _message(body: bytes) -> str:
    try:
        return str(read_json(body)["message"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return ""
