"""The text of a compose file: where each value stands, and how another is written in its place.

The file is parsed by ruamel.yaml for the places alone and never written back by it, so that everything else keeps its bytes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from safe_compose.dsn import PLAIN

_AS_A_STRING = re.compile(r"(?![\d.+~-]+$)(?!(?:true|false|yes|no|on|off|null|y|n|nan|inf)$)(?!0[xo])(?!\d[\d_.]*e)[\w.~-]+", re.I)
"""What stands as a plain scalar and is a string for YAML 1.1 and 1.2."""


class Unreadable(ValueError):
    """The file is no YAML; the words say where."""


class Scalar(NamedTuple):
    """One value."""

    path: tuple[str, ...]
    """Keys that lead to it; places in lists as numbers."""
    value: str
    start: int
    end: int
    """text[start:end] is the value as it is written, with quotes, tag and anchor."""
    style: str
    """`'`, `"`, `|`, `>` or nothing."""
    line: int
    """From 1."""
    anchored: bool
    """It has a name of its own (`&name`)."""


def scalars(text: str) -> list[Scalar]:
    """Every scalar value, those that stand for several by an alias once. Raises Unreadable."""
    from ruamel.yaml import YAML  # 30 ms: only who is about to change a file needs it
    from ruamel.yaml.error import YAMLError

    try:
        root = YAML(typ="rt").compose(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise Unreadable(f"line {mark.line + 1}" if mark is not None else "its end") from error
    return list(_below(root, (), set())) if root is not None else []


def _below(node: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[Scalar]:
    if id(node) in seen:
        return
    seen.add(id(node))
    kind = type(node).__name__
    if kind == "MappingNode":
        for key, value in node.value:
            yield from _below(value, (*path, str(key.value)), seen)
    elif kind == "SequenceNode":
        for number, value in enumerate(node.value):
            yield from _below(value, (*path, str(number)), seen)
    else:
        start, end = node.start_mark.index, node.end_mark.index
        line = node.start_mark.line + 1
        yield Scalar(path, str(node.value), start, end, node.style or "", line, node.anchor is not None)


def shown(style: str, value: str) -> str | None:
    """How a scalar of one line is written in a style; None where that style cannot hold it as it is."""
    if not value.isprintable():
        return None
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    if style == '"':
        return None if re.search(r"[\"\\]", value) else f'"{value}"'
    return value if style == "" else None


def simple(text: str, scalar: Scalar) -> bool:
    """Whether it is written on one line, without escapes, tag or anchor: then it can be replaced without doubt."""
    return not scalar.anchored and shown(scalar.style, scalar.value) == text[scalar.start : scalar.end]


def written(scalar: Scalar, value: str) -> str:
    """How another value is written in the place of a simple scalar: plain only where it surely stays the same string."""
    style = scalar.style
    if style == "":
        first = next((n for n, (a, b) in enumerate(zip(scalar.value, value, strict=False)) if a != b), len(scalar.value))
        last = next(
            (n for n, (a, b) in enumerate(zip(scalar.value[:first:-1], value[:first:-1], strict=False)) if a != b),
            min(len(scalar.value), len(value)) - first,
        )
        whole = PLAIN.fullmatch(scalar.value) is not None
        inserted = value[first : len(value) - max(last, 0)]
        stays = _AS_A_STRING.fullmatch(value) if whole else re.fullmatch(r"[A-Za-z0-9_.~%-]*", inserted)
        style = "" if stays else "'"
    return shown(style, value) or shown("'", value) or ""


def replaced(text: str, values: Mapping[Scalar, str]) -> str:
    """The text with other values in the places of some simple scalars; nothing else changes."""
    for scalar in sorted(values, key=lambda s: s.start, reverse=True):
        text = text[: scalar.start] + written(scalar, values[scalar]) + text[scalar.end :]
    return text
