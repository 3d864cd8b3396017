"""Finders for source code, which return the commands that it starts with literals."""

import ast
import re
from collections.abc import Mapping

from safe_compose.audit.snippets import FileSnippets, Snippet

_STARTERS = frozenset(
    {
        "run", "call", "check_call", "check_output", "Popen", "system", "popen", "getoutput",
        "getstatusoutput", "execvp", "create_subprocess_exec", "create_subprocess_shell",
    }
)  # fmt: skip


def python(text: str) -> FileSnippets:
    """Return the words and lines that subprocess, os and similar modules get as literals."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        return FileSnippets(
            notes=((getattr(fault, "lineno", None) or 1, "does not read as Python"),)
        )
    snippets = []
    names = _find_named_values(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        if name not in _STARTERS:
            continue
        first = node.args[0]
        value = _value(first, names)
        if isinstance(value, list) and value and value[0]:
            snippets.append(Snippet(argv=tuple(value), line=first.lineno))
        elif isinstance(value, str) and value and len(node.args) == 1:
            snippets.append(Snippet(value, rows=(first.lineno,)))
        elif isinstance(value, str) and value:
            texts = [_literal(word) for word in node.args]
            argv = tuple(text for text in texts if text is not None)
            snippets.append(Snippet(argv=argv, line=first.lineno))
            if name not in ("execvp", "create_subprocess_exec"):
                snippets.append(Snippet(value, rows=(first.lineno,)))
    return FileSnippets(tuple(snippets))


_Value = str | list[str] | None


def _find_named_values(tree: ast.AST) -> dict[str, _Value]:
    """Return the names that are given a literal text or list, with the last one of each."""
    names: dict[str, _Value] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], _value(node.value, names)
            if isinstance(target, ast.Name) and value:
                names[target.id] = value
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            added, before = _value(node.value, names), names.get(node.target.id)
            if isinstance(before, list) and isinstance(added, list):
                names[node.target.id] = [*before, *added]
            elif isinstance(before, str) and isinstance(added, str):
                names[node.target.id] = before + added
    return names


def _value(node: ast.expr, names: Mapping[str, _Value]) -> _Value:
    """Return the text or the words that an expression stands for; None when that is not known."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.List | ast.Tuple):
        words: list[str] = []
        for element in node.elts:
            inner = _value(element.value, names) if isinstance(element, ast.Starred) else None
            if isinstance(inner, list):
                words += inner
            elif (text := _literal(element)) is not None:
                words.append(text)
        return words
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _value(node.left, names), _value(node.right, names)
        if isinstance(left, list) and isinstance(right, list):
            return [*left, *right]
        return left + right if isinstance(left, str) and isinstance(right, str) else left
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "split":
            on = node.args[0] if node.args and _is_shlex(node.func.value) else node.func.value
            whole = _value(on, names)
            return whole.split() if isinstance(whole, str) else None
        return _value(node.func.value, names) if node.func.attr == "format" else None
    return _literal(node) if isinstance(node, ast.Constant | ast.JoinedStr) else None


def _is_shlex(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "shlex"


def _literal(node: ast.expr) -> str | None:
    """Return a literal; `x` for a computed word, None for several."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "x" for v in node.values)
    return None if isinstance(node, ast.Starred) else "x"


# -- JavaScript, Ruby, Go --------------------------------------------------------------------------

_QUOTED = r""""(?:[^"\\\n]|\\.){0,2000}+"|'(?:[^'\\\n]|\\.){0,2000}+'|`(?:[^`\\]|\\.){0,2000}+`"""
_LITERAL = re.compile(_QUOTED, re.DOTALL)
_C_START = re.compile(r"""["'`]|//|/\*""")
_RUBY_START = re.compile(r"""["'`]|(?<![\w$])#(?!\{)""")
_STARTERS_ELSEWHERE = (
    r"\b(?:execSync|execFileSync|execFile|exec|spawnSync|spawn|execa(?:Sync|Command|CommandSync)?"
    r"|fork|\$|shell|sh|system|run|Command|CommandContext|popen|capture[23e]*|runCommand|cmd)"
    r"\s*(?:\(\s*|(?=[`\"']))|\$(?=`)"
)
_CALL = re.compile(_STARTERS_ELSEWHERE)
_RUBY_CALL = re.compile(_STARTERS_ELSEWHERE + r"|%x(?=[({\[])|(?<![\w`])(?=`)")
_TOKEN = re.compile(
    rf"(?P<literal>{_QUOTED})|(?P<plus>\+)|(?P<name>[\w.]+(?:\([^()]{{0,200}}\))?)|[\s,\[(]+",
    re.DOTALL,
)
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")
_NEXT_LINE = re.compile(r"[ \t]*\n\s*(?![\s,+)\]])")
_MOST_CHARACTERS = 2000


