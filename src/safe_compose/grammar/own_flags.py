"""Our own flags: taken out from among docker's in one pass, and completed by the environment."""

from safe_compose.errors import UsageError
from safe_compose.grammar.tables import (
    COMPOSE,
    DOCKER,
    DRY_RUN,
    FALSE,
    GROUP_FLAGS,
    GROUPS,
    HELP,
    OLD_VERBS,
    TRUE,
    V1,
    VERBS,
    Flags,
    Rejected,
    Verb,
    is_flag,
    table,
)
from safe_compose.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class OwnFlags(NamedTuple):
    """Our own flags, from words or from the environment."""

    non_interactive: bool = False
    backup_first: bool = False
    confirm: str | None = None
    skip_backup: bool = False
    explain: bool = False
    json: bool = False
    offline: bool = False


OWN_FLAGS = frozenset("--" + name.replace("_", "-") for name in OwnFlags._fields)


def strip(words: "Sequence[str]", program: str, *, old: bool) -> tuple[tuple[str, ...], OwnFlags]:
    """Return the words without our own flags, and those flags.

    docker's flags are read in the same pass, since one that takes a value also takes a word that
    looks like a flag of ours. A flag is ours before the command, between `compose` and its verb,
    and after a verb of the tables; not after `--`, nor after any other command.

    Raises:
        UsageError: Our flags contradict each other, or one has no value or one too many.
    """
    passed: list[str] = []
    taken: list[tuple[str, str]] = []
    path: tuple[str, ...] = () if program == "docker" else ("compose",)
    flags = (
        table(V1) if old else table(*(DOCKER, COMPOSE, DRY_RUN, HELP) if path else (DOCKER, HELP))
    )
    verb: Verb | None = None
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        name = word.partition("=")[0]
        if name in OWN_FLAGS and (verb is not None or path in ((), ("compose",))):
            value, index = _read_value(word, words, index)
            taken.append((name, value))
            continue
        passed.append(word)
        if word == "--":
            break
        if word.startswith("--") and not old and (verb is not None or path in ((), ("compose",))):
            refuse_typing_error(name, flags)
        if word.startswith("-") and len(word) > 1:
            if wants_value(word, flags, old=old) and index < len(words):
                passed.append(words[index])
                index += 1
            continue
        if verb is not None:
            if old or not verb.interspersed:
                break
            continue
        if is_flag(word) and not old:
            continue
        path = (*path, word)
        verb = OLD_VERBS.get(path[1:]) if old else VERBS.get(path)
        following = _list_flags(path, verb)
        if following is None:
            break
        flags = following
    return (*passed, *words[index:]), make_own_flags(taken)


def refuse_typing_error(name: str, flags: Flags) -> None:
    """Refuse a flag that docker has not and that is nearer to one of ours than to one of docker's.

    Raises:
        UsageError: It is one.
    """
    if flags.known(name[2:]) is not None:
        return
    from safe_compose.grammar.spelling import count_slips, find_near

    meant = find_near(name, OWN_FLAGS)
    other = find_near(name, {f"--{one}" for one in (*flags.types, *table(DOCKER).types)})
    if meant is None:
        return
    if other is None or count_slips(name, meant) < count_slips(name, other):
        raise UsageError(f"there is no flag {name}: did you mean {meant}?")


def _read_value(word: str, words: "Sequence[str]", index: int) -> tuple[str, int]:
    """Return the value of one of our flags, and the index of the word after it.

    Args:
        word: The flag as typed.
        words: All words.
        index: The index of the word after the flag.

    Raises:
        UsageError: A value is missing, or there is one too many.
    """
    name, equals, value = word.partition("=")
    if name != "--confirm" and equals:
        raise UsageError(f"{name} takes no value", next_step=f"write {name} alone")
    if name != "--confirm" or equals:
        return value, index
    if index >= len(words):
        raise UsageError("--confirm needs the phrase", next_step="write --confirm PHRASE")
    return words[index], index + 1


