"""The targets of a file that names commands: a Makefile, Rakefile, Taskfile, package.json, ...

This module is pure.
"""

import ast
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from safe_compose.audit import formats, source_code
from safe_compose.audit.snippets import Snippet, logical_lines

_MAKE_RULE = re.compile(r"([^\s:#=][^:=#]*?)\s*::?(?![=:])([^;#=]*)(?:[;#].*)?", re.DOTALL)
_JUST_RULE = re.compile(r"@?([A-Za-z_][\w-]*)(?:\s+[^:]*)?:(?!=)(.*)")


class Target(NamedTuple):
    """A named list of commands."""

    scripts: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """The targets that run before it."""


Targets = Mapping[str, Target]


def make_targets(text: str) -> Targets:
    """Return the targets of a Makefile; the first one is made by default."""

    def rule(line: str) -> tuple[list[str], list[str]] | None:
        found = _MAKE_RULE.fullmatch(line.strip()) if line[:1] not in "\t#" else None
        return (found[1].split(), found[2].split()) if found else None

    return _by_lines(text, formats.make(text).snippets, rule)


def just_targets(text: str) -> Targets:
    """Return the recipes of a justfile; the first one is run by default."""

    def rule(line: str) -> tuple[list[str], list[str]] | None:
        found = _JUST_RULE.fullmatch(line.strip()) if line[:1] not in " \t#" else None
        return ([found[1]], re.findall(r"[A-Za-z_][\w-]*", found[2])) if found else None

    return _by_lines(text, formats.just(text).snippets, rule)


def _by_lines(
    text: str,
    snippets: tuple[Snippet, ...],
    rule: Callable[[str], tuple[list[str], list[str]] | None],
) -> Targets:
    """Return each rule's snippets: those between its line and that of the next rule."""
    starts: list[tuple[int, list[str], list[str]]] = []
    for row, line in logical_lines(text):
        found = rule(line)
        if found and found[0] and not found[0][0].startswith("."):
            starts.append((row + 1, *found))
    targets: dict[str, Target] = {}
    for number, (first, names, needs) in enumerate(starts):
        after = starts[number + 1][0] if number + 1 < len(starts) else len(text)
        scripts = tuple(s.text for s in snippets if first <= s.at(0) < after)
        for name in names:
            known = targets.get(name, Target())
            targets[name] = Target((*known.scripts, *scripts), (*known.needs, *needs))
    return targets


