"""What finders give: the pieces of shell in a file, each with the lines on which it stands."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

WORD = 1 << 20


class Beside(NamedTuple):
    """A block of a document that stands with a piece of shell: its own, the one before it, the one after it."""

    prose: str
    codes: tuple[str, ...]
    """What is set as code in it."""


class Piece(NamedTuple):
    """One piece of shell (`text`), or one command that is already split into words (`argv`)."""

    text: str = ""
    line: int = 1
    """Of the file, counted from 1, where the first row of the text stands."""
    rows: tuple[int, ...] = ()
    """The line of each row, where they do not follow each other; of `argv`, the line of each word."""
    argv: tuple[str, ...] = ()
    beside: tuple[Beside, ...] = ()
    block: tuple[int, int] | None = None
    """First and last line of the block of a document that it is in: where a warning can be written."""

    def at(self, row: int) -> int:
        """The line of the file for a row of the text, or for a word of `argv` (its number times WORD, and a row within it)."""
        if self.argv:
            return (self.rows[min(row // WORD, len(self.rows) - 1)] if self.rows else self.line) + row % WORD
        if self.rows:
            return self.rows[min(row, len(self.rows) - 1)]
        return self.line + row

    def moved(self, lines: int) -> "Piece":
        """The same, further down."""
        return self._replace(line=self.line + lines, rows=tuple(row + lines for row in self.rows))


class Read(NamedTuple):
    """What a finder read in one file."""

    pieces: tuple[Piece, ...] = ()
    known: Mapping[str, str] = {}
    """Variables that the file gives a value."""
    notes: tuple[tuple[int, str], ...] = ()
    """(line, what could not be read as what it is)."""


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(row, text) of each line with those that a backslash at its end joins to it; the backslash stays."""
    rows = text.split("\n")
    at = 0
    while at < len(rows):
        end = at
        while end + 1 < len(rows) and re.search(r"(?<!\\)(\\\\)*\\\r?$", rows[end]):
            end += 1
        yield at, "\n".join(rows[at : end + 1])
        at = end + 1


_TEMPLATE = re.compile(r"\$?\{\{([^{}]{0,500})\}\}")


def templates(text: str) -> str:
    """A text with `{{ x.NAME }}` and `${{ x.NAME }}` as `${NAME}`: to a shell a word whose value is not known."""

    def one(found: "re.Match[str]") -> str:
        names = re.findall(r"[A-Za-z_]\w*", found[1].partition("|")[0])
        return "${" + (names[-1] if names else "_") + "}" + "\n" * found[0].count("\n")

    return _TEMPLATE.sub(one, text) if "{{" in text else text


_ASSIGNED = re.compile(
    r"^[ \t-]*(?:(?:export|readonly|local|declare|let|ARG|ENV)[ \t]+)?([A-Za-z_]\w*)[ \t]*[:?+]?=[ \t]*(\S.*)$", re.MULTILINE
)


def assigned(text: str) -> dict[str, str]:
    """Variables that lines of any kind of file set to something that starts docker, or to flags.

    >>> assigned('COMPOSE := docker compose -f prod.yml  # there')
    {'COMPOSE': 'docker compose -f prod.yml'}
    """
    found = {}
    for name, value in _ASSIGNED.findall(text):
        value = re.sub(r"(?<=\S)\s++#.*$", "", value.rstrip("\r;"))
        quoted = re.fullmatch(r"""(["'])(.*?)\1.*""", value)
        value = quoted[2] if quoted else value
        if re.search(r"docker|compose|podman|nerdctl|^-", value) and not re.search(r"[`$;|&<>]", value):
            found[name] = value.strip()
    return found


def with_rows(pieces: Sequence[tuple[int, str]]) -> Piece:
    """One piece of (line, text) rows that need not follow each other."""
    return Piece("\n".join(text for _, text in pieces), rows=tuple(line for line, _ in pieces))
