"""Pure: which pieces of shell may cost a volume, and what to write instead."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from safe_compose import grammar, shim
from safe_compose.artifacts import hide_secrets, redact
from safe_compose.audit.pieces import WORD, Beside, Piece, Read, assigned, logical_lines
from safe_compose.doors import DOES, SOFT, docker_name, kind_of
from safe_compose.shell_line import ENGINES, Line, Simple, Word, program_of, read, read_argv, words_of_a_door

MARK = re.compile(r"(?:#|//|<!--|;|--|/\*|::|\{#).*\bsafe-compose:\s*allow\b(?!-)")
"""In a comment on the line of a command, or alone on the line above it: it stays as it is."""
WHOLE_FILE = re.compile(r"(?:#|//|<!--|;|--|/\*|::|\{#).*\bsafe-compose:\s*allow-file\b")
DANGER = re.compile(
    r"warning|danger|caution|careful|beware|irrevers|for good|\blos[est]+\b|\bdelet|\bdestroy|\berase|\bwipe|\bremov|\bnever\b"
    r"|\bdies?\b|do not|don't|⚠|внимани|осторожн|опасн|удал|уничтож",
    re.IGNORECASE,
)
"""What a block must say, beside the safe form, to be a warning and no advice."""
_ANONYMOUS = frozenset({"compose_rm_anon", "container_rm_anon", "compose_recreate_changed_volume"})
_FLAGS = {
    "compose_down_volumes": ("v", ("--volumes", "--volume", "--vol")),
    "compose_rm_anon": ("v", ("--volumes",)),
    "container_rm_anon": ("v", ("--volumes",)),
    "system_prune_volumes": ("", ("--volumes",)),
    "compose_recreate_changed_volume": ("y", ("--yes", "--y")),
}
"""What opens the door: the letter, the long names."""
_LIKE_DOCKER = re.compile(r"docker|compose|podman|nerdctl|^dc|(^|_)dc?$", re.IGNORECASE)
_LIKE_FLAGS = re.compile(r"arg|opt|flag|vol|extra|param", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:\[[^]]*\])?(?::?[-=](.*))?\})", re.DOTALL)
_DEEPEST = 4
_LONGEST_WORD = 500
_MOST_WORDS = 200
"""Of a command, for people; what comes after it is not shown."""
_SAYS_SO = "if the variable in it says so"


class Finding(NamedTuple):
    """One command in a file that deletes volumes, or may."""

    path: str
    line: int
    kind: str
    """As in `--explain` (design, section 3)."""
    command: str
    """For people: what stands there, without secrets."""
    keeps: str | None
    """The same command without what deletes."""
    guarded: str
    """The same command through safe-compose."""
    doubt: str | None = None
    """Under which condition it is one; None when its words say so."""
    place: str | None = None
    """Where it runs, when that is not here: `on another machine`, `in a container`."""
    block: tuple[int, int] | None = None
    """Of a document: first and last line of the block that it is in."""

    @property
    def does(self) -> str:
        return DOES.get(self.kind, "may delete volumes")

    @property
    def level(self) -> str:
        """`error`, or `warning` for a doubt and for what only anonymous or changed volumes lose."""
        return "warning" if self.doubt or self.kind in _ANONYMOUS else "error"

    @property
    def sentence(self) -> str:
        where = f" {self.place}" if self.place else ""
        return f"{self.does}{where}{f', {self.doubt}' if self.doubt else ''}"


class _Door(NamedTuple):
    words: tuple[Word, ...]
    """As they stand in the file."""
    asked: tuple[str, ...]
    """The words after `docker`, variables replaced as far as they are known."""
    invocation: grammar.Invocation
    via: frozenset[str]
    doubt: str | None = None


def findings(path: str, text: str, found: Read, *, unattended: bool = False) -> list[Finding]:
    """Everything in one file's pieces that may delete a volume, in the order of lines, without what is marked as allowed.

    `unattended`: nobody can type a confirmation where it runs. Raises `shell_line.Missing` without the parser.
    """
    if WHOLE_FILE.search(text):
        return []
    known = {**assigned(text), **found.known}
    lines = text.split("\n")
    seen: dict[tuple[int, str, str], Finding] = {}
    for piece in found.pieces:
        if not words_of_a_door(piece.text or " ".join(piece.argv)):
            continue
        for row, door in _doors_of(piece, known):
            line = piece.at(row)
            one = _finding(path, line, door, piece, unattended=unattended)
            if not _allowed(lines, line) and not any(_warns(beside, door, one) for beside in piece.beside):
                seen.setdefault((one.line, one.kind, one.command), one)
    return sorted(seen.values(), key=lambda f: f.line)


def _doors_of(piece: Piece, known: Mapping[str, str]) -> Iterator[tuple[int, _Door]]:
    """(row, door). What does not read as a whole is read line by line as well."""
    words = [Word(word, bare=False, row=number * WORD) for number, word in enumerate(piece.argv)]
    line = read_argv(words) if words else read(piece.text)
    for door in _doors(line, known):
        yield door.words[0].row, door
    if not line.unreadable or piece.argv:
        return
    for row, part in logical_lines(piece.text):
        if part.lstrip().startswith("#") or not words_of_a_door(part):
            continue
        alone = read(part)
        doors = list(_doors(alone, known))
        if alone.unreadable and not doors:
            doors = list(_by_eye(part))
        for door in doors:
            yield row + door.words[0].row, door


def _by_eye(part: str) -> Iterator[_Door]:
    """Of a line that is no shell: whatever stands after the name of an engine's client."""
    words = [Word(word) for word in re.findall(r"[^\s'\"`;|&()<>,]+", part)]
    for at, word in enumerate(words):
        program = program_of(word)
        if program in ENGINES and program != "safe-compose":
            found = kind_of(words[at + 1 :], docker_name(program))
            if found is not None and found.kind not in SOFT:
                asked = tuple(w.text for w in words[at + 1 :])
                doubt = "if this line, which does not read as shell, is run"
                yield _Door(tuple(words[at:]), _whole(program, asked), found, frozenset(), doubt)
                return


