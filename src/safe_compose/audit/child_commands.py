"""The commands that a program runs, by the words that it is given.

`programs` holds the programs that pass their words on; those that take commands in a language of
their own have a function each in `embedded_commands`. This module is pure.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from safe_compose.audit import embedded_commands
from safe_compose.audit.containers import read_container
from safe_compose.audit.programs import (
    ALL,
    CODE_FLAGS,
    ENGINES,
    LAUNCHERS,
    READERS,
    ROOTS,
    SHELLS,
    Launcher,
)
from safe_compose.audit.shell_words import Part, Word, name_program

_SSH_TAKES = frozenset("bBcDEeFIiJLlmOopQRSWw")
_ASSIGNED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_POWERSHELLS = frozenset({"powershell", "pwsh"})
_ENCODED = re.compile(r"[-/](?:e|ec|en[a-z]*)(?::.*)?", re.IGNORECASE)
"""Matches `-EncodedCommand` in its short forms."""
_START_VALUES = re.compile(
    r"-(?:Verb|WorkingDirectory|WindowStyle|RedirectStandard\w+|Credential|Environment)",
    re.IGNORECASE,
)
_NEVER = frozenset({"echo", "printf", "gh", "glab", "man", "tldr", "apt", "git"})
_WORDS = frozenset(
    {
        "use", "never", "please", "to", "the", "a", "or", "and", "with", "via", "using", "not",
        "like", "by", "from", "as", "is", "for", "in", "of", "on", "that", "usage", "e.g.",
    }
)  # fmt: skip
"""Words of sentences, which are no programs."""
_LIKE_RUN = re.compile(
    r"(?:^|[_-])(?:run|exec\w*|cmd|command|do|invoke|call|try|eval|must|retry|remote|step)(?:[_-]|$)",
    re.IGNORECASE,
)
"""Matches the names of functions that run a text that they are given."""
_SCRIPT_FLAGS = re.compile(
    r"(?:-c|-C|--command|--cmd|--run|--exec|--execute|--script|--inline-script|--shell-command)"
    r"(?:=(.*))?",
    re.DOTALL,
)
"""Options whose value is a script for most programs that have them."""
_MOST = 6
"""Most words of an unknown program that are taken for the beginning of a command."""
_VIA = frozenset({"sudo", "path", "ssh"})
_STARTS = ENGINES | SHELLS | ROOTS | {"env", "ssh", "xargs", "nohup", "timeout"}


class ChildCommand(NamedTuple):
    """Something that a program runs, in one of several forms."""

    words: tuple[Word, ...] = ()
    """A command in words."""
    script: Word | None = None
    """A script of shell."""
    arguments: tuple[Word, ...] | None = None
    """The positional parameters of the script."""
    code: Word | None = None
    """A script in another language."""
    stdin: bool = False
    """Whether it is a shell that reads its script from stdin."""
    file: Word | None = None
    """A script's file."""
    appends: bool = False
    """Whether words that are read from stdin are added to its own."""
    via: frozenset[str] = frozenset()
    """The ways that lead to it (`SimpleCommand.via`)."""


def find_children(
    words: Sequence[Word], stdin: Callable[[], tuple[Word, ...]]
) -> list[ChildCommand]:
    """Return what a command would run, as far as its words show it.

    Args:
        words: The words of the command; the name of its program is known.
        stdin: Returns what the command reads.
    """
    name, rest = name_program(words[0]) or "", tuple(words[1:])
    plain = re.sub(r"[\d.]+$", "", name)
    if name in SHELLS:
        return list(_shell(rest))
    if name in _OWN:
        return list(_OWN[name](rest))
    if name in embedded_commands.FINDERS:
        found = embedded_commands.FINDERS[name](rest, stdin)
        return [
            ChildCommand(tuple(one), via=frozenset({"wrapper"}))
            if isinstance(one, list)
            else ChildCommand(script=one, via=frozenset({"wrapper"}))
            for one in found
        ]
    if plain in CODE_FLAGS and name not in LAUNCHERS:
        return list(_code(plain, rest))
    if name in LAUNCHERS:
        return list(_list_launched(name, LAUNCHERS[name], rest))
    if name in ENGINES:
        inner = read_container(rest)
        if inner is None and [word.text for word in rest[:2]] == ["machine", "ssh"]:
            return list(find_assumed(rest[2:]))
        return [ChildCommand(inner.words, via=frozenset({"container"}))] if inner else []
    runs = bool(rest) and rest[0].text in ("run", "exec", "x", "tool") and name not in _NEVER
    is_word = name in _WORDS or (name[:1].isupper() and "-" not in name)
    if is_word or (name in READERS and not runs):
        return []
    return list(find_assumed(rest, scripts=bool(_LIKE_RUN.search(name))))


# -- shells ----------------------------------------------------------------------------------------


