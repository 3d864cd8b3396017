"""A short query to the engine: may containers that this command removes hold data of their own?

Where nothing does, docker is started some milliseconds later. Where something may, the guard
looks again, with compose's own word for which containers go.
"""

# pathlib, json and urllib would cost more than all of this:
# ruff: noqa: PTH109, PTH110, PTH118, PTH120, PTH121

import os

from safe_compose.fastpath import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from safe_compose.grammar.parser import Invocation

PATIENCE = 0.3
"""Seconds for all answers. The guard's own look takes the rest of a second."""
LARGEST = 4 << 20
"""Bytes of one list of changes."""
_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_UNUSED = '{"status":["created","exited","dead"]}'


def may_lose_data(invocation: "Invocation") -> bool:
    """Return whether a container that a harmless command may remove holds data of its own.

    An engine without a unix socket is not asked: one answer would take longer than the command.
    """
    from safe_compose.fastpath import inspect
    from safe_compose.fastpath.layer_data import find_data

    if not _acts(invocation):
        return False
    try:
        socket = _find_socket(invocation)
        questions = list(_find_listings(invocation))
    except OSError:  # the current folder was deleted
        return False
    if socket is None:
        return False
    queries = inspect.Queries(socket, PATIENCE, LARGEST)
    listings = queries.get_all(questions)
    if not all(whole for _, whole in listings):
        return queries.reached  # without an engine docker removes nothing
    containers = dict(_read_containers(invocation, [body for body, _ in listings]))
    paths = [f"/containers/{identity}/changes" for identity in containers]
    for (body, whole), mounts in zip(queries.get_all(paths), containers.values(), strict=True):
        if not find_data(read_changed(body), mounts).is_empty or not whole:
            return True
    return False


def _acts(invocation: "Invocation") -> bool:
    """Return whether the command may remove a container at all."""
    from safe_compose.fastpath.layer_data import RECREATE, REMOVE

    if invocation.verb not in REMOVE | RECREATE:
        return False
    if invocation.is_set("dry-run") or invocation.is_set("help") or invocation.is_set("link"):
        return False
    return not (invocation.verb in RECREATE and invocation.is_set("no-recreate"))


def _find_socket(invocation: "Invocation") -> str | None:
    """Return the unix socket that docker would use, or None for another transport."""
    from safe_compose.fastpath import inspect

    if not invocation.docker_globals and inspect.is_dockers_choice():
        return inspect.SOCKET
    given = dict(invocation.docker_flags)
    host = given.get("host") or ("" if "context" in given else os.environ.get("DOCKER_HOST", ""))
    host = host or _ask_docker(invocation)
    return host.removeprefix("unix://") if host.startswith("unix:///") else None


def _ask_docker(invocation: "Invocation") -> str:
    """Return the host of docker's context; empty without a docker, as beside docker-compose."""
    from safe_compose.errors import DockerNotFound
    from safe_compose.fastpath.queries import read_answer

    try:
        path = launch.find_docker("docker")
    except DockerNotFound:
        return ""
    words = ("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    answer = read_answer(path, [*invocation.docker_globals, *words])
    return answer.decode("utf-8", "replace").strip()


def _find_listings(invocation: "Invocation") -> "Iterator[str | None]":
    """Yield the questions whose answers list the containers that the command may remove."""
    if invocation.verb == ("container", "rm"):
        from safe_compose.fastpath import inspect

        yield from (inspect.find_path(name.removeprefix("/")) for name in invocation.operands)
        return
    filters = [_UNUSED] if invocation.verb[-1] == "prune" else _filter_project(invocation)
    yield from (f"/containers/json?all=1&filters={_encode(words)}" for words in filters)


def _read_containers(
    invocation: "Invocation", bodies: "Sequence[bytes]"
) -> "Iterator[tuple[str, list[str]]]":
    """Yield (id, mounted paths) of each listed container that the command may remove."""
    lively = invocation.is_set("force") or invocation.is_set("stop")
    only_stopped = invocation.verb in (("container", "rm"), ("compose", "rm")) and not lively
    for part in (part for body in bodies for part in body.split(b'{"Id":"')[1:]):
        runs = b'"State":"running"' in part or b'"Running":true' in part
        identity = part[:64].decode("ascii", "replace")
        if identity.isalnum() and not (only_stopped and runs):
            yield identity, list(_read_texts(part, b'"Destination":"'))


def _filter_project(invocation: "Invocation") -> "Iterator[str]":
    """Yield filters that find the containers of the project that compose means.

    They go by its name where that is given, else by its folder, so no file is read.
    """
    name = invocation.flag("project-name") or os.environ.get("COMPOSE_PROJECT_NAME")
    if name:
        yield _filter_label("com.docker.compose.project", name.lower())
        return
    for folder in dict.fromkeys(_find_folders(invocation)):
        yield _filter_label("com.docker.compose.project.working_dir", folder)


def _find_folders(invocation: "Invocation") -> "Iterator[str]":
    """Yield the project's folder, as compose may have written it down."""
    here = _find_here()
    named = invocation.flag("project-directory")
    if not named:
        files = [value for flag, value in invocation.compose_flags if flag == "file"]
        separator = os.environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files += os.environ.get("COMPOSE_FILE", "").split(separator)
        named = os.path.dirname(os.path.join(here, files[0])) if files[0] not in ("", "-") else ""
    if not named:
        named = _find_compose_folder(here)
    yield os.path.normpath(os.path.join(here, named))
    yield os.path.realpath(os.path.join(here, named))


def _find_here() -> str:
    """Return the current folder as Go's `os.Getwd` does: as the shell spells it, if that is it."""
    spelled = os.environ.get("PWD", "")
    try:
        if spelled.startswith("/") and os.path.samefile(spelled, "."):
            return spelled
    except OSError:
        pass
    return os.getcwd()


def _find_compose_folder(folder: str) -> str:
    """Return the nearest folder, upwards, that holds a compose file; else the folder itself."""
    place = folder
    while True:
        if any(os.path.exists(os.path.join(place, name)) for name in _COMPOSE_FILES):
            return place
        if os.path.dirname(place) == place:
            return folder
        place = os.path.dirname(place)


def _filter_label(name: str, value: str) -> str:
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"label":["{name}={text}"]}}'


def _encode(text: str) -> str:
    """Return a text as a value in a URL."""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )


def read_changed(body: bytes) -> "list[str]":
    """Return the paths that a list of changes names, without the deleted ones.

    The list is searched, not parsed, and may end anywhere. Within its texts each quote is escaped,
    so a quote after `},{` begins an entry, and one before a colon ends a key.
    """
    kept = (part for part in body.split(b'},{"') if b'Kind":2' not in part)
    return [path for part in kept for path in _read_texts(part, b'Path":"')]


def _read_texts(body: bytes, key: bytes) -> "Iterator[str]":
    for part in body.split(key)[1:]:
        # JSON escapes control characters, so these two stand for nothing else.
        plain = part.replace(b"\\\\", b"\0").replace(b'\\"', b"\1") if b"\\" in part else part
        text, quote, _ = plain.partition(b'"')
        if quote:
            text = text.replace(b"\1", b'"').replace(b"\0", b"\\")
            yield text.decode("utf-8", "replace")
