"""The composite action for GitHub: its steps as a runner takes them, with hostile inputs."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from testing.projects import ROOT

FOLDER = ROOT / "integrations" / "github-action"
ACTION: dict[str, Any] = YAML(typ="safe").load((FOLDER / "action.yml").read_text("utf-8"))
STEPS = ACTION["runs"]["steps"]
HOSTILE = "$(touch pwned); `touch pwned` \"' && touch pwned #"
RECORDER = """#!/bin/bash
printf '%q ' "${0##*/}" "$@" "${SAFE_COMPOSE_HOME-}" "${COMPOSE_PROJECT_NAME-}" >>"$CALLS"
echo >>"$CALLS"
[[ "$*" != "compose ps --quiet" ]] || echo "$RUNNING"
[[ "$*" != "compose config --format json" ]] || echo '{"name": "shop", "services": {}}'
[[ $1 != verify ]] || cat "$VERIFIED"
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A job's folder, with a docker and a safe-compose that note what they are asked."""
    programs = tmp_path / "temp" / "safe-compose" / "bin"
    programs.mkdir(parents=True)
    for name in ("safe-compose", "docker", "python3"):
        (programs / name).write_text(RECORDER)
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    (tmp_path / "workspace").mkdir()
    (tmp_path / "verified").write_text('{"results": []}')
    return tmp_path / "workspace"


@pytest.fixture
def run(workspace: Path) -> Run:
    """Run a step of the action with inputs, as a runner does."""

    def step(number: int, **given: str) -> "subprocess.CompletedProcess[str]":
        inputs = {name: body.get("default", "") for name, body in ACTION["inputs"].items()}
        inputs |= {name.replace("_", "-"): value for name, value in given.items()}

        def expand(match: "re.Match[str]") -> str:
            name = match[1]
            return str(FOLDER) if name == "github.action_path" else inputs[name.split(".")[1]]

        body = STEPS[number]
        environ = {
            name: re.sub(r"\$\{\{ ([\w.-]+) \}\}", expand, value)
            for name, value in body["env"].items()
        }
        top = workspace.parent
        environ |= {
            "PATH": f"{top}/temp/safe-compose/bin:/usr/bin:/bin",
            "RUNNER_TEMP": str(top / "temp"),
            "GITHUB_STEP_SUMMARY": str(top / "summary"),
            "CALLS": str(top / "calls"),
            "VERIFIED": str(top / "verified"),
            "RUNNING": os.environ.get("RUNNING", "3f9a1c"),
        }
        assert body["shell"] == "bash"
        argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", body["run"]]
        return subprocess.run(argv, cwd=workspace, env=environ, capture_output=True, text=True)

    return step


