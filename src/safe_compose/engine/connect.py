"""The connection to the daemon that the command itself would reach, verified to be that one.

docker-py's `from_env()` takes an unknown context for the local engine (dependencies.md 2.1, run),
so it is not used: docker is asked where it would go. A local unix socket is then opened directly.
Every other transport (tcp with TLS, npipe) goes through `docker system dial-stdio`, so that docker
itself handles contexts, certificates and custom headers; ssh through the one login of an
`SshSession`.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from safe_compose.compose.first_query import DaemonQuery, ask_daemon
from safe_compose.core.text import join_for_shell
from safe_compose.errors import EngineUnavailable
from safe_compose.system.own_container import find_own_containers

if TYPE_CHECKING:
    from docker.api.client import APIClient

    from safe_compose.engine.bridge import Bridge
    from safe_compose.engine.http import HttpReader

READ_TIMEOUT = 60
"""Seconds that one read of the API may take."""
_MOUNTS_SINCE = (1, 25)
"""The API version from which on `HostConfig.Mounts` is known."""
_PLAIN_SOCKET = re.compile(r"unix:///[A-Za-z0-9_./+=@,-]+")
MISREAD = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
    OverflowError,
)
"""Exceptions of docker-py and this package when an answer has an unexpected shape (`KeyError:
'message'`)."""

_MAPPING = ("name=userns", "name=rootless")
"""The `SecurityOptions` in `/info` of an engine whose containers have a user namespace of their
own."""


@dataclass(frozen=True)
class Connection:
    """A verified connection to one daemon."""

    reader: "HttpReader"
    address: str
    """Its address for docker-py: `unix:///var/run/docker.sock`, or that of the bridge."""
    endpoint: str
    """Its address for docker: `unix:///var/run/docker.sock`, `ssh://host`, ..."""
    engine_id: str
    remote: bool
    """Whether the daemon may run on another machine, so that its paths and its localhost are not
    ours."""
    kernel: str
    """The release of the kernel that it runs on."""
    bridge: "Bridge | None"
    maker: str
    """The maker of the server: docker calls itself `Engine`; on Podman's socket `Podman Engine`
    answers."""
    architecture: str
    """The architecture of the server, in docker's terms: `amd64`, `arm64`; with another system than
    Linux `windows/amd64`."""
    maps_users: bool = False
    """Whether the users of containers are others on its host: `--userns-remap`, or rootless."""

    @property
    def shares_paths(self) -> bool:
        """Whether the paths of the daemon's host are those of this process."""
        return not self.remote and not find_own_containers()

    @cached_property
    def api(self) -> "APIClient":
        """Return a docker-py client for this connection, created at its first use."""
        from docker.api.client import APIClient

        client = APIClient(self.address, version=self.reader.version, timeout=READ_TIMEOUT)
        client.trust_env = False  # neither HTTP_PROXY nor .netrc applies to a socket
        return client

    def close(self) -> None:
        """Close the connection, and the bridge if there is one."""
        self.reader.close()
        if "api" in self.__dict__:
            self.api.close()
        if self.bridge is not None:
            self.bridge.close()


