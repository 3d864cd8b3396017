"""The engine's socket once more, where some questions get another answer."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from testing.projects import unique

ENGINE = "/var/run/docker.sock"


@contextmanager
def answering(answers: Mapping[str, Any]) -> Iterator[str]:
    """Answer a GET of each path, without its version, by this JSON; ask the engine all else.

    Yields the address, for DOCKER_HOST.
    """
    path = Path("/tmp", f"{unique('sc-proxy')}.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)

    def find(chunk: bytes) -> bytes | None:
        words = chunk.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if words[0] != "GET" or len(words) < 2:
            return None
        for end, value in answers.items():
            if words[1] == end or (words[1].startswith("/v1.") and words[1].endswith(end)):
                body = json.dumps(value).encode()
                head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                return b"HTTP/1.1 200 OK\r\n" + head.encode() + body
        return None

    def pump(source: socket.socket, target: socket.socket, *, asks: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if asks and (answer := find(chunk)) is not None:
                    source.sendall(answer)
                else:
                    target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(ENGINE)
            threading.Thread(
                target=pump, args=(near, far), kwargs={"asks": True}, daemon=True
            ).start()
            threading.Thread(
                target=pump, args=(far, near), kwargs={"asks": False}, daemon=True
            ).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"unix://{path}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        path.unlink()
