"""Detection of shell snippets that may delete a volume, with safer forms.

The findings of one file, and the time for them, are limited. This module is pure otherwise.
"""

import re
import shlex
import time
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from safe_compose.audit.destructive_words import may_hold_destructive
from safe_compose.audit.engine_api import read_api_call
from safe_compose.audit.programs import ENGINES, SENDERS
from safe_compose.audit.risk import (
    ANONYMOUS,
    DOES,
    LIKE_DOCKER,
    LIKE_FLAGS,
    SOFT,
    docker_name,
    read_invocation,
)
from safe_compose.audit.safer_commands import join_words, make_harmless, show_words
from safe_compose.audit.shell import read, read_argv
from safe_compose.audit.shell_line import ShellLine, SimpleCommand
from safe_compose.audit.shell_words import Word, name_program
from safe_compose.audit.snippets import (
    WORD,
    FileSnippets,
    Snippet,
    SurroundingText,
    find_assignments,
    logical_lines,
)
from safe_compose.fastpath import launch
from safe_compose.grammar import parser, tables

MARK = re.compile(r"(?:#|//|<!--|;|--|/\*|::|\{#).*\bsafe-compose:\s*allow\b(?!-)")
"""Matches a comment that allows a command: on its line, or alone on the line above it."""
WHOLE_FILE = re.compile(r"(?:#|//|<!--|;|--|/\*|::|\{#).*\bsafe-compose:\s*allow-file\b")
DANGER = re.compile(
    r"warning|danger|caution|careful|beware|irrevers|for good|\blos[est]+\b|\bdelet|\bdestroy"
    r"|\berase|\bwipe|\bremov|\bnever\b"
    r"|\bdies?\b|do not|don't|⚠|внимани|осторожн|опасн|удал|уничтож",
    re.IGNORECASE,
)
"""Matches the words that make a block with the safe form a warning and not advice."""
_LESS = ANONYMOUS | {"folder_change"}
_VARIABLE = re.compile(
    r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:\[[^]]*\])?(?::?[-=](.*))?\})", re.DOTALL
)
MOST = 500
"""Most findings of one file."""
SECONDS = 5.0
"""Seconds in which the commands of one file are judged."""
_DEEPEST = 4
_MOST_VALUES = 50
"""Most values of a variable that are tried."""
_IF_VARIABLE = "if the variable in it says so"


_Values = dict[str, Sequence[str]]


class Finding(NamedTuple):
    """A command in a file that deletes volumes, or may."""

    path: str
    line: int
    kind: str
    """The kind, as in `--explain` (design, section 3)."""
    command: str
    """The command in the file without secrets, for people."""
    keeps: str | None
    """The command without the part that deletes."""
    guarded: str
    """The command through safe-compose."""
    doubt: str | None = None
    """The condition under which it deletes; None when its words alone say so."""
    place: str | None = None
    """The place where it runs, when that is not here: `on another machine`, `in a container`."""
    block: tuple[int, int] | None = None
    """In a document, the first and last line of its block."""
    mount: str | None = None
    """The folder of a service whose files are lost, where no volume is."""

    @property
    def does(self) -> str:
        """Return the effect of the command."""
        return DOES.get(self.kind, "may delete volumes")

    @property
    def level(self) -> str:
        """Return `error` or `warning`.

        It is `warning` for a doubt, for a loss of only anonymous or changed volumes, and for files
        that are changed.
        """
        return "warning" if self.doubt or self.kind in _LESS else "error"

    @property
    def sentence(self) -> str:
        """Return the effect with place and condition."""
        where = f" {self.place}" if self.place else f" ({self.mount})" if self.mount else ""
        return f"{self.does}{where}{f', {self.doubt}' if self.doubt else ''}"


class _DestructiveCommand(NamedTuple):
    words: tuple[Word, ...]
    """The words in the file."""
    asked: tuple[str, ...]
    """The words after `docker`, with known variables replaced."""
    invocation: parser.Invocation
    via: frozenset[str]
    doubt: str | None = None


class FileFindings(NamedTuple):
    """The findings of one file."""

    findings: list[Finding]
    """Those that are listed, in the order of lines."""
    left_out: int = 0
    """How many further places may delete volumes by their words, and were not judged."""


