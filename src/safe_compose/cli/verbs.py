"""Our own verbs: what each does, and the module that adds it to the command line.

Only the module of the verb in hand is imported: all of them take longer than most verbs run.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple


class OwnVerb(NamedTuple):
    """A verb, as the overview shows it."""

    module: str
    """The module of this package that adds it."""
    does: str
    """What it does, in at most 60 characters."""
    example: str
    """A command line that uses it, without `safe-compose`."""


GROUPS: Mapping[str, Mapping[str, OwnVerb]] = {
    "Protect": {
        "start": OwnVerb("start", "set tiers, make a first backup, offer a schedule", "start"),
        "setup": OwnVerb("setup", "record which volumes of a project matter", "setup"),
        "volumes": OwnVerb("volumes", "show volumes with tier and last verified backup", "volumes"),
        "protect": OwnVerb("protection", "set the lowest tier of volumes", "protect shop_pgdata"),
        "unprotect": OwnVerb(
            "protection", "take a protection or a lock away", "unprotect --for 10m shop_pgdata"
        ),
    },
    "Back up": {
        "backup": OwnVerb("backup", "back up the volumes of a running project", "backup"),
        "schedule": OwnVerb("schedule", "back up daily, by systemd or cron", "schedule install"),
        "offsite": OwnVerb(
            "offsite", "push, pull and verify copies elsewhere", "offsite push latest"
        ),
        "verify": OwnVerb("verify", "read backups again, from first to last byte", "verify --all"),
        "forget": OwnVerb(
            "forget", "forget the backups that no rule keeps", "forget --keep-daily 14 --dry-run"
        ),
    },
    "Bring back": {
        "undo": OwnVerb("restore", "restore what the last guarded command deleted", "undo"),
        "restore": OwnVerb(
            "restore",
            "restore a backup, one volume, database or file",
            "restore latest --volume shop_pgdata",
        ),
        "trash": OwnVerb("trash", "list, restore or empty the trash", "trash list"),
        "list": OwnVerb("backups", "list backups, newest first", "list"),
        "show": OwnVerb("backups", "show what one backup holds", "show latest"),
    },
    "Everyday": {
        "rotate-password": OwnVerb(
            "passwords", "change a database's password everywhere", "rotate-password db"
        ),
        "audit": OwnVerb("audit", "find destructive commands in files", "audit docs Makefile"),
        "journal": OwnVerb("journal", "show what was done", "journal"),
        "approve": OwnVerb("approve", "approve what a project's file asks for", "approve"),
    },
    "Machine": {
        "shell": OwnVerb("install", "install before docker, or uninstall", "shell --install rc"),
        "doctor": OwnVerb("doctor", "check the ways to docker, engine and store", "doctor"),
        "recover": OwnVerb("recover", "finish or revert what was cut off", "recover"),
        "hook": OwnVerb("hook", "check the commands of a coding agent", "hook"),
        "about": OwnVerb("about", "show version, store and docker", "about"),
        "commands": OwnVerb("about", "list these commands", "commands --json"),
    },
}
"""The verbs in the groups of the overview."""

VERBS: Mapping[str, OwnVerb] = {
    name: verb for group in GROUPS.values() for name, verb in group.items()
}

ACTIONS: Mapping[str, Mapping[str, str]] = {
    "schedule": {
        "install": "schedule install",
        "cron": "schedule cron",
        "status": "schedule status",
        "run": "schedule run --project shop",
        "remove": "schedule remove --project shop",
    },
    "offsite": {
        "push": "offsite push latest",
        "pull": "offsite pull latest --from nas",
        "list": "offsite list --from nas",
        "verify": "offsite verify --all",
        "status": "offsite status",
        "key": "offsite key",
    },
    "trash": {
        "list": "trash list",
        "restore": "trash restore shop_pgdata",
        "empty": "trash empty --expired",
    },
}
"""The verbs with actions: verb -> action -> a command line that uses it."""


def load(verb: str | None) -> None:
    """Have a verb added to `options.app`; every verb where that one is not ours, or None."""
    found = [VERBS[verb]] if verb is not None and verb in VERBS else VERBS.values()
    for module in dict.fromkeys(one.module for one in found):
        import_module(f"safe_compose.cli.{module}")
