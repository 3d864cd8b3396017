"""Servers that copies go to: OpenSSH's sshd and moto's S3, as processes on ports of their own; and
a line that can be cut.
"""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from testing.projects import wait_until

KEY_ID, SECRET = "AKIDOFTHELAB", "canary-91c4-secret-access-key"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass(frozen=True)
class NetworkLine:
    """A server, and what a client's environment needs to reach it."""

    port: int
    folder: Path
    """Where an SFTP server keeps the copies; a place for notes otherwise."""
    environment: Mapping[str, str]


@contextmanager
def sftp_server(folder: Path, settings: str = "") -> Iterator[NetworkLine]:
    """sshd with a host key, a configuration and one user's key of its own. The client's `ssh` on
    PATH reads only those. `settings` are more lines of its configuration.
    """
    folder.mkdir(parents=True)
    copies = folder / "copies"
    copies.mkdir()
    port = free_port()
    for name in ("host_key", "key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    (folder / "authorized_keys").write_bytes((folder / "key.pub").read_bytes())
    (folder / "known_hosts").write_text(
        f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}"
    )
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM"
        f" no\nStrictModes no\nAuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication"
        " no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp"
        f" internal-sftp\n{settings}"
    )
    (folder / "ssh_config").write_text(
        f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile"
        f" /dev/null\nStrictHostKeyChecking yes\nIdentityFile {folder}/key\nIdentitiesOnly yes\n"
    )
    programs = folder / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    ssh.chmod(0o755)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program, "no sshd: testing/up brings one"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [program, "-D", "-e", "-f", folder / "sshd_config"],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        wait_until("sshd answers", lambda: server.poll() is not None or answers(port))
        assert server.poll() is None, (folder / "log").read_text()
        yield NetworkLine(port, copies, {"PATH": f"{programs}:{os.environ['PATH']}"})
    finally:
        server.terminate()
        server.wait()


def user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


@contextmanager
def s3_server(folder: Path) -> Iterator[NetworkLine]:
    """moto's server with a bucket `copies`. It takes every key, and gives back what it was given."""
    folder.mkdir(parents=True)
    port = free_port()
    with (folder / "log").open("wb") as log:
        program = Path(sys.executable).with_name("moto_server")
        server = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.DEVNULL,
            stderr=log,
            stdout=log,
        )
    try:
        wait_until("moto answers", lambda: server.poll() is not None or answers(port))
        assert server.poll() is None, (folder / "log").read_text()
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/copies", method="PUT"), timeout=30
        ).close()
        yield NetworkLine(
            port, folder, {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        )
    finally:
        server.terminate()
        server.wait()


class BrokenLine:
    """A line to a server that carries so many bytes towards it and then holds on, until `through()`
    or the end.
    """

    def __init__(self, port: int, carries: int) -> None:
        self.held = threading.Event()
        """Set when it has carried what it carries."""
        self._left = carries
        self._through = threading.Event()
        self._lock = threading.Lock()
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "BrokenLine":
        return self

    def __exit__(self, *_: object) -> None:
        self._through.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                for source, sink, metered in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=self._carry, args=(source, sink, metered), daemon=True
                    ).start()

    def _carry(self, source: socket.socket, sink: socket.socket, metered: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if metered:
                    with self._lock:
                        self._left -= len(data)
                    if self._left < 0 and not self._through.is_set():
                        self.held.set()
                        self._through.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
