"""The `docker` you type: what cannot delete a volume is exec'd at once, and only the rest wakes the other rooms.

Nothing but `os` and `sys` is imported before a harmless command is handed over (design, sections 10 and 12): everything else
comes lazily, inside functions.
"""
# pathlib would cost more than all of this:
# ruff: noqa: PTH100, PTH111, PTH113, PTH116, PTH117, PTH118, PTH119, PTH120, PTH123

import os
import sys

from safe_compose.harmless import OWN_FLAGS, PROBE, SUSPECT, is_copy, own_flags, size_of_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import NoReturn

    from safe_compose.grammar import Invocation

    Environment = Mapping[bytes, bytes]
else:
    Environment = object

OWN_VERBS = frozenset(
    {
        "commands", "about", "setup", "shell", "volumes", "protect", "unprotect", "backup", "list", "show", "verify", "restore",
        "undo", "journal", "recover", "approve", "hook", "doctor", "forget", "offsite", "trash",
        "rotate-password", "audit", "schedule",
    }
)  # fmt: skip
"""Ours as the first word, in the `safe-compose` executable only."""

PROBED = "SAFE_COMPOSE_PROBE"
"""What `doctor` asks the command PROBE to answer with."""
FOREIGN = ("podman", "nerdctl")
"""Programs that take docker's words and are not guarded: as a shim of that name we refuse what may delete a volume."""
PLUMBING = frozenset({"__complete", "__completeNoDesc", "docker-cli-plugin-metadata", "docker-cli-plugin-hooks"})
TRAIL = "SAFE_COMPOSE_TRAIL"
"""`PID DEPTH PATH` of the last hand-over to something that is not a native docker, and so could call us back. Exec keeps the
process id, so the same PID and PATH again is a loop."""
DEEPEST = 8
GUARDED = "SAFE_COMPOSE_GUARDED"
"""The guard's process id, in the environment of the docker that it runs or becomes: the plugin below lets that one command
through."""
ORIGIN = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
"""How docker was called; set for its plugins (`metadata.ReexecEnvvar` of docker/cli)."""
ASIDE = "safe-compose.docker-compose"
"""What a compose plugin in the user's own folder is renamed to when ours takes its place; docker looks for `docker-*` only."""
SYSTEM_PLUGINS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


class Place:
    """Where this process stands, when it is not `safe-compose` itself."""

    plugin: str | None = None
    """The real compose plugin behind us, when docker runs us in its place."""
    python: str = ""
    """The interpreter that finds our packages; this one was started without `site`."""