def _whole(program: str, asked: Sequence[str]) -> tuple[str, ...]:
    return ("compose", *asked) if docker_name(program) == "docker-compose" else tuple(asked)


# -- words -> doors ----------------------------------------------------------------------------------------------------


def _doors(line: Line, known: Mapping[str, str]) -> Iterator[_Door]:
    values: dict[str, list[str]] = {name: [value] for name, value in known.items()}
    for name, word in line.assignments:
        if word.sure and word.text and word.text not in values.setdefault(name, []):
            values[name].append(word.text)
    bodies = dict(line.bodies)
    for command in line.commands:
        yield from _of_command(command, command.words, values, bodies, 0)


def _of_command(
    command: Simple, typed: tuple[Word, ...], values: Mapping[str, Sequence[str]], bodies: Mapping[str, str], depth: int
) -> Iterator[_Door]:
    """The door that one command is. `typed`: its words as they stand in the file; those of `command` may be replaced."""
    words, program = command.words, command.program
    if depth > _DEEPEST:
        return
    if program is None:
        yield from _of_unknown(command, typed, values, bodies, depth)
    elif program in bodies and program not in ENGINES:
        for meant in _meant(bodies[program], words[1:]):
            for inner in read_argv(meant).commands:
                yield from _of_command(inner._replace(via=inner.via | command.via), typed, values, {}, depth + 1)
    elif program in ENGINES:
        asked = [w for word in words[1:] for w in _replaced(word, values)]
        own = shim.own_verb if program == "safe-compose" else None
        found = kind_of(asked, docker_name(program), own_verb=own)
        if found is None:
            found = _with_flags(asked, docker_name(program)) if own is None else None
            doubt: str | None = _SAYS_SO
        else:
            doubt = found.doubt and f"unless its client rejects it ({found.doubt})"
        if found is None or found.kind in SOFT or (own is not None and not found.own.skip_backup):
            return  # through safe-compose it is guarded already
        yield _Door(typed, _whole(program, [w.text for w in asked]), found, command.via, doubt)


