"""The real docker: which program it is, and how this process becomes it.

That includes the environment, signals and words with which it is started. Only `os` and `sys` are
imported before a harmless command is handed over: everything else is imported lazily, inside
functions.
"""

# pathlib would cost more than all of this:
# ruff: noqa: PTH100, PTH111, PTH113, PTH116, PTH117, PTH118, PTH119, PTH120, PTH123

import os
import sys

from safe_compose.fastpath.first_look import OWN_FLAGS, is_copy, size_of_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import NoReturn

    Environment = Mapping[bytes, bytes]
else:
    Environment = object

OWN_VERBS = frozenset(
    {
        "commands", "about", "setup", "shell", "volumes", "protect", "unprotect", "backup", "list",
        "show", "verify", "restore", "undo", "journal", "recover", "approve", "hook", "doctor",
        "forget", "offsite", "trash", "rotate-password", "audit", "schedule",
    }
)  # fmt: skip
"""Our own verbs as the first word, in the `safe-compose` executable only."""
START = "start"
"""The verb of ours that is a command of docker as well. It is ours where no container is named,
which docker refuses."""
START_FLAGS = frozenset({"--yes", "--non-interactive", "--dry-run", "--json", "--help"})
START_VALUES = ("--project", "--file", "-p", "-f")
"""The beginnings of its flags that take a value; docker's own `start` has none that begins so."""
HELP = ((), ("help",), ("--help",), ("-h",))
"""The words that ask for help; by our own name it is ours."""
VERSION = (("--version",), ("-v",))
COMPLETE = ("__complete", "__completeNoDesc")
"""The commands by which a shell asks for the words that may follow."""

PROBED = "SAFE_COMPOSE_PROBE"
"""The variable with the word that the command PROBE must answer with, set by `doctor`."""
FOREIGN = ("podman", "nerdctl")
"""Programs that accept docker's words and are not guarded: a shim of that name refuses commands
that may delete a volume."""
TRAIL = "SAFE_COMPOSE_TRAIL"
"""`PID DEPTH PATH` of the last hand-over to a program that is no native docker, and so could call
us back. Exec keeps the process id, so a repeated PID and PATH is a loop."""
DEEPEST = 8
GUARDED = "SAFE_COMPOSE_GUARDED"
"""The guard's process id, in the environment of the docker that it runs or becomes: the plugin lets
that one command pass."""
ORIGIN = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
"""The path by which docker was called; set for its plugins (`metadata.ReexecEnvvar` of
docker/cli)."""
ASIDE = "safe-compose.docker-compose"
"""The new name of a compose plugin in the user's own folder that ours replaces; docker looks for
`docker-*` only."""
SYSTEM_PLUGINS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


ENTRY = "safe-compose-python"
"""The script by which the launcher (`native/launcher.c`) starts Python; both are in one folder."""
LAUNCHED = "safe-compose-launched-1"
"""The first word that the launcher gives to ENTRY; another number, another meaning of the words
that follow."""


class LaunchContext:
    """The situation of this process, as far as it differs from a plain `safe-compose`."""

    name: str | None = None
    """The name that the launcher was called by; None without a launcher."""
    ignored: "tuple[int, ...]" = ()
    """Those signals of `list_ignored_signals` that were ignored before Python started."""
    plugin: str | None = None
    """The real compose plugin, when docker runs us in its place."""
    python: str = ""
    """The interpreter that finds our packages; this one was started without `site`."""


def take_over() -> None:
    """Take what the launcher handed over out of the words, so that they are the user's.

    `sys.argv[0]` is then the path by which the launcher was called: where docker, its compose
    plugin or safe-compose is to be found. Words that no launcher wrote stay as they are.
    """
    if sys.argv[1:2] != [LAUNCHED] or len(sys.argv) < 5:
        return
    path, LaunchContext.name, letters = sys.argv[2:5]
    LaunchContext.ignored = tuple(
        number
        for letter, number in zip("PX", list_ignored_signals(), strict=True)
        if letter in letters
    )
    sys.argv[:5] = [path]


def find_own_verb(words: "Sequence[str]") -> str | None:
    """Return our own verb, or None.

    It must be the first word (after our own flags), and no docker CLI plugin may have that name.
    """
    index = count_own_flags(words)
    if index < len(words) and words[index] in OWN_VERBS and not has_plugin(words[index]):
        return words[index]
    return START if words[index : index + 1] == [START] and _is_bare(words[index + 1 :]) else None