def calls(workspace: Path) -> list[list[str]]:
    path = workspace.parent / "calls"
    return [shlex.split(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_no_value_is_put_into_a_script() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert not [step["name"] for step in STEPS if "${{" in step["run"]]
    used = set(re.findall(r"inputs\.([\w-]+)", (FOLDER / "action.yml").read_text("utf-8")))
    assert used == set(ACTION["inputs"])


def test_it_is_installed_from_its_own_checkout(workspace: Path, run: Run) -> None:
    environment = workspace.parent / "temp" / "safe-compose"
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to("python3")
    assert run(0).returncode == 0
    assert [call[:-2] for call in calls(workspace)] == [
        ["python3", "-m", "venv", str(environment)],
        ["python", "-m", "pip", "install", "--quiet", f"{ROOT}[audit]"],
        ["safe-compose", "--version"],
    ]


def test_a_deployment_backs_up_first_and_lets_the_databases_follow(
    workspace: Path, run: Run
) -> None:
    done = run(1, command="deploy", project="shop", store="/var/x y", sync_passwords="db\n\n cache")
    assert done.returncode == 0, done.stderr
    assert [call[:-2] for call in calls(workspace)] == [
        ["docker", "compose", "ps", "--quiet"],
        ["safe-compose", "backup"],
        ["safe-compose", "rotate-password", "--sync", "--yes", "--", "db"],
        ["safe-compose", "rotate-password", "--sync", "--yes", "--", " cache"],
        ["docker", "compose", "up", "--detach", "--wait", "--remove-orphans"],
    ]
    assert {tuple(call[-2:]) for call in calls(workspace)} == {("/var/x y", "shop")}


def test_hostile_inputs_are_words_and_no_commands(workspace: Path, run: Run) -> None:
    hostile = dict.fromkeys(("project", "store", "sync_passwords", "paths", "baseline"), HOSTILE)
    (workspace / "a; touch pwned").mkdir()
    run(1, command="deploy", folder="a; touch pwned", **hostile)
    run(1, command="audit", folder="a; touch pwned", **hostile)
    run(1, command=HOSTILE, **hostile)
    run(2, sample=HOSTILE, receipt=HOSTILE, project=HOSTILE, store=HOSTILE)
    assert not list(workspace.parent.rglob("pwned"))
    words = [call[:-2] for call in calls(workspace)]
    assert ["safe-compose", "audit", "--github", f"--baseline={HOSTILE}", "--", HOSTILE] in words
    assert ["safe-compose", "rotate-password", "--sync", "--yes", "--", HOSTILE] in words
    verify = ["verify", f"--project={HOSTILE}", f"--sample={HOSTILE}", f"--junit={HOSTILE}"]
    assert ["safe-compose", *verify, "--json"] in words


def test_what_is_no_command_and_no_folder_ends_the_step(workspace: Path, run: Run) -> None:
    done = run(1, command="destroy")
    assert done.returncode == 64 and "one of audit, deploy, receipt" in done.stderr
    assert run(1, command="deploy", folder="not there").returncode != 0
    assert run(1, command="deploy", sync_passwords="--leave=x").returncode == 64
    assert calls(workspace) == []


def test_the_receipt_is_the_summary_and_no_name_in_it_is_markup(workspace: Path, run: Run) -> None:
    results = [
        {"id": "a1", "project": "<img src=x>\n# shop", "volumes": ["`x`|y", "\u202ez"], "bytes": 7,
         "verified": {"level": "L3"}, "fault": None},
        {"id": "a2", "project": "shop", "volumes": [], "bytes": 1, "verified": None,
         "fault": "</code></td>"},
    ]  # fmt: skip
    (workspace.parent / "verified").write_text(json.dumps({"results": results}))
    assert run(2).returncode == 0
    assert "--project=shop" in calls(workspace)[-1], "no other project's names are shown"
    title, _, count, _, table, *rest = (workspace.parent / "summary").read_text().split("\n")
    assert (title, count) == ("### safe-compose", "2 backups read again, 1 broken.")
    assert "<td><code>&lt;img src=x&gt;?# shop</code></td>" in table
    assert "<td><code>`x`|y, ?z</code></td>" in table and "verified L3" in table
    assert table.count("<td>") == table.count("</td>") == 10 and rest == [""]


def test_a_receipt_that_could_not_be_made_is_said_and_fails(workspace: Path, run: Run) -> None:
    (workspace.parent / "verified").write_text("")
    program = workspace.parent / "temp/safe-compose/bin/safe-compose"
    program.write_text("#!/bin/sh\nexit 65\n")
    assert run(2).returncode == 65
    assert "No backup was read" in (workspace.parent / "summary").read_text()


def test_an_audit_finds_what_deletes(workspace: Path, run: Run) -> None:
    program = workspace.parent / "temp/safe-compose/bin/safe-compose"
    program.unlink()
    program.symlink_to(Path(sys.executable).with_name("safe-compose"))
    (workspace / "a b.sh").write_text("docker compose down -v\n")
    done = run(1, command="audit")
    assert done.returncode == 1 and "::error file=a b.sh,line=1" in done.stdout
    assert run(1, command="audit", paths="nothing").returncode == 64
