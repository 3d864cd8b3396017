"""What our own verbs take, against the interpreter that does nothing: the rest is imports and work."""

import shutil
import sys
from functools import partial

import table
from pairs import alternate
from stage import PROGRAM, Stage, timed

from testing.backups import fill

BACKUPS = 10
VERBS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (f"list of {BACKUPS} backups", ("list",)),
    ("show of one backup", ("show", "000009")),
    ("about", ("about",)),
    ("help", ("help",)),
    ("help list", ("help", "list")),
    ("completion of a backup's id", ("__complete", "show", "")),
)


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """Each verb in a store with ten backups, whose index is there from the second list on."""
    store = stage.scratch / "ten"
    try:
        fill(store, BACKUPS)
        environ = {**stage.environ, "SAFE_COMPOSE_HOME": str(store)}
        run = partial(timed, cwd=stage.scratch, environ=environ)
        nothing = partial(run, [sys.executable, "-c", "pass"])
        return [
            table.pair(
                alternate(
                    f"{name} / python alone", nothing, partial(run, [PROGRAM, *words]), rounds
                )
            )
            for name, words in VERBS
        ]
    finally:
        shutil.rmtree(store, ignore_errors=True)
