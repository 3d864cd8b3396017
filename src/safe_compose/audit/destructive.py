"""The commands of a shell line that may delete a volume, according to docker's grammar."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose.audit.programs import (
    COMPOSE_NAMES,
    ENGINES,
    LAUNCHERS,
    READERS,
    SHELLS,
    UNGUARDED,
)
from safe_compose.audit.risk import (
    ANONYMOUS,
    LIKE_DOCKER,
    SOFT,
    docker_name,
    may_turn,
    read_invocation,
)
from safe_compose.audit.shell_line import ShellLine, SimpleCommand
from safe_compose.audit.shell_words import Word
from safe_compose.core.redaction import hide_secrets, redact
from safe_compose.fastpath import launch
from safe_compose.grammar import parser

_OWN_COMPOSE = re.compile(
    r"(?:run[-_])?(?:docker[-_.]?)?(?:compose|dco?|dcp|sail|stack)(?:[-_.]\w+)?(?:\.(?:sh|bash|py|rb))?"
)
_ALIASES = {
    "dcdn": ("compose", "down"),
    "dcdown": ("compose", "down"),
    "dcrm": ("compose", "rm"),
    "dcup": ("compose", "up"),
    "dvprune": ("volume", "prune"),
    "dvrm": ("volume", "rm"),
    "drm": ("container", "rm"),
}
"""Aliases of docker's commands that plugins of shells define."""


class DestructiveCommand(NamedTuple):
    """A command that may delete a volume."""

    command: SimpleCommand
    invocation: parser.Invocation
    sure: bool
    """False: it does so only if a word with an unknown value turns out that way."""
    bypass: str
    """Why it would bypass safe-compose; empty when it would not."""

    @property
    def typed(self) -> str:
        """Return the command as typed, without secrets."""
        return hide_secrets(" ".join(redact([word.text for word in self.command.words])))


def find_destructive(line: ShellLine, here: Path, text: str) -> Iterator[DestructiveCommand]:
    """Yield every command that may delete a volume."""
    for command in line.commands:
        program = command.program
        if program is None:
            yield from _read_unknown(command, text)
        elif program in ENGINES:
            yield from _read_engine(command, program, here)
        elif program in _ALIASES:
            words = (*map(Word, _ALIASES[program]), *command.words[1:])
            yield from _read_as(command, words)
        elif program in COMPOSE_NAMES or _OWN_COMPOSE.fullmatch(program):
            groups = (
                () if command.words[1:2] and command.words[1].text == "compose" else ("compose",)
            )
            yield from _read_as(command, (*map(Word, groups), *command.words[1:]))
        elif program not in READERS and program not in LAUNCHERS and program not in SHELLS:
            rest = command.words[1:]
            if rest and rest[0].text in ("compose", "docker-compose"):
                yield from _read_as(command, (Word("compose"), *rest[1:]))


def _read_as(command: SimpleCommand, words: Sequence[Word]) -> Iterator[DestructiveCommand]:
    """Yield the command if words of docker's that another program gets are destructive."""
    found = read_invocation(words, "docker")
    if found is not None and found.kind not in SOFT and found.doubt is None:
        yield DestructiveCommand(command, found, False, "")


def _read_unknown(command: SimpleCommand, text: str) -> Iterator[DestructiveCommand]:
    """Yield the command of a program that is a variable, read as docker's or compose's."""
    words = command.words
    name = words[0].parts[0].name if words[0].parts else ""
    like = bool(LIKE_DOCKER.search(name))
    groups = ((), (Word("compose"),)) if like or re.search("docker|compose", text) else ((),)
    for group in groups if len(words) > 1 else ():
        found = read_invocation((*group, *words[1:]), "docker")
        if found is None or found.kind in SOFT or (found.kind in ANONYMOUS and not like):
            continue
        yield DestructiveCommand(command, found, False, "")
        return


