"""The request for a restore: the choice of content, and the answers given in advance."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from safe_compose.operations.trash import TrashItem

LOCK_SECONDS = 60.0
"""How long a restore waits for another run that holds its project."""


class GivenAnswer(NamedTuple):
    """A set of answers that the flags of a command give."""

    phrase: str | None = None
    """The phrase of `--confirm`."""
    may_ask: bool = True
    """A person may be asked for what the flags do not answer."""
    dry_run: bool = False
    """Only the plan is wanted."""


class RestoreChoice(NamedTuple):
    """A choice of what in a backup goes where."""

    names: Sequence[str] = ()
    """The names of the volumes; none means all of them."""
    source: str | None = None
    """The off-site destination from which the backup was fetched for this engine.

    The backup may be of another engine, because that machine may be lost.
    """
    into: str | None = None
    """The volume or project to restore to, or `scratch`; None for the original place."""
    trash: Mapping[str, TrashItem] | None = None
    """The name of each volume -> its item in the trash.

    The backup is then `trash.make_backup` of them.
    """
    settings: bool = False
    """Also restore what a dump's server kept next to its databases."""

    def command(self, backup: str) -> tuple[str, ...]:
        """Return the command with everything that decides what goes where.

        It is given again to finish the restore after a crash.
        """
        if self.trash:
            return ("trash", "restore", *(item.id for item in self.trash.values()))
        flags = {"--from": self.source, "--into": self.into}
        pairs = [("--volume", name) for name in self.names] + [
            (flag, value) for flag, value in flags.items() if value is not None
        ]
        return (
            "restore",
            backup,
            *(word for pair in pairs for word in pair),
            *(["--settings"] if self.settings else []),
        )
