"""The engine of one run: a daemon, and the operations of a run on it, by subject."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from safe_compose.compose.first_query import FirstQuery, is_standalone
from safe_compose.engine.commands import Commands
from safe_compose.engine.deletion_locks import Locks
from safe_compose.engine.docker import Daemon
from safe_compose.engine.helper_containers import Helpers
from safe_compose.engine.layers import Layers
from safe_compose.engine.mount_keepers import Mounted
from safe_compose.engine.own_images import OwnImages
from safe_compose.engine.volume_archives import Archives
from safe_compose.errors import DockerNotFound


@dataclass(frozen=True, eq=False)
class Engine:
    """A daemon for one run.

    `close` it before docker is exec'd; as a context manager it closes itself.
    """

    docker: Daemon
    """The daemon itself: its volumes, containers and images."""
    images: OwnImages
    helpers: Helpers
    """Our own containers on it, and commands in those of others."""
    archives: Archives
    """The content of its volumes."""
    locks: Locks
    mounts: Mounted
    commands: Commands
    """The effects of commands on it."""
    layers: Layers
    """What its containers changed in their own layers."""

    @property
    def id(self) -> str:
        """Return the engine's own id, as `docker info` shows it."""
        return self.docker.id

    @property
    def endpoint(self) -> str:
        """Return the address that docker uses: `unix:///var/run/docker.sock`, `ssh://host`, ..."""
        return self.docker.endpoint

    def open(self) -> None:
        """Connect to the daemon; on any exception, close the engine.

        Raises:
            EngineUnavailable: It cannot be reached, in docker's own words.
        """
        try:
            self.docker.open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, and drop pending queries."""
        self.commands.close()
        self.docker.close()

    def __enter__(self) -> Self:
        """Return this engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the engine."""
        self.close()


def connect(
    docker: str, docker_globals: Sequence[str], *, environ: Mapping[str, str], run_id: str
) -> Engine:
    """Return the engine that `docker <docker_globals>` reaches, verified by its id.

    Raises:
        DockerNotFound: The client cannot be started.
        EngineUnavailable: The daemon cannot be reached.
    """
    engine = begin(docker, docker_globals, environ=environ, run_id=run_id)
    engine.open()
    return engine


def begin(
    docker: str,
    docker_globals: Sequence[str],
    *,
    environ: Mapping[str, str],
    run_id: str,
    compose: str | None = None,
    query: FirstQuery | None = None,
) -> Engine:
    """Return an engine whose queries have been started.

    `open` it to get their answers, or `close` it.

    Args:
        docker: Path of the real client.
        docker_globals: The command's global flags.
        environ: The command's environment.
        run_id: Id of the run, for the labels of its helpers.
        compose: Path of the standalone docker-compose, for a command of it.
        query: What compose was asked about the command. The rest is asked at once, so that the
            first `Commands.look` at it finds the answers ready.

    Raises:
        DockerNotFound: The client cannot be started.
    """
    if is_standalone(docker):
        compose, docker = docker, _find_docker_for(docker, environ)
    daemon = Daemon(docker, docker_globals, environ=environ)
    helpers = Helpers(daemon, OwnImages(daemon), run_id)
    descriptors = query.inputs.descriptors if query is not None else ()
    commands = Commands(helpers, compose=compose, descriptors=descriptors)
    engine = Engine(
        daemon,
        helpers.images,
        helpers,
        Archives(helpers),
        Locks(helpers),
        Mounted(helpers),
        commands,
        Layers(daemon),
    )
    try:
        if query is not None:
            commands.ask(query)
        daemon.ask(query.daemon if query is not None else None)
    except BaseException:
        engine.close()
        raise
    return engine


def _find_docker_for(compose: str, environ: Mapping[str, str]) -> str:
    """Return the docker client in the folder of a standalone docker-compose, or the first on PATH.

    Raises:
        DockerNotFound: There is none.
    """
    neighbor = str(Path(compose).with_name("docker"))
    found = shutil.which(neighbor) or shutil.which("docker", path=environ.get("PATH"))
    if found is None:
        raise DockerNotFound("there is no docker client to inspect the engine with")
    return found
