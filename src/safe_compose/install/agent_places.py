"""The place where each coding agent keeps its hooks, and the form that they have there."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCOPES = ("user", "project")
_SECONDS = 10
"""Seconds that an agent waits for an answer; it comes within two."""


@dataclass(frozen=True, slots=True)
class HookFormat:
    """The form of a hook in an agent's settings."""

    event: str
    """The list below `hooks` that it stands in."""
    handler: Mapping[str, Any]
    """The hook, without its command."""
    command: str = "command"
    """The key of its command."""
    matcher: str | None = None
    """The tools of the group that it stands in; None: it stands in the list itself."""
    root: Mapping[str, Any] = field(default_factory=dict)
    """What else the file must have."""
    comments: bool = False
    """Whether the agent reads comments in this file."""


FORMATS: Mapping[str, HookFormat] = {
    # code.claude.com/docs/en/hooks and tools-reference: Monitor (2.1.98) runs shell lines as well;
    # `onFailure` from 2.1.295 on, October 2026, ignored before
    "claude": HookFormat(
        "PreToolUse",
        {"type": "command", "timeout": _SECONDS, "onFailure": "block"},
        matcher="Bash|PowerShell|Monitor",
    ),
    # openai/codex, codex-rs/config/src/hook_config.rs: `timeout` in seconds
    "codex": HookFormat("PreToolUse", {"type": "command", "timeout": _SECONDS}, matcher="^Bash$"),
    # cursor.com/docs/agent/hooks: seconds
    "cursor": HookFormat(
        "beforeShellExecution",
        {"timeout": _SECONDS, "failClosed": True},
        root={"version": 1},
    ),
    # google-gemini/gemini-cli, docs/hooks/reference.md: milliseconds; settings.json with comments
    "gemini": HookFormat(
        "BeforeTool",
        {"name": "safe-compose", "type": "command", "timeout": _SECONDS * 1000},
        matcher="run_shell_command",
        comments=True,
    ),
    # github/docs, content/copilot/reference/hooks-reference.md: seconds
    "copilot": HookFormat(
        "preToolUse",
        {"type": "command", "matcher": "(write_)?(bash|powershell)", "timeoutSec": _SECONDS},
        command="bash",
        root={"version": 1},
    ),
}
"""OpenCode has no list of hooks: a plugin file."""


@dataclass(frozen=True, slots=True)
class HookPlace:
    """The file of an agent's hook in one scope."""

    agent: str
    scope: str
    """`user` or `project`."""
    path: Path
    root: Path
    """The folder that the file must not lead out of."""


def find_place(agent: str, scope: str, home: Path, environ: Mapping[str, str]) -> HookPlace:
    """Return the file of an agent's hook, for a user or for the project of the current folder."""
    if scope == "project":
        root = find_project(Path.cwd(), home)
        inside = {
            "claude": ".claude/settings.json",
            "codex": ".codex/hooks.json",
            "cursor": ".cursor/hooks.json",
            "gemini": ".gemini/settings.json",
            "copilot": ".github/hooks/safe-compose.json",
            "opencode": ".opencode/plugins/safe-compose.js",
        }
        return HookPlace(agent, scope, root / inside[agent], root)
    variable, default, name = {
        "claude": ("CLAUDE_CONFIG_DIR", ".claude", "settings.json"),
        "codex": ("CODEX_HOME", ".codex", "hooks.json"),
        "cursor": ("", ".cursor", "hooks.json"),
        "gemini": ("", ".gemini", "settings.json"),
        "copilot": ("COPILOT_HOME", ".copilot", "hooks/safe-compose.json"),
        "opencode": ("OPENCODE_CONFIG_DIR", "", "plugins/safe-compose.js"),
    }[agent]
    given = environ.get(variable, "") if variable else ""
    if given.startswith("/"):
        return HookPlace(agent, scope, Path(given) / name, Path(given))
    if agent == "opencode":
        xdg = environ.get("XDG_CONFIG_HOME", "")
        folder = Path(xdg) if xdg.startswith("/") else home / ".config"
        root = home if folder.is_relative_to(home) else folder
        return HookPlace(agent, scope, folder / "opencode" / name, root)
    return HookPlace(agent, scope, home / default / name, home)


def find_other_place(place: HookPlace) -> HookPlace | None:
    """Return a second file of the same scope in which a person may have written the hook, or None.

    Nothing is ever written there: Codex's configuration is TOML, Claude Code's local settings are a
    person's own.
    """
    names = {"codex": "config.toml", "claude": "settings.local.json"}
    if place.agent not in names or (place.agent == "claude" and place.scope == "user"):
        return None
    return HookPlace(place.agent, place.scope, place.path.with_name(names[place.agent]), place.root)


def find_project(folder: Path, home: Path) -> Path:
    """Return the top of the git work tree that holds a folder, or the folder itself.

    The home folder is no project of its own.
    """
    for above in (folder, *folder.parents):
        if above == home:
            break
        if os.path.lexists(above / ".git"):
            return above
    return folder
