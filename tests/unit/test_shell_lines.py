"""What `safe-compose hook` says about recorded shell lines, by their words alone.

The right value of each was decided by what docker, or the shell, does with the line.
"""

import json
import time
from pathlib import Path

import pytest

from safe_compose.audit.agent_verdicts import judge

CASES = Path(__file__).parents[1] / "cases"
HERE = Path("/somewhere")
ACCEPTED = {"nothing": ("",), "stop": ("ask", "deny"), "ask": ("ask",), "deny": ("deny",)}


def lines_of(name: str) -> list[tuple[str, str]]:
    cases = json.loads((CASES / name).read_text())["cases"]
    return [(case["line"], case["want"]) for case in cases if case["want"] in ACCEPTED]


@pytest.mark.parametrize("name", ["hook.json", "hook_more.json"])
def test_every_recorded_line_gets_the_right_answer(name: str) -> None:
    wrong = [
        (line, want, answer)
        for line, want in lines_of(name)
        if (answer := judge(line, HERE)).decision not in ACCEPTED[want]
    ]
    assert wrong == []


def test_an_answer_takes_no_time_that_a_person_would_notice() -> None:
    slow = []
    for line, _ in [*lines_of("hook.json"), *lines_of("hook_more.json")]:
        began = time.process_time()
        judge(line, HERE)
        if time.process_time() - began > 0.3:
            slow.append(line)
    assert slow == []
