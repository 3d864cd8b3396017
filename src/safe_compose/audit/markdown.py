"""The finder for Markdown: code in a document, and the text around it.

It reads fences (each as its language), indented code, inline code and `<pre>`.
"""

import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from safe_compose.audit import data_files, formats, source_code
from safe_compose.audit.findings import MARK
from safe_compose.audit.snippets import (
    FileSnippets,
    Snippet,
    SurroundingText,
    join_rows,
    logical_lines,
    replace_templates,
)
from safe_compose.audit.yaml import yaml

_OTHERS = frozenset(
    {
        "js", "javascript", "jsx", "ts", "typescript", "tsx", "mjs", "go", "golang", "rust", "rs",
        "java", "kotlin", "kt", "scala", "c", "cpp", "c++", "h", "cs", "csharp", "sql", "pgsql",
        "postgresql", "html", "css", "scss", "php", "ruby", "rb", "xml", "svg", "proto", "graphql",
        "swift", "lua", "r", "perl", "mermaid", "plantuml", "dot", "elixir", "haskell", "hcl",
        "terraform", "nginx", "csv", "regex", "latex", "tex", "toml",
    }
)  # fmt: skip
"""Languages whose fences hold no shell. A fence with any other name, or none, is read as shell."""
_FINDERS = {
    "yaml": yaml, "yml": yaml, "make": formats.make, "makefile": formats.make, "mk": formats.make,
    "dockerfile": formats.dockerfile, "docker": formats.dockerfile, "just": formats.just,
    "justfile": formats.just, "json": data_files.package_json, "jsonc": data_files.package_json,
    "json5": data_files.package_json, "python": source_code.python, "py": source_code.python,
    "python3": source_code.python, "cron": formats.crontab, "crontab": formats.crontab,
    "systemd": formats.unit, "ini": formats.unit, "conf": formats.unit, "service": formats.unit,
}  # fmt: skip


_SWALLOWED = re.compile(
    r"^[ \t]*(?P<mark>```|~~~)(?P<info>[^`\n]*)\n(?P<content>.*?)(?:^[ \t]*(?P=mark)|\Z)",
    re.DOTALL | re.MULTILINE,
)


class _Block(NamedTuple):
    first: int
    """The first line in the file, counted from 1."""
    last: int
    kind: str
    """`fence`, `code`, `html`, `row`, or `text`."""
    content: str
    codes: tuple[tuple[int, str], ...] = ()
    """(line, inline code)."""
    info: str = ""
    group: int = -1
    """The quotation of the block: blocks of one quotation belong together."""


def markdown(text: str) -> FileSnippets:
    """Return every snippet of shell in a document."""
    blocks = list(_blocks(_parse(text)))
    snippets: list[Snippet] = []
    known: dict[str, str] = {}
    for index, block in enumerate(blocks):
        if (
            index
            and blocks[index - 1].kind == "html"
            and MARK.match(blocks[index - 1].content.strip())
        ):
            continue
        if block.kind == "text" and re.search(
            r"<!--\s*safe-compose:\s*allow\b(?!-)", block.content
        ):
            continue
        if block.kind == "row" and _is_marked_table(blocks, index):
            continue
        read = _read_block(block)
        known.update(read.known)
        surroundings = tuple(_find_surroundings(blocks, index))
        snippets += [
            snippet._replace(surroundings=surroundings, block=(block.first, block.last))
            for snippet in read.snippets
        ]
    return FileSnippets(tuple(snippets), known)


def outline(text: str) -> list[tuple[str, str, str]]:
    """Return (kind, tag, content) of all elements of a document except paragraphs.

    Paragraphs of a list appear and disappear with blank lines between its items.
    """
    return [(t.type, t.tag, t.content) for t in _parse(text) if not t.type.startswith("paragraph_")]