def package_targets(text: str) -> Targets:
    """Return the scripts of package.json or composer.json, with those that npm runs around them."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    scripts = whole.get("scripts") if isinstance(whole, dict) else None
    targets = {}
    for name, value in scripts.items() if isinstance(scripts, dict) else ():
        lines = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        texts = [line for line in lines if isinstance(line, str)]
        targets[name] = Target(
            tuple(line for line in texts if not re.match(r"@(?!php|composer|putenv)", line)),
            (f"pre{name}", f"post{name}", *(line[1:] for line in texts if line[:1] == "@")),
        )
    return targets


def task_targets(text: str) -> Targets:
    """Return the tasks of a Taskfile."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        whole = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        return {}
    tasks = whole.get("tasks") if isinstance(whole, dict) else None
    targets = {}
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        entries = [
            entry
            for key in ("cmds", "cmd", "deps")
            for entry in _list_of(task.get(key) if isinstance(task, dict) else None)
        ]
        entries += _list_of(task) if not isinstance(task, dict) else []
        targets[str(name)] = Target(
            tuple(_task_scripts(entries)), tuple(_task_needs(task, entries))
        )
    return targets


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _task_scripts(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        inner = entry.get("cmd", entry.get("defer")) if isinstance(entry, dict) else entry
        if isinstance(inner, str):
            yield re.sub(r"\{\{\s*\.(\w+)[^}]*\}\}", r"${\1}", inner)


def _task_needs(task: Any, entries: list[Any]) -> Iterator[str]:
    deps = _list_of(task.get("deps")) if isinstance(task, dict) else []
    for entry in (*deps, *entries):
        if isinstance(entry, dict):
            inner = entry.get("defer", entry)
            if isinstance(inner, dict) and isinstance(inner.get("task"), str):
                yield inner["task"]
        elif entry in deps and isinstance(entry, str):
            yield entry


_RAKE_RULE = re.compile(
    r"""(?P<indent>[ \t]*)(?P<verb>namespace|task|multitask|file|desc)[ \t(]+:?["']?"""
    r"""(?P<name>[\w:.-]+?)["']?(?=:[ \t]|[ \t]*=>|[ \t,)\[]|$)(?P<needs>[^#]*)"""
)


def rake_targets(text: str) -> Targets:
    """Return the tasks of a Rakefile, those of a namespace as `namespace:task`."""
    around: list[tuple[int, str]] = []

    def rule(line: str) -> tuple[list[str], list[str]] | None:
        found = _RAKE_RULE.match(line)
        if found is None or found["verb"] == "desc":
            return None
        indent = len(found["indent"])
        around[:] = [one for one in around if one[0] < indent]
        name = ":".join([*(space for _, space in around), found["name"]])
        if found["verb"] == "namespace":
            around.append((indent, found["name"]))
            return [f"{name}:"], []
        needs = re.findall(r"[\w-]+(?::[\w-]+)*", found["needs"].partition("{")[0])
        space = name.rpartition(":")[0]
        return [name], [*needs, *(f"{space}:{need}" for need in needs if space)]

    return _by_lines(text, _as_shell(source_code.ruby(text).snippets), rule)


def _as_shell(snippets: tuple[Snippet, ...]) -> tuple[Snippet, ...]:
    """Return snippets that are words as lines of shell."""
    return tuple(Snippet(shlex.join(one.argv), one.at(0)) if one.argv else one for one in snippets)


def python_targets(text: str) -> Targets:
    """Return the functions of a tasks.py or a noxfile.py, by the names that they are called by."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    targets: dict[str, Target] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            body = ast.get_source_segment(text, node) or ""
            snippets = _as_shell(source_code.python(textwrap.dedent(body)).snippets)
            names = [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]
            target = Target(tuple(one.text for one in snippets), tuple(names))
            targets |= dict.fromkeys((node.name, node.name.replace("_", "-")), target)
    return targets


_TOML_TABLES = (
    "tasks", "tool.poe.tasks", "tool.pdm.scripts", "tool.rye.scripts", "tool.pixi.tasks",
    "tool.taskipy.tasks",
)  # fmt: skip
_TOML_SCRIPTS = ("cmd", "shell", "run", "script", "sequence", "composite", "chain")
_TOML_NEEDS = ("deps", "depends", "dependencies", "depends_on", "depends-on", "uses", "task", "ref")


def toml_targets(text: str) -> Targets:
    """Return the tasks of mise.toml, pyproject.toml (poe, pdm, ...), pixi.toml, Makefile.toml."""
    try:
        whole = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}
    tables = [_table_at(whole, path.split(".")) for path in _TOML_TABLES]
    hatch = _table_at(whole, ["tool", "hatch", "envs"])
    tables += [_table_at({"env": env}, ["env", "scripts"]) for env in hatch.values()]
    return {
        name: Target(tuple(_toml_scripts(task)), tuple(_toml_needs(task)))
        for table in tables
        for name, task in table.items()
    }


def _table_at(whole: Any, path: list[str]) -> dict[str, Any]:
    for key in path:
        whole = whole.get(key) if isinstance(whole, dict) else None
    return whole if isinstance(whole, dict) else {}


def _toml_scripts(task: Any) -> Iterator[str]:
    if isinstance(task, str):
        yield task
    elif isinstance(task, list):
        for entry in task:
            yield from _toml_scripts(entry)
    elif isinstance(task, dict):
        for key in _TOML_SCRIPTS:
            yield from _toml_scripts(task.get(key))
        if isinstance(task.get("command"), str):
            args = [word for word in _list_of(task.get("args")) if isinstance(word, str)]
            yield shlex.join([task["command"], *args]) if args else task["command"]


def _toml_needs(task: Any) -> Iterator[str]:
    """Yield the names of other tasks: also texts of a sequence, which may be such names."""
    entries = task if isinstance(task, list) else [task]
    for entry in entries:
        if isinstance(entry, dict):
            for key in (*_TOML_NEEDS, *_TOML_SCRIPTS):
                yield from (one for one in _list_of(entry.get(key)) if isinstance(one, str))
        elif isinstance(entry, str):
            yield entry


def json_targets(text: str) -> Targets:
    """Return the tasks of deno.json."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    tasks = _table_at(whole, ["tasks"])
    return {
        name: Target(tuple(_toml_scripts(task if isinstance(task, str) else [task])))
        for name, task in tasks.items()
    }


def find_scripts(targets: Targets, names: list[str]) -> list[str]:
    """Return the scripts that run for these targets, with all that they need."""
    waiting, seen, scripts = list(names), set[str](), list[str]()
    while waiting and len(seen) < 200:
        name = waiting.pop(0)
        if name in seen or name not in targets:
            continue
        seen.add(name)
        scripts += targets[name].scripts
        waiting += targets[name].needs
    return scripts
