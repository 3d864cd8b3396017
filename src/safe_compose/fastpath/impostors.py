"""Detection of Podman or nerdctl in docker's place.

They accept docker's words with other meanings, so no deletion is passed to them. Podman matches
parts of names and ids, accepts `--all`, and has destructive commands of its own (`system reset`,
`pod rm`, `kube down`); compose may be another program. A partial guard would be worse than none: a
command that may delete a volume there is refused, everything else passes. Nothing is imported
before it is needed: `shim` calls this for every suspicious command.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("podman", "nerdctl")
_DESTRUCTIVE = (
    ({"volume", "volumes"}, {"rm", "remove", "prune", "reload", "import"}),
    ({"system"}, {"prune", "reset"}),
    ({"container", "pod"}, {"rm", "remove", "prune", "kill", "stop"}),
    ({"machine"}, {"rm", "remove", "reset"}),
    ({"kube", "play"}, {"down"}),
    ({"compose"}, {"down", "rm"}),
    ({"namespace"}, {"rm", "remove", "prune"}),
)
"""(groups, verbs) that may delete a volume in Podman 5 or nerdctl 2 and that docker's own grammar
takes for harmless."""


def may_delete(words: "Sequence[str]") -> bool:
    """Return whether words would be destructive for Podman or nerdctl; when in doubt, True.

    Flags are not known one by one, except a last --help.

    >>> may_delete(["volume", "rm", "--all"]), may_delete(["run", "--rm", "alpine", "ls"])
    (True, False)
    >>> may_delete(("volume", "rm", "--all", "--help"))
    False
    >>> may_delete(("volume", "rm", "--", "--help"))
    True
    """
    if "--" not in words and {*words[-1:]} & {"--help", "-h"}:
        return False
    # a global flag may have left its value in front
    plain = [word for word in words if not word.startswith("-")][:4]
    flags = [word for word in words if word.startswith("-")]
    deletes = any(
        word.startswith(("--vol", "--all")) or (word[1:2] != "-" and set(word) & {"v", "a"})
        for word in flags
    )
    for index, word in enumerate(plain):
        if word in ("run", "exec", "create", "build"):
            return False  # the words that follow belong to a container
        following = plain[index + 1 : index + 2]
        for groups, verbs in _DESTRUCTIVE:
            if word in groups and set(following) & verbs:
                return word != "compose" or deletes
        if word in ("rm", "remove") and deletes:
            return True
    return False


def refuse_words(words: "Sequence[str]", program: str) -> None:
    """Refuse words typed for `podman` or `nerdctl` that may delete a volume.

    Raises:
        Refused: They may.
    """
    from safe_compose.grammar import parser, tables

    read = parser.parse(words)
    if read.kind != tables.NONE or read.doubt is not None or may_delete(words):
        refuse(_title(program))


def has_own_flag(words: "Sequence[str]") -> bool:
    """Return whether a word may be `--all`, which Podman's removals have and docker's do not.

    >>> has_own_flag(["volume", "rm", "-af"]), has_own_flag(["volume", "rm", "--brand-new", "x"])
    (True, False)
    """
    return any(
        word == "--all" or (word[:1] == "-" and word[1:2] != "-" and "a" in word) for word in words
    )


def identify(path: str) -> str | None:
    """Return `Podman` or `nerdctl` when the program at `path` is that, else None.

    Its name does not matter.

    The file's real name decides, then what it was built from, or else its answer to `--version`.
    """
    # pathlib would cost more than all of this
    name = os.path.basename(os.path.realpath(path))  # noqa: PTH119
    for foreign in NAMES:
        if foreign in name:
            return _title(foreign)
    from safe_compose.fastpath import go_program

    if go_program.read_main_package(path) == go_program.DOCKER:
        return None
    import subprocess

    from safe_compose.system import children

    try:
        done = children.run([path, "--version"], seconds=20, largest=1 << 20)
    except (OSError, subprocess.TimeoutExpired, children.TooMuch):
        return None  # a program that does not start deletes nothing, and the engine is asked next
    output = (done.stdout + done.stderr[:4096]).decode("utf-8", "replace").lower()
    return next((_title(foreign) for foreign in NAMES if foreign in output), None)


def refuse(who: str) -> None:
    """Refuse a command for another program than docker.

    Raises:
        Refused: Always.
    """
    from safe_compose.errors import Refused

    raise Refused(
        f"this command may delete volumes, and it would reach {who}, which safe-compose cannot back"
        " up; nothing was deleted",
        next_step=(
            f"a person backs the volumes up and runs {who.lower()} by its path; a real docker goes"
            " into SAFE_COMPOSE_DOCKER"
        ),
    )


def refuse_impostor(path: str) -> None:
    """Refuse a docker that is Podman or nerdctl.

    Raises:
        Refused: It is.
    """
    who = identify(path)
    if who is not None:
        refuse(who)


def _title(name: str) -> str:
    return "Podman" if name == "podman" else name
