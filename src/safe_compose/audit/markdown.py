"""Finder for Markdown: fences (each read as its language), indented code, inline code, `<pre>`; and what stands beside them."""

import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from safe_compose.audit import recipes
from safe_compose.audit.judge import MARK
from safe_compose.audit.pieces import Beside, Piece, Read, logical_lines, templates, with_rows
from safe_compose.audit.yaml_files import yaml

_OTHERS = frozenset(
    {
        "js", "javascript", "jsx", "ts", "typescript", "tsx", "mjs", "go", "golang", "rust", "rs", "java", "kotlin", "kt", "scala",
        "c", "cpp", "c++", "h", "cs", "csharp", "sql", "pgsql", "postgresql", "html", "css", "scss", "php", "ruby", "rb", "xml",
        "svg", "proto", "graphql", "swift", "lua", "r", "perl", "mermaid", "plantuml", "dot", "elixir", "haskell", "hcl",
        "terraform", "nginx", "csv", "regex", "latex", "tex", "toml",
    }
)  # fmt: skip
"""Languages whose fences hold no shell. Every other name, and none, is read as shell."""
_FINDERS = {
    "yaml": yaml, "yml": yaml, "make": recipes.make, "makefile": recipes.make, "mk": recipes.make, "dockerfile": recipes.dockerfile,
    "docker": recipes.dockerfile, "just": recipes.just, "justfile": recipes.just, "json": recipes.package_json,
    "jsonc": recipes.package_json, "json5": recipes.package_json, "python": recipes.python, "py": recipes.python,
    "python3": recipes.python, "cron": recipes.crontab, "crontab": recipes.crontab, "systemd": recipes.unit, "ini": recipes.unit,
    "conf": recipes.unit, "service": recipes.unit,
}  # fmt: skip


_SWALLOWED = re.compile(
    r"^[ \t]*(?P<mark>```|~~~)(?P<info>[^`\n]*)\n(?P<content>.*?)(?:^[ \t]*(?P=mark)|\Z)", re.DOTALL | re.MULTILINE
)


class _Block(NamedTuple):
    first: int
    """Of the lines of the file, counted from 1."""
    last: int
    kind: str
    """`fence`, `code`, `html`, `row`, or `text`."""
    content: str
    codes: tuple[tuple[int, str], ...] = ()
    """(line, inline code)."""
    info: str = ""
    group: int = -1
    """Blocks of one quotation belong together."""


def markdown(text: str) -> Read:
    """Every piece of shell in a document."""
    blocks = list(_blocks(_parsed(text)))
    pieces: list[Piece] = []
    known: dict[str, str] = {}
    for index, block in enumerate(blocks):
        if index and blocks[index - 1].kind == "html" and MARK.match(blocks[index - 1].content.strip()):
            continue
        if block.kind == "text" and re.search(r"<!--\s*safe-compose:\s*allow\b(?!-)", block.content):
            continue
        if block.kind == "row" and _marked_table(blocks, index):
            continue
        read = _of_block(block)
        known.update(read.known)
        beside = tuple(_beside(blocks, index))
        pieces += [piece._replace(beside=beside, block=(block.first, block.last)) for piece in read.pieces]
    return Read(tuple(pieces), known)


def outline(text: str) -> list[tuple[str, str, str]]:
    """(kind, tag, content) of everything that a document is made of. Its paragraphs are left out: those of a list come and go with
    blank lines between its items."""
    return [(t.type, t.tag, t.content) for t in _parsed(text) if not t.type.startswith("paragraph_")]


def _parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def html_page(text: str) -> Read:
    """What stands in `<pre>`, `<code>` and `<kbd>` of a page."""
    return Read(tuple(_of_html(_Block(1, text.count("\n") + 1, "html", text))))


def _blocks(tokens: Sequence[Token]) -> Iterator[_Block]:
    quotations: list[int] = []
    row: tuple[int, list[Token]] | None = None
    for number, token in enumerate(tokens):
        group = quotations[0] if quotations else -1
        first, last = (token.map[0] + 1, token.map[1]) if token.map else (0, 0)
        if token.type == "blockquote_open":
            quotations.append(number)
        elif token.type == "blockquote_close":
            quotations.pop()
        elif token.type == "tr_open":
            row = (first, [])
        elif token.type == "tr_close" and row is not None:
            codes = [code for cell in row[1] for code in _codes(cell, row[0])]
            yield _Block(row[0], row[0], "row", " ".join(cell.content for cell in row[1]), tuple(codes), group=group)
            row = None
        elif token.type == "inline":
            if row is not None:
                row[1].append(token)
            else:
                if (opened := tokens[number - 1]).type == "heading_open" and opened.map:
                    last = opened.map[1]  # the line below it, where that is what makes it one
                yield _Block(first, last, "text", token.content, tuple(_codes(token, first)), group=group)
        elif token.type == "fence":
            yield _Block(first, last, "fence", token.content, info=token.info, group=group)
        elif token.type == "code_block":
            yield _Block(first, last, "code", token.content, group=group)
        elif token.type == "html_block":
            yield _Block(first, last, "html", token.content, group=group)


