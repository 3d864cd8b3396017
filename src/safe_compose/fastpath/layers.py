"""A short query to the engine: may containers that this command removes hold data of their own?

Where nothing does, docker is started some milliseconds later. Where something may, the guard
looks again, with compose's own word for which containers go.
"""

# pathlib, json and urllib would cost more than all of this:
# ruff: noqa: PTH109, PTH110, PTH116, PTH118, PTH120, PTH121

import os

from safe_compose.fastpath import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from safe_compose.grammar.parser import Invocation

PATIENCE = 0.3
"""Seconds for all answers. The guard's own look takes the rest of a second."""
LARGEST = 4 << 20
"""Bytes of one list of changes."""
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_SETTINGS = ("COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_PROJECT_NAME")
_LARGEST_ENV_FILE = 64 << 10
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

    They go by its name where the words or the environment give it. An env file may be read
    otherwise than compose reads it, so its name finds further containers besides those of the
    folder.
    """
    given = dict(invocation.compose_flags)
    name = given.get("project-name") or os.environ.get("COMPOSE_PROJECT_NAME")
    if name:
        yield _filter_label("com.docker.compose.project", name.lower())
        return
    here = _find_here()
    directory = given.get("project-directory") or given.get("workdir") or ""
    base = os.path.join(here, directory)
    settings = _read_env_files(invocation, here, base)
    if name := settings.get("COMPOSE_PROJECT_NAME"):
        yield _filter_label("com.docker.compose.project", name.lower())
    folder = base if directory else _find_folder(invocation, here, settings)
    for spelled in dict.fromkeys((os.path.normpath(folder), os.path.realpath(folder))):
        yield _filter_label("com.docker.compose.project.working_dir", spelled)


def _find_folder(invocation: "Invocation", here: str, settings: "Mapping[str, str]") -> str:
    """Return the project's folder, where no flag names it."""
    files = [value for flag, value in invocation.compose_flags if flag == "file"]
    separator = settings.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    files += settings.get("COMPOSE_FILE", "").split(separator)
    if files[0] in ("", "-"):
        return _find_compose_folder(here)
    return os.path.dirname(os.path.join(here, files[0]))


def _read_env_files(invocation: "Invocation", here: str, base: str) -> dict[str, str]:
    """Return the settings that lead to the project: of its env files, below the environment's."""
    names = [value for flag, value in invocation.compose_flags if flag == "env-file"]
    names = names or [name for name in os.environ.get("COMPOSE_ENV_FILES", "").split(",") if name]
    settings: dict[str, str] = {}
    if names or os.environ.get("COMPOSE_DISABLE_ENV_FILE", "").lower() not in ("1", "t", "true"):
        for path in [os.path.join(here, name) for name in names] or [os.path.join(base, ".env")]:
            settings.update(_read_settings(_read_small(path)))
    settings.update((name, os.environ[name]) for name in _SETTINGS if os.environ.get(name))
    return settings


def _read_settings(text: bytes) -> "Iterator[tuple[str, str]]":
    for line in text.decode("utf-8", "replace").splitlines() if b"COMPOSE_" in text else ():
        words = line.strip().removeprefix("export ").lstrip()
        for name in _SETTINGS:
            mark, value = words[len(name) :].lstrip()[:1], words[len(name) :].lstrip()[1:].strip()
            if words.startswith(name) and mark in ("=", ":"):
                quote = value[:1] if value[:1] in ("'", '"') else ""
                yield name, value[1:].split(quote)[0] if quote else value.split(" #")[0].strip()


def _read_small(path: str) -> bytes:
    """Return a regular file; empty if it is another one, or too large for settings.

    A pipe may be read only once, and is left to compose.
    """
    import stat

    if path.startswith(("/dev/", "/proc/")):
        return b""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, _LARGEST_ENV_FILE + 1)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
    return text if len(text) <= _LARGEST_ENV_FILE and b"\0" not in text else b""


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
        if any(os.path.exists(os.path.join(place, name)) for name in COMPOSE_FILES):
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