def main(*, plugin: bool = False, python: str = "") -> int:
    """The console script: return an exit code, or never (exec).

    The name that we were started by decides what we are: `docker-compose`, `docker` (a shim), or safe-compose itself, which
    alone has verbs of its own. The script in the CLI plugins folder says so (`plugin`); those started without `site` name
    the `python` that has it.
    """
    name = os.path.basename(sys.argv[0])
    words = sys.argv[1:]
    shim = name in ("docker", "docker-compose", *FOREIGN)
    if not shim and words[:1] == ["docker-compose"]:
        words, name, shim = words[1:], "docker-compose", True  # for shell functions, whose programs cannot choose their name
    program = name if name in ("docker-compose", *FOREIGN) else "docker"
    verb = own_verb(words) if not shim else None
    Place.python = python
    try:
        if verb is not None:
            if verb == "shell" and len(words) == 2 and words[1] in ("bash", "zsh", "fish"):
                from safe_compose.ways import texts  # evaluated at the start of every shell: no time for typer

                return texts.print_function(words[1])
            if verb == "hook" and words in (["hook"], ["hook", "--strict"]):
                from safe_compose import hook  # run before each command of an agent: no time for typer

                return hook.main(words[1:])
            from safe_compose import cli

            return cli.run(words)
        if plugin:
            return stand_before_plugin(words)
        return stand(words, program, shim=shim)
    except KeyboardInterrupt:
        return ended(130, "interrupted", None, about_docker=verb is None)
    except BrokenPipeError:
        if verb is None:
            return bug(about_docker=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read our list has gone; the interpreter still flushes it
        return 141
    except Exception as error:  # noqa: BLE001 - the one boundary: whatever happened, docker was not run, and we say so
        from safe_compose.errors import SafeComposeError

        if isinstance(error, SafeComposeError):
            return ended(error.code, error.message, error.next_step, about_docker=verb is None, report=error.report)
        if isinstance(error, FileNotFoundError) and not stands_somewhere():
            return ended(
                77, "the folder that this runs in was deleted; nothing was done", "cd to another one", about_docker=verb is None
            )
        return bug(about_docker=verb is None)


def stands_somewhere() -> bool:
    """Whether the current folder still exists: nearly everything but `docker ps` needs one."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return False
    return True


def stand_before_plugin(words: "Sequence[str]") -> int:
    """Docker runs us as its compose plugin, with the whole of its own arguments; or somebody runs that file by itself.

    The plugin takes itself for docker-compose unless docker started it (`RunningStandalone` of docker/cli); so do we.
    """
    Place.plugin = plugin_behind()
    alone = not os.environ.get(ORIGIN) and words[:1] != ["docker-cli-plugin-metadata"]
    if is_guarded():
        hand_over(words)
    return stand(words, "docker-compose" if alone else "docker", shim=True)


def is_guarded() -> bool:
    """Whether the docker that runs us as its plugin was run by the guard, or is what a program of ours became: then all is
    done and said."""
    given = os.environ.get(GUARDED, "")
    return given != "" and given in (str(os.getppid()), parent_of(os.getppid()))


def parent_of(pid: int) -> str:
    """The process id of a process's parent; empty when it cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[1].decode()  # the name in brackets may hold anything
    except OSError:
        import subprocess

        done = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return done.stdout.strip()


def stand(words: "Sequence[str]", program: str, *, shim: bool) -> int:
    """Hand words over to docker, or to the guard when they may delete a volume."""
    if words and words[0] in PLUMBING:
        hand_over(words, program)
    if words[-1:] == [PROBE] and len(words) <= 2 and words[:-1] in ([], ["compose"]) and PROBED in os.environ:
        place = "plugin" if Place.plugin else program if shim else "safe-compose"
        sys.stdout.write(f"{PROBE} {os.environ[PROBED]} {place}\n")
        return 0
    own = own_flags(words)
    if not own and SUSPECT.isdisjoint(words):
        if not shim and words and words[0] in ("help", "--help") and os.isatty(2):
            say("safe-compose: its own commands are listed by `safe-compose commands`")
        hand_over(words, program)
    if program in FOREIGN:
        from safe_compose import podman

        podman.refuse_words(words, program)
        hand_over(words, program)
    if not shim and ("up" in words or "down" in words):
        from safe_compose import grammar

        at = grammar.command_at(words)
        if words[at : at + 1] in (["up"], ["down"]):  # docker has neither
            words = [*words[:at], "compose", *words[at:]]
    off = os.environ.get("SAFE_COMPOSE") == "off"
    invocation = read(words, program)
    if invocation.asks and may_be_answered(invocation):
        from safe_compose import grammar

        invocation = grammar.answered(invocation)
    # The shell's alone: compose makes its flags before it reads `.env` (run with 2.26.1 and 2.40.3).
    if invocation.verb == ("compose", "down") and os.environ.get("COMPOSE_REMOVE_ORPHANS", "").lower() in ("1", "t", "true"):
        from safe_compose import grammar

        invocation = grammar.orphans_go(invocation)
    if off:
        if invocation.kind != "none":
            wake()  # may start again: what is said before would be said twice
        say("safe-compose: SAFE_COMPOSE=off, docker runs unguarded")
        if invocation.kind != "none":
            from safe_compose import guard

            guard.note_unguarded(invocation)
        hand_over(invocation.argv, invocation.program, judged=True)
    if (invocation.kind != "none" or invocation.doubt is not None or invocation.own.explain) and not takes_nothing(invocation):
        wake()
        begun = None
        if not invocation.own.offline and (invocation.kind != "none" or invocation.doubt is not None):
            from safe_compose import world

            begun = world.begin(invocation)  # docker and compose think while the rest is imported
        from safe_compose import guard

        return guard.run(invocation, begun)
    else:
        from safe_compose import podman

        if podman.may_delete(invocation.argv):  # only if docker is really Podman: to docker these words are harmless
            podman.refuse_impostor(real_docker(program))
    hand_over(invocation.argv, invocation.program)


def wake() -> None:
    """Get ready for the other rooms. A shim's interpreter runs without `site`, so it starts again, same process, with the
    packages that they need.

    Until the card is painted nothing that is imported becomes garbage, and looking for some takes 20 ms: `guard` collects
    again once it has a world.
    """
    if not (Place.python and sys.flags.no_site):
        import gc

        gc.disable()
        return
    from safe_compose.errors import DockerNotFound

    command = [Place.python, "-I", *sys.argv]
    try:
        os.execve(command[0], command, original_environment())
    except OSError as error:
        raise DockerNotFound(
            f"{command[0]}, which safe-compose was installed with, does not start: {error.strerror}",
            next_step="install safe-compose again, then: safe-compose shell --install shims",
        ) from error


def own_verb(words: "Sequence[str]") -> str | None:
    """Our own verb, when it is the first word (after flags of ours) and no docker CLI plugin has that name."""
    index = 0
    while index < len(words) and words[index].partition("=")[0] in OWN_FLAGS:
        index += 2 if words[index] == "--confirm" else 1
    if index < len(words) and words[index] in OWN_VERBS and not has_plugin(words[index]):
        return words[index]
    return None


def has_plugin(name: str) -> bool:
    """Whether docker knows a CLI plugin of that name."""
    return any(os.access(os.path.join(folder, f"docker-{name}"), os.X_OK) for folder in plugin_folders())


def plugin_folders() -> "list[str]":
    """Where docker looks for plugins, in its order (`cli-plugins/manager`): extra folders, the user's, the system's.

    A configuration that does not read names no extra folders; docker itself complains about it.
    """
    home = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    extra: list[str] = []
    try:
        with open(os.path.join(home, "config.json"), encoding="utf-8") as file:
            text = file.read()
        if "cliPluginsExtraDirs" in text:
            import json

            extra = [folder for folder in json.loads(text)["cliPluginsExtraDirs"] if isinstance(folder, str)]
    except (OSError, ValueError, KeyError, TypeError):
        extra = []
    return [*extra, os.path.join(home, "cli-plugins"), *SYSTEM_PLUGINS]


def has_own_plugin() -> bool:
    """Whether docker finds ours when it looks for its compose plugin."""
    paths = (os.path.join(folder, "docker-compose") for folder in plugin_folders())
    return any(is_ourselves(path) for path in [path for path in paths if is_program(path)][:1])


def plugin_behind() -> str:
    """The compose plugin that docker would find if ours were not there: looked for at every call, so upgrades are seen.

    Raise DockerNotFound when there is none.
    """
    from safe_compose.errors import DockerNotFound

    for folder in [os.path.dirname(os.path.abspath(sys.argv[0])), *plugin_folders()]:
        for name in ("docker-compose", ASIDE):
            path = os.path.join(folder, name)
            if is_program(path) and not is_ourselves(path):
                return path
    raise DockerNotFound("there is no compose plugin besides safe-compose", next_step="install docker compose")


def read(words: "Sequence[str]", program: str) -> "Invocation":
    """The exact decision. Where docker-compose 1.x and 2.x differ on the words, the installed one is asked for its version."""
    from safe_compose import grammar

    invocation = grammar.parse(words, program)
    if program != "docker-compose":
        return invocation
    path = Place.plugin or search(program)
    if path is None:
        converted = grammar.standalone(invocation.argv)
        if converted is None:
            return invocation
        return grammar.parse([*converted[0], *converted[1]], "docker")._replace(own=invocation.own)
    old = grammar.parse(words, program, dialect="v1")
    same = old._replace(docker_globals=(), compose_globals=()) == invocation._replace(docker_globals=(), compose_globals=())
    if (same and invocation.doubt is None) or (old.kind == invocation.kind == "none" and old.argv == invocation.argv):
        return invocation
    version = version_of(path)
    if version.startswith("1."):
        return old
    if not version and invocation.kind == "none":
        return old  # nobody knows which one it is: the one that may delete is believed
    return invocation


def version_of(path: str) -> str:
    """What `docker-compose version --short` says; empty when it does not answer."""
    import subprocess

    try:
        done = subprocess.run([path, "version", "--short"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("ascii", "replace").strip().removeprefix("v")


MOUNTS = "{{.HostConfig.AutoRemove}}{{range .Mounts}} {{.Type}}{{end}}"
"""For each container that docker finds: `false volume bind`."""


def takes_nothing(invocation: "Invocation") -> bool:
    """Whether docker itself says that none of the containers named takes a volume along when it goes: the usual `stop`,
    `kill` and `rm -f`.

    A --rm container that ends takes its anonymous volumes along, `rm -v` those of any container; one without volumes takes
    none. One short question instead of the whole look (2 or 20 ms instead of 250); whatever its answer leaves open is a no,
    and the guard then looks at everything.
    """
    if invocation.kind not in ("autoremove_anon", "container_rm_anon") or invocation.own.explain:
        return False
    path = real_docker(invocation.program)
    if invocation.verb[:1] == ("compose",):  # takes along what `compose run --rm` left running, if anything
        words = [*invocation.docker_globals, "container", "ls", "--filter", "label=com.docker.compose.oneoff=True"]
        return invocation.doubt is None and len(answer_of(path, words).splitlines()) == 1  # the line of headings alone
    if invocation.doubt is not None or invocation.is_set("link") or not invocation.operands:
        return False
    removes = invocation.kind == "container_rm_anon"
    if not invocation.docker_globals and is_native(path):
        from safe_compose import nearby

        if nearby.is_dockers_choice():
            found = [nearby.container(name) for name in invocation.operands]
            if None not in found:
                return not any(one and one.volumes and (removes or one.removes_itself) for one in found)
    words = [*invocation.docker_globals, "container", "inspect", "--format", MOUNTS, "--", *invocation.operands]
    answers = answer_of(path, words).splitlines()
    return len(answers) == len(invocation.operands) and all(
        words[:1] in ([b"false"], [b"true"]) and (b"volume" not in words or (words[0] == b"false" and not removes))
        for words in map(bytes.split, answers)
    )


def may_be_answered(invocation: "Invocation") -> bool:
    """Whether stdin may say yes when compose asks to recreate a volume whose definition changed (compose >= 2.32).

    A terminal asks the person; /dev/null, an empty file and a pipe that nobody writes to any more answer no. Compose compares
    a label, so where no volume has it there is nothing to ask (25 ms instead of the whole look).
    """
    import stat

    try:
        mode = os.fstat(0).st_mode
        if stat.S_ISCHR(mode):
            return False
        if stat.S_ISREG(mode):
            if os.fstat(0).st_size <= os.lseek(0, 0, os.SEEK_CUR):
                return False
        else:
            import select

            waiting = select.poll()
            waiting.register(0, select.POLLIN | select.POLLHUP)
            if [event for _, event in waiting.poll(0)] == [select.POLLHUP]:
                return False
    except OSError:
        return False  # closed
    if invocation.program != "docker":
        return True
    words = [*invocation.docker_globals, "volume", "ls", "--filter", "label=com.docker.compose.config-hash"]
    answer = answer_of(real_docker(invocation.program), words)
    return len(answer.splitlines()) != 1  # the line of headings alone


def answer_of(path: str, words: "Sequence[str]") -> bytes:
    """What the docker at `path` prints for these words, with the environment that it will get; nothing unless it ends with 0.

    By hand, because importing subprocess would cost as much as the answer.
    """
    environment = original_environment()
    if not is_native(path):
        environment = with_trail(environment, path)
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writing, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        child = os.posix_spawn(path, [path, *words], environment, file_actions=actions, setsigdef=ignored_by_python())
    except OSError:
        os.close(reading)
        return b""  # the way of the guard, or the hand-over, tells why
    finally:
        os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer if status == 0 else b""


# -- the real docker ---------------------------------------------------------------------------------------------------


def real_docker(program: str = "docker") -> str:
    """The path of the docker that is not us.

    SAFE_COMPOSE_DOCKER, else the docker that runs us as its plugin, else the first on PATH; for `docker-compose` the program
    of that name, else docker (whoever calls it adds `compose`). Raise DockerNotFound.
    """
    from safe_compose.errors import DockerNotFound

    if program in ("docker-compose", *FOREIGN):
        found = search(program)
        if found is not None:
            return found
        if program in FOREIGN:
            raise DockerNotFound(f"there is no {program} on PATH besides safe-compose", next_step=f"install {program}")
    chosen = os.environ.get("SAFE_COMPOSE_DOCKER")
    if chosen:
        chosen = os.path.abspath(chosen)
        if not is_program(chosen):
            raise DockerNotFound(f"SAFE_COMPOSE_DOCKER is {chosen}, which is no program", next_step="unset SAFE_COMPOSE_DOCKER")
        if is_ourselves(chosen):
            raise DockerNotFound(
                f"SAFE_COMPOSE_DOCKER is {chosen}, which is safe-compose itself", next_step="unset SAFE_COMPOSE_DOCKER"
            )
        return chosen
    caller = os.environ.get(ORIGIN, "") if Place.plugin else ""
    if os.path.isabs(caller) and is_program(caller) and not is_ourselves(caller):
        return caller
    found = search("docker")
    if found is None:
        raise DockerNotFound(
            "there is no docker on PATH besides safe-compose", next_step="install docker, or set SAFE_COMPOSE_DOCKER to it"
        )
    return found


def runner(program: str = "docker") -> str:
    """The program that runs a command of ours: the plugin in whose place we stand, else the real docker."""
    return Place.plugin or real_docker(program)


def guarded_environment() -> "Mapping[bytes, bytes]":
    """For a docker whose words we judged: as it came, and the word by which a plugin of ours knows that."""
    kept = [pair for pair in original_environment().items() if pair[0] != GUARDED.encode()]
    return Variables([*kept, (GUARDED.encode(), str(os.getpid()).encode())])


def search(name: str) -> str | None:
    """The first program of that name on PATH that is not us."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.abspath(os.path.join(folder, name))  # an empty entry is the current folder
        if is_program(path) and not is_ourselves(path):
            return path
    return None


def is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def is_ourselves(path: str) -> bool:
    """The file we were started from, by whatever name or link, or any program that carries our marker."""
    try:
        there = os.stat(path)
        with open(path, "rb") as file:
            head = file.read(size_of_head(there.st_size))
    except OSError:
        return False  # execute-only: no program of ours
    if is_copy(head, there.st_size):
        return True
    try:
        here = os.stat(sys.argv[0])
    except OSError:
        return False  # started as a module or from -c: there is no file that could be found again
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def is_native(path: str) -> bool:
    """Whether it is docker's own binary. A script, or a multi-call binary behind a link (mise, asdf), could call us back."""
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError:
        return False
    return magic != b"" and magic[:2] != b"#!" and "docker" in os.path.basename(os.path.realpath(path))


def hand_over(argv: "Sequence[str]", program: str = "docker", *, judged: bool = False) -> "NoReturn":
    """Become the real docker: same process, environment, descriptors, working directory and umask.

    `judged`: these words may delete a volume, and all that there is to say was said. A compose plugin of ours behind that docker
    is then told, by one variable more, to do neither again.

    Raise DockerNotFound when there is none, or when it is a wrapper that leads back to us.
    """
    from safe_compose.errors import DockerNotFound

    path = runner(program)
    if Place.plugin is None and program == "docker-compose" and os.path.basename(path) != program and search(program) is None:
        from safe_compose import grammar

        converted = grammar.standalone(argv)
        argv = [*converted[0], *converted[1]] if converted is not None else ["compose", *argv]
    told = judged and Place.plugin is None and "compose" in argv and has_own_plugin()
    environment = guarded_environment() if told else original_environment()
    if not is_native(path):
        environment = with_trail(environment, path)
    restore_signals()
    command = [path, *argv]
    try:
        os.execve(path, command, environment)
    except OSError as error:
        import errno

        if error.errno != errno.ENOEXEC:
            raise DockerNotFound(f"{path} does not start: {error.strerror}", next_step="set SAFE_COMPOSE_DOCKER") from error
    os.execve("/bin/sh", ["sh", *command], environment)  # a script without a first line: what shells do with it


def restore_signals() -> None:
    """Undo what Python did to SIGPIPE and SIGXFSZ at its start; exec would pass it on.

    Python sets both to SIG_IGN before any code of ours runs and keeps no record of what they were: neither `signal.getsignal`
    nor /proc/self/status can tell any more whether our parent had ignored them already. So both become SIG_DFL, which is what
    a shell gives. (docker is Go and installs its own handlers whatever it inherits; its children see the difference.) SIGINT
    needs nothing: a handler becomes the default at exec, and where it was ignored Python leaves it so.
    """
    import _signal  # type: ignore[import-not-found]  # the builtin under `signal`, which costs an enum

    for number in ignored_by_python():
        _signal.signal(number, _signal.SIG_DFL)


def ignored_by_python() -> tuple[int, int]:
    """The signals that every Python ignores from its start on."""
    import _signal

    return _signal.SIGPIPE, _signal.SIGXFSZ


class Variables(Environment):
    """An environment as execve and subprocess take it, with its order and its repeated names."""

    def __init__(self, pairs: "Sequence[tuple[bytes, bytes]]") -> None:
        self.pairs = pairs

    def keys(self) -> "list[bytes]":  # type: ignore[override]
        return [name for name, _ in self.pairs]

    def values(self) -> "list[bytes]":  # type: ignore[override]
        return [value for _, value in self.pairs]

    def items(self) -> "list[tuple[bytes, bytes]]":  # type: ignore[override]
        return list(self.pairs)

    def __getitem__(self, name: bytes) -> bytes:
        for given, value in self.pairs:
            if given == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> "Iterator[bytes]":
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.pairs)


def original_environment() -> "Mapping[bytes, bytes]":
    """The environment exactly as it came.

    On Linux from /proc/self/environ, the block that the kernel was given: Python's locale coercion adds LC_CTYPE to its own
    copy, and a dict would lose repeated names, of which Go takes the first. An entry without `=` or without a name cannot be
    handed to Python's execve and is dropped: no program can look it up. Elsewhere it is os.environb, where LC_CTYPE may be new.
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


def with_trail(environment: "Mapping[bytes, bytes]", path: str) -> "Mapping[bytes, bytes]":
    """Leave our trail for a docker that is a wrapper; raise DockerNotFound when we find our own."""
    from safe_compose.errors import DockerNotFound

    pid, _, rest = os.environ.get(TRAIL, "").partition(" ")
    count, _, before = rest.partition(" ")
    depth = int(count) if count.isascii() and count.isdigit() else 0
    if (pid == str(os.getpid()) and before == path) or depth >= DEEPEST:
        raise DockerNotFound(f"{path} leads back to safe-compose", next_step="set SAFE_COMPOSE_DOCKER to the real docker")
    name = TRAIL.encode()
    kept = [pair for pair in environment.items() if pair[0] != name]
    return Variables([*kept, (name, os.fsencode(f"{os.getpid()} {depth + 1} {path}"))])


# -- what we say -------------------------------------------------------------------------------------------------------


def ended(code: int, message: str, next_step: str | None, *, about_docker: bool, report: str | None = None) -> int:
    say(f"safe-compose: {message}")
    if next_step:
        say(f"  next: {next_step}")
    if report is not None and not os.isatty(2):
        say(report)
    if about_docker:
        say(f"safe-compose: docker was not run ({code})")
    return code


def bug(*, about_docker: bool) -> int:
    """Tell of an exception that nobody expected (inside its handler)."""
    error = sys.exc_info()[1]
    if os.environ.get("SAFE_COMPOSE_DEBUG"):
        import traceback

        say(traceback.format_exc().rstrip())
    return ended(
        70,
        f"our bug: {type(error).__name__}: {error}",
        "`safe-compose journal` shows how far it came; SAFE_COMPOSE_DEBUG=1 shows where it broke",
        about_docker=about_docker,
    )


def say(text: str) -> None:
    """One line on stderr; control characters in words that we were given stay words."""
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    try:
        os.write(2, shown.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        return  # nobody listens (closed or broken pipe): what we do must not depend on it
