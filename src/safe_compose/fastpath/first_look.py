"""The words and marks by which the first look at a command decides.

`native/launcher.c` looks first: it becomes docker for plainly harmless words, and starts Python for
all others. These tables are compiled into it (`native/build.py`).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SUSPECT = frozenset(
    {
        "down", "rm", "remove", "prune", "up", "create", "run", "scale", "watch", "stop", "kill",
        "update", "rollback", "deploy", "leave", "reset", "uninstall", "uninstall-runner",
        "stop-runner", "reset-cluster",
    }
)  # fmt: skip
"""The filter: every verb of the grammar's tables. Any of these words anywhere, even as a value,
loads the grammar."""

OWN_FLAGS = frozenset(
    {
        "--non-interactive",
        "--backup-first",
        "--confirm",
        "--skip-backup",
        "--explain",
        "--json",
        "--offline",
    }
)

DOCKER_WORDS = frozenset(
    {
        "attach", "build", "builder", "buildx", "checkpoint", "commit", "completion", "compose",
        "config", "container", "context", "cp", "create", "deploy", "diff", "events", "exec",
        "export", "history", "image", "images", "import", "info", "inspect", "kill", "load",
        "login", "logout", "logs", "manifest", "network", "node", "pause", "plugin", "port", "ps",
        "pull", "push", "remove", "rename", "restart", "rm", "rmi", "run", "save", "search",
        "secret", "service", "stack", "start", "stats", "stop", "swarm", "system", "tag", "top",
        "trust", "unpause", "update", "version", "volume", "wait",
        "ai", "app", "cloud", "debug", "desktop", "dev", "engine", "extension", "feedback", "init",
        "mcp", "model", "offload", "pass", "sandbox", "sbom", "scan", "scout",
        "--", "--config", "--context", "--debug", "--help", "--host", "--log-level", "--tls",
        "--tlscacert", "--tlscert", "--tlskey", "--tlsverify", "--version",
    }
)  # fmt: skip
"""The first words that docker is known to take: its commands from 20.10 to 28.5, the plugins that
come with it, and its global flags. Another one may be a typing error of ours."""

PLUMBING = frozenset(
    {"__complete", "__completeNoDesc", "docker-cli-plugin-metadata", "docker-cli-plugin-hooks"}
)
"""Commands of docker's own machinery, as the first word: what follows is not run."""
PROBE = "safe-compose-probe"
"""A command that docker does not have. `doctor` runs it to see which routes to docker pass through
here: while the variable PROBED of `launch` holds a word, we answer with that word. Neither has any
other effect."""
MARKER = b"safe_compose.shim"
"""Present in the first bytes of each of our programs, so that one copy recognizes another."""
ELF = b"\x7fELF"
LARGEST = 1 << 17
"""Bytes: programs that earlier versions compiled have 15 kB (70 on arm64) and the mark anywhere."""
_HEAD = 4096
"""Bytes of a program in which the mark counts."""


def is_copy(head: bytes, size: int) -> bool:
    """Return whether a program of `size` bytes is one of ours.

    `head` holds as many of its bytes as `size_of_head` says.
    """
    if head[:2] != b"#!" and head[:4] != ELF:
        return False
    return MARKER in (head if head[:4] == ELF and size <= LARGEST else head[:_HEAD])


def size_of_head(size: int) -> int:
    """Return how many bytes of a file must be read to recognize it as ours.

    docker itself is not read to its end.
    """
    return LARGEST if size <= LARGEST else _HEAD


def is_known_to_docker(word: str) -> bool:
    """Return whether docker is known to take `word` as its first: a command or a global flag."""
    if word[:1] == "-" and word[:2] != "--":
        return True  # a short flag, or several
    return word.partition("=")[0] in DOCKER_WORDS if word[:1] == "-" else word in DOCKER_WORDS


def own_flags(words: "Sequence[str]") -> bool:
    """Return whether any of the words is one of our own flags."""
    return any(word[:2] == "--" and word.partition("=")[0] in OWN_FLAGS for word in words)
