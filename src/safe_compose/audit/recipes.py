"""Finders for files that are lines: shell scripts, Makefiles, justfiles, Dockerfiles, crontabs, units, package.json, Python."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from safe_compose.audit.pieces import Piece, Read, logical_lines, templates, with_rows

_DEEPEST = 8
"""Make variables within variables."""


def shell(text: str) -> Read:
    """A script, or lines of one."""
    return Read((Piece(text),))


# -- make --------------------------------------------------------------------------------------------------------------

_MAKE_SET = re.compile(r"(?:(?:export|override|private|unexport)[ \t]+)*([^\s:#=+?!]+)[ \t]*(?::{0,3}|[?+!])=[ \t]*(.*)", re.DOTALL)


_QUIET = re.compile(r"^(?:[@+\-\s]|\$\{\w+\}(?=[a-z]))+")
"""What stands before a recipe's command and is make's, also as a variable glued to it: `@`, `$(Q)docker`."""


def make(text: str) -> Read:
    """Recipe lines with the variables of the file put in; `$(shell ...)`; rules of one line; `define`."""
    variables: dict[str, str] = {}
    recipes: list[tuple[int, str]] = []
    prefix, defining, in_rule = "\t", "", False
    for row, line in logical_lines(text):
        bare = line.strip()
        if defining:
            if re.match(r"endef\b", bare):
                defining = ""
            else:
                variables[defining] = f"{variables[defining]}\n{line}".lstrip("\n")
                recipes.append((row, line.lstrip()))
        elif line.startswith(prefix) and in_rule:
            recipes.append((row, line[1:].replace("\n" + prefix, "\n")))
        elif defined := re.match(r"(?:override\s+)?define\s+(\S+)", bare):
            defining = defined[1]
            variables[defining] = ""
        elif bare.startswith("#") or not bare:
            continue
        elif assigned := _MAKE_SET.fullmatch(bare):
            name, value = assigned[1], _one_line(_uncommented(assigned[2]))
            if name == ".RECIPEPREFIX":
                prefix = value[:1] or "\t"
            elif re.search(r"^[^:=]*\+=", bare) and name in variables:
                variables[name] += " " + value
            else:
                variables[name] = value
            recipes += [(row, part) for part in _shell_calls(value)]
        elif ":" in bare:
            in_rule = True
            _, semicolon, recipe = bare.partition(";")
            if semicolon:
                recipes.append((row, recipe))
    pieces = [Piece(_QUIET.sub("", _expanded(_QUIET.sub("", recipe), variables, 0)), row + 1) for row, recipe in recipes]
    return Read(
        tuple(pieces), {name: value for name, value in variables.items() if value and "$" not in value and "\n" not in value}
    )


def _one_line(value: str) -> str:
    return " ".join(row.rstrip("\r").removesuffix("\\").strip() for row in value.split("\n"))


def _uncommented(value: str) -> str:
    return re.sub(r"(?<!\\)#.*", "", value).rstrip()


def _shell_calls(value: str) -> Iterator[str]:
    for found in re.finditer(r"\$\(shell\s", value):
        yield value[found.end() : _closing(value, found.start() + 1)]


def _closing(text: str, opening: int) -> int:
    """The index of the bracket that closes the one at `opening`; the end of the text where there is none."""
    close = {"(": ")", "{": "}"}[text[opening]]
    depth = 0
    for index in range(opening, len(text)):
        depth += (text[index] == text[opening]) - (text[index] == close)
        if depth == 0:
            return index
    return len(text)


def _expanded(text: str, variables: Mapping[str, str], depth: int) -> str:
    """What make hands to the shell; what only make knows becomes a shell variable, whose value is not known."""
    out: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            out.append("$")
            at = dollar + 2
        elif following in ("(", "{"):
            end = _closing(text, dollar + 1)
            out.append(_reference(text[dollar + 2 : end], variables, depth))
            at = end + 1
        else:
            out.append(variables.get(following, "${_}") if following.strip() else "$")
            at = dollar + (2 if following.strip() else 1)
    return "".join(out) + text[at:]


def _reference(inner: str, variables: Mapping[str, str], depth: int) -> str:
    name = inner.partition(":")[0].strip()
    rows = "\\\n" * inner.count("\n")
    if inner.startswith("shell "):
        return "$(" + _expanded(inner[6:], variables, depth + 1) + ")"
    if re.fullmatch(r"call\s+[\w-]+.*", inner, re.DOTALL):
        name = inner.split(None, 1)[1].partition(",")[0].strip()
    if name in variables and depth < _DEEPEST:
        return _expanded(variables[name], variables, depth + 1).replace("\n", "; ") + rows
    return "${" + (re.sub(r"\W", "_", name) if re.fullmatch(r"[\w.-]+", name) else "_") + "}" + rows


# -- just --------------------------------------------------------------------------------------------------------------

_JUST_SET = re.compile(r"^(?:export[ \t]+|alias[ \t]+)?([A-Za-z_][\w-]*)[ \t]*:=[ \t]*(.*)", re.MULTILINE)


def just(text: str) -> Read:
    """Recipe lines of a justfile; one that begins with `#!` is one script."""
    known: dict[str, str] = {}
    pieces: list[Piece] = []
    recipe: list[tuple[int, str]] = []

    def ended() -> None:
        if recipe and recipe[0][1].lstrip().startswith("#!"):
            pieces.append(with_rows([(row + 1, line) for row, line in recipe]))
        elif recipe:
            pieces.extend(
                Piece(part, recipe[0][0] + 1 + row)
                for row, part in logical_lines("\n".join(re.sub(r"^\s+[@-]*", "", line) for _, line in recipe))
            )
        recipe.clear()

    filled = text
    for name, value in _JUST_SET.findall(text):
        if quoted := re.fullmatch(r"""(["'])(.*)\1\s*(?:#.*)?""", value.strip()):
            known[name.replace("-", "_")] = quoted[2]
            filled = re.sub(r"\{\{\s*" + re.escape(name) + r"\s*\}\}", quoted[2].replace("\\", r"\\"), filled)
    for row, line in enumerate(templates(filled).split("\n")):
        if line[:1] in (" ", "\t") and line.strip():
            recipe.append((row, line))
        elif line.strip() or not recipe:
            ended()
            for code in re.findall(r"`([^`]+)`", line) if ":=" in line else ():
                pieces.append(Piece(code, row + 1))
        else:
            recipe.append((row, ""))
    ended()
    return Read(tuple(pieces), known)


# -- Dockerfile --------------------------------------------------------------------------------------------------------


def dockerfile(text: str) -> Read:
    """RUN, CMD, ENTRYPOINT, HEALTHCHECK and what ONBUILD puts off; exec form, here-documents, comments within."""
    pieces: list[Piece] = []
    rows = text.split("\n")
    at = 0
    while at < len(rows):
        begun, parts = at, [(at + 1, rows[at])]
        while re.search(r"\\\s*$", parts[-1][1]) and at + 1 < len(rows):
            at += 1
            if not rows[at].lstrip().startswith("#"):  # a comment within is as if it were not there
                parts.append((at + 1, rows[at]))
        at += 1
        found = re.match(r"\s*(?:ONBUILD\s+)?(RUN|CMD|ENTRYPOINT|HEALTHCHECK)\s+(.*)", rows[begun], re.IGNORECASE)
        if not found:
            continue
        rest = re.sub(r"^(?:--\S+\s+)*", "", found[2])
        if found[1].upper() == "HEALTHCHECK":
            rest = re.sub(r"^CMD\s+", "", rest, flags=re.IGNORECASE)
        whole = "\n".join([rest, *(part for _, part in parts[1:])])
        for end in re.findall(r"<<-?\s*[\"']?(\w+)", whole):
            while at < len(rows):
                parts.append((at + 1, rows[at]))
                at += 1
                if rows[at - 1].strip() == end:
                    break
        if words := _json_list(whole):
            pieces.append(Piece(argv=words, line=begun + 1))
            continue
        if here := re.fullmatch(r"<<-?\s*[\"']?(\w+)[\"']?\s*", rest):  # the here-document is the script itself
            parts = [(line, part) for line, part in parts[1:] if part.strip() != here[1]]
            pieces.append(with_rows(parts))
        else:
            pieces.append(with_rows([(parts[0][0], rest), *parts[1:]]))
    return Read(tuple(pieces))


def _json_list(text: str) -> tuple[str, ...]:
    try:
        words = json.loads(re.sub(r"\\\s*\n", "", text)) if text.lstrip().startswith("[") else None
    except ValueError:
        return ()
    return tuple(words) if isinstance(words, list) and all(isinstance(word, str) for word in words) else ()


# -- cron, systemd -----------------------------------------------------------------------------------------------------


def crontab(text: str) -> Read:
    """Lines of a crontab: what stands after the five fields or the @word, with and without a user before it."""
    pieces = []
    for row, line in enumerate(text.split("\n")):
        found = re.match(r"\s*(?:@\w+|(?:[-*/,\w]+\s+){4}[-*/,\w]+)\s+(.*)", line)
        if found and not line.lstrip().startswith("#"):
            pieces.append(Piece(re.sub(r"(?<!\\)%", "\n", found[1]), rows=(row + 1,)))
            _, blank, command = found[1].partition(" ")
            if blank:
                pieces.append(Piece(command, row + 1))
    return Read(tuple(pieces))


def unit(text: str) -> Read:
    """The Exec lines of a systemd unit."""
    pieces = []
    for row, line in logical_lines(text):
        if found := re.match(r"\s*Exec\w+\s*=\s*[-@:+!|]*(.*)", line, re.DOTALL):
            pieces.append(Piece(found[1], row + 1))
    return Read(tuple(pieces))


# -- JSON, Python, prose -----------------------------------------------------------------------------------------------


def package_json(text: str) -> Read:
    """Every value below `scripts`, and the commands of other JSON files that tools run (devcontainer, tasks, hooks)."""
    try:
        whole = json.loads(text)
    except ValueError as fault:
        line = getattr(fault, "lineno", 1)
        return Read(_quoted_lines(text), notes=((line, f"does not read as JSON ({getattr(fault, 'msg', fault)})"),))
    reached = (0, 1)  # values are asked for in the order in which they stand

    def line_of(value: str) -> int:
        nonlocal reached
        for form in (json.dumps(value, ensure_ascii=False), json.dumps(value)):
            if (at := text.find(form, reached[0])) >= 0:
                reached = (at + 1, reached[1] + text.count("\n", reached[0], at + 1))
                break
        return reached[1]

    return Read(tuple(_json_pieces(whole, "", line_of)))


_JSON_KEYS = re.compile(r"scripts?|cmd|commands?|run|exec|\w*Command|tasks?|args")


def _json_pieces(node: Any, key: str, line_of: Any) -> Iterator[Piece]:
    if isinstance(node, str):
        if _JSON_KEYS.fullmatch(key):
            yield Piece(node, rows=(line_of(node),))
    elif isinstance(node, dict):
        inside = key if key in ("scripts", "script", "tasks") else ""
        for name, value in node.items():
            yield from _json_pieces(value, inside if isinstance(value, str) and inside else name, line_of)
    elif isinstance(node, list):
        words = [word for word in node if isinstance(word, str)]
        if words and len(words) == len(node) and _JSON_KEYS.fullmatch(key):
            yield Piece(argv=tuple(words), line=line_of(words[0]))
        for value in node:
            yield from _json_pieces(value, key, line_of)


def _quoted_lines(text: str) -> tuple[Piece, ...]:
    """What stands between double quotes, line by line."""
    rows = enumerate(text.split("\n"))
    return tuple(Piece(said, rows=(row + 1,)) for row, line in rows for said in re.findall(r'"((?:[^"\\]|\\.)*)"', line))


_STARTERS = frozenset(
    {
        "run", "call", "check_call", "check_output", "Popen", "system", "popen", "getoutput", "getstatusoutput", "execvp",
        "create_subprocess_exec", "create_subprocess_shell",
    }
)  # fmt: skip


def python(text: str) -> Read:
    """Words and lines that subprocess, os and their like are given as literals."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        return Read(notes=((getattr(fault, "lineno", None) or 1, "does not read as Python"),))
    pieces = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in _STARTERS:
            continue
        first = node.args[0]
        words = first.elts if isinstance(first, ast.List | ast.Tuple) else node.args if len(node.args) > 1 else [first]
        texts = [_literal(word) for word in words]
        if len(texts) == 1 and texts[0]:
            pieces.append(Piece(texts[0], rows=(first.lineno,)))
        elif texts and texts[0]:
            pieces.append(Piece(argv=tuple(text for text in texts if text is not None), line=first.lineno))
    return Read(tuple(pieces))


def _literal(node: ast.expr) -> str | None:
    """A literal; `x` for a word that is computed, nothing for several."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "x" for v in node.values)
    return None if isinstance(node, ast.Starred) else "x"


_GROOVY = re.compile(r"""\b(?:sh|bat|pwsh|powershell)\b[ \t]*\(?[ \t]*(?:\w+:[^\n]{0,200}?)??(\'{3}|"{3}|['"])(.*?)\1""", re.DOTALL)


def groovy(text: str) -> Read:
    """The `sh` and `bat` steps of a Jenkinsfile."""
    return Read(tuple(Piece(found[2], text.count("\n", 0, found.start(2)) + 1) for found in _GROOVY.finditer(text)))


def prose(text: str) -> Read:
    """reStructuredText, AsciiDoc and plain text: lines that are set apart by indentation, a prompt or a fence, and code in it."""
    pieces: list[Piece] = []
    fenced = False
    for row, line in logical_lines(text):
        bare = line.strip()
        if re.fullmatch(r"```+\w*|----+|\.\.\.\.+", bare):
            fenced = not fenced and bare[0] in "`-."
            continue
        if prompt := PROMPT.match(line):
            pieces.append(Piece(line[prompt.end() :], row + 1))
        elif fenced or re.match(r"(?: {2,}|\t)\S", line):
            pieces.append(Piece(bare, row + 1))
        else:
            pieces.extend(Piece(code, rows=(row + 1,)) for code in re.findall(r"``?([^`\n]+)``?", line))
    return Read(tuple(pieces))


PROMPT = re.compile(
    r"[ \t]*+(?:\([\w.-]+\)[ \t]*+)?(?:[\w.-]+@[\w.:/~-]+|\[[^\]\n]*\]|[~/][\w./~-]*|PS [^>\n]*)?[ \t]*+[$%❯➜>][ \t]+(?=\S)"
)
"""`$ `, `user@host:~$ `, `% `, `PS C:\\> `; not `# `, which may as well be a comment."""
