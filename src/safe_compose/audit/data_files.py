"""Finders for JSON and TOML, which return the commands that tools run."""

import json
import re
from collections.abc import Iterator
from typing import Any

from safe_compose.audit.snippets import FileSnippets, Snippet
from safe_compose.core.toml import parse_toml


def package_json(text: str) -> FileSnippets:
    """Return the values below `scripts`, and commands in other JSON files that tools run.

    Such files are those of devcontainers, tasks and hooks.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as fault:
        line = getattr(fault, "lineno", 1)
        return FileSnippets(
            _find_quoted_texts(text),
            notes=((line, f"does not read as JSON ({getattr(fault, 'msg', fault)})"),),
        )
    reached = (0, 1)  # values are requested in their order in the file

    def line_of(value: str) -> int:
        nonlocal reached
        for form in (json.dumps(value, ensure_ascii=False), json.dumps(value)):
            if (at := text.find(form, reached[0])) >= 0:
                reached = (at + 1, reached[1] + text.count("\n", reached[0], at + 1))
                break
        return reached[1]

    return FileSnippets(tuple(_json_pieces(whole, "", line_of)))


_JSON_TABLES = frozenset({"scripts", "script", "tasks", "hooks", "lint-staged"})
_JSON_KEYS = re.compile(r"scripts?|cmd|commands?|run|exec|\w*Command|tasks?|args")


def _json_pieces(node: Any, key: str, line_of: Any) -> Iterator[Snippet]:
    if isinstance(node, str):
        if _JSON_KEYS.fullmatch(key):
            yield Snippet(node, rows=(line_of(node),))
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _json_entry(key, name, value, line_of)
    elif isinstance(node, list):
        words = [word for word in node if isinstance(word, str)]
        if words and len(words) == len(node) and _JSON_KEYS.fullmatch(key):
            yield Snippet(argv=tuple(words), line=line_of(words[0]))
        for value in node:
            allowed = isinstance(value, str) and key == "allow"
            if allowed and (found := re.fullmatch(r"\w+\((.*)\)", value, re.DOTALL)):
                yield Snippet(_make_allowed(found[1]), rows=(line_of(value),))
            yield from _json_pieces(value, key, line_of)


def _json_entry(table: str, name: str, value: Any, line_of: Any) -> Iterator[Snippet]:
    """Yield the commands of one key of an object that stands at the key `table`."""
    if table == "bash" and value == "allow":  # OpenCode's permissions
        yield Snippet(_make_allowed(name), rows=(line_of(name),))
    if table in _JSON_TABLES and isinstance(value, str | list):
        for text in [value] if isinstance(value, str) else value:
            if isinstance(text, str):
                yield Snippet(text, rows=(line_of(text),))
            else:
                yield from _json_pieces(text, name, line_of)
    else:
        yield from _json_pieces(value, name, line_of)


def _make_allowed(pattern: str) -> str:
    """Return a command that a pattern of an agent's permissions lets run without a question."""
    return re.sub(r"(?::\*|\s*\*)$", " x", pattern)


def _find_quoted_texts(text: str) -> tuple[Snippet, ...]:
    """Return the texts between double quotes, line by line."""
    rows = enumerate(text.split("\n"))
    return tuple(
        Snippet(quoted, rows=(row + 1,))
        for row, line in rows
        for quoted in re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    )


# -- TOML ------------------------------------------------------------------------------------------

_TOML_TABLES = frozenset({"tasks", "scripts", "aliases", "alias", "commands", "hooks"})
_TOML_KEYS = frozenset({"cmd", "run", "shell", "script", "command", "exec", "sequence", "args"})


def toml_tasks(text: str) -> FileSnippets:
    """Return the tasks of pyproject.toml, mise.toml, Makefile.toml and their like."""
    try:
        whole = parse_toml(text)
    except ValueError as fault:
        return FileSnippets(
            _find_quoted_texts(text), notes=((1, f"does not read as TOML ({fault})"),)
        )
    reached = (0, 1)  # values are mostly requested in their order in the file

    def line_of(value: str) -> int:
        nonlocal reached
        first = value.strip().partition("\n")[0]
        at = text.find(first, reached[0])
        if at < 0 and (at := text.find(first)) < 0:
            return 1
        if at < reached[0]:
            return text.count("\n", 0, at) + 1
        reached = (at, reached[1] + text.count("\n", reached[0], at))
        return reached[1]

    return FileSnippets(tuple(_toml_pieces(whole, "", "", line_of)))


def _toml_pieces(node: Any, table: str, key: str, line_of: Any) -> Iterator[Snippet]:
    runs = table in _TOML_TABLES or key in _TOML_KEYS
    if isinstance(node, str) and runs:
        yield Snippet(node, line=line_of(node))
    elif isinstance(node, dict):
        command, args = node.get("command"), node.get("args")
        if isinstance(command, str) and isinstance(args, list):
            words = [command, *(word for word in args if isinstance(word, str))]
            yield Snippet(argv=tuple(words), line=line_of(command))
        for name, value in node.items():
            yield from _toml_pieces(value, key, name, line_of)
    elif isinstance(node, list):
        words = [word for word in node if isinstance(word, str)]
        if runs and words and len(words) == len(node) and not any(" " in word for word in words):
            yield Snippet(argv=tuple(words), line=line_of(words[0]))
        for value in node:
            yield from _toml_pieces(value, table, key, line_of)
