"""The verb that answers a coding agent's hook, and installs it: hook."""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from safe_compose.audit import agent_hook
from safe_compose.audit.agent_protocols import AGENTS, TITLES
from safe_compose.cli.options import AsJson, Yes, app, ask_yes, print_json
from safe_compose.core.quantities import count
from safe_compose.core.redaction import hide_secrets
from safe_compose.errors import UsageError
from safe_compose.install import agent_hooks
from safe_compose.install.agent_hooks import HookEdit
from safe_compose.install.agent_places import SCOPES, find_place
from safe_compose.ui import terminal

_NAMES = ", ".join(AGENTS)
_SECRET = re.compile(
    r"""("[^"]*(?:key|token|secret|pass|auth|cred|bearer)[^"]*"\s*:\s*)"(?:[^"\\]|\\.)*\"""",
    re.IGNORECASE,
)
"""Matches a member of a JSON object whose name tells of a secret."""


@app.command("hook")
def answer_hook(
    agent: Annotated[
        str | None, typer.Option("--agent", help=f"Whose request it is: {_NAMES}.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Deny where a person would be asked.")
    ] = False,
    install: Annotated[
        list[str] | None,
        typer.Option("--install", help=f"Add the hook to an agent: {_NAMES}; may be repeated."),
    ] = None,
    uninstall: Annotated[
        list[str] | None,
        typer.Option("--uninstall", help="Take the hook out of an agent; may be repeated."),
    ] = None,
    scope: Annotated[
        str, typer.Option("--scope", help="user: your own settings. project: this project's.")
    ] = "user",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Answer a coding agent's hook, in JSON: may this shell line delete volumes?"""
    if not install and not uninstall:
        if sys.stdin.isatty() and sys.stdout.isatty():
            terminal.say(
                "safe-compose: waiting for the request of a coding agent; to put this into one:"
                " safe-compose hook --install AGENT"
            )
        words = [] if agent is None else ["--agent", agent]
        if (code := agent_hook.main([*words, *(["--strict"] if strict else [])])) != 0:
            raise typer.Exit(code)
        return
    if install and uninstall:
        raise UsageError("--install and --uninstall contradict each other; nothing was written")
    if agent is not None or (uninstall and strict):
        raise UsageError("--agent and --strict are not for this; nothing was written")
    edits = _plan(install or uninstall or [], scope, removal=bool(uninstall), strict=strict)
    _make(edits, yes=yes, as_json=as_json, tries=not uninstall)


def _plan(names: Sequence[str], scope: str, *, removal: bool, strict: bool) -> list[HookEdit]:
    """Return the change of each agent's file.

    Raises:
        UsageError: An agent or the scope is not known.
        Refused: A file must not be changed.
    """
    if scope not in SCOPES:
        raise UsageError(f"--scope takes {' or '.join(SCOPES)}, not {scope!r}; nothing was written")
    for name in names:
        if name not in AGENTS:
            raise UsageError(f"there is no hook for {name!r}, only for {_NAMES}")
    environ = dict(os.environ)
    places = [find_place(name, scope, Path.home(), environ) for name in dict.fromkeys(names)]
    if removal:
        return [agent_hooks.plan_removal(place) for place in places]
    return [agent_hooks.plan_install(place, environ, strict=strict) for place in places]


def _make(edits: Sequence[HookEdit], *, yes: bool, as_json: bool, tries: bool) -> None:
    """Show every change, then make it. With `--json` and without `--yes` they are only shown."""
    todo = [edit for edit in edits if edit.changes]
    if not as_json:
        for edit in edits:
            terminal.tell(f"{TITLES[edit.place.agent]}: {edit.place.path}")
            terminal.tell_lines(_diff(edit) or "(as it is)", indent="    ")
            for note in edit.notes:
                terminal.tell(f"  {note}")
    if todo and (yes or not as_json):
        terminal.flush()
        ask_yes(f"Make {count(len(todo), 'change')}?", yes=yes)
        for edit in todo:
            agent_hooks.apply(edit)
    if as_json:
        shapes = [
            {
                "agent": edit.place.agent,
                "scope": edit.place.scope,
                "path": str(edit.place.path),
                "diff": _diff(edit),
                "notes": list(edit.notes),
            }
            for edit in edits
        ]
        print_json({"hooks": shapes, "done": yes or not todo})
    elif todo:
        terminal.say(f"safe-compose: done{'. `safe-compose doctor` tries each hook' * tries}")
    else:
        terminal.say("safe-compose: everything is as wanted, nothing was written")


def _diff(edit: HookEdit) -> str:
    """Return the change of a file, without the secrets that agents' settings may hold."""
    path = str(edit.place.path)
    before, after = (
        _SECRET.sub(r'\1"***"', hide_secrets(text or "")) for text in (edit.before, edit.after)
    )
    lines = difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        "/dev/null" if edit.before is None else path,
        "/dev/null" if edit.after is None else path,
        lineterm="",
        n=1,
    )
    return "\n".join(lines)