def javascript(text: str) -> FileSnippets:
    """Return the commands that child_process, execa, zx and similar get as literals."""
    return _calls(_blank(text, _C_START))


def go(text: str) -> FileSnippets:
    """Return the commands that os/exec gets as literals."""
    return _calls(_blank(text, _C_START))


def ruby(text: str) -> FileSnippets:
    """Return the commands of `sh`, `system`, backticks and similar in Ruby."""
    return _calls(_blank(text, _RUBY_START), _RUBY_CALL)


def _blank(text: str, start: "re.Pattern[str]") -> str:
    """Return a text without its comments, so that lines and literals stay where they are.

    Args:
        text: The text.
        start: Matches the beginning of a literal or a comment.
    """
    out: list[str] = []
    at = 0
    while found := start.search(text, at):
        mark = found[0]
        out.append(text[at : found.start()])
        if mark in "\"'`":
            literal = _LITERAL.match(text, found.start())
            line = text.find("\n", found.end())
            # a stray quote, as in a pattern: what follows it on its line is not read
            at = literal.end() if literal else len(text) if line < 0 else line
            out.append(text[found.start() : at])
            continue
        end = text.find("*/" if mark == "/*" else "\n", found.end())
        at = len(text) if end < 0 else end + (2 if mark == "/*" else 0)
        out.append("\n" * text.count("\n", found.start(), at))
    return "".join(out) + text[at:]


def _calls(text: str, call_of: "re.Pattern[str]" = _CALL) -> FileSnippets:
    snippets = []
    until = counted = 0
    line = 1
    for call in call_of.finditer(text):
        if call.start() < until:
            continue  # within the literals of the call before it
        words, until = _literals(text, call.end())
        line += text.count("\n", counted, call.start())
        counted = call.start()
        if len(words) > 1:
            snippets.append(Snippet(argv=tuple(words), line=line))
        if words and re.search(r"\s", words[0]):
            snippets.append(Snippet(words[0], rows=(line,)))
    return FileSnippets(tuple(snippets))


def _ends_call(text: str, at: int) -> bool:
    """Return whether the line ends here, and the next one does not go on with its words."""
    return _NEXT_LINE.match(text, at) is not None and text[at - 1] not in ",+([{"


def _literals(text: str, start: int) -> tuple[list[str], int]:
    """Return the words of a call, `x` for a computed one, and where they end."""
    words: list[str] = []
    at, added = start, False
    while at < min(len(text), start + _MOST_CHARACTERS):
        found = _TOKEN.match(text, at)
        if found is None or _EMPTY_LINE.match(text, at) or (words and _ends_call(text, at)):
            break
        if found["literal"]:
            inner = re.sub(r"\\(.)", r"\1", found["literal"][1:-1])
            value = re.sub(r"[$#]\{[^}]*\}", "x", inner)
        else:
            value = "x" if found["name"] else ""
        if value and added and words:
            words[-1] += value
        elif value and (words or found["literal"]):
            words.append(value)
        added = bool(found["plus"]) or (added and not value)
        at = found.end()
    return words, at
