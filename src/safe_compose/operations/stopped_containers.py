"""Containers that are stopped for a while and brought back to the state that each of them had."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from safe_compose.core.observed import KEEPS_LABEL, Container
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, SafeComposeError
from safe_compose.operations.compose_stop import HookedServices
from safe_compose.store.journal import Run
from safe_compose.system.own_container import find_own_containers
from safe_compose.system.signals import deferring_signals, ignoring_signals
from safe_compose.ui import terminal

FEW_NAMES = 3
"""Most containers that are named while they stop; of more, the number is shown."""
DEFAULT_STOP_SECONDS = 30
"""The stop time of containers that are not database servers."""

KILLED = 137
"""The exit code of a program that was killed: 128 + SIGKILL."""

_NOTICED_SECONDS = 5.0
"""How long after its stop time a container may take to be seen as ended."""

HEALTH_SECONDS = 60.0
"""How long a container may take to become healthy, and its database to answer, after a start."""


class ContainerState(NamedTuple):
    """A container's state before it was touched: in the journal, and the aim of its restoration."""

    id: str
    name: str
    state: str
    started_at: str
    health: str | None = None

    @classmethod
    def of(cls, container: Container) -> "ContainerState":
        """Return the current state of a container."""
        return cls(
            container.id, container.name, container.state, container.started_at, container.health
        )

    def is_started_by_others(self, now: Container) -> bool:
        """Return whether somebody else has started the container since.

        One that kept restarting did so by itself, until it was stopped.
        """
        return self.state != "restarting" and now.started_at != self.started_at

    def bring_back(self, engine: Engine) -> bool:
        """Start the container again, and pause it if it was paused.

        Returns:
            False when there was nothing to do or it is gone.

        Raises:
            OperationFailed: It does not start.
        """
        now = engine.docker.container(self.id)
        if now is None or now.state == self.state or (now.lively and self.state != "paused"):
            return False
        if not now.lively:
            engine.docker.start(self.id)
            if self.health is not None:
                engine.docker.wait_healthy(self.id, timeout=HEALTH_SECONDS)
        if self.state == "paused":
            engine.docker.pause(self.id)
        return True


class RefillSource(NamedTuple):
    """A copy from which an emptied volume in memory can be filled again."""

    backup: str
    """The id of the backup."""
    fill: Callable[[], object]


class KilledContainer(NamedTuple):
    """A container that did not end by itself when it was stopped."""

    name: str
    volumes: frozenset[str]
    """The names of the volumes that it uses."""


