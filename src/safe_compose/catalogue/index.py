"""`.index.json`: what lists show of each backup, so that ten thousand manifests need not be read for a list.

It only saves time: a line counts while both files that it was taken from are the same to the nanosecond, and nothing but a list
is ever made from it. Whoever verifies, restores or forgets reads the manifest itself.
"""

import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from safe_compose.artifacts import Copy, Listed
from safe_compose.durable import Access, read_regular, replace

NAME = ".index.json"
WORTH = 64
"""So many manifests that had to be read make a new index worth writing; smaller stores have none."""
_FORMAT = 1
_SETTLED = 2_000_000_000
"""Nanoseconds: a file younger than that could be changed once more within one tick of the file system's clock."""

Key = tuple[int, ...]
"""Device, inode, size, mtime and ctime of `manifest.json`, then of `verification.json`; of a missing one nothing."""
Lines = Mapping[str, tuple[Key, Listed]]
"""By `<project folder>/<backup>`."""

_NAMES = tuple(f.name for f in fields(Listed) if f.name != "path")


def key_of(folder: str, names: tuple[str, str]) -> Key | None:
    """What the two files of a backup look like from outside; None when in doubt."""
    try:
        manifest = os.lstat(f"{folder}/{names[0]}")
    except OSError:
        return None
    try:
        found = [manifest, os.lstat(f"{folder}/{names[1]}")]
    except FileNotFoundError:
        found = [manifest]
    except OSError:
        return None
    if not all(stat.S_ISREG(f.st_mode) for f in found):
        return None
    return tuple(n for f in found for n in (f.st_dev, f.st_ino, f.st_size, f.st_mtime_ns, f.st_ctime_ns))


def is_settled(key: Key) -> bool:
    """No file of it is so young, or from the future, that a later change might not show."""
    return all(changed < time.time_ns() - _SETTLED for changed in key[4::5])


def read(root: Path) -> Lines:
    """Every line; none when there is no index or it does not read in any way."""
    try:
        found = json.loads(read_regular(root / NAME))
        if found["format"] != _FORMAT or found["names"] != list(_NAMES):
            return {}
        lines = {}
        for name, (key, values) in found["lines"].items():
            facts = dict(zip(_NAMES, values, strict=True))
            facts["volumes"] = tuple(facts["volumes"])
            facts["offsite"] = tuple(Copy(**copy) for copy in facts["offsite"])
            lines[name] = (tuple(key), Listed(path=str(root / name), **facts))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # it is made again from the manifests, which is slow and right
    return lines


def write(root: Path, lines: Lines, access: Access) -> None:
    """Put a new index in the place of the old. Raises OSError."""
    shape = {name: (key, [getattr(listed, field) for field in _NAMES]) for name, (key, listed) in lines.items()}
    text = json.dumps({"format": _FORMAT, "names": _NAMES, "lines": shape}, separators=(",", ":"), default=asdict)
    replace(root / NAME, text.encode("ascii"), access)
