"""A deletion lock: a container that references a volume, sleeps, and is started again with the daemon.

docker refuses to delete a volume that any container references (409, also with --force; docker-facts, section 0). One that
runs outlives `container prune` and `system prune`.
"""

from typing import TYPE_CHECKING

from safe_compose.engine.look import Image
from safe_compose.observed import LOCK_LABEL

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
