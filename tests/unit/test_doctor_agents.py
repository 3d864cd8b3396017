"""What doctor says of the hooks of coding agents, and which of them it starts."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from safe_compose.audit.agent_protocols import AGENTS
from safe_compose.fastpath import first_look
from safe_compose.install import agent_hooks
from safe_compose.install.agent_places import find_place
from safe_compose.install.plan import require_program
from safe_compose.operations.doctor.agents import examine_agents


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a home"
    (folder / "project" / ".git").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder / "project")
    return folder


def test_each_hook_is_tried_with_the_command_that_stands_in_its_file(home: Path) -> None:
    assert examine_agents() == ([], ())
    for agent in AGENTS:
        place = find_place(agent, "user", home, dict(os.environ))
        agent_hooks.apply(agent_hooks.plan_install(place, {}, strict=agent == "claude"))
    facts, attention = examine_agents()
    assert [(fact["agent"], fact["scope"]) for fact in facts] == [(a, "user") for a in AGENTS]
    assert {fact["verdict"] for fact in facts} == {"stops"} and attention == ()
    assert "--strict" in facts[0]["command"]


def test_in_the_home_folder_a_hook_is_the_users(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    agent_hooks.apply(agent_hooks.plan_install(find_place("cursor", "user", home, {}), {}))
    facts, _ = examine_agents()
    assert [(fact["agent"], fact["scope"]) for fact in facts] == [("cursor", "user")]


def test_a_hook_whose_program_has_gone_or_is_another_needs_a_person(home: Path) -> None:
    path = home / ".cursor" / "hooks.json"
    path.parent.mkdir()
    for command, why in (
        ("/gone/safe-compose hook", "which is not this safe-compose"),
        (f"{require_program()} hook --agent nobody", "--agent takes"),
    ):
        path.write_text(
            json.dumps({"version": 1, "hooks": {"beforeShellExecution": [{"command": command}]}})
        )
        facts, (attention,) = examine_agents()
        assert facts[0]["verdict"] == "not tried" and why in attention
        assert attention.endswith("safe-compose hook --install cursor --scope user")


def test_an_answer_in_the_words_of_another_agent_does_not_count(home: Path) -> None:
    path = home / ".gemini" / "settings.json"
    path.parent.mkdir()
    hook = {"type": "command", "command": f"{require_program()} hook"}
    path.write_text(json.dumps({"hooks": {"BeforeTool": [{"hooks": [hook]}]}}))
    facts, attention = examine_agents()
    assert (facts[0]["verdict"], attention) == ("stops", ())  # the request says whose it is


def test_hooks_that_a_person_wrote_elsewhere_are_tried_as_well(home: Path) -> None:
    program = require_program()
    codex, claude = home / ".codex", home / "project" / ".claude"
    codex.mkdir()
    claude.mkdir()
    (codex / "config.toml").write_text(
        "model = 'x'\n[[hooks.PreToolUse]]\n[[hooks.PreToolUse.hooks]]\n"
        f"type = 'command'\ncommand = '{program} hook'\n"
    )
    hook = {"type": "command", "command": f"{program} hook --strict"}
    (claude / "settings.local.json").write_text(
        json.dumps({"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [hook]}]}})
    )
    facts, attention = examine_agents()
    assert {(f["agent"], f["scope"], f["verdict"]) for f in facts} == {
        ("codex", "user", "stops"),
        ("claude", "project", "stops"),
    }
    assert attention == ()
    (codex / "config.toml").write_text("safe-compose = [")
    _, (attention_,) = examine_agents()
    assert "config.toml" in attention_


HOSTILE = [
    "{program} hook; touch {witness}",
    "{program} hook $(touch {witness})",
    "`touch {witness}`/safe-compose hook",
    "{program} hook > {witness}",
    "{program} hook --strict\n touch {witness}",
    "./safe-compose hook",
    "{project}/safe-compose hook",
    "{program} 'hook' '--agent' 'claude' '$(touch {witness})'",
    "'\0/safe-compose' hook",
    "'\ud800/safe-compose' hook",
]


@pytest.mark.parametrize("command", HOSTILE)
def test_a_projects_file_starts_nothing_but_this_program(command: str, home: Path) -> None:
    project, witness = home / "project", home / "witness"
    imitation = project / "safe-compose"
    imitation.write_text(f"#!/bin/sh\n# {first_look.MARKER.decode()}\ntouch '{witness}'\n")
    imitation.chmod(0o755)
    path = project / ".claude" / "settings.json"
    path.parent.mkdir()
    text = command.format(program=require_program(), witness=witness, project=project)
    path.write_text(
        json.dumps({"hooks": {"PreToolUse": [{"hooks": [{"type": "command", "command": text}]}]}})
    )
    facts, _ = examine_agents()
    assert not witness.exists()
    assert {fact["verdict"] for fact in facts} <= {"not tried"}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"hooks": []}',
        '{"hooks": {"PreToolUse": [3, {"hooks": 3}, {"hooks": [[]]}]}}',
        "[" * 10_000,
    ],
)
def test_files_that_do_not_read_are_no_fault_of_ours(text: str, home: Path) -> None:
    path = home / "project" / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_text(text)
    assert examine_agents() == ([], ())
    path.write_text(f"{text} safe-compose")
    facts, attention = examine_agents()
    assert [fact["verdict"] for fact in facts] == ["not tried"] and len(attention) == 1
    path.unlink()
    os.mkfifo(path)
    assert examine_agents() == ([], ())


@pytest.mark.parametrize(
    "command", ["[1]", "[]", "[x]", '["{program}", "--explain"]', '["{program}", "about"]']
)
def test_a_plugin_with_the_right_sum_starts_nothing_but_the_hook(command: str, home: Path) -> None:
    body = f"const COMMAND = {command.format(program=require_program())}\n"
    path = find_place("opencode", "project", home, dict(os.environ)).path
    path.parent.mkdir(parents=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    path.write_text(f"{agent_hooks._MARK}{digest}\n{body}")
    facts, (attention,) = examine_agents()
    assert [fact["verdict"] for fact in facts] == ["not tried"] and "OpenCode" in attention


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a" + ".a" * 3_000 + " = 1"])
def test_a_file_that_takes_long_to_read_is_not_read(text: str, home: Path) -> None:
    path = home / "project" / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_text(f"# safe-compose\n{text}\n")
    facts, _ = examine_agents()
    assert [fact["verdict"] for fact in facts] == ["not tried"]