def _shell(rest: Sequence[Word]) -> Iterator[ChildCommand]:
    """Yield the script of a shell: `-c SCRIPT`, a file, or stdin."""
    index, script = 0, False
    while index < len(rest) and re.match(r"[-+].", rest[index].text) and rest[index].sure:
        text = rest[index].text
        if text.startswith("--command="):
            yield ChildCommand(script=rest[index]._replace(text=text.partition("=")[2]))
            return
        script = script or bool(re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*|--command", text))
        takes = re.fullmatch(r"[-+][A-Za-z]*[oO]|--rcfile|--init-file", text)
        index += 2 if takes and index + 1 < len(rest) else 1
        if text in ("--", "-s"):
            break
    after = rest[index:]
    if script:
        if after:
            yield ChildCommand(script=after[0], arguments=tuple(after[2:]))
        return
    reads = any(word.text == "-s" for word in rest[:index])
    if not after or reads or after[0].text in ("/dev/stdin", "-"):
        yield ChildCommand(stdin=True)
    else:
        yield ChildCommand(file=after[0], arguments=tuple(after[1:]))


def _eval(rest: Sequence[Word]) -> Iterator[ChildCommand]:
    if rest:
        yield ChildCommand(script=join_words(rest))


def _trap(rest: Sequence[Word]) -> Iterator[ChildCommand]:
    if rest and rest[0].text not in ("-", "-p", "-l", "--"):
        yield ChildCommand(script=rest[0])


def _source(rest: Sequence[Word]) -> Iterator[ChildCommand]:
    if rest and rest[0].text in ("/dev/stdin", "-"):
        yield ChildCommand(stdin=True)
    elif rest:
        yield ChildCommand(file=rest[0], arguments=tuple(rest[1:]))


def _ssh(rest: Sequence[Word]) -> Iterator[ChildCommand]:
    index = 0
    while index < len(rest) and rest[index].text.startswith("-"):
        letters = rest[index].text[1:]
        takes = next((i for i, letter in enumerate(letters) if letter in _SSH_TAKES), None)
        alone = takes is not None and takes == len(letters) - 1
        value = rest[index + 1] if alone and index + 1 < len(rest) else rest[index]
        if option := re.search(
            r"(?:ProxyCommand|LocalCommand|KnownHostsCommand)[=\s]\s*(.*)", value.text, re.DOTALL
        ):
            yield ChildCommand(script=value._replace(text=option[1]), via=frozenset({"wrapper"}))
        index += 2 if alone else 1
    remote = rest[index + 1 :]
    if remote[:1] and remote[0].text == "--":
        remote = remote[1:]
    if remote:
        yield ChildCommand(
            script=join_words(remote), via=frozenset({"ssh"}), stdin=_is_shell(remote)
        )
    elif index < len(rest):
        yield ChildCommand(stdin=True, via=frozenset({"ssh"}))


def _is_shell(words: Sequence[Word]) -> bool:
    """Return whether these words are a shell that reads stdin."""
    return any(child.stdin for child in _shell(words[1:])) and name_program(words[0]) in SHELLS


def join_words(words: Sequence[Word]) -> Word:
    """Return the words as one, with blanks between them."""
    sure = all(word.sure for word in words)
    parts = tuple(
        part
        for number, word in enumerate(words)
        for part in ((Part(" "),) if number else ()) + (word.parts or (Part(word.text),))
    )
    origin = next((word.origin for word in words if word.origin), "")
    text = " ".join(word.text for word in words)
    return Word(text, sure, False, words[0].row, () if sure else parts, origin)


# -- programs that pass a command on ---------------------------------------------------------------


def _list_launched(name: str, launcher: Launcher, rest: tuple[Word, ...]) -> Iterator[ChildCommand]:
    """Yield the command after the words of a launcher's own."""
    via = {"wrapper"} | (launcher.marks & _VIA)
    if name in _POWERSHELLS and (encoded := [w for w in rest if _ENCODED.fullmatch(w.text)]):
        yield ChildCommand(script=encoded[0]._replace(origin="decoded"), via=frozenset(via))
        return
    if name == "command":
        if rest[:1] and re.fullmatch(r"-[pvV]*[vV][pvV]*", rest[0].text):
            return  # it only prints where the command is
        via |= {"path"} if rest[:1] and rest[0].text == "-p" else set()
    index, scripts = _own_words(name, launcher, rest)
    cleared = name == "env" and any(w.text in ("-i", "-", "--ignore-environment") for w in rest[:3])
    if cleared or any(word.text.startswith("PATH=") for word in rest[:index]):
        via |= {"path"}
    for script in scripts:
        yield ChildCommand(script=script, via=frozenset(via))
    yield from _tail(launcher, rest[index:], frozenset(via), bool(scripts), rest)


def _own_words(name: str, launcher: Launcher, rest: Sequence[Word]) -> tuple[int, list[Word]]:
    """Return how many words are a launcher's own, and the scripts among them."""
    scripts: list[Word] = []
    index, left = 0, launcher.operands
    while index < len(rest):
        text = rest[index].text
        option, equals, value = text.partition("=")
        if option in launcher.scripts and equals:
            scripts.append(rest[index]._replace(text=value))
            index += 1
        elif _takes_script(launcher, text):
            scripts += rest[index + 1 : index + 2]
            index += 2
        elif text == "--" and launcher.operands < ALL:
            return index + 1 + (left if name == "mosh" else 0), scripts
        elif text.startswith("-") or (name == "cmd" and text.startswith("/")):
            index += 2 if text in launcher.values else 1
        elif "assigns" in launcher.marks and _ASSIGNED.match(text):
            index += 1
        elif left > 0:
            left, index = left - 1, index + 1
        else:
            break
    return index, scripts


def _takes_script(launcher: Launcher, text: str) -> bool:
    """Return whether the word after an option is a script: `-c`, or a bundle that ends with it."""
    bundled = "-c" in launcher.scripts and re.fullmatch(r"-[A-Za-z]+c", text)
    return text in launcher.scripts or bool(bundled)


def _tail(
    launcher: Launcher,
    tail: tuple[Word, ...],
    via: frozenset[str],
    has_script: bool,
    rest: tuple[Word, ...],
) -> Iterator[ChildCommand]:
    appends = "appends" in launcher.marks
    if "anywhere" in launcher.marks:
        yield from find_assumed(rest, via=via, scripts=True)
    elif not tail:
        if "stdin" in launcher.marks and not has_script:
            yield ChildCommand(stdin=True, via=via)
    elif "scripts" in launcher.marks:
        for word in tail:
            yield ChildCommand(script=word, via=via)
    elif "joined" in launcher.marks or ("ssh" in launcher.marks or re.search(r"\s", tail[0].text)):
        yield ChildCommand(script=join_words(tail), via=via, appends=appends)
    else:
        yield ChildCommand(tail, via=via, appends=appends)


def find_assumed(
    rest: Sequence[Word], *, via: frozenset[str] = frozenset(), scripts: bool = False
) -> Iterator[ChildCommand]:
    """Yield what an unknown program would run if it passes its words on.

    Args:
        rest: The words after the program.
        via: The ways that lead to it.
        scripts: Whether each word may be a script.
    """
    via = via | {"wrapper", "assumed"}
    found = 0
    for index, word in enumerate(rest):
        flag = _SCRIPT_FLAGS.fullmatch(word.text)
        if flag and flag[1] is not None:
            yield ChildCommand(script=word._replace(text=flag[1]), via=via)
        elif re.search(r"\s", word.text):
            before = rest[index - 1].text if index else ""
            if scripts or (_SCRIPT_FLAGS.fullmatch(before) and "=" not in before):
                yield ChildCommand(script=word, via=via)
            elif listed := re.fullmatch(r"commands=(\[.*\])", word.text, re.DOTALL):
                yield from (ChildCommand(script=one, via=via | {"ssh"}) for one in _list(listed[1]))
            elif index and rest[index - 1].text in ("exec-env", "ssh", "shell", "sh"):
                yield ChildCommand(script=word, via=via)
        elif name_program(word) in _STARTS and word.sure and found < _MOST:
            # an earlier one may be an operand: `guix shell docker -- docker ...`
            found += 1
            yield ChildCommand(tuple(rest[index:]), via=via)


def _list(text: str) -> Iterator[Word]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return
    yield from (Word(value, bare=False) for value in values if isinstance(value, str))


# -- other languages -------------------------------------------------------------------------------


def _code(name: str, rest: Sequence[Word]) -> Iterator[ChildCommand]:
    """Yield the code of an interpreter: its flags' values, a file, or stdin."""
    flags = CODE_FLAGS[name].split()
    for index, word in enumerate(rest):
        flag, equals, value = word.text.partition("=")
        if word.text in flags:
            if index + 1 < len(rest):
                yield ChildCommand(code=rest[index + 1])
            return
        if equals and flag in flags and flag.startswith("--"):
            yield ChildCommand(code=word._replace(text=value))
            return
        if word.text == "-m":
            return
        if not word.text.startswith("-"):
            yield ChildCommand(file=word, via=frozenset({"code"}))
            return
    if all(word.text == "-" for word in rest):
        yield ChildCommand(stdin=True, via=frozenset({"code"}))


def _start_process(rest: Sequence[Word]) -> Iterator[ChildCommand]:
    """Yield what PowerShell's Start-Process runs: a program, and its arguments as one text."""
    words: list[Word] = []
    index = 0
    while index < len(rest):
        if _START_VALUES.fullmatch(rest[index].text):
            index += 1
        elif not re.fullmatch(r"-[A-Z][A-Za-z]+", rest[index].text) or not rest[index].bare:
            texts = re.split(r"[\s,]+", rest[index].text.strip())
            words += [rest[index]._replace(text=text.strip("'\"@()")) for text in texts]
        index += 1
    if words:
        yield ChildCommand(tuple(words), via=frozenset({"wrapper"}))


_OWN: dict[str, Callable[[Sequence[Word]], Iterator[ChildCommand]]] = {
    "eval": _eval,
    "trap": _trap,
    "source": _source,
    ".": _source,
    **dict.fromkeys(("Start-Process", "start-process", "saps"), _start_process),
    "ssh": _ssh,
    "autossh": lambda rest: _ssh(rest[2:] if rest[:1] and rest[0].text == "-M" else rest),
}
