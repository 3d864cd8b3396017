"""What each coding agent does with our answer, read as its documentation or its source says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from safe_compose.audit import agent_hook
from safe_compose.audit.agent_hook import HookOptions
from safe_compose.audit.agent_protocols import AGENTS, recognize

CASES = Path(__file__).parents[1] / "cases" / "agents"


def read_as_claude(answer: Mapping[str, Any]) -> str:
    assert set(answer) == {"hookSpecificOutput"}
    said = answer["hookSpecificOutput"]
    assert said["hookEventName"] == "PreToolUse" and said["permissionDecisionReason"]
    return {"deny": "stops", "ask": "asks"}[said["permissionDecision"]]


def read_as_codex(answer: Mapping[str, Any]) -> str:
    """Unknown keys, `ask`, and `deny` without a reason make the hook fail: the command runs."""
    assert set(answer) == {"hookSpecificOutput"}
    said = answer["hookSpecificOutput"]
    assert set(said) == {"hookEventName", "permissionDecision", "permissionDecisionReason"}
    assert said["permissionDecision"] == "deny" and said["permissionDecisionReason"].strip()
    return "stops"


def read_as_cursor(answer: Mapping[str, Any]) -> str:
    assert set(answer) - {"hookSpecificOutput"} == {"permission", "user_message", "agent_message"}
    assert answer["user_message"] == answer["agent_message"] != ""
    return {"deny": "stops", "ask": "runs in auto-review"}[answer["permission"]]


def read_as_gemini(answer: Mapping[str, Any]) -> str:
    assert set(answer) == {"decision", "reason"} and answer["reason"]
    return {"deny": "stops", "block": "stops"}.get(answer["decision"], "runs")


def read_as_copilot(answer: Mapping[str, Any]) -> str:
    assert answer["permissionDecisionReason"]
    return {"deny": "stops", "ask": "runs under --yolo"}[answer["permissionDecision"]]


READERS = {
    "claude": read_as_claude,
    "codex": read_as_codex,
    "cursor": read_as_cursor,
    "gemini": read_as_gemini,
    "copilot": read_as_copilot,
    "opencode": read_as_gemini,
}


def load(agent: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CASES / f"{agent}.json").read_text())
    return loaded


ALL = [
    pytest.param(agent, case, id=f"{agent}: {case['about']}")
    for agent in AGENTS
    for case in load(agent)["requests"]
]


@pytest.mark.parametrize(("agent", "case"), ALL)
def test_each_agent_is_told_in_its_own_words(agent: str, case: Mapping[str, Any]) -> None:
    said = agent_hook.run(case["request"], HookOptions(agent=agent))
    if agent != "opencode":  # our plugin there names it
        assert agent_hook.run(case["request"]) == said
    if case["want"] == "runs":
        assert said == ("{}\n" if agent == "cursor" else "")  # empty output is a fault there
        return
    assert said.count("\n") == 1 and said.endswith("\n")
    assert READERS[agent](json.loads(said)) == case["want"]


@pytest.mark.parametrize("agent", AGENTS)
def test_the_source_of_every_shape_is_named(agent: str) -> None:
    assert load(agent)["source"] and load(agent)["date"]


@pytest.mark.parametrize(("agent", "case"), ALL)
def test_a_request_says_whose_it_is_whatever_the_hook_was_installed_for(
    agent: str, case: Mapping[str, Any]
) -> None:
    if agent != "opencode":
        assert recognize(case["request"]) == agent


def test_where_a_person_cannot_be_asked_the_reason_says_how_to_ask_one() -> None:
    (case,) = [c for c in load("codex")["requests"] if c["about"].startswith("ask is not")]
    said = agent_hook.run(case["request"])
    assert "run it in a terminal of their own" in said
    assert "cannot ask" not in agent_hook.run(case["request"], HookOptions(strict=True))


def test_strict_denies_in_every_mode_of_claude_code() -> None:
    for case in load("claude")["requests"]:
        said = agent_hook.run(case["request"], HookOptions(strict=True))
        assert (case["want"] == "runs") == (said == "")
        assert '"ask"' not in said


@pytest.mark.parametrize(
    ("request_", "folder"),
    [
        ({"cwd": "/srv/shop", "tool_input": {"dir_path": "deploy"}}, "/srv/shop/deploy"),
        ({"cwd": "/srv/shop", "tool_input": {"workdir": "/other"}}, "/other"),
        ({"cwd": "", "workspace_roots": ["/srv/shop"], "command": "x"}, "/srv/shop"),
        ({"cwd": "/srv/shop", "workspace_roots": ["/srv"], "command": "x"}, "/srv/shop"),
        ({"workspace_roots": [3], "cwd": None}, "."),
    ],
)
def test_a_line_is_judged_in_the_folder_where_it_would_run(
    request_: Mapping[str, Any], folder: str
) -> None:
    assert agent_hook.find_folder(request_) == Path.cwd() / folder
