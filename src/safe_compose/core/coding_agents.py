"""Coding agents, by the variables that they set for the commands that they run."""

from collections.abc import Mapping

VARIABLES = (
    "AI_AGENT",  # proposed for all of them; Claude Code since 2.1.120
    "AGENT",  # OpenCode, Goose, Amp, Crush
    "CLAUDECODE",  # Claude Code
    "CODEX_CI",  # Codex, as the two below
    "CODEX_SANDBOX",
    "CODEX_THREAD_ID",
    "COPILOT_CLI",  # GitHub Copilot CLI
    "COPILOT_AGENT_SESSION_ID",
    "CURSOR_AGENT",  # Cursor
    "GEMINI_CLI",  # Gemini CLI
    "OPENCODE",  # OpenCode
)


def is_here(environ: Mapping[str, str]) -> bool:
    """Return whether a coding agent has set one of its variables, to more than nothing."""
    return any(environ.get(name) for name in VARIABLES)