def _of_unknown(
    command: Simple, typed: tuple[Word, ...], values: Mapping[str, Sequence[str]], bodies: Mapping[str, str], depth: int
) -> Iterator[_Door]:
    """A command whose program is a variable: what it is set to in the same file, else what it would be as docker."""
    words = command.words
    variable = _VARIABLE.fullmatch(words[0].text)
    name = (variable[1] or variable[2]) if variable else ""
    given = [*values.get(name, ()), *([variable[3]] if variable and variable[3] else [])]
    for value in given:
        start = [Word(part, row=words[0].row) for part in _split(value)]
        for inner in read_argv([*start, *words[1:]]).commands if start else ():
            yield from _of_command(inner._replace(via=inner.via | command.via), typed, values, bodies, depth + 1)
    if given or name == "MAKE" or len(words) < 2:
        return
    asked = [w for word in words[1:] for w in _replaced(word, values)]
    groups = ("", "compose")
    readings = [(g, kind_of([*([Word(g)] if g else []), *asked], "docker")) for g in groups]
    likely = [
        (group, found)
        for group, found in readings
        if found is not None and found.kind not in SOFT and not (found.kind in _ANONYMOUS and not _LIKE_DOCKER.search(name))
    ]
    # `rm -fsv` reads as both; `-s` is known to one of them only
    for group, found in sorted(likely, key=lambda reading: reading[1].doubt is not None)[:1]:
        doubt = f"if {words[0].text} is `docker{' ' + group if group else ''}`"
        yield _Door(typed, (*([group] if group else []), *(w.text for w in asked)), found, command.via, doubt)


def _meant(body: str, arguments: Sequence[Word]) -> Iterator[list[Word]]:
    """The commands of an alias or a function that is handed these words."""
    if not body.lstrip().startswith(("{", "(")):
        yield [*(Word(part) for part in _split(body)), *arguments]
        return
    for command in read(body).commands:
        if any(w.text in ("$@", "$*", "$1", "${@}", "${*}", "${1}") for w in command.words):
            yield [a for w in command.words for a in (arguments if w.text.strip("${}") in ("@", "*", "1") else (w,))]


def _replaced(word: Word, values: Mapping[str, Sequence[str]]) -> Sequence[Word]:
    """A word, or the words of the one value that its variable has in this file."""
    variable = _VARIABLE.fullmatch(word.text) if not word.sure else None
    given = values.get(variable[1] or variable[2], ()) if variable else ()
    return [Word(part, row=word.row) for part in _split(given[0])] if len(given) == 1 else (word,)


def _with_flags(words: Sequence[Word], program: str) -> grammar.Invocation | None:
    """`down $FLAGS`, `system prune $OPTS`: a door if the variable, by its name one for flags, holds the right one."""
    if not any(not w.sure and _LIKE_FLAGS.search(w.text) for w in words):
        return None
    guess = [Word("--volumes") if not w.sure and _LIKE_FLAGS.search(w.text) else w for w in words]
    found = kind_of(guess, program)
    return found if found is not None and found.verb in (("compose", "down"), ("system", "prune")) else None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


# -- doors -> findings -------------------------------------------------------------------------------------------------


