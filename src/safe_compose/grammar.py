"""Docker's command line as tables: what the words typed may do, before anything is looked up.

The parser below knows no verb by name; it repeats what spf13/pflag and spf13/cobra do with words (pflag `parseArgs`, cobra
`Command.Traverse`, docker/cli `HandleGlobalFlags`), and docopt 0.6.2 for docker-compose 1.29. It may err in one direction
only: toward a kind that is not `none`. This room is on the way of every command that holds a suspicious word, so it imports
nothing heavy.
"""

from safe_compose.errors import UsageError
from safe_compose.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KNOWN_DOCKER = (29, 7)
"""The newest docker client that these tables know (docker/cli 29.7.2; they are unions over every version since 20.10)."""
KNOWN_COMPOSE = (5, 5)
"""The newest compose that these tables know (read from docker/compose 5.5.0; unions over every version since 2.0)."""

NONE = "none"
MANY = 1 << 30
MANY_WORDS = (1, MANY)

# A table of flags is one line of words: `name`, `name/s` with a shorthand, `name:type` when a value is needed.
# Without a type it is a boolean. Types: `any`, `int` (Go ParseInt), `filter` (name=value), `level` (logrus), or the
# accepted words themselves, `a|b`.
DOCKER = (
    "config:any context/c:any debug/D host/H:any log-level/l:level tls tlscacert:any tlscert:any tlskey:any tlsverify version/v"
)
HELP = "help/h"
DRY_RUN = "dry-run"
COMPOSE = (
    "profile:any project-name/p:any file/f:any insecure-registry:any env-file:any project-directory:any workdir:any"
    " compatibility progress:any all-resources ansi:any parallel:int version/v no-ansi verbose"
)
V1 = (
    "file/f:any project-name/p:any profile:any context/c:any verbose log-level:any ansi:any no-ansi version/v host/H:any tls"
    " tlscacert:any tlscert:any tlskey:any tlsverify skip-hostname-check project-directory:any compatibility env-file:any"
    " help/h"
)
CREATE = "build no-build pull:any quiet-pull force-recreate no-recreate remove-orphans scale:any yes/y"
SERVICE = (
    "detach/d quiet/q workdir/w:any user/u:any credential-spec:any hostname:any entrypoint:any cap-add:any cap-drop:any"
    " limit-cpu:any limit-memory:any reserve-cpu:any reserve-memory:any limit-pids:any memory-swap:any memory-swappiness:any"
    " stop-grace-period:any replicas:any max-concurrent:any replicas-max-per-node:any restart-condition:any"
    " restart-delay:any restart-max-attempts:any restart-window:any update-parallelism:any update-delay:any"
    " update-monitor:any update-failure-action:any update-max-failure-ratio:any update-order:any rollback-parallelism:any"
    " rollback-delay:any rollback-monitor:any rollback-failure-action:any rollback-max-failure-ratio:any rollback-order:any"
    " endpoint-mode:any with-registry-auth no-resolve-image log-driver:any log-opt:any health-cmd:any health-interval:any"
    " health-timeout:any health-retries:any health-start-period:any health-start-interval:any no-healthcheck tty/t read-only"
    " stop-signal:any isolation:any image:any args:any rollback force env-rm:any group-rm:any label-rm:any"
    " container-label-rm:any mount-rm:any publish-rm:any constraint-rm:any dns-rm:any dns-option-rm:any dns-search-rm:any"
    " host-rm:any label-add:any container-label-add:any env-add:any secret-rm:any secret-add:any config-rm:any"
    " config-add:any mount-add:any constraint-add:any placement-pref-add:any placement-pref-rm:any network-add:any"
    " network-rm:any publish-add:any group-add:any dns-add:any dns-option-add:any dns-search-add:any host-add:any"
    " init sysctl-add:any sysctl-rm:any ulimit-add:any ulimit-rm:any oom-score-adj:any generic-resource-rm:any"
    " generic-resource-add:any"
)


