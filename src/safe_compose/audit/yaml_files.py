"""Finder for YAML of every kind: workflows, pipelines, compose files, Taskfiles, playbooks; the shell in them with its lines."""

import re
from collections.abc import Iterator, Sequence

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from safe_compose.audit.pieces import Piece, Read, logical_lines, templates

_SHELL_KEYS = frozenset(
    {
        "run", "script", "scripts", "before_script", "after_script", "pre_get_sources_script", "command", "commands", "cmd",
        "cmds", "bash", "sh", "pwsh", "powershell", "shell", "inlinescript", "entrypoint", "args", "entry", "test", "exec",
        "setup", "cleanup", "pre_start", "post_start", "pre_stop", "post_stop", "initcommands", "postcreatecommand",
        "poststartcommand", "before", "after", "raw", "status", "deploy",
    }
)  # fmt: skip
"""Keys, without the collection's name that Ansible puts before them, below which shell stands."""
_ARGV_KEYS = ("entrypoint", "command", "args", "test", "exec", "entry")
"""Of these, a list is one command; the order in which several of one mapping make up one."""
_VARIABLES = frozenset({"env", "variables", "vars", "environment"})


def yaml(text: str) -> Read:
    """Every piece of shell. Where the file does not read as YAML, that is noted and its lines are read as text as well."""
    reader = _Reader(text)
    notes: tuple[tuple[int, str], ...] = ()
    try:
        for document in YAML(typ="safe", pure=True).compose_all(text):
            reader.document(document)
    except (YAMLError, RecursionError, ValueError) as fault:
        mark = fault.problem_mark if isinstance(fault, MarkedYAMLError) else None
        problem = str(fault.problem if isinstance(fault, MarkedYAMLError) else fault).partition("\n")[0]
        line = mark.line + 1 if mark is not None else 1
        notes = ((line, f"does not read as YAML ({problem}); its lines were read as plain text"),)
        reader.pieces += _plain(text)
    return Read(tuple(reader.pieces), reader.known, notes)


def _plain(text: str) -> Iterator[Piece]:
    for row, line in logical_lines(templates(text)):
        bare = re.sub(r"^\s*(?:-\s+)*(?:[\"']?[\w.-]+[\"']?:\s+)?", "", line)
        if bare and not bare.startswith("#"):
            yield Piece(bare.strip("\"'"), row + 1)


class _Reader:
    def __init__(self, text: str) -> None:
        self._rows = text.split("\n")
        self._seen: set[int] = set()
        self._compose = False
        self.pieces: list[Piece] = []
        self.known: dict[str, str] = {}

    def document(self, node: Node | None) -> None:
        if isinstance(node, MappingNode):
            self._compose = any(getattr(key, "value", None) == "services" for key, _ in node.value)
        if node is not None:
            self._walk(node, "")

    def _walk(self, node: Node, parent: str) -> None:
        if id(node) in self._seen:
            return  # an alias, or a loop of them
        self._seen.add(id(node))
        if isinstance(node, SequenceNode):
            for value in node.value:
                self._walk(value, parent)
        elif isinstance(node, MappingNode):
            self._mapping(node, parent)

    def _mapping(self, node: MappingNode, parent: str) -> None:
        lists: dict[str, Node] = {}
        image = ""
        for key, value in node.value:
            name = str(getattr(key, "value", "")).rpartition(".")[2].lower()
            if isinstance(value, ScalarNode) and parent in _VARIABLES and value.value:
                self.known[str(key.value)] = str(value.value)
            if isinstance(value, ScalarNode) and name == "image":
                image = str(value.value)
            if name in _SHELL_KEYS or parent == "tasks":
                self._take(value, name)
                if name in _ARGV_KEYS and isinstance(value, SequenceNode | ScalarNode):
                    lists[name] = value
            self._walk(value, name)
        self._together(lists, image)

    def _take(self, node: Node, name: str) -> None:
        if isinstance(node, ScalarNode):
            self.pieces.append(self._scalar(node))
        elif isinstance(node, SequenceNode):
            words = [value for value in node.value if isinstance(value, ScalarNode)]
            if name in _ARGV_KEYS and words and len(words) == len(node.value):
                self._argv(words)
            for value in node.value:
                if isinstance(value, SequenceNode) or name not in _ARGV_KEYS or re.search(r"\s", str(value.value)):
                    self._take(value, name)

    def _argv(self, words: Sequence[ScalarNode], *before: str) -> None:
        said = [self._text(str(word.value)) for word in words]
        if said[:1] in (["CMD"], ["CMD-SHELL"]):
            said, words = said[1:], words[1:]
        if said:
            lines = [word.start_mark.line + (2 if word.style in ("|", ">") else 1) for word in words]
            self.pieces.append(Piece(argv=(*before, *said), rows=(*(lines[0] for _ in before), *lines)))

    def _together(self, lists: dict[str, Node], image: str) -> None:
        """`entrypoint` and `command`, or `command` and `args`, of one container; an image of docker's client starts docker."""
        words: list[ScalarNode] = []
        for name in _ARGV_KEYS[:3]:
            node = lists.get(name)
            if isinstance(node, SequenceNode):
                words += [value for value in node.value if isinstance(value, ScalarNode)]
        client = image.partition("@")[0].rpartition("/")[2].partition(":")[0] == "docker" and "entrypoint" not in lists
        if words and (client or len(lists) > 1):
            self._argv(words, *(["docker"] if client else []))
        command = lists.get("command")
        if client and isinstance(command, ScalarNode):
            self.pieces.append(self._scalar(command)._replace(text="docker " + self._scalar(command).text))

    def _text(self, text: str) -> str:
        text = templates(text)
        return text.replace("$$", "$") if self._compose else text

    def _scalar(self, node: ScalarNode) -> Piece:
        """The text of a scalar. One that YAML folds gets the lines of the file, joined by backslashes as it joins them."""
        first, last = node.start_mark.line, node.end_mark.line
        if node.style == "|":
            return Piece(self._text(str(node.value)), first + 2)
        if node.style == ">":
            rows = [row.strip() for row in self._rows[first + 1 : last]]
            return Piece(self._text(_joined(rows)), first + 2)
        if node.style is None and last > first:
            rows = [
                self._rows[first][node.start_mark.column :],
                *self._rows[first + 1 : last],
                self._rows[last][: node.end_mark.column],
            ]
            return Piece(self._text(_joined([row.strip() for row in rows])), first + 1)
        return Piece(self._text(str(node.value)), rows=(first + 1,))


def _joined(rows: Sequence[str]) -> str:
    """Lines as YAML folds them: one line, until an empty one."""
    text = ""
    for row, following in zip(rows, [*rows[1:], ""], strict=True):
        text += row + (" \\\n" if row and following and not row.endswith("\\") else "\n")
    return text
