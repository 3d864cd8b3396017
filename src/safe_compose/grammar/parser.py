"""The effect that the words of docker's command line may have, before anything is looked up.

The parser knows no verb by name (those are in `tables`); it repeats what spf13/pflag and
spf13/cobra do with words (pflag `parseArgs`, cobra `Command.Traverse`, docker/cli
`HandleGlobalFlags`), and docopt 0.6.2 for docker-compose 1.29 (`docopt`). It may err in one
direction only: toward a kind that is not `none`. Every command that holds a suspicious word loads
it, so it imports nothing heavy.
"""

from safe_compose.grammar.own_flags import OwnFlags, strip
from safe_compose.grammar.tables import (
    ALL_VERBS,
    DOCKER,
    GROUP_FLAGS,
    GROUPS,
    HELP,
    INHERITED,
    LOCK,
    LOCK_NAME,
    NONE,
    OLD_VERBS,
    RECREATE,
    TRUE,
    UNSUPPORTED,
    V1,
    WARNED,
    Flags,
    Rejected,
    Verb,
    accepts,
    is_flag,
    table,
)
from safe_compose.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Invocation(NamedTuple):
    """A command line, parsed as far as needed."""

    program: str
    """`docker` or `docker-compose`."""
    argv: tuple[str, ...]
    """The arguments for docker: own flags removed, everything else verbatim, without argv[0]."""
    docker_globals: tuple[str, ...] = ()
    """The words before the docker command, verbatim (a `--` before the command is left out: it
    means nothing)."""
    compose_globals: tuple[str, ...] = ()
    """The words between `compose` and its verb, verbatim."""
    docker_flags: tuple[tuple[str, str], ...] = ()
    """docker's global flags with long names: ("context", "x"), ("debug", "true")."""
    compose_flags: tuple[tuple[str, str], ...] = ()
    verb: tuple[str, ...] = ()
    """The canonical verb: ("compose", "down"); ("container", "rm") for every alias of it; () when
    it is not in the tables."""
    flags: tuple[tuple[str, str], ...] = ()
    """Flags of the verb with long names, in the order typed."""
    operands: tuple[str, ...] = ()
    kind: str = NONE
    """The possible effect of the words alone (design, section 3)."""
    doubt: str | None = None
    """Why `kind` is only a doubt: no client that the tables know accepts these words, but another
    one may."""
    unknown: tuple[str, ...] = ()
    """The flags that no client in the tables accepts."""
    asks: bool = False
    """Whether it runs, and asks on its own before it recreates a volume whose definition changed.
    The words do not show the answer, so the code that reads stdin decides (`add_answer`)."""
    removes: bool = False
    """Whether it removes containers. The code that inspects the engine decides whether a deletion
    lock is among them (`add_unlocking`)."""
    own: OwnFlags = OwnFlags()

    def flag(self, name: str) -> str | None:
        """Return the last value given for a flag of the verb, else of compose, else of docker.

        None when the flag was not given.
        """
        for level in (self.flags, self.compose_flags, self.docker_flags):
            for given, value in reversed(level):
                if given == name:
                    return value
        return None

    def is_set(self, name: str) -> bool:
        """Return whether a boolean flag is on."""
        return self.flag(name) in TRUE

    @property
    def is_refused(self) -> bool:
        """Return whether the words alone decide that docker is not run.

        Their effect is then unknown, or deletes data that cannot be backed up.
        """
        return self.doubt is not None or self.kind == UNSUPPORTED


