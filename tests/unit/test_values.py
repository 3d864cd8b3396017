"""What our own options and arguments give to a verb is what typer's own give, without pydantic."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from safe_compose.cli import values
from safe_compose.cli.app import make_command

GIVEN = (None, "", "latest", "a b", "\udcff", (), ("a", "b"), ("\udcff",), 60.0, True, False)


def every_command(command: Any) -> Iterator[Any]:
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from every_command(one)


def process(of: type, parameter: Any, value: Any) -> Any:
    """The value that a class of parameters makes of one, or the kind of its complaint."""
    try:
        found = of.process_value(parameter, None, value)  # type: ignore[attr-defined]
    except Exception as wrong:  # noqa: BLE001
        return type(wrong)
    return list(found) if isinstance(found, tuple) else found


def test_a_value_that_is_taken_as_it_is_is_what_typer_makes_of_it() -> None:
    checked = set()
    for command in every_command(make_command(None)):
        for parameter in command.params:
            theirs = (
                typer.core.TyperArgument
                if isinstance(parameter, values.Argument)
                else typer.core.TyperOption
            )
            for value in GIVEN:
                if values._is_final(parameter, value):
                    checked.add(value)
                    ours = process(type(parameter), parameter, value)
                    assert ours == process(theirs, parameter, value), (parameter.name, value)
    assert checked >= {None, "", "latest", "\udcff", ("a", "b"), 60.0}


def test_every_option_and_argument_is_ours() -> None:
    for command in every_command(make_command(None)):
        context = typer.Context(command)
        assert type(command.get_help_option(context)) is values.Option
        for parameter in command.params:
            assert isinstance(parameter, values.Option | values.Argument), parameter.name


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["list", "--project"], "requires an argument"),
        (["show"], "Missing parameter: id"),
        (["list", "--help=x"], "does not take a value"),
        (["forget", "--keep-last", "0"], "greater than or equal to 1"),
        (["backup", "--wait", "soon"], "valid number"),
    ],
)
def test_what_typer_complains_of_it_still_complains_of(words: list[str], complaint: str) -> None:
    with pytest.raises(Exception, match=complaint) as raised:
        make_command(words[0]).main(words, standalone_mode=False)
    assert getattr(raised.value, "exit_code", None) == 2
