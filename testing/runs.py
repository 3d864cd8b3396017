"""Runs of safe-compose as their journal tells them: started, waited for at a step, and what they
kept and left behind.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from testing.projects import Completed, ComposeProject, docker
from testing.terminal import PROGRAM, Person


def store(home: Path) -> Path:
    """Return where the program of a test with this home keeps its backups and its journal."""
    return home / "safe-compose"


def start(
    *argv: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    preexec_fn: Callable[[], None] | None = None,
) -> "subprocess.Popen[str]":
    """Begin a run in a session of its own, without a terminal."""
    return subprocess.Popen(
        [PROGRAM, *argv],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=preexec_fn,
    )


def _journals(home: Path) -> list[Path]:
    return list((store(home) / "journal").glob("*.jsonl"))


def _lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]


def runs(home: Path) -> int:
    """Return how many there have been."""
    return len(_journals(home))


def every_step(home: Path) -> list[dict[str, Any]]:
    """Every step of every run."""
    return [line for journal in sorted(_journals(home)) for line in _lines(journal)]


def steps(home: Path) -> list[str]:
    """The steps of the newest run so far."""
    newest = max(_journals(home), key=lambda p: p.stat().st_mtime_ns, default=None)
    return [] if newest is None else [str(line.get("step", "head")) for line in _lines(newest)]


def kill_at_step(home: Path, step: str, since: int = 0, person: Person | None = None) -> None:
    """Wait, almost without resting, until the newest of more than `since` runs has come to a step;
    `person` looks on.
    """
    end = time.monotonic() + 60
    known: object = None
    while True:
        # Reading all of it a thousand times a second would take a processor from whom we wait for.
        written = [(journal, journal.stat().st_size) for journal in _journals(home)]
        if len(written) > since and written != known:
            known = written
            if step in steps(home):
                return
        assert time.monotonic() < end, f"step {step} never came: {steps(home)}"
        if person is not None:
            person.looks()
        time.sleep(0.001)


def helpers(home: Path) -> list[str]:
    """Containers and volumes of ours that are still there, of the runs that the journal knows."""
    found: list[str] = []
    for journal in _journals(home):
        label = f"label=io.github.safe-compose.helper={journal.stem}"
        found += docker("ps", "-aq", "--filter", label).stdout.split()
        found += docker("volume", "ls", "-q", "--filter", label).stdout.split()
    return found


def list_leftovers(home: Path) -> list[str]:
    """Half backups, and what `helpers` finds."""
    return [*map(str, store(home).rglob(".partial-*")), *helpers(home)]


def list_backups(
    safe_compose: Callable[..., Completed], project: ComposeProject
) -> list[dict[str, Any]]:
    """Verified backups of a project, the newest first."""
    answer = safe_compose("list", "--json")
    assert answer.returncode == 0, answer.stderr
    return [
        b
        for b in json.loads(answer.stdout)["backups"]
        if b["project"] == project.name and b["verified"]
    ]


def manifest(backup: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Volume name -> its record in the manifest."""
    shape = json.loads((Path(str(backup["path"])) / "manifest.json").read_text())
    return {str(v["name"]): v for v in shape["volumes"]}
