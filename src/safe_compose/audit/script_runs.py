"""The scripts that a shell line runs from files: `./x.sh`, `bash x.sh`, make, npm, rake, mise, ...

A file counts with what the line itself writes into it before; else with what it holds now. Files,
their size, and the time for all of them are limited: what lies beyond is not read.
"""

import os
import re
import shlex
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose.audit import file_kinds, file_targets, formats
from safe_compose.audit.destructive_words import may_hold_destructive
from safe_compose.audit.file_targets import Targets
from safe_compose.audit.shell_line import ShellLine, SimpleCommand
from safe_compose.audit.shell_words import Word, name_program

LARGEST = 128 << 10
"""Most bytes of a file that is read."""
MOST = 20
"""Most files of one line that are read."""
SECONDS = 0.25
"""Seconds in which they are read."""


class RunScript(NamedTuple):
    """A script that would run."""

    path: str
    """Its file, as the line names it, and the target in it."""
    text: str
    is_code: bool = False
    """Whether it is a script in another language than shell."""


class _Runner(NamedTuple):
    """The way in which a program finds the commands that it is asked for by name."""

    files: tuple[str, ...]
    read: Callable[[str], Targets]
    verbs: frozenset[str] = frozenset()
    """Words before the target's name; empty: the first operand is the target."""
    direct: frozenset[str] | None = frozenset()
    """Targets that need no verb; None: all."""
    values: frozenset[str] = frozenset()
    """Options whose value is the next word."""
    first: bool = True
    """Whether the first target runs where none is named and none is the default."""


_NPM = ("package.json",)
_PYPROJECT = ("pyproject.toml",)
_RUN = frozenset({"run", "run-script", "rum", "urn"})
_RUNNERS = {
    **dict.fromkeys(
        ("make", "gmake"),
        _Runner(
            ("GNUmakefile", "makefile", "Makefile"),
            file_targets.make_targets,
            direct=None,
            values=frozenset({"-f", "-C", "-j", "-o", "-W", "-I", "--file", "--directory"}),
        ),
    ),
    "just": _Runner(
        ("justfile", "Justfile", ".justfile"),
        file_targets.just_targets,
        direct=None,
        values=frozenset({"-f", "-d", "--justfile", "--working-directory", "--set"}),
    ),
    **dict.fromkeys(
        ("task", "go-task"),
        _Runner(
            ("Taskfile.yml", "Taskfile.yaml", "taskfile.yml", "taskfile.yaml", "Taskfile.dist.yml"),
            file_targets.task_targets,
            direct=None,
            values=frozenset({"-t", "-d", "--taskfile", "--dir"}),
        ),
    ),
    "npm": _Runner(
        _NPM,
        file_targets.package_targets,
        _RUN,
        frozenset({"test", "t", "start", "stop", "restart"}),
        frozenset({"--prefix", "-C", "-w", "--workspace"}),
    ),
    **dict.fromkeys(
        ("yarn", "pnpm", "bun"),
        _Runner(
            _NPM,
            file_targets.package_targets,
            _RUN,
            None,
            frozenset({"--cwd", "--dir", "-C", "--prefix", "--filter"}),
        ),
    ),
    "rake": _Runner(
        ("rakefile", "Rakefile", "rakefile.rb", "Rakefile.rb"),
        file_targets.rake_targets,
        direct=None,
        values=frozenset({"-f", "--rakefile"}),
        first=False,
    ),
    **dict.fromkeys(
        ("invoke", "inv", "fab"),
        _Runner(
            ("tasks.py", "fabfile.py", "tasks/__init__.py"),
            file_targets.python_targets,
            direct=None,
            values=frozenset({"-c", "--collection", "-r"}),
            first=False,
        ),
    ),
    "nox": _Runner(("noxfile.py",), file_targets.python_targets, direct=None, first=False),
    "poe": _Runner(
        _PYPROJECT,
        file_targets.toml_targets,
        direct=None,
        values=frozenset({"-C", "--directory"}),
        first=False,
    ),
    **dict.fromkeys(
        ("pdm", "hatch", "rye", "taskipy"),
        _Runner(_PYPROJECT, file_targets.toml_targets, frozenset({"run"})),
    ),
    "mise": _Runner(
        ("mise.toml", ".mise.toml", "mise.local.toml", ".config/mise.toml"),
        file_targets.toml_targets,
        frozenset({"run", "r"}),
        None,
        frozenset({"-C", "--cd"}),
    ),
    "pixi": _Runner(
        ("pixi.toml", "pyproject.toml"), file_targets.toml_targets, frozenset({"run", "r"})
    ),
    "cargo": _Runner(("Makefile.toml",), file_targets.toml_targets, frozenset({"make"})),
    "makers": _Runner(("Makefile.toml",), file_targets.toml_targets, direct=None, first=False),
    "deno": _Runner(("deno.json", "deno.jsonc"), file_targets.json_targets, frozenset({"task"})),
    "composer": _Runner(
        ("composer.json",), file_targets.package_targets, _RUN, None, frozenset({"-d"})
    ),
}
_STARTERS = frozenset({"bundle", "poetry", "uv", "uvx", "pipenv", "pdm", "hatch", "rye", "pipx"})
_STARTED = frozenset({"rake", "invoke", "inv", "fab", "poe", "nox", "taskipy"})
"""Runners that another program starts by their name, as `bundle exec rake` does."""
_MOST_BEFORE = 5
_RUNS_ANOTHER = re.compile(
    r"\b(?:make|just|task|npm|yarn|pnpm|bun|composer|rake|inv(?:oke)?|nox|poe|pdm|mise|deno)\b|MAKE|\.(?:sh|py)\b|\bsource\b|(?:^|\s)\.{0,2}/\w",
    re.MULTILINE,
)
_INCLUDE = re.compile(r"^[ ]*(?:-|s)?include[ \t]+([^#\n]+)", re.MULTILINE)
_DRY = re.compile(
    r"-n|-[a-z]*n[a-z]*|--dry-run|--just-print|--recon|-q|--question|-p|--list|-l|--summary|--show"
    r"|--help|-h|--version"
)
_FOLDER_FLAGS = frozenset(
    {"-C", "--directory", "--prefix", "--cwd", "--dir", "-d", "--working-directory"}
)
_FILE_FLAGS = frozenset({"-f", "--file", "--justfile", "-t", "--taskfile"})


