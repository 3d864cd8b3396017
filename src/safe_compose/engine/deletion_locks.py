"""Deletion locks: containers that reference a volume, sleep, and are restarted with the daemon.

docker refuses to delete a volume that any container references (409, also with --force;
docker-facts, section 0). A running container survives `container prune` and `system prune`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from safe_compose.core.observed import LOCK_LABEL, Container
from safe_compose.core.text import shell_quote
from safe_compose.engine.errors import changing
from safe_compose.engine.helper_containers import Helpers
from safe_compose.engine.helper_image import PROGRAM, NoOwnImage
from safe_compose.engine.own_images import with_image
from safe_compose.errors import OperationFailed

if TYPE_CHECKING:
    from docker.api.client import APIClient

AT = "/volume"


def make_name(volume: str) -> str:
    """Return the name of a volume's lock; docker allows the same characters in both names."""
    return f"safe-compose-lock-{volume}"


def create(api: "APIClient", volume: str, image_id: str) -> str:
    """Create a lock, not started, and return its id.

    It may read the volume, and has no rights, no network, no log and no compose label. Exceptions
    of docker-py pass through.
    """
    from docker.types import LogConfig, Mount

    host = api.create_host_config(
        mounts=[Mount(AT, volume, type="volume", read_only=True, no_copy=True)],
        network_mode="none",
        log_config=LogConfig(type="none"),
        restart_policy={"Name": "always"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        read_only=True,
    )
    made = api.create_container(
        image_id,
        name=make_name(volume),
        entrypoint=[PROGRAM],
        command=["pause"],
        user="65534:65534",
        labels={LOCK_LABEL: volume},
        host_config=host,
    )
    return str(made["Id"])


class Locks:
    """The deletion locks on a daemon's volumes."""

    def __init__(self, helpers: Helpers) -> None:
        """Use the daemon of `helpers`."""
        self.docker = helpers.docker
        self.helpers = helpers

    def lock(self, volume: str) -> bool:
        """Make docker refuse to delete a volume, for every client, until `unlock`.

        Returns:
            True when the lock runs, so that no prune removes it. False when our program cannot run
            on this engine: the lock is only created, and `container prune` would remove it.

        Raises:
            OperationFailed: The volume does not exist, another container has the lock's name, or
                docker refuses.
        """
        name = make_name(volume)
        there = self.docker.container(name)
        if self.docker.volume(volume) is None:  # docker would create it
            raise OperationFailed(f"there is no volume {volume} any more; nothing was locked")
        if there is not None and there.locks(volume) and there.state == "running":
            return True
        # do not remove the container of others
        if there is not None and LOCK_LABEL not in there.labels:
            raise OperationFailed(
                f"container {name} has the name of a lock and is none of ours; volume {volume} was"
                " not locked",
                next_step=f"docker rename {shell_quote(name)} {shell_quote(name)}.other",
            )
        self.helpers.remove(name)  # also a lock of an older version, which runs another image
        if self._lock_runs(volume):
            return True
        self._create_lock(volume, self.helpers.images.reach_image)
        return False

    def _create_lock(self, volume: str, image: Callable[[], str]) -> None:
        def made(image_id: str) -> str:
            with changing(f"lock volume {volume}"):
                return create(self.docker.connection.api, volume, image_id)

        with_image(image, made)

    def _lock_runs(self, volume: str) -> bool:
        """Create and start a lock; remove it if it does not run."""
        name = make_name(volume)
        try:
            self._create_lock(volume, self.helpers.images.own_image)
            self.docker.start(name)
            if self.docker.wait_running(name, timeout=10).state == "running":
                return True
        except NoOwnImage:
            return False
        except OperationFailed:
            pass  # for example, the kernel refuses to run it: the weaker lock is better than none
        self.helpers.remove(name)
        return False

    def find(self, volume: str) -> Container | None:
        """Return the current lock on a volume, or None."""
        there = self.docker.container(make_name(volume))
        return there if there is not None and there.locks(volume) else None

    def unlock(self, volume: str) -> None:
        """Remove the lock if there is one, also one of an older version."""
        there = self.docker.container(make_name(volume))
        if there is not None and there.labels.get(LOCK_LABEL) == volume:
            self.helpers.remove(there.name)
