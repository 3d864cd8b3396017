"""Is `docker` really Podman or nerdctl? They take docker's words and mean other things by them, so no deletion goes through.

Podman takes parts of names and ids, `--all`, and has doors of its own (`system reset`, `pod rm`, `kube down`); compose may be
another program. Half a guard would be worse than none: what may delete a volume there is refused, everything else passes.
Nothing is imported here before it is needed: `shim` asks on the way of every suspicious command.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("podman", "nerdctl")
_DOORS = (
    ({"volume", "volumes"}, {"rm", "remove", "prune", "reload", "import"}),
    ({"system"}, {"prune", "reset"}),
    ({"container", "pod"}, {"rm", "remove", "prune", "kill", "stop"}),
    ({"machine"}, {"rm", "remove", "reset"}),
    ({"kube", "play"}, {"down"}),
    ({"compose"}, {"down", "rm"}),
    ({"namespace"}, {"rm", "remove", "prune"}),
)
"""(group, verbs) that may cost a volume in Podman 5 or nerdctl 2 and whose words docker's own grammar takes for harmless."""


def may_delete(words: "Sequence[str]") -> bool:
    """Whether words would be a door for Podman or nerdctl. Errs toward yes; flags are not known one by one, save a last --help.

    >>> may_delete(["volume", "rm", "--all"]), may_delete(["run", "--rm", "alpine", "ls"])
    (True, False)
    >>> may_delete(("volume", "rm", "--all", "--help")), may_delete(("volume", "rm", "--", "--help"))
    (False, True)
    """
    if "--" not in words and {*words[-1:]} & {"--help", "-h"}:
        return False
    plain = [word for word in words if not word.startswith("-")][:4]  # a global flag may have left its value in front
    flags = [word for word in words if word.startswith("-")]
    deletes = any(word.startswith(("--vol", "--all")) or (word[1:2] != "-" and set(word) & {"v", "a"}) for word in flags)
    for index, word in enumerate(plain):
        if word in ("run", "exec", "create", "build"):
            return False  # the words that follow are a container's
        following = plain[index + 1 : index + 2]
        for groups, verbs in _DOORS:
            if word in groups and set(following) & verbs:
                return word != "compose" or deletes
        if word in ("rm", "remove") and deletes:
            return True
    return False


def refuse_words(words: "Sequence[str]", program: str) -> None:
    """Raises Refused when words typed for `podman` or `nerdctl` may delete a volume."""
    from safe_compose import grammar

    read = grammar.parse(words)
    if read.kind != grammar.NONE or read.doubt is not None or may_delete(words):
        refuse(_title(program))


def behind(path: str) -> str | None:
    """`Podman` or `nerdctl` when the program at `path` is that, whatever it is called; else None.

    By the file's real name, by what a script says, else by what `--version` answers.
    """
    name = os.path.basename(os.path.realpath(path))  # noqa: PTH119 - pathlib would cost more than all of this
    for foreign in NAMES:
        if foreign in name:
            return _title(foreign)
    import subprocess

    try:
        done = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # who does not start deletes nothing, and the engine is asked next
    said = (done.stdout + done.stderr[:4096]).decode("utf-8", "replace").lower()
    return next((_title(foreign) for foreign in NAMES if foreign in said), None)


def refuse(who: str) -> None:
    """Raises Refused: what we saw, what was not done, what to do."""
    from safe_compose.errors import Refused

    raise Refused(
        f"this command may delete volumes, and it would reach {who}, which safe-compose cannot back up; nothing was deleted",
        next_step=f"a person backs the volumes up and runs {who.lower()} by its path; a real docker goes into SAFE_COMPOSE_DOCKER",
    )


def refuse_impostor(path: str) -> None:
    """Raises Refused when the docker at `path` is Podman or nerdctl."""
    who = behind(path)
    if who is not None:
        refuse(who)


def _title(name: str) -> str:
    return "Podman" if name == "podman" else name