class WordReader:
    """A pass over the words; `unknown` collects the flags that no known client has."""

    def __init__(self, *, swallow: bool, skip: bool) -> None:
        """Start a pass with these assumptions about unknown flags."""
        self.swallow = swallow
        """Whether pflag is to take the next word as the value of an unknown flag."""
        self.skip = skip
        """Whether cobra is to do so on its way to a sub-command: today's clients do skip a word,
        before they reject the flag."""
        self.unknown: list[str] = []
        self.values: list[tuple[str, str]] = []
        """Flags of all levels, in the order typed: `help` and `dry-run` are one variable each."""

    def put(
        self, into: list[tuple[str, str]], flags: Flags, name: str, value: str, typed: str
    ) -> None:
        """Add a flag with its value.

        Raises:
            Rejected: Every client rejects the value.
        """
        kind = flags.types[name]
        if not accepts(kind, value):
            raise Rejected(f"{typed} does not take {value!r}")
        if "|" in kind and value and value not in kind.split("|"):
            self.unknown.append(f"{typed} {value}")
        into.append((name, value))
        self.values.append((name, value))

    def parse(
        self, words: "Sequence[str]", flags: Flags, *, interspersed: bool
    ) -> tuple[list[tuple[str, str]], list[str]]:
        """Return (flags with values, operands), as pflag's `parseArgs` reads the words.

        Raises:
            Rejected: Every client rejects the words.
        """
        given: list[tuple[str, str]] = []
        operands: list[str] = []
        rest = list(reversed(words))
        while rest:
            word = rest.pop()
            if word[:1] != "-" or word == "-":
                operands.append(word)
                if not interspersed:
                    break
            elif word == "--":
                break
            elif word.startswith("--"):
                self.long(word, rest, flags, given)
            else:
                self.short(word, rest, flags, given)
        return given, operands + rest[::-1]

    def long(self, word: str, rest: list[str], flags: Flags, given: list[tuple[str, str]]) -> None:
        """Read a long flag, and its value from `rest` if it needs one.

        Raises:
            Rejected: Every client rejects the flag.
        """
        typed, equals, value = word[2:].partition("=")
        if not typed or typed[0] == "-":
            raise Rejected(f"bad flag syntax: {word}")
        name = flags.known(typed)
        if name is None:
            self.unknown.append("--" + typed)
            if self.swallow and not equals and rest:
                rest.pop()
            return
        if not equals:
            if flags.types[name] == "bool":
                value = "true"
            elif not rest:
                raise Rejected(f"--{typed} needs an argument")
            else:
                value = rest.pop()
        self.put(given, flags, name, value, "--" + typed)

    def short(self, word: str, rest: list[str], flags: Flags, given: list[tuple[str, str]]) -> None:
        """Read a word of short flags, and a value from `rest` if the last one needs one.

        Raises:
            Rejected: Every client rejects one of the flags.
        """
        letters = word[1:]
        while letters:
            if letters.startswith("test."):
                return  # pflag silently ignores flags of `go test`
            letter, letters = letters[0], letters[1:]
            name = flags.names.get(letter)
            if name is None:
                if not (letter.isascii() and letter.isalpha()):
                    raise Rejected(f"-{letter} is no flag")
                self.unknown.append("-" + letter)
                if letters[:1] == "=" and len(letters) > 1:
                    return
                if self.swallow:
                    if not letters and rest:
                        rest.pop()
                    return
                continue
            if len(letters) > 1 and letters[0] == "=":
                value, letters = letters[1:], ""
            elif flags.types[name] == "bool":
                value = "true"
            elif letters:
                value, letters = letters, ""
            elif rest:
                value = rest.pop()
            else:
                raise Rejected(f"-{letter} needs an argument")
            self.put(given, flags, name, value, "-" + letter)

    def takes_next(self, word: str, flags: Flags) -> bool:
        """Return whether cobra's `Traverse` takes the next word for the value of a flag.

        It does so for every flag that it does not know as a boolean.
        """
        name = flags.known(word[2:]) if word.startswith("--") else flags.names.get(word[1:])
        if name is None:
            return word == "--" or self.skip
        return flags.types[name] != "bool"

    def traverse(
        self, words: "Sequence[str]", flags: Flags, path: tuple[str, ...]
    ) -> tuple[list[str], str, list[str]] | None:
        """Return (flags, sub-command, words after it), as cobra's `Traverse` reads the words.

        None where no known sub-command follows. `-- x down` finds `down`: `--` counts as a flag
        with the value `x` here (tried with docker 28.2).
        """
        before: list[str] = []
        in_flag = False
        for index, word in enumerate(words):
            if word.startswith("--") and "=" not in word:
                in_flag = self.takes_next(word, flags)
            elif (
                word.startswith("-")
                and "=" not in word
                and len(word) == 2
                and self.takes_next(word, flags)
            ):
                in_flag = True
            elif in_flag:
                in_flag = False
            elif not is_flag(word):
                longer = (*path, word)
                if (longer in ALL_VERBS or longer in GROUPS) and longer != ("compose",):
                    return before, word, list(words[index + 1 :])
                return None
            before.append(word)
        return None

    def on(self, name: str) -> bool:
        """Return the last value that any level gave a boolean."""
        return next((value for given, value in reversed(self.values) if given == name), "") in TRUE


