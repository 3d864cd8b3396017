"""Tables and facts of a command's result on stdout.

For people on a terminal: aligned to its width. For programs in a pipe: one line per row, fields
separated by tabs, a line of names first, ids whole, sizes in bytes, times in UTC as RFC 3339.
NO_COLOR leaves colours out; FORCE_COLOR puts them into a pipe as well, and changes nothing else.
"""

import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from safe_compose.core.line_wrap import wrap_line
from safe_compose.core.quantities import format_age, format_exactly, format_size
from safe_compose.core.text import LONGEST_CELL, make_visible
from safe_compose.system.terminal_columns import read_columns
from safe_compose.ui import terminal
from safe_compose.ui.colours import Painter, make_painter
from safe_compose.ui.lines import Span
from safe_compose.ui.table_layout import (
    FAINT,
    GAP,
    HEADING,
    Cell,
    Column,
    lay_field,
    lay_out,
    wrap,
)

NARROWEST = 40
"""Fewest columns that are laid out for; a terminal that says less does not know its width."""


def is_for_people() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def print_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    title: str = "",
    empty: str = "",
) -> None:
    """Print a table on stdout.

    Args:
        columns: The columns.
        rows: The cells of each row, one for each column.
        title: The title, where a command prints several tables.
        empty: What is missing, and the next step, where there are no rows.
    """
    paint = _make_painter()
    if not is_for_people():
        if title:
            terminal.tell_fields([paint(f"# {title}", HEADING)])
        terminal.tell_fields([column.name.replace(" ", "_") for column in columns])
        for row in rows:
            terminal.tell_fields([paint(_format_exactly(cell), cell.style) for cell in row])
        if empty and not rows:
            terminal.say(f"safe-compose: {empty}")
        return
    if title:
        terminal.tell("")
        _write([Span(title, HEADING)], paint)
    if not rows:
        print_text(empty or "none")
        return
    layout = lay_out(columns, rows, measure_width())
    for line in layout.lines:
        _write(line, paint)
    if layout.dropped:
        names = ", ".join(layout.dropped)
        print_text(f"no space for: {names} (--json has everything)", style=FAINT)


def print_facts(facts: Sequence[tuple[str, Sequence[Cell]]], *, title: str = "") -> None:
    """Print labelled values on stdout; a label without values is left out."""
    paint = _make_painter()
    facts = [(label, cells) for label, cells in facts if cells]
    if not is_for_people():
        if title:
            terminal.tell_fields([paint(f"# {title}", HEADING)])
        for label, cells in facts:
            for cell in cells:
                terminal.tell_fields(
                    [label.replace(" ", "_"), paint(_format_exactly(cell), cell.style)]
                )
        return
    if title:
        terminal.tell("")
        _write([Span(title, HEADING)], paint)
    longest = max((len(label) for label, _ in facts), default=0) + GAP
    for label, cells in facts:
        for n, cell in enumerate(cells):
            name = Span(f"{'' if n else label:{longest}}", FAINT)
            value = Span(make_visible(cell.text, LONGEST_CELL), cell.style)
            for line in lay_field(name, value, width=measure_width(), indent=0, margin=longest):
                _write(line, paint)


def print_fields(*cells: Cell) -> None:
    """Print one line of cells on stdout while more are still to come; empty ones are left out."""
    paint = _make_painter()
    if not is_for_people():
        terminal.tell_fields([paint(_format_exactly(cell), cell.style) for cell in cells])
        return
    first, *rest = (Span(make_visible(c.text, LONGEST_CELL), c.style) for c in cells if c.text)
    line = Span((" " * GAP).join(paint(span.text, span.style) for span in rest))
    _write([first, Span(" " * GAP), line], paint)


def print_summary(text: str) -> None:
    """Print a sentence below a table; in a pipe on stderr, since programs read stdout."""
    if is_for_people():
        print_text(text)
    else:
        terminal.say(f"safe-compose: {text}")


def print_line(*spans: Span) -> None:
    """Print one line that was laid out for the terminal."""
    _write(spans, _make_painter())


def print_text(text: str, *, style: str = "") -> None:
    """Print a sentence on stdout, broken between words on a terminal."""
    paint, width = _make_painter(), measure_width()
    visible = make_visible(text)
    if columns := read_columns(1):
        lines = [wrap_line(visible, columns)]
    else:
        lines = wrap(visible, width, width) if is_for_people() else [visible]
    for line in lines:
        _write([Span(line, style)], paint)


def measure_width() -> int:
    """Return the number of columns of the terminal."""
    return max(NARROWEST, shutil.get_terminal_size((80, 24)).columns)


def _format_exactly(cell: Cell) -> str:
    return make_visible(cell.text if cell.exact is None else cell.exact)


def _write(line: Iterable[Span], paint: Painter) -> None:
    terminal.tell_fields(["".join(paint(span.text, span.style) for span in line)])


def _make_painter() -> Painter:
    return make_painter(is_terminal=is_for_people())


# -- values ----------------------------------------------------------------------------------------


def size_cell(size: int | None) -> Cell:
    """Return bytes as a cell; None was not measured."""
    return Cell(format_size(size), "" if size is None else str(size))


def names_cell(names: Sequence[str]) -> Cell:
    """Return names as a cell."""
    return Cell(", ".join(names), ",".join(names))


class Moments(NamedTuple):
    """The format of the times of one table."""

    now: datetime
    is_utc: bool = False
    """Whether a person asked for absolute times (`--utc`)."""

    def cell(self, text: str | None, *, none: str = "never", style: str = "") -> Cell:
        """Return a time that our own files hold as a cell; what is no time in UTC is unknown."""
        if not text:
            return Cell(none, "")
        try:
            then = datetime.fromisoformat(text)
        except ValueError:
            return Cell("unknown", "")
        if then.utcoffset() != timedelta(0):
            return Cell("unknown", "")
        return Cell(
            format_exactly(then) if self.is_utc else format_age(then, self.now), text, style
        )