class _Limits:
    """The time and the number of findings that are left for one file."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SECONDS
        self.left = MOST

    def are_reached(self) -> bool:
        return self.left <= 0 or time.monotonic() > self._until


def find(path: str, text: str, found: FileSnippets, *, unattended: bool = False) -> FileFindings:
    """Return the findings in one file's snippets, without allowed commands.

    Args:
        path: The path of the file, for the findings.
        text: Its text.
        found: Its snippets.
        unattended: Whether it runs where no person can type a confirmation.

    Raises:
        ParserMissing: The parser of `shell` is not installed.
    """
    if "allow-file" in text and WHOLE_FILE.search(text):
        return FileFindings([])
    known: _Values = {
        name: (value,) for name, value in {**find_assignments(text), **found.known}.items()
    }
    lines = text.split("\n")
    seen: dict[tuple[int, str, str], Finding] = {}
    limits = _Limits()
    left_out = 0
    for snippet in found.snippets:
        if not may_hold_destructive(snippet.text or " ".join(snippet.argv)):
            continue
        for row, destructive in _find_in_snippet(snippet, known, limits):
            if destructive is None:
                left_out += _count_left(snippet, row)
                break
            line = snippet.at(row)
            one = _make_finding(path, line, destructive, snippet, unattended=unattended)
            if not is_allowed(lines, line) and not any(
                _is_warning(around, destructive, one) for around in snippet.surroundings
            ):
                seen.setdefault((one.line, one.kind, one.command), one)
            limits.left = MOST - len(seen)
    return FileFindings(sorted(seen.values(), key=lambda f: f.line), left_out)


def _count_left(snippet: Snippet, row: int) -> int:
    """Return how many commands from a row on may delete volumes by their words."""
    rows = logical_lines(snippet.text)
    return sum(may_hold_destructive(part) for at, part in rows if at >= row) or 1


_read_snippet = lru_cache(maxsize=256)(read)
"""Files repeat their lines, and `--fix` reads a document again after each change."""


def _find_in_snippet(
    snippet: Snippet, known: _Values, limits: _Limits
) -> Iterator[tuple[int, _DestructiveCommand | None]]:
    """Yield (row, command); a snippet that does not parse as a whole is also read line by line.

    The command is None where the limits end the reading.
    """
    if limits.are_reached():
        yield 0, None
        return
    words = [Word(word, bare=False, row=number * WORD) for number, word in enumerate(snippet.argv)]
    line = read_argv(words) if words else _read_snippet(snippet.text)
    for destructive in _find_in_line(line, known):
        if limits.are_reached():
            yield destructive.words[0].row, None
            return
        yield destructive.words[0].row, destructive
    if not line.unreadable or snippet.argv:
        return
    for row, part in logical_lines(snippet.text):
        if part.lstrip().startswith("#") or not may_hold_destructive(part):
            continue
        if limits.are_reached():
            yield row, None
            return
        alone = _read_snippet(part)
        all_found = list(_find_in_line(alone, known))
        if alone.unreadable and not all_found:
            all_found = list(_guess_in_text(part))
        for destructive in all_found:
            yield row + destructive.words[0].row, destructive


def _guess_in_text(part: str) -> Iterator[_DestructiveCommand]:
    """Yield the command after the name of an engine's client in a line that is no shell."""
    words = [Word(word) for word in re.findall(r"[^\s'\"`;|&()<>,]+", part)]
    for at, word in enumerate(words):
        program = name_program(word)
        if program in ENGINES and program != "safe-compose":
            found = read_invocation(words[at + 1 :], docker_name(program))
            if found is not None and found.kind not in SOFT:
                asked = tuple(w.text for w in words[at + 1 :])
                doubt = "if this line, which does not read as shell, is run"
                yield _DestructiveCommand(
                    tuple(words[at:]), _spell_out(program, asked), found, frozenset(), doubt
                )
                return


def _spell_out(program: str, asked: Sequence[str]) -> tuple[str, ...]:
    return ("compose", *asked) if docker_name(program) == "docker-compose" else tuple(asked)


# -- words -> commands -----------------------------------------------------------------------------


