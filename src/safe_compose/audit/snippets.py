"""The results of finders: the snippets of shell in a file, each with its lines."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

WORD = 1 << 20


class SurroundingText(NamedTuple):
    """A block of a document near a snippet: its own, the one before it, the one after it."""

    prose: str
    codes: tuple[str, ...]
    """The inline code in it."""


class Snippet(NamedTuple):
    """A snippet of shell (`text`), or a command that is already split into words (`argv`)."""

    text: str = ""
    line: int = 1
    """The line of the file, counted from 1, with the first row of the text."""
    rows: tuple[int, ...] = ()
    """The line of each row, where they are not consecutive; for `argv`, the line of each word."""
    argv: tuple[str, ...] = ()
    surroundings: tuple[SurroundingText, ...] = ()
    block: tuple[int, int] | None = None
    """First and last line of its block in a document, where a warning can be written."""

    def at(self, row: int) -> int:
        """Return the line of the file for a row of the text, or for a word of `argv`.

        For a word, `row` is its number times WORD, plus a row within it.
        """
        if self.argv:
            return (
                self.rows[min(row // WORD, len(self.rows) - 1)] if self.rows else self.line
            ) + row % WORD
        if self.rows:
            return self.rows[min(row, len(self.rows) - 1)]
        return self.line + row

    def move_down(self, lines: int) -> "Snippet":
        """Return the snippet moved down by a number of lines."""
        return self._replace(line=self.line + lines, rows=tuple(row + lines for row in self.rows))


class FileSnippets(NamedTuple):
    """The content that a finder read in one file."""

    snippets: tuple[Snippet, ...] = ()
    known: Mapping[str, str] = {}
    """Variables with a value in the file."""
    notes: tuple[tuple[int, str], ...] = ()
    """(line, description of a part that could not be read as its kind)."""


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (row, text) of each line, joined with its continuation lines; the backslashes stay."""
    rows = text.split("\n")
    at = 0
    while at < len(rows):
        end = at
        while end + 1 < len(rows) and re.search(r"(?<!\\)(\\\\)*\\\r?$", rows[end]):
            end += 1
        yield at, "\n".join(rows[at : end + 1])
        at = end + 1


_TEMPLATE = re.compile(r"\$?\{\{([^{}]{0,500})\}\}")


def replace_templates(text: str) -> str:
    """Return a text with `{{ x.NAME }}` and `${{ x.NAME }}` as `${NAME}`.

    To a shell that is a word with an unknown value.
    """

    def one(found: "re.Match[str]") -> str:
        names = re.findall(r"[A-Za-z_]\w*", found[1].partition("|")[0])
        return "${" + (names[-1] if names else "_") + "}" + "\n" * found[0].count("\n")

    return _TEMPLATE.sub(one, text) if "{{" in text else text


_ASSIGNED = re.compile(
    r"^[ \t-]*(?:(?:export|readonly|local|declare|let|ARG"
    r"|ENV)[ \t]+)?([A-Za-z_]\w*)[ \t]*[:?+]?=[ \t]*(\S.*)$",
    re.MULTILINE,
)


def find_assignments(text: str) -> dict[str, str]:
    """Return variables that lines of any file set to a command with docker, or to flags.

    >>> find_assignments('COMPOSE := docker compose -f prod.yml  # there')
    {'COMPOSE': 'docker compose -f prod.yml'}
    """
    found = {}
    for name, value in _ASSIGNED.findall(text):
        value = re.sub(r"(?<=\S)\s++#.*$", "", value.rstrip("\r;"))
        quoted = re.fullmatch(r"""(["'])(.*?)\1.*""", value)
        value = quoted[2] if quoted else value
        if re.search(r"docker|compose|podman|nerdctl|^-", value) and not re.search(
            r"[`$;|&<>]", value
        ):
            found[name] = value.strip()
    return found


def join_rows(snippets: Sequence[tuple[int, str]]) -> Snippet:
    """Return one snippet of (line, text) rows that need not be consecutive."""
    return Snippet(
        "\n".join(text for _, text in snippets), rows=tuple(line for line, _ in snippets)
    )