class ScriptReader:
    """A reader of the scripts that one line runs, with its limits."""

    def __init__(self) -> None:
        """Start the clock."""
        self._until = time.monotonic() + SECONDS
        self._left = MOST
        self._written: dict[str, str] = {}

    def read(self, line: ShellLine, here: Path) -> Iterator[RunScript]:
        """Yield the scripts that a line runs; `here` is its folder."""
        folders = [here]
        for command in line.commands:
            if command.program in ("cd", "pushd") and len(command.words) == 2:
                folders.append(here / os.path.expanduser(command.words[1].text))  # noqa: PTH111
        for write in line.writes:
            if write.path.sure and write.content:
                content = "\n".join(word.text for word in write.content)
                for folder in folders:
                    at = _normalize(folder, write.path.text)
                    self._written[at] = self._written.get(at, "") + content + "\n"
        for command in line.commands:
            if command.via & {"container", "ssh"}:
                continue
            for folder in folders[-1:] if len(folders) > 1 else folders:
                yield from self._of_command(command, folder)
        for run in line.runs:
            if run.path.sure and not run.command.via & {"container", "ssh"}:
                arguments = _list_words_after(run.command.words, run.path)
                yield from self._file(folders[-1], run.path.text, arguments, is_code=run.is_code)
        yield from self._hooks(line, here)

    def _of_command(self, command: SimpleCommand, folder: Path) -> Iterator[RunScript]:
        """Yield the scripts of a command that is a file, or a runner of named commands."""
        if command.program in _STARTERS:
            words = command.words[1:_MOST_BEFORE]
            names = [name_program(word) for word in words]
            at = next((n for n, name in enumerate(names, 1) if name in _STARTED), 0)
            command = command._replace(words=command.words[at:])
        word = command.words[0]
        name = "make" if word.text in ("${MAKE}", "$(MAKE)", "$MAKE") else command.program
        runner = _RUNNERS.get(name or "")
        if runner is not None:
            yield from self._targets(name or "", runner, command, folder)
        elif word.sure and "/" in word.text:
            yield from self._file(folder, word.text, command.words[1:])

    def _file(
        self, folder: Path, path: str, arguments: Sequence[Word], *, is_code: bool = False
    ) -> Iterator[RunScript]:
        text = self._text(folder, path)
        if text is None:
            return
        kind = file_kinds.find_kind_by_shebang(text[:128].encode("utf-8", "replace"))
        ending = path.rpartition(".")[2]
        if (
            is_code
            or (kind and kind.name == "python")
            or ending in ("py", "js", "mjs", "rb", "pl")
            or (kind is None and text.startswith("#!"))
        ):
            yield RunScript(path, text, True)
        else:
            given = " ".join(shlex.quote(w.text) for w in arguments[:20] if w.sure)
            yield RunScript(path, f"set -- {given}\n{text}")

    def _targets(
        self, name: str, runner: _Runner, command: SimpleCommand, folder: Path
    ) -> Iterator[RunScript]:
        words = [word.text for word in command.words[1:]]
        options, operands, after = _split(words, runner.values)
        if any(_DRY.fullmatch(word) for word in options if "=" not in word):
            return
        for flag, value in options.items():
            if flag in _FOLDER_FLAGS and value:
                folder = folder / value
        named = [value for flag, value in options.items() if flag in _FILE_FLAGS]
        # the parser loses a `-` before a here-document
        if named[:1] in (["-"], ["/dev/stdin"], [""]) and command.stdin:
            found: tuple[str, str] | None = ("stdin", "\n".join(w.text for w in command.stdin))
        else:
            files = named or runner.files
            texts = ((file, self._text(folder, file)) for file in files)
            found = next(((file, text) for file, text in texts if text is not None), None)
        if found is None:
            return
        text = found[1]
        if name in ("make", "gmake"):
            text += self._read_included(folder, text)
            text += "".join(f"\n{w.replace('=', ' = ', 1)}" for w in operands if "=" in w) + "\n"
        targets = runner.read(text)
        wanted, given = _choose_targets(runner, operands, after, targets)
        if runner.verbs and runner.direct is None and wanted:
            given = [word for word in words[words.index(wanted[0]) + 1 :] if word != "--"]
        added = " ".join(shlex.quote(word) for word in given)
        for script in file_targets.find_scripts(targets, wanted):
            yield RunScript(f"{found[0]} ({' '.join(wanted)})", f"{script} {added}".rstrip())

    def _read_included(self, folder: Path, text: str) -> str:
        """Return the files that a Makefile includes by plain names, with those they include."""
        whole, waiting, seen = "", [text], set[str]()
        while waiting:
            for names in _INCLUDE.findall(waiting.pop(0)):
                for name in names.split():
                    inner = self._text(folder, name) if name not in seen else None
                    seen.add(name)
                    if inner is not None:
                        whole += f"\n{inner}\n"
                        waiting.append(inner)
        return whole

    def _hooks(self, line: ShellLine, here: Path) -> Iterator[RunScript]:
        """Yield the hooks of git that the line writes and a later command of it runs."""
        for command in line.commands:
            words = [word.text for word in command.words]
            if command.program == "git" and {"commit", "push", "checkout", "merge"} & set(words):
                for path, text in self._written.items():
                    if "/.git/hooks/" in path or "/.husky/" in path:
                        yield RunScript(os.path.relpath(path, here), text)
        for command in line.commands:
            if command.program == "crontab":
                for word in command.words[1:]:
                    for snippet in formats.crontab(self._text(here, word.text) or "").snippets:
                        yield RunScript(word.text, snippet.text)

    def _text(self, folder: Path, path: str) -> str | None:
        """Return what the line wrote into a file, else what it holds; None when it is not read."""
        at = _normalize(folder, path)
        if at in self._written:
            return self._written[at]
        if self._left <= 0 or time.monotonic() > self._until or "\0" in at:
            return None
        self._left -= 1
        try:
            descriptor = os.open(at, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
                data = file.read(LARGEST + 1) if regular else b"\0"
        except (OSError, ValueError):
            return None
        return None if len(data) > LARGEST or b"\0" in data else data.decode("utf-8", "replace")


def is_worth_reading(text: str) -> bool:
    """Return whether a script may delete a volume, or run another script that may."""
    return may_hold_destructive(text) or bool(_RUNS_ANOTHER.search(text))


def _normalize(folder: Path, path: str) -> str:
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))  # noqa: PTH111, PTH118