def _parse(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def html_page(text: str) -> FileSnippets:
    """Return the code in `<pre>`, `<code>` and `<kbd>` of a page."""
    return FileSnippets(tuple(_read_html(_Block(1, text.count("\n") + 1, "html", text))))


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
            yield _Block(
                row[0],
                row[0],
                "row",
                " ".join(cell.content for cell in row[1]),
                tuple(codes),
                group=group,
            )
            row = None
        elif token.type == "inline":
            if row is not None:
                row[1].append(token)
            else:
                if (opened := tokens[number - 1]).type == "heading_open" and opened.map:
                    last = opened.map[1]  # the line below it, where that makes it a heading
                yield _Block(
                    first, last, "text", token.content, tuple(_codes(token, first)), group=group
                )
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


def _is_marked_table(blocks: Sequence[_Block], index: int) -> bool:
    while index and blocks[index].kind == "row":
        index -= 1
    return blocks[index].kind == "html" and bool(MARK.match(blocks[index].content.strip()))


# -- snippets --------------------------------------------------------------------------------------


def _read_block(block: _Block) -> FileSnippets:
    if block.kind == "fence":
        read = _read_fence(block.info.strip().partition(" ")[0].strip("{}.").lower(), block.content)
        return FileSnippets(
            tuple(snippet.move_down(block.first) for snippet in read.snippets), read.known
        )
    if block.kind == "code":
        return FileSnippets(
            tuple(snippet.move_down(block.first - 1) for snippet in _console(block.content))
        )
    if block.kind == "html":
        return FileSnippets(tuple(_read_html(block)))
    told = [
        (block.first + row, code)
        for row, line in enumerate(block.content.split("\n"))
        for code in (*formats.find_told(line), *_attributes(line))
    ]
    return FileSnippets(
        tuple(
            Snippet(_fill_placeholders(code), rows=(line,)) for line, code in (*block.codes, *told)
        )
    )


def _read_fence(language: str, content: str) -> FileSnippets:
    if language in _OTHERS:
        return FileSnippets()
    if finder := _FINDERS.get(language):
        read = finder(content)
        return (
            read
            if not read.notes or language in ("python", "py", "python3")
            else FileSnippets((*read.snippets, *_console(content)), read.known)
        )
    if language in ("diff", "patch"):
        rows = [
            (row + 1, line[1:])
            for row, line in enumerate(content.split("\n"))
            if line.startswith("+")
        ]
        return FileSnippets((join_rows(rows),) if rows else ())
    return FileSnippets(tuple(_console(content)))


def _console(content: str) -> list[Snippet]:
    """Return the input of a terminal session.

    It is the lines after a prompt if there is one, or else all lines.
    """
    lines = [(row, line) for row, line in logical_lines(content)]
    if not any(formats.PROMPT.match(line) for _, line in lines):
        return [Snippet(_fill_placeholders(content))]
    snippets = []
    for row, line in lines:
        if prompt := formats.PROMPT.match(line):
            snippets.append(
                Snippet(_fill_placeholders(re.sub(r"\n> ", "\n", line[prompt.end() :])), row + 1)
            )
    return snippets


def _fill_placeholders(text: str) -> str:
    """Return a text with placeholders such as `<volume name>` as words, and templates as variables.

    A shell would take such placeholders for files.
    """
    return replace_templates(
        re.sub(
            r"(?<![<\w])<([A-Za-z](?:[\w .:/|-]*[\w.])?)>(?!\()",
            lambda m: re.sub(r"\W", "_", m[1]),
            text,
        )
    )


def _read_html(block: _Block) -> Iterator[Snippet]:
    """Yield code in HTML blocks, without its tags, and fences in them.

    An HTML block swallows a fence without a blank line before it, which is still a fence in MDX.
    """
    for found in re.finditer(
        r"<(pre|code|kbd)\b[^<>]*>(.*?)(?:</\1>|\Z)", block.content, re.DOTALL | re.IGNORECASE
    ):
        inner = html.unescape(re.sub(r"<[^<>]*>", "", found[2]))
        line = block.first + block.content.count("\n", 0, found.start(2))
        yield from (snippet.move_down(line - 1) for snippet in _console(inner))
    for row, text in enumerate(block.content.split("\n")):
        for code in _attributes(text):
            yield Snippet(_fill_placeholders(code), rows=(block.first + row,))
    for fence in _SWALLOWED.finditer(block.content):
        line = block.first + block.content.count("\n", 0, fence.start())
        inside = _Block(line, line, "fence", textwrap.dedent(fence["content"]), info=fence["info"])
        yield from _read_block(inside).snippets


def _attributes(line: str) -> Iterator[str]:
    """Yield the commands in attributes of a component, such as `<CopyCodeBlock code="..." />`."""
    for tag in re.findall(r"<[A-Za-z][\w.-]*\s[^<>]{0,1000}", line):
        for _, text in re.findall(
            r"""\b(?:code|command|cmd|copy|content|text|value|snippet|data-clipboard-text)"""
            r"""=\{?(["'`])(.{1,500}?)\1""",
            tag,
        ):
            yield html.unescape(text)


# -- surrounding text ------------------------------------------------------------------------------


def _find_surroundings(blocks: Sequence[_Block], index: int) -> Iterator[SurroundingText]:
    """Yield a block's own text, and the text before and after it.

    For a row, the texts before and after the table count.
    """
    own = blocks[index]
    if own.kind in ("text", "row"):
        yield _read_surroundings(blocks, index)
    for step in (-1, 1):
        at = index + step
        while own.kind == "row" and 0 <= at < len(blocks) and blocks[at].kind == "row":
            at += step
        if 0 <= at < len(blocks) and blocks[at].kind == "text":
            yield _read_surroundings(blocks, at)


def _read_surroundings(blocks: Sequence[_Block], index: int) -> SurroundingText:
    group = blocks[index].group
    same = (
        [b for b in blocks if b.group == group and b.kind == "text"]
        if group >= 0
        else [blocks[index]]
    )
    return SurroundingText(
        " ".join(b.content for b in same), tuple(code for b in same for _, code in b.codes)
    )
