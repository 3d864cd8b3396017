"""The values that `shell` returns: a line of shell, its commands, and the files that it uses.

This module is pure.
"""

from typing import NamedTuple

from safe_compose.audit.shell_words import Word, name_program


class ParserMissing(Exception):
    """An error about the missing extra with the parser."""


class SimpleCommand(NamedTuple):
    """A command that would run, or may."""

    words: tuple[Word, ...]
    """At least one word."""
    via: frozenset[str] = frozenset()
    """The wrappers between the line and the command: `sudo`, `path` (another PATH), `ssh`,
    `container`, `wrapper` (any other), `assumed` (a program that may not run its words at all);
    `copy` for docker under another name; `subshell` for a `cd` whose shell ends before any
    docker."""
    source: str = ""
    """Its text, where it stands in the line itself."""
    stdin: tuple[Word, ...] = ()
    """What it reads, as far as it is known."""

    @property
    def program(self) -> str | None:
        """Return the name of the program without its folder; None when it is unknown."""
        return "docker" if "copy" in self.via else name_program(self.words[0])


class FileWrite(NamedTuple):
    """A file that the line writes."""

    path: Word
    content: tuple[Word, ...]
    """What is written; empty when that is not known."""


class FileRun(NamedTuple):
    """A file that the line runs as a script."""

    command: SimpleCommand
    path: Word
    is_code: bool = False
    """Whether it is a script in another language than shell."""


class ShellLine(NamedTuple):
    """The commands that a line of shell may run, and other facts about it."""

    commands: tuple[SimpleCommand, ...] = ()
    assignments: tuple[tuple[str, Word], ...] = ()
    """Variables that are set, for one command or for all that follow."""
    names: frozenset[str] = frozenset()
    """Functions and aliases that are defined here: as a command each may be anything."""
    bodies: tuple[tuple[str, str], ...] = ()
    """Their definitions: (name, shell)."""
    targets: tuple[Word, ...] = ()
    """Files that output is redirected to."""
    texts: tuple[str, ...] = ()
    """The texts of `echo`, `printf` and here-documents."""
    codes: tuple[str, ...] = ()
    """Code for interpreters other than shells."""
    unreadable: tuple[str, ...] = ()
    """Why something that runs is not among `commands`."""
    hidden: tuple[str, ...] = ()
    """The same, where the text was made unreadable on purpose: encoded, or compressed."""
    writes: tuple[FileWrite, ...] = ()
    runs: tuple[FileRun, ...] = ()
