"""The parts of an engine that run containers, made together at the first use of one of them."""

from collections.abc import Callable
from typing import NamedTuple

from safe_compose.engine.deletion_locks import Locks
from safe_compose.engine.docker import Daemon
from safe_compose.engine.helper_containers import Helpers
from safe_compose.engine.layers import Layers
from safe_compose.engine.mount_keepers import Mounted
from safe_compose.engine.own_images import OwnImages
from safe_compose.engine.volume_archives import Archives


class Parts(NamedTuple):
    """The parts of an engine that neither find a command's project nor list what is there."""

    helpers: Helpers
    archives: Archives
    locks: Locks
    mounts: Mounted
    layers: Layers


def make_parts(docker: Daemon, run_id: str, mark_key: Callable[[], bytes | None]) -> Parts:
    """Return the parts of one run on a daemon.

    Args:
        docker: The daemon.
        run_id: Id of the run, for the labels of its helpers.
        mark_key: Returns the key with which the user's own store marks what it creates.
    """
    helpers = Helpers(docker, OwnImages(docker), run_id, mark_key)
    return Parts(helpers, Archives(helpers), Locks(helpers), Mounted(helpers), Layers(docker))
