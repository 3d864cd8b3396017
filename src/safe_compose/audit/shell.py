"""The commands that a line of shell would run, as far as its text shows.

The parser (tree-sitter, in the extra `audit`) finds the plain commands. What these run in turn is
followed here, by the table of `child_commands`: `bash -c`, `eval`, `ssh`, here-documents and `echo`
piped into a shell, `xargs`, `sudo`, `env` and similar. Anything unreadable is reported
(`ShellLine.unreadable`), never left out: a caller that must not miss anything then relies on
`destructive_words.may_hold_destructive`.

Time and depth are limited for every text: `LONGEST`, `DEEPEST` and `NODES`.
"""

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from safe_compose.audit import shell_branches, shell_output, shell_values, shell_words
from safe_compose.audit.child_commands import ChildCommand, find_assumed, find_children
from safe_compose.audit.programs import ENGINES, RUN_VARIABLES
from safe_compose.audit.shell_line import (
    FileRun,
    FileWrite,
    ParserMissing,
    ShellLine,
    SimpleCommand,
)
from safe_compose.audit.shell_state import ShellState
from safe_compose.audit.shell_words import (
    ShellSource,
    Word,
    find_row,
    name_program,
    read_text,
    read_word,
)

if TYPE_CHECKING:
    import tree_sitter

LONGEST = 50_000
"""Most characters of a text that is parsed; a longer one is unreadable."""
DEEPEST = 8
"""Deepest nesting of shells."""
NODES = 40_000
"""Most parts of all texts of one line together."""
SPENT = "it is too long to be read to its end"
BROKEN = "not all of it reads as bash"
"""The parser guesses where the commands of such a text begin and end."""


_OWN_SHELL = frozenset({"subshell", "pipeline", "command_substitution", "process_substitution"})


def read(text: str, *, expand: bool = False) -> ShellLine:
    """Return every command in a line of bash; any text is accepted.

    Args:
        text: The line.
        expand: Replace variables by their values in the line, and read a function where it is
            called. Else the words stay as they are in the text, and each function is read where it
            is defined.

    Raises:
        ParserMissing: The parser is not installed.
    """
    reader = ShellReader(expands=expand)
    reader.read(text, frozenset(), 0)
    return reader.line()


def read_argv(argv: Sequence[str | Word], *, expand: bool = False) -> ShellLine:
    """Return every command that an argv would run.

    Raises:
        ParserMissing: The parser is not installed.
    """
    reader = ShellReader(expands=expand)
    if argv:
        reader.simple(
            tuple(Word(word, bare=False) if isinstance(word, str) else word for word in argv),
            frozenset(),
            0,
        )
    return reader.line()