class Verb(NamedTuple):
    """One command that may cost a volume."""

    path: tuple[str, ...]
    """Its canonical name."""
    flags: str = ""
    doors: tuple[tuple[str, str], ...] = ()
    """(what opens it, the kind it then is), first match wins. What opens it: `` (always), `flag`, or `flag=value`. A flag
    that is not in `flags` is foreseen only: today's clients reject it, a newer one may not."""
    operands: tuple[int, int] = (0, MANY)
    """How many operands it accepts."""
    interspersed: bool = True
    """False: flags end at the first operand, because the rest is a command for a container (or the dialect is docopt)."""
    spellings: tuple[tuple[str, str], ...] = ()
    """SetNormalizeFunc: (typed, meant)."""
    also: tuple[tuple[str, ...], ...] = ()
    """Aliases."""
    asks: bool = False
    """It also asks on its own when a volume's definition changed, and takes `y` from a pipe."""


YES = (("y", "yes"),)  # the flag's long name was `y` in compose 2.32 and 2.33
RECREATE = "compose_recreate_changed_volume"

VERBS_V2 = (
    Verb(
        ("compose", "down"),
        "remove-orphans timeout/t:int volumes/v rmi:all|local",
        # Without -v as well: one-off containers count as orphans, and those of `compose run --rm` take theirs along (run).
        (("volumes", "compose_down_volumes"), ("remove-orphans", "autoremove_anon")),
        spellings=(("volume", "volumes"),),
    ),
    Verb(("compose", "kill"), "remove-orphans signal/s:any", (("", "autoremove_anon"),)),  # one-off containers as well (run)
    Verb(("compose", "rm"), "force/f stop/s volumes/v all/a", (("volumes", "compose_rm_anon"),)),
    Verb(
        ("compose", "up"),
        CREATE + " detach/d no-color no-log-prefix no-start abort-on-container-exit abort-on-container-failure"
        " exit-code-from:any timeout/t:int timestamps no-deps always-recreate-deps renew-anon-volumes/V quiet-build"
        " attach:any no-attach:any attach-dependencies wait wait-timeout:int watch/w menu environment/e:any",
        (("yes", RECREATE), ("renew-anon-volumes", "compose_renew_anon")),
        spellings=YES,
        asks=True,
    ),
    Verb(("compose", "create"), CREATE, (("yes", RECREATE),), spellings=YES, asks=True),
    Verb(
        ("compose", "run"),
        "detach/d env/e:any env-from-file:any label/l:any rm no-tty/T name:any user/u:any workdir/w:any entrypoint:any"
        " cap-add:any cap-drop:any no-deps volume/v:any publish/p:any use-aliases service-ports/P pull:any quiet/q"
        " quiet-build quiet-pull build remove-orphans interactive/i tty/t",
        (("yes", RECREATE),),
        MANY_WORDS,
        interspersed=False,
        spellings=(("volumes", "volume"), ("labels", "label"), ("no-TTY", "no-tty")),
        asks=True,
    ),
    Verb(("compose", "scale"), "no-deps", (("yes", RECREATE),), MANY_WORDS, asks=True),
    Verb(("compose", "watch"), "quiet prune no-up", (("yes", RECREATE),), asks=True),
    Verb(("volume", "rm"), "force/f", (("", "volume_rm"),), MANY_WORDS, also=(("volume", "remove"),)),
    Verb(("volume", "prune"), "all/a filter:filter force/f", (("", "volume_prune"),), (0, 0)),
    Verb(("system", "prune"), "all/a filter:filter force/f volumes", (("volumes", "system_prune_volumes"),), (0, 0)),
    Verb(
        ("container", "rm"),
        "force/f link/l volumes/v",
        # `rm -f` of a --rm container races with the daemon's own removal, which takes anonymous volumes along.
        (("volumes", "container_rm_anon"), ("force", "autoremove_anon")),
        MANY_WORDS,
        also=(("container", "remove"), ("rm",), ("remove",)),  # top-level `remove`: 23.0 to 28.2
    ),
    Verb(
        ("container", "stop"),
        "signal/s:any timeout/t:int time:int",
        (("", "autoremove_anon"),),
        MANY_WORDS,
        also=(("stop",),),
    ),
    Verb(("container", "kill"), "signal/s:any", (("", "autoremove_anon"),), MANY_WORDS, also=(("kill",),)),
    Verb(("service", "rm"), "", (("", "swarm_task_anon"),), MANY_WORDS, also=(("service", "remove"),)),
    Verb(("service", "update"), SERVICE, (("", "swarm_task_anon"),), (1, 1)),
    Verb(("service", "scale"), "detach/d", (("", "swarm_task_anon"),), MANY_WORDS),
    Verb(("service", "rollback"), "detach/d quiet/q", (("", "swarm_task_anon"),), (1, 1)),
    Verb(("stack", "rm"), "detach/d", (("", "swarm_task_anon"),), MANY_WORDS, also=(("stack", "remove"), ("stack", "down"))),
    Verb(
        ("stack", "deploy"),
        "compose-file/c:any with-registry-auth prune resolve-image:any detach/d quiet/q",
        (("", "swarm_task_anon"),),  # it updates services, and an updated task's container goes
        (1, 1),
        also=(("stack", "up"),),
    ),
    Verb(
        ("node", "update"),
        "role:any availability:any label-add:any label-rm:any",
        (("availability=drain", "swarm_task_anon"),),
        (1, 1),
    ),
    Verb(("swarm", "leave"), "force/f", (("", "swarm_task_anon"),), (0, 0)),
)

