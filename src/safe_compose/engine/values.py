"""The engine's answers as `Observed` values: frozen, without secrets, independent of docker-py."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from posixpath import normpath
from typing import Any

from safe_compose.core.observed import LOCK_LABEL, PROJECT_LABEL, Container, Mount, Project, Volume
from safe_compose.grammar.parser import Invocation
from safe_compose.system.files import find_real_path

KEPT_ENVIRONMENT = frozenset(
    {
        "POSTGRES_USER",
        "POSTGRES_DB",
        "PGDATA",
        "PG_MAJOR",
        "MYSQL_DATABASE",
        "MARIADB_DATABASE",
        "MYSQL_VERSION",
        "MARIADB_VERSION",
    }
)
"""The only variables that are kept of a container's environment: names of objects, never a
password."""


LARGEST_SIZE = 1 << 63
"""Upper bound of the bytes of a volume: no file system counts further."""


@dataclass(frozen=True, slots=True)
class Image:
    """A local image, as far as helpers need to know it."""

    id: str
    references: tuple[str, ...]
    size: int
    """Bytes, shared layers included."""
    volumes: tuple[str, ...]
    """Paths of its VOLUME lines: each becomes an anonymous volume unless something is mounted
    there."""
    environment: Mapping[str, str]
    """Only the variables of `KEPT_ENVIRONMENT`."""
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    user: str = ""
    """The user of its programs unless a container overrides it; empty: root."""

    @property
    def runs_as_root(self) -> bool:
        """Return whether its programs run as root."""
        return self.user.partition(":")[0] in ("", "0", "root")


@dataclass(frozen=True, slots=True, repr=False)
class StartConfiguration:
    """The start configuration of a container, secrets included.

    It serves for logins and must never be kept, written or shown.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def read_private(body: Mapping[str, Any]) -> StartConfiguration:
    """Return the start configuration from `GET /containers/ID/json`."""
    pairs = ((body.get("Config") or {}).get("Env")) or ()
    argv = (str(body.get("Path") or ""), *_words(body.get("Args")))
    return StartConfiguration(
        argv, {name: value for name, _, value in (str(pair).partition("=") for pair in pairs)}
    )


def read_volume(body: Mapping[str, Any]) -> Volume:
    """Return a volume from `GET /volumes` or `GET /volumes/NAME`."""
    return Volume(
        name=str(body["Name"]),
        driver=str(body.get("Driver") or "local"),
        options=_texts(body.get("Options")),
        labels=_texts(body.get("Labels")),
        created_at=str(body.get("CreatedAt") or ""),
        mountpoint=str(body.get("Mountpoint") or ""),
        scope=str(body.get("Scope") or "local"),
    )


_ADDRESSES = ("IPAddress", "GlobalIPv6Address")


def read_listed_container(body: Mapping[str, Any]) -> Container:
    """Return a container from `GET /containers/json`: enough to know what it references.

    Fields that the list leaves out stay empty (start, exit code, health, environment), and each
    mount counts as declared.
    """
    networks = (body.get("NetworkSettings") or {}).get("Networks") or {}
    return Container(
        id=str(body["Id"]),
        name=str((body.get("Names") or [body["Id"]])[0]).lstrip("/"),
        image=str(body.get("Image") or ""),
        image_id=str(body.get("ImageID") or ""),
        state=str(body.get("State") or ""),
        labels=_texts(body.get("Labels")),
        mounts=tuple(_mount(m, declared=True) for m in body.get("Mounts") or ()),
        network_mode=str((body.get("HostConfig") or {}).get("NetworkMode") or ""),
        networks=tuple(networks),
        image_is_ours=_is_ours(body.get("Labels"), body.get("ImageID")),
    )


def resolve_folders(container: Container) -> Container:
    """Return a container whose mounts from the host have paths without symbolic links.

    Compose records a folder as the shell spells it, so that one folder may have several paths.
    Only for an engine whose paths are those of this process.
    """
    mounts = tuple(
        replace(mount, source=find_real_path(mount.source)) if mount.type == "bind" else mount
        for mount in container.mounts
    )
    return replace(container, mounts=mounts)


def read_container(body: Mapping[str, Any]) -> Container:
    """Return a container from `GET /containers/ID/json`."""
    state, config, host = (
        body.get("State") or {},
        body.get("Config") or {},
        body.get("HostConfig") or {},
    )
    networks = (body.get("NetworkSettings") or {}).get("Networks") or {}
    named, subpaths, shared = _sources(host), _subpaths(host), bool(host.get("VolumesFrom"))
    return Container(
        id=str(body["Id"]),
        name=str(body.get("Name") or body["Id"]).lstrip("/"),
        image=str(config.get("Image") or ""),
        image_id=str(body.get("Image") or ""),
        state=str(state.get("Status") or ""),
        started_at=str(state.get("StartedAt") or ""),
        exit_code=int(state.get("ExitCode") or 0),
        health=_health(state),
        labels=_texts(config.get("Labels")),
        environment=filter_environment(config.get("Env") or ()),
        mounts=tuple(
            _mount(
                m,
                declared=m.get("Type") != "volume" or m.get("Name") in named,
                subpaths=subpaths,
                shared=shared,
            )
            for m in body.get("Mounts") or ()
        ),
        network_mode=str(host.get("NetworkMode") or ""),
        networks=tuple(networks),
        addresses=tuple(
            str(at) for n in networks.values() for key in _ADDRESSES if (at := (n or {}).get(key))
        ),
        auto_remove=bool(host.get("AutoRemove")),
        user=str(config.get("User") or ""),
        stop_timeout=None if config.get("StopTimeout") is None else int(config["StopTimeout"]),
        image_is_ours=_is_ours(config.get("Labels"), body.get("Image")),
    )


