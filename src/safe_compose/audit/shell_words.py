"""The words of a line of shell, and their values as far as the text shows them."""

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import tree_sitter

_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|[uU]([0-9A-Fa-f]{1,8})|(.))", re.DOTALL
)
_CONTROLS = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "e": "\x1b",
    "f": "\f",
    "v": "\v",
}


class Part(NamedTuple):
    """A part of a word whose value is not known as a whole."""

    text: str
    """Its value, or its source where it is a variable or a substitution."""
    name: str = ""
    """The name of the variable; `@`, `1`, `a[@]` as well."""
    default: str = ""
    """The source of the value that is used when the variable is not set."""
    script: str = ""
    """The text of a command substitution."""
    quoted: bool = False

    @property
    def known(self) -> bool:
        """Return whether the part is its text."""
        return not self.name and not self.script


class Word(NamedTuple):
    """A word of a command."""

    text: str
    """Its value without quotes where `sure`; else its source, with `$x` and `$(...)` unexpanded."""
    sure: bool = True
    """Whether its value is known before it runs."""
    bare: bool = True
    """Whether no part of it was quoted, so that an alias of that name applies."""
    row: int = 0
    """The line of the text on which it begins, counted from 0."""
    parts: tuple[Part, ...] = ()
    """Its parts, where it is not sure."""
    origin: str = ""
    """Where an unknown value comes from, as far as that matters: `ids` (names of containers or
    volumes), `mountpoint` (a volume's folder), `paths` (files below the folder that is its text),
    `decoded`, `downloaded`, `file` (the content of the file that is its text); `braces` where a
    known one is an alternative of several."""


_NAMES = {"com.docker.cli": "docker", "docker_compose": "docker-compose"}
_VERSIONED = re.compile(r"docker-compose(?:[-_.]?v?\d[\w.-]*|-plugin|-linux-\w+)")


def name_program(word: Word) -> str | None:
    """Return the name of the program that a command word starts.

    None when the word is unknown (variables, globs, braces).
    """
    if not word.sure or (word.bare and re.search(r"[*?\[{]", word.text) and word.text not in "[[{"):
        return None
    name = re.split(r"[/\\]", word.text)[-1].removesuffix(".exe")
    return "docker-compose" if _VERSIONED.fullmatch(name) else _NAMES.get(name, name)


class ShellSource(NamedTuple):
    """The text of some nodes.

    The parser gets one byte for each character, so its offsets are those of the text.
    """

    text: str
    row: int
    """The line of the whole text on which it begins."""


def read_text(node: "tree_sitter.Node", source: ShellSource) -> str:
    """Return the text of a node."""
    return source.text[node.start_byte : node.end_byte]


def find_row(node: "tree_sitter.Node", source: ShellSource) -> int:
    """Return the line of the whole text on which a node begins, counted from 0."""
    return source.row + node.start_point[0]


def read_word(node: "tree_sitter.Node", source: ShellSource) -> Word:
    """Return the value of one word, as far as its text shows it."""
    raw, row = read_text(node, source), find_row(node, source)
    match node.type:
        case "raw_string":
            return Word(raw[1:-1], bare=False, row=row)
        case "ansi_c_string":
            return Word(unescape(raw[2:-1]), bare=False, row=row)
        case "translated_string":
            return _string(raw[1:], node.children[-1] if node.children else node, source, row)
        case "string":
            return _string(raw, node, source, row)
        case "concatenation":
            parts = [
                (
                    read_word(child, source)
                    if child.type != "concatenation"
                    else Word(read_text(child, source), False)
                )
                for child in node.children
            ]
            sure = all(p.sure for p in parts)
            return Word(
                "".join(p.text for p in parts),
                sure,
                all(p.bare for p in parts),
                row,
                () if sure else tuple(part for p in parts for part in split_parts(p)),
            )
        case (
            "word"
            | "number"
            | "variable_name"
            | "special_variable_name"
            | "regex"
            | "extglob_pattern"
            | "test_operator"
        ):
            plain = re.sub(r"\\(.)", lambda m: "" if m[1] == "\n" else m[1], raw, flags=re.DOTALL)
            return Word(plain, bare="\\" not in raw, row=row)
    sure = node.child_count == 0 and "$" not in raw and "`" not in raw
    return Word(raw, sure, bare=False, row=row, parts=() if sure else (_part(node, source),))


