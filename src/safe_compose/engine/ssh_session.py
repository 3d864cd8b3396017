"""One login for everything that is asked of a daemon at an `ssh://` address.

docker logs in for each connection to such a daemon, several times in one command (docker/cli,
cli/connhelper: `ssh -o ConnectTimeout=30 -T [-l USER] [-p PORT] -- HOST docker system dial-stdio`).
Here the first connection stays open. It forwards the others to the daemon's socket, which starts no
process there; where that does not lead to the same daemon, they are sessions in it (ssh_config(5),
LocalForward and ControlMaster). Where the user's own configuration shares connections, it does.
"""

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from safe_compose.system import children

_DEFAULT_SOCKET = "/var/run/docker.sock"
_FORWARDING = ("-o", "ExitOnForwardFailure=no", "-o", "StreamLocalBindMask=0177")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+=@-]+")
_CONFIGURATION_SECONDS = 10.0
"""Seconds for `ssh -G`, which reads files, and may run a command of `Match exec`."""
_LOOK_SECONDS = 0.01
"""Seconds between two looks at whether the login is complete."""
_SHARES = re.compile(rb"^controlmaster (?:yes|ask|auto|autoask|true)$", re.M)
_HAS_PATH = re.compile(rb"^controlpath (?!none$)", re.M)


class SshSession:
    """The words with which ssh reaches a daemon, and the connection that they share."""

    def __init__(self, url: SplitResult, environ: Mapping[str, str], folder: Path) -> None:
        """Prepare for a daemon.

        Args:
            url: Its address, as `parse_address` returns it.
            environ: The environment of docker.
            folder: A private folder with a short path, for the socket of the connection.
        """
        self._environ = dict(environ)
        self._socket = folder / "m"
        self._master: subprocess.Popen[bytes] | None = None
        ssh = shutil.which("ssh", path=self._environ.get("PATH")) or "ssh"
        path = ("--host", f"unix://{unquote(url.path)}") if url.path.strip("/") else ()
        self._program = ssh
        self._where = make_host_words(url)
        self._remote = ("docker", *path, "system", "dial-stdio")
        self._forwarded = folder / "d"
        self._far_socket = unquote(url.path) if path else _DEFAULT_SOCKET

    def open(self, seconds: float) -> None:
        """Log in, unless the user's configuration shares connections already.

        Where that fails or takes too long, each connection logs in by itself, as docker's do.

        Raises:
            OSError: There is no ssh.
        """
        if self._is_shared_by_user():
            return
        self._master = children.start(
            self._make_command("-M", *self._make_forwarding()),
            environ=self._environ,
            # its end ends the session, also when this process is killed
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + seconds
        while not self._socket.exists() and self._master.poll() is None:
            if time.monotonic() > until:
                break
            time.sleep(_LOOK_SECONDS)

    def _make_forwarding(self) -> tuple[str, ...]:
        # In other paths ssh finds separators, or variables to expand.
        if not all(map(_PLAIN_PATH.fullmatch, (str(self._forwarded), self._far_socket))):
            return ()
        return (*_FORWARDING, "-L", f"{self._forwarded}:{self._far_socket}")

    @property
    def forwarded(self) -> str | None:
        """Return a socket that ssh forwards to where the daemon's usually is, or None.

        A connection by it starts no process on the daemon's machine. Whether the daemon answers
        there has to be tried.
        """
        here = self._master is not None and self._forwarded.exists()
        return str(self._forwarded) if here else None

    def _is_shared_by_user(self) -> bool:
        try:
            found = children.run(
                [self._program, "-G", *self._where],
                seconds=_CONFIGURATION_SECONDS,
                environ=self._environ,
            ).stdout
        except (subprocess.TimeoutExpired, children.TooMuch):
            return False
        return bool(_SHARES.search(found) and _HAS_PATH.search(found))

    def make_command(self) -> tuple[str, ...]:
        """Return the command that is one more connection to the daemon."""
        if self._master is None:
            return self._make_plain_command()
        return self._make_command("-o", "ControlMaster=no")

    def _make_command(self, *flags: str) -> tuple[str, ...]:
        plain = self._make_plain_command()
        return (plain[0], *flags, "-S", str(self._socket), "-o", "ControlPersist=no", *plain[1:])

    def _make_plain_command(self) -> tuple[str, ...]:
        # The remote shell reads the words again.
        remote = [shlex.quote(word) for word in self._remote]
        return (self._program, "-o", "ConnectTimeout=30", "-T", *self._where, *remote)

    def close(self) -> None:
        """Log out."""
        if self._master is not None:
            children.end(self._master)
            if self._master.stdin is not None:
                self._master.stdin.close()


def make_host_words(url: SplitResult) -> tuple[str, ...]:
    """Return the words that name the host, and how to log in there, to ssh."""
    user = ("-l", unquote(url.username)) if url.username else ()
    port = ("-p", str(url.port)) if url.port else ()
    return (*user, *port, "--", _host_of(url))


def _host_of(url: SplitResult) -> str:
    """Return the host as it was written: names in ssh_config are told apart by case."""
    host = url.netloc.rpartition("@")[2]
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def parse_address(endpoint: str) -> SplitResult | None:
    """Return the parts of an `ssh://[USER@]HOST[:PORT][/PATH]` address, None for any other.

    docker refuses a password, a query and a fragment in it (cli/connhelper/ssh, ParseURL).
    """
    try:
        url = urlsplit(endpoint)
        _ = url.port
    except ValueError:
        return None
    if url.scheme != "ssh" or not url.hostname or url.password or url.query or url.fragment:
        return None
    return url
