"""The verdict about one line of shell that a coding agent is about to run.

The effect of each destructive command in it, and whether the command would bypass safe-compose,
decide between no opinion, `ask` and `deny`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safe_compose.audit import code_deletions, guard_changes, script_runs
from safe_compose.audit.containers import read_container
from safe_compose.audit.data_folder import find_data_root, find_mounted_root, find_written_root
from safe_compose.audit.data_notes import find_notes, may_hold_data_deletion
from safe_compose.audit.destructive import DestructiveCommand, find_destructive
from safe_compose.audit.destructive_words import may_hold_destructive
from safe_compose.audit.engine_api import read_api_call
from safe_compose.audit.guard_changes import DECIDES
from safe_compose.audit.programs import (
    ENGINES,
    LAUNCHERS,
    READERS,
    REMOVERS,
    SENDERS,
    SHELLS,
    UNGUARDED,
)
from safe_compose.audit.risk import DOES, SOFT
from safe_compose.audit.script_runs import ScriptReader
from safe_compose.audit.shell import BROKEN, SPENT, read, read_argv
from safe_compose.audit.shell_line import ParserMissing, ShellLine, SimpleCommand
from safe_compose.core.redaction import redact
from safe_compose.fastpath import first_look
from safe_compose.system import children
from safe_compose.system.installation import describe_extra

LOOK_SECONDS = 1.2
"""Seconds in which the engine must report the volumes of a command; after that the words alone are
judged."""
_LEVELS = ("", "ask", "deny")
_CHANGE_NOTHING = frozenset(
    {
        "cd", "pwd", "echo", "printf", "ls", "true", "exit", "test", "[", "[[", "date", ":", "cat",
        "head", "tail", "grep", "wc", "sleep",
    }
)  # fmt: skip
"""Programs that may precede a command that the engine is asked about."""
_DEEPEST_SCRIPT = 3
"""How many scripts may run each other."""
_RARE = frozenset({"autoremove_anon", "swarm_task_anon"})
"""Kinds that delete nothing but anonymous volumes of containers that were started to be removed."""
_EXPANDS = re.compile(r"^~|[*?\[]|\{.*(,|\.\.).*\}")
"""Matches an unquoted word that the shell expands; find expands `{}`, quoted or not."""
Look = Callable[[Sequence[str], Path], Mapping[str, Any] | None]


class HookAnswer(NamedTuple):
    """The verdict about one line."""

    decision: str = ""
    """`deny`, `ask`, or empty: no opinion."""
    reason: str = ""
    note: str = ""
    """What the line deletes besides volumes, where no more is to be said."""

    @property
    def rank(self) -> int:
        """Return the severity of the decision: 0, 1 or 2."""
        return _LEVELS.index(self.decision)


NOTHING = HookAnswer()


def judge(line: str | Sequence[str], here: Path, *, look: Look | None = None) -> HookAnswer:
    """Return the answer about a shell line (or an argv) that would run in the folder `here`."""
    text = line if isinstance(line, str) else " ".join(line)
    try:
        found = read(line, expand=True) if isinstance(line, str) else read_argv(line, expand=True)
    except ParserMissing:
        if may_hold_destructive(text):
            return HookAnswer(
                "ask",
                "this line may delete volumes, and shell lines cannot be read here:"
                f" {describe_extra('audit')}. {DECIDES}",
            )
        return NOTHING
    answers = [HookAnswer(*change) for change in guard_changes.find_changes(found)]
    answers += [a for c in found.commands for a in _judge_other_command(c, found, here, text)]
    answers += _judge_targets(found, here)
    all_found = list(find_destructive(found, here, text))
    answers += [
        _answer_for(destructive, _look_for(destructive, all_found, found, here, look))
        for destructive in all_found
    ]
    # A command that was read and loses nothing says nothing of what could not be read beside it.
    if not any(answer.rank for answer in answers):
        answers += _find_unread(found, text)
    if not any(answer.rank for answer in answers):
        answers += _judge_scripts(found, here, ScriptReader(), 0)
    answers += [HookAnswer(note=note) for note in find_notes(found, here)]
    return max(answers, key=lambda a: (a.rank, bool(a.note)), default=NOTHING)


def _judge_scripts(
    line: ShellLine, here: Path, reader: ScriptReader, depth: int
) -> Iterator[HookAnswer]:
    """Yield answers about the scripts that a line runs from files, and those that they run."""
    for script in reader.read(line, here) if depth < _DEEPEST_SCRIPT else ():
        if script.is_code:
            if code_deletions.may_delete(script.text):
                yield HookAnswer("ask", f"{script.path} may delete volumes. {DECIDES}")
            continue
        if not (
            script_runs.is_worth_reading(script.text) or may_hold_data_deletion(script.text, here)
        ):
            continue
        inner = read(script.text, expand=True)
        for destructive in find_destructive(inner, here, script.text):
            surely = destructive.sure or destructive.command.program is None
            if surely and destructive.invocation.kind not in SOFT:
                does = DOES.get(destructive.invocation.kind, "may delete volumes")
                yield HookAnswer(
                    "ask",
                    f"{script.path} would run `{destructive.typed}`, which {does}. {DECIDES}",
                )
        found = [
            *(a for c in inner.commands for a in _judge_other_command(c, inner, here, script.text)),
            *_judge_targets(inner, here),
        ]
        yield from (HookAnswer("ask", f"{script.path}: {answer.reason}") for answer in found)
        yield from (HookAnswer(note=f"{script.path}: {note}") for note in find_notes(inner, here))
        yield from _judge_scripts(inner, here, reader, depth + 1)


def _judge_other_command(
    command: SimpleCommand, line: ShellLine, here: Path, text: str
) -> Iterator[HookAnswer]:
    """Yield answers about deletions without docker's command line.

    They reach the data folder itself, or the engine's API.
    """
    if command.via & {"container", "ssh"}:
        return
    words = [word.text for word in command.words[1:]]
    if command.program in REMOVERS and (where := find_data_root(command, line, here)):
        yield HookAnswer(
            "deny",
            f"this removes files under {where}, where the engine keeps every volume, past any"
            " backup",
        )
    if command.program in REMOVERS - {"find"} and any("share/safe-compose" in w for w in words):
        yield HookAnswer(
            "ask", f"this removes files from safe-compose's store: the backups. {DECIDES}"
        )
    call = read_api_call(command, text) if command.program in SENDERS else None
    if call is not None and call.deletes:
        yield HookAnswer(
            "deny" if call.sure else "ask",
            "this deletes through the engine's API, past any backup; docker's own command for"
            " it is guarded",
        )
    elif call is not None and not call.sure and may_hold_destructive(text):
        yield HookAnswer(
            "ask",
            "this talks to the engine's API, and what it asks for is not known before it runs."
            f" {DECIDES}",
        )
    inner = read_container(command.words[1:]) if command.program in ENGINES else None
    if inner is not None and (mounted := find_mounted_root(inner)):
        yield HookAnswer(
            "deny",
            f"this hands {mounted}, where the engine keeps every volume, to a container that"
            " removes files",
        )


def _judge_targets(line: ShellLine, here: Path) -> Iterator[HookAnswer]:
    """Yield answers about redirects that empty a file of a volume."""
    for target in line.targets:
        if where := find_written_root(target, line, here):
            yield HookAnswer(
                "deny",
                f"this overwrites a file under {where}, where the engine keeps every volume, past"
                " any backup",
            )
            return


def _answer_for(destructive: DestructiveCommand, plan: Mapping[str, Any] | None) -> HookAnswer:
    """Return the answer about a destructive command; `plan` is its `--explain`, or None."""
    soft = destructive.invocation.kind in SOFT
    does = DOES.get(destructive.invocation.kind, "may delete volumes")
    if not destructive.sure:
        does = (
            f"may turn into a command that {does} (not all of its words are known before it runs)"
        )
    if "assumed" in destructive.command.via:
        return HookAnswer(
            "ask",
            f"`{destructive.typed}` {does}, if the program before it runs it. {DECIDES}",
        )
    if destructive.bypass and destructive.invocation.kind in _RARE:
        return NOTHING
    if "ssh" in destructive.command.via:
        return NOTHING if soft else _answer_for_remote(destructive, does)
    if "container" in destructive.command.via:
        return HookAnswer(
            "ask",
            f"`{destructive.typed}` {does}, from inside a container, where safe-compose does not"
            f" stand. {DECIDES}",
        )
    if destructive.bypass:
        bypasses = (
            f"`{destructive.typed}` {does}, and goes round safe-compose: {destructive.bypass}."
        )
        if soft or not destructive.sure:
            return HookAnswer("ask", f"{bypasses} {DECIDES}")
        return HookAnswer("deny", f"{bypasses} Write instead: {_suggest_guarded(destructive)}")
    if plan is not None and plan.get("verdict") == "pass":
        return NOTHING
    if plan is None or not plan.get("volumes"):  # refused by its words alone
        if soft:
            return NOTHING
        return HookAnswer("ask", f"`{destructive.typed}` {does}. {_describe_effect(destructive)}")
    doomed = [
        f"{v['name']} ({v['tier']}: {v['why']})"
        for v in plan.get("volumes", ())
        if v.get("tier") != "disposable"
    ]
    more = f" and {len(doomed) - 5} more" if len(doomed) > 5 else ""
    return HookAnswer(
        "ask",
        f"`{destructive.typed}` deletes {', '.join(doomed[:5])}{more} on {plan.get('endpoint')}."
        f" {_describe_effect(destructive)}",
    )


def _answer_for_remote(destructive: DestructiveCommand, does: str) -> HookAnswer:
    """Return the answer about a command that ssh runs on another machine."""
    host = "docker -H ssh://HOST ..." if destructive.command.program != "safe-compose" else ""
    then = f"; to have it guarded from here: {host}" if host else ""
    return HookAnswer(
        "ask",
        f"`{destructive.typed}` {does} on another machine, whose guard is not seen from here{then}."
        f" {DECIDES}",
    )


def _describe_effect(destructive: DestructiveCommand) -> str:
    own = destructive.invocation.own
    if destructive.invocation.is_refused:
        return f"safe-compose refuses it. {DECIDES}"
    if own.skip_backup:
        return f"--skip-backup: nothing is backed up. {DECIDES}"
    if own.non_interactive and own.backup_first:
        return f"A verified backup is made first, and nobody is asked again. {DECIDES}"
    return (
        "safe-compose stands before it: without a terminal it is refused, with a code that a"
        f" person approves. {DECIDES}"
    )


def _suggest_guarded(destructive: DestructiveCommand) -> str:
    if destructive.command.program in UNGUARDED:
        return "nothing: tell a person"
    words = redact([word.text for word in destructive.command.words[1:]])
    return (
        "safe-compose"
        f" {'compose ' if destructive.command.program == 'docker-compose' else ''}{' '.join(words)}"
    )


def _find_unread(line: ShellLine, text: str) -> Iterator[HookAnswer]:
    """Yield answers about parts that run and could not be read."""
    if line.hidden:
        yield HookAnswer("ask", f"what this line runs cannot be read: {line.hidden[0]}. {DECIDES}")
    if any(code_deletions.may_delete(code) for code in line.codes):
        yield HookAnswer("ask", f"this code may delete volumes past safe-compose. {DECIDES}")
    whole = SPENT in line.unreadable or BROKEN in line.unreadable
    if not may_hold_destructive(text if whole else _remove_harmless(line, text)):
        return
    if line.unreadable:
        yield HookAnswer(
            "ask", f"this line may delete volumes, and {line.unreadable[0]}. {DECIDES}"
        )
    unknown = [c for c in line.commands if c.program is None and not c.words[1:]]
    if unknown:
        yield HookAnswer(
            "ask",
            f"this line may delete volumes: what `{unknown[0].words[0].text}` runs is not known."
            f" {DECIDES}",
        )


def _remove_harmless(line: ShellLine, text: str) -> str:
    """Return the line without the commands whose effect is known: they delete nothing."""
    for command in line.commands:
        known = command.program in ENGINES or command.program in READERS
        if command.source and known and all(word.sure for word in command.words):
            text = text.replace(command.source, " ")
    return text


def _look_for(
    destructive: DestructiveCommand,
    all_found: Sequence[DestructiveCommand],
    line: ShellLine,
    here: Path,
    look: Look | None,
) -> Mapping[str, Any] | None:
    """Return the plan for a destructive command, or None.

    The engine is asked only if the line has exactly one such command and no unknown words, and if
    nothing precedes the command that could change what it finds.
    """
    command = destructive.command
    words = command.words
    if (
        look is None
        or len(all_found) != 1
        or command.via - {"wrapper"}
        or destructive.bypass
        or not destructive.sure
        or command.program not in ("docker", "safe-compose")
        or line.assignments
        or line.names
        or line.unreadable
        or line.hidden
    ):
        return None
    if not all(
        word.sure
        and word.origin != "braces"
        and "{}" not in word.text
        and not (word.bare and _EXPANDS.search(word.text))
        for word in words
    ):
        return None
    for before in line.commands[: line.commands.index(command)]:
        if before.program == "cd" and "subshell" not in before.via:
            if len(before.words) != 2 or not before.words[1].sure:
                return None
            here = here / Path(before.words[1].text).expanduser()
        elif line.writes or not (before.program in _CHANGE_NOTHING or _only_starts(before)):
            return None
    return look([word.text for word in words[1:]], here)


def _only_starts(before: SimpleCommand) -> bool:
    """Return whether a command before it is only a wrapper or a shell that starts it."""
    return before.program in LAUNCHERS or (
        before.program in SHELLS and any(word.text.endswith("c") for word in before.words[1:2])
    )


def explain(
    words: Sequence[str], here: Path, *, seconds: float = LOOK_SECONDS
) -> Mapping[str, Any] | None:
    """Return the `--explain --json` of a command, from a child process limited to `seconds`.

    None when there is no engine, no such folder, or the limit is exceeded.
    """
    own = [w for w in words if w.partition("=")[0] in first_look.OWN_FLAGS - {"--confirm"}]
    argv = [
        sys.executable,
        "-P",
        "-m",
        "safe_compose",
        "--explain",
        "--json",
        *(w for w in words if w not in own),
    ]
    try:
        done = children.run(argv, cwd=here, seconds=seconds)
        plan = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired, children.TooMuch):
        return None
    return plan if isinstance(plan, dict) else None