def _codes(token: Token, first: int) -> Iterator[tuple[int, str]]:
    line = first
    for child in token.children or ():
        if child.type in ("softbreak", "hardbreak"):
            line += 1
        elif child.type == "code_inline":
            yield line, child.content


def _marked_table(blocks: Sequence[_Block], index: int) -> bool:
    while index and blocks[index].kind == "row":
        index -= 1
    return blocks[index].kind == "html" and bool(MARK.match(blocks[index].content.strip()))


# -- pieces ------------------------------------------------------------------------------------------------------------


def _of_block(block: _Block) -> Read:
    if block.kind == "fence":
        read = _of_fence(block.info.strip().partition(" ")[0].strip("{}.").lower(), block.content)
        return Read(tuple(piece.moved(block.first) for piece in read.pieces), read.known)
    if block.kind == "code":
        return Read(tuple(piece.moved(block.first - 1) for piece in _console(block.content)))
    if block.kind == "html":
        return Read(tuple(_of_html(block)))
    return Read(tuple(Piece(_filled(code), rows=(line,)) for line, code in block.codes))


def _of_fence(language: str, content: str) -> Read:
    if language in _OTHERS:
        return Read()
    if finder := _FINDERS.get(language):
        read = finder(content)
        return (
            read
            if not read.notes or language in ("python", "py", "python3")
            else Read((*read.pieces, *_console(content)), read.known)
        )
    if language in ("diff", "patch"):
        rows = [(row + 1, line[1:]) for row, line in enumerate(content.split("\n")) if line.startswith("+")]
        return Read((with_rows(rows),) if rows else ())
    return Read(tuple(_console(content)))


def _console(content: str) -> list[Piece]:
    """What is typed in a session: the lines after a prompt where there is one, else all of them."""
    lines = [(row, line) for row, line in logical_lines(content)]
    if not any(recipes.PROMPT.match(line) for _, line in lines):
        return [Piece(_filled(content))]
    pieces = []
    for row, line in lines:
        if prompt := recipes.PROMPT.match(line):
            pieces.append(Piece(_filled(re.sub(r"\n> ", "\n", line[prompt.end() :])), row + 1))
    return pieces


def _filled(text: str) -> str:
    """Placeholders such as `<volume name>` as a word, since a shell would take them for files; templates as variables."""
    return templates(re.sub(r"(?<![<\w])<([A-Za-z](?:[\w .:/|-]*[\w.])?)>(?!\()", lambda m: re.sub(r"\W", "_", m[1]), text))


def _of_html(block: _Block) -> Iterator[Piece]:
    """Code in HTML blocks, without its tags; and fences, which an HTML block swallows where no blank line stands before them (in
    MDX they are fences all the same)."""
    for found in re.finditer(r"<(pre|code|kbd)\b[^<>]*>(.*?)(?:</\1>|\Z)", block.content, re.DOTALL | re.IGNORECASE):
        inner = html.unescape(re.sub(r"<[^<>]*>", "", found[2]))
        line = block.first + block.content.count("\n", 0, found.start(2))
        yield from (piece.moved(line - 1) for piece in _console(inner))
    for fence in _SWALLOWED.finditer(block.content):
        line = block.first + block.content.count("\n", 0, fence.start())
        inside = _Block(line, line, "fence", textwrap.dedent(fence["content"]), info=fence["info"])
        yield from _of_block(inside).pieces


# -- what stands beside ------------------------------------------------------------------------------------------------


def _beside(blocks: Sequence[_Block], index: int) -> Iterator[Beside]:
    """A block's own words, and those of the text before and after it; of a table the text before and after that."""
    own = blocks[index]
    if own.kind in ("text", "row"):
        yield _told(blocks, index)
    for step in (-1, 1):
        at = index + step
        while own.kind == "row" and 0 <= at < len(blocks) and blocks[at].kind == "row":
            at += step
        if 0 <= at < len(blocks) and blocks[at].kind == "text":
            yield _told(blocks, at)


def _told(blocks: Sequence[_Block], index: int) -> Beside:
    group = blocks[index].group
    same = [b for b in blocks if b.group == group and b.kind == "text"] if group >= 0 else [blocks[index]]
    return Beside(" ".join(b.content for b in same), tuple(code for b in same for _, code in b.codes))
