"""Docker's command line as tables: every verb that may cost a volume, and its flags.

Every command that holds a suspicious word loads these, so they import nothing heavy.
"""

from safe_compose.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN = "docker 20.10 to 29.7, Compose 2.0 to 5.6"
"""The clients whose flags these tables hold (read up to docker/cli 29.7.2 and docker/compose
5.6.1).
"""

NONE = "none"
MANY = 1 << 30
MANY_WORDS = (1, MANY)

# A table of flags is one line of words: `name`, `name/s` with a shorthand, `name:type` when a value
# is needed. Without a type it is a boolean. Types: `any`, `int` (Go ParseInt), `filter`
# (name=value), `level` (logrus), or the accepted words themselves, `a|b`.
DOCKER = (
    "config:any context/c:any debug/D host/H:any log-level/l:level tls tlscacert:any tlscert:any"
    " tlskey:any tlsverify version/v"
)
HELP = "help/h"
DRY_RUN = "dry-run"
COMPOSE = (
    "profile:any project-name/p:any file/f:any insecure-registry:any env-file:any"
    " project-directory:any workdir:any compatibility progress:any all-resources ansi:any"
    " parallel:int version/v no-ansi verbose"
)
V1 = (
    "file/f:any project-name/p:any profile:any context/c:any verbose log-level:any ansi:any no-ansi"
    " version/v host/H:any tls tlscacert:any tlscert:any tlskey:any tlsverify skip-hostname-check"
    " project-directory:any compatibility env-file:any help/h"
)
CREATE = (
    "build no-build pull:any quiet-pull force-recreate no-recreate remove-orphans scale:any yes/y"
)
SERVICE = (
    "detach/d quiet/q workdir/w:any user/u:any credential-spec:any hostname:any entrypoint:any"
    " cap-add:any cap-drop:any limit-cpu:any limit-memory:any reserve-cpu:any reserve-memory:any"
    " limit-pids:any memory-swap:any memory-swappiness:any stop-grace-period:any replicas:any"
    " max-concurrent:any replicas-max-per-node:any restart-condition:any restart-delay:any"
    " restart-max-attempts:any restart-window:any update-parallelism:any update-delay:any"
    " update-monitor:any update-failure-action:any update-max-failure-ratio:any update-order:any"
    " rollback-parallelism:any rollback-delay:any rollback-monitor:any rollback-failure-action:any"
    " rollback-max-failure-ratio:any rollback-order:any endpoint-mode:any with-registry-auth"
    " no-resolve-image log-driver:any log-opt:any health-cmd:any health-interval:any"
    " health-timeout:any health-retries:any health-start-period:any health-start-interval:any"
    " no-healthcheck tty/t read-only stop-signal:any isolation:any image:any args:any rollback"
    " force env-rm:any group-rm:any label-rm:any container-label-rm:any mount-rm:any publish-rm:any"
    " constraint-rm:any dns-rm:any dns-option-rm:any dns-search-rm:any host-rm:any label-add:any"
    " container-label-add:any env-add:any secret-rm:any secret-add:any config-rm:any config-add:any"
    " mount-add:any constraint-add:any placement-pref-add:any placement-pref-rm:any network-add:any"
    " network-rm:any publish-add:any group-add:any dns-add:any dns-option-add:any"
    " dns-search-add:any host-add:any init sysctl-add:any sysctl-rm:any ulimit-add:any"
    " ulimit-rm:any oom-score-adj:any generic-resource-rm:any generic-resource-add:any"
)


class Verb(NamedTuple):
    """One command that may cost a volume."""

    path: tuple[str, ...]
    """Its canonical name."""
    flags: str = ""
    destructive_flags: tuple[tuple[str, str], ...] = ()
    """(flag, the kind of command that it makes), first match wins: `` (always), `flag`, or
    `flag=value`. A flag that is not in `flags` is foreseen only: today's clients reject it, a newer
    one may not.
    """
    operands: tuple[int, int] = (0, MANY)
    """How many operands it accepts."""
    interspersed: bool = True
    """False: flags end at the first operand, because the rest is a command for a container (or the
    dialect is docopt).
    """
    spellings: tuple[tuple[str, str], ...] = ()
    """SetNormalizeFunc: (typed, meant)."""
    also: tuple[tuple[str, ...], ...] = ()
    """Aliases."""
    asks: bool = False
    """Whether it asks on its own when a volume's definition changed; it takes `y` from a pipe."""
    removes: bool = False
    """Whether it removes containers that it names or finds, so also a deletion lock of ours
    (`engine.deletion_locks`).
    """


