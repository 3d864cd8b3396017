"""The finder for YAML, which returns the shell in it.

It reads workflows, pipelines, compose files, Taskfiles and playbooks.
"""

import re
from collections.abc import Iterator, Sequence

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from safe_compose.audit.snippets import FileSnippets, Snippet, logical_lines, replace_templates

LARGEST = 256 << 10
"""Most characters that are parsed: the parser needs seconds for them."""
_SHELL_KEYS = frozenset(
    {
        "run", "script", "scripts", "before_script", "after_script", "pre_get_sources_script",
        "command", "commands", "cmd", "cmds", "bash", "sh", "pwsh", "powershell", "shell",
        "inlinescript", "entrypoint", "args", "entry", "test", "exec", "setup", "cleanup",
        "pre_start", "post_start", "pre_stop", "post_stop", "initcommands", "postcreatecommand",
        "poststartcommand", "before", "after", "raw", "status", "deploy", "defer",
    }
)  # fmt: skip
"""Keys that hold shell, without the collection's name that Ansible puts before them."""
_ARGV_KEYS = ("entrypoint", "command", "args", "test", "exec", "entry")
"""Keys whose list is one command, in the order in which several of one mapping form one."""
_VARIABLES = frozenset({"env", "variables", "vars", "environment"})


def yaml(text: str) -> FileSnippets:
    """Return every snippet of shell.

    A file that is no valid YAML is noted, and its lines are also read as text; those of a file
    that is larger than LARGEST are only read so.
    """
    reader = _YamlReader(text)
    notes: tuple[tuple[int, str], ...] = ()
    if len(text) > LARGEST:
        size = f"is larger than {LARGEST >> 10} KiB"
        notes = ((1, f"{size}, so that its lines were read as plain text and not as YAML"),)
        return FileSnippets(tuple(_read_lines(text)), {}, notes)
    try:
        for document in YAML(typ="safe", pure=True).compose_all(text):
            reader.document(document)
    except (YAMLError, RecursionError, ValueError) as fault:
        mark = fault.problem_mark if isinstance(fault, MarkedYAMLError) else None
        problem = str(fault.problem if isinstance(fault, MarkedYAMLError) else fault).partition(
            "\n"
        )[0]
        line = mark.line + 1 if mark is not None else 1
        notes = ((line, f"does not read as YAML ({problem}); its lines were read as plain text"),)
        reader.snippets += _read_lines(text)
    return FileSnippets(tuple(reader.snippets), reader.known, notes)


def _read_lines(text: str) -> Iterator[Snippet]:
    for row, line in logical_lines(replace_templates(text)):
        bare = re.sub(r"^\s*(?:-\s+)*(?:[\"']?[\w.-]+[\"']?:\s+)?", "", line)
        if bare and not bare.startswith("#"):
            yield Snippet(bare.strip("\"'"), row + 1)


