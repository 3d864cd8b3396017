"""What a store with very many backups costs: `list`, and what the confirmation screen asks of it."""

import shutil
from dataclasses import replace
from functools import partial

import table
from confirmation import first_paint
from pairs import alternate
from stage import PROGRAM, Stage, timed

from testing.backups import fill

MANY = 10_000


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """`list` and the confirmation screen with very many backups, against the same of a store with
    ten.
    """
    few, many = stage.scratch / "few", stage.scratch / "many"
    try:
        fill(few, 10)
        fill(many, MANY)
        small, crowded = ({**stage.environ, "SAFE_COMPOSE_HOME": str(root)} for root in (few, many))
        words = [PROGRAM, "list", "--json"]
        asked = partial(timed, words, cwd=stage.scratch, environ=small)
        asked_much = partial(timed, words, cwd=stage.scratch, environ=crowded)
        first = asked_much()
        listed = alternate(f"list --json, {MANY} backups / 10", asked, asked_much, rounds)
        text = [timed(words[:2], cwd=stage.scratch, environ=crowded) for _ in range(rounds)]
        painted, painted_much = (
            partial(first_paint, replace(stage, environ=e)) for e in (small, crowded)
        )
        return [
            table.single(f"list --json, {MANY} backups, each manifest read", [first]),
            table.pair(listed),
            table.single(f"list, {MANY} backups, as text", text),
            table.pair(
                alternate(
                    f"confirmation of down -v, {MANY} backups / 10", painted, painted_much, rounds
                )
            ),
        ]
    finally:
        shutil.rmtree(few, ignore_errors=True)
        shutil.rmtree(many, ignore_errors=True)
