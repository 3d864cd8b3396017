"""The messages about a command that is refused for its words alone (`Invocation.is_refused`).

This module is pure.
"""

from safe_compose.core.redaction import hide_secrets
from safe_compose.grammar.parser import Invocation
from safe_compose.grammar.tables import KNOWN, UNSUPPORTED

_OFF = "a person who has checked it runs it with SAFE_COMPOSE=off"
_VOLUMES = (
    "find its volumes with `docker volume ls`, and back them up with `safe-compose backup --volume"
    " NAME`"
)
_UNSUPPORTED = {
    ("extension",): ("the extension's volumes", _VOLUMES),
    ("dev",): ("the development environment's volumes", _VOLUMES),
    ("sandbox",): ("sandboxes with all that is in them", "copy what matters out of them"),
    ("offload",): ("the volumes in the cloud", _VOLUMES),
    ("desktop",): ("every volume of Docker Desktop", _VOLUMES),
    ("desktop", "kubernetes"): ("the volumes of its cluster", "copy what matters out of them"),
    ("model",): (
        "the volume with the models",
        "push those that are nowhere else with `docker model push`",
    ),
    ("plugin",): ("what a volume driver keeps for its volumes", _VOLUMES),
}
"""The objects that the commands of a group delete, and the way to save them first."""


def reason(invocation: Invocation) -> str:
    """Return why docker is not run."""
    if invocation.doubt is None:
        return (
            f"docker {' '.join(invocation.verb)} deletes {_explain_unsupported(invocation)[0]},"
            " which safe-compose cannot back up"
        )
    words = ", ".join(hide_secrets(word) for word in invocation.unknown)
    return (
        f"this command may delete data, and no client that safe-compose knows ({KNOWN}) takes"
        f" {words} there"
    )


def next_step(invocation: Invocation) -> str:
    """Return the alternative to the command."""
    if invocation.kind == UNSUPPORTED:
        return f"{_explain_unsupported(invocation)[1]}; then {_OFF}"
    standalone = invocation.program == "docker-compose"
    words = ["docker-compose", *invocation.verb[1:]] if standalone else ["docker", *invocation.verb]
    return (
        f"see what yours takes with `{' '.join(words)} --help`, and leave the rest out; or {_OFF}"
    )


def _explain_unsupported(invocation: Invocation) -> tuple[str, str]:
    return _UNSUPPORTED[invocation.verb[:-1]]
