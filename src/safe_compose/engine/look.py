"""The engine's answers turned into `Observed` values: frozen, without secrets, nothing of docker-py left in them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from safe_compose.grammar import Invocation
from safe_compose.observed import PROJECT_LABEL, Container, Mount, Project, Volume

KEPT_ENVIRONMENT = frozenset(
    {"POSTGRES_USER", "POSTGRES_DB", "PGDATA", "PG_MAJOR", "MYSQL_DATABASE", "MARIADB_DATABASE", "MYSQL_VERSION", "MARIADB_VERSION"}
)
"""All that is ever kept of a container's environment: names of things, never a password."""


@dataclass(frozen=True, slots=True)
class Image:
    """One local image, as far as helpers need to know it."""

    id: str
    references: tuple[str, ...]
    size: int
    """Bytes, shared layers included."""
    volumes: tuple[str, ...]
    """Paths of its VOLUME lines: each becomes an anonymous volume unless something is mounted there."""
    environment: Mapping[str, str]
    """Only PGDATA, PG_MAJOR and the like."""
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Private:
    """What a container was started with, secrets included: to log in with, never to be kept, written or shown."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def private_from(body: Mapping[str, Any]) -> Private:
    """The same from `GET /containers/ID/json`."""
    pairs = ((body.get("Config") or {}).get("Env")) or ()
    argv = (str(body.get("Path") or ""), *_words(body.get("Args")))
    return Private(argv, {name: value for name, _, value in (str(pair).partition("=") for pair in pairs)})


def volume_from(body: Mapping[str, Any]) -> Volume:
    """A volume from `GET /volumes` or `GET /volumes/NAME`."""
    return Volume(
        name=str(body["Name"]),
        driver=str(body.get("Driver") or "local"),
        options=dict(body.get("Options") or {}),
        labels=dict(body.get("Labels") or {}),
        created_at=str(body.get("CreatedAt") or ""),
        mountpoint=str(body.get("Mountpoint") or ""),
        scope=str(body.get("Scope") or "local"),
    )


_ADDRESSES = ("IPAddress", "GlobalIPv6Address")


def container_from_list(body: Mapping[str, Any]) -> Container:
    """A container from `GET /containers/json`: enough to know what it references.

    What the list leaves out stays empty (start, exit code, health, environment), and each mount counts as declared.
    """
    networks = (body.get("NetworkSettings") or {}).get("Networks") or {}
    return Container(
        id=str(body["Id"]),
        name=str((body.get("Names") or [body["Id"]])[0]).lstrip("/"),
        image=str(body.get("Image") or ""),
        image_id=str(body.get("ImageID") or ""),
        state=str(body.get("State") or ""),
        labels=dict(body.get("Labels") or {}),
        mounts=tuple(_mount(m, declared=True) for m in body.get("Mounts") or ()),
        network_mode=str((body.get("HostConfig") or {}).get("NetworkMode") or ""),
        networks=tuple(networks),
    )


def container_from_inspect(body: Mapping[str, Any]) -> Container:
    """A container from `GET /containers/ID/json`."""
    state, config, host = body.get("State") or {}, body.get("Config") or {}, body.get("HostConfig") or {}
    networks = (body.get("NetworkSettings") or {}).get("Networks") or {}
    named = _sources(host)
    return Container(
        id=str(body["Id"]),
        name=str(body.get("Name") or body["Id"]).lstrip("/"),
        image=str(config.get("Image") or ""),
        image_id=str(body.get("Image") or ""),
        state=str(state.get("Status") or ""),
        started_at=str(state.get("StartedAt") or ""),
        exit_code=int(state.get("ExitCode") or 0),
        health=_health(state),
        labels=dict(config.get("Labels") or {}),
        environment=kept_environment(config.get("Env") or ()),
        mounts=tuple(_mount(m, declared=m.get("Type") != "volume" or m.get("Name") in named) for m in body.get("Mounts") or ()),
        network_mode=str(host.get("NetworkMode") or ""),
        networks=tuple(networks),
        addresses=tuple(str(at) for n in networks.values() for key in _ADDRESSES if (at := (n or {}).get(key))),
        auto_remove=bool(host.get("AutoRemove")),
        user=str(config.get("User") or ""),
    )


def image_from(body: Mapping[str, Any]) -> Image:
    """An image from `GET /images/ID/json`."""
    config = body.get("Config") or {}
    return Image(
        id=str(body["Id"]),
        references=tuple(body.get("RepoTags") or ()) + tuple(body.get("RepoDigests") or ()),
        size=int(body.get("Size") or 0),
        volumes=tuple(config.get("Volumes") or {}),
        environment=kept_environment(config.get("Env") or ()),
        entrypoint=_words(config.get("Entrypoint")),
        cmd=_words(config.get("Cmd")),
    )


def kept_environment(pairs: Iterable[str]) -> dict[str, str]:
    split = (pair.partition("=") for pair in pairs)
    return {name: value for name, _, value in split if name in KEPT_ENVIRONMENT}


def worth_inspecting(container: Container, invocation: Invocation, project: Project | None, volumes: Iterable[Volume]) -> bool:
    """True when the list is not enough: its start, its anonymous mounts or its `--rm` may decide something.

    Such are containers of the project, users of any volume that the command may mean, and, where containers themselves are
    named, every one that has a volume.
    """
    if project is not None:
        if project.owns(container):
            return True
        named = {v.name for v in project.volumes}
        named.update(v.name for v in volumes if v.labels.get(PROJECT_LABEL) == project.name)
        return bool(named & container.volume_names())
    if invocation.verb == ("volume", "rm"):
        return bool(container.volume_names() & set(invocation.operands))
    return bool(container.volume_names()) or invocation.kind in ("container_rm_anon", "autoremove_anon")


def _mount(body: Mapping[str, Any], *, declared: bool) -> Mount:
    kind = str(body.get("Type") or "")
    return Mount(
        type=kind,
        name=str(body["Name"]) if kind == "volume" and body.get("Name") else None,
        source=str(body.get("Source") or ""),
        destination=str(body.get("Destination") or ""),
        read_only=not body.get("RW", True),
        declared=declared,
    )


def _sources(host: Mapping[str, Any]) -> set[str]:
    """Volume names that stand in HostConfig: these mounts survive `rm -v` (moby daemon/mounts.go:removeMountPoints).

    A mount taken over by --volumes-from stands nowhere and so counts as undeclared, which is the wide side.
    """
    binds = {str(bind).partition(":")[0] for bind in host.get("Binds") or ()}
    return binds | {str(m["Source"]) for m in host.get("Mounts") or () if m.get("Source")}


def _health(state: Mapping[str, Any]) -> str | None:
    status = (state.get("Health") or {}).get("Status")
    return str(status) if status and status != "none" else None


def _words(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value or ())
