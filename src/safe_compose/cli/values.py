"""Values on a command line of ours, taken without pydantic where there is nothing to validate.

Typer has a validator of pydantic's read each value, also one that was not given. Importing it takes
longer than most verbs run, and of a text it changes nothing.
"""

from collections.abc import Mapping
from typing import Any

import typer


class Option(typer.core.TyperOption):
    """An option whose texts are taken as they are."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return the value as the function of the verb gets it."""
        if not _is_final(self, value):
            return super().process_value(ctx, value)
        return _take(self, ctx, value)


class Argument(typer.core.TyperArgument):
    """An argument whose texts are taken as they are."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return the value as the function of the verb gets it."""
        if not _is_final(self, value):
            return super().process_value(ctx, value)
        return _take(self, ctx, value)


class _Command(typer.core.TyperCommand):
    """A command whose `--help` is an option of ours as well."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option `--help`, or None."""
        return _take_plain(super().get_help_option(ctx))


class Group(typer.core.TyperGroup):
    """A command of commands whose `--help` is an option of ours as well."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option `--help`, or None."""
        return _take_plain(super().get_help_option(ctx))


_OURS: Mapping[type, type] = {
    typer.core.TyperOption: Option,
    typer.core.TyperArgument: Argument,
    typer.core.TyperCommand: _Command,
    typer.core.TyperGroup: Group,
}
"""Typer's classes, which it makes without asking, and ours in their place."""


def take_plain(command: Any) -> None:
    """Have a command line, with all of its commands, take plain texts without a validator."""
    _take_plain(command)
    for parameter in command.params:
        _take_plain(parameter)
    for one in getattr(command, "commands", {}).values():
        take_plain(one)


def _take_plain(made: Any) -> Any:
    """Return what typer made, of our class instead of typer's own."""
    made.__class__ = _OURS.get(type(made), type(made))
    return made


def _take(parameter: Any, ctx: Any, value: Any) -> Any:
    """Return a value that needs no validator, as typer hands it on."""
    if value is None and _is_list(parameter):
        value = ()
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)


def _is_list(parameter: Any) -> bool:
    """Return whether a parameter takes any number of values."""
    return bool(parameter.multiple or parameter.nargs != 1)


def _is_final(parameter: typer.core.TyperOption | typer.core.TyperArgument, value: Any) -> bool:
    """Return whether typer would change nothing of a value, and complain of nothing."""
    if value is None:  # typer itself tells what is missing
        return not parameter.required
    kind = parameter.type_descriptor.annotation
    if _is_list(parameter):
        texts = isinstance(value, tuple | list) and all(type(one) is str for one in value)
        return kind == list[str] and texts and not (parameter.required and not value)
    bounded = parameter.min is not None or parameter.max is not None
    return type(value) is kind and (kind is str or (kind is float and not bounded))