class Opening:
    """A connection to a daemon in preparation: two child processes ask docker about it."""

    def __init__(
        self,
        docker: str,
        docker_globals: Sequence[str],
        environ: Mapping[str, str],
        query: DaemonQuery | None = None,
    ) -> None:
        """Start the children, unless `query` has.

        Args:
            docker: Path of the real docker client.
            docker_globals: The command's global flags, verbatim.
            environ: The command's environment.
            query: What docker was asked about the daemon already.

        Raises:
            DockerNotFound: The client cannot be started.
        """
        self._command = (docker, *docker_globals)
        self._environ = dict(environ)
        self._bridge: Bridge | None = None
        self._query = query or ask_daemon(docker, docker_globals, environ)
        self._identified: tuple[int, bytes, str] | None = None

    def drop(self) -> None:
        """End the children, and close the bridge if there is one."""
        self._query.drop()
        if self._bridge is not None:
            self._bridge.close()

    def connection(self) -> Connection:
        """Return a connection to the daemon that docker itself would reach.

        Its engine id is the one that docker reports.

        Raises:
            EngineUnavailable: The context is unknown or the daemon does not answer, in docker's own
                words; or the ids differ.
        """
        try:
            return self._connection()
        except BaseException:
            self.drop()
            raise

    def _connection(self) -> Connection:
        from safe_compose.engine.http import NoAnswer

        endpoint = _endpoint(*self._query.context.answer())
        if not _PLAIN_SOCKET.fullmatch(endpoint):
            from safe_compose.engine.bridge import Bridge
            from safe_compose.engine.ssh_session import parse_address

            self._bridge = Bridge((*self._command, "system", "dial-stdio"), self._environ)
            if (ssh := parse_address(endpoint)) is not None:
                self._bridge.log_in(ssh)
        try:
            address, reader, version, info = self._ask(endpoint)
            maker = str((version.get("Components") or [{}])[0].get("Name", ""))
            architecture = _architecture(version)
            ours, kernel = str(info.get("ID", "")), str(info.get("KernelVersion", ""))
        except (NoAnswer, *MISREAD) as error:
            code, _, words = self._identify()
            raise EngineUnavailable(
                (
                    words.strip()
                    if code and words.strip()
                    else f"the daemon at {endpoint} cannot be inspected: {error}"
                ),
                next_step=_next_step(self._environ, endpoint),
            ) from error
        code, out, words = self._identify()
        theirs = out.decode("utf-8", "replace").strip()
        if code or not theirs:
            raise EngineUnavailable(
                words.strip() or f"`docker info` names no engine at {endpoint}",
                next_step=_next_step(self._environ, endpoint),
            )
        if ours != theirs:
            raise EngineUnavailable(
                f"{endpoint} is engine {ours or 'without id'}, but docker would reach engine"
                f" {theirs}; nothing was looked at",
                next_step="check `docker context inspect`, DOCKER_HOST and DOCKER_CONTEXT",
            )
        remote = not endpoint.startswith(("unix://", "npipe://"))
        return Connection(
            reader, address, endpoint, ours, remote, kernel, self._bridge, maker, architecture,
            maps_users=any(option in _MAPPING for option in info.get("SecurityOptions") or ()),
        )  # fmt: skip

    def _identify(self) -> tuple[int, bytes, str]:
        """Return docker's answer to `docker info`: its exit code, stdout and stderr."""
        if self._identified is None:
            self._identified = self._query.identity.answer()
        return self._identified

    def _ask(self, endpoint: str) -> tuple[str, "HttpReader", dict[str, Any], dict[str, Any]]:
        """Return an address that leads to docker's engine, a reader there, and its first answers.

        Raises:
            NoAnswer: Nobody answers.
            EngineUnavailable: The engine is too old.
        """
        from safe_compose.engine.http import NoAnswer

        sockets = self._bridge.addresses if self._bridge else (endpoint.removeprefix("unix://"),)
        for path in sockets[:-1]:
            with contextlib.suppress(NoAnswer, *MISREAD):
                reader, version, info = _greet(path, endpoint)
                if str(info["ID"]) == self._identify()[1].decode("utf-8", "replace").strip():
                    return f"unix://{path}", reader, version, info
                reader.close()
        reader, version, info = _greet(sockets[-1], endpoint)
        return f"unix://{sockets[-1]}", reader, version, info


def _greet(socket_path: str, endpoint: str) -> tuple["HttpReader", dict[str, Any], dict[str, Any]]:
    """Return a reader at a socket, and the daemon's answers about its version and itself.

    Raises:
        NoAnswer: Nobody answers there.
        EngineUnavailable: The engine is too old.
    """
    from safe_compose.engine.http import HttpReader

    reader = HttpReader(socket_path, READ_TIMEOUT)
    version = reader.greet()
    _require_mounts(reader.version, endpoint)
    return reader, version, reader.get("/info")


def _require_mounts(version: str, endpoint: str) -> None:
    """Refuse an engine that does not know the mounts of a container (`HostConfig.Mounts`).

    It would ignore them, so that every volume looked empty to a helper.

    Raises:
        EngineUnavailable: It is older than that.
    """
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", version)
    if match is not None and (int(match[1]), int(match[2])) < _MOUNTS_SINCE:
        raise EngineUnavailable(
            f"the engine at {endpoint} is too old (API {version}): safe-compose reads and copies"
            " volumes by mounts that Docker has since 1.13 (API 1.25); nothing was looked at",
            next_step="upgrade the engine before you delete volumes on it",
        )


def _next_step(environ: Mapping[str, str], endpoint: str) -> str:
    """Return what to try where docker cannot reach a daemon."""
    if environ.get("DOCKER_API_VERSION"):
        return (
            "unset DOCKER_API_VERSION, or check that `docker info` answers with the same flags and"
            " variables"
        )
    from safe_compose.engine.ssh_session import make_host_words, parse_address

    if (url := parse_address(endpoint)) is not None:
        words = ("ssh", "-o", "BatchMode=yes", *make_host_words(url), "docker", "info")
        return (
            f"ssh cannot ask for anything here: check that `{join_for_shell(words)}` answers (a key"
            " in an agent or without a passphrase, the host in known_hosts)"
        )
    return "check that `docker info` answers with the same flags and variables"


def _architecture(version: Mapping[str, Any]) -> str:
    """Return the architecture of the server from its answer to `GET /version`."""
    system, architecture = str(version.get("Os", "linux")), str(version.get("Arch", ""))
    return architecture if system == "linux" else f"{system}/{architecture}"


def _endpoint(code: int, out: bytes, words: str) -> str:
    """Return the host that `docker context inspect` names.

    The context `default` reflects -H and DOCKER_HOST (docker CLI 28.2.2, run).
    """
    if code:
        raise EngineUnavailable(
            words.strip() or "docker cannot tell which daemon it would reach",
            next_step="`docker context ls` shows the contexts there are",
        )
    try:
        host = json.loads(out)[0]["Endpoints"]["docker"]["Host"]
    except (ValueError, LookupError, TypeError) as error:
        raise EngineUnavailable(
            "`docker context inspect` did not name a docker endpoint; nothing was looked at"
        ) from error
    return str(host)
