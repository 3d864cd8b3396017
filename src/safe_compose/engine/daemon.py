"""The daemon that a command would reach: a card's reads by `reader`, the rest by docker-py, streams by the real docker binary."""

import io
import itertools
import json
import os
import re
import secrets
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from safe_compose.engine import clients, locks, look
from safe_compose.engine.clients import Helper, HelperFailed, Stream
from safe_compose.engine.compose import Compose, Finding, Question
from safe_compose.engine.compose_v1 import OldQuestion
from safe_compose.engine.connect import MISREAD, Connection, Opening, Probe
from safe_compose.engine.look import Image, Private
from safe_compose.engine.pipe import NeverOpened, Pipe
from safe_compose.engine.reader import Unanswered
from safe_compose.errors import BackupFailed, DockerNotFound, EngineUnavailable, SafeComposeError
from safe_compose.grammar import Invocation
from safe_compose.observed import (
    HELPER_LABEL,
    LOCK_LABEL,
    NUMBER_LABEL,
    ONEOFF_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    WORKING_DIR_LABEL,
    Container,
    Observed,
    Project,
    Volume,
)

PARKED_AT = "/volume"
"""Where a volume is mounted in a created container; so members of an archive of it are `volume/...`."""
EMPTY_IMAGE = "safe-compose/empty"
PIPE_PATIENCE = 90.0
"""Seconds in which a first helper has to open its pipe: more than a dump waits for a lock. One that runs behind another kernel
would wait for ever."""
ROOTS_AT_ONCE = 64
"""Volumes that one container is made for when the roots of many are listed."""
ROOT_LISTING_LIMIT = 8 * 1024 * 1024
"""Bytes of a volume's archive that are read at most to list its root."""
CONFIG_FILES_LABEL = "com.docker.compose.project.config_files"


def connect(
    docker: str,
    docker_globals: Sequence[str],
    *,
    environ: Mapping[str, str],
    run_id: str,
    compose: str | None = None,
    invocation: Invocation | None = None,
    stdin: bytes | None = None,
) -> "Engine":
    """The engine that `docker <docker_globals>` reaches under this environment, proved to be the same by its id.

    Parameters and errors as of `begin` and `Engine.open`.
    """
    engine = begin(docker, docker_globals, environ=environ, run_id=run_id, compose=compose, invocation=invocation, stdin=stdin)
    engine.open()
    return engine


def begin(
    docker: str,
    docker_globals: Sequence[str],
    *,
    environ: Mapping[str, str],
    run_id: str,
    compose: str | None = None,
    invocation: Invocation | None = None,
    stdin: bytes | None = None,
) -> "Engine":
    """An engine whose questions are on their way: `open` it to have their answers, or `close` it.

    `docker` is the real client's path; `compose` that of the standalone docker-compose where the command is one. With
    `invocation` (and the `stdin` of a `-f -`) compose is asked at once as well, and the first `look` at that invocation finds
    its answer ready. Raises DockerNotFound.
    """
    if Path(docker).name.startswith("docker-compose"):
        compose, docker = docker, _beside(docker, environ)
    engine = Engine(docker, docker_globals, environ=environ, run_id=run_id, compose=compose)
    engine.ask(invocation, stdin)
    return engine


def _beside(compose: str, environ: Mapping[str, str]) -> str:
    """The docker client that stands beside a standalone docker-compose, else the first on PATH."""
    beside = str(Path(compose).with_name("docker"))
    found = shutil.which(beside) or shutil.which("docker", path=environ.get("PATH"))
    if found is None:
        raise DockerNotFound("there is no docker client to inspect the engine with")
    return found


