"""A daemon, and the volumes, containers and images on it: looked at one by one, and told what to do."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self
from urllib.parse import quote

from safe_compose.engine import look
from safe_compose.engine.connect import Connection, Opening
from safe_compose.engine.faults import acting, reading
from safe_compose.engine.look import Image, Private
from safe_compose.errors import BackupFailed
from safe_compose.observed import Container, Volume


class Daemon:
    """The one that a client reaches with these global flags under this environment; `open` proves it to be the same by its id.

    A card's reads go by `reader`, which costs no import, the rest by docker-py.
    """

    def __init__(self, docker: str, docker_globals: Sequence[str], *, environ: Mapping[str, str]) -> None:
        self.docker = docker
        self.docker_globals = tuple(docker_globals)
        self._environ = dict(environ)
        self._opening: Opening | None = None
        self._connection: Connection | None = None
        self._images: dict[str, Image] = {}

    def ask(self) -> None:
        """Send docker off to tell where it would go; `open` waits for the answer."""
        try:
            self._opening = Opening(self.docker, self.docker_globals, self._environ)
        except BaseException:
            self.close()
            raise

    def open(self) -> None:
        """Reach the daemon. Raises EngineUnavailable with docker's own words."""
        assert self._opening is not None, "`begin` asks before anybody opens"
        opening, self._opening = self._opening, None
        try:
            self._connection = opening.connection()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._opening is not None:
            self._opening.drop()
            self._opening = None
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- who it is -----------------------------------------------------------------------------------------------------

    @property
    def _way(self) -> Connection:
        assert self._connection is not None, "connect() makes engines"
        return self._connection

    @property
    def endpoint(self) -> str:
        """`unix:///var/run/docker.sock`, `ssh://host`, ..."""
        return self._way.endpoint

    @property
    def id(self) -> str:
        """The engine's own id, as `docker info` shows it."""
        return self._way.engine_id

    @property
    def remote(self) -> bool:
        """The daemon may run on another machine."""
        return self._way.remote

    @property
    def api_version(self) -> tuple[int, int]:
        """The older of what the server speaks and what DOCKER_API_VERSION asks for."""
        versions = [self._way.reader.version, self._environ.get("DOCKER_API_VERSION", "").removeprefix("v")]
        return min(((int(m[1]), int(m[2])) for v in versions if (m := re.fullmatch(r"(\d+)\.(\d+)", v))), default=(0, 0))

    @property
    def maker(self) -> str:
        """Who made the server: `Engine`, `Podman Engine`, ..."""
        return self._way.maker

    # -- looking -------------------------------------------------------------------------------------------------------

    def volume(self, name: str) -> Volume | None:
        """The volume as it is now, or None."""
        with reading():
            body = self._way.reader.get(f"/volumes/{quote(name, safe='')}")
            return look.volume_from(body) if body is not None else None

    def container(self, id_or_name: str) -> Container | None:
        """The container as it is now, or None."""
        with reading():
            body = self._way.reader.get(f"/containers/{quote(id_or_name, safe='')}/json")
            return look.container_from_inspect(body) if body is not None else None

    def private(self, container_id: str) -> Private:
        """What a container was started with, secrets included; empty when it is gone. Only for who has to log in there."""
        with reading():
            body = self._way.reader.get(f"/containers/{quote(container_id, safe='')}/json")
            return look.private_from(body) if body is not None else Private((), {})

    def addresses(self, container_id: str) -> tuple[str, ...]:
        """A container's own addresses on docker's networks; none with the host's network, without one, or when it is gone."""
        with reading():
            body = self._way.reader.get(f"/containers/{quote(container_id, safe='')}/json") or {}
            networks = ((body.get("NetworkSettings") or {}).get("Networks") or {}).values()
            return tuple(str(n["IPAddress"]) for n in networks if n and n.get("IPAddress"))

    def containers(self) -> tuple[Container, ...]:
        """Every container, fully inspected."""
        with reading():
            ids = [str(body["Id"]) for body in self._way.reader.get("/containers/json", all="1")]
        return tuple(c for c in map(self.container, ids) if c is not None)

    def image(self, ref: str) -> Image | None:
        """A local image by id or reference, or None; never pulls."""
        from docker.errors import NotFound

        if ref not in self._images:
            with reading():
                try:
                    self._images[ref] = look.image_from(
                        self._way.api.inspect_image(ref)  # type: ignore[no-untyped-call]  # types-docker leaves it bare
                    )
                except NotFound:
                    return None
        return self._images[ref]

    def images(self) -> tuple[Image, ...]:
        """Every local image, the smallest first."""
        with reading():
            bodies = self._way.api.images()
        ids = [str(body["Id"]) for body in sorted(bodies, key=lambda b: int(b.get("Size") or 0))]
        return tuple(i for i in map(self.image, ids) if i is not None)

    def sizes(self, names: Iterable[str], *, timeout: float | None = None) -> dict[str, int]:
        """Bytes of these volumes as far as the engine tells within `timeout` seconds; what is missing was not measured.

        `GET /system/df` walks every volume of the engine (moby daemon/disk_usage.go): slow on a big one.
        """
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        api = self._way.api
        try:
            # API < 1.42 ignores `type` and adds images and containers to the work
            answer = api.get(f"{api.base_url}/v{api.api_version}/system/df", params={"type": "volume"}, timeout=timeout or 60)
            body = answer.json() if answer.ok else {}
        except (DockerException, RequestException):
            return {}  # best effort: a card says "not measured", a backup checks the disk as it writes
        wanted = set(names)
        usage = {str(v["Name"]): int((v.get("UsageData") or {}).get("Size", -1)) for v in body.get("Volumes") or ()}
        return {name: size for name, size in usage.items() if name in wanted and size >= 0}

    def logs_tail(self, container_id: str, lines: int = 20) -> str:
        """The last lines of a container's log; empty where its log driver cannot be read."""
        from docker.errors import APIError

        with reading():
            try:
                out = self._way.api.logs(container_id, tail=lines, stdout=True, stderr=True)
            except APIError as error:
                if error.status_code is not None and error.status_code >= 500:
                    return ""  # "configured logging driver does not support reading"
                raise
        return bytes(out).decode("utf-8", "replace")

    def logs_head(self, container_id: str, limit: int) -> bytes:
        """At most the first `limit` bytes of a container's log; empty where its log driver cannot be read."""
        from docker.errors import APIError

        head = bytearray()
        with reading():
            try:
                for chunk in self._way.api.logs(container_id, stdout=True, stderr=True, stream=True, follow=False):
                    head += chunk
                    if len(head) >= limit:
                        break
            except APIError as error:
                if error.status_code is None or error.status_code < 500:
                    raise
        return bytes(head[:limit])

    def volumes_folder(self) -> str:
        """The folder of the engine's host that has a folder for every local volume: `/var/lib/docker/volumes`."""
        with reading():
            return f"{str(self._way.reader.get('/info')['DockerRootDir']).rstrip('/')}/volumes"

    def labelled(self, label: str) -> tuple[Volume, ...]:
        """Every volume that carries a label of ours, whatever its value."""
        with reading():
            listing = self._way.reader.get("/volumes", filters=json.dumps({"label": [label]}))
            return tuple(map(look.volume_from, listing.get("Volumes") or ()))

    def users(self, volume: str) -> tuple[Container, ...]:
        """Every container that references a volume at this moment, fully inspected; without our lock on it."""
        with reading():
            bodies = self._way.reader.get("/containers/json", all="1", filters=json.dumps({"volume": [volume]}))
            found = [c for body in bodies if (c := self.container(str(body["Id"]))) is not None]
        return tuple(c for c in found if volume in c.volume_names() and not c.locks(volume))

    # -- acting --------------------------------------------------------------------------------------------------------

    def stop(self, container_id: str, *, timeout: int) -> int:
        """Stop it, with SIGKILL after `timeout` seconds. Returns its exit code; -1 when it has removed itself (`--rm`)."""
        from docker.errors import NotFound

        with acting(f"stop container {container_id[:12]}"):
            try:
                self._way.api.stop(container_id, timeout=timeout)
            except NotFound:
                return -1
        now = self.container(container_id)
        return now.exit_code if now is not None else -1

    def start(self, container_id: str) -> None:
        with acting(f"start container {container_id[:12]}"):
            self._way.api.start(container_id)

    def pause(self, container_id: str) -> None:
        with acting(f"pause container {container_id[:12]}"):
            self._way.api.pause(container_id)

    def unpause(self, container_id: str) -> None:
        with acting(f"unpause container {container_id[:12]}"):
            self._way.api.unpause(container_id)

    def wait_running(self, container_id: str, *, timeout: float) -> Container:
        """The container once it runs; BackupFailed when it ends instead, or within `timeout` seconds does not run."""
        return self._wait(container_id, timeout, "running", lambda c: c.state == "running")

    def wait_healthy(self, container_id: str, *, timeout: float) -> Container:
        """The same, and healthy where it has a health check."""
        return self._wait(container_id, timeout, "healthy", lambda c: c.state == "running" and c.health in (None, "healthy"))

    def _wait(self, container_id: str, timeout: float, what: str, ready: Callable[[Container], bool]) -> Container:
        until = time.monotonic() + timeout
        while True:
            now = self.container(container_id)
            if now is not None and ready(now):
                return now
            if now is None or now.state in ("exited", "dead", "removing") or time.monotonic() > until:
                state = f"{now.state}, health {now.health or 'not checked'}" if now else "gone"
                raise BackupFailed(f"container {now.name if now else container_id[:12]} is not {what} but {state}")
            time.sleep(0.1)

    def create_volume(
        self,
        name: str,
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """A new volume, or the one that has this name already: docker does not tell the difference."""
        with acting(f"create volume {name}"):
            body = self._way.api.create_volume(name, driver=driver, driver_opts=dict(options or {}), labels=dict(labels or {}))
        return look.volume_from(body)

    def remove_volume(self, name: str) -> None:
        """Delete a volume: only ever a scratch volume of ours, or in `restore` one that has been kept safe."""
        with acting(f"remove volume {name}"):
            self._way.api.remove_volume(name)
