"""Long lines that a terminal breaks between words.

A terminal goes on with a long line on its next row, wherever that cuts a word. Newlines would keep
the words whole, but whoever copies a command would get its first half alone. Blanks up to the end
of the row do both: no word is cut, and the line is still one line.
"""

import re
import unicodedata
from collections.abc import Iterator

HANGING = 2
"""Columns by which the further rows of a line are indented."""
NARROWEST = 20
"""Columns of a terminal below which nothing is aligned."""
_OPENS_QUOTE = " =:(["
"""Characters after which a quote begins a quoted word; in `docker's` it is an apostrophe."""


def wrap_line(text: str, columns: int) -> str:
    """Return one line with blanks put in, so that no word and no quoted word goes over two rows.

    Args:
        text: The line, made visible.
        columns: The columns of the terminal. A word that is wider than that stays where it is.
    """
    if columns < NARROWEST or text.startswith("{") or measure_text(text) <= columns:
        return text
    line, used = "", 0
    hanging = len(text) - len(text.lstrip(" ")) + HANGING
    for blanks, word in _split(text):
        width = measure_text(word)
        if used and used + len(blanks) + width > columns >= hanging + width:
            line += " " * (max(columns - used, 0) + hanging)
            used = hanging
        else:
            line += blanks
            used += len(blanks)
        line += word
        used += width
        if used > columns:
            used = (used - 1) % columns + 1
    return line


def measure_text(text: str) -> int:
    """Return the columns that a visible text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def _split(text: str) -> Iterator[tuple[str, str]]:
    """Yield each word with the blanks before it; a quoted word is one, whatever is in it."""
    at = 0
    while match := re.compile(r"( *)(?=[^ ])").match(text, at):
        begin = end = match.end()
        while end < len(text) and text[end] != " ":
            if text[end] in "'\"" and (
                end == 0 or text[end - 1] in _OPENS_QUOTE or text[end - 1] in "'\""
            ):
                closed = text.find(text[end], end + 1)
                end = closed if closed > 0 else end
            end += 1
        yield match[1], text[begin:end]
        at = end
