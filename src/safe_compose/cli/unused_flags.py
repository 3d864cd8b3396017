"""The flags that mean the same on every verb, refused where they would do nothing."""

from collections.abc import Iterable, Mapping

from safe_compose.cli.verb_flags import FLAGS
from safe_compose.cli.verbs import ACTIONS
from safe_compose.errors import UsageError
from safe_compose.grammar.spelling import find_near

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


def explain(words: str, flag: str, known: Iterable[str]) -> str:
    """Return why a verb does not take a flag, or the flag that was meant by a typing error.

    Args:
        words: The verb, with its action if it has actions.
        flag: The flag as typed.
        known: The flags that may have been meant.
    """
    verb = words.partition(" ")[0]
    actions = [of for of in ACTIONS.get(verb, ()) if flag in FLAGS[f"{verb} {of}"]]
    if actions:
        return f"{flag} would do nothing: it goes with {verb} {', '.join(actions)}"
    name = "--project" if flag == "-p" else flag
    if name in _ELSE:
        takes_phrase = name == "--yes" and "--confirm" in FLAGS.get(words, ())
        phrase = "; a phrase is given by --confirm" if takes_phrase else ""
        return f"{flag} would do nothing: {_WHY[name].get(verb, _ELSE[name])}{phrase}"
    meant = find_near(flag, known)
    return f"there is no flag {flag}" + (f": did you mean {meant}?" if meant else "")


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
