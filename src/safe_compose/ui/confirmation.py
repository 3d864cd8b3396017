"""The confirmation screen on the terminal: painted at once, and again when more is known."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from safe_compose.core.plan import Plan
from safe_compose.system.process import read_clock
from safe_compose.ui.confirmation_details import make_details
from safe_compose.ui.confirmation_lines import Circumstances, Screen, Size, make_lines
from safe_compose.ui.terminal import Terminal, is_live, is_terminal, read_size, show_lines

LOG_COLUMNS = 20_000
"""Columns of a log: a line of it goes on, so that commands in it can be copied and names found."""


def show_confirmation(
    plan: Plan,
    facts: Circumstances,
    measure: Callable[[], Iterator[tuple[Plan, Circumstances]]],
    terminal: Terminal | None,
) -> Screen:
    """Show the confirmation screen, and return what it shows in the end.

    Where a person is asked it is there at once, and changes with each result of `measure`. In a
    log, and where flags answer, it is printed once.

    Args:
        plan: The plan.
        facts: What the plan does not say.
        measure: Yields both, again each time more is known.
        terminal: Where a person is asked; None for nowhere.
    """
    if terminal is None or not is_live():
        screen = Screen(*[(plan, facts), *measure()][-1], read_clock())
        columns, rows = read_size() if is_terminal() else (LOG_COLUMNS, None)
        show_lines(make_lines(screen, Size(columns, rows if terminal is not None else None)))
        return screen
    painter = _Painter()
    with terminal.hiding_echo():  # what is typed meanwhile would move the lines
        painter.show(Screen(plan, facts, read_clock(), measuring=True))
        screen = Screen(plan, facts, read_clock())
        for known in measure():
            screen = Screen(*known, read_clock())
            painter.show(replace(screen, measuring=True))
        painter.show(screen, last=True)
    return screen


def show_details(screen: Screen) -> None:
    """Print everything that is known, below the question."""
    show_lines(make_details(screen, read_size().columns))


class _Painter:
    """Paints the short screen over the one before it, while the terminal allows that."""

    def __init__(self) -> None:
        """Start with nothing painted."""
        self._painted = 0
        self._size: tuple[int, int] | None = None

    def show(self, screen: Screen, *, last: bool = False) -> None:
        """Paint a screen.

        In a terminal that was resized since, or that is too low, nobody knows where the lines are:
        then the last screen alone is printed, below them.
        """
        width, height = read_size()
        lines = make_lines(screen, Size(width, height))
        fits = len(lines) < height
        over = self._painted if self._size == (width, height) and fits else None
        if over is None and not last and (self._size is not None or not fits):
            return
        show_lines(lines, over=over)
        self._size, self._painted = (width, height), len(lines)