V1_CREATE = "force-recreate no-recreate no-build build"
VERBS_V1 = (
    Verb(("compose", "down"), "rmi:any volumes/v remove-orphans timeout/t:int", (("volumes", "compose_down_volumes"),), (0, 0)),
    Verb(("compose", "rm"), "force/f stop/s /v all/a", (("v", "compose_rm_anon"),)),
    Verb(
        ("compose", "up"),
        V1_CREATE + " detach/d no-color quiet-pull no-deps always-recreate-deps no-start abort-on-container-exit"
        " attach-dependencies timeout/t:int renew-anon-volumes/V remove-orphans exit-code-from:any scale:any no-log-prefix",
        (("renew-anon-volumes", "compose_renew_anon"),),
    ),
    # docker-compose 1.29 refuses a changed volume with an error, and deletes nothing.
    Verb(("compose", "create"), V1_CREATE),
    Verb(
        ("compose", "run"),
        "detach/d name:any entrypoint:any /e:any label/l:any user/u:any no-deps rm publish/p:any service-ports use-aliases"
        " volume/v:any /T workdir/w:any",
        operands=MANY_WORDS,
    ),
    Verb(("compose", "scale"), "timeout/t:int"),
)

VERBS: dict[tuple[str, ...], Verb] = {path: verb for verb in VERBS_V2 for path in (verb.path, *verb.also)}
GROUPS = frozenset(path[:1] for path in VERBS if len(path) == 2)
GROUP_FLAGS: dict[tuple[str, ...], str] = {("compose",): COMPOSE, ("stack",): "orchestrator:any"}
INHERITED = {"compose": DRY_RUN, "stack": "orchestrator:any"}
"""Persistent flags: one variable from the group down to its verbs."""
OLD_VERBS: dict[tuple[str, ...], Verb] = {verb.path[1:]: verb for verb in VERBS_V1}

OWN_FLAGS = frozenset({"--non-interactive", "--backup-first", "--confirm", "--skip-backup", "--explain", "--json", "--offline"})
TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
LEVELS = frozenset({"panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"})


class Own(NamedTuple):
    """Our own flags, from words or from the environment."""

    non_interactive: bool = False
    backup_first: bool = False
    confirm: str | None = None
    skip_backup: bool = False
    explain: bool = False
    json: bool = False
    offline: bool = False


class Invocation(NamedTuple):
    """One command line, understood as far as it matters."""

    program: str
    """`docker` or `docker-compose`."""
    argv: tuple[str, ...]
    """The words docker gets: own flags removed, everything else verbatim, without argv[0]."""
    docker_globals: tuple[str, ...] = ()
    """The words before the docker command, verbatim (a `--` before the command is left out: it means nothing)."""
    compose_globals: tuple[str, ...] = ()
    """The words between `compose` and its verb, verbatim."""
    docker_flags: tuple[tuple[str, str], ...] = ()
    """Parsed, with long names: ("context", "x"), ("debug", "true")."""
    compose_flags: tuple[tuple[str, str], ...] = ()
    verb: tuple[str, ...] = ()
    """Canonical: ("compose", "down"); ("container", "rm") for every alias of it; () when it is none of ours."""
    flags: tuple[tuple[str, str], ...] = ()
    """Of the verb, with long names, in the order typed."""
    operands: tuple[str, ...] = ()
    kind: str = NONE
    """What the words may do, before any look (design, section 3)."""
    doubt: str | None = None
    """Why `kind` is only a doubt: the installed client rejects the words unless it is newer than KNOWN_*."""
    asks: bool = False
    """It runs, and asks on its own before it recreates a volume whose definition changed: an answer is no word, so whoever
    looks at stdin decides (`answered`)."""
    own: Own = Own()

    def flag(self, name: str) -> str | None:
        """The last value given for a flag of the verb, else of compose, else of docker; None when it was not given."""
        for level in (self.flags, self.compose_flags, self.docker_flags):
            for given, value in reversed(level):
                if given == name:
                    return value
        return None

    def is_set(self, name: str) -> bool:
        """Whether a boolean flag is on."""
        return self.flag(name) in TRUE


