"""The check that the store lies in no volume that a command deletes."""

import os
from collections.abc import Iterable
from pathlib import Path

from safe_compose.core.observed import Volume
from safe_compose.errors import OperationFailed
from safe_compose.system.files import place_on_its_file_system


def require_store_outside(root: Path, volumes: Iterable[Volume]) -> None:
    """Check that the store lies in none of these volumes, which are deleted.

    On another machine's engine the same path is another place. Then this refuses too much, which
    costs a setting.

    Raises:
        OperationFailed: It lies in one of them.
    """
    root = Path(os.path.realpath(root))
    # If we run in a container, it may be a volume that is mounted there.
    place = f"{place_on_its_file_system(root)}/"
    for volume in volumes:
        lies_there = bool(volume.mountpoint) and root.is_relative_to(volume.mountpoint)
        if lies_there or f"/volumes/{volume.name}/_data/" in place:
            raise OperationFailed(
                f"the backups are kept in {root}, which is in volume {volume.name}: they would go"
                " with it; nothing was deleted",
                next_step="set SAFE_COMPOSE_HOME to a folder outside of docker's volumes",
            )