def _read_engine(command: SimpleCommand, program: str, here: Path) -> Iterator[DestructiveCommand]:
    words, name = command.words, docker_name(program)
    bypass = explain_bypass(command, here)
    asked = words[1:]
    if program in ("podman", "podman-compose"):
        asked = as_docker(asked)
    own = launch.find_own_verb if program == "safe-compose" else None
    found = read_invocation(asked, name, own_verb=own)
    if found is not None:
        if "assumed" not in command.via or (found.kind not in SOFT and found.doubt is None):
            yield DestructiveCommand(command, found, "assumed" not in command.via, bypass)
        return
    turned = may_turn(asked, name) if "assumed" not in command.via else None
    if turned is None and (_is_answered(command) and "assumed" not in command.via):
        turned = read_invocation((*asked, Word("-y")), name)
    if turned is not None:
        yield DestructiveCommand(command, turned, False, bypass)


def _is_answered(command: SimpleCommand) -> bool:
    """Return whether a `y` waits on stdin, for a question of compose's own."""
    words = [word.text for word in command.words]
    return bool({"up", "create", "run", "scale", "watch"} & set(words)) and any(
        word.sure and re.match(r"\s*y(?:es)?\b", word.text, re.IGNORECASE) for word in command.stdin
    )


def as_docker(words: Sequence[Word]) -> tuple[Word, ...]:
    """Return podman's words in docker's: its own verbs and flags by what they delete."""
    rest = list(words)
    while rest and rest[0].text.startswith("-"):
        takes = "=" not in rest[0].text and rest[0].text in _PODMAN_VALUES
        del rest[: 2 if takes else 1]
    texts = [word.text for word in rest]
    flags = {text.partition("=")[0] for text in texts if text.startswith("--")}
    letters = {letter for text in texts if re.fullmatch(r"-[A-Za-z]+", text) for letter in text[1:]}
    verb = tuple(text for text in texts if not text.startswith("-"))[:2]
    everything = (Word("volume"), Word("prune"))
    if "--help" in flags or "h" in letters:
        return ()
    if verb in (("system", "reset"), ("machine", "reset"), ("machine", "rm")):
        return everything
    if verb[:2] in (("volume", "rm"), ("volume", "remove")) and (
        "--all" in flags or "a" in letters
    ):
        return everything
    is_kube = verb == ("kube", "down") or (verb == ("play", "kube") and "--down" in flags)
    if is_kube and "--force" in flags:
        return everything
    removes = verb[:1] == ("rm",) or verb in (("container", "rm"), ("container", "remove"))
    if removes and ("--volumes" in flags or "v" in letters):
        return (Word("rm"), Word("-v"), Word("x"))
    return tuple(rest) if rest else tuple(words)


_PODMAN_VALUES = frozenset(
    {
        "--connection", "-c", "--url", "--identity", "--log-level", "--root", "--runroot",
        "--storage-driver", "--storage-opt", "--cgroup-manager", "--module", "--config",
        "--context", "-H", "--host", "--events-backend", "--hooks-dir", "--namespace", "--out",
        "--runtime", "--runtime-flag", "--ssh", "--tmpdir", "--volumepath", "--network-config-dir",
        "--imagestore", "--conmon",
    }
)  # fmt: skip


def explain_bypass(command: SimpleCommand, here: Path) -> str:
    """Explain why a command would bypass safe-compose; empty when it would not, or when unknown."""
    word = command.words[0].text
    program = command.program
    if "copy" in command.via:
        return "docker is started under another name"
    if program in UNGUARDED:
        return f"{program} is not guarded"
    if "/" in word:
        # any text, which may be no path at all
        path = os.path.join(here, os.path.expanduser(word))  # noqa: PTH111, PTH118
        if program != "safe-compose" and not ("\0" not in path and launch.is_ourselves(path)):
            return "docker is started by its path"
    elif word != program and program == "docker":
        return f"{word} is docker itself"
    if program == "safe-compose":
        return ""
    if "sudo" in command.via:
        return "another user's PATH usually leads to docker itself"
    if "path" in command.via:
        return "PATH is changed for it"
    return ""