def _is_ours(labels: object, image_id: object) -> bool:
    if not isinstance(labels, dict) or LOCK_LABEL not in labels:
        return False
    from safe_compose.engine.helper_image import list_known_ids

    return image_id in list_known_ids()


def read_image(body: Mapping[str, Any]) -> Image:
    """Return an image from `GET /images/ID/json`."""
    config = body.get("Config") or {}
    return Image(
        id=str(body["Id"]),
        references=_words(body.get("RepoTags")) + _words(body.get("RepoDigests")),
        size=int(body.get("Size") or 0),
        volumes=tuple(config.get("Volumes") or {}),
        environment=filter_environment(config.get("Env") or ()),
        entrypoint=_words(config.get("Entrypoint")),
        cmd=_words(config.get("Cmd")),
        user=str(config.get("User") or ""),
    )


def read_sizes(body: Mapping[str, Any]) -> dict[str, int]:
    """Return volume -> bytes from `GET /system/df`, of the volumes that the engine measured."""
    sizes = {
        str(v["Name"]): int((v.get("UsageData") or {}).get("Size", -1))
        for v in body.get("Volumes") or ()
    }
    return {name: size for name, size in sizes.items() if 0 <= size < LARGEST_SIZE}


def filter_environment(pairs: Iterable[str]) -> dict[str, str]:
    """Return the variables of `KEPT_ENVIRONMENT` among `NAME=value` pairs."""
    split = (pair.partition("=") for pair in pairs)
    return {name: value for name, _, value in split if name in KEPT_ENVIRONMENT}


def is_worth_inspecting(
    container: Container,
    invocation: Invocation,
    project: Project | None,
    volumes: Iterable[Volume],
    shared: Set[str],
) -> bool:
    """Return whether the list is not enough, because a container's details may decide something.

    The details are its start, its anonymous mounts and its `--rm`. They matter for containers of
    the project, users of any volume that the command may mean, and, where containers themselves are
    named, every one that has a volume. `shared` are the volumes that containers of the project
    mount.
    """
    if project is not None:
        if project.owns(container):
            return True
        named = {v.name for v in project.volumes}
        named.update(v.name for v in volumes if v.labels.get(PROJECT_LABEL) == project.name)
        return bool((named | shared) & container.volume_names())
    if invocation.verb == ("volume", "rm"):
        return bool(container.volume_names() & set(invocation.operands))
    return bool(container.volume_names()) or invocation.kind in (
        "container_rm_anon",
        "autoremove_anon",
    )


def _mount(
    body: Mapping[str, Any],
    *,
    declared: bool,
    subpaths: Mapping[str, str] | None = None,
    shared: bool = False,
) -> Mount:
    kind = str(body.get("Type") or "")
    destination = str(body.get("Destination") or "")
    return Mount(
        type=kind,
        name=str(body["Name"]) if kind == "volume" and body.get("Name") else None,
        source=str(body.get("Source") or ""),
        destination=destination,
        read_only=not body.get("RW", True),
        subpath=(subpaths or {}).get(normpath(destination), ""),
        declared=declared,
        shared=shared and not declared,
    )


def _sources(host: Mapping[str, Any]) -> set[str]:
    """Return the volume names in HostConfig: these mounts survive `rm -v`.

    See moby daemon/mounts.go:removeMountPoints. A mount taken over by --volumes-from is not listed
    there and so counts as undeclared, which errs on the safe side.
    """
    binds = {str(bind).partition(":")[0] for bind in host.get("Binds") or ()}
    return binds | {str(m["Source"]) for m in host.get("Mounts") or () if m.get("Source")}


def _subpaths(host: Mapping[str, Any]) -> dict[str, str]:
    """Return destination -> subpath of the mounts of a part of a volume.

    The `Mounts` of a container do not show it.
    """
    found = {}
    for mount in host.get("Mounts") or ():
        subpath = normpath(str((mount.get("VolumeOptions") or {}).get("Subpath") or ".")).lstrip(
            "/"
        )
        if subpath != "." and ".." not in subpath.split("/"):
            found[normpath(str(mount.get("Target") or ""))] = subpath
    return found


def _health(state: Mapping[str, Any]) -> str | None:
    status = (state.get("Health") or {}).get("Status")
    return str(status) if status and status != "none" else None


def _words(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value or ())


def _texts(value: Any) -> dict[str, str]:
    """Return a mapping of texts, as labels and options are.

    Raises:
        TypeError: It is none.
    """
    found = value or {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise TypeError("labels or options that are no texts")
    return found
