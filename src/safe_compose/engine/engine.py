"""The engine of one run: a daemon, and the operations of a run on it, by subject."""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from safe_compose.compose.first_query import FirstQuery, is_standalone
from safe_compose.engine.commands import Commands
from safe_compose.engine.docker import Daemon
from safe_compose.errors import DockerNotFound

if TYPE_CHECKING:
    from safe_compose.engine.deletion_locks import Locks
    from safe_compose.engine.helper_containers import Helpers
    from safe_compose.engine.layers import Layers
    from safe_compose.engine.mount_keepers import Mounted
    from safe_compose.engine.own_images import OwnImages
    from safe_compose.engine.parts import Parts
    from safe_compose.engine.volume_archives import Archives


class Engine:
    """A daemon for one run.

    `close` it before docker is exec'd; as a context manager it closes itself.
    """

    def __init__(
        self,
        docker: Daemon,
        run_id: str,
        *,
        compose: str | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Use a daemon.

        Args:
            docker: The daemon itself: its volumes, containers and images.
            run_id: Id of the run, which its helper containers carry as a label.
            compose: Path of the standalone docker-compose, for a command of it.
            descriptors: Open descriptors of this process that are files to compose.
        """
        self.docker = docker
        self.run_id = run_id
        self.commands = Commands(
            docker, lambda: self.helpers, compose=compose, descriptors=descriptors
        )
        """The effects of commands on it."""
        self.mark_key: Callable[[], bytes | None] = lambda: None
        """Returns the key with which the user's own store marks what it creates; without it only
        this process recognizes its objects."""
        self._parts: Parts | None = None
        self._lock = threading.Lock()

    @property
    def helpers(self) -> "Helpers":
        """Return our own containers on it, and commands in those of others."""
        return self._get_parts().helpers

    @property
    def images(self) -> "OwnImages":
        """Return our own images on it."""
        return self.helpers.images

    @property
    def archives(self) -> "Archives":
        """Return the content of its volumes."""
        return self._get_parts().archives

    @property
    def locks(self) -> "Locks":
        """Return the deletion locks on its volumes."""
        return self._get_parts().locks

    @property
    def mounts(self) -> "Mounted":
        """Return what keeps its volumes mounted."""
        return self._get_parts().mounts

    @property
    def layers(self) -> "Layers":
        """Return what its containers changed in their own layers."""
        return self._get_parts().layers

    def _get_parts(self) -> "Parts":
        # Imported here, the confirmation screen is shown sooner. All threads share one of each.
        from safe_compose.engine.parts import make_parts

        with self._lock:
            if self._parts is None:
                self._parts = make_parts(self.docker, self.run_id, lambda: self.mark_key())
            return self._parts

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
    descriptors = query.inputs.descriptors if query is not None else ()
    engine = Engine(daemon, run_id, compose=compose, descriptors=descriptors)
    try:
        if query is not None:
            engine.commands.ask(query)
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