YES = (("y", "yes"),)  # the flag's long name was `y` in compose 2.32 and 2.33
RECREATE = "compose_recreate_changed_volume"
LOCK = "deletion_lock_rm"
UNSUPPORTED = "unsupported"
"""Deletes data that nothing here looks up or backs up (`unsupported`): refused."""
WARNED = ("compose_renew_anon", "swarm_task_anon")
"""Kinds that are handed to docker with one line said before."""
LOCK_NAME = "safe-compose-lock-"
"""What the name of each deletion lock begins with, until somebody renames it."""

VERBS_V2 = (
    Verb(
        ("compose", "down"),
        "remove-orphans timeout/t:int volumes/v rmi:all|local",
        # Without -v as well: one-off containers count as orphans, and those of `compose run --rm`
        # take theirs along (run).
        (("volumes", "compose_down_volumes"), ("remove-orphans", "autoremove_anon")),
        spellings=(("volume", "volumes"),),
    ),
    Verb(
        ("compose", "kill"), "remove-orphans signal/s:any", (("", "autoremove_anon"),)
    ),  # one-off containers as well (run)
    Verb(("compose", "rm"), "force/f stop/s volumes/v all/a", (("volumes", "compose_rm_anon"),)),
    Verb(
        ("compose", "up"),
        CREATE + " detach/d no-color no-log-prefix no-start abort-on-container-exit"
        " abort-on-container-failure exit-code-from:any timeout/t:int timestamps no-deps"
        " always-recreate-deps renew-anon-volumes/V quiet-build attach:any no-attach:any"
        " attach-dependencies wait wait-timeout:int watch/w menu environment/e:any",
        (("yes", RECREATE), ("renew-anon-volumes", "compose_renew_anon")),
        spellings=YES,
        asks=True,
    ),
    Verb(("compose", "create"), CREATE, (("yes", RECREATE),), spellings=YES, asks=True),
    Verb(
        ("compose", "run"),
        "detach/d env/e:any env-from-file:any label/l:any rm no-tty/T name:any user/u:any"
        " workdir/w:any entrypoint:any cap-add:any cap-drop:any no-deps volume/v:any publish/p:any"
        " use-aliases service-ports/P pull:any quiet/q quiet-build quiet-pull build remove-orphans"
        " interactive/i tty/t",
        (("yes", RECREATE),),
        MANY_WORDS,
        interspersed=False,
        spellings=(("volumes", "volume"), ("labels", "label"), ("no-TTY", "no-tty")),
        asks=True,
    ),
    Verb(("compose", "scale"), "no-deps", (("yes", RECREATE),), MANY_WORDS, asks=True),
    Verb(("compose", "watch"), "quiet prune no-up", (("yes", RECREATE),), asks=True),
    Verb(
        ("volume", "rm"), "force/f", (("", "volume_rm"),), MANY_WORDS, also=(("volume", "remove"),)
    ),
    Verb(("volume", "prune"), "all/a filter:filter force/f", (("", "volume_prune"),), (0, 0)),
    Verb(
        ("system", "prune"),
        "all/a filter:filter force/f volumes",
        (("volumes", "system_prune_volumes"),),
        (0, 0),
        removes=True,
    ),
    # Deletes no volume. A deletion lock that does not run goes with it.
    Verb(("container", "prune"), "filter:filter force/f", (), (0, 0), removes=True),
    Verb(
        ("container", "rm"),
        "force/f link/l volumes/v",
        # `rm -f` of a --rm container races with the daemon's own removal, which takes anonymous
        # volumes along.
        (("volumes", "container_rm_anon"), ("force", "autoremove_anon")),
        MANY_WORDS,
        also=(("container", "remove"), ("rm",), ("remove",)),  # top-level `remove`: 23.0 to 28.2
        removes=True,
    ),
    Verb(
        ("container", "stop"),
        "signal/s:any timeout/t:int time:int",
        (("", "autoremove_anon"),),
        MANY_WORDS,
        also=(("stop",),),
    ),
    Verb(
        ("container", "kill"),
        "signal/s:any",
        (("", "autoremove_anon"),),
        MANY_WORDS,
        also=(("kill",),),
    ),
    Verb(
        ("service", "rm"), "", (("", "swarm_task_anon"),), MANY_WORDS, also=(("service", "remove"),)
    ),
    Verb(("service", "update"), SERVICE, (("", "swarm_task_anon"),), (1, 1)),
    Verb(("service", "scale"), "detach/d", (("", "swarm_task_anon"),), MANY_WORDS),
    Verb(("service", "rollback"), "detach/d quiet/q", (("", "swarm_task_anon"),), (1, 1)),
    Verb(
        ("stack", "rm"),
        "detach/d",
        (("", "swarm_task_anon"),),
        MANY_WORDS,
        also=(("stack", "remove"), ("stack", "down")),
    ),
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
    Verb(
        ("compose", "down"),
        "rmi:any volumes/v remove-orphans timeout/t:int",
        (("volumes", "compose_down_volumes"),),
        (0, 0),
    ),
    Verb(("compose", "rm"), "force/f stop/s /v all/a", (("v", "compose_rm_anon"),)),
    Verb(
        ("compose", "up"),
        V1_CREATE + " detach/d no-color quiet-pull no-deps always-recreate-deps no-start"
        " abort-on-container-exit attach-dependencies timeout/t:int renew-anon-volumes/V"
        " remove-orphans exit-code-from:any scale:any no-log-prefix",
        (("renew-anon-volumes", "compose_renew_anon"),),
    ),
    # docker-compose 1.29 refuses a changed volume with an error, and deletes nothing.
    Verb(("compose", "create"), V1_CREATE),
    Verb(
        ("compose", "run"),
        "detach/d name:any entrypoint:any /e:any label/l:any user/u:any no-deps rm publish/p:any"
        " service-ports use-aliases volume/v:any /T workdir/w:any",
        operands=MANY_WORDS,
    ),
    Verb(("compose", "scale"), "timeout/t:int"),
)