def count_own_flags(words: "Sequence[str]") -> int:
    """Return how many words at the beginning are own flags and their values."""
    index = 0
    while index < len(words) and words[index].partition("=")[0] in OWN_FLAGS:
        index += 2 if words[index] == "--confirm" else 1
    return index


def _is_bare(words: "Sequence[str]") -> bool:
    """Return whether these words after `start` are flags of ours, so that no container is named."""
    for word in words:
        if word.startswith(START_VALUES):
            return True
        if word not in START_FLAGS:
            return False
    return True


def has_plugin(name: str) -> bool:
    """Return whether docker knows a CLI plugin of that name."""
    return any(
        os.access(os.path.join(folder, f"docker-{name}"), os.X_OK)
        for folder in list_plugin_folders()
    )


def list_plugin_folders() -> "list[str]":
    """Return the folders in which docker looks for plugins, in its order (`cli-plugins/manager`).

    These are extra folders, the user's, and the system's. An unreadable configuration names no
    extra folders; docker itself complains about it.
    """
    home = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    extra: list[str] = []
    try:
        with open(os.path.join(home, "config.json"), encoding="utf-8") as file:
            text = file.read()
        if "cliPluginsExtraDirs" in text:
            import json

            extra = [
                folder
                for folder in json.loads(text)["cliPluginsExtraDirs"]
                if isinstance(folder, str)
            ]
    except (OSError, ValueError, KeyError, TypeError):
        extra = []
    return [*extra, os.path.join(home, "cli-plugins"), *SYSTEM_PLUGINS]


def has_own_plugin() -> bool:
    """Return whether docker finds our plugin when it looks for its compose plugin."""
    paths = (os.path.join(folder, "docker-compose") for folder in list_plugin_folders())
    return any(is_ourselves(path) for path in [path for path in paths if is_program(path)][:1])


def is_plugin_path(path: str) -> bool:
    """Return whether docker runs the program at `path` as one of its plugins."""
    folder = os.path.dirname(os.path.abspath(path))
    return os.path.basename(os.path.realpath(folder)) == "cli-plugins"


def find_plugin() -> str:
    """Return the compose plugin that docker would find without ours.

    It is looked for at every call, so that upgrades are seen.

    Raises:
        DockerNotFound: There is none.
    """
    from safe_compose.errors import DockerNotFound

    for folder in [os.path.dirname(os.path.abspath(sys.argv[0])), *list_plugin_folders()]:
        for name in ("docker-compose", ASIDE):
            path = os.path.join(folder, name)
            if is_program(path) and not is_ourselves(path):
                return path
    raise DockerNotFound(
        "there is no compose plugin besides safe-compose", next_step="install docker compose"
    )


_LAST_MAJOR = 20
"""No Compose is near this major version: a larger one is a date, or the version of a wrapper."""


def detect_dialect(path: str) -> str | None:
    """Return the dialect of the docker-compose at `path`: `v1` (1.x), `v2`, or None.

    None where it does not report it. A wrapper may print anything, and podman-compose, which has a
    syntax of its own, also claims to be 1.x: only docker-compose names itself so in the long form.
    """
    major, dot, rest = read_version(path, "--short").removeprefix("v").partition(".")
    if not (dot and major.isascii() and major.isdigit() and rest[:1].isdigit()):
        return None
    if major == "1":
        return "v1" if read_version(path).startswith("docker-compose version 1.") else None
    return "v2" if 1 < int(major) <= _LAST_MAJOR else None


def read_version(path: str, *words: str) -> str:
    """Return the output of `docker-compose version`; empty when it does not answer."""
    import subprocess

    from safe_compose.system import children

    try:
        done = children.run([path, "version", *words], seconds=20, largest=1 << 20)
    except (OSError, subprocess.TimeoutExpired, children.TooMuch):
        return ""
    if done.returncode != 0 or b"\0" in done.stdout:
        return ""
    return done.stdout.decode("ascii", "replace").strip()


# -- the real docker -------------------------------------------------------------------------------