def parse(words: "Sequence[str]", program: str = "docker", *, dialect: str = "v2") -> Invocation:
    """Parse a command line: return the arguments for docker and their possible effect.

    Args:
        words: The words after argv[0].
        program: The program that they were typed for: `docker` or `docker-compose`.
        dialect: For `docker-compose`: `v1` is docker-compose 1.29.

    Raises:
        UsageError: Our own flags contradict each other.
    """
    old = program == "docker-compose" and dialect == "v1"
    argv, own = strip(words, program, old=old)
    read = read_old if old else read_standalone if program == "docker-compose" else read_docker
    base = Invocation(program, argv, own=own)
    invocation, unknown = read(base, WordReader(swallow=False, skip=True))
    if not unknown:
        return invocation
    # Known clients reject this. A client that knows the flags may take them as booleans, or with a
    # value: try both.
    guesses = [
        read(base, WordReader(swallow=swallow, skip=swallow))[0] for swallow in (False, True)
    ]
    removes, asks = any(guess.removes for guess in guesses), any(guess.asks for guess in guesses)
    # One before the verb (`compose --new up`) hides from the clients we know which verb that is,
    # and what it asks.
    meant = max(
        (invocation, *guesses), key=lambda guess: (guess.asks, guess.removes, guess.verb != ())
    )
    harmless = meant._replace(kind=NONE, doubt=None, removes=removes, asks=asks)
    return next((guess for guess in guesses if guess.kind not in (NONE, *WARNED)), harmless)


def read_docker(base: Invocation, reading: WordReader) -> tuple[Invocation, bool]:
    """Read words as docker/cli does; `compose` gets them whole, and has no --version before it."""
    try:
        given, rest = reading.parse(base.argv, table(DOCKER, HELP), interspersed=False)
    except Rejected:
        return base, False
    before = base.argv[: len(base.argv) - len(rest)]
    base = base._replace(
        docker_flags=tuple(given), docker_globals=before[:-1] if before[-1:] == ("--",) else before
    )
    if not rest or is_contradiction(given):
        return base, False
    if rest[0] == "compose":
        reading.unknown.extend("--version" for name, _ in given if name == "version")
        return read_verb(base, reading, rest[1:], ("compose",))
    return read_verb(base, reading, rest, ())


def read_standalone(base: Invocation, reading: WordReader) -> tuple[Invocation, bool]:
    """Read words of docker-compose v2: rewritten as its own main() does, then as the plugin."""
    from safe_compose.grammar.standalone import split_standalone

    converted = split_standalone(base.argv)
    if converted is None or converted[1][0] != "compose":
        return base, False
    moved, command = converted
    try:
        given, _ = reading.parse(moved, table(DOCKER, HELP), interspersed=False)
    except Rejected:
        return base, False
    base = base._replace(docker_flags=tuple(given), docker_globals=tuple(moved))
    if is_contradiction(given):
        return base, False
    return read_verb(base, reading, command[1:], ("compose",))


def is_contradiction(given: "Sequence[tuple[str, str]]") -> bool:
    """Return whether the global flags are an error: -H twice, or -H with -c.

    See docker/cli `hostVar`, `newAPIClientFromEndpoint`.
    """
    hosts = sum(name == "host" for name, _ in given)
    context = next((value for name, value in reversed(given) if name == "context"), "")
    return hosts > 1 or bool(hosts and context)


def read_verb(
    base: Invocation, reading: WordReader, rest: list[str], path: tuple[str, ...]
) -> tuple[Invocation, bool]:
    """Descend the tree of commands to a verb of the tables, then read its own words."""
    try:
        while path not in ALL_VERBS:
            # `compose` inherits dry-run to its verbs, `stack` its orchestrator: one variable for
            # both places.
            inherited = INHERITED.get(path[0], "") if path else ""
            flags = table(GROUP_FLAGS.get(path, "") if path else DOCKER, inherited, HELP)
            found = reading.traverse(rest, flags, path)
            if found is None:
                # cobra reads them on this command: is one unknown?
                reading.parse(rest, flags, interspersed=False)
                return base, bool(reading.unknown)
            words, word, after = found
            given, _ = reading.parse(words, flags, interspersed=path != ("compose",))
            if path == ("compose",):
                base = base._replace(compose_globals=tuple(words), compose_flags=tuple(given))
            path, rest = (*path, word), after
        verb = ALL_VERBS[path]
        flags = table(verb.flags, INHERITED.get(path[0], ""), HELP, spellings=verb.spellings)
        given, operands = reading.parse(rest, flags, interspersed=verb.interspersed)
    except Rejected:
        return base, bool(reading.unknown)
    base = base._replace(verb=verb.path, flags=tuple(given), operands=tuple(operands))
    # With an unknown flag it may accept no operand (`volume rm --all`) or more of them.
    counts = bool(reading.unknown) or verb.operands[0] <= len(operands) <= verb.operands[1]
    if reading.on("help") or reading.on("dry-run") or not counts:
        return base, bool(reading.unknown)
    return judge(base, verb, reading.unknown), bool(reading.unknown)