def _list_words_after(words: Sequence[Word], path: Word) -> Sequence[Word]:
    """Return the words after a script's path."""
    index = next((n for n, word in enumerate(words) if word.text == path.text), len(words))
    return words[index + 1 :]


def _split(
    words: Sequence[str], values: frozenset[str]
) -> tuple[dict[str, str], list[str], list[str]]:
    """Return (options with values, operands, the words after `--`)."""
    options: dict[str, str] = {}
    operands: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return options, operands, list(words[index + 1 :])
        if word in values and index + 1 < len(words):
            options[word] = words[index + 1]
            index += 1
        elif word.startswith("-") and len(word) > 1:
            name, _, value = word.partition("=")
            options[name] = value
        else:
            operands.append(word)
        index += 1
    return options, operands, []


def _choose_targets(
    runner: _Runner, operands: Sequence[str], after: Sequence[str], targets: Targets
) -> tuple[list[str], list[str]]:
    """Return (the targets that run, the words that are added to their scripts)."""
    # a task of rake takes its arguments in brackets
    names = [re.sub(r"\[.*", "", word) for word in operands if "=" not in word]
    if runner.verbs:
        has_verb = bool(names) and names[0] in runner.verbs
        names = names[1:] if has_verb else names
        if not names or not (has_verb or runner.direct is None or names[0] in runner.direct):
            return [], []
        # npm passes on what stands after `--` only, the others everything
        return [{"t": "test"}.get(names[0], names[0])], list(after)
    if names:
        return names, []
    first = next(iter(targets), "") if runner.first else ""
    default = "default" if "default" in targets else first
    return [default], []