class Rejected(Exception):
    """The client rejects these words, and so would a newer one: nothing runs."""


class Flags(NamedTuple):
    """A flag table, ready to be looked up."""

    types: dict[str, str]
    names: dict[str, str]
    """Shorthand -> long name."""
    spellings: dict[str, str]

    def known(self, name: str) -> str | None:
        name = self.spellings.get(name, name)
        return name if name in self.types else None


def table(*specs: str, spellings: "Iterable[tuple[str, str]]" = ()) -> Flags:
    """Read flag tables; a flag without a long name (docopt) goes by its letter and has no long spelling."""
    types: dict[str, str] = {}
    names: dict[str, str] = {}
    for word in " ".join(specs).split():
        spelling, _, kind = word.partition(":")
        name, _, short = spelling.partition("/")
        if short:
            names[short] = name or short
        types[name or short] = kind or "bool"
    return Flags(types, names, dict(spellings))


def is_go_int(text: str) -> bool:
    """Whether Go's ParseInt(text, 0, 64) accepts it."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    base, prefix = 10, False
    if digits[:1] == "0":
        prefix = True
        if len(digits) >= 3 and digits[1] in "bBoOxX":
            base = {"b": 2, "o": 8, "x": 16}[digits[1].lower()]
            digits = digits[2:]
        elif len(digits) == 1:
            return True
        else:
            base, digits = 8, digits[1:]
    if (digits[:1] == "_" and not prefix) or digits[-1:] == "_" or "__" in digits:
        return False
    bare = digits.replace("_", "")
    if not bare or any(d not in "0123456789abcdef"[:base] for d in bare.lower()):
        return False
    bare = bare.lstrip("0") or "0"
    value = int(bare, base) if len(bare) <= 64 else 1 << 64
    return value <= (1 << 63) - (text[:1] != "-")


def is_flag(word: str) -> bool:
    """Whether cobra's `Traverse` steps over a word on its way to a sub-command.

    Cobra before 1.7 takes a word for a flag as well when its second byte is a dash: docker 20.10 deletes for `volume a-b rm x`
    (`isFlagArg`, run). Newer clients reject that, so nothing else is lost by believing it.
    """
    return len(word) > 1 and (word[0] == "-" or (word[1] == "-" and len(word) > 2))


def accepts(kind: str, value: str) -> bool:
    """Whether a client accepts a value for a flag of this type (of `a|b`, newer ones may know more)."""
    match kind:
        case "bool":
            return value in TRUE or value in FALSE
        case "int":
            return is_go_int(value)
        case "filter":
            return not value or "=" in value
        case "level":
            return not value or value.lower() in LEVELS
    return True


class Reading:
    """One pass over the words; `unknown` collects the flags that no client we know has."""

    def __init__(self, *, swallow: bool, skip: bool) -> None:
        self.swallow = swallow
        """Whether pflag is to give an unknown flag the next word."""
        self.skip = skip
        """The same for cobra on its way to a sub-command: today's clients do skip a word, before they reject the flag."""
        self.unknown: list[str] = []
        self.values: list[tuple[str, str]] = []
        """Of all levels, in the order typed: `help` and `dry-run` are one variable each."""

    def put(self, into: list[tuple[str, str]], flags: Flags, name: str, value: str, typed: str) -> None:
        kind = flags.types[name]
        if not accepts(kind, value):
            raise Rejected(f"{typed} does not take {value!r}")
        if "|" in kind and value and value not in kind.split("|"):
            self.unknown.append(f"{typed} {value}")
        into.append((name, value))
        self.values.append((name, value))

    def parse(self, words: "Sequence[str]", flags: Flags, *, interspersed: bool) -> tuple[list[tuple[str, str]], list[str]]:
        """What pflag's `parseArgs` makes of `words`: (flags with values, operands)."""
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
        letters = word[1:]
        while letters:
            if letters.startswith("test."):
                return  # pflag leaves flags of `go test` alone, without a word
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
        """Whether cobra's `Traverse` takes the word after `word` for its value: whatever it does not know as a boolean."""
        name = flags.known(word[2:]) if word.startswith("--") else flags.names.get(word[1:])
        if name is None:
            return word == "--" or self.skip
        return flags.types[name] != "bool"

    def traverse(self, words: "Sequence[str]", flags: Flags, path: tuple[str, ...]) -> tuple[list[str], str, list[str]] | None:
        """What cobra's `Traverse` makes of the words after a command: (its flags, the sub-command, the words after that).

        `-- x down` finds `down`: `--` counts as a flag with the value `x` here (tried with docker 28.2).
        """
        before: list[str] = []
        in_flag = False
        for index, word in enumerate(words):
            if word.startswith("--") and "=" not in word:
                in_flag = self.takes_next(word, flags)
            elif word.startswith("-") and "=" not in word and len(word) == 2 and self.takes_next(word, flags):
                in_flag = True
            elif in_flag:
                in_flag = False
            elif not is_flag(word):
                longer = (*path, word)
                if (longer in VERBS or longer in GROUPS) and longer != ("compose",):
                    return before, word, list(words[index + 1 :])
                return None
            before.append(word)
        return None

    def on(self, name: str) -> bool:
        """The last value that any level gave a boolean."""
        return next((value for given, value in reversed(self.values) if given == name), "") in TRUE


