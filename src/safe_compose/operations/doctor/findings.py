"""The result of an examination."""

from typing import Any, NamedTuple


class Findings(NamedTuple):
    """A result of one examination."""

    facts: Any
    """The facts, as in the JSON of `doctor`."""
    attention: tuple[str, ...] = ()
    """What needs a person, each with the command that helps."""
