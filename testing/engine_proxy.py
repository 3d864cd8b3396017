"""The engine's socket once more: as a port of the loopback, with other answers, or cut off."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from testing.projects import unique

ENGINE = "/var/run/docker.sock"
Copy = Callable[[socket.socket, socket.socket], None]
"""Sends what one connection says to another, until it ends."""


@contextmanager
def accepting(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Hand every connection to `serve`, one after the other, for the length of a block."""

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            serve(near)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def forwarding_tcp() -> Iterator[str]:
    """`tcp://127.0.0.1:PORT`, for DOCKER_HOST or -H, for the length of a block."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    with accepting(listener, partial(relay, asked=copy, answered=copy)):
        yield address


@contextmanager
def answering(answers: Mapping[str, Any]) -> Iterator[str]:
    """Answer a GET of each path, without its version, by this JSON; ask the engine all else.

    Yields the address, for DOCKER_HOST.
    """

    def ask(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if (answer := _find_answer(chunk, answers)) is not None:
                    source.sendall(answer)
                else:
                    target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    with serving(partial(relay, asked=ask, answered=copy)) as address:
        yield address


@contextmanager
def holding(path: str, seconds: float, times: int = 1) -> Iterator[str]:
    """Keep the first requests with this in their path for so long; yields the address."""
    left = iter(range(times))

    def wait() -> None:
        if next(left, None) is not None:
            threading.Event().wait(seconds)

    with noticing(path, wait) as address:
        yield address


@contextmanager
def noticing(path: str, notice: Callable[[], None]) -> Iterator[str]:
    """Call this before each request with this in its path goes on to the engine.

    Yields the address.
    """

    def ask(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if path.encode() in chunk.split(b"\r\n", 1)[0]:
                    notice()
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    with serving(partial(relay, asked=ask, answered=copy)) as address:
        yield address


@contextmanager
def cutting(after: int) -> Iterator[str]:
    """Hang up on whoever has got so many bytes over one connection; yields the address."""

    def answer(source: socket.socket, target: socket.socket) -> None:
        left = after
        with suppress(OSError):
            while left and (data := source.recv(min(left, 65536))):
                target.sendall(data)
                left -= len(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_WR if left else socket.SHUT_RDWR)

    with serving(partial(relay, asked=copy, answered=answer)) as address:
        yield address


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Hand every connection of a socket to `serve`; yields its address."""
    path = Path("/tmp", f"{unique('sc-proxy')}.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    try:
        with accepting(listener, serve):
            yield f"unix://{path}"
    finally:
        path.unlink()


def relay(near: socket.socket, *, asked: Copy, answered: Copy) -> None:
    """Connect a client to the engine."""
    far = socket.socket(socket.AF_UNIX)
    far.connect(ENGINE)
    for send, pair in ((asked, (near, far)), (answered, (far, near))):
        threading.Thread(target=send, args=pair, daemon=True).start()


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _find_answer(chunk: bytes, answers: Mapping[str, Any]) -> bytes | None:
    words = chunk.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if words[0] != "GET" or len(words) < 2:
        return None
    for end, value in answers.items():
        if words[1] == end or (words[1].startswith("/v1.") and words[1].endswith(end)):
            body = json.dumps(value).encode()
            head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            return b"HTTP/1.1 200 OK\r\n" + head.encode() + body
    return None