def find_docker(program: str = "docker") -> str:
    """Return the path of the docker that is not safe-compose.

    It is SAFE_COMPOSE_DOCKER, else the docker that runs us as its plugin, else the first on PATH.
    For `docker-compose` it is the program of that name, else docker (the caller adds `compose`).

    Raises:
        DockerNotFound: There is none.
    """
    from safe_compose.errors import DockerNotFound

    if program in ("docker-compose", *FOREIGN):
        found = search(program)
        if found is not None:
            return found
        if program in FOREIGN:
            raise DockerNotFound(
                f"there is no {program} on PATH besides safe-compose",
                next_step=f"install {program}",
            )
    chosen = os.environ.get("SAFE_COMPOSE_DOCKER")
    if chosen:
        chosen = os.path.abspath(chosen)
        if not is_program(chosen):
            raise DockerNotFound(
                f"SAFE_COMPOSE_DOCKER is {chosen}, which is no program",
                next_step="unset SAFE_COMPOSE_DOCKER",
            )
        if is_ourselves(chosen):
            raise DockerNotFound(
                f"SAFE_COMPOSE_DOCKER is {chosen}, which is safe-compose itself",
                next_step="unset SAFE_COMPOSE_DOCKER",
            )
        return chosen
    caller = os.environ.get(ORIGIN, "") if LaunchContext.plugin else ""
    if os.path.isabs(caller) and is_program(caller) and not is_ourselves(caller):
        return caller
    found = search("docker")
    if found is None:
        raise DockerNotFound(
            "there is no docker on PATH besides safe-compose",
            next_step="install docker, or set SAFE_COMPOSE_DOCKER to it",
        )
    return found


def find_runner(program: str = "docker") -> str:
    """Return the program for one of our commands.

    It is the plugin that we replace, or else the real docker.
    """
    return LaunchContext.plugin or find_docker(program)


def make_guarded_environment() -> "Mapping[bytes, bytes]":
    """Return the environment for a docker whose words were judged.

    It is the original one with a variable that tells our plugin so.
    """
    pairs = [pair for pair in read_original_environment().items() if pair[0] != GUARDED.encode()]
    return Variables([*pairs, (GUARDED.encode(), str(os.getpid()).encode())])