class Engine:
    """One daemon, for one run. `close` it before docker is exec'd; as a context manager it closes itself."""

    def __init__(
        self,
        docker: str,
        docker_globals: Sequence[str],
        *,
        environ: Mapping[str, str],
        run_id: str,
        compose: str | None = None,
    ) -> None:
        self.docker = docker
        self.docker_globals = tuple(docker_globals)
        self.run_id = run_id
        self._environ = dict(environ)
        self._compose = compose
        self._opening: Opening | None = None
        self._connection: Connection | None = None
        self._early: tuple[Invocation, Question] | None = None
        self._versions: tuple[tuple[int, ...] | None, tuple[int, ...] | None] | None = None
        self._numbers = itertools.count(1)
        self._images: dict[str, Image] = {}
        self.pipes_work: bool | None = None
        """A helper has used a pipe of ours, or could not; None: none has tried. With False all bytes pass the daemon."""
        self._old_reaches_us = False
        """The docker-compose is 1.x, and was seen to go to this engine."""

    def ask(self, invocation: Invocation | None = None, stdin: bytes | None = None) -> None:
        """Send docker and compose off with what will be asked of them; see `begin`."""
        if invocation is not None and invocation.verb[:1] == ("compose",):
            self._early = invocation, self._question(invocation, stdin)
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
        if self._early is not None:
            self._early[1].drop()
            self._early = None
        if self._opening is not None:
            self._opening.drop()
            self._opening = None
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> "Engine":
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

    def client_versions(self) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Versions of the docker client and of compose; None for one that does not tell."""
        if self._versions is None:
            probes = [
                Probe((self.docker, "--version"), self._environ),
                Probe((*self._compose_program(self._compose is not None), "version", "--short"), self._environ),
            ]
            found = [re.search(rb"(\d+)\.(\d+)\.(\d+)", out) if code == 0 else None for code, out, _ in map(_answer, probes)]
            numbers = [tuple(int(n) for n in m.groups()) if m else None for m in found]
            self._versions = numbers[0], numbers[1]
        return self._versions

    # -- looking -------------------------------------------------------------------------------------------------------

    def look(self, invocation: Invocation, *, stdin: bytes | None = None) -> Observed:
        """Volumes, containers and the compose project that this command means, at one moment.

        `stdin` is what `-f -` had on stdin. Containers that cannot matter to the command come from the list alone: their
        start, environment and `--rm` are empty, and each of their mounts counts as declared.
        Raises EngineUnavailable; Refused where compose would act and cannot be understood.
        """
        question: Question | None = None
        if self._early is not None and self._early[0]._replace(own=invocation.own) == invocation:
            question, self._early = self._early[1], None
        elif invocation.verb[:1] == ("compose",) and not self._old_reaches_us:
            question = self._question(invocation, stdin)
        takes_named = self._prune_probe(invocation)
        with _reading():
            listing = self._way.reader.get("/volumes")
            listed = [look.container_from_list(body) for body in self._way.reader.get("/containers/json", all="1")]
            volumes = tuple(sorted(map(look.volume_from, listing.get("Volumes") or ()), key=lambda v: v.name))
            warnings = tuple(f"docker: {words}" for words in listing.get("Warnings") or ())
        project = None
        if question is not None and not question.is_old():
            project, more = question.answer()
            warnings += more
        elif invocation.verb[:1] == ("compose",):
            project, more = self._find_old(invocation, stdin, volumes)
            warnings += more
        if project is not None and not project.working_dir:
            project = _placed(project, listed)
        containers = []
        for container in listed:
            if look.worth_inspecting(container, invocation, project, volumes):
                inspected = self.container(container.id)
                if inspected is None:
                    continue  # gone since the list was made
                container = inspected
            containers.append(container)
        return Observed(
            endpoint=self.endpoint,
            engine_id=self.id,
            volumes=volumes,
            containers=tuple(containers),
            project=project,
            warnings=warnings,
            prune_takes_named=takes_named() if takes_named else True,
        )

    def model(self, invocation: Invocation, *, interpolated: bool = True) -> dict[str, Any] | None:
        """All that compose makes of the project's files, secrets included: to be judged, never to be kept, written or shown.

        None when the files do not load.
        """
        compose = Compose(self._compose_program(invocation.program == "docker-compose"), invocation, self._environ, None)
        return compose.read(*(() if interpolated else ("--no-interpolate",)))

    def volume(self, name: str) -> Volume | None:
        """The volume as it is now, or None."""
        with _reading():
            body = self._way.reader.get(f"/volumes/{quote(name, safe='')}")
            return look.volume_from(body) if body is not None else None

    def container(self, id_or_name: str) -> Container | None:
        """The container as it is now, or None."""
        with _reading():
            body = self._way.reader.get(f"/containers/{quote(id_or_name, safe='')}/json")
            return look.container_from_inspect(body) if body is not None else None

    def private(self, container_id: str) -> Private:
        """What a container was started with, secrets included; empty when it is gone. Only for who has to log in there."""
        with _reading():
            body = self._way.reader.get(f"/containers/{quote(container_id, safe='')}/json")
            return look.private_from(body) if body is not None else Private((), {})

    def addresses(self, container_id: str) -> tuple[str, ...]:
        """A container's own addresses on docker's networks; none with the host's network, without one, or when it is gone."""
        with _reading():
            body = self._way.reader.get(f"/containers/{quote(container_id, safe='')}/json") or {}
            networks = ((body.get("NetworkSettings") or {}).get("Networks") or {}).values()
            return tuple(str(n["IPAddress"]) for n in networks if n and n.get("IPAddress"))

    def containers(self) -> tuple[Container, ...]:
        """Every container, fully inspected."""
        with _reading():
            ids = [str(body["Id"]) for body in self._way.reader.get("/containers/json", all="1")]
        return tuple(c for c in map(self.container, ids) if c is not None)

    def image(self, ref: str) -> Image | None:
        """A local image by id or reference, or None; never pulls."""
        from docker.errors import NotFound

        if ref not in self._images:
            with _reading():
                try:
                    self._images[ref] = look.image_from(
                        self._way.api.inspect_image(ref)  # type: ignore[no-untyped-call]  # types-docker leaves it bare
                    )
                except NotFound:
                    return None
        return self._images[ref]

    def images(self) -> tuple[Image, ...]:
        """Every local image, the smallest first."""
        with _reading():
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

        with _reading():
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
        with _reading():
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
        with _reading():
            return f"{str(self._way.reader.get('/info')['DockerRootDir']).rstrip('/')}/volumes"

    def labelled(self, label: str) -> tuple[Volume, ...]:
        """Every volume that carries a label of ours, whatever its value."""
        with _reading():
            listing = self._way.reader.get("/volumes", filters=json.dumps({"label": [label]}))
            return tuple(map(look.volume_from, listing.get("Volumes") or ()))

    def users(self, volume: str) -> tuple[Container, ...]:
        """Every container that references a volume at this moment, fully inspected; without our lock on it."""
        with _reading():
            bodies = self._way.reader.get("/containers/json", all="1", filters=json.dumps({"volume": [volume]}))
            found = [c for body in bodies if (c := self.container(str(body["Id"]))) is not None]
        return tuple(c for c in found if volume in c.volume_names() and not c.locks(volume))

    # -- acting --------------------------------------------------------------------------------------------------------

    def stop(self, container_id: str, *, timeout: int) -> int:
        """Stop it, with SIGKILL after `timeout` seconds. Returns its exit code; -1 when it has removed itself (`--rm`)."""
        from docker.errors import NotFound

        with _acting(f"stop container {container_id[:12]}"):
            try:
                self._way.api.stop(container_id, timeout=timeout)
            except NotFound:
                return -1
        now = self.container(container_id)
        return now.exit_code if now is not None else -1

    def start(self, container_id: str) -> None:
        with _acting(f"start container {container_id[:12]}"):
            self._way.api.start(container_id)

    def pause(self, container_id: str) -> None:
        with _acting(f"pause container {container_id[:12]}"):
            self._way.api.pause(container_id)

    def unpause(self, container_id: str) -> None:
        with _acting(f"unpause container {container_id[:12]}"):
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
        with _acting(f"create volume {name}"):
            body = self._way.api.create_volume(name, driver=driver, driver_opts=dict(options or {}), labels=dict(labels or {}))
        return look.volume_from(body)

    def remove_volume(self, name: str) -> None:
        """Delete a volume: only ever a scratch volume of ours, or in `restore` one that has been kept safe."""
        with _acting(f"remove volume {name}"):
            self._way.api.remove_volume(name)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def run(self, helper: Helper, *, stdin: bytes | None = None, timeout: float | None = None) -> bytes:
        """The whole stdout of a helper; HelperFailed unless it ends with 0 within `timeout` seconds."""
        source = io.BytesIO(stdin) if stdin is not None else None
        return self._whole(self.stream(helper, stdin=source), timeout)

    @contextmanager
    def stream(self, helper: Helper, *, stdin: IO[bytes] | int | None = None, discard: bool = False) -> Iterator[Stream]:
        """Run a helper for the length of a block and read its `stdout` there.

        `stdin` is a file that is copied to it, or `subprocess.PIPE` to write to its `stdin` in the block; `discard` throws
        its stdout away (without, a block that writes much must also read). Leaving the block waits for its end and raises
        HelperFailed unless that is 0; any exception removes the container with its anonymous volumes.

        A helper that tells how its bytes can go through a pipe of this host has them go there where that works; where it
        does not, they go through the daemon, from their first byte on.
        """
        with ExitStack() as stack:
            opened: Stream | None = None
            if helper.piped and not discard and (stdin is None or isinstance(stdin, int)) and self._shares_pipes():
                pipe = Pipe()
                stack.callback(pipe.remove)
                try:
                    opened = stack.enter_context(self._client(helper, stdin=stdin, discard=False, pipe=pipe))
                    self.pipes_work = True
                except NeverOpened:
                    self.pipes_work = False
            yield opened or stack.enter_context(self._client(helper, stdin=stdin, discard=discard))

    def _client(
        self, helper: Helper, *, stdin: IO[bytes] | int | None, discard: bool, pipe: Pipe | None = None
    ) -> AbstractContextManager[Stream]:
        name = self._name()
        words = clients.run_words(helper, name, self.run_id, self._image_volumes(helper), stdin=stdin is not None, pipe=pipe)
        return clients.client(
            (self.docker, *self.docker_globals, *words),
            {**self._environ, **helper.environment},
            what=f"{helper.argv[0] if helper.argv else 'the image'} in a helper container",
            name=name,
            stdin=stdin,
            discard=discard,
            clean=lambda: self._remove(name),
            pipe=pipe,
            patience=None if self.pipes_work else PIPE_PATIENCE,
        )

    def _shares_pipes(self) -> bool:
        """Whether a pipe of ours may reach a helper: a local socket and our own kernel. Only trying tells whether the daemon
        sees our files as well (it may run in a container, in a mount namespace, or behind a forwarded socket)."""
        here = sys.platform == "linux" and self.endpoint.startswith("unix://") and self._way.kernel == os.uname().release
        return here and self.pipes_work is not False

    def execute(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """The whole stdout of one bare argv in a container that is not ours; HelperFailed unless it ends with 0."""
        source = io.BytesIO(stdin) if stdin is not None else None
        stream = self.execute_stream(container_id, argv, stdin=source, user=user, environment=environment)
        return self._whole(stream, timeout)

    def execute_stream(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        stdin: IO[bytes] | int | None = None,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        discard: bool = False,
    ) -> AbstractContextManager[Stream]:
        """`stream` for an exec. Never a shell: an orphan of one can make Postgres restart (lab.md, section 0)."""
        given = environment or {}
        words = clients.exec_words(container_id, argv, stdin=stdin is not None, user=user, environment=given)
        return clients.client(
            (self.docker, *self.docker_globals, *words),
            {**self._environ, **given},
            what=f"{argv[0]} in container {container_id[:12]}",
            name=container_id,
            stdin=stdin,
            discard=discard,
            clean=lambda: None,  # the engine has no way to end an exec; it ends when nobody reads it
        )

    @contextmanager
    def serve(self, helper: Helper) -> Iterator[str]:
        """Run a helper in the background; yields its container id, and always removes it with its anonymous volumes."""
        name = self._name()
        words = clients.serve_words(helper, name, self.run_id, self._image_volumes(helper))
        try:
            starting = clients.client(
                (self.docker, *self.docker_globals, *words),
                {**self._environ, **helper.environment},
                what="starting a helper container",
                name=name,
                stdin=None,
                discard=False,
                clean=lambda: self._remove(name),
            )
            yield self._whole(starting, None).decode("ascii").strip()
        finally:
            self._remove(name)

    @contextmanager
    def archive_out(self, volume: str, image: str | None = None) -> Iterator[Iterator[bytes]]:
        """The volume as a tar stream with members `volume/...`, by the archive API of a created, never started container.

        The way without GNU tar: loses user.* xattrs, parts of seconds, sockets and sparseness (lab.md, section 3). `image`
        is any local image's id; None imports an empty one tagged `safe-compose/empty`, which stays.
        """
        with self._parked(volume, image, read_only=True) as container_id, self._archive(container_id) as chunks:
            yield chunks

    def archive_in(self, volume: str, image: str | None, chunks: Iterable[bytes]) -> None:
        """Unpack a tar stream with members `volume/...` into the volume; into a fresh one, since a cut stream leaves parts.

        Unpacked at `/`, because at `/volume` the root folder would lose its owner and mode (lab.md, section 3, run).
        """
        with (
            self._parked(volume, image, read_only=False) as container_id,
            _acting(f"unpack an archive into volume {volume}"),
        ):
            api = self._way.api
            url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/archive"
            # no limit on the time between two chunks: the daemon answers when the last one is on its disk
            answer = api.put(url, params={"path": "/"}, data=iter(chunks), timeout=None)
            if not answer.ok:
                raise BackupFailed(f"docker could not unpack an archive into volume {volume}: {_words_of(answer)}")

    def list_root(self, volume: str, image: str | None = None) -> list[str] | None:
        """Names at the volume's root, read through a created, never started container of any local image.

        [] is sure: nothing is in it. A long list may be cut (only the first 8 MiB of its archive are read). None: it could
        not be read, or there is no image at all (none is made for this: a look writes nothing that stays).
        """
        try:
            any_image = image or next((i.id for i in self.images()), None)
            if any_image is None or self.volume(volume) is None:
                return None
            with self._parked(volume, any_image, read_only=True) as container_id:
                names, whole = self._names_below(container_id, 1)
            return names.get("") or ([] if whole else None)  # where no end was seen, nothing is sure
        except SafeComposeError:
            return None

    def list_roots(self, volumes: Sequence[str]) -> dict[str, list[str] | None]:
        """The same of many: one container and one archive for all that are empty or small, so that a hundred take no longer
        than a few."""
        found: dict[str, list[str] | None] = dict.fromkeys(volumes)
        left = list(volumes)
        while left:
            some, left = left[:ROOTS_AT_ONCE], left[ROOTS_AT_ONCE:]
            if len(some) == 1:
                found[some[0]] = self.list_root(some[0])
                continue
            listed = self._roots(some)
            found |= listed
            unseen = [name for name in some if name not in listed]
            if len(unseen) == len(some):
                found |= {name: self.list_root(name) for name in some}
            else:
                left = unseen + left
        return found

    def _roots(self, volumes: Sequence[str]) -> dict[str, list[str] | None]:
        """The roots of those that stand before the limit in one archive of all; nothing when there is none to be had."""
        from docker.types import Mount as MountPoint

        try:
            gone = {name: None for name in volumes if self.volume(name) is None}
            there = [name for name in volumes if name not in gone]
            image = next((i.id for i in self.images()), None)
            if image is None or not there:
                return dict(gone)
            mounts = [
                MountPoint(f"{PARKED_AT}/{number:03}", name, type="volume", read_only=True, no_copy=True)
                for number, name in enumerate(there)
            ]
            with self._created(image, {}, mounts, f"to reach {len(there)} volumes") as container_id:
                names, whole = self._names_below(container_id, 2)
        except SafeComposeError:
            return {}
        # The archive goes by name: what stands before the last that was seen was read to its end.
        known = len(there) if whole else max((int(root) for root in names), default=0)
        if not known:
            return gone | {there[0]: self.list_root(there[0])}
        return gone | {name: list(names.get(f"{number:03}", ())) for number, name in enumerate(there[:known])}

    def _names_below(self, container_id: str, depth: int) -> tuple[dict[str, list[str]], bool]:
        """Of an archive of /volume the names at a depth, by the folder above them; and whether its end was seen."""
        names: dict[str, dict[str, None]] = {}
        source: _Chunks | None = None
        try:
            with self._archive(container_id) as chunks:
                source = _Chunks(chunks, ROOT_LISTING_LIMIT)
                with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as archive:
                    for member in archive:
                        parts = member.name.strip("/").split("/")
                        if len(parts) > depth:
                            names.setdefault("/".join(parts[1:depth]), {}).setdefault(parts[depth])
        except (SafeComposeError, tarfile.TarError, OSError):
            return {root: list(found) for root, found in names.items()}, False
        return {root: list(found) for root, found in names.items()}, source.whole

    @contextmanager
    def held(self, volume: str, image: str) -> Iterator[None]:
        """While the block lasts docker refuses to delete the volume: a created, never started container references it.

        That container mounts it by name, so its own removal leaves the volume alone.
        """
        with self._parked(volume, image, read_only=True):
            yield

    def lock_volume(self, volume: str) -> bool:
        """Have docker refuse to delete the volume, whoever asks and however, until `unlock_volume`.

        True: the lock runs, so no prune takes it away. False: no local image has a program that sleeps; it is only created,
        and `container prune` would remove it. The volume must exist. Raises BackupFailed.
        """
        name = locks.name_of(volume)
        there = self.container(name)
        if self.volume(volume) is None:  # docker would make it
            raise BackupFailed(f"there is no volume {volume} any more; nothing was locked")
        if there is not None and there.locks(volume) and there.state == "running":
            return True
        if there is not None and LOCK_LABEL not in there.labels:  # docker would have us remove somebody's container
            raise BackupFailed(
                f"container {name} has the name of a lock and is none of ours; volume {volume} was not locked",
                next_step=f"docker rename {name} {name}.other",
            )
        self._remove(name)
        images = sorted(self.images(), key=lambda image: (not image.references, image.size))
        for image in (i for i in images if i.size):
            try:
                with _acting(f"lock volume {volume}"):
                    locks.create(self._way.api, volume, image)
                self.start(name)
                return self.wait_running(name, timeout=10).state == "running"
            except BackupFailed:
                self._remove(name)  # this image has no such program
        with _acting(f"lock volume {volume}"):
            locks.create(self._way.api, volume, self.image(self._empty_image()) or images[0])
        return False

    def lock_of(self, volume: str) -> Container | None:
        """The lock on a volume as it is now, or None."""
        there = self.container(locks.name_of(volume))
        return there if there is not None and there.locks(volume) else None

    def unlock_volume(self, volume: str) -> None:
        """Take the lock away, where there is one."""
        if (lock := self.lock_of(volume)) is not None:
            self._remove(lock.name)

    def leftovers(self, run_id: str | None = None) -> tuple[str, ...]:
        """Names of our containers of this run (or of another) that are still there."""
        with _reading():
            bodies = self._way.api.containers(all=True, filters={"label": f"{HELPER_LABEL}={run_id or self.run_id}"})
        return tuple(look.container_from_list(body).name for body in bodies)

    def sweep(self, run_id: str | None = None) -> None:
        """Remove our containers of this run (or of a dead one), with their anonymous volumes, and its scratch volumes."""
        for name in self.leftovers(run_id):
            self._remove(name)
        with _reading():
            listing = self._way.api.volumes(filters={"label": f"{HELPER_LABEL}={run_id or self.run_id}"})
        for body in listing.get("Volumes") or ():
            self.remove_volume(str(body["Name"]))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _question(self, invocation: Invocation, stdin: bytes | None) -> Question:
        standalone = invocation.program == "docker-compose"
        compose = Compose(self._compose_program(standalone), invocation, self._environ, stdin)
        return Question(compose, invocation, self._environ, standalone)

    def _compose_program(self, standalone: bool) -> tuple[str, ...]:
        if not standalone:
            return (self.docker, *self.docker_globals, "compose")
        return (self._standalone(), *self.docker_globals)

    def _standalone(self) -> str:
        binary = self._compose or shutil.which("docker-compose", path=self._environ.get("PATH"))
        if binary is None:
            raise DockerNotFound("there is no docker-compose on PATH")
        return binary

    def _find_old(self, invocation: Invocation, stdin: bytes | None, volumes: Iterable[Volume]) -> Finding:
        """The project that a command of docker-compose 1.x means, and warnings. Raises as `look` does."""
        old = OldQuestion(self._standalone(), invocation, self._environ, stdin)
        try:
            project, warnings = old.answer({volume.name for volume in volumes})
            if project is not None and not self._old_reaches_us:
                self._prove_old_reaches_us(old, project)
        finally:
            old.drop()
        return project, warnings

    def _prove_old_reaches_us(self, old: OldQuestion, project: Project) -> None:
        """docker-compose 1.x goes to a daemon by rules of its own: DOCKER_HOST in `.env` counts, DOCKER_CONTEXT does not, and
        before 1.26 no context does. So it has to find a container, never started, that only this engine has.

        Raises EngineUnavailable.
        """
        name = f"safe-compose-{secrets.token_hex(8)}"  # 1.x would drop capital letters from a project's name
        image = next((image.id for image in self.images()), None)
        found = False
        if image is not None and project.services:
            labels = {PROJECT_LABEL: name, SERVICE_LABEL: project.services[0], ONEOFF_LABEL: "False", NUMBER_LABEL: "1"}
            with self._created(image, labels) as container_id:
                found = container_id in old.containers(name)
        if not found:
            raise EngineUnavailable(
                f"this docker-compose does not show that it would reach the same engine as docker ({self.endpoint})",
                next_step="name the engine to both: export DOCKER_HOST, and unset DOCKER_CONTEXT",
            )
        self._old_reaches_us = True

    def _prune_probe(self, invocation: Invocation) -> Callable[[], bool] | None:
        """Asks, for a prune only, whether it takes named volumes without `--all` (docker-facts, section 1)."""
        if not invocation.kind.endswith(("volume_prune", "system_prune_volumes")):
            return None
        probe = Probe((self.docker, *self.docker_globals, "version", "--format", "{{.Client.APIVersion}}"), self._environ)

        def takes_named() -> bool:
            code, out, _ = probe.answer()
            match = re.fullmatch(r"(\d+)\.(\d+)", out.decode("ascii", "replace").strip())
            if code or match is None or min((int(match[1]), int(match[2])), self.api_version) < (1, 42):
                return True
            flags = dict(invocation.docker_flags)
            folder = flags.get("config") or self._environ.get("DOCKER_CONFIG") or f"{self._environ.get('HOME', '')}/.docker"
            try:
                settings = json.loads(Path(folder, "config.json").read_bytes())
            except FileNotFoundError:
                return False
            except (OSError, ValueError):
                return True
            filters = settings.get("pruneFilters") if isinstance(settings, dict) else None
            return any(str(f).startswith("all") for f in filters or ())

        return takes_named

    def _name(self) -> str:
        return f"safe-compose-{self.run_id}-{next(self._numbers)}"

    def _image_volumes(self, helper: Helper) -> tuple[str, ...]:
        image = self.image(helper.image)
        if image is None:
            raise BackupFailed(f"image {helper.image} is not on the engine, and nothing is ever pulled")
        return image.volumes

    @staticmethod
    def _whole(stream: AbstractContextManager[Stream], timeout: float | None) -> bytes:
        with stream as running:
            if timeout is None:
                return running.stdout.read()
            late = threading.Event()

            def end() -> None:
                late.set()
                running.abort()

            timer = threading.Timer(timeout, end)
            timer.start()
            try:
                out = running.stdout.read()
            finally:
                timer.cancel()
            if late.is_set():
                raise HelperFailed(f"{running.what}, after {timeout:g} s,", -1, "")
            return out

    @contextmanager
    def _parked(self, volume: str, image: str | None, *, read_only: bool) -> Iterator[str]:
        """A created, never started container that has the volume at /volume; its id. Removed after the block."""
        from docker.types import Mount as MountPoint

        mount = MountPoint(PARKED_AT, volume, type="volume", read_only=read_only, no_copy=True)
        with self._created(image or self._empty_image(), {}, [mount], f"to reach volume {volume}") as container_id:
            yield container_id

    @contextmanager
    def _created(
        self, image: str, labels: Mapping[str, str], mounts: Sequence[Any] = (), why: str = "to be found"
    ) -> Iterator[str]:
        """A created, never started container; its id. Removed after the block."""
        from docker.types import LogConfig

        name = self._name()
        known = self.image(image)
        with _acting(f"create a container {why}"):
            api = self._way.api
            host = api.create_host_config(
                mounts=list(mounts),
                network_mode="none",
                log_config=LogConfig(type="none"),
                tmpfs={path: "" for path in (known.volumes if known else ()) if not mounts or path.rstrip("/") != PARKED_AT},
            )
        try:
            with _acting(f"create a container {why}"):
                # never started, so the command is never looked up; an image without one needs it to be accepted
                made = api.create_container(
                    image, name=name, command=["safe-compose"], labels={**labels, HELPER_LABEL: self.run_id}, host_config=host
                )
                identity = str(made["Id"])
            yield identity
        finally:
            self._remove(name)

    @contextmanager
    def _archive(self, container_id: str) -> Iterator[Iterator[bytes]]:
        with _reading():
            api = self._way.api
            url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/archive"
            answer = api.get(url, params={"path": PARKED_AT}, stream=True, timeout=60)
        with answer:
            if not answer.ok:
                raise BackupFailed(f"docker could not read the volume: {_words_of(answer)}")
            yield _chunks(answer)

    def _empty_image(self) -> str:
        """An image of no bytes, for an engine that has none: `docker import` of an empty tar."""
        found = self.image(EMPTY_IMAGE)
        if found is None:
            tar = io.BytesIO()
            tarfile.open(fileobj=tar, mode="w").close()
            probe = Probe((self.docker, *self.docker_globals, "import", "-", EMPTY_IMAGE), self._environ, stdin=tar.getvalue())
            code, _, words = probe.answer()
            found = self.image(EMPTY_IMAGE)
            if code or found is None:
                raise BackupFailed(f"there is no image to reach a volume with, and an empty one cannot be made: {words.strip()}")
        return found.id

    def _remove(self, name: str) -> None:
        """Remove a container of ours for good: kill it, its anonymous volumes too, and be sure that it has gone."""
        from docker.errors import APIError, NotFound

        missing = 0
        until = time.monotonic() + 15
        while missing < 2:
            try:
                with _acting(f"remove helper container {name}"):
                    self._way.api.remove_container(name, v=True, force=True)
            except BackupFailed as fault:
                reason = fault.__cause__
                if isinstance(reason, NotFound):
                    missing += 1
                    if missing < 2:
                        time.sleep(0.02)  # a client that has just been killed may have left a creation on its way
                elif not isinstance(reason, APIError) or reason.status_code != 409 or time.monotonic() > until:
                    raise
                else:
                    time.sleep(0.05)  # "removal of container is already in progress"


class _Chunks(io.RawIOBase):
    """A file over byte chunks that ends early after `limit` bytes; `whole` tells whether the real end was seen."""

    def __init__(self, chunks: Iterator[bytes], limit: int) -> None:
        self._chunks = chunks
        self._left = limit
        self._rest = b""
        self.whole = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and self._left > 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.whole = True
                break
            self._left -= len(chunk)
            self._rest += chunk
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def _chunks(answer: Any) -> Iterator[bytes]:
    """The body of an answer; a connection that breaks is a BackupFailed."""
    with _acting("send the whole archive"):
        yield from answer.iter_content(clients.CHUNK)


def _answer(probe: Probe) -> tuple[int, bytes, str]:
    return probe.answer()


def _placed(project: Project, containers: Iterable[Container]) -> Project:
    """The project with the folder and files that its containers were made from, as their labels tell."""
    for container in containers:
        if container.project == project.name and container.labels.get(WORKING_DIR_LABEL):
            files = tuple(f for f in container.labels.get(CONFIG_FILES_LABEL, "").split(",") if f)
            return replace(project, working_dir=container.labels[WORKING_DIR_LABEL], config_files=files)
    return project


def _network_errors() -> tuple[type[Exception], ...]:
    from docker.errors import DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    return Unanswered, DockerException, RequestException, HTTPError


def _words_of(answer: Any) -> str:
    try:
        return str(answer.json().get("message", answer.status_code))
    except ValueError:
        return f"HTTP {answer.status_code}"


@contextmanager
def _reading() -> Iterator[None]:
    """A fault while the daemon is asked, or an answer that is none of docker's: EngineUnavailable."""
    try:
        yield
    except _network_errors() as error:
        raise EngineUnavailable(
            f"the daemon cannot be inspected: {_plain(error)}", next_step="check that `docker info` answers with the same flags"
        ) from error
    except MISREAD as error:
        raise EngineUnavailable(
            f"the daemon's answer does not read ({type(error).__name__}: {error})",
            next_step="check that `docker info` answers with the same flags, and that it is a docker engine",
        ) from error


@contextmanager
def _acting(what: str) -> Iterator[None]:
    """A fault while the daemon is told to do something: BackupFailed."""
    try:
        yield
    except _network_errors() as error:
        raise BackupFailed(f"docker could not {what}: {getattr(error, 'explanation', None) or _plain(error)}") from error
    except MISREAD as error:
        raise BackupFailed(f"docker could not {what}: its answer does not read ({type(error).__name__}: {error})") from error


def _plain(error: Exception) -> str:
    """Why it failed, without the exceptions that requests and urllib3 pack around the cause."""
    inner: BaseException | None = error
    seen = 0
    while inner is not None and seen < 10:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        packed = [a for a in (*inner.args, getattr(inner, "reason", None)) if isinstance(a, BaseException)]
        packed += [a for arg in inner.args if isinstance(arg, tuple) for a in arg if isinstance(a, BaseException)]
        inner = packed[0] if packed else inner.__cause__
        seen += 1
    return str(error)
