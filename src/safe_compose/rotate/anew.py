"""Containers made anew, as the files say now or said before: by compose, the database first, and waited for as far as they were
well before."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safe_compose import prompts, shim
from safe_compose.edits import Change
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed
from safe_compose.grammar import Invocation
from safe_compose.journal import RunRecord
from safe_compose.methods import DATABASES
from safe_compose.methods.database import Silent
from safe_compose.observed import Container
from safe_compose.world import World

HEALTH_SECONDS = 60.0
"""How long a container that was made anew may take to be what it was before, and a database to answer."""


@dataclass(frozen=True, slots=True)
class Way:
    """What has to be known to go on, and to go back."""

    changes: tuple[Change, ...]
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
        return {name: getattr(self, name) for name in self.__slots__ if name != "changes"}

    @classmethod
    def read(cls, changes: Sequence[Change], facts: Mapping[str, Any]) -> "Way":
        names = [n for n in cls.__slots__ if n != "changes"]
        given: dict[str, Any] = {n: tuple(facts[n]) if isinstance(facts[n], list) else facts[n] for n in names}
        return cls(tuple(changes), **given)


def make_anew(
    world: World,
    way: Way,
    invocation: Invocation | RunRecord,
    *,
    stop_seconds: int,
    cwd: str | None = None,
    back: bool = False,
) -> None:
    """The database's container first, then those of its clients, as the files say now. Raises BackupFailed.

    On the way `back` no client is waited for.
    """
    for some in (way.first, way.services):
        forced = tuple(s for s in some if s in way.mounted)
        for services, more in ((tuple(s for s in some if s not in forced), ()), (forced, ("--force-recreate",))):
            if not services:
                continue
            scaled = [word for s in services if s in way.scale for word in ("--scale", f"{s}={way.scale[s]}")]
            words = ("up", "-d", "--no-deps", "--pull", "never", "--timeout", str(stop_seconds), *more, *scaled, *services)
            done = compose(world, invocation, words, cwd=cwd)
            if done.returncode:
                raise BackupFailed(f"compose could not make {', '.join(services)} anew (exit code {done.returncode})")
            _wait(world.engine, way, [s for s in services if not back or s == way.service])
        if way.service in some:
            wait_answers(world.engine, way)


def _wait(engine: Engine, way: Way, services: Sequence[str]) -> None:
    """Until the containers of services are what they were before. Raises BackupFailed as soon as one cannot be, or is late."""
    mine = [c for c in engine.containers() if c.project == way.project and c.service in services]
    awaited = [c.name for c in mine if way.awaited.get(c.service or "") == "healthy" and c.health == "starting"]
    others = [c.name for c in mine if way.awaited.get(c.service or "") != "healthy" and c.health == "starting"]
    if awaited:
        prompts.say(f"safe-compose: waiting until {', '.join(awaited)} is healthy as before (at most {HEALTH_SECONDS:.0f} s)")
    if others:
        prompts.say(f"safe-compose: not waiting until {', '.join(others)} is healthy: it was not before")
    for container in mine:
        if (state := way.awaited.get(container.service or "")) is not None:
            _wait_until(engine, container, state)


def _wait_until(engine: Engine, container: Container, state: str) -> None:
    """`running`, or `healthy` where it still has a health check."""
    until = time.monotonic() + HEALTH_SECONDS
    while True:
        now = engine.container(container.id)
        if now is not None and now.state == "running" and (state == "running" or now.health in (None, "healthy")):
            return
        ended = now is None or now.state in ("exited", "dead", "removing") or now.health == "unhealthy"
        if ended or time.monotonic() > until:
            found = f"{now.state}, health {now.health or 'not checked'}" if now else "gone"
            raise BackupFailed(f"container {container.name}, made anew, is not {state} but {found}")
        time.sleep(0.1)


def wait_answers(engine: Engine, way: Way) -> None:
    """Until the database's own server answers: its clients, and a trial login, would find none. Raises BackupFailed."""
    until = time.monotonic() + HEALTH_SECONDS
    while True:
        try:
            DATABASES[way.kind].server(engine, running(engine, way.project, way.service))
            return
        except Silent:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


def running(engine: Engine, project: str, service: str) -> Container:
    """The one running container of a service. Raises BackupFailed."""
    found = [c for c in engine.containers() if c.project == project and c.service == service and c.state == "running"]
    if len(found) != 1:
        raise BackupFailed(f"service {service} has {len(found)} running containers, not one")
    return found[0]


def compose(
    world: World, invocation: Invocation | RunRecord, words: Sequence[str], *, cwd: str | None = None, show: bool = True
) -> "subprocess.CompletedProcess[bytes]":
    """Compose with the same words before the verb; stdin is empty, so that a question of compose is answered no."""
    command = [world.docker, *invocation.docker_globals, "compose", *invocation.compose_globals, *words]
    if show:
        prompts.say(f"safe-compose: docker compose {' '.join(words)}")
    return subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=2 if show else subprocess.PIPE,
        stderr=None if show else subprocess.STDOUT,
        env=shim.original_environment(),
        check=False,
    )


def dry_run(world: World, invocation: Invocation, services: Sequence[str]) -> str:
    done = compose(world, invocation, ("--dry-run", "up", "-d", "--no-deps", *services), show=False)
    return done.stdout.decode("utf-8", "replace")
