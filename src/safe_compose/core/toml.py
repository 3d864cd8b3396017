"""TOML of somebody else's, read within bounds. This module is pure."""

import tomllib
from typing import Any

MOST_DOTS = 64
"""Most dots in one line: tomllib needs quadratic time and memory for the parts of a key, hours for
a line of 1 MiB."""


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        ValueError: It is no TOML, or more than tomllib reads in a moment.
    """
    # As TOML counts lines: `splitlines` ends one at characters that a quoted key may have.
    if any(line.count(".") > MOST_DOTS for line in text.split("\n")):
        raise ValueError(f"more than {MOST_DOTS} dots in a line")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
