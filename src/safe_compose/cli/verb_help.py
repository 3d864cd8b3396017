"""The parts of `safe-compose help VERB` that are not in the modules of the verbs."""

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from safe_compose.cli import values
from safe_compose.cli.verbs import ACTIONS, VERBS

WIDTH = 80
"""Columns of a help text at most, also in a wider terminal."""

METAVARS: Mapping[str, str] = {
    "--agent": "NAME",
    "--also": "KEY",
    "--at": "HH:MM",
    "--baseline": "FILE",
    "--confirm": "PHRASE",
    "--database": "NAME",
    "--dir": "DIR",
    "--file": "FILE",
    "--for": "TIME",
    "--from": "PLACE",
    "--from-file": "FILE",
    "--identity": "FILE",
    "--install": "HOW",
    "--into": "NAME",
    "--junit": "FILE",
    "--keep-daily": "DAYS",
    "--keep-last": "COUNT",
    "--keep-monthly": "MONTHS",
    "--keep-weekly": "WEEKS",
    "--keep-within": "TIME",
    "--leave": "NAME",
    "--old-file": "FILE",
    "--path": "PATH",
    "--project": "NAME",
    "--sample": "SHARE",
    "--scope": "SCOPE",
    "--tier": "TIER",
    "--to": "PLACE",
    "--uninstall": "NAME",
    "--user": "ROLE",
    "--volume": "NAME",
    "--wait": "SECONDS",
    "code": "CODE",
    "id": "ID",
    "ids": "ID",
    "name": "SHELL",
    "names": "VOLUME",
    "paths": "PATH",
    "service": "SERVICE",
}
"""A flag, or the name of an argument -> what its value is called."""


def complete(command: Any) -> None:
    """Give every verb of a command line the names of its values, an example, and a width."""
    command.context_settings["max_content_width"] = WIDTH
    for words, verb in list_commands(command):
        name, _, action = words.partition(" ")
        example = ACTIONS[name][action] if action else VERBS[name].example
        verb.epilog = f"\b\nExample:\n  safe-compose {example}"
        if words in ACTIONS:
            verb.options_metavar = ""
            verb.subcommand_metavar = "ACTION [OPTIONS]"
        for parameter in verb.params:
            _name_value(parameter)


def list_commands(command: Any) -> Iterator[tuple[str, Any]]:
    """Yield the words of each verb and of each action of one, with what typer made of it."""
    for name, verb in command.commands.items():
        yield name, verb
        for action, one in getattr(verb, "commands", {}).items():
            yield f"{name} {action}", one


def _name_value(parameter: Any) -> None:
    """Set the name of a parameter's value, as shells write it."""
    words = (*parameter.opts, parameter.name)
    name = next((METAVARS[word] for word in words if word in METAVARS), None)
    if isinstance(parameter, typer.core.TyperArgument):
        parameter.metavar = name or (parameter.name or "").upper()
        parameter.__class__ = _Argument
    elif not (parameter.is_flag or parameter.count):
        parameter.metavar = name or "VALUE"


class _Argument(values.Argument):
    """An argument that is shown as `NAME`, `NAME...` or `[NAME]`, without a type."""

    def get_usage_pieces(self, _ctx: Any) -> list[str]:
        """Return it as the usage line shows it."""
        word = f"{self.metavar}{'...' if self.nargs != 1 else ''}"
        return [word if self.required else f"[{word}]"]

    def get_help_record(self, ctx: Any) -> tuple[str, str] | None:
        """Return its line of the help."""
        default = self.get_default(ctx)
        default_words = f"  [default: {default}]" if isinstance(default, str) else ""
        return self.get_usage_pieces(ctx)[0], f"{self.help or ''}{default_words}"
