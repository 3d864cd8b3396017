"""`safe-compose hook`: judges the effect of a coding agent's shell line on volumes before it runs.

The hook is a second check, not the guard: a line that it passes still meets safe-compose when it
runs `docker` by its name. So a harmless line gets no answer at all (empty output, exit 0: the
agent's own rules decide). A destructive command that runs through safe-compose gets `ask`; one that
bypasses it, or a line that switches it off, gets `deny`. `agent_protocols` turns either into what
stops the command in the agent that asks.

A request that cannot be read is stopped: in the agent's words where `--agent` names it, else with
exit code 2 and the reason on stderr, which stops the command in every agent.
"""

import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safe_compose.audit import agent_protocols
from safe_compose.audit.agent_verdicts import NOTHING, HookAnswer, Look, judge
from safe_compose.audit.destructive_words import may_hold_destructive
from safe_compose.audit.guard_changes import DECIDES
from safe_compose.audit.live_look import make_look
from safe_compose.core.text import make_visible
from safe_compose.errors import ConfigError
from safe_compose.settings.load import PROJECT_FILE, load
from safe_compose.system import children

READ_SECONDS = 5.0
"""Seconds in which the whole request must have come."""
LOOK_UNTIL = 1.2
"""Seconds after which the engine is not waited for any more."""
WHOLE_SECONDS = 2.0
"""Seconds for one answer as a whole; after that only the words are searched."""
LARGEST = 1 << 20
"""Most bytes of stdin that are read."""
STOPPED = 2
"""The exit code that stops the command in every agent."""


class HookOptions(NamedTuple):
    """The options of `safe-compose hook`."""

    agent: str | None = None
    """The agent that the hook is installed in; None: its request says."""
    strict: bool = False


_DEFAULTS = HookOptions()


class UnreadableRequest(Exception):
    """An error about a request that cannot be read, in a sentence."""


_COMMAND_KEYS = (
    "command",
    "cmd",
    "commands",
    "script",
    "CommandLine",
    "commandLine",
    "command_line",
    "code",
    "input",
)
_INPUT_KEYS = (
    "tool_input",
    "toolInput",
    "tool_args",
    "toolArgs",
    "input",
    "args",
    "arguments",
    "params",
    "parameters",
)
_SHELL_TOOLS = (
    "Bash",
    "Monitor",
    "PowerShell",
    "Shell",
    "bash",
    "shell",
    "run_shell_command",
    "powershell",
    "local_shell",
)
_NO_SHELL_TOOLS = ("apply_patch",)
"""Tools whose `command` is no shell line: Codex hands over the patch in it."""
_FOLDER_KEYS = (
    "cwd",
    "workdir",
    "working_directory",
    "workingDirectory",
    "Cwd",
    "directory",
    "dir_path",
    "dir",
)


def main(words: Sequence[str]) -> int:
    """Run `safe-compose hook [--agent NAME] [--strict]`: answer the request on stdin.

    Returns:
        0 with an answer or without one; 2 when the request or the options cannot be read. It never
        fails in another way, because agents run the command then.
    """
    options = _DEFAULTS
    try:
        began = time.monotonic()
        options = parse_options(words)
        request = parse_request(read_request(sys.stdin.fileno(), began + READ_SECONDS))
        output = answer_in_time(request, options, began=time.monotonic())
    except UnreadableRequest as error:
        return _stop(str(error), options)
    except Exception as error:  # noqa: BLE001 - whatever it was, the command must not run
        return _stop(f"safe-compose could not judge this command ({type(error).__name__})", options)
    sys.stdout.write(output)
    return 0


