"""The text of a `.env` file as compose reads it: where each value stands, and how another is written in its place.

After compose-go's dotenv/parser.go (2.40): `KEY=value`, `export KEY=value`, `KEY: value`; ` #` begins a comment behind a bare
value; quotes may span lines. Single quotes keep everything but `\\'`; bare and double-quoted values are interpolated.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<key>[A-Za-z_][\w.-]*)[ \t]*[=:][ \t]*", re.ASCII)
_BARE = re.compile(r"[A-Za-z0-9_.~/:@%+,-]+")
"""What may stand without quotes: nothing that compose, a shell or `source` would read otherwise."""
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v", '"': '"', "\\": "\\", "$": "$"}


class Unwritable(ValueError):
    """No way of quoting that every reader takes alike can hold the value."""


class Entry(NamedTuple):
    """One assignment."""

    key: str
    value: str
    """As it would be without interpolation: `${X}` stands as it is."""
    start: int
    end: int
    """text[start:end] is the value as it is written, quotes included."""
    quote: str
    """`"`, `'` or nothing."""
    line: int
    """From 1."""
    raw: bool = False
    """Of an `env_file` with `format: raw`: no quotes, no comments, no interpolation."""


def entries(text: str, *, raw: bool = False) -> list[Entry]:
    """Every assignment in order; of a key that stands twice compose takes the last. What does not read is skipped."""
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


def _entry(text: str, key: str, start: int, end: int, raw: bool) -> Entry:
    line = text.count("\n", 0, start) + 1
    if raw:
        value = text[start:end].rstrip("\r")
        return Entry(key, value, start, start + len(value), "", line, raw=True)
    mark = text[start : start + 1]
    if mark in ("'", '"'):
        closing = re.compile(rf"(?:[^{mark}\\]|\\.)*{mark}", re.DOTALL).match(text, start + 1)
        if closing is not None:
            inner = text[start + 1 : closing.end() - 1]
            value = inner.replace("\\'", "'") if mark == "'" else re.sub(r"\\(.)", _unescape, inner, flags=re.DOTALL)
            return Entry(key, value, start, closing.end(), mark, line)
    value = text[start:end].partition(" #")[0].rstrip()
    if value.startswith("#"):
        value = ""
    return Entry(key, value, start, start + len(value), "", line)


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])


def written(entry: Entry, value: str) -> str:
    """How a value is written in the place of an entry's: quoted as it was where that can hold it. Raises Unwritable."""
    if not value.isprintable():
        raise Unwritable("it holds control characters")
    if entry.raw:
        if value != value.strip():
            raise Unwritable("it begins or ends with a blank")
        return value
    if (entry.quote == "" and _BARE.fullmatch(value)) or not value:
        return f"{entry.quote}{value}{entry.quote}"
    single = "'" not in value and "\\" not in value
    double = not re.search(r"[\"$`\\]", value)
    for mark, holds in sorted([("'", single), ('"', double)], key=lambda choice: choice[0] != entry.quote):
        if holds:
            return f"{mark}{value}{mark}"
    raise Unwritable("no way of quoting in .env holds it without doubt")


def replaced(text: str, values: Mapping[Entry, str]) -> str:
    """The text with other values in the places of some entries; nothing else changes. Raises Unwritable."""
    for entry in sorted(values, key=lambda e: e.start, reverse=True):
        text = text[: entry.start] + written(entry, values[entry]) + text[entry.end :]
    return text
