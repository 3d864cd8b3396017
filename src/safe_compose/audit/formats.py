"""Finders for line-based files.

They read shell scripts, Makefiles, justfiles, Dockerfiles, crontabs, units and plain text.
"""

import json
import re
from collections.abc import Iterator, Mapping

from safe_compose.audit.snippets import (
    FileSnippets,
    Snippet,
    join_rows,
    logical_lines,
    replace_templates,
)

_DEEPEST = 8
"""Deepest nesting of make variables."""


def shell(text: str) -> FileSnippets:
    """Return a script as one snippet."""
    return FileSnippets((Snippet(text),))


# -- make ------------------------------------------------------------------------------------------

_MAKE_SET = re.compile(
    r"(?:(?:export|override|private|unexport)[ \t]+)*([^\s:#=+?!]+)[ \t]*(?::{0,3}"
    r"|[?+!])=[ \t]*(.*)",
    re.DOTALL,
)


_QUIET = re.compile(r"^(?:[@+\-\s]|\$\{\w+\}(?=[a-z]))+")
"""Matches make's own prefix of a recipe's command, also as a variable attached to it: `@`,
`$(Q)docker`."""


def make(text: str) -> FileSnippets:
    """Return the recipe lines, with the variables of the file replaced.

    `$(shell ...)`, rules of one line and `define` count as well.
    """
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
            name, value = assigned[1], _one_line(_strip_comments(assigned[2]))
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
    snippets = [
        Snippet(_QUIET.sub("", _expand(_QUIET.sub("", recipe), variables, 0)), row + 1)
        for row, recipe in recipes
    ]
    return FileSnippets(
        tuple(snippets),
        {
            name: value
            for name, value in variables.items()
            if value and "$" not in value and "\n" not in value
        },
    )


def _one_line(value: str) -> str:
    return " ".join(row.rstrip("\r").removesuffix("\\").strip() for row in value.split("\n"))


def _strip_comments(value: str) -> str:
    return re.sub(r"(?<!\\)#.*", "", value).rstrip()


def _shell_calls(value: str) -> Iterator[str]:
    for found in re.finditer(r"\$\(shell\s", value):
        yield value[found.end() : _find_closing(value, found.start() + 1)]


def _find_closing(text: str, opening: int) -> int:
    """Return the index of the bracket that closes the one at `opening`, or the end of the text."""
    close = {"(": ")", "{": "}"}[text[opening]]
    depth = 0
    for index in range(opening, len(text)):
        depth += (text[index] == text[opening]) - (text[index] == close)
        if depth == 0:
            return index
    return len(text)


def _expand(text: str, variables: Mapping[str, str], depth: int) -> str:
    """Return the text that make passes to the shell.

    A variable that is only known to make becomes a shell variable with an unknown value.
    """
    out: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            out.append("$")
            at = dollar + 2
        elif following in ("(", "{"):
            end = _find_closing(text, dollar + 1)
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
        return "$(" + _expand(inner[6:], variables, depth + 1) + ")"
    function, blank, rest = inner.partition(" ")
    if function == "call" and blank:
        name, *arguments = _arguments(rest)
        called = {str(n): one.strip() for n, one in enumerate(arguments, 1)}
        if name not in variables:
            return " ".join([name, *arguments]) + rows
        variables = {**variables, **called}
    elif function in ("if", "or", "and") and blank:
        # the part that runs if the condition holds; the condition itself is no command
        parts = _arguments(rest)[1 if function == "if" else 0 :]
        return _expand(next((part for part in parts if part.strip()), ""), variables, depth + 1)
    if name in variables and depth < _DEEPEST:
        return _expand(variables[name], variables, depth + 1).replace("\n", "; ") + rows
    return "${" + (re.sub(r"\W", "_", name) if re.fullmatch(r"[\w.-]+", name) else "_") + "}" + rows