class _YamlReader:
    def __init__(self, text: str) -> None:
        self._rows = text.split("\n")
        self._seen: set[int] = set()
        self._compose = False
        self.snippets: list[Snippet] = []
        self.known: dict[str, str] = {}

    def document(self, node: Node | None) -> None:
        """Read one document."""
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
        self._read_together(lists, image)
        self.snippets += _of_module(node)

    def _take(self, node: Node, name: str) -> None:
        if isinstance(node, ScalarNode):
            self.snippets.append(self._scalar(node))
        elif isinstance(node, SequenceNode):
            words = [value for value in node.value if isinstance(value, ScalarNode)]
            if name in _ARGV_KEYS and words and len(words) == len(node.value):
                self._argv(words)
            for value in node.value:
                if (
                    isinstance(value, SequenceNode)
                    or name not in _ARGV_KEYS
                    or re.search(r"\s", str(value.value))
                ):
                    self._take(value, name)

    def _argv(self, words: Sequence[ScalarNode], *before: str) -> None:
        texts = [self._text(str(word.value)) for word in words]
        if texts[:1] in (["CMD"], ["CMD-SHELL"]):
            texts, words = texts[1:], words[1:]
        if texts:
            lines = [
                word.start_mark.line + (2 if word.style in ("|", ">") else 1) for word in words
            ]
            self.snippets.append(
                Snippet(argv=(*before, *texts), rows=(*(lines[0] for _ in before), *lines))
            )

    def _read_together(self, lists: dict[str, Node], image: str) -> None:
        """Read the command that several keys of one container form.

        These are `entrypoint` and `command`, or `command` and `args`; an image of docker's client
        starts docker.
        """
        words: list[ScalarNode] = []
        for name in _ARGV_KEYS[:3]:
            node = lists.get(name)
            if isinstance(node, SequenceNode):
                words += [value for value in node.value if isinstance(value, ScalarNode)]
        client = (
            image.partition("@")[0].rpartition("/")[2].partition(":")[0] == "docker"
            and "entrypoint" not in lists
        )
        if words and (client or len(lists) > 1):
            self._argv(words, *(["docker"] if client else []))
        command = lists.get("command")
        if client and isinstance(command, ScalarNode):
            self.snippets.append(
                self._scalar(command)._replace(text="docker " + self._scalar(command).text)
            )

    def _text(self, text: str) -> str:
        text = replace_templates(text)
        return text.replace("$$", "$") if self._compose else text

    def _scalar(self, node: ScalarNode) -> Snippet:
        """Return the text of a scalar.

        A folded one keeps the lines of the file, joined by backslashes as YAML joins them.
        """
        first, last = node.start_mark.line, node.end_mark.line
        if node.style == "|":
            return Snippet(self._text(str(node.value)), first + 2)
        if node.style == ">":
            rows = [row.strip() for row in self._rows[first + 1 : last]]
            return Snippet(self._text(_fold(rows)), first + 2)
        if node.style is None and last > first:
            rows = [
                self._rows[first][node.start_mark.column :],
                *self._rows[first + 1 : last],
                self._rows[last][: node.end_mark.column],
            ]
            return Snippet(self._text(_fold([row.strip() for row in rows])), first + 1)
        return Snippet(self._text(str(node.value)), rows=(first + 1,))


def _of_module(node: MappingNode) -> Iterator[Snippet]:
    """Yield the commands that a step's action or an Ansible module amounts to."""
    fields = {str(getattr(key, "value", "")): value for key, value in node.value}
    with_ = _scalars(fields.get("with"))
    uses = str(getattr(fields.get("uses"), "value", ""))
    if "compose" in uses and (flags := with_.get("down-flags")):
        words = ("docker", "compose", "down", *flags[0].split())
        yield Snippet(argv=words, line=flags[1])
    for name, value in fields.items():
        module, given = name.rpartition(".")[2], _scalars(value)
        state = given.get("state", ("", 0))[0]
        line = value.start_mark.line
        if module in ("docker_compose_v2", "docker_compose") and state == "absent":
            if (flag := given.get("remove_volumes")) and flag[0].lower() in _YES:
                yield Snippet(argv=("docker", "compose", "down", "-v"), line=flag[1])
        elif module == "docker_volume" and state == "absent":
            yield Snippet(argv=("docker", "volume", "rm", "x"), line=line)
        elif module == "docker_prune" and given.get("volumes", ("", 0))[0].lower() in _YES:
            yield Snippet(argv=("docker", "volume", "prune"), line=line)


_YES = frozenset({"true", "yes", "on", "1"})


def _scalars(node: Node | None) -> dict[str, tuple[str, int]]:
    """Return the plain values of a mapping, each with its line."""
    return {
        str(getattr(key, "value", "")): (str(value.value), value.start_mark.line + 1)
        for key, value in (node.value if isinstance(node, MappingNode) else ())
        if isinstance(value, ScalarNode)
    }


def _fold(rows: Sequence[str]) -> str:
    """Return lines as YAML folds them: one line, until an empty one."""
    text = ""
    for row, following in zip(rows, [*rows[1:], ""], strict=True):
        text += row + (" \\\n" if row and following and not row.endswith("\\") else "\n")
    return text
