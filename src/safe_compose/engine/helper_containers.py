"""Our own containers on a daemon.

They copy, dump and serve, keep a volume from being deleted, and are removed when their run ends.
"""

import io
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import IO, Any

from safe_compose.core.observed import (
    HELPER_LABEL,
    KEEPS_LABEL,
    PROCESS_LABEL,
    describe_location,
)
from safe_compose.engine import full_disk, helper_args, values
from safe_compose.engine.client_stream import (
    ClientRun,
    HelperFailed,
    Stream,
    read_whole,
    running_client,
)
from safe_compose.engine.docker import Daemon
from safe_compose.engine.errors import changing, inspecting
from safe_compose.engine.helper_args import Helper, make_mount
from safe_compose.engine.helper_image import PROGRAM
from safe_compose.engine.named_pipe import NeverOpened, Pipe
from safe_compose.engine.own_images import OwnImages, with_image
from safe_compose.errors import OperationFailed

PARKED_AT = "/volume"
"""Where a volume is mounted in a created container, so that members of an archive of it are
`volume/...`."""
PIPE_PATIENCE = 90.0
"""Seconds in which the first helper has to open its pipe: more than a dump waits for a lock. One
that runs under another kernel would wait for ever."""


class Helpers:
    """The helpers that one run may have on a daemon.

    Their streams, and those of an exec, go through the real docker binary; large output is read
    from the daemon's socket.
    """

    def __init__(
        self,
        docker: Daemon,
        images: OwnImages,
        run_id: str,
        mark_key: Callable[[], bytes | None],
    ) -> None:
        """Use a daemon with our images on it; `mark_key` as of `Engine`."""
        self.docker = docker
        self.images = images
        self.run_id = run_id
        self._numbers = itertools.count(1)
        self._made_here: set[str] = set()
        self._mark_key = mark_key
        self.pipes_work: bool | None = None
        """Whether a helper could use a pipe; None: none has tried. With False all bytes go through
        the daemon."""

    def own(
        self,
        *argv: str,
        volumes: tuple[tuple[str, str, bool], ...] = (),
        binds: tuple[tuple[str, str], ...] = (),
        capabilities: tuple[str, ...] = (),
        piped: tuple[str, ...] = (),
        tmpfs: tuple[str, ...] = (),
    ) -> Helper:
        """Return a helper that runs our own program (`list`, `pack`, ...) from our verified image.

        It is root with these capabilities alone (see helper_image), has no network and a read-only
        root file system. `piped` is the program's argv with `--file=` a pipe, for much data.

        Raises:
            NoOwnImage: The image cannot be used on this engine.
        """
        return Helper(
            image=self.images.own_image(),
            argv=(PROGRAM, *argv),
            piped=(PROGRAM, *piped) if piped else (),
            volumes=volumes,
            binds=binds,
            tmpfs=tmpfs,
            user="0:0",
            capabilities=capabilities,
            hardened=True,
        )

    def run(
        self,
        helper: Helper,
        *,
        stdin: bytes | None = None,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> bytes:
        """Run a helper and return its whole stdout.

        Raises:
            HelperFailed: It did not end with 0 within `timeout` seconds and `limit` bytes.
        """
        source = io.BytesIO(stdin) if stdin is not None else None
        return read_whole(self.stream(helper, stdin=source), timeout=timeout, limit=limit)

    @contextmanager
    def stream(
        self, helper: Helper, *, stdin: IO[bytes] | int | None = None, discard: bool = False
    ) -> Iterator[Stream]:
        """Run a helper during the block, which reads its `stdout`.

        Leaving the block waits for the helper's end; any exception removes the container with its
        anonymous volumes. A helper that has a `piped` argv uses a pipe of this host where that
        works. Otherwise its bytes go through the daemon, from the first one on.

        Args:
            helper: The container.
            stdin: A file that is copied to it, or `subprocess.PIPE` to write to its `stdin` in the
                block.
            discard: Discard its stdout. Without it, the block must read what the helper writes.

        Raises:
            HelperFailed: The helper did not end with 0.
        """
        with self._advising(), ExitStack() as stack:
            opened: Stream | None = None
            if (
                helper.piped
                and not discard
                and (stdin is None or isinstance(stdin, int))
                and self._shares_pipes()
            ):
                pipe = Pipe()
                stack.callback(pipe.remove)
                try:
                    opened = stack.enter_context(
                        self._client(helper, stdin=stdin, discard=False, pipe=pipe)
                    )
                    self.pipes_work = True
                except NeverOpened:
                    self.pipes_work = False
            if (
                opened is None
                and helper.piped
                and stdin is None
                and not discard
                and self._shows_frames()
            ):
                opened = stack.enter_context(self._streaming_attached(helper))
            yield opened or stack.enter_context(self._client(helper, stdin=stdin, discard=discard))

    def _client(
        self,
        helper: Helper,
        *,
        stdin: IO[bytes] | int | None,
        discard: bool,
        pipe: Pipe | None = None,
    ) -> AbstractContextManager[Stream]:
        name = self.new_name()
        labels, paths = self.marks_for(name), self._image_volumes(helper)
        args = helper_args.make_run_args(
            helper, name, labels, paths, stdin=stdin is not None, pipe=pipe
        )
        run = ClientRun(
            argv=(*self.docker.command, *args),
            environ={**self.docker.environ, **helper.environment},
            what=f"{helper.argv[0] if helper.argv else 'the image'} in a helper container",
            name=name,
            stdin=stdin,
            discard=discard,
            clean=lambda: self.remove(name),
            pipe=pipe,
            patience=None if self.pipes_work else PIPE_PATIENCE,
            ending=helper.ending,
        )
        return running_client(run)

    @contextmanager
    def _streaming_attached(self, helper: Helper) -> Iterator[Stream]:
        """Run a helper with large output, read from the daemon's socket during the block."""
        from safe_compose.engine import attach

        name = self.new_name()
        args = helper_args.make_create_args(
            helper, name, self.marks_for(name), self._image_volumes(helper)
        )
        what = f"{helper.argv[0]} in a helper container"
        container_id = self._create(helper, args, name, "creating a helper container")

        def start() -> None:
            with changing(f"start {what}"):
                self.docker.connection.api.start(container_id)

        with attach.starting_attached(
            self.docker.connection.address.removeprefix("unix://"),
            self.docker.connection.reader.version,
            container_id,
            what=what,
            name=name,
            start=start,
            clean=lambda: self.remove(name),
        ) as opened:
            yield opened

    def _create(self, helper: Helper, args: Sequence[str], name: str, what: str) -> str:
        """Create one of our containers by a docker client that ends, and return its id."""
        run = ClientRun(
            argv=(*self.docker.command, *args),
            environ={**self.docker.environ, **helper.environment},
            what=what,
            name=name,
            clean=lambda: self.remove(name),
        )
        return read_whole(running_client(run)).decode("ascii").strip()

    def _shows_frames(self) -> bool:
        """Return whether output can be read from the daemon's socket.

        That needs docker's own engine, and not too old a one.
        """
        from safe_compose.engine import attach

        return self.docker.maker == "Engine" and self.docker.api_version >= attach.SINCE

    def _shares_pipes(self) -> bool:
        """Return whether a helper may be able to use a pipe: a local socket and our own kernel.

        Only trying shows whether the daemon sees our files as well: it may run in a container, in a
        mount namespace, or behind a forwarded socket.
        """
        here = sys.platform == "linux" and self.docker.endpoint.startswith("unix://")
        return (
            here
            and self.docker.connection.kernel == os.uname().release
            and self.pipes_work is not False
        )

    def execute(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> bytes:
        """Run one plain argv in a container of others and return its whole stdout.

        Raises:
            HelperFailed: It did not end with 0 within `timeout` seconds and `limit` bytes.
        """
        source = io.BytesIO(stdin) if stdin is not None else None
        stream = self.execute_stream(
            container_id, argv, stdin=source, user=user, environment=environment
        )
        return read_whole(stream, timeout=timeout, limit=limit)

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
        """Return a context manager that runs one argv in a container of others, as `stream` does.

        Never use a shell: an orphan of one can make Postgres restart (lab.md, section 0).
        """
        given = environment or {}
        args = helper_args.make_exec_args(
            container_id, argv, stdin=stdin is not None, user=user, environment=given
        )
        run = ClientRun(
            argv=(*self.docker.command, *args),
            environ={**self.docker.environ, **given},
            what=f"{argv[0]} in container {container_id[:12]}",
            name=container_id,
            stdin=stdin,
            discard=discard,
            # the engine cannot end an exec; it ends when its output is no longer read
            clean=lambda: None,
        )
        return running_client(run)

    @contextmanager
    def serve(self, helper: Helper) -> Iterator[str]:
        """Run a helper in the background and yield its container id.

        It is always removed, with its anonymous volumes.
        """
        name = self.new_name()
        args = helper_args.make_serve_args(
            helper, name, self.marks_for(name), self._image_volumes(helper)
        )
        try:
            yield self._create(helper, args, name, "starting a helper container")
        finally:
            self.remove(name)

    @contextmanager
    def holding(self, volume: str) -> Iterator[None]:
        """Make docker refuse to delete the volume during the block.

        A container that is created and never started references it. That container mounts the
        volume by name, so its removal leaves the volume alone.
        """
        with self.parking(volume, read_only=True):
            yield

    def leftovers(self, run_id: str | None = None) -> tuple[str, ...]:
        """Return the names of the containers of this run, or of another one, that still exist."""
        containers, _ = self._list_labelled(f"{HELPER_LABEL}={run_id or self.run_id}")
        return tuple(containers)

    def sweep(self, run_id: str | None = None, *, keepers: bool = True) -> None:
        """Remove the containers of this run, or of a dead one, and its scratch volumes.

        Anonymous volumes of the containers are removed too. Only what this process created, or what
        has the mark of this store, is removed: any user can set a label.

        Args:
            run_id: The run; None: this one.
            keepers: Also remove containers that keep a volume mounted.
        """
        containers, volumes = self._list_labelled(f"{HELPER_LABEL}={run_id or self.run_id}")
        for name, labels in containers.items():
            spared = not keepers and KEEPS_LABEL in labels
            if not spared and self._is_ours(name, labels):
                self.remove(name)
        for name, labels in volumes.items():
            if self._is_ours(name, labels):
                self.docker.remove_volume(name)

    def _list_labelled(
        self, label: str
    ) -> tuple[dict[str, Mapping[str, str]], dict[str, Mapping[str, str]]]:
        """Return name -> labels of the containers, and of the volumes, that have a label."""
        wanted = {"label": label}
        with inspecting():
            api = self.docker.connection.api
            containers = map(values.read_listed_container, api.containers(all=True, filters=wanted))
            volumes = map(values.read_volume, api.volumes(filters=wanted).get("Volumes") or ())
            return {c.name: c.labels for c in containers}, {v.name: v.labels for v in volumes}

    def marks_for(self, name: str) -> Mapping[str, str]:
        """Return the labels by which `sweep` and `sweep_dead` recognize an object of this name."""
        self._made_here.add(name)
        return helper_args.make_labels(self.run_id, name, self._mark_key())

    def _is_ours(self, name: str, labels: Mapping[str, str]) -> bool:
        return name in self._made_here or helper_args.has_own_label(labels, name, self._mark_key())

    def sweep_dead(self) -> None:
        """Sweep every run of this store whose process is certainly dead.

        It may have died before it began its journal.
        """
        containers, volumes = self._list_labelled(PROCESS_LABEL)
        for run_id in {
            labels.get(HELPER_LABEL, "")
            for labels in (*containers.values(), *volumes.values())
            if (process := helper_args.read_process(labels)) is not None and process.is_dead()
        } - {""}:
            self.sweep(run_id)

    # -- a full disk -------------------------------------------------------------------------------

    def notice_full_disk(self) -> bool:
        """Return whether the engine's disk is too full to create a container.

        No container is tried where the disk has free space.
        """
        self.docker.disk_is_full = False
        if not self.docker.has_free_space():
            try:
                with self.creating({}):
                    pass
            except OperationFailed as fault:
                self.docker.disk_is_full = full_disk.is_full(fault.message)
        return self.docker.disk_is_full

    @contextmanager
    def _advising(self) -> Iterator[None]:
        """Add a next step to errors about a full disk, or about a volume that cannot be mounted."""
        try:
            yield
        except OperationFailed as fault:
            words = (
                f"{fault.message} {fault.stderr}"
                if isinstance(fault, HelperFailed)
                else fault.message
            )
            if fault.next_step is None and full_disk.is_full(words):
                fault.next_step = self.docker.advise_on_full_disk()
            elif fault.next_step is None and "failed to mount local volume" in words:
                fault.next_step = (
                    "docker volume inspect shows what the volume points at: bring that back, then"
                    " run it again"
                )
            raise

    # -- internal ----------------------------------------------------------------------------------

    def new_name(self) -> str:
        """Return an unused name for a container or volume of this run."""
        return f"safe-compose-{self.run_id}-{next(self._numbers)}"

    def _image_volumes(self, helper: Helper) -> tuple[str, ...]:
        image = self.docker.image(helper.image)
        if image is None:
            raise OperationFailed(
                f"image {helper.image} is not on the engine, and nothing is ever pulled"
            )
        return image.volumes

    @contextmanager
    def parking(self, location: str, *, read_only: bool) -> Iterator[str]:
        """Create a container that has a volume or folder at /volume, and yield its id.

        It is never started, and is removed after the block.
        """
        mount = make_mount(location, PARKED_AT, read_only=read_only)
        with self.creating({}, [mount], f"to reach {describe_location(location)}") as container_id:
            yield container_id

    @contextmanager
    def creating(
        self, labels: Mapping[str, str], mounts: Sequence[Any] = (), why: str = "to be found"
    ) -> Iterator[str]:
        """Create a container of our own image, never start it, and yield its id.

        It is removed after the block.
        """
        from docker.types import LogConfig

        name = self.new_name()
        marks = {**labels, **self.marks_for(name)}

        def create(image: str) -> str:
            with self._advising(), changing(f"create a container {why}"):
                api = self.docker.connection.api
                host = api.create_host_config(
                    mounts=list(mounts), network_mode="none", log_config=LogConfig(type="none")
                )
                # never started, so the command is never looked up; the engine refuses a container
                # without any command
                made = api.create_container(
                    image, name=name, command=["safe-compose"], labels=marks, host_config=host
                )
                return str(made["Id"])

        try:
            yield with_image(self.images.reach_image, create)
        finally:
            self.remove(name)

    def remove(self, name: str) -> None:
        """Remove one of our containers with its anonymous volumes, and make sure that it is gone.

        Raises:
            OperationFailed: docker could not remove it.
        """
        from docker.errors import APIError, NotFound

        missing = 0
        until = time.monotonic() + 15
        while missing < 2:
            try:
                with changing(f"remove helper container {name}"):
                    self.docker.connection.api.remove_container(name, v=True, force=True)
            except OperationFailed as fault:
                reason = fault.__cause__
                if isinstance(reason, NotFound):
                    missing += 1
                    if missing < 2:
                        # a client that was just killed may have started to create it
                        time.sleep(0.02)
                elif (
                    not isinstance(reason, APIError)
                    or reason.status_code != 409
                    or time.monotonic() > until
                ):
                    raise
                else:
                    time.sleep(0.05)  # "removal of container is already in progress"