def _list_flags(path: tuple[str, ...], verb: Verb | None) -> Flags | None:
    """Return the flags of a verb or of a group of commands; None for any other command."""
    if verb is not None:
        return table(verb.flags, DRY_RUN, HELP, spellings=verb.spellings)
    return table(GROUP_FLAGS.get(path, ""), DRY_RUN, HELP) if path in GROUPS else None


def wants_value(word: str, flags: Flags, *, old: bool) -> bool:
    """Return whether a flag as typed takes the next word for its value."""
    if word.startswith("--"):
        if "=" in word:
            return False
        try:
            name = _old_name(word[2:], flags) if old else flags.known(word[2:])
        except Rejected:
            return False
        return name is not None and flags.types[name] != "bool"
    letters = word[1:]
    for index, letter in enumerate(letters):
        name = flags.names.get(letter)
        if name is not None and flags.types[name] != "bool":
            return index == len(letters) - 1
        if letters[index + 1 : index + 2] == "=" or letters[index:].startswith("test."):
            return False
    return False


def _old_name(typed: str, flags: Flags) -> str:
    """Return the flag of docker-compose 1.x that a prefix stands for.

    Raises:
        Rejected: There is none, or there are several.
    """
    from safe_compose.grammar.docopt import expand_prefix

    return expand_prefix(typed, flags)


def make_own_flags(taken: "Sequence[tuple[str, str]]") -> OwnFlags:
    """Return our flags as a value.

    Raises:
        UsageError: They contradict each other.
    """
    phrases = {value for name, value in taken if name == "--confirm"}
    if len(phrases) > 1:
        raise UsageError(
            "--confirm was given twice with different phrases", next_step="give it once"
        )
    names = {name for name, _ in taken}
    own = OwnFlags(
        non_interactive="--non-interactive" in names,
        backup_first="--backup-first" in names,
        confirm=next(iter(phrases), None),
        skip_backup="--skip-backup" in names,
        explain="--explain" in names,
        json="--json" in names,
        offline="--offline" in names,
    )
    if own.offline and not own.explain:
        raise UsageError("--offline goes with --explain", next_step="add --explain")
    return check_own_flags(own)


def check_own_flags(own: OwnFlags) -> OwnFlags:
    """Return the flags, unless they contradict each other.

    Raises:
        UsageError: They do.
    """
    if own.skip_backup and own.backup_first:
        raise UsageError(
            "--skip-backup contradicts --backup-first (or SAFE_COMPOSE_BACKUP_FIRST)",
            next_step="leave one of them out",
        )
    return own


def add_environment(own: OwnFlags, environ: "Mapping[str, str]") -> OwnFlags:
    """Return the flags with those that the environment adds; a typed phrase counts first.

    Raises:
        UsageError: A value is no ParseBool word, or contradicts the typed flags.
    """
    confirm = (
        own.confirm if own.confirm is not None else environ.get("SAFE_COMPOSE_CONFIRM") or None
    )
    return check_own_flags(
        own._replace(
            non_interactive=own.non_interactive
            or is_switched_on(environ, "SAFE_COMPOSE_NON_INTERACTIVE"),
            backup_first=own.backup_first or is_switched_on(environ, "SAFE_COMPOSE_BACKUP_FIRST"),
            confirm=confirm,
        )
    )


def is_switched_on(environ: "Mapping[str, str]", name: str) -> bool:
    """Return whether a variable of the environment is switched on.

    Raises:
        UsageError: Its value is no ParseBool word.
    """
    value = environ.get(name, "")
    if value and value not in TRUE and value not in FALSE:
        raise UsageError(f"{name} is neither 1 nor 0", next_step=f"set {name}=1, or unset it")
    return value in TRUE


def find_command(words: "Sequence[str]") -> int:
    """Return the index of docker's command: the first word that is no own or global flag.

    len(words) when there is none.
    """
    flags = table(DOCKER, HELP)
    index = 0
    while index < len(words):
        word = words[index]
        if word in OWN_FLAGS:
            index += 1 + (word == "--confirm")
        elif word == "--":
            return min(index + 1, len(words))
        elif word.startswith("-") and len(word) > 1:
            index += 1 + wants_value(word, flags, old=False)
        else:
            return index
    return len(words)