def parse(words: "Sequence[str]", program: str = "docker", *, dialect: str = "v2") -> Invocation:
    """Understand a command line.

    Given the words after argv[0], the program they were typed for (`docker` or `docker-compose`) and, for the latter, the
    dialect (`v1`: docker-compose 1.29).
    Return what docker gets and what that may do.
    Raise UsageError when our own flags contradict each other.
    """
    old = program == "docker-compose" and dialect == "v1"
    argv, own = strip(words, program, old=old)
    read = read_old if old else read_standalone if program == "docker-compose" else read_docker
    base = Invocation(program, argv, own=own)
    invocation, unknown = read(base, Reading(swallow=False, skip=True))
    if not unknown:
        return invocation
    # Today's clients reject this. What would one do that knows the flags? Tried as booleans, then as taking a value.
    guesses = [read(base, Reading(swallow=swallow, skip=swallow))[0] for swallow in (False, True)]
    return next((guess for guess in guesses if guess.kind != NONE), invocation._replace(kind=NONE, doubt=None))


def read_docker(base: Invocation, reading: Reading) -> tuple[Invocation, bool]:
    """Read words as docker/cli does; `compose` gets them whole, and has no --version before it."""
    flags = table(DOCKER, HELP)
    try:
        given, rest = reading.parse(base.argv, flags, interspersed=False)
    except Rejected:
        return base, False
    before = base.argv[: len(base.argv) - len(rest)]
    base = base._replace(docker_flags=tuple(given), docker_globals=before[:-1] if before[-1:] == ("--",) else before)
    if not rest or refused_together(given):
        return base, False
    if rest[0] == "compose":
        reading.unknown.extend("--version" for name, _ in given if name == "version")
        return read_verb(base, reading, rest[1:], ("compose",))
    return read_verb(base, reading, rest, ())


def read_standalone(base: Invocation, reading: Reading) -> tuple[Invocation, bool]:
    """Read words of docker-compose v2: rewritten as its own main() does, then read as the plugin reads them."""
    converted = standalone(base.argv)
    if converted is None or converted[1][0] != "compose":
        return base, False
    moved, command = converted
    try:
        given, _ = reading.parse(moved, table(DOCKER, HELP), interspersed=False)
    except Rejected:
        return base, False
    base = base._replace(docker_flags=tuple(given), docker_globals=tuple(moved))
    if refused_together(given):
        return base, False
    return read_verb(base, reading, command[1:], ("compose",))