def split_parts(word: Word) -> tuple[Part, ...]:
    """Return the parts of a word; a known one is its own single part."""
    return word.parts or (Part(word.text, quoted=not word.bare),)


def _part(node: "tree_sitter.Node", source: ShellSource, *, quoted: bool = False) -> Part:
    """Return the part that an expansion or a substitution is."""
    raw = read_text(node, source)
    if node.type == "simple_expansion":
        return Part(raw, raw[1:], quoted=quoted)
    if node.type == "expansion":
        found = re.fullmatch(r"\$\{(\w+|[@*#?])(\[[^]]*\])?(?::?([-=+])(.*))?\}", raw, re.DOTALL)
        if found:
            index = "[@]" if found[2] in ("[@]", "[*]") else found[2] or ""
            name = found[1] + index
            default = re.sub(r"^(['\"])(.*)\1$", r"\2", found[4] or "")
            return Part(raw, name, default, quoted=quoted)
    elif node.type in ("command_substitution", "process_substitution"):
        inner = raw[1:-1] if raw.startswith("`") else raw[2:-1]
        # a file's name stands for a process substitution: its output is no word
        name = "<(" if node.type == "process_substitution" else ""
        return Part(raw, name, script=inner or " ", quoted=quoted)
    return Part(raw, name="?", quoted=quoted)


def _string(raw: str, node: "tree_sitter.Node", source: ShellSource, row: int) -> Word:
    sure = all(child.type in ('"', "string_content") for child in node.children)
    if sure:
        return Word(_unquote_double(raw[1:-1]), bare=False, row=row)
    parts = []
    at = node.start_byte + 1
    for child in node.children:
        if child.type in ('"', "string_content"):
            continue
        if child.start_byte > at:
            parts.append(Part(_unquote_double(source.text[at : child.start_byte]), quoted=True))
        parts.append(_part(child, source, quoted=True))
        at = child.end_byte
    if node.end_byte - 1 > at:
        parts.append(Part(_unquote_double(source.text[at : node.end_byte - 1]), quoted=True))
    return Word(raw[1:-1].replace('\\"', '"'), False, False, row, tuple(parts))


def _unquote_double(inner: str) -> str:
    return re.sub(r'\\(["\\$`\n])', lambda m: "" if m[1] == "\n" else m[1], inner)


def unescape(text: str) -> str:
    """Return a text with the escapes of `$'...'` and of `printf` formats replaced."""

    def one(found: "re.Match[str]") -> str:
        hexadecimal, octal, point, letter = found.groups()
        if letter is not None:
            return _CONTROLS.get(letter, letter)
        number = int(hexadecimal or point, 16) if octal is None else int(octal, 8)
        return chr(number) if number < 0x110000 else found[0]

    return _ESCAPE.sub(one, text)


def cut_unclosed(text: str) -> str:
    """Return a text without its end from the line on which an unclosed quote begins.

    A shell runs nothing of that line. Texts with nested quoting are returned as they are.
    """
    if re.search(r"\$\(|`|<<|\$\{", text):
        return text
    quote, begun = "", 0
    index = 0
    while index < len(text):
        letter = text[index]
        if quote:
            if letter == quote:
                quote = ""
            elif letter == "\\" and quote == '"':
                index += 1
        elif letter == "\\":
            index += 1
        elif letter in "'\"":
            quote, begun = letter, index
        elif letter == "#" and (index == 0 or text[index - 1] in " \t\n;&|()"):
            index = (text + "\n").find("\n", index)
        index += 1
    return text[: text.rfind("\n", 0, begun) + 1] if quote else text