VERBS: dict[tuple[str, ...], Verb] = {
    path: verb for verb in VERBS_V2 for path in (verb.path, *verb.also)
}
# Most are of CLI plugins that come with Docker Desktop (docs.docker.com/reference/cli/docker).
UNSUPPORTED_VERBS: dict[tuple[str, ...], Verb] = {
    tuple(path.split()): Verb(tuple(path.split()), flags, ((opener, UNSUPPORTED),))
    for paths, flags, opener in (
        (
            "extension rm|extension remove|extension uninstall|extension update|dev rm|dev remove",
            "force/f",
            "",
        ),
        ("sandbox rm|sandbox remove|sandbox prune|sandbox reset", "force/f all", ""),
        # In some versions a session that ends takes its volumes along; in others only `rm` does.
        ("offload stop|offload rm|offload remove|desktop reset|desktop uninstall", "force/f", ""),
        ("desktop kubernetes reset-cluster", "", ""),
        ("model uninstall-runner|model stop-runner", "images models backend:any", "models"),
        # Its folder goes, with what a driver keeps there (moby `Manager.Remove`); without --force
        # not while a volume needs it.
        ("plugin rm|plugin remove", "force/f", "force"),
    )
    for path in paths.split("|")
}
ALL_VERBS = {**VERBS, **UNSUPPORTED_VERBS}
GROUPS = frozenset(path[:end] for path in ALL_VERBS for end in range(1, len(path)))
GROUP_FLAGS: dict[tuple[str, ...], str] = {("compose",): COMPOSE, ("stack",): "orchestrator:any"}
INHERITED = {"compose": DRY_RUN, "stack": "orchestrator:any"}
"""Persistent flags: one variable from the group down to its verbs."""
OLD_VERBS: dict[tuple[str, ...], Verb] = {verb.path[1:]: verb for verb in VERBS_V1}
TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
LEVELS = frozenset({"panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"})


def is_go_int(text: str) -> bool:
    """Return whether Go's ParseInt(text, 0, 64) accepts a text."""
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


def accepts(kind: str, value: str) -> bool:
    """Return whether a client accepts a value for a flag of this type.

    Of `a|b`, newer clients may accept more.
    """
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


class Rejected(Exception):
    """An error about words that every client rejects, whatever flags it has: nothing runs."""


class Flags(NamedTuple):
    """A flag table, ready to be looked up."""

    types: dict[str, str]
    names: dict[str, str]
    """Shorthand -> long name."""
    spellings: dict[str, str]

    def known(self, name: str) -> str | None:
        """Return the long name of a flag, whichever way it is spelled; None where it is unknown."""
        name = self.spellings.get(name, name)
        return name if name in self.types else None


def table(*specs: str, spellings: "Iterable[tuple[str, str]]" = ()) -> Flags:
    """Return flag tables ready to be looked up.

    A flag without a long name (docopt) goes by its letter and has no long spelling.
    """
    types: dict[str, str] = {}
    names: dict[str, str] = {}
    for word in " ".join(specs).split():
        spelling, _, kind = word.partition(":")
        name, _, short = spelling.partition("/")
        if short:
            names[short] = name or short
        types[name or short] = kind or "bool"
    return Flags(types, names, dict(spellings))


def is_flag(word: str) -> bool:
    """Return whether cobra's `Traverse` passes over a word on its way to a sub-command.

    Cobra before 1.7 takes a word for a flag as well when its second byte is a dash: docker 20.10
    deletes for `volume a-b rm x` (`isFlagArg`, run). Newer clients reject that, so nothing else is
    lost by believing it.
    """
    return len(word) > 1 and (word[0] == "-" or (word[1] == "-" and len(word) > 2))