class ShellReader:
    """A reader of one line, with all that it collects."""

    def __init__(self, *, expands: bool) -> None:
        """Start with nothing."""
        self._parser = _parser()
        self._left = NODES
        self._expands = expands
        self._commands: list[SimpleCommand] = []
        self.state = ShellState()
        self._codes: list[str] = []
        self._unreadable: list[str] = []
        self._hidden: list[str] = []
        self._runs: list[FileRun] = []
        self._calls: list[str] = []

    def line(self) -> ShellLine:
        """Return all that was read."""
        return ShellLine(
            tuple(self._commands),
            tuple(self.state.assignments),
            frozenset(self.state.names),
            tuple(self.state.names.items()),
            tuple(self.state.targets),
            tuple(word.text for word in self.state.texts),
            tuple(self._codes),
            tuple(dict.fromkeys(self._unreadable)),
            tuple(dict.fromkeys(self._hidden)),
            tuple(self.state.writes),
            tuple(self._runs),
        )

    def is_spent(self) -> bool:
        """Count one part of the line, and return whether there were too many."""
        self._left -= 1
        if self._left < 0:
            self._unreadable.append(SPENT)
        return self._left < 0

    # -- the tree ----------------------------------------------------------------------------------

    def parse(self, text: str) -> "tree_sitter.Node | None":
        """Return the tree of a text; None when it cannot be read."""
        self._left -= len(text) // 20
        if len(text) > LONGEST or "\0" in text or self.is_spent():
            return None
        # The grammar's scanner looks characters up in tables that end soon after ASCII, and crashes
        # the process (0.25.1: `{` and a private-use character). To a shell each of them is a letter
        # like any other.
        tree = self._parser.parse(re.sub(r"[^\x00-\x7f]", "_", text).encode("ascii"))
        return tree.root_node if tree is not None else None

    def read(
        self,
        text: str,
        via: frozenset[str],
        depth: int,
        row: int = 0,
        feeds: tuple[shell_output.Feed, ...] = (),
    ) -> None:
        """Read a text as bash; `row` is the line on which it begins."""
        if depth > DEEPEST or len(text) > LONGEST:
            self._unreadable.append("it is too deep or too long to be read to its end")
            return
        if "\0" in text:
            self._unreadable.append("it holds a NUL")
            return
        root = self.parse(text)
        if root is not None and root.has_error and self._expands:
            text = shell_words.cut_unclosed(text)
            root = self.parse(text)
        if root is None or root.has_error:
            self._unreadable.append(BROKEN)
        if root is None:
            return
        source = ShellSource(text, row)
        waiting: list[tuple[tree_sitter.Node, tuple[shell_output.Feed, ...]]] = [(root, feeds)]
        while waiting:
            node, given = waiting.pop()
            if self.is_spent():
                return
            if self._take(node, source, via, depth, given):
                children = shell_output.feed_children(node, source, given)
                skipped = self._list_skipped(node, source, depth)
                waiting.extend(reversed([one for one in children if one[0] not in skipped]))

    def _take(
        self,
        node: "tree_sitter.Node",
        source: ShellSource,
        via: frozenset[str],
        depth: int,
        feeds: tuple[shell_output.Feed, ...],
    ) -> bool:
        """Take one node, and return whether its children are to be read."""
        kind = node.type
        if kind == "command":
            self._command(node, source, via, depth, feeds)
        elif kind in ("declaration_command", "unset_command"):
            for child in node.children:
                if child.type in ("word", "string", "raw_string", "concatenation"):
                    self.state.assign(read_word(child, source))
        elif kind == "variable_assignment":
            self._variable(node, source, via, depth)
        elif kind == "function_definition":
            name = node.child_by_field_name("name")
            body = node.child_by_field_name("body")
            if name is not None:
                self.state.names[read_text(name, source)] = (
                    read_text(body, source) if body is not None else ""
                )
            return not self._expands
        elif kind in ("heredoc_body", "herestring_redirect"):
            self.state.texts.append(shell_output.here_text(node, source))
        elif kind == "redirected_statement" or kind == "file_redirect":
            self._redirect(node, source, depth, feeds)
        return True

    def _list_skipped(
        self, node: "tree_sitter.Node", source: ShellSource, depth: int
    ) -> "list[tree_sitter.Node]":
        """Return the children that surely do not run; take the values of a loop's variable."""
        if not self._expands:
            return []
        if node.type != "for_statement":
            return shell_branches.find_skipped(
                node, source, lambda word: self.expand(word, depth + 1)
            )
        name = node.child_by_field_name("variable")
        words = [
            one
            for child in node.children_by_field_name("value")
            for one in self.expand(read_word(child, source), depth)
        ]
        if name is not None and words and all(word.sure for word in words):
            self.state.values[read_text(name, source)] = [(word,) for word in words]
        given = node.children_by_field_name("value")
        return list(node.children) if given and not words else []

    def _redirect(
        self,
        node: "tree_sitter.Node",
        source: ShellSource,
        depth: int,
        feeds: tuple[shell_output.Feed, ...],
    ) -> None:
        if node.type == "file_redirect":
            target = node.child_by_field_name("destination")
            if target is not None and ">" in read_text(node, source).lstrip("0123456789&")[:2]:
                self.state.targets += self.expand(read_word(target, source), depth)
            return
        for child in node.children if self._expands else ():
            target = child.child_by_field_name("destination")
            if child.type == "file_redirect" and target is not None:
                written = read_text(child, source).lstrip("0123456789&").startswith(">")
                if written and target.type != "number":
                    content = shell_output.find_output(self, node, source, feeds, depth)
                    for path in self.expand(read_word(target, source), depth):
                        self.state.writes.append(FileWrite(path, content))

    def expand(self, word: Word, depth: int) -> tuple[Word, ...]:
        """Return the words that a shell makes of one word of the text."""
        if not self._expands or depth > DEEPEST:
            return (word,)
        return shell_values.expand(
            word,
            self.state.values,
            lambda script: shell_output.find_output_of_script(self, script, depth + 1),
        )

    def _variable(
        self, node: "tree_sitter.Node", source: ShellSource, via: frozenset[str], depth: int
    ) -> None:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None:
            return
        word = _read_value(value, source)
        variable = read_text(name, source)
        if "+=" in read_text(node, source)[: len(variable) + 2]:
            before = next((w for n, w in reversed(self.state.assignments) if n == variable), None)
            if before is not None and not self._expands:
                self.state.assignments = [a for a in self.state.assignments if a[0] != variable]
                blank = " " if value is not None and value.type == "array" else ""
                word = word._replace(text=before.text + blank + word.text)
        self.state.assignments.append((variable, word))
        if not self._expands:
            return
        if value is not None and value.type == "array":
            words = tuple(
                one
                for child in value.children
                if child.type not in ("(", ")")
                for one in self.expand(read_word(child, source), depth)
            )
        else:
            whole = word._replace(parts=tuple(p._replace(quoted=True) for p in word.parts))
            words = self.expand(whole._replace(bare=False), depth)
        added = "+=" in read_text(node, source)[: len(variable) + 2]
        self.state.set_variable(variable, words, added=added)
        if variable in RUN_VARIABLES and words:
            self._script(words[0], via | {"wrapper"}, depth)

    # -- commands ----------------------------------------------------------------------------------

    def _command(
        self,
        node: "tree_sitter.Node",
        source: ShellSource,
        via: frozenset[str],
        depth: int,
        feeds: tuple[shell_output.Feed, ...],
    ) -> None:
        words: list[Word] = []
        for child in node.children:
            if child.type == "variable_assignment":
                name = child.child_by_field_name("name")
                if name is not None and read_text(name, source) == "PATH":
                    via = via | {"path"}
            elif child.type == "command_name":
                words += [read_word(c, source) for c in child.children] or [
                    Word(read_text(child, source), row=find_row(child, source))
                ]
            elif not child.type.endswith("redirect") and child.type not in (
                "comment",
                "<",
                ">",
                "|",
                "&",
                "\\",
            ):
                words.append(read_word(child, source))
        if words and name_program(words[0]) == "cd" and _ends_before_engine(node, source, depth):
            via = via | {"subshell"}
        feeds = shell_output.own_feeds(node, source) or feeds
        expanded = tuple(one for word in words for one in self.expand(word, depth))
        if expanded:
            text = read_text(node, source) if depth == 0 else ""
            self.simple(expanded, via, depth, feeds=feeds, source=text)

    def simple(
        self,
        words: tuple[Word, ...],
        via: frozenset[str],
        depth: int,
        *,
        feeds: tuple[shell_output.Feed, ...] = (),
        source: str = "",
    ) -> None:
        """Read one command, and every command that it starts."""
        if self.is_spent():
            return
        if depth > DEEPEST:
            self._unreadable.append("it is too deep or too long to be read to its end")
            return
        if words[0].text in self.state.copies and words[0].sure:
            via = via | {"copy"}
        read: list[Word] | None = None

        def stdin() -> tuple[Word, ...]:
            nonlocal read
            if read is None:
                read = [w for f in feeds for w in shell_output.read_feed(self, f, depth + 1)]
            return tuple(read)

        known = stdin() if self._expands else ()
        command = SimpleCommand(words, via, source, known)
        self._commands.append(command)
        name = name_program(words[0])
        if name is None:
            for child in find_assumed(words[1:]):
                self._child(child, command, depth, feeds)
            return
        self.state.define(name, words, stdin)
        if (
            self._expands
            and words[0].text in self.state.names
            and self._call(command, depth, feeds)
        ):
            return
        if name in ("alias", "abbr") and not self._expands:
            for word in shell_values.alias_meanings(words[1:]):
                self._script(word, via, depth)
        for child in find_children(words, stdin):
            self._child(child, command, depth, feeds)

    def _call(
        self, command: SimpleCommand, depth: int, feeds: tuple[shell_output.Feed, ...]
    ) -> bool:
        """Read the body of a function or an alias that is called; False when it calls itself."""
        name = command.words[0].text
        if name in self._calls:
            return False
        body = self.state.names[name]
        self._calls.append(name)
        try:
            rest = command.words[1:]
            if body.lstrip().startswith(("{", "(")):
                self._script(Word(body), command.via, depth, rest, feeds)
            else:
                text = " ".join([body, *(f'"${n}"' for n in range(1, len(rest) + 1))])
                self._script(Word(text), command.via, depth, rest, feeds)
        finally:
            self._calls.pop()
        return True

    def _child(
        self,
        child: ChildCommand,
        parent: SimpleCommand,
        depth: int,
        feeds: tuple[shell_output.Feed, ...],
    ) -> None:
        via = parent.via | child.via
        stdin = parent.stdin
        if child.words:
            words = child.words
            if child.appends:
                words = (*words, *(shell_values.split_lines(stdin) or (Word("{}", sure=False),)))
            self.simple(words, via, depth + 1, feeds=feeds)
        if child.script is not None:
            script = child.script
            if child.appends and "{}" not in script.text:
                script = script._replace(text=script.text + ' "$_"')
            self._script(script, via, depth, child.arguments, feeds)
        if child.code is not None:
            self._codes.append(child.code.text)
        if child.file is not None:
            if child.file.parts and child.file.parts[0].script and "code" not in via:
                self._stdin_script(
                    shell_output.find_output_of_script(self, child.file.parts[0].script, depth + 1)
                    if self._expands
                    else (),
                    via,
                    depth,
                )
            else:
                self._runs.append(FileRun(parent, child.file, "code" in child.via))
        if child.stdin and feeds:
            given = [w for f in feeds for w in shell_output.read_feed(self, f, depth + 1)]
            if "code" in child.via:
                self._codes += [word.text for word in given]
            else:
                self._stdin_script(tuple(given), via, depth)

    def _stdin_script(self, given: tuple[Word, ...], via: frozenset[str], depth: int) -> None:
        if not given:
            self._unreadable.append("a shell reads its script from somewhere else")
        for word in given:
            if word.origin == "file":
                self._runs.append(FileRun(self._commands[-1], word._replace(origin="")))
            else:
                self._script(word, via, depth)

    def _script(
        self,
        word: Word,
        via: frozenset[str],
        depth: int,
        arguments: Sequence[Word] | None = None,
        feeds: tuple[shell_output.Feed, ...] = (),
    ) -> None:
        """Read a word as a script, with its positional parameters."""
        if word.origin == "decoded":
            self._hidden.append("a script in it is decoded while it runs")
            return
        if word.origin == "downloaded":
            return  # the agent's own rules decide about programs from elsewhere
        if not word.sure:
            self._unreadable.append("a script is put together while it runs")
        if arguments is None or not self._expands:
            self.read(word.text, via, depth + 1, word.row, feeds)
            return
        before = self.state.take_parameters()
        self.state.set_parameters(tuple(arguments))
        self.read(word.text, via, depth + 1, word.row, feeds)
        self.state.take_parameters()
        self.state.values.update(before)


def _read_value(value: "tree_sitter.Node | None", source: ShellSource) -> Word:
    """Return the value of an assignment; the words of an array are one text."""
    if value is None:
        return Word("")
    if value.type != "array":
        return read_word(value, source)
    words = [read_word(child, source) for child in value.children if child.is_named]
    text = " ".join(shlex.quote(word.text) if word.sure else word.text for word in words)
    return Word(text, all(word.sure for word in words), False, find_row(value, source))


def _parser() -> "tree_sitter.Parser":
    try:
        import tree_sitter
        import tree_sitter_bash
    except ImportError as error:
        raise ParserMissing from error
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def _ends_before_engine(node: "tree_sitter.Node", source: ShellSource, depth: int) -> bool:
    """Return whether a command runs in a subshell in which no engine is named after it."""
    around = node.parent
    while around is not None:
        own = around.type in _OWN_SHELL or (depth > 0 and around.parent is None)
        if own and not any(
            engine in source.text[node.end_byte : around.end_byte] for engine in ENGINES
        ):
            return True
        around = around.parent
    return False
