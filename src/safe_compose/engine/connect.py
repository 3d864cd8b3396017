"""The way to the daemon that the command itself would reach, proved to be that one.

docker-py's `from_env()` takes an unknown context for the local engine (dependencies.md 2.1, run), so nothing of it is used:
docker is asked where it would go. A local unix socket is then opened directly; every other way (tcp with TLS, ssh, npipe)
goes through `docker system dial-stdio`, so that contexts, certificates, ssh and custom headers stay docker's own business.
"""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.engine.reader import Reader, Unanswered
from safe_compose.errors import DockerNotFound, EngineUnavailable

if TYPE_CHECKING:
    from docker.api.client import APIClient

READ_TIMEOUT = 60
"""Seconds that one read of the API may take."""
PROBE_TIMEOUT = 60.0
"""Seconds for docker's own answers; ssh to a far host is slow, a dead one must not hang a deploy job for ever."""
_PLAIN_SOCKET = re.compile(r"unix:///[A-Za-z0-9_./+=@,-]+")
MISREAD = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What docker-py and we stumble over when an answer has another shape than docker's (`KeyError: 'message'`)."""
_SUN_PATH = 100
"""Bytes that fit `sockaddr_un.sun_path` (108, unix(7); 104 on BSD)."""


@dataclass(frozen=True)
class Connection:
    """A proved way to one daemon."""

    reader: Reader
    address: str
    """What docker-py calls it: `unix:///var/run/docker.sock`, or the bridge's."""
    endpoint: str
    """What docker calls it: `unix:///var/run/docker.sock`, `ssh://host`, ..."""
    engine_id: str
    remote: bool
    """The daemon may run on another machine: its paths and its localhost are not ours."""
    kernel: str
    """The release of the kernel that it runs on."""
    bridge: "Bridge | None"
    maker: str
    """Who made the server: `Engine` is docker's own name for itself, `Podman Engine` answers on Podman's socket."""

    @cached_property
    def api(self) -> "APIClient":
        """docker-py on the same way, from its first use on."""
        from docker.api.client import APIClient

        client = APIClient(self.address, version=self.reader.version, timeout=READ_TIMEOUT)
        client.trust_env = False  # neither HTTP_PROXY nor .netrc have a say on a socket
        return client

    def close(self) -> None:
        self.reader.close()
        if "api" in self.__dict__:
            self.api.close()
        if self.bridge is not None:
            self.bridge.close()


