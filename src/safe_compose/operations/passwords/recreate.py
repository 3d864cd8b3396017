"""Containers recreated by compose, according to the current or the earlier files.

The database comes first. A container is waited for as far as it was well before.
"""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safe_compose.core.observed import Container
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.databases.registry import DATABASES, has_passwords
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from safe_compose.fastpath import launch
from safe_compose.grammar.parser import Invocation
from safe_compose.operations.stopped_containers import HEALTH_SECONDS
from safe_compose.store.run_record import RunRecord
from safe_compose.system import children
from safe_compose.system.project_files import FileChange
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace

_SECONDS = 300.0
"""How long compose may take to say what it would do."""


@dataclass(frozen=True, slots=True)
class RotationState:
    """Everything needed to finish or revert a password rotation.

    It is written to the store before the first change.
    """

    changes: tuple[FileChange, ...]
    project: str
    service: str
    kind: str
    user: str
    old: str | None
    new: str | None
    first: tuple[str, ...]
    services: tuple[str, ...]
    scale: dict[str, int]
    mounted: tuple[str, ...]
    awaited: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """Return everything but the changes of files, for the store."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "changes"}

    @classmethod
    def read(cls, changes: Sequence[FileChange], facts: Mapping[str, Any]) -> "RotationState":
        """Return the state from what the store holds.

        Raises:
            OperationFailed: It is not that of a password rotation.
        """
        names = [n for n in cls.__slots__ if n != "changes"]
        if missing := [n for n in names if n not in facts] or (
            [] if has_passwords(facts.get("kind")) else ["kind"]
        ):
            raise OperationFailed(
                f"what was kept of a change of a password does not read ({', '.join(missing)}): put"
                " the files back by hand"
            )
        given: dict[str, Any] = {
            n: tuple(facts[n]) if isinstance(facts[n], list) else facts[n] for n in names
        }
        return cls(tuple(changes), **given)


def recreate(
    workspace: Workspace,
    state: RotationState,
    invocation: Invocation | RunRecord,
    *,
    stop_seconds: int,
    cwd: str | None = None,
    back: bool = False,
) -> None:
    """Recreate the database's container, then those of its clients, as the files say now.

    Each container gets at least its own time to stop, and a volume in memory keeps its content.

    Args:
        workspace: The workspace.
        state: The state of the rotation.
        invocation: The command whose words before the verb compose gets.
        stop_seconds: The minimum stop time.
        cwd: The folder to run compose in; None for the current one.
        back: This is a rollback, in which no client is waited for.

    Raises:
        OperationFailed: A container cannot be recreated, or does not reach its earlier state.
    """
    engine = workspace.engine
    old = [
        c
        for c in engine.docker.containers()
        if c.project == state.project and c.service in {*state.first, *state.services}
    ]
    engine.mounts.keep(
        n
        for c in old
        for n in c.volume_names()
        if (v := engine.docker.volume(n)) is not None and v.in_memory
    )
    stop_seconds = max([stop_seconds, *(c.stop_timeout or 0 for c in old)])
    for group in (state.first, state.services):
        forced = tuple(s for s in group if s in state.mounted)
        for services, flags in (
            (tuple(s for s in group if s not in forced), ()),
            (forced, ("--force-recreate",)),
        ):
            if not services:
                continue
            words = _make_up_words(state, services, flags, stop_seconds)
            done = run_compose(workspace, invocation, words, cwd=cwd)
            if done.returncode:
                raise OperationFailed(
                    f"compose could not recreate {', '.join(services)} (exit code"
                    f" {done.returncode})"
                )
            _wait(engine, state, [s for s in services if not back or s == state.service])
        if state.service in group:
            wait_answers(engine, state)
    engine.mounts.release()


def _make_up_words(
    state: RotationState, services: Sequence[str], flags: Sequence[str], stop_seconds: int
) -> tuple[str, ...]:
    """Return the words with which compose recreates services, as many containers as before."""
    up = ("up", "-d", "--no-deps", "--pull", "never", "--timeout", str(stop_seconds))
    scaled = (
        word for s in services if s in state.scale for word in ("--scale", f"{s}={state.scale[s]}")
    )
    return (*up, *flags, *scaled, *services)


def _wait(engine: Engine, state: RotationState, services: Sequence[str]) -> None:
    """Wait until the containers of services are in their earlier state.

    Raises:
        OperationFailed: One cannot reach it, or is late.
    """
    mine = [
        c
        for c in engine.docker.containers()
        if c.project == state.project and c.service in services
    ]
    awaited = [
        c.name
        for c in mine
        if state.awaited.get(c.service or "") == "healthy" and c.health == "starting"
    ]
    others = [
        c.name
        for c in mine
        if state.awaited.get(c.service or "") != "healthy" and c.health == "starting"
    ]
    if awaited:
        terminal.say(
            f"safe-compose: waiting until {', '.join(awaited)} is healthy as before (at most"
            f" {HEALTH_SECONDS:.0f} s)"
        )
    if others:
        terminal.say(
            f"safe-compose: not waiting until {', '.join(others)} is healthy: it was not before"
        )
    for container in mine:
        if (wanted := state.awaited.get(container.service or "")) is not None:
            _wait_until(EngineContainer(engine, container), wanted)


def _wait_until(at: EngineContainer, state: str) -> None:
    """Wait until a container is `running`, or `healthy` if it still has a health check.

    Raises:
        OperationFailed: It cannot become that, or is late.
    """
    until = time.monotonic() + HEALTH_SECONDS
    while True:
        now = at.inspect_again()
        if (
            now is not None
            and now.state == "running"
            and (state == "running" or now.health in (None, "healthy"))
        ):
            return
        ended = (
            now is None or now.state in ("exited", "dead", "removing") or now.health == "unhealthy"
        )
        if ended or time.monotonic() > until:
            found = f"{now.state}, health {now.health or 'not checked'}" if now else "gone"
            raise OperationFailed(f"container {at.name}, recreated, is not {state} but {found}")
        time.sleep(0.1)


def wait_answers(engine: Engine, state: RotationState) -> None:
    """Wait until the database's server answers, for its clients and a test login.

    Raises:
        OperationFailed: It does not answer in time.
    """
    until = time.monotonic() + HEALTH_SECONDS
    while True:
        try:
            running = find_running(engine, state.project, state.service)
            DATABASES[state.kind].server(EngineContainer(engine, running))
            return
        except ServerUnreachable:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


def find_running(engine: Engine, project: str, service: str) -> Container:
    """Return the running container of a service.

    Raises:
        OperationFailed: There is not exactly one.
    """
    found = [
        c
        for c in engine.docker.containers()
        if c.project == project and c.service == service and c.state == "running"
    ]
    if len(found) != 1:
        raise OperationFailed(f"service {service} has {len(found)} running containers, not one")
    return found[0]


def run_compose(
    workspace: Workspace,
    invocation: Invocation | RunRecord,
    words: Sequence[str],
    *,
    cwd: str | None = None,
    show: bool = True,
) -> "subprocess.CompletedProcess[bytes]":
    """Run compose with the same words before the verb.

    Its stdin is empty, so a question of compose is answered no.

    Args:
        workspace: The workspace that names the client.
        invocation: The command whose words before the verb are used.
        words: The verb and its arguments.
        cwd: The folder to run in; None for the current one.
        show: Show the command and its output, instead of returning the output.

    Raises:
        OperationFailed: Without `show`, compose takes too long or prints too much.
    """
    command = [
        workspace.docker,
        *invocation.docker_globals,
        "compose",
        *invocation.compose_globals,
        *words,
    ]
    if show:
        terminal.say(f"safe-compose: docker compose {' '.join(words)}")
    environ = launch.read_original_environment()
    if show:
        return subprocess.CompletedProcess(
            command, children.run_shown(command, cwd=cwd, environ=environ)
        )
    try:
        return children.run(
            command, cwd=cwd, seconds=_SECONDS, stderr=subprocess.STDOUT, environ=environ
        )
    except (subprocess.TimeoutExpired, children.TooMuch) as fault:
        raise OperationFailed(
            f"compose did not say what it would do ({type(fault).__name__})"
        ) from fault


def dry_run(workspace: Workspace, invocation: Invocation, services: Sequence[str]) -> str:
    """Return what compose says it would do to start these services.

    Raises:
        OperationFailed: Compose takes too long or prints too much.
    """
    done = run_compose(
        workspace, invocation, ("--dry-run", "up", "-d", "--no-deps", *services), show=False
    )
    return done.stdout.decode("utf-8", "replace")
