"""Containers of our own on a daemon: they copy, dump and serve, hold a volume, and are gone when their run ends."""

import io
import itertools
import json
import os
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import IO, Any

from safe_compose.engine import attached, clients, look
from safe_compose.engine.clients import Helper, HelperFailed, Stream
from safe_compose.engine.connect import Probe
from safe_compose.engine.daemon import Daemon
from safe_compose.engine.faults import acting, reading
from safe_compose.engine.pipe import NeverOpened, Pipe
from safe_compose.errors import BackupFailed
from safe_compose.observed import HELPER_LABEL, PROCESS_LABEL
from safe_compose.process import Process

PARKED_AT = "/volume"
"""Where a volume is mounted in a created container; so members of an archive of it are `volume/...`."""
EMPTY_IMAGE = "safe-compose/empty"
PIPE_PATIENCE = 90.0
"""Seconds in which a first helper has to open its pipe: more than a dump waits for a lock. One that runs behind another kernel
would wait for ever."""


class Helpers(Daemon):
    """A daemon on which one run may have helpers. Their streams, and those of an exec, go through the real docker
    binary; much output is read from the daemon's socket."""

    def __init__(self, docker: str, docker_globals: Sequence[str], *, environ: Mapping[str, str], run_id: str) -> None:
        super().__init__(docker, docker_globals, environ=environ)
        self.run_id = run_id
        self._numbers = itertools.count(1)
        self.pipes_work: bool | None = None
        """A helper has used a pipe of ours, or could not; None: none has tried. With False all bytes pass the daemon."""

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
            if opened is None and helper.piped and stdin is None and not discard and self._shows_frames():
                opened = stack.enter_context(self._attached(helper))
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

    @contextmanager
    def _attached(self, helper: Helper) -> Iterator[Stream]:
        """`_client` for much output."""
        name = self._name()
        words = clients.create_words(helper, name, self.run_id, self._image_volumes(helper))
        what = f"{helper.argv[0]} in a helper container"
        made = self._whole(self._made(helper, words, name, "creating a helper container"), None).decode("ascii").strip()

        def start() -> None:
            with acting(f"start {what}"):
                self._way.api.start(made)

        with attached.attached(
            self._way.address.removeprefix("unix://"),
            self._way.reader.version,
            made,
            what=what,
            name=name,
            start=start,
            clean=lambda: self._remove(name),
        ) as opened:
            yield opened

    def _made(self, helper: Helper, words: Sequence[str], name: str, what: str) -> AbstractContextManager[Stream]:
        """A docker client that makes a container of ours, tells its id and ends."""
        return clients.client(
            (self.docker, *self.docker_globals, *words),
            {**self._environ, **helper.environment},
            what=what,
            name=name,
            stdin=None,
            discard=False,
            clean=lambda: self._remove(name),
        )

    def _shows_frames(self) -> bool:
        """Whether output can be read from the daemon's socket: docker's own engine, and not too old a one."""
        return self.maker == "Engine" and self.api_version >= attached.SINCE

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
            yield self._whole(self._made(helper, words, name, "starting a helper container"), None).decode("ascii").strip()
        finally:
            self._remove(name)

    @contextmanager
    def held(self, volume: str, image: str) -> Iterator[None]:
        """While the block lasts docker refuses to delete the volume: a created, never started container references it.

        That container mounts it by name, so its own removal leaves the volume alone.
        """
        with self._parked(volume, image, read_only=True):
            yield

    def leftovers(self, run_id: str | None = None) -> tuple[str, ...]:
        """Names of our containers of this run (or of another) that are still there."""
        with reading():
            bodies = self._way.api.containers(all=True, filters={"label": f"{HELPER_LABEL}={run_id or self.run_id}"})
        return tuple(look.container_from_list(body).name for body in bodies)

    def sweep(self, run_id: str | None = None) -> None:
        """Remove our containers of this run (or of a dead one), with their anonymous volumes, and its scratch volumes."""
        for name in self.leftovers(run_id):
            self._remove(name)
        with reading():
            listing = self._way.api.volumes(filters={"label": f"{HELPER_LABEL}={run_id or self.run_id}"})
        for body in listing.get("Volumes") or ():
            self.remove_volume(str(body["Name"]))

    @property
    def marks(self) -> Mapping[str, str]:
        """The labels by which `sweep` and `sweep_dead` know what is ours."""
        return clients.marks(self.run_id)

    def sweep_dead(self) -> None:
        """`sweep` for every run whose process is certainly dead, be it that it had not begun its journal yet."""
        with reading():
            bodies = self._way.api.containers(all=True, filters={"label": PROCESS_LABEL})
            bodies += self._way.api.volumes(filters={"label": PROCESS_LABEL}).get("Volumes") or []
        for run_id in {body["Labels"].get(HELPER_LABEL, "") for body in bodies if _made_by_the_dead(body["Labels"])} - {""}:
            self.sweep(run_id)

    # -- inside --------------------------------------------------------------------------------------------------------

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
        with acting(f"create a container {why}"):
            api = self._way.api
            host = api.create_host_config(
                mounts=list(mounts),
                network_mode="none",
                log_config=LogConfig(type="none"),
                tmpfs={path: "" for path in (known.volumes if known else ()) if not mounts or path.rstrip("/") != PARKED_AT},
            )
        try:
            with acting(f"create a container {why}"):
                # never started, so the command is never looked up; an image without one needs it to be accepted
                made = api.create_container(
                    image, name=name, command=["safe-compose"], labels={**labels, **self.marks}, host_config=host
                )
                identity = str(made["Id"])
            yield identity
        finally:
            self._remove(name)

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
                with acting(f"remove helper container {name}"):
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


def _made_by_the_dead(labels: Mapping[str, str]) -> bool:
    try:
        process = Process.read(json.loads(labels[PROCESS_LABEL]))
    except (ValueError, AttributeError, RecursionError):
        return False
    return process is not None and process.is_dead()
