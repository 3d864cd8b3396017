"""Short queries to docker: may this command, here and now, delete anything?

Each replaces the guard's full inspection in the usual case (2 or 20 ms instead of 250). Where its
answer leaves anything open, the guard inspects everything.
"""

# pathlib would cost more than all of this:
# ruff: noqa: PTH123

import os

from safe_compose.fastpath import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from safe_compose.fastpath.inspect import InspectedContainer
    from safe_compose.grammar.parser import Invocation

CONTAINERS = ("container", "ls", "--format", "table {{.ID}}")
"""The arguments that print a heading and one line per container.

The formats in docker's configuration (`psFormat`, `volumesFormat`) may lack the heading.
"""
VOLUMES = ("volume", "ls", "--format", "table {{.Name}}")
"""The arguments that print a heading and one line per volume."""
MOUNTS = "{{.HostConfig.AutoRemove}}{{range .Mounts}} {{.Type}}{{end}}"
"""The format that prints `false volume bind` for each container docker finds."""
PLUGIN_TYPES = "{{json .Config.Interface.Types}}"
"""The format that prints `["docker.volumedriver/1.0"]` for each plugin of the engine."""


def is_harmless_removal(invocation: "Invocation") -> bool:
    """Return whether docker says that removing the named containers takes no volume along.

    This is the usual `stop`, `kill` and `rm -f`. A --rm container that ends takes its anonymous
    volumes along, and `rm -v` those of any container; a container without volumes takes none.
    """
    if invocation.own.explain and not invocation.is_refused:
        return False
    if invocation.verb in (("plugin", "rm"), ("plugin", "remove")):
        return drives_no_volumes(invocation)
    if invocation.kind not in ("autoremove_anon", "container_rm_anon"):
        return False
    path = launch.find_docker(invocation.program)
    if invocation.verb[:1] == ("compose",):
        return _leaves_nothing_running(path, invocation)
    if invocation.is_set("link"):
        return False
    operands = invocation.operands
    if invocation.doubt is not None and not operands:  # an unknown flag may mean all containers
        words = [*invocation.docker_globals, "container", "ls", "--all", "--quiet", "--no-trunc"]
        operands = tuple(read_answer(path, words).decode("ascii", "replace").split())
    locks, found = _look(path, invocation, operands)
    if not operands or (locks and invocation.doubt is None):
        return False
    removes = locks or invocation.kind == "container_rm_anon"  # a lock mounts its volume
    return not any(
        one is None or (one.volumes and (removes or one.removes_itself)) for one in found
    )


def _leaves_nothing_running(path: str, invocation: "Invocation") -> bool:
    """Return whether docker says that no `compose run --rm` runs, which compose would end."""
    locks, _ = _look(path, invocation, ())
    if locks and invocation.doubt is None:
        return False
    words = [*CONTAINERS, "--filter", "label=com.docker.compose.oneoff=True"]
    return not _lists_any(read_answer(path, [*invocation.docker_globals, *words]))


def _look(
    path: str, invocation: "Invocation", operands: "Sequence[str]"
) -> "tuple[bool, Sequence[InspectedContainer | None]]":
    """Return whether a removal may hit a deletion lock, and the named containers.

    The engine is asked, or docker where it may go elsewhere, or where the engine gave no plain
    answer. Neither is asked one question after the other.

    Args:
        path: The real docker.
        invocation: The command; its global flags say which engine is meant.
        operands: Names and ids of the containers.

    Returns:
        None for a container without a plain answer.
    """
    from safe_compose.fastpath import inspect

    locks: bool | None = None
    found: Sequence[InspectedContainer | None] = [None] * len(operands)
    if not invocation.docker_globals and launch.is_native(path) and inspect.is_dockers_choice():
        locks, found = inspect.look(operands, locks=invocation.removes)
    questions = []
    if asks_locks := invocation.removes and locks is None:
        questions.append([*CONTAINERS, "--all", "--filter", "label=io.github.safe-compose.lock"])
    if asks_containers := None in found:
        questions.append(["container", "inspect", "--format", MOUNTS, "--", *operands])
    answers = read_answers(path, [[*invocation.docker_globals, *words] for words in questions])
    if asks_locks:
        locks = _lists_any(answers[0])
    if asks_containers:
        found = _read_mounts(answers[-1], len(operands))
    return bool(locks), found


