"""The state of the engine and of compose at one moment, as frozen values without secrets.

This module is pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

PROJECT_LABEL = "com.docker.compose.project"
VOLUME_LABEL = "com.docker.compose.volume"
SERVICE_LABEL = "com.docker.compose.service"
NUMBER_LABEL = "com.docker.compose.container-number"
DEPENDS_LABEL = "com.docker.compose.depends_on"
"""`db:service_healthy:true,cache:service_started:false`"""
ONEOFF_LABEL = "com.docker.compose.oneoff"
WORKING_DIR_LABEL = "com.docker.compose.project.working_dir"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
VERSION_LABEL = "com.docker.compose.version"
CONFIG_HASH_LABEL = "com.docker.compose.config-hash"
"""On volumes made by compose >= 2.32; without it `up -y` never recreates one (docker-facts, section
6, run)."""
SCRATCH_LABEL = "io.github.safe-compose.scratch"
"""On a volume made to inspect a backup; its value is the backup's id. It holds only what is in the
backup."""
HELPER_LABEL = "io.github.safe-compose.helper"
"""On each of our containers and scratch volumes; its value is the id of the run that made it."""
PROCESS_LABEL = "io.github.safe-compose.process"
"""On each of our containers and scratch volumes: facts of the process that made it, as JSON, so
that leftovers of a dead process can be distinguished from objects in use."""
KEEPS_LABEL = "io.github.safe-compose.keeps"
"""On one of our containers that keeps a volume mounted whose content would end with its users; its
value is the volume's name."""
TRASH_LABEL = "io.github.safe-compose.trash"
"""On one of our volumes that holds the content of a deleted one; its value is the id of the run
that moved it there."""
INIT_FOLDERS = (
    "/docker-entrypoint-initdb.d",
    "/docker-entrypoint-preinitdb.d",
    "/docker-entrypoint-startdb.d",
)
"""Folders of database images whose scripts their entrypoints run: the official images know the
first, Bitnami's all three. Our servers have them empty, because the objects that such scripts
create would conflict or mix with those of a backup."""
LOCK_LABEL = "io.github.safe-compose.lock"
"""On one of our containers that only references a volume, so that docker refuses to delete it; its
value is the volume's name."""


IN_MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs"})
"""File systems that keep their content in memory. The local driver mounts a volume of such a type
for the first container that runs on it and unmounts it after the last one (moby volume/local
`Mount`, `Unmount`): then the content is gone."""


def is_in_memory(driver: str, options: Mapping[str, str]) -> bool:
    """Return whether the content of such a volume ends when the last container on it stops."""
    # the type is then ignored
    bound = {"bind", "rbind"} & {word.strip() for word in options.get("o", "").split(",")}
    return driver == "local" and options.get("type") in IN_MEMORY and not bound


VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
"""moby: volume/local, `volumeNameRegex`, but a single character is allowed because other drivers
and old engines accept it."""
CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
FOLDER, LAYER = "/", "layer:"
"""Prefixes of the names of locations that are not volumes. No name of a volume begins so (moby:
volume/local, `volumeNameRegex`)."""


def kind_of_location(name: str) -> str:
    """Return what a location is by its name: `volume`, `folder` or `layer`."""
    if name.startswith(FOLDER):
        return "folder"
    return "layer" if name.startswith(LAYER) else "volume"


def describe_location(name: str) -> str:
    """Return a location as messages name it: `volume shop_pgdata`, `folder /srv/shop/uploads`."""
    if name.startswith(LAYER):
        return f"the layer of container {name.removeprefix(LAYER)}"
    return f"{kind_of_location(name)} {name}"


@dataclass(frozen=True, slots=True)
class Location:
    """Whatever holds data: a volume, a folder or file of the engine's host, or a layer.

    Its name is unique on its engine.
    """

    name: str
    """The name of a volume; the absolute real path of a folder; `layer:CONTAINER`."""
    labels: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """The labels of a volume; of another location the label of its project, where it has one."""

    @property
    def kind(self) -> str:
        """`volume`, `folder`, `file` or `layer`."""
        return kind_of_location(self.name)

    @property
    def project(self) -> str | None:
        """The project of its label, or None."""
        return self.labels.get(PROJECT_LABEL)

    @property
    def in_memory(self) -> bool:
        """Whether its content ends when the last container on it stops."""
        return False

    @property
    def anonymous(self) -> bool:
        """Whether nobody gave it a name."""
        return False


