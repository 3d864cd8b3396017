"""The flags that mean the same on every verb, refused where they would do nothing."""

from collections.abc import Mapping

from safe_compose.errors import UsageError

_MACHINE = "it is about this machine and not about a project"
_NAMED = "volumes are named without a flag"

_WHY: Mapping[str, Mapping[str, str]] = {
    "--project": {
        "protect": f"{_NAMED}; those of a project: safe-compose volumes --project NAME",
        "unprotect": f"{_NAMED}; those of a project: safe-compose volumes --project NAME",
        "audit": "it reads files, whatever project they are of",
        "approve": "a code is for one command, and --settings for this folder",
        "doctor": "it checks this machine, and the project of the folder that it is called in",
    },
    "--volume": {
        "start": "it protects every volume of a project",
        "setup": "it is about every volume of a project; one volume: safe-compose protect NAME",
        "protect": _NAMED,
        "unprotect": _NAMED,
        "schedule": (
            "it backs up a whole project; one volume, now: safe-compose backup --volume NAME"
        ),
        "offsite": "a copy is one of a whole backup",
        "forget": "it forgets whole backups",
        "undo": (
            "it brings back all that one command deleted; one volume: safe-compose restore latest"
            " --volume NAME"
        ),
        "rotate-password": "it takes a service of the compose file",
        "audit": "it reads files, whatever volumes they name",
        "approve": "a code is for one command, and --settings for this folder",
        "doctor": "it checks this machine, and the project of the folder that it is called in",
    },
    "--yes": {"approve": "a person types the phrase in a terminal"},
}
"""A flag of many verbs -> a verb that does not take it -> why."""

_ELSE = {"--project": _MACHINE, "--volume": _MACHINE, "--yes": "it asks for no yes"}


def explain(verb: str, flag: str, *, takes_phrase: bool) -> str | None:
    """Return why a verb does not take a flag that others take, or None for another flag.

    Args:
        verb: The verb.
        flag: The flag as typed.
        takes_phrase: Whether the verb takes `--confirm`.
    """
    name = "--project" if flag == "-p" else flag
    if name not in _ELSE:
        return None
    phrase = "; a phrase is given by --confirm" if takes_phrase and name == "--yes" else ""
    why = _WHY[name].get(verb, _ELSE[name])
    return f"{flag} would do nothing: {why}{phrase}"


def refuse_unused(words: str, given: Mapping[str, object]) -> None:
    """Refuse flags that these words take no notice of.

    Args:
        words: The verb with its action.
        given: A flag -> its value; false or empty where it was not given.

    Raises:
        UsageError: One of them was given.
    """
    if flags := [flag for flag, value in given.items() if value]:
        raise UsageError(
            f"with {words} {' and '.join(flags)} would do nothing; nothing was done",
            next_step=f"leave {'it' if len(flags) == 1 else 'them'} out",
        )
