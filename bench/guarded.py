"""The guarded `down -v` and its undo from end to end, stage by stage, and the memory they take."""

import json
from pathlib import Path
from typing import Any

import table
from stage import PROGRAM, Stage, watched

from safe_compose.core.quantities import format_size

STAGES = (
    ("stopping", "enter, inspect, show"),
    ("stopped", "stop the services"),
    ("dumped", "dump"),
    ("stopped", "stop the database"),
    ("archived", "archive"),
    ("backed-up", "commit the backup"),
    ("read-back", "verify: read all back"),
    ("verified", "verify: trial restore"),
    ("running", "last look"),
    ("ran", "docker itself"),
    ("ended", "the end"),
)
"""Steps of the journal in their order, and what each of them ends."""


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """Delete and undo, `rounds` times: the same project is there again after each."""
    whole, undone, memory = [], [], []
    stages: dict[str, list[float]] = {name: [] for _, name in STAGES}
    for _ in range(rounds):
        words = ("--non-interactive", "--backup-first", "compose", "down", "-v")
        took, high = watched([PROGRAM, *words], cwd=stage.project.folder, environ=stage.environ)
        whole.append(took)
        for name, spent in spans(_newest(Path(stage.environ["SAFE_COMPOSE_HOME"])), took).items():
            stages[name].append(spent)
        again, higher = watched([PROGRAM, "undo"], cwd=stage.project.folder, environ=stage.environ)
        undone.append(again)
        memory.append(max(high, higher) / (1 << 20))
    data = format_size(int(stage.project.psql("SELECT pg_database_size('dating')")))
    return [
        table.single(f"down -v with {data} in the database", whole),
        *(table.single(f"  {name}", spent) for name, spent in stages.items() if spent),
        table.single("undo, services healthy again", undone),
        table.single("peak memory of ours", memory, "MiB"),
    ]


def spans(steps: list[dict[str, Any]], whole: float) -> dict[str, float]:
    """What each stage took, in seconds, from the journal's own clock; it began when the run's file
    did, so what the whole command took besides belongs to the first stage.
    """
    before = steps[-1]["t"] - whole
    spent: dict[str, float] = {}
    at = 0
    for step in steps:
        place = next((n for n in range(at, len(STAGES)) if STAGES[n][0] == step["step"]), None)
        if place is None:
            continue  # a second stop of the same kind, or a step that is no stage: the next one ends it
        name = STAGES[place][1]
        spent[name] = spent.get(name, 0.0) + step["t"] - before
        before = step["t"]
        at = place if step["step"] == "archived" else place + 1
    return spent


def _newest(store: Path) -> list[dict[str, Any]]:
    """The steps of the last guarded command in the journal."""
    runs = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (store / "journal").glob("*.jsonl")
    ]
    return max(
        (r for r in runs if r[0]["argv"][:1] == ["compose"]), key=lambda r: int(r[0]["seq"])
    )[1:]