@dataclass(frozen=True, slots=True)
class HostFolder(Location):
    """A folder, or a single file, of the engine's host that containers mount."""

    is_file: bool = False

    @property
    def kind(self) -> str:
        """`folder` or `file`."""
        return "file" if self.is_file else "folder"


@dataclass(frozen=True, slots=True)
class Layer(Location):
    """The writable layer of a container, which ends with it."""

    paths: tuple[str, ...] = ()
    """The absolute paths in the container that hold data, outside of every mount."""


@dataclass(frozen=True, slots=True)
class Volume(Location):
    """A volume as `GET /volumes` shows it."""

    driver: str = "local"
    options: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""
    """RFC 3339, as the engine wrote it; a recreated volume of the same name has another one."""
    mountpoint: str = ""
    scope: str = "local"

    @property
    def in_memory(self) -> bool:
        """Whether its content ends when the last container on it stops."""
        return is_in_memory(self.driver, self.options)

    @property
    def anonymous(self) -> bool:
        """Whether it is anonymous.

        Engines from 23 on set a label; older ones give 64 hex digits as its name (docker-facts,
        trap 6).
        """
        return ANONYMOUS_LABEL in self.labels or looks_anonymous(self.name)


def looks_anonymous(name: str) -> bool:
    """Return whether the name of a volume is one that an engine made up."""
    return len(name) == 64 and all(c in "0123456789abcdef" for c in name)


@dataclass(frozen=True, slots=True)
class Mount:
    """An entry of a container's `Mounts`."""

    type: str
    """`volume`, `bind`, `tmpfs`, ..."""
    name: str | None
    """The volume's name when `type` is `volume`."""
    source: str
    destination: str
    read_only: bool = False
    subpath: str = ""
    """The folder of the volume that is mounted, relative to its root (`volume.subpath` of compose;
    engine 26 and newer); empty: all of it."""
    declared: bool = True
    """Whether it is named in `HostConfig.Binds` or `HostConfig.Mounts`, so that the volume survives
    `rm -v`. False: the volume is deleted with its container (c, d of docker-facts section 0). An
    anonymous volume inherited at a recreation is declared."""
    shared: bool = False
    """Whether it may be taken over from another container (`--volumes-from`), and is not declared
    here. What was named there survives `rm -v` of this container as well (run: 28.5.2)."""

    @property
    def location(self) -> str:
        """The name of the location that it mounts; empty for a tmpfs and the like."""
        if self.type == "volume":
            return self.name or ""
        return self.source if self.type == "bind" else ""

    def is_within(self, location: str) -> bool:
        """Return whether it mounts a location, or a part of a folder.

        A mount of a part holds on to that part, also when the folder is renamed.
        """
        if location.startswith(FOLDER) and self.type == "bind":
            return f"{self.source}/".startswith(f"{location.rstrip(FOLDER)}/")
        return self.location == location

    def inside(self, path: str) -> str:
        """Return the path in the volume of a path in the container, at or below the mount.

        It is relative to the volume's root; `.` is the root itself.
        """
        return str(PurePosixPath(self.subpath, PurePosixPath(path).relative_to(self.destination)))