def _arguments(text: str) -> list[str]:
    """Return the arguments of a function of make: what commas outside of brackets separate."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "({") - (letter in ")}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() if number == 0 else part for number, part in enumerate(parts)]


# -- just ------------------------------------------------------------------------------------------

_JUST_SET = re.compile(
    r"^(?:export[ \t]+|alias[ \t]+)?([A-Za-z_][\w-]*)[ \t]*:=[ \t]*(.*)", re.MULTILINE
)


def just(text: str) -> FileSnippets:
    """Return the recipe lines of a justfile; a recipe that begins with `#!` is one script."""
    known: dict[str, str] = {}
    snippets: list[Snippet] = []
    recipe: list[tuple[int, str]] = []

    def ended() -> None:
        if recipe and recipe[0][1].lstrip().startswith("#!"):
            snippets.append(join_rows([(row + 1, line) for row, line in recipe]))
        elif recipe:
            snippets.extend(
                Snippet(part, recipe[0][0] + 1 + row)
                for row, part in logical_lines(
                    "\n".join(re.sub(r"^\s+[@-]*", "", line) for _, line in recipe)
                )
            )
        recipe.clear()

    filled = text
    for name, value in _JUST_SET.findall(text):
        if quoted := re.fullmatch(r"""(["'])(.*)\1\s*(?:#.*)?""", value.strip()):
            known[name.replace("-", "_")] = quoted[2]
            filled = re.sub(
                r"\{\{\s*" + re.escape(name) + r"\s*\}\}", quoted[2].replace("\\", r"\\"), filled
            )
    for row, line in enumerate(replace_templates(filled).split("\n")):
        if line[:1] in (" ", "\t") and line.strip():
            recipe.append((row, line))
        elif line.strip() or not recipe:
            ended()
            for code in re.findall(r"`([^`]+)`", line) if ":=" in line else ():
                snippets.append(Snippet(code, row + 1))
        else:
            recipe.append((row, ""))
    ended()
    return FileSnippets(tuple(snippets), known)


# -- Dockerfile ------------------------------------------------------------------------------------


def dockerfile(text: str) -> FileSnippets:
    """Return the commands of RUN, CMD, ENTRYPOINT, HEALTHCHECK and of ONBUILD.

    Exec form, here-documents and comments within are supported.
    """
    snippets: list[Snippet] = []
    rows = text.split("\n")
    at = 0
    while at < len(rows):
        begun, parts = at, [(at + 1, rows[at])]
        while re.search(r"\\\s*$", parts[-1][1]) and at + 1 < len(rows):
            at += 1
            if not rows[at].lstrip().startswith("#"):  # a comment within is ignored
                parts.append((at + 1, rows[at]))
        at += 1
        found = re.match(
            r"\s*(?:ONBUILD\s+)?(RUN|CMD|ENTRYPOINT|HEALTHCHECK)\s+(.*)", rows[begun], re.IGNORECASE
        )
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
            snippets.append(Snippet(argv=words, line=begun + 1))
            continue
        # the here-document is the script itself
        if here := re.fullmatch(r"<<-?\s*[\"']?(\w+)[\"']?\s*", rest):
            parts = [(line, part) for line, part in parts[1:] if part.strip() != here[1]]
            snippets.append(join_rows(parts))
        else:
            snippets.append(join_rows([(parts[0][0], rest), *parts[1:]]))
    return FileSnippets(tuple(snippets))


def _json_list(text: str) -> tuple[str, ...]:
    try:
        words = json.loads(re.sub(r"\\\s*\n", "", text)) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return ()
    return (
        tuple(words)
        if isinstance(words, list) and all(isinstance(word, str) for word in words)
        else ()
    )


# -- cron, systemd ---------------------------------------------------------------------------------


def crontab(text: str) -> FileSnippets:
    """Return the commands of a crontab: the text after the five fields or the @word.

    Each is read with and without a user before it.
    """
    snippets = []
    for row, line in enumerate(text.split("\n")):
        found = re.match(r"\s*(?:@\w+|(?:[-*/,\w]+\s+){4}[-*/,\w]+)\s+(.*)", line)
        if found and not line.lstrip().startswith("#"):
            snippets.append(Snippet(re.sub(r"(?<!\\)%", "\n", found[1]), rows=(row + 1,)))
            _, blank, command = found[1].partition(" ")
            if blank:
                snippets.append(Snippet(command, row + 1))
    return FileSnippets(tuple(snippets))


def unit(text: str) -> FileSnippets:
    """Return the Exec lines of a systemd unit."""
    snippets = []
    for row, line in logical_lines(text):
        if found := re.match(r"\s*Exec\w+\s*=\s*[-@:+!|]*(.*)", line, re.DOTALL):
            snippets.append(Snippet(found[1], row + 1))
    return FileSnippets(tuple(snippets))


# -- Jenkinsfile, prose ----------------------------------------------------------------------------


_GROOVY = re.compile(
    r"""\b(?:sh|bat|pwsh|powershell)\b[ \t]*\(?[ \t]*(?:\w+:[^\n]{0,200}?)??"""
    r"""(\'{3}|"{3}|['"])(.*?)\1""",
    re.DOTALL,
)


def groovy(text: str) -> FileSnippets:
    """Return the `sh` and `bat` steps of a Jenkinsfile."""
    snippets = []
    line, counted = 1, 0
    for found in _GROOVY.finditer(text):
        line += text.count("\n", counted, found.start(2))
        counted = found.start(2)
        snippets.append(Snippet(found[2], line))
    return FileSnippets(tuple(snippets))


def prose(text: str) -> FileSnippets:
    """Return the code in reStructuredText, AsciiDoc and plain text.

    These are lines that are set apart by indentation, a prompt or a fence, and inline code.
    """
    snippets: list[Snippet] = []
    fenced = False
    for row, line in logical_lines(text):
        bare = line.strip()
        if re.fullmatch(r"```+\w*|----+|\.\.\.\.+", bare):
            fenced = not fenced and bare[0] in "`-."
            continue
        if prompt := PROMPT.match(line):
            snippets.append(Snippet(line[prompt.end() :], row + 1))
        elif fenced or re.match(r"(?: {2,}|\t)\S", line):
            snippets.append(Snippet(bare, row + 1))
        else:
            snippets.extend(
                Snippet(code, rows=(row + 1,))
                for code in (*re.findall(r"``?([^`\n]+)``?", line), *find_told(line))
            )
    return FileSnippets(tuple(snippets))


_TOLD = re.compile(
    r"""\b(?:type|run|execute|enter|use|issue|call)\b[^"“'`.\n]{0,30}"""
    r"""(?:"([^"\n]{6,200})"|“([^”\n]{6,200})”)""",
    re.IGNORECASE,
)


def find_told(line: str) -> Iterator[str]:
    """Yield the quoted commands that a sentence tells people to type."""
    for found in _TOLD.finditer(line):
        text = found[1] or found[2]
        if re.match(r"(?:sudo )?(?:docker|podman|nerdctl)", text):
            yield text


PROMPT = re.compile(
    r"[ \t]*+(?:\([\w.-]+\)[ \t]*+)?(?:[\w.-]+@[\w.:/~-]+|\[[^\]\n]*\]|[~/][\w./~-]*"
    r"|PS [^>\n]*)?[ \t]*+[$%❯➜>][ \t]+(?=\S)"
)
r"""`$ `, `user@host:~$ `, `% `, `PS C:\> `; not `# `, which may be a comment."""
