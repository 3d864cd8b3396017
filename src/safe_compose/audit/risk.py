"""The risk of a shell line: docker's grammar applied to words that are not all known."""

import re
from collections.abc import Callable, Sequence

from safe_compose.audit.shell_values import could_be
from safe_compose.audit.shell_words import Word
from safe_compose.errors import UsageError
from safe_compose.grammar import own_flags, parser, tables

SOFT = frozenset({"autoremove_anon", "compose_renew_anon", "swarm_task_anon", "unsupported"})
"""Kinds that are left to the guard: those that rarely delete data and that only the engine can
judge, and one that it refuses."""
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
    "unsupported": "deletes data that safe-compose cannot back up",
    "deletion_lock_rm": "removes the container that keeps docker from deleting a volume",
    "folder_rm": "removes files of a folder that a service mounts",
    "folder_change": "overwrites files, or changes their owner or mode, in a folder that a service"
    " mounts",
}
_FLAGS_TO_TURN = frozenset(
    {("compose", "down"), ("compose", "rm"), ("container", "rm"), ("system", "prune")}
)
"""Verbs that one more flag makes destructive: a word with an unknown value may be that flag."""
_RARE_OPERANDS = frozenset({("compose", "down"), ("system", "prune")})
"""Those that people give flags rather than operands."""
LIKE_FLAGS = re.compile(r"arg|opt|flag|vol|extra|param", re.IGNORECASE)
LIKE_DOCKER = re.compile(r"docker|compose|podman|nerdctl|^dc|(^|_)dc?$", re.IGNORECASE)
"""Names of variables that may hold the docker command."""
ANONYMOUS = frozenset({"compose_rm_anon", "container_rm_anon", "compose_recreate_changed_volume"})
"""Kinds of commands that delete no volume that has a name of its own."""
_LIKE_OPERANDS = re.compile(
    r"serv|svc|name|app|cont|proj|file|stack|comp|db|id$|^[cdins]$", re.IGNORECASE
)
_VERB_WORDS = ("compose", "volume", "system", "container", "down", "rm", "prune", "remove")


def docker_name(program: str) -> str:
    """Return the program whose grammar applies to the words of an engine's client."""
    return "docker-compose" if program in ("docker-compose", "podman-compose") else "docker"


def read_invocation(
    words: Sequence[Word],
    program: str,
    *,
    own_verb: Callable[[Sequence[str]], str | None] | None = None,
) -> parser.Invocation | None:
    """Return the invocation if these words are a destructive command, or None.

    Unknown words count as one operand each, or as none. `own_verb` is given for words of the
    program `safe-compose`: it recognizes one of our verbs, which is not destructive.
    """
    for given in ([w.text if w.sure else "x" for w in words], [w.text for w in words if w.sure]):
        argv = given
        if own_verb is not None:
            at = own_flags.find_command(argv)
            if argv[at : at + 1] in (["up"], ["down"]):
                argv = [*argv[:at], "compose", *argv[at:]]
            elif own_verb(argv) is not None:
                return None
        for dialect in ("v2", "v1") if program == "docker-compose" else ("v2",):
            try:
                found = parser.parse(argv, program, dialect=dialect)
            except UsageError:
                continue  # our own flags contradict each other: docker is not run (64)
            if found.kind != tables.NONE and not found.own.explain:
                return found
    return None


def may_turn(words: Sequence[Word], program: str) -> parser.Invocation | None:
    """Return the destructive command that the words may turn out to be, or None.

    It is the one that results if an unknown word is such a flag, or a verb of which a part is
    known.
    """
    for index, word in enumerate(words):
        if word.sure:
            continue
        for guess in _guesses(word):
            found = read_invocation([*words[:index], Word(guess), *words[index + 1 :]], program)
            if found is None:
                continue
            if not guess.startswith("-") or (
                found.verb in _FLAGS_TO_TURN and _may_be_flags(word, found.verb)
            ):
                return found
    return None


def _guesses(word: Word) -> list[str]:
    """Return the values of an unknown word that are worth trying."""
    partly = any(part.known and part.text for part in word.parts)
    guesses = [flag for flag in ("--volumes", "-v") if could_be(word, flag)][:1]
    lone = bool(word.parts) and all(part.quoted for part in word.parts)
    if partly or lone:
        guesses += [verb for verb in _VERB_WORDS if could_be(word, verb)]
    return guesses


def _may_be_flags(word: Word, verb: tuple[str, ...]) -> bool:
    """Return whether an unknown word may hold a flag of this verb.

    One quoted variable is one word, and people do not write a flag so; the output of `docker ps`
    holds none.
    """
    if word.origin:
        return False
    if not word.parts or any(part.known and part.text for part in word.parts):
        return bool(word.parts)
    names = [part.name for part in word.parts]
    many = any(name in ("@", "*") or name.endswith("[@]") for name in names)
    likely = any(LIKE_FLAGS.search(name) for name in names)
    if all(part.quoted for part in word.parts) and not many:
        return False
    if any(part.script for part in word.parts):
        return any(re.search(r"(?<![\w-])-\w*v|--vol", part.script) for part in word.parts)
    if verb in _RARE_OPERANDS:
        return many or likely or not any(_LIKE_OPERANDS.search(name) for name in names)
    return likely