def refused_together(given: "Sequence[tuple[str, str]]") -> bool:
    """-H twice, and -H with -c, are errors (docker/cli `hostVar`, `newAPIClientFromEndpoint`)."""
    hosts = sum(name == "host" for name, _ in given)
    context = next((value for name, value in reversed(given) if name == "context"), "")
    return hosts > 1 or bool(hosts and context)


def read_verb(base: Invocation, reading: Reading, rest: list[str], path: tuple[str, ...]) -> tuple[Invocation, bool]:
    """Go down the tree of commands to a verb of the table, then read its own words."""
    try:
        while path not in VERBS:
            # `compose` inherits dry-run to its verbs, `stack` its orchestrator: one variable for both places.
            inherited = INHERITED.get(path[0], "") if path else ""
            flags = table(GROUP_FLAGS.get(path, "") if path else DOCKER, inherited, HELP)
            found = reading.traverse(rest, flags, path)
            if found is None:
                reading.parse(rest, flags, interspersed=False)  # cobra reads them on this command: is one unknown?
                return base, bool(reading.unknown)
            words, word, after = found
            given, _ = reading.parse(words, flags, interspersed=path != ("compose",))
            if path == ("compose",):
                base = base._replace(compose_globals=tuple(words), compose_flags=tuple(given))
            path, rest = (*path, word), after
        verb = VERBS[path]
        inherited = INHERITED.get(path[0], "")
        flags = table(verb.flags, inherited, HELP, spellings=verb.spellings)
        given, operands = reading.parse(rest, flags, interspersed=verb.interspersed)
    except Rejected:
        return base, bool(reading.unknown)
    base = base._replace(verb=verb.path, flags=tuple(given), operands=tuple(operands))
    if reading.on("help") or reading.on("dry-run") or not verb.operands[0] <= len(operands) <= verb.operands[1]:
        return base, bool(reading.unknown)
    return judge(base, verb, reading.unknown), bool(reading.unknown)


def judge(base: Invocation, verb: Verb, unknown: "Sequence[str]") -> Invocation:
    """The kind of an accepted command, or of a doubtful one."""
    for opener, opens in verb.doors:
        name, _, value = opener.partition("=")
        given = base.flag(name) == value if value else base.is_set(name)
        if not name or given or any(resembles(flag, name, verb) for flag in unknown):
            kind = opens
            break
    else:
        return base._replace(asks=verb.asks and not unknown)
    if not unknown:
        return base._replace(kind=kind, asks=verb.asks)
    command = ("docker-compose" if base.program == "docker-compose" else "docker", *verb.path)
    return base._replace(kind=kind, doubt=f"{' '.join(command)}: a newer client may know {', '.join(unknown)}")


def answered(invocation: Invocation) -> Invocation:
    """The same command with something on stdin that may answer compose's question.

    A compose file that is read from stdin leaves nothing for an answer.
    """
    if not invocation.asks or ("file", "-") in invocation.compose_flags:
        return invocation
    return invocation._replace(kind=RECREATE)


def orphans_go(invocation: Invocation) -> Invocation:
    """The same `compose down` where COMPOSE_REMOVE_ORPHANS makes --remove-orphans its default (run with 2.26.1)."""
    if invocation.kind != "none" or invocation.flag("remove-orphans") is not None:
        return invocation
    return invocation._replace(kind="autoremove_anon")


def resembles(unknown: str, door: str, verb: Verb) -> bool:
    """Whether a flag nobody knows may be a newer spelling of the one that opens a door: `-V`, `--Volumes`, `--vol`."""
    typed = unknown.lstrip("-").casefold()
    if len(unknown) == 2:
        short = next((s for s, name in table(verb.flags).names.items() if name == door), door[:1])
        return typed == short.casefold()
    return door.startswith(typed) or typed.startswith(door)


STANDALONE_BOOLS = ("--debug", "-D", "--verbose", "--tls", "--tlsverify")
STANDALONE_VALUES = ("--tlscacert", "--tlscert", "--tlskey", "--host", "-H", "--context", "--log-level")


