"""The container that this process runs in.

A development container with docker's socket may be asked to stop itself.
"""

import re
from pathlib import Path

_OF_DOCKER = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf)")
"""docker's own file that it mounts over one of a container's `_FILES`."""
_FILES = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})
_MOUNTS = Path("/proc/self/mountinfo")


def find_own_containers() -> frozenset[str]:
    """Return the id of the container that this process runs in; empty outside of any container.

    Where it shares the network of another container, that one's id is returned, too.
    """
    try:
        text = _MOUNTS.read_text("utf-8", "replace")
    except OSError:
        return frozenset()  # not Linux, where no process runs in a container
    return ids_in(text)


def ids_in(mounts: str) -> frozenset[str]:
    """Return the ids of containers in the text of a mountinfo.

    proc(5): each line has the path within the mounted file system, then the mount point.
    """
    found = set()
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4] in _FILES and (match := _OF_DOCKER.search(fields[3])):
            found.add(match[1])
    return frozenset(found)