def search(name: str) -> str | None:
    """Return the first program of that name on PATH that is not ours, or None."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.abspath(os.path.join(folder, name))  # an empty entry is the current folder
        if is_program(path) and not is_ourselves(path):
            return path
    return None


def is_program(path: str) -> bool:
    """Return whether a path is an executable file."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def is_ourselves(path: str) -> bool:
    """Return whether a path is the file that we were started from, or another of our programs.

    Any name or link of the file counts. Our other programs have our marker.
    """
    try:
        there = os.stat(path)
        with open(path, "rb") as file:
            head = file.read(size_of_head(there.st_size))
    except OSError:
        return False  # execute-only: not one of our programs
    if is_copy(head, there.st_size):
        return True
    try:
        here = os.stat(sys.argv[0])
    except OSError:
        return False  # started as a module or from -c: there is no file to recognize
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def is_native(path: str) -> bool:
    """Return whether a path is docker's own binary.

    A script, or a multi-call binary behind a link (mise, asdf), could call us back.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError:
        return False
    return (
        magic != b"" and magic[:2] != b"#!" and "docker" in os.path.basename(os.path.realpath(path))
    )


def hand_over(
    argv: "Sequence[str]", program: str = "docker", *, judged: bool = False
) -> "NoReturn":
    """Become the real docker: same process, environment, descriptors, working directory and umask.

    With `judged`, these words may delete a volume and have been handled. One more variable then
    tells our compose plugin behind that docker not to do so again.

    Raises:
        DockerNotFound: There is none, or it is a wrapper that leads back to us.
    """
    from safe_compose.errors import DockerNotFound

    path = find_runner(program)
    if (
        LaunchContext.plugin is None
        and program == "docker-compose"
        and os.path.basename(path) != program
        and search(program) is None
    ):
        from safe_compose.grammar.standalone import split_standalone

        converted = split_standalone(argv)
        argv = [*converted[0], *converted[1]] if converted is not None else ["compose", *argv]
    marked = judged and LaunchContext.plugin is None and "compose" in argv and has_own_plugin()
    environment = make_guarded_environment() if marked else read_original_environment()
    if not is_native(path):
        environment = add_trail(environment, path)
    restore_signals()
    command = [path, *argv]
    try:
        os.execve(path, command, environment)
    except OSError as error:
        import errno

        if error.errno != errno.ENOEXEC:
            raise DockerNotFound(
                f"{path} does not start: {error.strerror}", next_step="set SAFE_COMPOSE_DOCKER"
            ) from error
    # a script without a first line: shells do this
    os.execve("/bin/sh", ["sh", *command], environment)


def restore_signals() -> None:
    """Undo Python's handling of SIGPIPE and SIGXFSZ at its start, which exec would pass on.

    Python sets both to SIG_IGN before any of our code runs and keeps no record of their earlier
    state. The launcher tells which of them our parent had ignored: those stay so. Without a
    launcher both become SIG_DFL, as a shell leaves them. (docker is Go and installs its own
    handlers whatever it inherits; its children see the difference.) SIGINT needs nothing: a handler
    becomes the default at exec, and where it was ignored Python leaves it so.
    """
    # the builtin under `signal`, which costs an enum
    import _signal  # type: ignore[import-not-found]

    for number in list_signals_to_restore():
        _signal.signal(number, _signal.SIG_DFL)


def list_signals_to_restore() -> "list[int]":
    """Return the signals that Python ignores, and that docker must not find ignored."""
    return [number for number in list_ignored_signals() if number not in LaunchContext.ignored]


def list_ignored_signals() -> tuple[int, int]:
    """Return the signals that every Python ignores from its start on."""
    import _signal

    return _signal.SIGPIPE, _signal.SIGXFSZ


class Variables(Environment):
    """An environment as execve and subprocess take it, with its order and its repeated names."""

    def __init__(self, pairs: "Sequence[tuple[bytes, bytes]]") -> None:
        """Hold (name, value) pairs."""
        self.pairs = pairs

    def keys(self) -> "list[bytes]":  # type: ignore[override]
        """Return the names, in order."""
        return [name for name, _ in self.pairs]

    def values(self) -> "list[bytes]":  # type: ignore[override]
        """Return the values, in order."""
        return [value for _, value in self.pairs]

    def items(self) -> "list[tuple[bytes, bytes]]":  # type: ignore[override]
        """Return the (name, value) pairs, in order."""
        return list(self.pairs)

    def __getitem__(self, name: bytes) -> bytes:
        """Return the first value of a name.

        Raises:
            KeyError: There is no such name.
        """
        for given, value in self.pairs:
            if given == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> "Iterator[bytes]":
        """Iterate over the names."""
        return iter(self.keys())

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)


def read_original_environment() -> "Mapping[bytes, bytes]":
    """Return the environment exactly as this process got it.

    On Linux it comes from /proc/self/environ, the block that the kernel was given: Python's locale
    coercion adds LC_CTYPE to its own copy, and a dict would lose repeated names, of which Go takes
    the first. An entry without `=` or without a name cannot be passed to Python's execve and is
    dropped: no program can look it up. Elsewhere it is os.environb, where LC_CTYPE may be new.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
    except OSError:
        return Variables(list(os.environb.items()))
    pairs = []
    for entry in block.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if name and equals:
            pairs.append((name, value))
    return Variables(pairs)


def add_trail(environment: "Mapping[bytes, bytes]", path: str) -> "Mapping[bytes, bytes]":
    """Return the environment with our trail for a docker that is a wrapper.

    Raises:
        DockerNotFound: The trail shows that the wrapper leads back to us.
    """
    from safe_compose.errors import DockerNotFound

    pid, _, rest = os.environ.get(TRAIL, "").partition(" ")
    count, _, before = rest.partition(" ")
    depth = int(count) if count.isascii() and count.isdigit() else 0
    if (pid == str(os.getpid()) and before == path) or depth >= DEEPEST:
        raise DockerNotFound(
            f"{path} leads back to safe-compose",
            next_step="set SAFE_COMPOSE_DOCKER to the real docker",
        )
    name = TRAIL.encode()
    pairs = [pair for pair in environment.items() if pair[0] != name]
    return Variables([*pairs, (name, os.fsencode(f"{os.getpid()} {depth + 1} {path}"))])
