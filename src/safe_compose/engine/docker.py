"""A daemon, and the volumes, containers and images on it: inspected one by one, and changed."""

import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from safe_compose.compose.first_query import DaemonQuery
from safe_compose.core.observed import Container, Volume, kind_of_location
from safe_compose.core.text import join_for_shell
from safe_compose.engine import full_disk, values
from safe_compose.engine.connect import MISREAD, READ_TIMEOUT, Connection, Opening
from safe_compose.engine.errors import changing, inspecting, read_message
from safe_compose.engine.full_disk import CleanupCommand
from safe_compose.engine.values import Image, StartConfiguration
from safe_compose.errors import OperationFailed
from safe_compose.grammar.parser import DOCKERS_OWN, parse

_CLEANUP_SECONDS = 20
"""Seconds for the engine to report its disk usage; it may have to examine all of its files."""
_FREE_BYTES = 64 << 20
_FREE_FILES = 4096
"""Free space on the engine's disk with which it certainly can create a container of our image."""
_ADDRESSES = (
    "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH",
)  # fmt: skip
"""Variables that choose a daemon, or how it is reached."""
SIZES_SECONDS = 10.0
"""Seconds for the sizes of volumes. The engine needs minutes for millions of files, and a backup
needs no sizes."""


class Daemon:
    """The daemon that a client reaches with these global flags under this environment.

    `open` verifies by its id that it is that one. Data for the confirmation screen is read by
    `reader`, which costs no import, the rest by docker-py.
    """

    def __init__(
        self, client: str, client_globals: Sequence[str], *, environ: Mapping[str, str]
    ) -> None:
        """Prepare for a daemon; `ask` and `open` reach it."""
        self.client = client
        """Path of the real docker client."""
        self.client_globals = tuple(client_globals)
        self._environ: Mapping[str, str] = dict(environ)
        self.disk_is_full = False
        """Set when a container could not be created (`Helpers.notice_full_disk`): volumes are then
        read through existing containers."""
        self._opening: Opening | None = None
        self._connection: Connection | None = None
        self._images: dict[str, Image] = {}

    @property
    def command(self) -> tuple[str, ...]:
        """Return the words that run the client on this daemon; the docker command follows them."""
        if not self._is_session:
            return (self.client, *self.client_globals)
        flags = (
            f"--{name}={value}"
            for name, value in parse((*self.client_globals, "info")).docker_flags
            if name not in DOCKERS_OWN
        )
        return (self.client, *flags, "--host", self.connection.address)

    @property
    def environ(self) -> Mapping[str, str]:
        """Return the environment in which `command` reaches the daemon."""
        if not self._is_session:
            return self._environ
        others = {name: value for name, value in self._environ.items() if name not in _ADDRESSES}
        return {**others, "DOCKER_HOST": self.connection.address}

    @property
    def _is_session(self) -> bool:
        """Return whether commands of ours share one login at the daemon's machine."""
        bridge = self._connection.bridge if self._connection is not None else None
        return bridge is not None and bridge.is_session

    def ask(self, query: DaemonQuery | None = None) -> None:
        """Ask docker where it would go, unless `query` has; `open` waits for the answer."""
        self._opening = Opening(self.client, self.client_globals, self._environ, query)

    def open(self) -> None:
        """Connect to the daemon.

        Raises:
            EngineUnavailable: It cannot be reached, in docker's own words.
        """
        assert self._opening is not None, "`begin` asks before anybody opens"
        opening, self._opening = self._opening, None
        self._connection = opening.connection()

    def close(self) -> None:
        """Close the connection, or drop it if it is still in preparation."""
        if self._opening is not None:
            self._opening.drop()
            self._opening = None
        if self._connection is not None:
            self._connection.close()

    # -- identity ----------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """Return the connection, once `open` has made it."""
        assert self._connection is not None, "connect() makes engines"
        return self._connection

    @property
    def endpoint(self) -> str:
        """Return the address that docker uses: `unix:///var/run/docker.sock`, `ssh://host`, ..."""
        return self.connection.endpoint

    @property
    def id(self) -> str:
        """Return the engine's own id, as `docker info` shows it."""
        return self.connection.engine_id

    @property
    def remote(self) -> bool:
        """Return whether the daemon may run on another machine."""
        return self.connection.remote

    @property
    def api_version(self) -> tuple[int, int]:
        """Return the API version, the older of the server's and DOCKER_API_VERSION."""
        versions = [
            self.connection.reader.version,
            self.environ.get("DOCKER_API_VERSION", "").removeprefix("v"),
        ]
        return min(
            ((int(m[1]), int(m[2])) for v in versions if (m := re.fullmatch(r"(\d+)\.(\d+)", v))),
            default=(0, 0),
        )

    @property
    def maker(self) -> str:
        """Return the maker of the server: `Engine`, `Podman Engine`, ..."""
        return self.connection.maker

    @property
    def architecture(self) -> str:
        """Return the architecture of the server, in docker's terms: `amd64`, `arm64`."""
        return self.connection.architecture

    # -- inspecting --------------------------------------------------------------------------------

    def volume(self, name: str) -> Volume | None:
        """Return the current state of a volume, or None, also for the name of no volume.

        Raises:
            EngineUnavailable: The daemon does not answer.
        """
        if kind_of_location(name) != "volume":
            return None  # a path would be another address of the daemon's
        with inspecting():
            body = self.connection.reader.get(f"/volumes/{quote(name, safe='')}")
            return values.read_volume(body) if body is not None else None

    def container(self, id_or_name: str) -> Container | None:
        """Return the current state of a container, or None.

        Raises:
            EngineUnavailable: The daemon does not answer.
        """
        with inspecting():
            body = self.connection.reader.get(f"/containers/{quote(id_or_name, safe='')}/json")
            return values.read_container(body) if body is not None else None

    def private(self, container_id: str) -> StartConfiguration:
        """Return the start configuration of a container, secrets included; empty when it is gone.

        It serves only to log in to a server there.
        """
        with inspecting():
            body = self.connection.reader.get(f"/containers/{quote(container_id, safe='')}/json")
            return values.read_private(body) if body is not None else StartConfiguration((), {})

    def addresses(self, container_id: str) -> tuple[str, ...]:
        """Return a container's own addresses on docker's networks.

        It has none with the host's network, without a network, or when it is gone.
        """
        with inspecting():
            body = (
                self.connection.reader.get(f"/containers/{quote(container_id, safe='')}/json") or {}
            )
            networks = ((body.get("NetworkSettings") or {}).get("Networks") or {}).values()
            return tuple(str(n["IPAddress"]) for n in networks if n and n.get("IPAddress"))

    def containers(self) -> tuple[Container, ...]:
        """Return every container, fully inspected."""
        with inspecting():
            bodies = self.connection.reader.get("/containers/json", all="1")
            ids = [str(body["Id"]) for body in bodies]
        return tuple(c for c in map(self.container, ids) if c is not None)

    def image(self, ref: str) -> Image | None:
        """Return a local image by id or reference, or None; never pulls."""
        from docker.errors import NotFound

        if ref not in self._images:
            with inspecting():
                try:
                    self._images[ref] = values.read_image(
                        # untyped in types-docker
                        self.connection.api.inspect_image(ref)  # type: ignore[no-untyped-call]
                    )
                except NotFound:
                    return None
        return self._images[ref]

    def sizes(self, names: Iterable[str], *, timeout: float = SIZES_SECONDS) -> dict[str, int]:
        """Return the bytes of volumes, of those that the engine measures within `timeout` seconds.

        `GET /system/df` walks every volume of the engine (moby daemon/disk_usage.go), which is slow
        on a big one; without names it is not asked.
        """
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        wanted = set(names)
        if not wanted:
            return {}
        api = self.connection.api
        try:
            # API < 1.42 ignores `type` and adds images and containers to the work
            answer = api.get(
                f"{api.base_url}/v{api.api_version}/system/df",
                params={"type": "volume"},
                timeout=timeout,
            )
            usage = values.read_sizes(answer.json()) if answer.ok else {}
        except (DockerException, RequestException, *MISREAD):
            # best effort: the confirmation screen says "not measured", and a backup checks the disk
            # as it writes
            return {}
        return {name: size for name, size in usage.items() if name in wanted}

    def list_cleanup_commands(self) -> list[CleanupCommand]:
        """Return commands that free space on the engine's disk, the safest first.

        The list is empty where the engine does not answer within 20 seconds: up to API 1.41 it
        walks every volume for this.
        """
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        api = self.connection.api
        kinds = {"type": ["build-cache", "image", "container"]}
        try:
            answer = api.get(
                f"{api.base_url}/v{api.api_version}/system/df",
                params=kinds,
                timeout=_CLEANUP_SECONDS,
            )
            from safe_compose.core.redaction import hide_secrets

            docker = hide_secrets(join_for_shell(["docker", *self.client_globals]))
            return full_disk.list_cleanup_commands(answer.json(), docker) if answer.ok else []
        except (DockerException, RequestException, *MISREAD):
            return []  # only advice

    def has_free_space(self) -> bool:
        """Return whether this host shows that the engine's disk has free space."""
        if not self.endpoint.startswith("unix://"):
            return False
        try:
            found = os.statvfs(Path(self.volumes_folder()).parent)
        except OSError:
            return False  # the engine's folder is on another machine, or not readable
        return found.f_bavail * found.f_frsize > _FREE_BYTES and (
            not found.f_files or found.f_favail > _FREE_FILES
        )

    def advise_on_full_disk(self) -> str:
        """Return advice about a full disk of the engine: safe commands, in order.

        It names the space that they free.
        """
        return full_disk.format_advice(self.list_cleanup_commands())

    def logs_tail(self, container_id: str, lines: int = 20) -> str:
        """Return the last lines of a container's log; empty where its log driver cannot be read."""
        from docker.errors import APIError

        with inspecting():
            try:
                out = self.connection.api.logs(container_id, tail=lines, stdout=True, stderr=True)
            except APIError as error:
                if error.status_code is not None and error.status_code >= 500:
                    return ""  # "configured logging driver does not support reading"
                raise
        return bytes(out).decode("utf-8", "replace")

    def logs_head(self, container_id: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a container's log.

        They are empty where its log driver cannot be read.
        """
        from docker.errors import APIError

        head = bytearray()
        with inspecting():
            try:
                for chunk in self.connection.api.logs(
                    container_id, stdout=True, stderr=True, stream=True, follow=False
                ):
                    head += chunk
                    if len(head) >= limit:
                        break
            except APIError as error:
                if error.status_code is None or error.status_code < 500:
                    raise
        return bytes(head[:limit])

    def clock(self) -> int:
        """Return the engine's own time, in whole seconds since 1970."""
        with inspecting():
            return int(
                datetime.fromisoformat(
                    str(self.connection.reader.get("/info")["SystemTime"])
                ).timestamp()
            )

    def list_signalled(self, container_ids: Collection[str], since: int) -> frozenset[str]:
        """Return those of the containers that got a signal from the engine, as for a stop.

        The moment is one of the engine's `clock`. The call takes up to a second, to see a signal
        that is on its way. The engine keeps only its last 256 events.
        """
        filters = {"container": list(container_ids), "event": ["kill"]}
        with inspecting():
            events = self.connection.api.events(
                since=since, until=self.clock() + 1, filters=filters, decode=True
            )
            return frozenset(str(event["Actor"]["ID"]) for event in events) & frozenset(
                container_ids
            )

    def volumes_folder(self) -> str:
        """Return the engine's folder of local volumes on its host: `/var/lib/docker/volumes`."""
        with inspecting():
            root = str(self.connection.reader.get("/info")["DockerRootDir"])
            return f"{root.rstrip('/')}/volumes"

    def list_labelled(self, label: str) -> tuple[Volume, ...]:
        """Return every volume that has a label, whatever its value."""
        with inspecting():
            listing = self.connection.reader.get("/volumes", filters=json.dumps({"label": [label]}))
            return tuple(map(values.read_volume, listing.get("Volumes") or ()))

    def users(self, location: str) -> tuple[Container, ...]:
        """Return every container that has a location now, except our lock, fully inspected."""
        named = kind_of_location(location) == "volume"  # the engine finds no container by a folder
        filters = {"filters": json.dumps({"volume": [location]})} if named else {}
        with inspecting():
            bodies = self.connection.reader.get("/containers/json", all="1", **filters)
            ids = [str(body["Id"]) for body in bodies]
        found = (c for id in ids if (c := self.container(id)) is not None)
        if not named and self.connection.shares_paths:
            found = (values.resolve_folders(c) for c in found)
        return tuple(c for c in found if c.uses(location) and not c.locks(location))

    # -- changing ----------------------------------------------------------------------------------

    def stop(self, container_id: str, *, timeout: int) -> int:
        """Stop a container by its own signal, and after `timeout` seconds by SIGKILL.

        A negative `timeout` is unlimited.

        Returns:
            Its exit code; -1 when it has removed itself (`--rm`).

        Raises:
            OperationFailed: docker could not stop it.
        """
        with changing(f"stop container {container_id[:12]}"):
            api = self.connection.api
            url = (
                f"{api.base_url}/v{api.api_version}/containers/{quote(container_id, safe='')}/stop"
            )
            # not docker-py's `stop`, which waits at most a minute where the timeout is unlimited
            answer = api.post(
                url, params={"t": timeout}, timeout=None if timeout < 0 else READ_TIMEOUT + timeout
            )
        if answer.status_code == 404:
            return -1
        if not answer.ok:
            raise OperationFailed(
                f"docker could not stop container {container_id[:12]}: {read_message(answer)}"
            )
        now = self.container(container_id)
        return now.exit_code if now is not None else -1

    def start(self, container_id: str) -> None:
        """Start a container.

        Raises:
            OperationFailed: docker could not start it.
        """
        with changing(f"start container {container_id[:12]}"):
            self.connection.api.start(container_id)

    def pause(self, container_id: str) -> None:
        """Pause a container.

        Raises:
            OperationFailed: docker could not pause it.
        """
        with changing(f"pause container {container_id[:12]}"):
            self.connection.api.pause(container_id)

    def unpause(self, container_id: str) -> None:
        """Unpause a container.

        Raises:
            OperationFailed: docker could not unpause it.
        """
        with changing(f"unpause container {container_id[:12]}"):
            self.connection.api.unpause(container_id)

    def wait_running(self, container_id: str, *, timeout: float) -> Container:
        """Wait until a container runs, and return it.

        Raises:
            OperationFailed: It ended instead, or did not run within `timeout` seconds.
        """
        return self._wait(container_id, timeout, "running", lambda c: c.state == "running")

    def wait_healthy(self, container_id: str, *, timeout: float) -> Container:
        """Wait until a container runs, and is healthy if it has a health check; return it.

        Raises:
            OperationFailed: It ended instead, or was not healthy within `timeout` seconds.
        """
        return self._wait(
            container_id,
            timeout,
            "healthy",
            lambda c: c.state == "running" and c.health in (None, "healthy"),
        )

    def _wait(
        self, container_id: str, timeout: float, what: str, ready: Callable[[Container], bool]
    ) -> Container:
        until = time.monotonic() + timeout
        while True:
            now = self.container(container_id)
            if now is not None and ready(now):
                return now
            if (
                now is None
                or now.state in ("exited", "dead", "removing")
                or time.monotonic() > until
            ):
                state = f"{now.state}, health {now.health or 'not checked'}" if now else "gone"
                raise OperationFailed(
                    f"container {now.name if now else container_id[:12]} is not {what} but {state}"
                )
            time.sleep(0.1)

    def create_volume(
        self,
        name: str,
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Return a new volume, or the existing one of this name.

        docker does not tell the difference.

        Raises:
            OperationFailed: docker could not create it.
        """
        with changing(f"create volume {name}"):
            api = self.connection.api
            body = api.create_volume(
                name, driver=driver, driver_opts=dict(options or {}), labels=dict(labels or {})
            )
        return values.read_volume(body)

    def remove_volume(self, name: str) -> None:
        """Delete a volume.

        It must be one of our scratch volumes or, in `restore`, one that has been backed up.

        Raises:
            OperationFailed: docker could not delete it.
        """
        with changing(f"remove volume {name}"):
            self.connection.api.remove_volume(name)
