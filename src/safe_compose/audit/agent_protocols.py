"""The hook protocols of coding agents: whose request it is, and the answer in that agent's words.

| agent | source, and its date |
|---|---|
| Claude Code | code.claude.com/docs/en/hooks and release 2.1.295, October 2026; issues 77212, 51255 and 89561 of anthropics/claude-code: in the permission modes `auto` and `bypassPermissions` an `ask` runs the command |
| Codex | openai/codex, `codex-rs/hooks/src/{schema,events/pre_tool_use,engine/output_parser}.rs`, 0.153: `ask` makes the hook fail and the command run, and so does any unknown key |
| Cursor | cursor.com/docs/agent/hooks, version 1 of the schema, 3.21: `ask` is dropped in auto-review, and no request says which mode is on |
| Gemini CLI | google-gemini/gemini-cli, `docs/hooks/reference.md`, `packages/core/src/hooks/{types,hookRunner}.ts`, 2026: only `deny` and `block` stop a tool |
| Copilot CLI | github/docs, `content/copilot/reference/hooks-reference.md`, October 2026: the decision stands at the top. Its page of early 2026 says that of the three only `deny` is obeyed, and `--yolo` approves what is asked (1.0.73) |
| OpenCode | anomalyco/opencode, `packages/web/src/content/docs/plugins.mdx`, 2026: a plugin stops a tool by throwing; ours (`install/opencode_plugin.js`) reads the answer |

An exit code of 2 with a reason on stderr stops the command in all of them.
"""  # noqa: E501 - a table

import json
from collections.abc import Mapping
from typing import Any

from safe_compose.audit.agent_verdicts import HookAnswer
from safe_compose.core.text import make_visible

AGENTS = ("claude", "codex", "cursor", "gemini", "copilot", "opencode")
TITLES: Mapping[str, str] = {
    "claude": "Claude Code",
    "codex": "Codex",
    "cursor": "Cursor",
    "gemini": "Gemini CLI",
    "copilot": "Copilot CLI",
    "opencode": "OpenCode",
}
"""The agents' own names."""
_MODES_THAT_ASK = frozenset({None, "default", "acceptEdits", "plan"})
"""Claude Code's permission modes in which `ask` shows its prompt."""
_MAY_NOTE = frozenset({"claude", "codex"})
"""Agents that take a note without a decision: Claude Code since 2.1.9, shown to the person as well;
Codex in `PreToolUseOutput.additional_context`. The others document no such key before a tool runs:
Gemini CLI has `systemMessage`, which the agent does not see."""
_CURSORS = frozenset({"cursor_version", "conversation_id"})
"""Keys of every request of Cursor, and of no other agent."""
_ASK_A_PERSON = (
    "This agent's hook cannot ask a person, so the command is stopped. Tell the person which"
    " command you wanted and why, and let them run it in a terminal of their own; do not look for"
    " another way to the same end"
)


def recognize(request: Mapping[str, Any]) -> str | None:
    """Return the agent that made a request, or None where its shape does not say so."""
    event = request.get("hook_event_name")
    if not _CURSORS.isdisjoint(request) or event in ("beforeShellExecution", "preToolUse"):
        return "cursor"
    if event == "BeforeTool":
        return "gemini"
    if "toolName" in request and "toolArgs" in request:
        return "copilot"
    if event != "PreToolUse":
        return None
    if "turn_id" in request:
        return "codex"
    if "timestamp" in request and "transcript_path" not in request:
        return "copilot"  # with the event's name in PascalCase, as it reads Claude Code's settings
    return "claude" if "permission_mode" in request or "transcript_path" in request else None


def may_ask(agent: str | None, request: Mapping[str, Any]) -> bool:
    """Return whether `ask` is proved to ask a person there, and not to run the command.

    A caller that no agent's shape was recognized in gets `ask`, as documented; `--strict` is for
    those that do not know it.
    """
    if agent in ("claude", None):
        return request.get("permission_mode") in _MODES_THAT_ASK
    return False


def format_answer(
    answer: HookAnswer, agent: str | None, request: Mapping[str, Any], *, strict: bool = False
) -> str:
    """Return an answer in an agent's words: one line of JSON, or empty without an opinion.

    Cursor gets `{}` then: it takes empty output for a failure, and stops the command of a hook that
    has `failClosed` (3.x; also of Claude Code's settings, cursor-agent of August 2026).

    Args:
        answer: The verdict. A note is left out where the agent has no key for one.
        agent: The agent; None: a caller of no known protocol, which gets the words of several.
        request: The request, whose mode and event count.
        strict: Answer `deny` instead of `ask`.
    """
    if not answer.decision and answer.note and agent in _MAY_NOTE:
        return json.dumps(_note(make_visible(answer.note), agent)) + "\n"
    if not answer.decision:
        return "{}\n" if agent == "cursor" else ""
    decision, reason = answer.decision, make_visible(answer.reason)
    if decision == "ask" and (strict or not may_ask(agent, request)):
        decision = "deny"
        if not strict:
            reason = f"{reason.rstrip('.')}. {_ASK_A_PERSON}"
    return json.dumps(_shape(decision, reason, agent, request)) + "\n"


def _note(note: str, agent: str | None) -> dict[str, Any]:
    """Return an answer that decides nothing, so that the agent's own rules do, with a note."""
    shape = {"hookSpecificOutput": {"hookEventName": "PreToolUse", "additionalContext": note}}
    return {**shape, "systemMessage": note} if agent == "claude" else shape


def _shape(
    decision: str, reason: str, agent: str | None, request: Mapping[str, Any]
) -> dict[str, Any]:
    specific: dict[str, Any] = {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": decision,
            "permissionDecisionReason": reason,
        }
    }
    top = {"permissionDecision": decision, "permissionDecisionReason": reason}
    match agent:
        case "claude" | "codex":
            return specific  # Codex discards an answer with another key, and runs the command
        case "cursor":
            own = {"permission": decision, "user_message": reason, "agent_message": reason}
            # with Claude Code's event, as it reads that agent's settings
            return own | specific if request.get("hook_event_name") == "PreToolUse" else own
        case "gemini" | "opencode":
            return {"decision": decision, "reason": reason}
        case "copilot":
            return top if "toolName" in request else {**top, **specific}
    if request.get("hook_event_name", request.get("hookEventName")) == "PreToolUse":
        return specific
    return {
        **specific, **top,
        "decision": decision, "permission": decision, "reason": reason
    }  # fmt: skip
