"""Colours where a terminal takes them, decided as rich decides it."""

import io
import itertools

import pytest
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from safe_compose.ui.colours import make_painter

VARIABLES = {
    "TERM": ("xterm-256color", "xterm", "dumb", "unknown", ""),
    "NO_COLOR": (None, "", "1"),
    "FORCE_COLOR": (None, "", "1"),
    "TTY_COMPATIBLE": (None, "0", "1"),
}
CASES = [
    {name: value for name, value in zip(VARIABLES, values, strict=True) if value is not None}
    for values in itertools.product(*VARIABLES.values())
]


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("style", ["", "bold", "dim", "red", "yellow", "green", "bold red"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_colours_are_those_of_rich(style: str, is_terminal: bool) -> None:
    for environ in CASES:
        out = Console(file=_Screen() if is_terminal else io.StringIO(), _environ=environ)
        theirs = Style.parse(style)
        theirs = theirs.without_color if out.no_color else theirs
        expected = "words"
        if out.color_system is not None:
            expected = theirs.render("words", color_system=ColorSystem.STANDARD)
        painted = make_painter(environ, is_terminal=is_terminal)("words", style)
        assert painted == expected, environ


def test_an_empty_text_stays_empty() -> None:
    assert make_painter({"TERM": "xterm"}, is_terminal=True)("", "bold red") == ""