def standalone(words: "Sequence[str]") -> tuple[list[str], list[str]] | None:
    """What docker-compose v2 makes of its words: (docker's flags, `compose` and the rest); None when it refuses them.

    compose `cmd/compatibility/convert.go` (5.5.0), its looseness included: `--hostile=x` is `--host x`.
    """
    moved: list[str] = []
    command = ["compose"]
    index = 0
    while index < len(words):
        word = words[index]
        if word in ("__complete", "__completeNoDesc"):
            command.insert(0, word)
            index += 1
            continue
        if word and word[0] != "-":
            return moved, command + list(words[index:])
        word = {"--verbose": "--debug", "-h": "--help", "--version": "version", "-v": "version"}.get(word, word)
        index += 1
        if word in STANDALONE_BOOLS:
            moved.append(word)
        elif word in STANDALONE_VALUES:
            if index >= len(words):
                return None
            moved += [word, words[index]]
            index += 1
        else:
            flag = next((f for f in STANDALONE_VALUES if word.startswith(f) and "=" in word), None)
            if flag:
                moved += [flag, word.partition("=")[2]]
            else:
                command.append(word)
    return moved, command


DOCKERS_OWN = frozenset({"host", "context", "tls", "tlscacert", "tlscert", "tlskey", "tlsverify"})


def read_old(base: Invocation, reading: Reading) -> tuple[Invocation, bool]:
    """Read words as docker-compose 1.29 does (docopt 0.6.2, options first at both levels). Nothing newer will come."""
    try:
        given, rest = docopt(base.argv, table(V1))
        if rest[:1] == ["--"]:
            rest = rest[1:]
        verb = OLD_VERBS.get(tuple(rest[:1]))
        compose = [(name, value) for name, value in given if name not in DOCKERS_OWN]
        base = base._replace(
            docker_flags=tuple(pair for pair in given if pair[0] in DOCKERS_OWN),
            compose_flags=tuple(compose),
            docker_globals=old_words((name, value) for name, value in given if name in DOCKERS_OWN),
            compose_globals=old_words(compose),
        )
        if verb is None or any(name in ("help", "version") for name, _ in given):
            return base, False
        flags = table(verb.flags, HELP)
        own, operands = docopt(rest[1:], flags)
    except Rejected:
        return base, False
    if operands[:1] == ["--"] and verb.operands[1]:
        operands = operands[1:]
    base = base._replace(verb=verb.path, flags=tuple(own), operands=tuple(operands))
    if any(name == "help" for name, _ in own) or not verb.operands[0] <= len(operands) <= verb.operands[1]:
        return base, False
    return judge(base, verb, ()), False


def old_words(given: "Iterable[tuple[str, str]]") -> tuple[str, ...]:
    """Flags of docker-compose 1.x that stand before the verb, written out again."""
    types = table(V1).types
    return tuple(word for name, value in given for word in ([f"--{name}"] if types[name] == "bool" else [f"--{name}", value]))


def docopt(words: "Sequence[str]", flags: Flags) -> tuple[list[tuple[str, str]], list[str]]:
    """What docopt's `parse_argv` makes of words, options first: (flags with values, all from the first operand on)."""
    given: list[tuple[str, str]] = []
    rest = list(reversed(words))
    while rest and rest[-1] not in ("--", "-") and rest[-1].startswith("-"):
        word = rest.pop()
        if word.startswith("--"):
            typed, equals, value = word[2:].partition("=")
            name = old_name(typed, flags)
            if flags.types[name] == "bool":
                if equals:
                    raise Rejected(f"--{name} takes no value")
                value = "true"
            elif not equals:
                if not rest:
                    raise Rejected(f"--{name} needs an argument")
                value = rest.pop()
            given.append((name, value))
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter not in flags.names:
                raise Rejected(f"-{letter} is no flag")
            name = flags.names[letter]
            if flags.types[name] == "bool":
                given.append((name, "true"))
            elif letters or rest:
                given.append((name, letters or rest.pop()))
                letters = ""
            else:
                raise Rejected(f"-{letter} needs an argument")
    for name, value in given:
        if flags.types[name] == "int" and not value.strip().lstrip("+-").replace("_", "").isdigit():
            raise Rejected(f"--{name} does not take {value!r}")  # accepted by docopt, refused by int() before anything runs
    return given, rest[::-1]


