"""The definitions of a shell line for its later commands: variables, functions, aliases, files."""

import re
from collections.abc import Callable

from safe_compose.audit.programs import ENGINES
from safe_compose.audit.shell_line import FileWrite
from safe_compose.audit.shell_words import Word, name_program, unescape

_PARAMETERS = tuple(str(number) for number in range(1, 10))


class ShellState:
    """The definitions of one line, in the order in which they are read."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.assignments: list[tuple[str, Word]] = []
        self.values: dict[str, list[tuple[Word, ...]]] = {}
        """The values of variables, in the order in which they are set."""
        self.names: dict[str, str] = {}
        """Functions and aliases, with their text."""
        self.copies: dict[str, str] = {}
        """Other paths of an engine's client that the line makes."""
        self.targets: list[Word] = []
        self.texts: list[Word] = []
        self.writes: list[FileWrite] = []

    def set_variable(self, name: str, words: tuple[Word, ...], *, added: bool = False) -> None:
        """Add a value of a variable, or words to its last one."""
        values = self.values.setdefault(name, [])
        if added and values:
            values[-1] = (*values[-1], *words)
        elif words not in values:
            values.append(words)

    def set_parameters(self, words: tuple[Word, ...]) -> None:
        """Replace the positional parameters."""
        for number, name in enumerate(_PARAMETERS):
            self.values[name] = [(words[number],) if number < len(words) else (Word(""),)]
        self.values["@"] = self.values["*"] = [words]

    def take_parameters(self) -> dict[str, list[tuple[Word, ...]]]:
        """Remove the positional parameters, and return them."""
        return {
            name: self.values.pop(name) for name in (*_PARAMETERS, "@", "*") if name in self.values
        }

    def assign(self, word: Word) -> bool:
        """Take a word of the form NAME=value as an assignment; False when it is none."""
        name, equals, value = word.text.partition("=")
        if equals and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\+?", name):
            self.assignments.append((name.rstrip("+"), Word(value, word.sure, word.bare)))
            return True
        return False

    def define(
        self, name: str, words: tuple[Word, ...], stdin: Callable[[], tuple[Word, ...]]
    ) -> None:
        """Take what a command defines for those after it."""
        rest = words[1:]
        operands = [word for word in rest if not word.text.startswith("-")]
        if name == "alias":
            for word in operands:
                alias, equals, meaning = word.text.partition("=")
                if equals:
                    self.names[alias] = meaning
        elif name == "hash" and len(operands) == 2:
            self.names[operands[1].text] = operands[0].text
        elif name == "set" and rest[:1] and rest[0].text == "--":
            self.set_parameters(rest[1:])
        elif name == "shift" and self.values.get("@"):
            self.set_parameters(self.values["@"][0][1:])
        elif name in ("cp", "ln", "install", "mv") and len(operands) >= 2:
            engine = name_program(operands[-2])
            if engine in ENGINES and operands[-1].sure:
                self.copies[operands[-1].text] = engine
        else:
            self._write(name, words, stdin)

    def _write(
        self, name: str, words: tuple[Word, ...], stdin: Callable[[], tuple[Word, ...]]
    ) -> None:
        """Take the texts and files that a command writes, and the variables that it sets."""
        rest = words[1:]
        if name in ("env", "sudo", "doas"):
            for word in rest:
                self.assign(word)
        elif name in ("echo", "printf"):
            text = unescape(" ".join(word.text for word in rest))
            self.texts.append(Word(text, row=words[0].row))
        elif name == "tee":
            operands = [word for word in rest if not word.text.startswith("-")]
            self.writes += [FileWrite(word, stdin()) for word in operands]
            self.targets += operands