@dataclass(frozen=True, slots=True)
class Container:
    """A container, running or not.

    Only harmless parts of its environment are kept.
    """

    id: str
    name: str
    image: str
    """The reference as given: `postgres:15`."""
    image_id: str
    """`sha256:...`: the image that helpers are started from, so that nothing is ever pulled."""
    state: str
    """`running`, `paused`, `restarting`, `exited`, `created`, `dead`, `removing`."""
    started_at: str = ""
    exit_code: int = 0
    health: str | None = None
    """`starting`, `healthy`, `unhealthy`, or None without a health check."""
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Only POSTGRES_USER, POSTGRES_DB, PGDATA, PG_MAJOR, MYSQL_DATABASE, MYSQL_VERSION and their
    MARIADB_ counterparts: never a password."""
    mounts: tuple[Mount, ...] = ()
    network_mode: str = ""
    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """Its IP addresses in those networks while it runs."""
    auto_remove: bool = False
    user: str = ""
    stop_timeout: int | None = None
    """Seconds between the stop signal and the kill, as `stop_grace_period` or `--stop-timeout` set
    them; negative: without limit. None: not set, or the container comes from a list."""
    image_is_ours: bool = False
    """Whether its image is one of ours, by its id. Only determined for containers that have one of
    our labels."""

    @property
    def project(self) -> str | None:
        """The project of its label, or None."""
        return self.labels.get(PROJECT_LABEL)

    @property
    def service(self) -> str | None:
        """The service of its label, or None."""
        return self.labels.get(SERVICE_LABEL)

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The services that compose starts before it."""
        words = self.labels.get(DEPENDS_LABEL, "").split(",")
        return tuple(word.partition(":")[0] for word in words if word)

    @property
    def is_alone_at_its_ports(self) -> bool:
        """Whether only programs in it can answer at its 127.0.0.1."""
        return self.network_mode != "host" and not self.network_mode.startswith("container:")

    @property
    def lively(self) -> bool:
        """Whether it has, or may have at any moment, a process of its own."""
        return self.state in ("running", "paused", "restarting")

    @property
    def is_marked_as_ours(self) -> bool:
        """Whether it has the label of one of our helpers or locks and is not from compose.

        A compose file, or an image, may give such a label to a service. Containers made by compose
        have a number, and ours have none.
        """
        return (
            bool({HELPER_LABEL, LOCK_LABEL} & self.labels.keys())
            and NUMBER_LABEL not in self.labels
        )

    def volume_names(self) -> frozenset[str]:
        """Return the names of the volumes that it mounts."""
        return frozenset(m.name for m in self.mounts if m.type == "volume" and m.name)

    def location_names(self) -> frozenset[str]:
        """Return the names of the volumes and folders that it mounts."""
        return frozenset(m.location for m in self.mounts if m.location)

    def uses(self, location: str) -> bool:
        """Return whether a location, or a part of it, is mounted in it or is its own layer."""
        if location.startswith(LAYER):
            return location.removeprefix(LAYER) == self.name
        return any(m.is_within(location) for m in self.mounts)

    def writes_above(self, location: str) -> bool:
        """Return whether it mounts, to write, a folder of the host that a location lies in."""
        return location.startswith(FOLDER) and any(
            m.type == "bind"
            and not m.read_only
            and location.startswith(f"{m.source.rstrip(FOLDER)}/")
            for m in self.mounts
        )

    def locks(self, volume: str) -> bool:
        """Return whether it is one of our deletion locks on the volume.

        Its label and its image are compared, and it must mount the volume read-only. A label alone
        proves nothing: any container may have it, and a lock does not count as a user of the
        volume.
        """
        mounts = [m for m in self.mounts if m.type == "volume" and m.name == volume]
        labelled = self.labels.get(LOCK_LABEL) == volume
        return labelled and self.image_is_ours and bool(mounts) and all(m.read_only for m in mounts)


@dataclass(frozen=True, slots=True)
class DeclaredVolume:
    """An entry of `volumes:` in `docker compose config`."""

    key: str
    name: str
    external: bool = False
    tier: str | None = None
    """The tier that `x-safe-compose` sets: `critical`, `important`, `disposable`."""
    config_hash: str | None = None
    """The hash that compose compares with the label of the existing volume (`up -y`); None:
    unknown, so it counts as changed."""


@dataclass(frozen=True, slots=True)
class DeclaredMount:
    """A declared mount of a service: lets policy judge a location whose container is gone."""

    service: str
    image: str
    volume: str
    """The volume's real name; the absolute path of a folder."""
    destination: str
    pgdata: str = ""
    """PGDATA as the service sets it; only known from `read_declared_mounts`."""
    subpath: str = ""
    """As in `Mount`."""


@dataclass(frozen=True, slots=True)
class FolderMount:
    """A folder or file of the engine's host that a service or container mounts."""

    path: str
    user: str
    """The service, or the container where it has none."""
    destination: str
    read_only: bool = False
    image: str = ""
    """The reference of its user's image."""
    pgdata: str = ""
    """PGDATA as its user sets it."""