def parse_options(words: Sequence[str]) -> HookOptions:
    """Return the options.

    Raises:
        UnreadableRequest: One of them is not known.
    """
    options, rest = _DEFAULTS, list(words)
    while rest:
        name, given, value = rest.pop(0).partition("=")
        if name == "--strict" and not given:
            options = options._replace(strict=True)
        elif name == "--agent" and (given or rest):
            agent = value if given else rest.pop(0)
            if agent not in agent_protocols.AGENTS:
                raise UnreadableRequest(
                    f"safe-compose hook: --agent takes {', '.join(agent_protocols.AGENTS)}, not"
                    f" {make_visible(agent)!r}"
                )
            options = options._replace(agent=agent)
        else:
            raise UnreadableRequest(f"safe-compose hook: unknown option {make_visible(name)!r}")
    return options


def read_request(descriptor: int, until: float) -> bytes:
    """Return the content of stdin.

    Raises:
        UnreadableRequest: It has more than LARGEST bytes, or has not ended by `until`.
    """
    data = bytearray()
    while select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
        more = os.read(descriptor, 1 << 16)
        if not more:
            return bytes(data)
        data += more
        if len(data) > LARGEST:
            raise UnreadableRequest(
                f"the hook's request is larger than {LARGEST >> 20} MiB, so safe-compose could not"
                " judge this command"
            )
    raise UnreadableRequest("the hook's request did not end, so this command was not judged")


def parse_request(data: bytes) -> dict[str, Any]:
    """Return a request as the agent wrote it.

    Raises:
        UnreadableRequest: It is cut off, no UTF-8, nested too deeply, or no JSON object.
    """
    not_judged = "so safe-compose could not judge this command"
    try:
        request = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise UnreadableRequest(f"the hook's request is not UTF-8, {not_judged}") from None
    except RecursionError:
        raise UnreadableRequest(f"the hook's request is nested too deeply, {not_judged}") from None
    except ValueError:
        raise UnreadableRequest(
            f"the hook's request is empty, cut off or no JSON, {not_judged}"
        ) from None
    if not isinstance(request, dict):
        raise UnreadableRequest(f"the hook's request is no JSON object, {not_judged}")
    return request


def _stop(reason: str, options: HookOptions) -> int:
    """Stop the command of a request that cannot be read; return the exit code."""
    sentence = f"{reason}. {DECIDES}"
    answer = HookAnswer("deny", sentence)
    sys.stdout.write(agent_protocols.format_answer(answer, options.agent, {}))
    if options.agent is not None:
        return 0
    sys.stderr.write(f"safe-compose: {sentence}\n")
    return STOPPED


def answer_in_time(request: Mapping[str, Any], options: HookOptions, *, began: float) -> str:
    """Return the answer to a request, by the words alone where judging takes too long or fails."""
    look = make_look(began + LOOK_UNTIL)
    output = run_in_process(
        lambda: run(request, options, look=look), seconds=began + WHOLE_SECONDS - time.monotonic()
    )
    if output is not None:
        return output
    answer = NOTHING
    if may_hold_destructive(json.dumps(request, ensure_ascii=False)):
        answer = HookAnswer(
            "ask",
            "this line may delete volumes, and safe-compose could not judge it in time or at all."
            f" {DECIDES}",
        )
    agent = agent_protocols.recognize(request) or options.agent
    return agent_protocols.format_answer(answer, agent, request, strict=options.strict)


def run_in_process(work: Callable[[], str], *, seconds: float = WHOLE_SECONDS) -> str | None:
    """Return the result of `work` in a child process; None when it fails, is too slow, or dies.

    The parser is native code, and a hook that crashes would let the line pass.
    """
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(readable)
            with os.fdopen(writable, "w") as out:
                out.write(work())
            code = 0
        finally:
            os._exit(code)
    os.close(writable)
    until = time.monotonic() + seconds
    output = b""
    while (left := until - time.monotonic()) > 0 and select.select([readable], [], [], left)[0]:
        more = os.read(readable, 1 << 16)
        if not more:
            break
        output += more
    else:
        children.end_all(child)
    os.close(readable)
    _, status = os.waitpid(child, 0)
    return output.decode() if status == 0 else None


