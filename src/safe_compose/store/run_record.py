"""A run as its file in the journal records it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from safe_compose.store.step_parser import parse
from safe_compose.store.steps import (
    BackedUp,
    Ended,
    Ran,
    Refilled,
    Refilling,
    Restored,
    RestoringVolume,
    RolledBack,
    Running,
    Step,
    Undid,
    UnreadableStep,
)
from safe_compose.system.files import explain_error, read_regular
from safe_compose.system.process import Process

T = TypeVar("T", bound=Step)

VERSION = 1
LARGEST = 32 << 20
"""Largest size in bytes of the file of one run: 2,000 volumes take 1 MB."""
MOST_STEPS = 100_000
"""Most lines of the file of one run; a step takes a kilobyte of memory. A restore that goes on for
a week writes fewer."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its file records it."""

    id: str
    seq: int = 0
    """Orders runs; 0 when the first line of the file is damaged."""
    started: str = ""
    program: str = "docker"
    command: tuple[str, ...] = ()
    """docker's arguments without secrets: for display, not to be run again."""
    docker_globals: tuple[str, ...] = ()
    compose_globals: tuple[str, ...] = ()
    project: str | None = None
    cwd: str = ""
    endpoint: str = ""
    engine_id: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The whole first line."""
    steps: tuple[Mapping[str, Any], ...] = ()
    """Each line as written, for display: `step`, `at`, `t` (seconds since its process opened the
    run) and further facts."""
    events: tuple[Step, ...] = ()
    """The lines of `steps`, parsed; decide on these."""
    damaged: str | None = None
    """The damage of the file, apart from a last line that a crash cut short."""

    def last(self, name: str) -> Mapping[str, Any] | None:
        """Return the last line with that step name, or None."""
        return next((s for s in reversed(self.steps) if s["step"] == name), None)

    def newest(self, kind: type[T]) -> T | None:
        """Return the last step of a kind, or None."""
        return next((step for step in reversed(self.events) if isinstance(step, kind)), None)

    def every(self, kind: type[T]) -> tuple[T, ...]:
        """Return all steps of a kind, the oldest first."""
        return tuple(step for step in self.events if isinstance(step, kind))

    @property
    def outcome(self) -> str:
        """Return how the run ended, or `did not end`."""
        ended = self.newest(Ended)
        return ended.outcome if ended is not None else "did not end"

    @property
    def backup(self) -> str | None:
        """Return the id of the run's backup that was recorded last, or None."""
        named = [
            step.backup
            for step in self.events
            if isinstance(step, BackedUp | Running) and step.backup
        ]
        return named[-1] if named else None

    @property
    def deleted(self) -> bool:
        """Return whether docker ran and something is gone, even if only a part of a volume.

        Also true when the run died while docker ran, so that the result is unknown.
        """
        ran = self.newest(Ran)
        return self.newest(Running) is not None and (
            ran is None or ran.gone is None or bool(ran.gone or ran.parts)
        )

    @property
    def taken(self) -> frozenset[str]:
        """Return the volumes that docker deleted or took a part of.

        If the run died before it could check, all volumes that it was meant to delete count.
        """
        ran, running = self.newest(Ran), self.newest(Running)
        if ran is None:
            return (
                frozenset(v.name for v in running.volumes) if running is not None else frozenset()
            )
        return (ran.gone or frozenset()) | ran.parts

    @property
    def taken_in_part(self) -> frozenset[str]:
        """Return those of `taken` that may still hold a part of their content."""
        ran = self.newest(Ran)
        return self.taken if ran is None else ran.parts

    @property
    def volumes(self) -> frozenset[str]:
        """Return the volumes that the run was to delete or to restore, whatever became of it."""
        running = self.newest(Running)
        doomed = running.volumes if running is not None else ()
        return self.taken | {
            *(v.name for v in doomed),
            *(step.volume for step in self.every(RestoringVolume)),
        }

    @property
    def restored(self) -> bool:
        """Return whether the run restored all that it had to restore, whatever happened later."""
        return self.newest(Restored) is not None

    @property
    def half(self) -> dict[str, RestoringVolume]:
        """Return volume -> its restore step, unless it was rolled back or the run restored all."""
        if self.restored:
            return {}
        rolled_back = {step.volume for step in self.every(RolledBack)}
        return {
            step.volume: step
            for step in self.every(RestoringVolume)
            if step.volume not in rolled_back
        }

    @property
    def half_refilled(self) -> dict[str, Refilling]:
        """Return volume in memory -> its refill step, for volumes whose refill did not complete."""
        begun: dict[str, Refilling] = {}
        for step in self.events:
            if isinstance(step, Refilling):
                begun[step.volume] = step
            elif isinstance(step, Refilled):
                begun.pop(step.volume, None)
        return begun

    @property
    def undid(self) -> str | None:
        """Return the id of the run that this one undid, or None."""
        step = self.newest(Undid)
        return step.run if step is not None else None

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Return the names of steps with invalid facts; readers of typed steps do not see them."""
        return tuple(dict.fromkeys(step.name for step in self.every(UnreadableStep)))

    @property
    def rotates(self) -> str | None:
        """Return the service whose password the run changes; None for every other run."""
        found = self.facts.get("rotates")
        return str(found) if found else None

    @property
    def projects(self) -> frozenset[str]:
        """Return the projects that the run locked."""
        found = self.facts.get("projects")
        return frozenset(_words(found))

    @property
    def process(self) -> Process | None:
        """Return the process of the run; None when it is unreadable."""
        found = self.facts.get("process")
        return Process.read(found) if isinstance(found, dict) else None


def read(path: Path) -> RunRecord:
    """Read the file of one run; damage is reported in `damaged`, never raised."""
    try:
        data = read_regular(path, LARGEST)
    except OSError as error:
        return RunRecord(path.stem, damaged=f"cannot be read: {explain_error(error)}")
    if data.count(b"\n") > MOST_STEPS:
        return RunRecord(path.stem, damaged=f"it has more than {MOST_STEPS} lines")
    lines = data.split(b"\n")[:-1]  # text after the last line end was cut short by a crash
    shapes = [_decode(line) for line in lines]
    head = shapes[0] if shapes else None
    steps = tuple(s for s in shapes[1:] if s is not None and isinstance(s.get("step"), str))
    events = tuple(map(parse, steps))
    if head is None or head.get("version") != VERSION or not isinstance(head.get("seq"), int):
        return RunRecord(
            path.stem, steps=steps, events=events, damaged="its first line does not read"
        )
    return RunRecord(
        id=path.stem,
        seq=head["seq"],
        started=str(head.get("started", "")),
        program=str(head.get("program", "docker")),
        command=_words(head.get("argv")),
        docker_globals=_words(head.get("docker_globals")),
        compose_globals=_words(head.get("compose_globals")),
        project=head["project"] if isinstance(head.get("project"), str) else None,
        cwd=str(head.get("cwd", "")),
        endpoint=str(head.get("endpoint", "")),
        engine_id=str(head.get("engine_id", "")),
        facts=head,
        steps=steps,
        events=events,
        damaged=None if len(steps) == len(shapes) - 1 else "a line does not read",
    )


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(word) for word in value) if isinstance(value, list) else ()
