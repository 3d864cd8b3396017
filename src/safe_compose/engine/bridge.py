"""A private local socket that leads to a daemon whose own socket cannot be opened here."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult

from safe_compose.compose.probe import PROBE_TIMEOUT
from safe_compose.engine.ssh_session import SshSession
from safe_compose.system import children

_SOCKET_FOLDER = 80
"""Largest length of a folder for sockets: `sockaddr_un.sun_path` has 108 bytes (unix(7); 104 on
BSD), and ssh first gives its socket a name with 17 more."""


class Bridge:
    """A private local socket that leads to the daemon.

    Each connection becomes the stdin and stdout of a process: `docker system dial-stdio`, here or
    by ssh on the daemon's machine.

    The kernel then does the copying, both ways and with half-closes; no byte passes through this
    process.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Listen on a new socket in a private folder; each connection runs `argv`."""
        self._argv = tuple(argv)
        self._environ = dict(environ)
        self._session: SshSession | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        # mkdtemp makes it 0700: no other user can connect
        self._folder = tempfile.mkdtemp(prefix="safe-compose-")
        if len(self._folder) > _SOCKET_FOLDER:
            Path(self._folder).rmdir()
            self._folder = tempfile.mkdtemp(prefix="safe-compose-", dir="/tmp")
        self.path = f"{self._folder}/s"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(16)
        threading.Thread(target=self._serve, name="docker-bridge", daemon=True).start()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the sockets that may lead to the daemon, the fastest first; the last one does."""
        forwarded = self._session.forwarded if self._session is not None else None
        return (forwarded, self.path) if forwarded is not None else (self.path,)

    @property
    def is_session(self) -> bool:
        """Return whether all connections share one login."""
        return self._session is not None

    def log_in(self, address: SplitResult) -> None:
        """Log in once at an `ssh://` address; the connections from now on share that.

        Where there is no ssh, docker says so.
        """
        session = SshSession(address, self._environ, Path(self._folder))
        with contextlib.suppress(OSError):
            session.open(PROBE_TIMEOUT)
            self._session, self._argv = session, session.make_command()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed by `close`
            with connection:
                self._children = [c for c in self._children if c.poll() is None]
                self._children.append(
                    children.start(
                        self._argv,
                        environ=self._environ,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=subprocess.DEVNULL,
                    )
                )

    def close(self) -> None:
        """Close the socket, and end the children."""
        # shutdown, because close alone does not wake an accept that waits in another thread (Linux)
        # BSD refuses it for a listening socket, but there close wakes it
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for child in self._children:
            children.end(child)
        if self._session is not None:
            self._session.close()
        shutil.rmtree(self._folder, ignore_errors=True)
