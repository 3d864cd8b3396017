"""The output of a helper from the daemon's own socket, with no docker client between.

That one copies every byte once more, from the socket into a pipe, which is a third of what a stream costs (run, CPU time for
1.5 GB: 13 s with it, 8.5 s without). Our way to the daemon always is a socket of this machine (`connect`), so only reading is
needed for that: what goes in takes the client, which half-closes on every transport.
"""

import io
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException
from typing import IO, Any

from safe_compose.engine.clients import CHUNK, TAIL, HelperFailed, Stream
from safe_compose.engine.connect import READ_TIMEOUT
from safe_compose.engine.reader import SocketConnection
from safe_compose.errors import BackupFailed

SINCE = (1, 30)
"""The API from which on one can wait for a container's removal before it is started."""
_TAKEN = 1 << 20
"""Bytes taken from the socket at once, if they are there: a frame has at most 32 KiB."""
_LITTLE = 128 << 10
_NAP = 0.001
"""Bytes, and the seconds for which the socket is left alone after no more than that: frames come one by one, and to be woken for
each of them costs an eighth of the time of an archive (run)."""
_SMALL = 64 << 10
"""Of the buffer for whoever reads lines; larger reads go by it."""
_LONGEST_ANSWER = 1 << 16
_STDOUT = 1
_HEAD = struct.Struct(">B3xI")


@contextmanager
def attached(
    path: str,
    version: str,
    container_id: str,
    *,
    what: str,
    name: str,
    start: Callable[[], None],
    clean: Callable[[], None],
) -> Iterator[Stream]:
    """Start a created container that removes itself, and read its output for the length of the block.

    Given the daemon's socket and API, what to call it in a message, and what starts and what removes the container. Leaving the
    block waits for its removal, and raises HelperFailed unless it ended with 0; any exception removes it. Raises BackupFailed when
    the daemon breaks off, also while its output is read.
    """
    target = f"/v{version}/containers/{container_id}"
    tail = bytearray()
    try:
        with closing(SocketConnection(path, READ_TIMEOUT)) as ending, socket.socket(socket.AF_UNIX) as wire:
            with _talking(what):
                # Asked before it starts: afterwards nobody could tell how it ended, since it removes itself.
                ending.request("POST", f"{target}/wait?condition=removed")
                patient, answer = ending.sock, ending.getresponse()
                if answer.status != 200:
                    raise ValueError(f"HTTP {answer.status}")
                wire.settimeout(READ_TIMEOUT)
                wire.connect(path)
                output = _output(what, wire, target, tail)
            start()
            for connection in (patient, wire):
                connection.settimeout(None)  # a program may be silent for as long as it likes
            yield Stream(output, None, name, what, clean)
            while output.read(CHUNK):
                continue
            with _talking(what):
                code = _code(answer.read())
    except BaseException:
        clean()
        raise
    if code:
        raise HelperFailed(what, code, bytes(tail).decode("utf-8", "replace"))


@contextmanager
def _talking(what: str) -> Iterator[None]:
    """A fault of the connection, or an answer that is none of docker's: BackupFailed."""
    try:
        yield
    except (OSError, HTTPException, LookupError, TypeError, ValueError) as error:
        raise BackupFailed(f"{what}: the daemon broke off ({error or type(error).__name__})") from error


def _output(what: str, wire: socket.socket, target: str, tail: bytearray) -> IO[bytes]:
    """The output of a container, which follows the head of the daemon's answer. Raises OSError, ValueError."""
    head = f"POST {target}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: localhost\r\n"
    wire.sendall(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = wire.recv(1)  # no byte of the output may be taken with it
        if not more or len(answer) > _LONGEST_ANSWER:
            raise ValueError("no answer")
        answer += more
    status, _, _ = answer.partition(b"\r\n")
    if status.split()[1:2] != [b"101"]:
        raise ValueError(status.decode("ascii", "replace"))
    return io.BufferedReader(_Output(what, wire, tail), _SMALL)


def _code(body: bytes) -> int:
    """What a container ended with. Raises ValueError where the daemon does not tell."""
    told: dict[str, Any] = json.loads(body)
    if fault := told.get("Error"):
        raise ValueError(str(fault))
    return int(told["StatusCode"])


class _Output(io.RawIOBase):
    """The stdout of a container within the daemon's frames: one byte that tells the stream, three of nothing, four of length."""

    def __init__(self, what: str, wire: socket.socket, tail: bytearray) -> None:
        self._what = what
        self._wire = wire
        self._tail = tail
        """Gets the end of its stderr."""
        self._taken = memoryview(bytearray(_TAKEN))
        self._begin = self._end = 0
        """Where in that lie the bytes that were not given yet."""
        self._kind = self._left = 0
        """The stream of the frame under way, and how much of it is to come."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        given = 0
        with memoryview(buffer) as room, _talking(self._what):
            while not given:
                given = self._give(room)
                if not given and not self._take():
                    break
        return given

    def _give(self, room: memoryview) -> int:
        """What is at hand of the stdout, as far as there is room; the number of bytes."""
        given = 0
        while given < len(room):
            if not self._left:
                if self._end - self._begin < _HEAD.size:
                    break
                self._kind, self._left = _HEAD.unpack_from(self._taken, self._begin)
                self._begin += _HEAD.size
            elif self._begin == self._end:
                break
            some = self._taken[self._begin : min(self._begin + self._left, self._end)]
            if self._kind == _STDOUT:
                some = some[: len(room) - given]
                room[given : given + len(some)] = some
                given += len(some)
            else:
                self._tail += some
                del self._tail[:-TAIL]
            self._begin += len(some)
            self._left -= len(some)
        return given

    def _take(self) -> bool:
        """Wait for more from the daemon; False at the end. Raises OSError, ValueError where that comes amid a frame."""
        rest = self._end - self._begin
        self._taken[:rest] = self._taken[self._begin : self._end]
        count = self._wire.recv_into(self._taken[rest:])
        self._begin, self._end = 0, rest + count
        if not count and (rest or self._left):
            raise ValueError("within a frame")
        if 0 < count < _LITTLE:
            time.sleep(_NAP)
        return count > 0