class StoppedContainers:
    """A group of containers that were stopped, each with the state that it is brought back to."""

    def __init__(self, engine: Engine, run: Run, hooked: HookedServices | None = None) -> None:
        """Start with no container stopped.

        Args:
            engine: The engine.
            run: The run to journal to.
            hooked: The services with `pre_stop` hooks, if there are any.
        """
        self._engine = engine
        self._run = run
        self.hooked = hooked
        self._before: list[ContainerState] = []
        self._volumes: dict[str, frozenset[str]] = {}
        """The id of each stopped container -> the names of its volumes."""
        self._in_memory: dict[str, RefillSource | None] = {}
        """Volume whose content ends with its users -> its copy, once there is one."""
        self.half: set[str] = set()
        """Volumes into which content goes, until all of it is there or none: what uses one is not
        started; `recover` goes on.
        """
        self.killed: list[KilledContainer] = []

    def stop(self, containers: Iterable[Container], *, timeout: int = DEFAULT_STOP_SECONDS) -> None:
        """Stop those containers that are lively, all at once, and keep volumes in memory mounted.

        A paused container is unpaused only to be stopped. Each gets what `docker compose stop`
        would give it: its own stop time, with `timeout` as the minimum, its own signal, and the
        `pre_stop` hooks of its service. The other containers of a service with hooks stop as well.
        The journal is written before the first container is touched.

        Args:
            containers: The containers.
            timeout: The minimum stop time in seconds.

        Raises:
            OperationFailed: A container cannot be stopped; or, before the first is touched, a
                volume in memory cannot be kept.
        """
        lively = [c for c in containers if c.lively]
        if not lively:
            return
        lively += self.list_stopped_with(lively)
        refuse_own(lively)
        self.keep_mounted(name for c in lively for name in c.volume_names())
        known = [ContainerState.of(c) for c in lively]
        self._run.step("stopping", containers=[was._asdict() for was in known])
        self._before += known
        self._volumes |= {c.id: c.location_names() for c in lively}

        names = ", ".join(was.name for was in known)
        few = names if len(known) <= FEW_NAMES else f"{len(known)} containers"
        with terminal.showing_progress(f"stop {few}"):
            _for_each(self._unpause, lively)
            if self.hooked is not None:
                self._stop_hooked(self.hooked, lively, timeout)
            _for_each(lambda container: self._stop_one(container, timeout), lively)
        self._run.step(
            "stopped", containers=[was.name for was in known], killed=[k.name for k in self.killed]
        )

    def list_stopped_with(self, containers: Sequence[Container]) -> list[Container]:
        """Return the other containers that `stop` would stop too.

        Compose stops all containers of a service with hooks together.
        """
        if self.hooked is None or not self.hooked.of(containers):
            return []
        return self.hooked.list_stopped_with(containers, self._engine.commands.look().containers)

    def _stop_hooked(
        self, hooked: HookedServices, containers: Sequence[Container], timeout: int
    ) -> None:
        """Have compose stop the containers whose services have hooks.

        A signal ends this as it ends `docker compose stop`, because a hook takes as long as it
        wants.
        """
        found = hooked.of(containers)
        if not found:
            return
        since = self._engine.docker.clock()
        try:
            hooked.stop(containers, timeout)
        except BaseException as cut:
            with ignoring_signals(), terminal.reporting_only():
                if not isinstance(cut, SafeComposeError):
                    names = ", ".join(c.name for c in found)
                    terminal.say(
                        "safe-compose: a pre_stop hook that has begun goes on by itself, as with"
                        f" docker ({names})"
                    )
                self._await_stops(found, since, timeout)
            raise

    def _await_stops(self, containers: Sequence[Container], since: int, timeout: int) -> None:
        """Wait for the containers that docker was asked to stop.

        Docker continues when the client is gone, and a container found running would not be started
        again. Where a hook still runs, docker was not asked yet.
        """
        signalled = self._engine.docker.list_signalled([c.id for c in containers], since)
        for container in (c for c in containers if c.id in signalled):
            seconds = stop_seconds(container, timeout)
            until = (
                time.monotonic()
                + (seconds if seconds >= 0 else DEFAULT_STOP_SECONDS)
                + _NOTICED_SECONDS
            )
            while (now := self._engine.docker.container(container.id)) is not None and now.lively:
                if time.monotonic() > until:
                    words = f"docker was told to stop {container.name}, and it has not ended yet"
                    terminal.say(
                        f"safe-compose: {words}; when it has: docker start"
                        f" {shell_quote(container.name)}"
                    )
                    break
                time.sleep(0.1)  # polling, with a time limit

    def _unpause(self, container: Container) -> None:
        if container.state == "paused":
            self._engine.docker.unpause(container.id)

    def _stop_one(self, container: Container, timeout: int) -> None:
        now = self._engine.docker.container(container.id)
        seconds = stop_seconds(now or container, timeout)
        if (
            self._engine.docker.stop(container.id, timeout=seconds) != KILLED
            or container.state == "restarting"
        ):
            return
        self.killed.append(KilledContainer(container.name, container.location_names()))
        given = "" if seconds < 0 else f" within {seconds} s"
        terminal.say(
            f"safe-compose: {container.name} did not end by itself{given} and was killed (exit code"
            f" {KILLED}): what it had not written to its volumes by then is lost, as at a power cut"
        )

    def keep_mounted(self, names: Iterable[str]) -> None:
        """Keep those volumes mounted whose content ends with their containers, until `restore`.

        Raises:
            OperationFailed: That is not possible, so no container may be stopped.
        """
        found = [name for name in dict.fromkeys(names) if name not in self._in_memory]
        for name in found:
            volume = self._engine.docker.volume(name)
            if volume is None or not volume.in_memory:
                continue
            try:
                self._engine.mounts.keep([name])
            except OperationFailed as fault:
                raise OperationFailed(
                    f"volume {name} keeps its content in memory, so that a stop ends it, and it"
                    f" cannot be kept meanwhile: {fault.message}; nothing was stopped",
                    next_step=(
                        f"safe-compose backup --volume {shell_quote(name)} copies it while it runs"
                    ),
                ) from fault
            self._in_memory[name] = None

    def list_lost(self) -> list[str]:
        """Return the volumes in memory that were kept mounted and are not any more."""
        return sorted(self._in_memory.keys() - self._engine.mounts.list_mounted())

    def require_kept(self) -> None:
        """Check that all volumes in memory are still mounted.

        Raises:
            OperationFailed: One was unmounted, so its content is gone.
        """
        if lost := self.list_lost():
            each = (
                f"volume {name} keeps its content in memory and was unmounted meanwhile: the"
                " container of ours that kept it mounted has ended, and what it held is gone"
                for name in lost
            )
            raise OperationFailed(f"{'; '.join(each)}; docker was not run")

    def can_fill(self, name: str, copy: RefillSource) -> None:
        """Register a copy of a volume in memory; for other volumes, do nothing."""
        if name in self._in_memory:
            self._in_memory[name] = copy

    def restore(self) -> bool:
        """Bring every container that still exists back to its state, the last stopped first.

        Ctrl-C waits meanwhile: half of a project started again is the worst of both. False when one
        could not be brought back or uses a `half` volume, which is said; no fault is raised. What
        uses a volume in memory that could not be filled again stays stopped for good, which is said
        too: `recover` could not fill it either.
        """
        before, self._before = self._before, []
        if not before and not self._in_memory:
            return True
        with ignoring_signals():
            left = self._fill_again(before) | self.half
            started, complete = start_again(
                self._engine,
                (
                    was
                    for was in reversed(before)
                    if not self._volumes.get(was.id, frozenset()) & left
                ),
            )
            if waiting := [
                was.name for was in before if self._volumes.get(was.id, frozenset()) & self.half
            ]:
                complete = False
                terminal.say(
                    "safe-compose: left stopped until then, on half of their data:"
                    f" {', '.join(waiting)}"
                )
            if started:
                terminal.say(f"safe-compose: started again: {', '.join(started)}")
                with terminal.reporting_only():
                    self._run.step("started", containers=started)
            self._let_go()
        return complete

    def _fill_again(self, before: Sequence[ContainerState]) -> frozenset[str]:
        """Refill the volumes in memory that were released for docker and not deleted by it.

        They get their content back before any container starts on them.

        Returns:
            The names of those that could not be filled; each is reported.
        """
        empty = set()
        for name, copy in self._in_memory.items():
            users = [was for was in before if name in self._volumes.get(was.id, ())]
            if copy is None or not users or name in self.half:
                continue
            try:
                self._fill(name, copy, users)
            except SafeComposeError as fault:
                empty.add(name)
                names = [was.name for was in users]
                terminal.say(
                    f"safe-compose: volume {name}, whose content is kept in memory, could not be"
                    f" filled again ({fault.message}): what uses it stays stopped"
                    f" ({', '.join(names)}); its content is in backup {copy.backup}"
                )
                terminal.say(
                    f"safe-compose:   next: docker start {join_for_shell(names)}, on the empty"
                    f" volume; then safe-compose restore {shell_quote(copy.backup)} --volume"
                    f" {shell_quote(name)}, which puts its content back"
                )
        return frozenset(empty)

    def _fill(self, name: str, copy: RefillSource, users: Sequence[ContainerState]) -> None:
        """Fill a released volume in memory from its copy, unless something runs on it.

        Nothing is done either when its stopped containers are all gone.

        Raises:
            SafeComposeError: It cannot be filled.
        """
        is_mounted = name in self._engine.mounts.list_mounted()
        docker = self._engine.docker
        if (
            is_mounted
            or all(docker.container(was.id) is None for was in users)
            or any(c.lively for c in docker.users(name))
        ):
            return
        with terminal.reporting_only():  # a full disk of the store must leave no volume empty
            self._run.step("refilling", volume=name, backup=copy.backup)
        self._engine.mounts.keep([name])
        copy.fill()
        with terminal.reporting_only():
            self._run.step("refilled", volume=name)
        terminal.say(
            f"safe-compose: volume {name}, whose content is kept in memory, was filled again from"
            " the backup"
        )

    def _let_go(self) -> None:
        """Unmount the volumes in memory, and report those that nothing runs on: they are now empty.

        Their content ends with the unmount.
        """
        with terminal.reporting_only():
            for name in sorted(self._engine.mounts.list_mounted()):
                if not any(
                    c.state == "running" and not c.labels.keys() & {KEEPS_LABEL}
                    for c in self._engine.docker.users(name)
                ):
                    terminal.say(
                        f"safe-compose: volume {name} keeps its content in memory, and nothing runs"
                        " on it: it is empty now"
                    )
            self._engine.mounts.release()