def _finding(path: str, line: int, door: _Door, piece: Piece, *, unattended: bool) -> Finding:
    kind = door.invocation.kind
    quiet = () if not unattended or "--non-interactive" in door.asked else ("--non-interactive", "--backup-first")
    asked = [w for w in door.asked if w != "--skip-backup"]
    place = "on another machine" if "ssh" in door.via else "from inside a container" if "container" in door.via else None
    if door.invocation.own.skip_backup:
        place = "without a backup" if place is None else f"{place}, without a backup"
    return Finding(
        path,
        line,
        kind,
        _shown(door.words),
        _keeping(door.words, door.invocation, in_variable=door.doubt == _SAYS_SO),
        _joined(["safe-compose", *quiet, *asked]),
        door.doubt,
        place,
        piece.block,
    )


def _shown(words: Sequence[Word]) -> str:
    return _safe([shlex.quote(_cut(w.text)) if w.sure else _cut(w.text) for w in words])


def _joined(words: Sequence[str]) -> str:
    return _safe([w if "$" in w or "{" in w else shlex.quote(w) for w in map(_cut, words)])


def _safe(words: Sequence[str]) -> str:
    """Without secrets, and of a length that a person reads."""
    return hide_secrets(" ".join(redact(words[:_MOST_WORDS]))) + (" ..." if len(words) > _MOST_WORDS else "")


def _cut(word: str) -> str:
    return word if len(word) <= _LONGEST_WORD else word[:_LONGEST_WORD] + "..."


def _keeping(words: Sequence[Word], invocation: grammar.Invocation, *, in_variable: bool) -> str | None:
    """The command as it was typed, without what opens the door; None where there is no such form."""
    opener = _FLAGS.get(invocation.kind)
    if opener is None or invocation.own.skip_backup:
        return None
    letter, longs = opener
    kept: list[Word] = []
    for word in words:
        if (word.text.partition("=")[0] in longs and word.sure) or (
            in_variable and _LIKE_FLAGS.search(word.text) and not word.sure
        ):
            continue
        bundle = re.match(r"-([A-Za-z]+)", word.text) if word.sure else None
        if bundle and letter and letter in bundle[1]:
            text = "-" + bundle[1].replace(letter, "", 1) + word.text[bundle.end() :]
            if text == "-":
                continue
            word = word._replace(text=text)
        kept.append(word)
    program = program_of(words[0])
    group = [] if program is not None else ["compose"] if "compose" not in [w.text for w in kept] else []
    asked = [*group, *(w.text if w.sure else "x" for w in kept[1:])]
    after = grammar.parse(asked, docker_name(program or "docker"))
    dialect = invocation.program == "docker-compose"
    same = after.operands == invocation.operands or dialect or any(not w.sure for w in kept)
    if after.kind not in (*SOFT, grammar.NONE) or after.verb != invocation.verb or not same or after.doubt:
        return None
    return _shown(kept)


def _allowed(lines: Sequence[str], line: int) -> bool:
    """Whether a mark stands on a line of the command (lines that a backslash joins are one), or alone on the line above."""
    if 2 <= line <= len(lines) + 1 and (above := lines[line - 2].strip()) and MARK.match(above.lstrip('"')):
        return True
    at = line - 1
    while at < len(lines):
        if MARK.search(lines[at]):
            return True
        if not lines[at].rstrip("\r").endswith("\\"):
            return False
        at += 1
    return False


def _warns(beside: Beside, door: _Door, finding: Finding) -> bool:
    """Whether a block is a warning: it speaks of danger, and names a form that keeps the data or goes through safe-compose."""
    if not DANGER.search(beside.prose):
        return False
    for code in beside.codes:
        words = _split(code)
        if words[:1] == ["safe-compose"]:
            own = kind_of([Word(word) for word in words[1:]], "docker", own_verb=shim.own_verb)
            if words[1:2] == ["backup"] or (own and own.verb == door.invocation.verb and not own.own.skip_backup):
                return True
        if code == finding.keeps:
            return True
        program = program_of(Word(words[0])) if words else None
        if program in ENGINES and program != "safe-compose":
            safe = grammar.parse(words[1:], docker_name(program))
            if safe.kind == grammar.NONE and safe.verb == door.invocation.verb and safe.verb:
                return True
    return False
