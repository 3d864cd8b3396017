"""What the engine and compose said at one moment, as frozen values. Nothing here asks anything; no secrets are kept."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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
"""On volumes made by compose >= 2.32; without it `up -y` never recreates one (docker-facts, section 6, run)."""
SCRATCH_LABEL = "io.github.safe-compose.scratch"
"""On a volume made for a look at a backup; its value is the backup's id. It holds nothing that is not there."""
HELPER_LABEL = "io.github.safe-compose.helper"
"""On every container and scratch volume of ours; its value is the id of the run that made it."""
PROCESS_LABEL = "io.github.safe-compose.process"
"""Beside it: the facts of the process that made it, as JSON, so that what a dead one left can be told from what is in use."""
TRASH_LABEL = "io.github.safe-compose.trash"
"""On a volume of ours that holds the content of a deleted one; its value is the id of the run that moved it there."""
LOCK_LABEL = "io.github.safe-compose.lock"
"""On a container of ours that does nothing but reference a volume, so that docker refuses to delete it; its value is the
volume's name."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume as `GET /volumes` shows it."""

    name: str
    driver: str = "local"
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""
    """RFC 3339, as the engine wrote it; a recreated volume of the same name has another one."""
    mountpoint: str = ""
    scope: str = "local"

    @property
    def project(self) -> str | None:
        return self.labels.get(PROJECT_LABEL)

    @property
    def anonymous(self) -> bool:
        """The engine's label (>= 23), or the 64 hex digits that older engines give (docker-facts, trap 6)."""
        return ANONYMOUS_LABEL in self.labels or (len(self.name) == 64 and all(c in "0123456789abcdef" for c in self.name))


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of a container's `Mounts`."""

    type: str
    """`volume`, `bind`, `tmpfs`, ..."""
    name: str | None
    """The volume's name when `type` is `volume`."""
    source: str
    destination: str
    read_only: bool = False
    declared: bool = True
    """Named in `HostConfig.Binds` or `HostConfig.Mounts`: survives `rm -v`. False: dies with its container (c, d of
    docker-facts section 0); an anonymous volume inherited at a recreation is declared."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container, running or not. Only harmless parts of its environment are kept."""

    id: str
    name: str
    image: str
    """The reference as given: `postgres:15`."""
    image_id: str
    """`sha256:...`: what helpers are started from, so that nothing is ever pulled."""
    state: str
    """`running`, `paused`, `restarting`, `exited`, `created`, `dead`, `removing`."""
    started_at: str = ""
    exit_code: int = 0
    health: str | None = None
    """`starting`, `healthy`, `unhealthy`, or None without a health check."""
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Only POSTGRES_USER, POSTGRES_DB, PGDATA, PG_MAJOR, MYSQL_DATABASE, MYSQL_VERSION and their MARIADB_ twins: never a
    password."""
    mounts: tuple[Mount, ...] = ()
    network_mode: str = ""
    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """Its IP addresses in those networks while it runs."""
    auto_remove: bool = False
    user: str = ""

    @property
    def project(self) -> str | None:
        return self.labels.get(PROJECT_LABEL)

    @property
    def service(self) -> str | None:
        return self.labels.get(SERVICE_LABEL)

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The services that compose starts before it."""
        words = self.labels.get(DEPENDS_LABEL, "").split(",")
        return tuple(word.partition(":")[0] for word in words if word)

    @property
    def is_alone_at_its_ports(self) -> bool:
        """Whatever answers at 127.0.0.1 within it runs within it."""
        return self.network_mode != "host" and not self.network_mode.startswith("container:")

    @property
    def lively(self) -> bool:
        """Has, or may at any moment have, a process of its own."""
        return self.state in ("running", "paused", "restarting")

    def volume_names(self) -> frozenset[str]:
        return frozenset(m.name for m in self.mounts if m.type == "volume" and m.name)

    def locks(self, volume: str) -> bool:
        """A deletion lock of ours on the volume: it can only read it, and never does."""
        mounts = [m for m in self.mounts if m.type == "volume" and m.name == volume]
        return self.labels.get(LOCK_LABEL) == volume and bool(mounts) and all(m.read_only for m in mounts)


@dataclass(frozen=True, slots=True)
class DeclaredVolume:
    """One entry of `volumes:` in `docker compose config`."""

    key: str
    name: str
    external: bool = False
    tier: str | None = None
    """What `x-safe-compose` says: `critical`, `important`, `disposable`."""
    config_hash: str | None = None
    """What compose compares with the label of the existing volume (`up -y`); None: it cannot be told, so take it as changed."""


@dataclass(frozen=True, slots=True)
class DeclaredMount:
    """A service's mount as declared: lets policy judge a volume whose container is gone."""

    service: str
    image: str
    volume: str
    """The volume's real name."""
    destination: str
    pgdata: str = ""
    """PGDATA as the service sets it; only known of `declared_mounts`."""


@dataclass(frozen=True, slots=True)
class Project:
    """The compose project that a command means."""

    name: str
    inferred_from: str
    """`flag`, `environment`, `file`, `folder`, `label`: how the name came about."""
    mode: str
    """`config` (names come from the file) or `label` (docker-facts, section 2)."""
    working_dir: str = ""
    config_files: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    volumes: tuple[DeclaredVolume, ...] = ()
    mounts: tuple[DeclaredMount, ...] = ()
    tier: str | None = None
    """What `x-safe-compose` at the top of the file says of the whole project."""
    disabled: tuple[str, ...] = ()
    """Services of profiles that are not active; only known when the command names services or removes orphans."""
    removes_orphans: bool = False
    """`COMPOSE_REMOVE_ORPHANS` makes `down --remove-orphans` the default."""
    recreates: bool = True
    """This compose (2.32 or newer) offers to recreate a volume whose definition changed; True where it was not asked."""
    old: bool = False
    """docker-compose 1.x: profiles and labels of volumes mean nothing to its `down`, and one-off containers go too."""

    def owns(self, container: Container) -> bool:
        """Whether compose takes the container for one of the project.

        1.x also takes one that compose older than 1.21 made, which left dashes and underscores out of the project's name
        (1.29.2, compose/container.py `has_legacy_proj_name`).
        """
        if container.project == self.name:
            return True
        if not self.old or container.project != re.sub("[-_]", "", self.name):
            return False
        version = re.match(r"(\d+)\.(\d+)", container.labels.get(VERSION_LABEL, ""))
        return version is None or (int(version[1]), int(version[2])) < (1, 21)


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the engine that the command would reach."""

    endpoint: str
    engine_id: str
    volumes: tuple[Volume, ...] = ()
    containers: tuple[Container, ...] = ()
    project: Project | None = None
    warnings: tuple[str, ...] = ()
    """What could not be looked up, in words for the card."""
    prune_takes_named: bool = True
    """`volume prune` without `--all` deletes named volumes too: the API between this client and this engine is older than
    1.42, or `pruneFilters` says so. True where it was not asked."""

    def volume(self, name: str) -> Volume | None:
        return next((v for v in self.volumes if v.name == name), None)

    def users(self, volume_name: str) -> tuple[Container, ...]:
        """Every container, stopped ones included, that references the volume; without our deletion lock on it."""
        return tuple(c for c in self.containers if volume_name in c.volume_names() and not c.locks(volume_name))

    def lock(self, volume_name: str) -> Container | None:
        """Our deletion lock on the volume, if there is one."""
        return next((c for c in self.containers if c.locks(volume_name)), None)
