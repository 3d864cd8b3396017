"""The file system that a path of this machine lies on."""

import os
import re
from pathlib import Path
from typing import NamedTuple

_TABLE = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


class MountedFileSystem(NamedTuple):
    """A mounted file system."""

    type: str
    options: frozenset[str]
    mount_point: str


def find_file_system(path: str) -> MountedFileSystem | None:
    """Return the file system of a path, links followed; None where this system does not say."""
    try:
        text = _TABLE.read_text("utf-8", "surrogateescape")
    except OSError:
        return None  # not Linux
    return find_in_table(text, os.path.realpath(path))


def find_in_table(table: str, path: str) -> MountedFileSystem | None:
    r"""Return the file system of a path, by the text of a mountinfo (proc_pid_mountinfo(5)).

    >>> line = r"36 35 98:0 / /mnt/my\\040nas rw,noatime shared:1 - nfs4 nas:/x rw,vers=4.2"
    >>> found = find_in_table(line, "/mnt/my nas/pg")
    >>> found.type, found.mount_point, "noatime" in found.options
    ('nfs4', '/mnt/my nas', True)
    """
    best: MountedFileSystem | None = None
    for line in table.splitlines():
        before, mark, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if not mark or len(fields) < 6 or len(rest) < 3:
            continue
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
        inside = point == "/" or path == point or path.startswith(point + "/")
        # of two at one place the later one is seen
        if inside and (best is None or len(point) >= len(best.mount_point)):
            options = frozenset((*fields[5].split(","), *rest[2].split(",")))
            best = MountedFileSystem(rest[0], options, point)
    return best
