"""A deletion lock: a container that references a volume, sleeps, and is started again with the daemon.

docker refuses to delete a volume that any container references (409, also with --force; docker-facts, section 0). One that
runs outlives `container prune` and `system prune`.
"""

from typing import TYPE_CHECKING

from safe_compose.engine.faults import acting
from safe_compose.engine.helpers import Helpers
from safe_compose.engine.look import Image
from safe_compose.errors import BackupFailed
from safe_compose.observed import LOCK_LABEL, Container

if TYPE_CHECKING:
    from docker.api.client import APIClient

AT = "/volume"
_SLEEP = ("sleep", "2147483647")
"""Seconds: 68 years. `infinity` is not known everywhere."""


def name_of(volume: str) -> str:
    """The container's name; docker allows the same letters in both."""
    return f"safe-compose-lock-{volume}"


def create(api: "APIClient", volume: str, image: Image) -> None:
    """Create the lock, not started. It may read the volume, has no rights, no network, no log, and no label of compose's.

    Raises what docker-py raises.
    """
    from docker.types import LogConfig, Mount

    host = api.create_host_config(
        mounts=[Mount(AT, volume, type="volume", read_only=True, no_copy=True)],
        network_mode="none",
        log_config=LogConfig(type="none"),
        restart_policy={"Name": "always"},
        cap_drop=["ALL"],
        read_only=True,
        tmpfs={path: "" for path in image.volumes if path.rstrip("/") != AT},
    )
    api.create_container(
        image.id,
        name=name_of(volume),
        entrypoint=[_SLEEP[0]],
        command=[_SLEEP[1]],
        user="65534:65534",
        labels={LOCK_LABEL: volume},
        stop_signal="SIGKILL",  # as the first process of its container `sleep` would ignore every other
        host_config=host,
    )


class Locks(Helpers):
    """A daemon whose volumes can be locked."""

    def lock_volume(self, volume: str) -> bool:
        """Have docker refuse to delete the volume, whoever asks and however, until `unlock_volume`.

        True: the lock runs, so no prune takes it away. False: no local image has a program that sleeps; it is only created,
        and `container prune` would remove it. The volume must exist. Raises BackupFailed.
        """
        name = name_of(volume)
        there = self.container(name)
        if self.volume(volume) is None:  # docker would make it
            raise BackupFailed(f"there is no volume {volume} any more; nothing was locked")
        if there is not None and there.locks(volume) and there.state == "running":
            return True
        if there is not None and LOCK_LABEL not in there.labels:  # docker would have us remove somebody's container
            raise BackupFailed(
                f"container {name} has the name of a lock and is none of ours; volume {volume} was not locked",
                next_step=f"docker rename {name} {name}.other",
            )
        self._remove(name)
        images = sorted(self.images(), key=lambda image: (not image.references, image.size))
        for image in (i for i in images if i.size):
            try:
                with acting(f"lock volume {volume}"):
                    create(self._way.api, volume, image)
                self.start(name)
                return self.wait_running(name, timeout=10).state == "running"
            except BackupFailed:
                self._remove(name)  # this image has no such program
        with acting(f"lock volume {volume}"):
            create(self._way.api, volume, self.image(self._empty_image()) or images[0])
        return False

    def lock_of(self, volume: str) -> Container | None:
        """The lock on a volume as it is now, or None."""
        there = self.container(name_of(volume))
        return there if there is not None and there.locks(volume) else None

    def unlock_volume(self, volume: str) -> None:
        """Take the lock away, where there is one."""
        if (lock := self.lock_of(volume)) is not None:
            self._remove(lock.name)
