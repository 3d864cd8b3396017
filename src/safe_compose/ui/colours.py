"""Colours of text, as the terminal, NO_COLOR and FORCE_COLOR allow them.

The rules are those of rich, whose import takes longer than all that a confirmation or a list shows.
"""

import os
from collections.abc import Callable, Mapping

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_COLOURS = frozenset({"red", "green", "yellow"})

Painter = Callable[[str, str], str]
"""Gives a visible text its style: some of `bold`, `dim`, `red`, `green` and `yellow`."""


def make_painter(environ: Mapping[str, str] = os.environ, *, is_terminal: bool) -> Painter:
    """Return a function that gives a visible text its style, or leaves it plain.

    Args:
        environ: The environment. FORCE_COLOR and TTY_COMPATIBLE decide for a pipe too; NO_COLOR
            leaves bold and dim, which are no colours.
        is_terminal: Whether the text goes to a terminal.
    """
    if not _takes_styles(environ, is_terminal=is_terminal):
        return lambda text, _style: text
    without = _COLOURS if environ.get("NO_COLOR") else frozenset[str]()

    def paint(text: str, style: str) -> str:
        codes = ";".join(_CODES[word] for word in style.split() if word not in without)
        return f"\x1b[{codes}m{text}\x1b[0m" if codes and text else text

    return paint


def is_dumb(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the terminal understands no escape sequences, by its name."""
    return environ.get("TERM", "").lower() in ("dumb", "unknown")


def _takes_styles(environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    compatible, forced = environ.get("TTY_COMPATIBLE"), environ.get("FORCE_COLOR")
    if compatible in ("0", "1"):
        is_terminal = compatible == "1"
    elif forced is not None:
        is_terminal = forced != ""
    return is_terminal and not is_dumb(environ)
