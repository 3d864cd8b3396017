"""The values in the text of a compose file, and how to write others in their places.

ruamel.yaml parses the file for the positions only and never writes it, so that everything else
keeps its bytes.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from safe_compose.credentials.dsn import PLAIN

_AS_A_STRING = re.compile(
    r"(?![\d.+~-]+$)(?!(?:true|false|yes|no|on|off|null|y|n|nan"
    r"|inf)$)(?!0[xo])(?!\d[\d_.]*e)[\w.~-]+",
    re.I,
)
"""Plain scalars that are strings in both YAML 1.1 and 1.2."""


class BadYaml(ValueError):
    """The file is not valid YAML; the message says where."""


class Scalar(NamedTuple):
    """One scalar value of a YAML text."""

    path: tuple[str, ...]
    """Keys that lead to the value; positions in lists as numbers."""
    value: str
    start: int
    end: int
    """`text[start:end]` is the value as written, with quotes, tag and anchor."""
    style: str
    """`'`, `"`, `|`, `>` or an empty string."""
    line: int
    """Line number, from 1."""
    anchored: bool
    """The value has an anchor (`&name`)."""


MOST_VALUES = 100_000
"""Values of one file, empty mappings and sequences included, with its aliases followed: those of
aliases of aliases would have no end.
"""


def scalars(text: str, *, aliases: bool = False) -> list[Scalar]:
    """Return every scalar value of a YAML text.

    Raises BadYaml, also for more than MOST_VALUES, and for what is nested too deeply.
    """
    from ruamel.yaml import YAML  # takes 30 ms; only a change of a file needs it
    from ruamel.yaml.error import YAMLError

    try:
        root = YAML(typ="rt").compose(text)
        found = (
            list(islice(_walk_scalars(root, (), set(), again=aliases), MOST_VALUES + 1))
            if root is not None
            else []
        )
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadYaml(f"line {mark.line + 1}" if mark is not None else "its end") from error
    except RecursionError as error:
        raise BadYaml("it is nested too deeply") from error
    if len(found) > MOST_VALUES:
        raise BadYaml("it holds too many values")
    return [scalar for scalar in found if scalar is not None]


def _walk_scalars(
    node: Any, path: tuple[str, ...], seen: set[int], *, again: bool
) -> Iterator[Scalar | None]:
    """Yield each scalar below a node, and None for each mapping and each sequence.

    `again`: a node that an alias repeats counts each time, except within itself.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    kind = type(node).__name__
    if kind == "MappingNode":
        yield None
        for key, value in node.value:
            yield from _walk_scalars(value, (*path, str(key.value)), seen, again=again)
    elif kind == "SequenceNode":
        yield None
        for number, value in enumerate(node.value):
            yield from _walk_scalars(value, (*path, str(number)), seen, again=again)
    else:
        start, end = node.start_mark.index, node.end_mark.index
        line = node.start_mark.line + 1
        yield Scalar(
            path, str(node.value), start, end, node.style or "", line, node.anchor is not None
        )
    if again:
        seen.discard(id(node))


def format_scalar(style: str, value: str) -> str | None:
    """Write a one-line value in a scalar style; None if that style cannot hold it unchanged."""
    if not value.isprintable():
        return None
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    if style == '"':
        return None if re.search(r"[\"\\]", value) else f'"{value}"'
    return value if style == "" else None


def is_simple(text: str, scalar: Scalar) -> bool:
    """Return whether a scalar is on one line without escapes, tag or anchor.

    Only such a scalar can be replaced safely.
    """
    return (
        not scalar.anchored
        and format_scalar(scalar.style, scalar.value) == text[scalar.start : scalar.end]
    )


def write_scalar(scalar: Scalar, value: str) -> str:
    """Write another value in the place of a simple scalar.

    The style stays the same where it can hold the value. A plain scalar is quoted unless it
    certainly stays the same string.
    """
    style = scalar.style
    if style == "":
        first = next(
            (n for n, (a, b) in enumerate(zip(scalar.value, value, strict=False)) if a != b),
            len(scalar.value),
        )
        last = next(
            (
                n
                for n, (a, b) in enumerate(
                    zip(scalar.value[:first:-1], value[:first:-1], strict=False)
                )
                if a != b
            ),
            min(len(scalar.value), len(value)) - first,
        )
        whole = PLAIN.fullmatch(scalar.value) is not None
        inserted = value[first : len(value) - max(last, 0)]
        stays = (
            _AS_A_STRING.fullmatch(value) if whole else re.fullmatch(r"[A-Za-z0-9_.~%-]*", inserted)
        )
        style = "" if stays else "'"
    return format_scalar(style, value) or format_scalar("'", value) or ""


def replace_scalars(text: str, values: Mapping[Scalar, str]) -> str:
    """Return the text with some simple scalars replaced; nothing else changes."""
    for scalar in sorted(values, key=lambda s: s.start, reverse=True):
        text = text[: scalar.start] + write_scalar(scalar, values[scalar]) + text[scalar.end :]
    return text
