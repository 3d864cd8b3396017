"""The plugin for Claude Code: of the wheel's version, and its hook blocks.

Its form: code.claude.com/docs/en/plugins-reference and plugin-marketplaces, October 2026.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import safe_compose
from safe_compose.install.agent_places import FORMATS
from safe_compose.operations.doctor.agents import make_request, read_decision
from testing.projects import ROOT

PLUGIN = ROOT / "integrations" / "claude-code"


def load(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def hook() -> dict[str, Any]:
    ((name, (group,)),) = load(PLUGIN / "hooks" / "hooks.json")["hooks"].items()
    assert (name, group["matcher"]) == (FORMATS["claude"].event, FORMATS["claude"].matcher)
    (only,) = group["hooks"]
    assert isinstance(only, dict)
    return only


def test_the_plugin_has_the_version_of_the_wheel() -> None:
    assert load(PLUGIN / ".claude-plugin" / "plugin.json")["version"] == safe_compose.__version__


def test_the_marketplace_at_the_root_leads_to_the_plugin() -> None:
    (entry,) = load(ROOT / ".claude-plugin" / "marketplace.json")["plugins"]
    assert (ROOT / entry["source"]).resolve() == PLUGIN
    plugin = load(PLUGIN / ".claude-plugin" / "plugin.json")
    assert entry["name"] == plugin["name"]
    assert entry["description"] == plugin["description"] and "version" not in entry


def test_its_hook_is_the_one_that_is_installed_by_hand() -> None:
    installed = {k: v for k, v in hook().items() if k != "command"}
    assert installed == FORMATS["claude"].handler


def test_its_hook_blocks_also_where_safe_compose_is_not_installed(tmp_path: Path) -> None:
    def run(path: str, line: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", "-c", hook()["command"]],
            input=json.dumps(make_request("claude", line)),
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )

    with_it = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    assert (run(with_it, "docker ps").stdout, run(with_it, "docker ps").returncode) == ("", 0)
    stopped = run(with_it, "/usr/bin/docker volume rm x")
    assert read_decision("claude", stopped.stdout) == "deny" and stopped.returncode == 0
    without = run(str(tmp_path), "docker ps")
    assert (without.returncode, without.stdout) == (2, "") and without.stderr.count("\n") == 1


def test_its_skill_says_when_it_is_used() -> None:
    head = (PLUGIN / "skills" / "safe-compose" / "SKILL.md").read_text("utf-8").split("---")[1]
    lines = dict(line.split(": ", 1) for line in head.strip().splitlines())
    assert lines["name"] == "safe-compose" and len(lines["description"]) <= 1024
