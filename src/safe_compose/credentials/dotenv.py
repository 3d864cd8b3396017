r"""The values in the text of a `.env` file as compose reads it, and how to write others.

It follows compose-go's dotenv/parser.go (2.40): `KEY=value`, `export KEY=value`, `KEY: value`; ` #`
begins a comment after an unquoted value; quotes may span lines. Single quotes keep everything but
`\'`; unquoted and double-quoted values are interpolated.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<key>[A-Za-z_][\w.-]*)[ \t]*[=:][ \t]*", re.ASCII)
_BARE = re.compile(r"[A-Za-z0-9_.~/:@%+,-]+")
"""Values that need no quotes: compose, a shell and `source` read them alike."""
_ESCAPES = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$",
}


class Unquotable(ValueError):
    """No quoting that all readers interpret alike can hold the value."""


class Assignment(NamedTuple):
    """One assignment of a `.env` file."""

    key: str
    value: str
    """The value without interpolation: `${X}` stays as it is."""
    start: int
    end: int
    """`text[start:end]` is the value as written, with its quotes."""
    quote: str
    """`"`, `'` or an empty string."""
    line: int
    """Line number, from 1."""
    raw: bool = False
    """The assignment is of an `env_file` with `format: raw`: no quotes, comments or interpolation.
    """


def entries(text: str, *, raw: bool = False) -> list[Assignment]:
    """Return every assignment in order; what cannot be parsed is skipped.

    If a key occurs twice, compose takes the last one.
    """
    found = []
    at = 1 if text.startswith("\ufeff") else 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        match = _KEY.match(text, at, end)
        if match is None:
            at = end + 1
            continue
        entry = _entry(text, match["key"], match.end(), end, raw)
        found.append(entry)
        at = max(end, entry.end)
        at = text.find("\n", at) + 1 or len(text)
    return found


def _entry(text: str, key: str, start: int, end: int, raw: bool) -> Assignment:
    line = text.count("\n", 0, start) + 1
    if raw:
        value = text[start:end].rstrip("\r")
        return Assignment(key, value, start, start + len(value), "", line, raw=True)
    mark = text[start : start + 1]
    if mark in ("'", '"'):
        closing = re.compile(rf"(?:[^{mark}\\]|\\.)*{mark}", re.DOTALL).match(text, start + 1)
        if closing is not None:
            inner = text[start + 1 : closing.end() - 1]
            value = (
                inner.replace("\\'", "'")
                if mark == "'"
                else re.sub(r"\\(.)", _unescape, inner, flags=re.DOTALL)
            )
            return Assignment(key, value, start, closing.end(), mark, line)
    value = text[start:end].partition(" #")[0].rstrip()
    if value.startswith("#"):
        value = ""
    return Assignment(key, value, start, start + len(value), "", line)


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])


def write_value(entry: Assignment, value: str) -> str:
    """Write another value in the place of an assignment's value.

    The quotes stay the same if they can hold it.

    Raises:
        Unquotable: No safe way to write the value exists.
    """
    if not value.isprintable():
        raise Unquotable("it holds control characters")
    if entry.raw:
        if value != value.strip():
            raise Unquotable("it begins or ends with a blank")
        return value
    if (entry.quote == "" and _BARE.fullmatch(value)) or not value:
        return f"{entry.quote}{value}{entry.quote}"
    single = "'" not in value and "\\" not in value
    double = not re.search(r"[\"$`\\]", value)
    for mark, holds in sorted(
        [("'", single), ('"', double)], key=lambda choice: choice[0] != entry.quote
    ):
        if holds:
            return f"{mark}{value}{mark}"
    raise Unquotable("no way of quoting in .env holds it without doubt")


def replace_values(text: str, values: Mapping[Assignment, str]) -> str:
    """Return the text with other values in the places of some assignments; nothing else changes.

    Raises:
        Unquotable: A value cannot be written safely.
    """
    for entry in sorted(values, key=lambda e: e.start, reverse=True):
        text = text[: entry.start] + write_value(entry, values[entry]) + text[entry.end :]
    return text
