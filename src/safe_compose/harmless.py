"""The first look of the programs on PATH: a harmless command becomes the real docker before even `os` is imported.

Only what is built into Python is used here, which halves what is left of the cost beside the interpreter's own start. It
decides nothing that `shim` would decide otherwise: whatever is unusual (a docker that is a script or a link, a relative PATH,
a repeated variable, SAFE_COMPOSE_DOCKER) returns, and `shim` looks at everything again.

Where a C compiler was at hand, `harmless.c` does the same without Python's start, and the script is what it wakes. It reads
the words below from `harmless.words`, which a test holds to them (`ways.texts.waking_words` writes it).
"""

import _signal  # type: ignore[import-not-found]  # the builtin under `signal`
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SUSPECT = frozenset(
    {
        "down", "rm", "remove", "prune", "up", "create", "run", "scale", "watch", "stop", "kill", "update", "rollback",
        "deploy", "leave", "reset",
    }
)  # fmt: skip
"""The filter: every verb of the grammar's tables. A word of these anywhere, even as a value, wakes the grammar."""

OWN_FLAGS = frozenset({"--non-interactive", "--backup-first", "--confirm", "--skip-backup", "--explain", "--json", "--offline"})

PROBE = "safe-compose-probe"
"""A command that docker does not have. `doctor` runs it to see which ways to docker pass by here: while the variable PROBED
of `shim` holds a word of its choice we answer with that word. Nothing else ever comes of either."""
MARKER = b"safe_compose.shim"
"""Stands in every program of ours (installers write it into the console script), so that one copy knows another."""
ELF = b"\x7fELF"
LARGEST = 1 << 20
"""Bytes: what `harmless.c` becomes has 15 kB (70 on arm64), docker some tens of MB."""
_HEAD = 4096
"""Bytes of a script in which the marker counts."""
_REGULAR, _KIND = 0o100000, 0o170000
"""S_IFREG and S_IFMT of a mode: `stat` would have to be imported."""


def is_copy(head: bytes, size: int) -> bool:
    """Whether a program of `size` bytes is one of ours. `head` has as many of them as `size_of_head` says."""
    return MARKER in (head[:_HEAD] if head[:2] == b"#!" else head if head[:4] == ELF and size <= LARGEST else b"")


def size_of_head(size: int) -> int:
    """How much of a file of that size has to be read to know whether it is ours: docker itself is not read to its end."""
    return LARGEST if size <= LARGEST else _HEAD


def own_flags(words: "Sequence[str]") -> bool:
    """Whether a flag of ours stands anywhere."""
    return any(word[:2] == "--" and word.partition("=")[0] in OWN_FLAGS for word in words)


def pass_on() -> None:
    """Become the real docker, or return because a closer look is needed. Never raises; nothing was changed then."""
    name = sys.argv[0].rpartition("/")[2]
    words = sys.argv[1:]
    if name not in ("docker", "docker-compose") or not SUSPECT.isdisjoint(words) or PROBE in words or own_flags(words):
        return
    try:
        environment = _environment()
        path = _docker(name.encode(), environment)
        if path is None:
            return
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # `shim.restore_signals` says why
            _signal.signal(number, _signal.SIG_DFL)
        command: list[bytes | str] = [path, *words]
        posix.execve(path, command, environment)
    except (OSError, ValueError):
        return  # for `shim`, which finds the same again and says what it is


def _environment() -> "dict[bytes, bytes]":
    """The environment as the kernel was given it; empty where a dict could not hold it unchanged."""
    pairs = {}
    entries = _content("/proc/self/environ").split(b"\0")
    for entry in entries[:-1]:
        name, equals, value = entry.partition(b"=")
        if not (name and equals) or name in pairs:
            return {}
        pairs[name] = value
    return pairs


def _content(path: str) -> bytes:
    file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        content = b""
        while piece := posix.read(file, 1 << 20):
            content += piece
    finally:
        posix.close(file)
    return content


def _docker(name: bytes, environment: "dict[bytes, bytes]") -> "bytes | None":
    """The first program of that name on PATH that is not us, when it is plainly docker's own binary."""
    if environment.get(b"SAFE_COMPOSE_DOCKER"):
        return None
    ours = posix.stat(sys.argv[0])
    for folder in environment.get(b"PATH", b"").split(b":"):
        path = folder + b"/" + name
        if folder[:1] != b"/" or b"//" in path or b"/./" in path or b"/../" in path:
            return None  # `shim` hands docker a name without these
        try:
            file = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK)
        except FileNotFoundError:
            continue
        try:
            found = posix.fstat(file)
            head = posix.read(file, size_of_head(found.st_size)) if found.st_mode & _KIND == _REGULAR else b""
        finally:
            posix.close(file)
        if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino) or is_copy(head, found.st_size):
            continue
        return path if head[:4] == ELF and posix.access(path, posix.X_OK) else None
    return None