class Probe:
    """One child process that is asked something while we do something else.

    It runs in a session of its own: a Ctrl-C at the terminal reaches us alone, and it can never stop for the terminal.
    """

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], *, stdin: bytes | None = None, cwd: str | None = None
    ) -> None:
        self.argv = tuple(argv)
        self._stdin = stdin
        try:
            self._child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environ),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise DockerNotFound(f"{self.argv[0]} cannot be started: {error.strerror}; nothing was looked at") from error

    def answer(self, timeout: float = PROBE_TIMEOUT) -> tuple[int, bytes, str]:
        """Its exit code, stdout and stderr; EngineUnavailable when it takes longer than `timeout` seconds."""
        try:
            stdout, stderr = self._child.communicate(self._stdin, timeout=timeout)
        except BaseException as error:
            self.drop()
            if isinstance(error, subprocess.TimeoutExpired):
                raise EngineUnavailable(
                    f"docker did not answer within {timeout:.0f} s; nothing was looked at",
                    next_step="try `docker info` with the same flags",
                ) from error
            raise
        return self._child.returncode, stdout, stderr.decode("utf-8", "replace")

    def drop(self) -> None:
        """Its answer is not wanted any more."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()


class Bridge:
    """A private local socket; each connection to it is handed to one `docker system dial-stdio` as its stdin and stdout.

    The kernel then does the copying, both ways and with half-closes; no byte passes through us.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self._argv = tuple(argv)
        self._environ = dict(environ)
        self._children: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.mkdtemp(prefix="safe-compose-")  # mkdtemp makes it 0700: nobody else may use this way
        if len(self._folder) > _SUN_PATH - 2:
            Path(self._folder).rmdir()
            self._folder = tempfile.mkdtemp(prefix="safe-compose-", dir="/tmp")
        self.path = f"{self._folder}/s"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(16)
        threading.Thread(target=self._serve, name="docker-bridge", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed by `close`
            with connection:
                self._children = [c for c in self._children if c.poll() is None]
                self._children.append(
                    subprocess.Popen(
                        self._argv,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=subprocess.DEVNULL,
                        env=self._environ,
                        start_new_session=True,
                    )
                )

    def close(self) -> None:
        # shutdown, because close alone does not wake an accept that waits in another thread (Linux)
        with contextlib.suppress(OSError):  # BSD refuses it for a listening socket; there close does wake it
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class Opening:
    """The way to a daemon while docker is asked about it: the two children are at work from the beginning."""

    def __init__(self, docker: str, docker_globals: Sequence[str], environ: Mapping[str, str]) -> None:
        """`docker` is the real one's path; the words are those of the command, verbatim. Raises DockerNotFound."""
        self._command = (docker, *docker_globals)
        self._environ = dict(environ)
        self._bridge: Bridge | None = None
        self._identity = Probe((*self._command, "info", "--format", "{{.ID}}"), environ)
        try:
            self._context = Probe((*self._command, "context", "inspect"), environ)
        except BaseException:
            self._identity.drop()
            raise

    def drop(self) -> None:
        """The way is not wanted any more."""
        self._identity.drop()
        self._context.drop()
        if self._bridge is not None:
            self._bridge.close()

    def connection(self) -> Connection:
        """The daemon that docker itself would reach: its engine id is the one that docker reports.

        Raises EngineUnavailable with docker's own words for an unknown context or a dead daemon, and when the ids differ.
        """
        try:
            return self._connection()
        except BaseException:
            self.drop()
            raise

    def _connection(self) -> Connection:
        endpoint = _endpoint(*self._context.answer())
        if not _PLAIN_SOCKET.fullmatch(endpoint):
            self._bridge = Bridge((*self._command, "system", "dial-stdio"), self._environ)
        try:
            address = f"unix://{self._bridge.path}" if self._bridge else endpoint
            reader = Reader(address.removeprefix("unix://"), READ_TIMEOUT)
            told = reader.greet()
            maker = str((told.get("Components") or [{}])[0].get("Name", ""))
            info = reader.get("/info")
            ours, kernel = str(info.get("ID", "")), str(info.get("KernelVersion", ""))
        except (Unanswered, *MISREAD) as error:
            code, _, words = self._identity.answer()
            raise EngineUnavailable(
                words.strip() if code and words.strip() else f"the daemon at {endpoint} cannot be inspected: {error}",
                next_step="check that `docker info` answers with the same flags and variables",
            ) from error
        code, out, words = self._identity.answer()
        theirs = out.decode("utf-8", "replace").strip()
        if code or not theirs:
            raise EngineUnavailable(
                words.strip() or f"`docker info` names no engine at {endpoint}",
                next_step="check that `docker info` answers with the same flags and variables",
            )
        if ours != theirs:
            raise EngineUnavailable(
                f"{endpoint} is engine {ours or 'without id'}, but docker would reach engine {theirs}; nothing was looked at",
                next_step="check `docker context inspect`, DOCKER_HOST and DOCKER_CONTEXT",
            )
        remote = not endpoint.startswith(("unix://", "npipe://"))
        return Connection(reader, address, endpoint, ours, remote, kernel, self._bridge, maker)


def _endpoint(code: int, out: bytes, words: str) -> str:
    """What `docker context inspect` says; the context `default` reflects -H and DOCKER_HOST (docker CLI 28.2.2, run)."""
    if code:
        raise EngineUnavailable(
            words.strip() or "docker cannot tell which daemon it would reach",
            next_step="`docker context ls` shows the contexts there are",
        )
    try:
        host = json.loads(out)[0]["Endpoints"]["docker"]["Host"]
    except (ValueError, LookupError, TypeError) as error:
        raise EngineUnavailable("`docker context inspect` did not name a docker endpoint; nothing was looked at") from error
    return str(host)
