"""The mounts in a folder of the host: its archive lacks them, and a rename takes them along."""

import re
from collections.abc import Iterable

from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.helper_program import MOUNT, naming_fault

_SECONDS = 60.0
_LIMIT = 16 << 20
"""Most bytes of a table of mounts; a machine with 10,000 containers has less."""
_PLACE = 4
"""The field of a line that holds the place of the mount (proc(5), mountinfo)."""
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def list_inner_mounts(folder: EngineLocation) -> list[str]:
    """Return the paths below a folder at which something is mounted, by name.

    The engine shows a helper all that is mounted below the folder that it gets, so this works on a
    daemon of another machine too.

    Returns:
        The paths on the engine's host; none where our helper program does not run.

    Raises:
        OperationFailed: The folder cannot be read.
        StateChanged: The folder is not there.
    """
    try:
        helper = folder.read_only_helper("cat", "/proc/1", "mountinfo")
    except NoOwnImage:
        return []
    with naming_fault(folder.name, "look"):
        table = folder.engine.helpers.run(helper, timeout=_SECONDS, limit=_LIMIT)
    found = {
        _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[_PLACE])
        for line in table.splitlines()
        if len(fields := line.split(b" ")) > _PLACE
    }
    top = f"{MOUNT}/".encode()
    outside = folder.name.rstrip("/")
    return sorted(
        f"{outside}/{place.removeprefix(top).decode('utf-8', 'surrogateescape')}"
        for place in found
        if place.startswith(top)
    )


def is_behind(path: str, mounts: Iterable[str]) -> bool:
    """Return whether a path is one of these mounts or lies below one."""
    return any(path == mount or path.startswith(f"{mount}/") for mount in mounts)
