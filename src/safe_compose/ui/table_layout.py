"""The layout of a table for a terminal of some width.

A name, an id, a path, a size or an age is never cut inside and never broken over two lines. What
does not fit is dropped by rank; what must stay goes below its row. This module is pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len

from safe_compose.core.text import LONGEST_CELL, make_visible
from safe_compose.ui.lines import Span

GAP = 2
"""Spaces between two columns."""
NARROW = 30
"""Columns that a sentence needs at the right of its row; with fewer it goes below it."""
INDENT = 4
"""Spaces before what stands below its row."""
GOOD, CAREFUL, BAD, FAINT, HEADING = "green", "yellow", "red", "dim", "bold"
"""What colours mean: verified or in order; look at it; lost, broken or about to be deleted; less
important; a heading. Nothing else is coloured."""


class Cell(NamedTuple):
    """One value of a table."""

    text: str
    """For people."""
    exact: str | None = None
    """For programs: a full id, bytes, RFC 3339; None: the same as `text`."""
    style: str = ""


class Column(NamedTuple):
    """A column of a table."""

    name: str
    rank: int = 0
    """The column with the highest rank is dropped first; 0 is never dropped."""
    is_prose: bool = False
    """Whether it is a sentence or a list of names, which may be broken between two words."""
    is_number: bool = False
    """Whether it is aligned at the right."""


class Layout(NamedTuple):
    """The lines of a table, and what they lack."""

    lines: list[list[Span]]
    dropped: tuple[str, ...]
    """Names of the columns that the width has no space for."""


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> Layout:
    """Return a table as lines of at most `width` columns.

    Only a single word that is wider than the terminal makes a longer line. Columns without any text
    are left out.
    """
    shown = [
        [cell._replace(text=make_visible(cell.text, LONGEST_CELL)) for cell in row] for row in rows
    ]
    used = [n for n in range(len(columns)) if any(row[n].text for row in shown)]
    widths = {
        n: max(cell_len(columns[n].name), *(cell_len(row[n].text) for row in shown)) for n in used
    }
    whole = _drop_by_rank(columns, used, widths, width)
    head = whole if whole is not None else _choose_head(columns, used, widths, width)
    below = [n for n in used if n not in head and columns[n].rank == 0]
    left = width - _measure(head, widths) - GAP
    hangs = len(below) == 1 and below[0] == used[-1] and columns[below[0]].is_prose
    if hangs and left >= NARROW and all(_fits(row[below[0]].text, left) for row in shown):
        return Layout(_hang(columns, shown, [*head, below[0]], widths, left), ())
    lines = [_align([Span(columns[n].name, HEADING) for n in head], columns, head, widths)]
    for row in shown:
        lines.append(_align([Span(row[n].text, row[n].style) for n in head], columns, head, widths))
        lines += _lay_below([(columns[n], row[n]) for n in below if row[n].text], width)
    dropped = tuple(columns[n].name for n in used if n not in head and n not in below)
    return Layout(lines, dropped)


def _fits(text: str, width: int) -> bool:
    return all(cell_len(word) <= width for word in text.split(" "))


def _hang(
    columns: Sequence[Column],
    shown: Sequence[Sequence[Cell]],
    chosen: Sequence[int],
    widths: dict[int, int],
    space: int,
) -> list[list[Span]]:
    """Return the lines of a table whose last column is broken between words."""
    *head, last = chosen
    lines = [_align([Span(columns[n].name, HEADING) for n in chosen], columns, chosen, widths)]
    margin = Span(" " * (_measure(head, widths) + GAP))
    for row in shown:
        first, *more = wrap(row[last].text, space, space)
        spans = [Span(row[n].text, row[n].style) for n in head]
        lines.append(_align([*spans, Span(first, row[last].style)], columns, chosen, widths))
        lines += [[margin, Span(piece, row[last].style)] for piece in more]
    return lines


def _measure(chosen: Sequence[int], widths: dict[int, int]) -> int:
    return sum(widths[n] for n in chosen) + GAP * max(0, len(chosen) - 1)


def _drop_by_rank(
    columns: Sequence[Column], used: Sequence[int], widths: dict[int, int], width: int
) -> list[int] | None:
    """Return the columns that fit after others were dropped; None: those of rank 0 do not fit."""
    left = list(used)
    while _measure(left, widths) > width:
        last = max(left, key=lambda n: (columns[n].rank, n), default=None)
        if last is None or columns[last].rank == 0:
            return None
        left.remove(last)
    return left


def _choose_head(
    columns: Sequence[Column], used: Sequence[int], widths: dict[int, int], width: int
) -> list[int]:
    """Return the columns of the first line where not all of rank 0 fit; prose goes below.

    What may be dropped is there only if nothing but prose goes below.
    """
    head: list[int] = []
    pushed = False
    for n in sorted(used, key=lambda n: (columns[n].rank, n)):
        fits = _measure([*head, n], widths) <= width and not (pushed and columns[n].rank)
        if not head or (fits and not columns[n].is_prose):
            head.append(n)
        pushed = pushed or (n not in head and not columns[n].is_prose)
    return sorted(head)


def _align(
    spans: Sequence[Span], columns: Sequence[Column], head: Sequence[int], widths: dict[int, int]
) -> list[Span]:
    """Return a line whose spans stand below each other, without spaces at its end."""
    line: list[Span] = []
    for n, span in zip(head, spans, strict=True):
        space = " " * (widths[n] - cell_len(span.text))
        before, after = (space, "") if columns[n].is_number else ("", space)
        line += [Span(before), span, Span(after + " " * GAP)]
    while line and not line[-1].text.strip():
        line.pop()
    return line


def _lay_below(pairs: Sequence[tuple[Column, Cell]], width: int) -> Iterator[list[Span]]:
    """Yield the lines below a row: `name: text`, several on a line where they fit."""
    line: list[Span] = []
    for column, cell in pairs:
        field = [Span(f"{column.name}: ", FAINT), Span(cell.text, cell.style)]
        if line and measure_line([*line, Span(" " * GAP), *field]) <= width:
            line += [Span(" " * GAP), *field]
            continue
        if line:
            yield line
        *above, line = lay_field(*field, width=width, indent=INDENT)
        yield from above
    if line:
        yield line


def lay_field(
    label: Span, value: Span, *, width: int, indent: int, margin: int | None = None
) -> list[list[Span]]:
    """Return a label and its value as lines.

    A word that does not fit after the label has a line of its own, from the first column on where
    it would not fit otherwise: a terminal lets it be copied whole then.

    Args:
        label: The label, with the spaces after it.
        value: The value.
        width: The width of the terminal.
        indent: The spaces before the label.
        margin: The spaces before later lines; None: as many as before the label.
    """
    margin = indent if margin is None else margin
    first, later = width - indent - cell_len(label.text), width - margin
    pieces = wrap(value.text, first, later)
    if cell_len(pieces[0]) > first:
        pieces = ["", *wrap(value.text, later, later)]
    lines = [[Span(" " * indent), label, Span(pieces[0], value.style)]]
    for piece in pieces[1:]:
        lines.append(
            [Span(" " * (margin if cell_len(piece) <= later else 0)), Span(piece, value.style)]
        )
    return lines


def measure_line(line: Iterable[Span]) -> int:
    """Return the number of columns of a line."""
    return sum(cell_len(span.text) for span in line)


def wrap(text: str, first: int, later: int) -> list[str]:
    """Return a text as lines, broken at spaces alone; a longer word has a line of its own."""
    lines: list[str] = [""]
    for word in text.split(" "):
        space = first if len(lines) == 1 else later
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(longer) > space:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
