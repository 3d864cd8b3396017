"""The bypass: commands that SAFE_COMPOSE=off hands to docker."""

import os

from safe_compose.errors import Refused, SafeComposeError
from safe_compose.grammar.parser import Invocation
from safe_compose.settings import load
from safe_compose.store.journal import CommandLine, Journal
from safe_compose.ui import terminal as ui_terminal
from safe_compose.workspace import project_folder


def refuse_where_off_is_forbidden() -> None:
    """Refuse SAFE_COMPOSE=off where root's policy forbids it.

    Raises:
        Refused: The policy forbids it.
        ConfigError: The policy cannot be read.
    """
    if load.is_off_forbidden():
        raise Refused(
            f"SAFE_COMPOSE=off is forbidden on this machine ({load.POLICY_FILE}: require.guard)",
            next_step="unset SAFE_COMPOSE",
        )


def note_unguarded(invocation: Invocation) -> None:
    """Journal a command that SAFE_COMPOSE=off lets through.

    If that fails, it is reported, and the command goes through all the same.
    """
    try:
        settings = load.load(project_folder(invocation), dict(os.environ))
        journal = Journal(settings.store, settings.access)
        entry = journal.begin(journal.new_id(), CommandLine(invocation.argv, invocation.program))
        entry.step("ended", outcome="handed over unguarded (SAFE_COMPOSE=off)")
    except SafeComposeError as fault:
        ui_terminal.say(f"safe-compose: not journaled: {fault.message}")
    except OSError as error:  # the current folder is gone or may not be read
        ui_terminal.say(f"safe-compose: not journaled: {error.strerror}")
