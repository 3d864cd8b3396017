"""Lines of styled text that are no wider than the terminal.

A name is never cut and never hyphenated: what does not fit on a line begins the next one, and only
a word that is wider than the whole terminal goes on there.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells

from safe_compose.core.line_wrap import HANGING, NARROWEST
from safe_compose.core.text import make_visible


class Span(NamedTuple):
    """A part of a line, in one style."""

    text: str
    style: str = ""

    @property
    def width(self) -> int:
        """The columns that it takes."""
        return cell_len(self.text)


Line = tuple[Span, ...]


def make_span(text: str, style: str = "", longest: int | None = None) -> Span:
    """Return a visible text in a style."""
    return Span(make_visible(text) if longest is None else make_visible(text, longest), style)


def measure(line: Iterable[Span]) -> int:
    """Return the columns that a line takes."""
    return sum(span.width for span in line)


def read_plain(line: Iterable[Span]) -> str:
    """Return a line without its styles."""
    return "".join(span.text for span in line)


def fill(
    fields: Sequence[Span], width: int, *, separator: str = "  ", indent: int = 0, hanging: int = -1
) -> list[Line]:
    """Return fields as lines: each on the current one if it fits there, or else on the next.

    Args:
        fields: The fields; one without text is left out.
        width: The columns of the terminal.
        separator: The text between two fields of one line.
        indent: The columns before the first line.
        hanging: The columns before each further line; by default two more than `indent`.
    """
    width = max(width, NARROWEST)
    further = indent + HANGING if hanging < 0 else hanging
    lines: list[list[Span]] = [[Span(" " * indent)] if indent else []]
    used, empty = indent, True
    shown = [field for field in fields if field.text]
    for field in shown:
        # What follows may begin the next line, and this one then ends with the separator's comma.
        limit = width if field is shown[-1] else width - cell_len(separator.rstrip())
        between = 0 if empty else cell_len(separator)
        if used + between + field.width > limit and not empty:
            lines[-1] = _strip_end(lines[-1], separator)
            lines.append([Span(" " * further)] if further else [])
            used, empty, between = further, True, 0
        for place, part in enumerate(_fold(field.text, limit - used - between, limit - further)):
            if place:
                lines.append([Span(" " * further)] if further else [])
                used, empty, between = further, True, 0
            if between:
                lines[-1].append(Span(separator))
            lines[-1].append(Span(part, field.style))
            used, empty = used + between + cell_len(part), False
    return [tuple(line) for line in lines if line]


def fill_words(text: str, width: int, *, style: str = "", indent: int = 0) -> list[Line]:
    """Return a sentence as lines."""
    return fill([make_span(text, style)], width, indent=indent)


def fold_question(question: str, columns: int) -> str:
    """Return a question on as many lines as it needs, none of which ends inside of a name.

    One column stays free, so that the answer does not begin on a line of its own.
    """
    if cell_len(question) < columns:
        return question
    words = [make_span(word) for word in question.rstrip(" ").split(" ")]
    lines = [read_plain(line) for line in fill(words, columns - 1, separator=" ")]
    return "\n".join(lines) + question[len(question.rstrip(" ")) :]


def _strip_end(line: list[Span], separator: str) -> list[Span]:
    """Keep the comma of a list at the end of a line, and drop other separators."""
    return [*line, Span(separator.rstrip())] if separator.strip() else line


def _fold(text: str, first: int, further: int) -> Iterator[str]:
    """Yield the parts of a text for a line with `first` columns and lines with `further`."""
    room = first
    while cell_len(text) > room:
        head = chop_cells(text, room)[0] if room > 0 else ""
        if text[len(head) : len(head) + 1] != " " and (space := head.rfind(" ")) > 0:
            head = head[:space]
        if not head:  # a character that is wider than what is left
            head = text[:1]
        yield head.rstrip(" ")
        text, room = text[len(head) :].lstrip(" "), further
    if text:
        yield text