def run(
    request: Mapping[str, Any], options: HookOptions = _DEFAULTS, *, look: Look | None = None
) -> str:
    """Return the answer to one request: one line of JSON, or empty without an opinion.

    Never raises for any content of the request.

    Args:
        request: The request.
        options: The options. What the request says of its agent counts before `--agent`: Cursor and
            Copilot CLI also run the hooks of Claude Code's settings.
        look: Returns the plan of a command; None: the words alone are judged.
    """
    agent = agent_protocols.recognize(request) or options.agent
    answer = NOTHING
    lines = list(find_lines(request))
    here = find_folder(request)
    for line in lines:
        found = judge(line, here, look=look)
        is_more = (found.rank, bool(found.note)) > (answer.rank, bool(answer.note))
        answer = found if is_more else answer
    if not lines:
        answer = _judge_unknown(request)
    if answer.note and not answer.decision:
        answer = _apply_setting(answer, here)
    return agent_protocols.format_answer(answer, agent, request, strict=options.strict)


def _apply_setting(answer: HookAnswer, here: Path) -> HookAnswer:
    """Return the answer that `[hook] inside` makes of a note, in a folder or those above it."""
    try:
        inside = load(_find_settings_folder(here), os.environ).inside
    except ConfigError:
        inside = "note"  # the next guarded command says what is wrong with the file
    if inside == "ask":
        return HookAnswer("ask", f"{answer.note}. {DECIDES}")
    return answer if inside == "note" else NOTHING


def _find_settings_folder(here: Path) -> Path | None:
    """Return the folder with the project's settings file: this one, or the next above it."""
    for folder in (here, *here.parents):
        try:
            if (folder / PROJECT_FILE).is_file():
                return folder
        except (OSError, ValueError):
            return None
    return None


def _judge_unknown(request: Mapping[str, Any]) -> HookAnswer:
    """Return the answer about a request that has no command where agents put it."""
    tool = request.get("tool_name", request.get("toolName", request.get("tool")))
    event = request.get("hook_event_name")
    if tool in _SHELL_TOOLS or event == "beforeShellExecution":
        return HookAnswer("deny", f"the hook's request holds no command to judge. {DECIDES}")
    if tool is None and may_hold_destructive(json.dumps(request, ensure_ascii=False)):
        return HookAnswer(
            "deny",
            "the hook's request is of an unknown form, and holds words that may delete volumes."
            f" {DECIDES}",
        )
    return NOTHING


def find_lines(request: Mapping[str, Any]) -> Iterator[str | list[str]]:
    """Yield every shell line, or argv, of a request, wherever the caller puts it."""
    if request.get("tool_name") in _NO_SHELL_TOOLS:
        return
    for key in _INPUT_KEYS:
        inner = request.get(key)
        if isinstance(inner, str):
            try:
                inner = json.loads(inner)  # some callers send the arguments as text
            except (ValueError, RecursionError):
                continue
        if isinstance(inner, dict):
            yield from _commands(inner)
    yield from _commands(request)


def _commands(shape: Mapping[str, Any]) -> Iterator[str | list[str]]:
    for key in _COMMAND_KEYS:
        value = shape.get(key)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            words = [word for word in value if isinstance(word, str)]
            yield words
            if key == "commands":
                yield from words


def find_folder(request: Mapping[str, Any]) -> Path:
    """Return the folder in which the line would run.

    A tool's own folder is relative to the session's. Cursor may leave the session's empty, and
    names the roots of its workspace.
    """
    roots = request.get("workspace_roots")
    root = roots[0] if isinstance(roots, list) and roots else ""
    folder = Path.cwd() / (_find_path(request) or (root if _is_path(root) else ""))
    for key in _INPUT_KEYS:
        inner = request.get(key)
        if isinstance(inner, dict) and (path := _find_path(inner)):
            return folder / path
    return folder


def _find_path(shape: Mapping[str, Any]) -> str:
    return next((shape[key] for key in _FOLDER_KEYS if _is_path(shape.get(key))), "")


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value
