"""The output of a helper, read from the daemon's own socket without a docker client.

The client copies every byte once more, from the socket into a pipe, which is a third of the cost of
a stream (run, CPU time for 1.5 GB: 13 s with it, 8.5 s without). Our connection to the daemon is
always a socket of this machine (`connect`), so only reading is needed here. Input still goes
through the client, which half-closes on every transport.
"""

import io
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from typing import IO, Any

from safe_compose.engine.client_stream import CHUNK, TAIL, HelperFailed, Stream
from safe_compose.engine.connect import READ_TIMEOUT
from safe_compose.errors import OperationFailed

SINCE = (1, 30)
"""The first API version that lets a client wait for a container's removal before it is started."""
_TAKEN = 1 << 20
"""Most bytes taken from the socket at once; a frame has at most 32 KiB."""
_LITTLE = 128 << 10
_NAP = 0.001
"""Bytes, and the pause in seconds after a read of no more than that many: frames come one by one,
and waking up for each of them costs an eighth of the time of an archive (run)."""
_SMALL = 64 << 10
"""Size of the buffer for readers of lines; larger reads bypass it."""
_LONGEST_ANSWER = 1 << 16
_STDOUT = 1
_HEAD = struct.Struct(">B3xI")


@contextmanager
def starting_attached(
    path: str,
    version: str,
    container_id: str,
    *,
    what: str,
    name: str,
    start: Callable[[], None],
    clean: Callable[[], None],
) -> Iterator[Stream]:
    """Start a created container that removes itself, and read its output during the block.

    Leaving the block waits for the removal of the container; any exception removes it.

    Args:
        path: The daemon's socket.
        version: The API version.
        container_id: Id of the created container.
        what: The helper, for messages.
        name: Name of the container.
        start: Starts the container.
        clean: Removes the container.

    Raises:
        HelperFailed: The container did not end with 0.
        OperationFailed: The connection to the daemon broke, also while the output was read.
    """
    target = f"/v{version}/containers/{container_id}"
    tail = bytearray()
    try:
        with (
            closing(_SocketConnection(path, READ_TIMEOUT)) as ending,
            socket.socket(socket.AF_UNIX) as wire,
        ):
            with _translating_errors(what):
                # Request this before the start: a container that has removed itself has no exit
                # code left to ask for.
                ending.request("POST", f"{target}/wait?condition=removed")
                patient, answer = ending.sock, ending.getresponse()
                if answer.status != 200:
                    raise ValueError(f"HTTP {answer.status}")
                wire.settimeout(READ_TIMEOUT)
                wire.connect(path)
                output = _output(what, wire, target, tail)
            start()
            for connection in (patient, wire):
                connection.settimeout(None)  # a program may be silent for any length of time
            opened = Stream(output, None, name, what, clean)
            yield opened
            while output.read(CHUNK):
                continue
            with _translating_errors(what):
                code = _code(answer.read())
    except BaseException:
        clean()
        raise
    words = bytes(tail).decode("utf-8", "replace")
    if code:
        raise HelperFailed(what, code, words)
    opened.warnings = words.strip()


@contextmanager
def _translating_errors(what: str) -> Iterator[None]:
    """Turn an error of the connection, or an unexpected answer, into OperationFailed."""
    try:
        yield
    except (OSError, HTTPException, LookupError, TypeError, ValueError) as error:
        raise OperationFailed(
            f"{what}: the daemon broke off ({error or type(error).__name__})"
        ) from error


def _output(what: str, wire: socket.socket, target: str, tail: bytearray) -> IO[bytes]:
    """Return the output of a container, which follows the head of the daemon's answer.

    Raises:
        OSError: The connection broke.
        ValueError: The daemon did not switch to a stream.
    """
    head = f"POST {target}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: localhost\r\n"
    wire.sendall(
        f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode("ascii")
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = wire.recv(1)  # one byte at a time, so that no output is consumed
        if not more or len(answer) > _LONGEST_ANSWER:
            raise ValueError("no answer")
        answer += more
    status, _, _ = answer.partition(b"\r\n")
    if status.split()[1:2] != [b"101"]:
        raise ValueError(status.decode("ascii", "replace"))
    return io.BufferedReader(_Output(what, wire, tail), _SMALL)


def _code(body: bytes) -> int:
    """Return the exit code of a container.

    Raises:
        ValueError: The daemon does not report it.
    """
    answer: dict[str, Any] = json.loads(body)
    if fault := answer.get("Error"):
        raise ValueError(str(fault))
    return int(answer["StatusCode"])


class _SocketConnection(HTTPConnection):
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


class _Output(io.RawIOBase):
    """The stdout of a container, taken from the daemon's frames.

    A frame begins with one byte of stream number, three zeros and four bytes of length.
    """

    def __init__(self, what: str, wire: socket.socket, tail: bytearray) -> None:
        """Read from `wire`; the end of the container's stderr is appended to `tail`."""
        self._what = what
        self._wire = wire
        self._tail = tail
        """Gets the end of the container's stderr."""
        self._taken = memoryview(bytearray(_TAKEN))
        self._begin = self._end = 0
        """Bounds of the bytes in `_taken` that have not been returned yet."""
        self._kind = self._left = 0
        """Stream of the current frame, and its number of bytes still to come."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read stdout into the buffer; return the number of bytes, 0 at the end.

        Raises:
            OperationFailed: The connection broke, or ended within a frame.
        """
        given = 0
        with memoryview(buffer) as free, _translating_errors(self._what):
            while not given:
                given = self._give(free)
                if not given and not self._take():
                    break
        return given

    def _give(self, free: memoryview) -> int:
        """Copy the stdout that has arrived into `free`, as far as it fits; return its length."""
        given = 0
        while given < len(free):
            if not self._left:
                if self._end - self._begin < _HEAD.size:
                    break
                self._kind, self._left = _HEAD.unpack_from(self._taken, self._begin)
                self._begin += _HEAD.size
            elif self._begin == self._end:
                break
            some = self._taken[self._begin : min(self._begin + self._left, self._end)]
            if self._kind == _STDOUT:
                some = some[: len(free) - given]
                free[given : given + len(some)] = some
                given += len(some)
            else:
                self._tail += some
                del self._tail[:-TAIL]
            self._begin += len(some)
            self._left -= len(some)
        return given

    def _take(self) -> bool:
        """Wait for more from the daemon; return False at the end.

        Raises:
            OSError: The connection broke.
            ValueError: The stream ended within a frame.
        """
        rest = self._end - self._begin
        self._taken[:rest] = self._taken[self._begin : self._end]
        count = self._wire.recv_into(self._taken[rest:])
        self._begin, self._end = 0, rest + count
        if not count and (rest or self._left):
            raise ValueError("within a frame")
        if 0 < count < _LITTLE:
            time.sleep(_NAP)
        return count > 0