def _lists_any(answer: bytes) -> bool:
    """Return whether docker lists anything, or gives no plain answer."""
    return len(answer.splitlines()) != 1  # the line of headings alone


def _read_mounts(answer: bytes, count: int) -> "Sequence[InspectedContainer | None]":
    """Return the containers of which docker printed MOUNTS; None for what is no plain answer."""
    from safe_compose.fastpath.inspect import InspectedContainer

    lines = [line.split() for line in answer.splitlines()]
    if len(lines) != count:
        return [None] * count
    return [
        InspectedContainer(removes_itself=words[0] == b"true", volumes=b"volume" in words)
        if words[:1] in ([b"false"], [b"true"])
        else None
        for words in lines
    ]


def drives_no_volumes(invocation: "Invocation") -> bool:
    """Return whether docker says that none of the named plugins is a volume driver."""
    path = launch.find_docker(invocation.program)
    words = [
        *invocation.docker_globals,
        "plugin",
        "inspect",
        "--format",
        PLUGIN_TYPES,
        "--",
        *invocation.operands,
    ]
    answers = read_answer(path, words).splitlines() if invocation.operands else []
    return 0 < len(answers) == len(invocation.operands) and not any(
        b"volumedriver" in types for types in answers
    )


def may_hold_lock(invocation: "Invocation") -> bool:
    """Return whether the engine has a deletion lock that a removal of containers may hit.

    A removal can name the lock's container by name, id or filter. Without a plain answer the
    result is True.
    """
    locks, _ = _look(launch.find_docker(invocation.program), invocation, ())
    return locks


STDIN = (("file", "/dev/stdin"), ("file", "/dev/fd/0"), ("file", "/proc/self/fd/0"))
"""The compose flags that read a file from stdin; they leave nothing in a pipe."""


def may_be_answered(invocation: "Invocation") -> bool:
    """Return whether stdin can answer yes when compose asks to recreate a changed volume.

    Compose 2.32 and later ask that. A terminal asks the person. /dev/null, an empty file, a pipe
    without a writer, and a pipe that compose has read as its file all answer no. Compose compares a
    label, so if no volume has that label there is nothing to ask (25 ms instead of the full
    inspection).
    """
    import stat

    try:
        mode = os.fstat(0).st_mode
        if stat.S_ISCHR(mode) or (
            stat.S_ISFIFO(mode) and not {*STDIN}.isdisjoint(invocation.compose_flags)
        ):
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
    words = [
        *invocation.docker_globals,
        *VOLUMES,
        "--filter",
        "label=com.docker.compose.config-hash",
    ]
    return _lists_any(read_answer(launch.find_docker(invocation.program), words))


def read_answer(path: str, words: "Sequence[str]") -> bytes:
    """Return what the docker at `path` prints for these words.

    Returns:
        Its stdout; empty when it does not start or does not exit with 0.
    """
    return read_answers(path, [words])[0]


def read_answers(path: str, questions: "Sequence[Sequence[str]]") -> list[bytes]:
    """Return what the docker at `path` prints for each of several command lines.

    All are started before the first one is read.

    Returns:
        The stdout of each; empty when it does not start or does not exit with 0.
    """
    return [_read(started) for started in [_start(path, words) for words in questions]]


def _start(path: str, words: "Sequence[str]") -> tuple[int, int] | None:
    """Start docker in the environment that it will get; return its process and its stdout.

    The process is started by hand, because importing subprocess would cost as much as the answer.
    """
    environment = launch.read_original_environment()
    if not launch.is_native(path):
        environment = launch.add_trail(environment, path)
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writing, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        child = os.posix_spawn(
            path,
            [path, *words],
            environment,
            file_actions=actions,
            setsigdef=launch.list_signals_to_restore(),
        )
    except OSError:
        os.close(reading)
        return None  # the guard or the hand-over reports why
    finally:
        os.close(writing)
    return child, reading


def _read(started: tuple[int, int] | None) -> bytes:
    """Return what a docker prints until it ends; empty unless it exits with 0."""
    if started is None:
        return b""
    child, reading = started
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer if status == 0 else b""
