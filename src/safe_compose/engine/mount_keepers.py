"""Volumes kept mounted for a while, so that content in memory survives a stop of their containers.

The local driver counts the mounts of a volume, and unmounts it after the last one ends (moby
volume/local). One of our containers that only sleeps is counted too.
"""

from collections.abc import Iterable

from safe_compose.core.observed import KEEPS_LABEL
from safe_compose.engine.errors import changing
from safe_compose.engine.helper_containers import PARKED_AT, Helpers
from safe_compose.engine.helper_image import PROGRAM
from safe_compose.engine.mount_events import MountEvents, require_events
from safe_compose.engine.own_images import with_image
from safe_compose.errors import OperationFailed

_SECONDS = 10.0


class Mounted:
    """The volumes that one run keeps mounted on a daemon."""

    def __init__(self, helpers: Helpers) -> None:
        """Use the daemon of `helpers`."""
        self.docker = helpers.docker
        self.helpers = helpers
        self._keepers: dict[str, tuple[str, str]] = {}
        """Volume -> name of the container that keeps it mounted, and when that started."""

    def keep(self, volumes: Iterable[str]) -> None:
        """Mount each of these volumes in one of our containers.

        It stays until `release`, `sweep` or the end of the engine. A volume whose keeper still runs
        is left as it is.

        Raises:
            NoOwnImage: The helper cannot run on this engine; then no container may be stopped.
            OperationFailed: A container cannot be started; then no container may be stopped.
        """
        for volume in volumes:
            if not self._is_kept(volume):
                self._keepers[volume] = self._start_keeper(volume)

    def list_mounted(self) -> frozenset[str]:
        """Return the volumes whose keeper has run without a break until now."""
        return frozenset(filter(self._is_kept, self._keepers))

    def _is_kept(self, volume: str) -> bool:
        if volume not in self._keepers:
            return False
        name, started_at = self._keepers[volume]
        now = self.docker.container(name)
        return now is not None and now.state == "running" and now.started_at == started_at

    def keepers(self) -> frozenset[str]:
        """Return the names of the containers that keep a volume mounted."""
        return frozenset(name for name, _ in self._keepers.values())

    def watch(self, volumes: Iterable[str]) -> MountEvents:
        """Record from now on which containers mount these volumes to write to them.

        Raises:
            EngineUnavailable: The daemon does not answer.
        """
        return MountEvents(self.docker.connection, volumes, self.helpers.run_id)

    def require_watchable(self) -> None:
        """Require that `watch` can notice containers, before anything is stopped for it.

        Raises:
            EngineUnavailable: The engine's events cannot be read.
        """
        require_events(self.docker.connection)

    def release(self) -> None:
        """Unmount the volumes.

        Raises:
            OperationFailed: A container cannot be removed.
        """
        for volume, (name, _) in list(self._keepers.items()):
            self.helpers.remove(name)
            del self._keepers[volume]

    def _start_keeper(self, volume: str) -> tuple[str, str]:
        """Start a keeper; return its name and when it started."""
        from docker.types import LogConfig, Mount

        name = self.helpers.new_name()
        labels = {**self.helpers.marks_for(name), KEEPS_LABEL: volume}

        def create(image: str) -> str:
            with changing(f"keep volume {volume} mounted"):
                api = self.docker.connection.api
                host = api.create_host_config(
                    mounts=[Mount(PARKED_AT, volume, type="volume", read_only=True, no_copy=True)],
                    network_mode="none",
                    log_config=LogConfig(type="none"),
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    read_only=True,
                )
                made = api.create_container(
                    image,
                    name=name,
                    entrypoint=[PROGRAM],
                    command=["pause"],
                    user="65534:65534",
                    labels=labels,
                    host_config=host,
                )
                return str(made["Id"])

        try:
            self.docker.start(with_image(self.helpers.images.own_image, create))
            return name, self.docker.wait_running(name, timeout=_SECONDS).started_at
        except OperationFailed:
            self.helpers.remove(name)
            raise
