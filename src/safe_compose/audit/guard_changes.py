"""Parts of a shell line that switch the guard off, weaken it, or remove it.

This module is pure.
"""

import re
from collections.abc import Iterator

from safe_compose.audit.programs import ENGINES
from safe_compose.audit.shell_line import ShellLine, SimpleCommand
from safe_compose.fastpath import launch
from safe_compose.grammar import tables

DECIDES = "A person decides this"
_SETTINGS = re.compile(r"(?:^|[/=])(?:safe-compose\.toml|protections\.json)$")
_HOOKS = re.compile(
    r"(?:^|[/=])(?:\.(?:claude|gemini)/settings(?:\.local)?\.json|\.(?:codex|cursor)/hooks\.json"
    r"|\.codex/config\.toml|hooks/safe-compose\.json|plugins/safe-compose\.js)$"
)
"""Matches the files in which coding agents keep this hook (`install/agent_places.py`)."""
_OWN_PROGRAMS = re.compile(
    r"(?:^|/)(?:bin|shims|cli-plugins|safe-compose)/(?:docker|docker-compose|safe-compose|podman)$"
    r"|(?:^|/)cli-plugins/docker-[\w-]*safe-compose[\w-]*$"
)
_WRITERS = frozenset(
    {"cp", "mv", "tee", "install", "ln", "dd", "truncate", "rm", "unlink", "shred"}
)
_LIFTS = frozenset({"rm", "remove", "kill", "stop", "rename", "update"})
Change = tuple[str, str]
"""(decision, reason)."""


def find_changes(line: ShellLine) -> Iterator[Change]:
    """Yield the answers about everything in a line that changes the guard."""
    yield from _switches(line)
    for command in line.commands:
        yield from _find_own_verbs(command)
        yield from _find_changed_files(command)
    for target in line.targets:
        yield from _change_of(target.text)
    if line.targets and any("SAFE_COMPOSE=off" in text for text in line.texts):
        yield (
            "ask",
            "this writes SAFE_COMPOSE=off into a file: the guard may be off from then on."
            f" {DECIDES}",
        )
    for code in line.codes:
        if re.search(r"safe-compose\.toml|protections\.json", code) and re.search(
            r"write|['\"][wa]\+?['\"]|unlink|remove|rename", code
        ):
            yield _settings("safe-compose.toml")


def _switches(line: ShellLine) -> Iterator[Change]:
    off = (
        "deny",
        "SAFE_COMPOSE=off switches the guard off: volumes would be deleted without a backup."
        f" {DECIDES}",
    )
    for name, value in line.assignments:
        if name == "SAFE_COMPOSE" and (value.text == "off" or not value.sure):
            yield off
    for command in line.commands:
        words = [word.text for word in command.words]
        if command.program in ("set", "setenv") and "SAFE_COMPOSE" in words and "off" in words:
            yield off  # fish, csh
        if command.program in ENGINES and any("SAFE_COMPOSE=off" in word for word in words):
            yield off


def _find_own_verbs(command: SimpleCommand) -> Iterator[Change]:
    words = [word.text for word in command.words]
    if command.program in ENGINES and _LIFTS.intersection(words):
        for word in words:
            if word.startswith(tables.LOCK_NAME):
                yield "ask", f"{word} keeps docker from deleting protected volumes. {DECIDES}"
    if command.program == "safe-compose":
        verb = launch.find_own_verb(words[1:]) or next(
            (w for w in words[1:] if not w.startswith("-")), ""
        )
        if verb == "approve" and "--list" not in words:
            yield (
                "deny",
                "`safe-compose approve` is typed by a person, in a terminal of their own",
            )
        elif (
            verb in ("unprotect", "forget")
            or (
                verb in ("shell", "hook")
                and any(word.partition("=")[0] == "--uninstall" for word in words)
            )
            or (verb == "schedule" and "remove" in words)
            or (verb == "trash" and "list" not in words)
            or (verb in ("undo", "restore") and "--confirm" in " ".join(words))
        ):
            yield "ask", f"`safe-compose {verb}` takes protection or data away. {DECIDES}"
    elif "uninstall" in words and any(word.partition("[")[0] == "safe-compose" for word in words):
        yield (
            "ask",
            "this uninstalls safe-compose: nothing stands before a deletion from then on."
            f" {DECIDES}",
        )


def _find_changed_files(command: SimpleCommand) -> Iterator[Change]:
    """Yield answers about settings and programs of ours that a command writes or removes."""
    program, words = command.program, [word.text for word in command.words[1:]]
    operands = [word for word in words if not word.startswith("-")]
    in_place = program in ("sed", "perl", "ruby") and any(
        re.match(r"-[a-zA-Z]*i|--in-place", word) for word in words
    )
    from_git = program == "git" and any(
        word in ("checkout", "restore", "rm", "clean") for word in words[:3]
    )
    writes = program in _WRITERS or in_place or from_git
    written = operands[-1:] if program in ("cp", "install", "ln") else operands
    for word in written if writes else ():
        yield from _change_of(word)
    disabled = program == "chmod" and any(
        re.search(r"-[rwx]*x|^[0-7]?[0-6]?[0246]{2,3}$", word) for word in words
    )
    for word in operands if disabled or program in _WRITERS else ():
        if _OWN_PROGRAMS.search(word) and (word in written or program == "mv"):
            yield (
                "ask",
                f"{word} may be the program of safe-compose's that stands before docker: without"
                f" it nothing does. {DECIDES}",
            )


def _change_of(path: str) -> Iterator[Change]:
    """Yield the answer about a file that is written, when it is one of the guard's."""
    if _SETTINGS.search(path):
        yield _settings(path)
    elif _HOOKS.search(path):
        yield (
            "ask",
            f"{path} may hold the hook that judges these lines, and this changes it. {DECIDES}",
        )


def _settings(name: str) -> Change:
    return (
        "ask",
        f"{name.rpartition('/')[2]} says which volumes are protected, and this changes it."
        f" {DECIDES}",
    )