def _find_in_line(line: ShellLine, known: _Values) -> Iterator[_DestructiveCommand]:
    own: dict[str, Sequence[str]] = {}
    for name, word in line.assignments:
        given = own.setdefault(name, known.get(name, ()))
        if word.sure and word.text and word.text not in given and len(given) < _MOST_VALUES:
            own[name] = (*given, word.text)
    values = ChainMap(own, known)
    bodies = dict(line.bodies)
    for command in line.commands:
        yield from _read_command(command, command.words, values, bodies, 0)


def _read_command(
    command: SimpleCommand,
    typed: tuple[Word, ...],
    values: Mapping[str, Sequence[str]],
    bodies: Mapping[str, str],
    depth: int,
) -> Iterator[_DestructiveCommand]:
    """Yield the destructive command that these words are, if any.

    `typed` are the words in the file; those of `command` may be expanded.
    """
    words, program = command.words, command.program
    if depth > _DEEPEST:
        return
    call = read_api_call(command, "") if program in SENDERS else None
    if call is not None and call.deletes:
        yield from _read_request(typed, command)
    elif program is None:
        yield from _read_unknown(command, typed, values, bodies, depth)
    elif program in bodies and program not in ENGINES:
        for meant in _expand_body(bodies[program], words[1:]):
            for inner in read_argv(meant).commands:
                yield from _read_command(
                    inner._replace(via=inner.via | command.via), typed, values, {}, depth + 1
                )
    elif program in ENGINES:
        asked = [w for word in words[1:] for w in _replace_variable(word, values)]
        own = launch.find_own_verb if program == "safe-compose" else None
        found = read_invocation(asked, docker_name(program), own_verb=own)
        if found is None:
            found = _assume_flags(asked, docker_name(program)) if own is None else None
            doubt: str | None = _IF_VARIABLE
        else:
            doubt = found.doubt and f"unless its client rejects it ({found.doubt})"
        if found is None or found.kind in SOFT or (own is not None and not found.own.skip_backup):
            return  # it is already guarded through safe-compose
        yield _DestructiveCommand(
            typed, _spell_out(program, [w.text for w in asked]), found, command.via, doubt
        )


def _read_request(typed: tuple[Word, ...], command: SimpleCommand) -> Iterator[_DestructiveCommand]:
    """Yield a request to the engine's API, as the command that does the same."""
    asked = ("volume", "rm", "NAME")
    found = read_invocation([Word(word) for word in asked], "docker")
    if found is not None:
        yield _DestructiveCommand(typed, asked, found, command.via)


def _read_unknown(
    command: SimpleCommand,
    typed: tuple[Word, ...],
    values: Mapping[str, Sequence[str]],
    bodies: Mapping[str, str],
    depth: int,
) -> Iterator[_DestructiveCommand]:
    """Yield the destructive command of a program that is a variable, if any.

    The variable may be set in the same file; otherwise the command is read as docker's.
    """
    words = command.words
    variable = _VARIABLE.fullmatch(words[0].text)
    name = (variable[1] or variable[2]) if variable else ""
    given = [*values.get(name, ()), *([variable[3]] if variable and variable[3] else [])]
    for value in given:
        start = [Word(part, row=words[0].row) for part in _split(value)]
        for inner in read_argv([*start, *words[1:]]).commands if start else ():
            yield from _read_command(
                inner._replace(via=inner.via | command.via), typed, values, bodies, depth + 1
            )
    if given or name == "MAKE" or len(words) < 2:
        return
    asked = [w for word in words[1:] for w in _replace_variable(word, values)]
    groups = ("", "compose")
    readings = [(g, read_invocation([*([Word(g)] if g else []), *asked], "docker")) for g in groups]
    likely = [
        (group, found)
        for group, found in readings
        if found is not None
        and found.kind not in SOFT
        and not (found.kind in ANONYMOUS and not LIKE_DOCKER.search(name))
    ]
    # `rm -fsv` fits both readings; `-s` is known to one of them only
    for group, found in sorted(likely, key=lambda reading: reading[1].doubt is not None)[:1]:
        doubt = f"if {words[0].text} is `docker{' ' + group if group else ''}`"
        yield _DestructiveCommand(
            typed,
            (*([group] if group else []), *(w.text for w in asked)),
            found,
            command.via,
            doubt,
        )