def refuse_own(containers: Iterable[Container]) -> None:
    """Check that none of the containers to be stopped is the one that safe-compose runs in.

    It would end with that container, and nobody would continue.

    Raises:
        OperationFailed: One of them is.
    """
    own = find_own_containers()
    for container in containers:
        if container.lively and container.id in own:
            raise OperationFailed(
                f"safe-compose runs in container {container.name}, or in its network, and would"
                " have to stop it; nothing was stopped or deleted",
                next_step="run the command from outside of that container",
            )


def stop_seconds(container: Container, least: int) -> int:
    """Return how many seconds a container has to end before it is killed.

    That is its own stop time, but not less than `least`; -1 is for ever.
    """
    own = container.stop_timeout
    if own is None:
        return least
    return -1 if own < 0 else max(own, least)


def _for_each(act: Callable[[Container], None], containers: Sequence[Container]) -> None:
    """Act on the containers, on eight at a time.

    Signals wait meanwhile. One that comes between the start of a thread and its registration in the
    pool would leave a stop that nobody waits for, and that happens after the container was found
    running.
    """
    from concurrent.futures import ThreadPoolExecutor

    with deferring_signals(), ThreadPoolExecutor(max_workers=8) as pool:
        for _ in pool.map(act, containers):
            continue


def start_again(engine: Engine, stopped: Iterable[ContainerState]) -> tuple[list[str], bool]:
    """Bring containers back one by one.

    Returns:
        The names of those that needed it, and whether all could be brought back.
    """
    started, complete = [], True
    for was in stopped:
        try:
            if was.bring_back(engine):
                started.append(was.name)
        except SafeComposeError as fault:
            complete = False
            terminal.say(
                f"safe-compose: {was.name} could not be brought back to '{was.state}':"
                f" {fault.message}"
            )
    return started, complete
