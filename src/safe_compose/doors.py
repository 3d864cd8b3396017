"""What the words of a shell line, as far as they are known, may cost: docker's grammar asked of words that are not all sure."""

from collections.abc import Callable, Sequence

from safe_compose import grammar
from safe_compose.errors import UsageError
from safe_compose.shell_line import Word, words_of_a_door

INSTALL = "pip install 'safe-compose[audit]'"
"""What brings the parser that reads shell."""
SOFT = frozenset({"autoremove_anon", "compose_renew_anon", "swarm_task_anon"})
"""Kinds that rarely cost anything, and that only the engine can tell."""
DOES = {
    "compose_down_volumes": "deletes the project's volumes",
    "compose_rm_anon": "deletes anonymous volumes of the project's containers",
    "compose_recreate_changed_volume": "recreates, empty, a volume whose definition changed",
    "volume_rm": "deletes volumes",
    "volume_prune": "deletes every unused volume",
    "system_prune_volumes": "deletes every unused volume",
    "container_rm_anon": "deletes the containers' anonymous volumes",
    "autoremove_anon": "may delete anonymous volumes",
    "compose_renew_anon": "replaces anonymous volumes by empty ones",
    "swarm_task_anon": "may delete anonymous volumes",
}
_MAY_TURN = frozenset({("compose", "down"), ("compose", "rm"), ("container", "rm"), ("system", "prune")})
"""Verbs that one more flag makes a door: a word whose value is not known may be it."""


def docker_name(program: str) -> str:
    """The program whose grammar the words of an engine's client are read with."""
    return "docker-compose" if program in ("docker-compose", "podman-compose") else "docker"


def kind_of(
    words: Sequence[Word], program: str, *, own_verb: Callable[[Sequence[str]], str | None] | None = None
) -> grammar.Invocation | None:
    """The invocation, if these words are a door: unknown words count as one operand each, or as nothing.

    `own_verb` is given where the words are for the program `safe-compose`: it tells a verb of ours, which is no door.
    """
    for given in ([w.text if w.sure else "x" for w in words], [w.text for w in words if w.sure]):
        argv = given
        if own_verb is not None:
            at = grammar.command_at(argv)
            if argv[at : at + 1] in (["up"], ["down"]):
                argv = [*argv[:at], "compose", *argv[at:]]
            elif own_verb(argv) is not None:
                return None
        for dialect in ("v2", "v1") if program == "docker-compose" else ("v2",):
            try:
                found = grammar.parse(argv, program, dialect=dialect)
            except UsageError:
                continue  # our own flags contradict each other: it ends with 64 and docker is not run
            if found.kind != grammar.NONE and not found.own.explain:
                return found
    return None


def may_turn(words: Sequence[Word], program: str, text: str) -> grammar.Invocation | None:
    """A door that the words are if one of them, whose value is not known, holds the right flag or verb."""
    if all(word.sure for word in words):
        return None
    for guess in (["--volumes"], ["down", "-v"], ["rm", "x"], ["prune"], ["volume", "rm", "x"], ["system", "prune", "--volumes"]):
        if guess != ["--volumes"] and not words_of_a_door(text):
            continue
        found = kind_of([w for word in words for w in ([word] if word.sure else map(Word, guess))], program)
        if found is not None and (guess != ["--volumes"] or found.verb in _MAY_TURN):
            return found
    return None
