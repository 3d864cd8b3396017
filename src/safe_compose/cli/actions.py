"""Verbs with actions, `safe-compose VERB ACTION ...`, as Typer sub-apps."""

from collections.abc import Sequence
from typing import Any, ClassVar

import typer

from safe_compose.cli import unused_flags, values
from safe_compose.cli.options import app
from safe_compose.errors import UsageError


class ActionGroup(values.Group):
    """A verb with actions. Flags may precede the action, as they may precede a verb."""

    default: ClassVar[str | None] = None
    """The action that is meant where none is named; None: one must be named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words behind the verb.

        Raises:
            UsageError: They name no action of the verb.
        """
        return super().parse_args(ctx, self._move_action_first(args))

    def _move_action_first(self, words: Sequence[str]) -> list[str]:
        index = self._find_action(words)
        if index < len(words):
            if words[index] not in self.commands:
                raise self._make_error(f", not {words[index]!r}")
            return [words[index], *words[:index], *words[index + 1 :]]
        if "--help" in words:
            return ["--help"]
        if self.default is None:
            raise self._make_error()
        return [self.default, *words]

    def _find_action(self, words: Sequence[str]) -> int:
        """Return the index of the first word that is neither a flag nor the value of one.

        Raises:
            UsageError: A word before it is a flag that no action takes.
        """
        options: list[Any] = [p for one in self.commands.values() for p in one.params]
        takes_value = {"--help": False} | {
            word: not p.is_flag for p in options if p.param_type_name == "option" for word in p.opts
        }
        index = 0
        while index < len(words) and words[index].startswith("-"):
            name, equals, _ = words[index].partition("=")
            if name not in takes_value and name[:2] not in takes_value:
                fault = unused_flags.explain(str(self.name), name, takes_value)
                raise UsageError(
                    f"{self.name}: {fault}", next_step=f"safe-compose help {self.name}"
                )
            index += 2 if takes_value.get(name) and not equals else 1
        return index

    def _make_error(self, but: str = "") -> UsageError:
        *most, last = self.commands
        return UsageError(
            f"{self.name} takes {', '.join(most)} or {last}{but}",
            next_step=f"safe-compose {self.name} --help",
        )


def add_verb(verb: str, *, group: type[ActionGroup] = ActionGroup) -> typer.Typer:
    """Return the sub-app of a verb with actions; its callback holds the help of the verb."""
    actions = typer.Typer(cls=group, rich_markup_mode=None, add_completion=False)
    app.add_typer(actions, name=verb)
    return actions
