"""The examination of coding agents' hooks: each is sent a harmless and a destructive line.

Neither line is run. A settings file may be a project's, so a command in it is only started where it
is plainly this program with its own options.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from safe_compose.audit import agent_hook
from safe_compose.audit.agent_protocols import AGENTS, TITLES
from safe_compose.errors import Refused
from safe_compose.install import agent_hooks
from safe_compose.install.agent_places import SCOPES, HookPlace, find_other_place, find_place
from safe_compose.install.json_edit import NotJson
from safe_compose.install.plan import require_program
from safe_compose.operations.doctor.findings import Findings
from safe_compose.system import children, files

TIMEOUT = 15.0
"""Seconds for one probe; an agent waits ten."""
_HARMLESS = "docker ps"
_DESTRUCTIVE = "SAFE_COMPOSE=off docker compose down --volumes"
"""A line that is denied by its words alone, whatever the engine says."""
_PLAIN = re.compile(r"[\w ./=+,:@%-]+")
"""Matches a command in which a shell expands nothing."""
_LARGEST = 1 << 16


class HookProbe(NamedTuple):
    """The answer of one hook."""

    agent: str
    scope: str
    path: str
    command: str
    verdict: str
    """`stops`, `does not stop`, or `not tried`."""
    why: str = ""


def examine_agents() -> Findings:
    """Send both lines through every hook of ours, for this user and for this project."""
    environ = dict(os.environ)
    places = [
        find_place(agent, scope, Path.home(), environ) for agent in AGENTS for scope in SCOPES
    ]
    others = [other for place in places if (other := find_other_place(place)) is not None]
    # In the home folder both scopes are one file: it is the user's.
    unique = {place.path: place for place in reversed([*places, *others])}
    with ThreadPoolExecutor(2) as pool:
        probes = [
            probe for found in pool.map(_probe_place, reversed(unique.values())) for probe in found
        ]
    attention = [
        f"the hook of {TITLES[p.agent]} in {p.path} {p.verdict}"
        f"{', since ' + p.why if p.verdict == 'not tried' else ': ' + p.why}: "
        + shlex.join(["safe-compose", "hook", "--install", p.agent, "--scope", p.scope])
        for p in probes
        if p.verdict != "stops"
    ]
    return Findings([probe._asdict() for probe in probes], tuple(attention))


def _probe_place(place: HookPlace) -> list[HookProbe]:
    return list(_probe_commands(place))


def _probe_commands(place: HookPlace) -> Iterator[HookProbe]:
    where = (place.agent, place.scope, str(place.path))
    try:
        text = agent_hooks.read(place)
        commands = agent_hooks.list_commands(text, place) if text is not None else []
    except (Refused, NotJson) as error:
        if _names_us(place.path):
            yield HookProbe(*where, "", "not tried", f"it does not read ({error})")
        return
    if place.agent == "opencode" and text is not None and not commands:
        yield HookProbe(*where, "", "not tried", "it is not as safe-compose wrote it")
    for command in commands:
        verdict, why = _probe(place.agent, command)
        yield HookProbe(*where, command, verdict, why)


def _probe(agent: str, command: str) -> tuple[str, str]:
    """Send both lines through a hook; return the verdict and the reason."""
    if (why := _explain_foreign(command)) is not None:
        return "not tried", why
    code, out, err = _run(command, make_request(agent, _HARMLESS))
    if (code, out.strip()) != (0, "{}" if agent == "cursor" else ""):
        return "does not stop", f"a harmless line got {out.strip() or err.strip() or code}"
    code, out, err = _run(command, make_request(agent, _DESTRUCTIVE))
    decision = read_decision(agent, out)
    if decision == "deny" and code == 0:
        return "stops", "nothing about a harmless line, deny for a destructive one"
    return (
        "does not stop",
        f"a destructive line got {decision or err.strip() or f'exit code {code}'}",
    )


def _explain_foreign(command: str) -> str | None:
    """Explain why a command must not be started; None where it is plainly this program's hook."""
    words = shlex.split(command)
    if not command.isprintable() or (
        shlex.join(words) != command and not _PLAIN.fullmatch(command)
    ):
        return "its command holds more than a program and its options"
    if words[1:2] != ["hook"]:
        return "its command is no hook"
    found = words[0] if "/" in words[0] else shutil.which(words[0])
    if found is None:
        return f"there is no {words[0]} on PATH"
    if os.path.realpath(found) != os.path.realpath(require_program()):
        return f"it starts {found}, which is not this safe-compose"
    try:
        agent_hook.parse_options(words[2:])
    except agent_hook.UnreadableRequest as error:
        return str(error)
    return None


def make_request(agent: str, line: str) -> dict[str, Any]:
    """Return a request as an agent sends it about a shell line."""
    here = str(Path.home())
    tool = {"tool_name": "Bash", "tool_input": {"command": line}, "cwd": here}
    claude = {
        "session_id": "doctor", "transcript_path": os.devnull, "permission_mode": "default",
        "hook_event_name": "PreToolUse", "tool_use_id": "doctor", **tool
    }  # fmt: skip
    match agent:
        case "codex":
            return {**claude, "turn_id": "doctor", "model": "none"}
        case "cursor":
            return {"hook_event_name": "beforeShellExecution", "command": line, "cwd": here}
        case "gemini":
            return {**tool, "hook_event_name": "BeforeTool", "tool_name": "run_shell_command"}
        case "copilot":
            return {"toolName": "bash", "toolArgs": json.dumps({"command": line}), "cwd": here}
        case "opencode":
            return {"tool": "bash", "args": {"command": line}, "cwd": here}
    return claude


def read_decision(agent: str, output: str) -> str:
    """Return the decision where an agent looks for it; empty where it finds none."""
    try:
        answer = json.loads(output)
        match agent:
            case "cursor":
                found = answer["permission"]
            case "gemini" | "opencode":
                found = answer["decision"]
            case "copilot":
                found = answer["permissionDecision"]
            case _:
                found = answer["hookSpecificOutput"]["permissionDecision"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(found)


def _run(command: str, request: Mapping[str, Any]) -> tuple[int, str, str]:
    """Run a hook's command as an agent does; return its exit code, stdout and stderr."""
    try:
        done = children.run(
            ["/bin/sh", "-c", command],
            given=json.dumps(request).encode(),
            environ=dict(os.environ),
            cwd=Path.home(),
            seconds=TIMEOUT,
            largest=_LARGEST,
        )
    except OSError as error:
        return 127, "", str(error)
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {TIMEOUT:.0f} s"
    except children.TooMuch as error:
        return 1, "", str(error)
    return (
        done.returncode,
        done.stdout.decode("utf-8", "replace"),
        done.stderr.decode("utf-8", "replace"),
    )


def _names_us(path: Path) -> bool:
    try:
        return b"safe-compose" in files.read_regular(path, agent_hooks.LARGEST)
    except OSError:
        return False