def old_name(typed: str, flags: Flags) -> str:
    """The long flag that docopt takes a (unique) prefix for."""
    long_names = [name for name in flags.types if len(name) > 1]
    if typed in long_names:
        return typed
    similar = [name for name in long_names if name.startswith(typed)]
    if len(similar) != 1:
        raise Rejected(f"--{typed} is no flag")
    return similar[0]


def strip(words: "Sequence[str]", program: str, *, old: bool) -> tuple[tuple[str, ...], Own]:
    """Take our own flags out, in one pass with docker's (a flag that takes a value swallows them).

    They are ours before the command, between `compose` and its verb, and after a verb of the table; not after `--`, nor
    after any other command.
    """
    kept: list[str] = []
    taken: list[tuple[str, str]] = []
    path: tuple[str, ...] = () if program == "docker" else ("compose",)
    flags = table(V1) if old else table(DOCKER, HELP) if not path else table(DOCKER, COMPOSE, DRY_RUN, HELP)
    verb: Verb | None = None
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        name, equals, value = word.partition("=")
        if name in OWN_FLAGS and (verb is not None or path in ((), ("compose",))):
            if name != "--confirm" and equals:
                raise UsageError(f"{name} takes no value", next_step=f"write {name} alone")
            if name == "--confirm" and not equals:
                if index >= len(words):
                    raise UsageError("--confirm needs the phrase", next_step="write --confirm PHRASE")
                value = words[index]
                index += 1
            taken.append((name, value))
            continue
        kept.append(word)
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            if wants_value(word, flags, old=old) and index < len(words):
                kept.append(words[index])
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
        if verb is not None:
            flags = table(verb.flags, DRY_RUN, HELP, spellings=verb.spellings)
        elif path in GROUPS:
            flags = table(GROUP_FLAGS.get(path, ""), DRY_RUN, HELP)
        else:
            break
    return (*kept, *words[index:]), own_of(taken)


def wants_value(word: str, flags: Flags, *, old: bool) -> bool:
    """Whether a flag as typed swallows the next word."""
    if word.startswith("--"):
        if "=" in word:
            return False
        try:
            name = old_name(word[2:], flags) if old else flags.known(word[2:])
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


def own_of(taken: "Sequence[tuple[str, str]]") -> Own:
    """Our flags as a value; contradictions are UsageError."""
    phrases = {value for name, value in taken if name == "--confirm"}
    if len(phrases) > 1:
        raise UsageError("--confirm was given twice with different phrases", next_step="give it once")
    names = {name for name, _ in taken}
    own = Own(
        non_interactive="--non-interactive" in names,
        backup_first="--backup-first" in names,
        confirm=next(iter(phrases), None),
        skip_backup="--skip-backup" in names,
        explain="--explain" in names,
        json="--json" in names,
        offline="--offline" in names,
    )
    if (own.json or own.offline) and not own.explain:
        raise UsageError(f"{'--json' if own.json else '--offline'} goes with --explain", next_step="add --explain")
    return consistent(own)


def consistent(own: Own) -> Own:
    if own.skip_backup and own.backup_first:
        raise UsageError(
            "--skip-backup contradicts --backup-first (or SAFE_COMPOSE_BACKUP_FIRST)", next_step="leave one of them out"
        )
    return own


def own_from_environment(own: Own, environ: "Mapping[str, str]") -> Own:
    """Add what the environment says: words beat it.

    Raise UsageError for a value that is no ParseBool word, and for what contradicts the words.
    """
    confirm = own.confirm if own.confirm is not None else environ.get("SAFE_COMPOSE_CONFIRM") or None
    return consistent(
        own._replace(
            non_interactive=own.non_interactive or said(environ, "SAFE_COMPOSE_NON_INTERACTIVE"),
            backup_first=own.backup_first or said(environ, "SAFE_COMPOSE_BACKUP_FIRST"),
            confirm=confirm,
        )
    )


def said(environ: "Mapping[str, str]", name: str) -> bool:
    value = environ.get(name, "")
    if value and value not in TRUE and value not in FALSE:
        raise UsageError(f"{name} is neither 1 nor 0", next_step=f"set {name}=1, or unset it")
    return value in TRUE


def command_at(words: "Sequence[str]") -> int:
    """The index of docker's command among the words (own and global flags skipped); len(words) when there is none."""
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