@dataclass(frozen=True, slots=True)
class Project:
    """The compose project that a command means."""

    name: str
    inferred_from: str
    """`flag`, `environment`, `file`, `folder`, `label`: the origin of the name."""
    mode: str
    """`config` (names come from the file) or `label` (docker-facts, section 2)."""
    working_dir: str = ""
    config_files: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    volumes: tuple[DeclaredVolume, ...] = ()
    mounts: tuple[DeclaredMount, ...] = ()
    hooked: tuple[str, ...] = ()
    """Services whose `pre_stop` hooks compose runs before it stops their containers; none in label
    mode."""
    tier: str | None = None
    """The tier that `x-safe-compose` at the top of the file sets for the whole project."""
    idle: tuple[DeclaredMount, ...] = ()
    """Mounts of volumes that only services of inactive profiles use; known where `disabled` is. A
    backup takes them as well."""
    folders: tuple[FolderMount, ...] = ()
    """Mounts from the host, also of services of inactive profiles."""
    disabled: tuple[str, ...] = ()
    """Services of profiles that are not active; only known when the command names services or
    removes orphans."""
    unseen_files: bool = False
    """Whether some of its files are not here as files, but at a git or OCI address."""
    distrust: str | None = None
    """Why `x-safe-compose` may not lower tiers: other users can have written one of the files. None
    where it may."""
    elsewhere: str | None = None
    """Another folder in which a project of that name was seen before: then the files of this one
    lower no tier."""
    removes_orphans: bool = False
    """Whether `COMPOSE_REMOVE_ORPHANS` makes `down --remove-orphans` the default."""
    recreates: bool = True
    """Whether this compose (2.32 or newer) offers to recreate a volume whose definition changed;
    True where it was not asked."""
    old: bool = False
    """Whether it is of docker-compose 1.x, whose `down` ignores profiles and labels of volumes and
    also removes one-off containers."""
    config_digest: str = field(default="", compare=False)
    """SHA-256 of all that compose makes of its files and variables; empty in label mode. It may
    hash secrets, so it must not be shown."""

    def owns(self, container: Container) -> bool:
        """Return whether compose takes the container for one of the project.

        1.x also takes one that compose before 1.21 made, which left dashes and underscores out of
        the project's name (1.29.2, compose/container.py `has_legacy_proj_name`).
        """
        if container.project == self.name:
            return True
        if not self.old or container.project != re.sub("[-_]", "", self.name):
            return False
        version = re.match(r"(\d+)\.(\d+)", container.labels.get(VERSION_LABEL, ""))
        return version is None or (int(version[1]), int(version[2])) < (1, 21)


@dataclass(frozen=True, slots=True)
class Observed:
    """An observation of the engine that the command would reach."""

    endpoint: str
    engine_id: str
    volumes: tuple[Volume, ...] = ()
    containers: tuple[Container, ...] = ()
    project: Project | None = None
    not_loaded: bool = False
    """Whether compose did not load the command's project for us, so that what it would delete is
    unknown."""
    warnings: tuple[str, ...] = ()
    """Descriptions of what could not be determined, for the confirmation screen."""
    prune_takes_named: bool = True
    """Whether `volume prune` without `--all` deletes named volumes too: the API between this client
    and this engine is older than 1.42, or `pruneFilters` says so. True where it was not asked."""

    def volume(self, name: str) -> Volume | None:
        """Return the volume of a name, or None."""
        return next((v for v in self.volumes if v.name == name), None)

    def users(self, location: str) -> tuple[Container, ...]:
        """Return every container that references a location, without our deletion lock on it.

        Stopped containers count.
        """
        return tuple(c for c in self.containers if c.uses(location) and not c.locks(location))

    def list_above(self, location: str) -> list[Container]:
        """Return every running container that mounts, to write, a folder above a location.

        It writes there by another way than the users of the location. Ours do not count.
        """
        return [
            c
            for c in self.containers
            if c.lively
            and c.writes_above(location)
            and not c.uses(location)
            and not c.is_marked_as_ours
        ]

    def is_mounted(self, location: str) -> bool:
        """Return whether any running container, ours included, has the location mounted."""
        return any(c.lively and c.uses(location) for c in self.containers)

    def lock(self, volume_name: str) -> Container | None:
        """Return our deletion lock on the volume, or None."""
        return next((c for c in self.containers if c.locks(volume_name)), None)