def _expand_body(body: str, arguments: Sequence[Word]) -> Iterator[list[Word]]:
    """Yield the commands of an alias or a function that is called with these words."""
    if not body.lstrip().startswith(("{", "(")):
        yield [*(Word(part) for part in _split(body)), *arguments]
        return
    for command in read(body).commands:
        if any(w.text in ("$@", "$*", "$1", "${@}", "${*}", "${1}") for w in command.words):
            yield [
                a
                for w in command.words
                for a in (arguments if w.text.strip("${}") in ("@", "*", "1") else (w,))
            ]


def _replace_variable(word: Word, values: Mapping[str, Sequence[str]]) -> Sequence[Word]:
    """Return a word, or the words of the one value that its variable has in this file."""
    variable = _VARIABLE.fullmatch(word.text) if not word.sure else None
    given = values.get(variable[1] or variable[2], ()) if variable else ()
    return [Word(part, row=word.row) for part in _split(given[0])] if len(given) == 1 else (word,)


def _assume_flags(words: Sequence[Word], program: str) -> parser.Invocation | None:
    """Return the destructive command if a variable whose name suggests flags holds such a flag.

    For example `down $FLAGS`, `system prune $OPTS`.
    """
    if not any(not w.sure and LIKE_FLAGS.search(w.text) for w in words):
        return None
    guess = [Word("--volumes") if not w.sure and LIKE_FLAGS.search(w.text) else w for w in words]
    found = read_invocation(guess, program)
    return (
        found
        if found is not None and found.verb in (("compose", "down"), ("system", "prune"))
        else None
    )


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


# -- commands -> findings --------------------------------------------------------------------------


def _make_finding(
    path: str, line: int, destructive: _DestructiveCommand, snippet: Snippet, *, unattended: bool
) -> Finding:
    kind = destructive.invocation.kind
    quiet = (
        ()
        if not unattended or "--non-interactive" in destructive.asked
        else ("--non-interactive", "--backup-first")
    )
    asked = [w for w in destructive.asked if w != "--skip-backup"]
    place = (
        "on another machine"
        if "ssh" in destructive.via
        else "from inside a container"
        if "container" in destructive.via
        else None
    )
    if destructive.invocation.own.skip_backup:
        place = "without a backup" if place is None else f"{place}, without a backup"
    return Finding(
        path,
        line,
        kind,
        show_words(destructive.words),
        make_harmless(
            destructive.words, destructive.invocation, in_variable=destructive.doubt == _IF_VARIABLE
        ),
        join_words(["safe-compose", *quiet, *asked]),
        destructive.doubt,
        place,
        snippet.block,
    )


def is_allowed(lines: Sequence[str], line: int) -> bool:
    """Return whether a mark allows a command: on one of its lines, or alone on the line above.

    Lines that a backslash joins are one.
    """
    if (
        2 <= line <= len(lines) + 1
        and (above := lines[line - 2].strip())
        and MARK.match(above.lstrip('"'))
    ):
        return True
    at = line - 1
    while at < len(lines):
        if MARK.search(lines[at]):
            return True
        if not lines[at].rstrip("\r").endswith("\\"):
            return False
        at += 1
    return False


def _is_warning(
    around: SurroundingText, destructive: _DestructiveCommand, finding: Finding
) -> bool:
    """Return whether a block is a warning.

    It must speak of danger, and name a form that keeps the data or goes through safe-compose.
    """
    if not DANGER.search(around.prose):
        return False
    for code in around.codes:
        words = _split(code)
        if words[:1] == ["safe-compose"]:
            own = read_invocation(
                [Word(word) for word in words[1:]], "docker", own_verb=launch.find_own_verb
            )
            if words[1:2] == ["backup"] or (
                own and own.verb == destructive.invocation.verb and not own.own.skip_backup
            ):
                return True
        if code == finding.keeps:
            return True
        program = name_program(Word(words[0])) if words else None
        if program in ENGINES and program != "safe-compose":
            safe = parser.parse(words[1:], docker_name(program))
            if safe.kind == tables.NONE and safe.verb == destructive.invocation.verb and safe.verb:
                return True
    return False
