"""Containers that we stop for a while: the way there, and back to the state that each of them was in."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from safe_compose import prompts
from safe_compose.engine import Engine
from safe_compose.errors import SafeComposeError
from safe_compose.journal import Run
from safe_compose.observed import Container

DEFAULT_STOP_SECONDS = 30
"""For containers that are no database servers."""

HEALTH_SECONDS = 60.0
"""How long one that is started again may take to be healthy."""


class Was(NamedTuple):
    """A container as it was before we touched it: what the journal keeps of it, and what it is brought back to."""

    id: str
    name: str
    state: str
    started_at: str
    health: str | None = None

    @classmethod
    def of(cls, container: Container) -> "Was":
        return cls(container.id, container.name, container.state, container.started_at, container.health)

    def touched(self, now: Container) -> bool:
        """Somebody else started it since. One that kept restarting did so by itself, until we stopped it."""
        return self.state != "restarting" and now.started_at != self.started_at

    def bring_back(self, engine: Engine) -> bool:
        """Start it again, and pause it where it was paused; False when there was nothing to do or it is gone.

        Raises BackupFailed when it does not start.
        """
        now = engine.container(self.id)
        if now is None or now.state == self.state or (now.lively and self.state != "paused"):
            return False
        if not now.lively:
            engine.start(self.id)
            if self.health is not None:
                engine.wait_healthy(self.id, timeout=HEALTH_SECONDS)
        if self.state == "paused":
            engine.pause(self.id)
        return True


class Halted:
    """The containers that we stopped, and the way back to the state each of them was in."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self._engine = engine
        self._run = run
        self._before: list[Was] = []

    def stop(self, containers: Iterable[Container], *, timeout: int = DEFAULT_STOP_SECONDS) -> None:
        """Stop those that are lively, all at once; a paused one is unpaused only to be stopped.

        `timeout` in seconds before SIGKILL. Journaled before the first one is touched.
        """
        from concurrent.futures import ThreadPoolExecutor

        lively = [Was.of(c) for c in containers if c.lively]
        if not lively:
            return
        self._run.step("stopping", containers=[was._asdict() for was in lively])
        self._before += lively

        def stop_one(was: Was) -> None:
            if was.state == "paused":
                self._engine.unpause(was.id)
            self._engine.stop(was.id, timeout=timeout)

        # A Ctrl-C between a thread's start and the pool's knowing of it would leave a stop behind that nobody waits for: it
        # would come after we found the container still running.
        names = ", ".join(was.name for was in lively)
        with prompts.progress(f"stop {names}"), signals_wait(), ThreadPoolExecutor(max_workers=8) as pool:
            for _ in pool.map(stop_one, lively):
                continue
        self._run.step("stopped", containers=[was.name for was in lively])

    def restore(self) -> bool:
        """Bring every container that still exists back to the state it had, the last stopped first (databases before apps).

        Ctrl-C waits meanwhile: half of a project started again is the worst of both. False when one could not be brought
        back, which is said; no fault is raised.
        """
        before, self._before = self._before, []
        if not before:
            return True
        with undisturbed():
            started, whole = bring_back(self._engine, reversed(before))
            if started:
                prompts.say(f"safe-compose: started again: {', '.join(started)}")
                with prompts.only_said():
                    self._run.step("started", containers=started)
        return whole


@contextmanager
def signals_wait() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP of the block are handled after it, as one: the first that came."""
    with undisturbed() as came:
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def undisturbed() -> Iterator[list[int]]:
    """SIGINT, SIGTERM and SIGHUP do nothing in the block; yields those that come."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def bring_back(engine: Engine, stopped: Iterable[Was]) -> tuple[list[str], bool]:
    """Bring containers back one by one; the names of those where that was needed, and whether all of them could be."""
    started, whole = [], True
    for was in stopped:
        try:
            if was.bring_back(engine):
                started.append(was.name)
        except SafeComposeError as fault:
            whole = False
            prompts.say(f"safe-compose: {was.name} could not be brought back to '{was.state}': {fault.message}")
    return started, whole