def judge(base: Invocation, verb: Verb, unknown: "Sequence[str]") -> Invocation:
    """Return the invocation with the kind of an accepted command, or of a doubtful one."""
    base = base._replace(removes=verb.removes, asks=verb.asks, unknown=tuple(unknown))
    for opener, opens in verb.destructive_flags:
        name, _, value = opener.partition("=")
        given = base.flag(name) == value if value else base.is_set(name)
        if not name or given or any(resembles(flag, name, verb) for flag in unknown):
            return in_doubt(base._replace(kind=opens))
    named = verb.removes and any(
        word.removeprefix("/").startswith(LOCK_NAME) for word in base.operands
    )
    return base._replace(kind=LOCK if named else NONE)


def in_doubt(invocation: Invocation) -> Invocation:
    """Return the invocation with the reason for the doubt about its effect, if there is one."""
    if not invocation.unknown:
        return invocation
    command = " ".join(
        ("docker-compose" if invocation.program == "docker-compose" else "docker", *invocation.verb)
    )
    return invocation._replace(
        doubt=f"{command}: a newer client may know {', '.join(invocation.unknown)}"
    )


def add_answer(invocation: Invocation) -> Invocation:
    """Return the invocation for a stdin that may answer compose's question.

    A compose file that is read from stdin leaves nothing for an answer.
    """
    if not invocation.asks or ("file", "-") in invocation.compose_flags:
        return invocation
    return in_doubt(invocation._replace(kind=RECREATE))


def add_unlocking(invocation: Invocation) -> Invocation:
    """Return the invocation of a removal of containers on an engine with deletion locks."""
    return (
        invocation._replace(kind=LOCK)
        if invocation.kind == NONE and invocation.removes
        else invocation
    )


def add_remove_orphans(invocation: Invocation) -> Invocation:
    """Return the invocation of `compose down` where COMPOSE_REMOVE_ORPHANS is set.

    It makes --remove-orphans the default (run with 2.26.1).
    """
    if invocation.kind != "none" or invocation.flag("remove-orphans") is not None:
        return invocation
    return in_doubt(invocation._replace(kind="autoremove_anon"))


def resembles(unknown: str, known: str, verb: Verb) -> bool:
    """Return whether an unknown flag may be a newer spelling of a destructive one.

    For example `-V`, `--Volumes`, `--vol`.
    """
    typed = unknown.lstrip("-").casefold()
    if len(unknown) == 2:
        short = next((s for s, name in table(verb.flags).names.items() if name == known), known[:1])
        return typed == short.casefold()
    return known.startswith(typed) or typed.startswith(known)


DOCKERS_OWN = frozenset({"host", "context", "tls", "tlscacert", "tlscert", "tlskey", "tlsverify"})


def read_old(base: Invocation, _reading: WordReader) -> tuple[Invocation, bool]:
    """Read words as docker-compose 1.29 does: options first at both levels (docopt 0.6.2).

    Nothing newer will come, so nothing is assumed about unknown flags.
    """
    from safe_compose.grammar.docopt import parse_docopt

    try:
        given, rest = parse_docopt(base.argv, table(V1))
        if rest[:1] == ["--"]:
            rest = rest[1:]
        verb = OLD_VERBS.get(tuple(rest[:1]))
        compose = [(name, value) for name, value in given if name not in DOCKERS_OWN]
        base = base._replace(
            docker_flags=tuple(pair for pair in given if pair[0] in DOCKERS_OWN),
            compose_flags=tuple(compose),
            docker_globals=restore_v1_words(
                (name, value) for name, value in given if name in DOCKERS_OWN
            ),
            compose_globals=restore_v1_words(compose),
        )
        if verb is None or any(name in ("help", "version") for name, _ in given):
            return base, False
        flags = table(verb.flags, HELP)
        own, operands = parse_docopt(rest[1:], flags)
    except Rejected:
        return base, False
    if operands[:1] == ["--"] and verb.operands[1]:
        operands = operands[1:]
    base = base._replace(verb=verb.path, flags=tuple(own), operands=tuple(operands))
    if (
        any(name == "help" for name, _ in own)
        or not verb.operands[0] <= len(operands) <= verb.operands[1]
    ):
        return base, False
    return judge(base, verb, ()), False


def restore_v1_words(given: "Iterable[tuple[str, str]]") -> tuple[str, ...]:
    """Return the words of docker-compose 1.x flags that precede the verb."""
    types = table(V1).types
    return tuple(
        word
        for name, value in given
        for word in ([f"--{name}"] if types[name] == "bool" else [f"--{name}", value])
    )
