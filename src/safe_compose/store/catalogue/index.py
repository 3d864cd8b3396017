"""`.index.json`: the summaries for lists, so that a list need not read thousands of manifests.

The index only saves time. A line counts only while both files that it was taken from are unchanged
to the nanosecond, and it is used for lists alone. Verifying, restoring and forgetting read the
manifest itself.
"""

import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from safe_compose.core.backup_summary import BackupSummary, OffsiteCopy
from safe_compose.store.catalogue.checks import is_moment
from safe_compose.system.files import Access, read_regular, replace

NAME = ".index.json"
_FEW = 1000
"""Most lines that are written for a single manifest that had to be read: that takes less time than
the import of what reads it."""
_WORTH = 64
"""Number of manifests that had to be read before a longer index is written."""
_FORMAT = 1
_SETTLED = 2_000_000_000
"""Nanoseconds: a younger file could change again within one tick of the file system's clock."""

Key = tuple[int, ...]
"""Device, inode, size, mtime and ctime of `manifest.json`, then of `verification.json` if it
exists."""
Lines = Mapping[str, tuple[Key, BackupSummary]]
"""Key and summary by `<project folder>/<backup>`."""

_NAMES = tuple(f.name for f in fields(BackupSummary) if f.name != "path")


def make_key(folder: str, names: tuple[str, str]) -> Key | None:
    """Return a key that changes whenever one of a backup's two files does; None when in doubt."""
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
    return tuple(
        n for f in found for n in (f.st_dev, f.st_ino, f.st_size, f.st_mtime_ns, f.st_ctime_ns)
    )


def is_settled(key: Key) -> bool:
    """Return whether all files of a key are old enough that a later change must show."""
    return all(changed < time.time_ns() - _SETTLED for changed in key[4::5])


def read(root: Path) -> Lines:
    """Return every line of the index; none when it is missing or unreadable."""
    try:
        found = json.loads(read_regular(root / NAME))
        if found["format"] != _FORMAT or found["names"] != list(_NAMES):
            return {}
        lines = {}
        for name, (key, values) in found["lines"].items():
            facts = dict(zip(_NAMES, values, strict=True))
            facts["volumes"] = tuple(facts["volumes"])
            facts["lacking"] = tuple(facts["lacking"])
            facts["offsite"] = tuple(OffsiteCopy(**copy) for copy in facts["offsite"])
            line = BackupSummary(path=str(root / name), **facts)
            if not _is_plausible(line):
                return {}
            lines[name] = (tuple(key), line)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # it is rebuilt from the manifests, which is slow but correct
    return lines


def _is_plausible(line: BackupSummary) -> bool:
    """Return whether every value has its type; the code that sorts and prints does not check."""
    texts = (
        line.id,
        line.created,
        line.project,
        line.endpoint,
        line.engine_id,
        line.reason,
        line.verified_at,
        *line.volumes,
    )
    texts += line.lacking
    maybe = (
        line.level,
        line.pinned_until,
        line.broken,
        line.unsigned_from,
        *(c.fault for c in line.offsite),
    )
    return (
        all(
            type(text) is str
            for text in (*texts, *(c.name for c in line.offsite), *(c.url for c in line.offsite))
        )
        and all(text is None or type(text) is str for text in maybe)
        and type(line.seq) is type(line.bytes) is int
        and type(line.verified) is bool
        and (is_moment(line.created) or (line.broken is not None and not line.created))
    )


def is_worth_writing(lines: Lines, read: int) -> bool:
    """Return whether an index saves more time than it takes.

    Args:
        lines: All lines that it would have.
        read: The number of manifests that had to be read because it lacked them.
    """
    return read >= (1 if len(lines) <= _FEW else _WORTH)


def write(root: Path, lines: Lines, access: Access) -> None:
    """Replace the index.

    Raises:
        OSError: The index cannot be written.
    """
    shape = {
        name: (key, [getattr(listed, field) for field in _NAMES])
        for name, (key, listed) in lines.items()
    }
    text = json.dumps(
        {"format": _FORMAT, "names": _NAMES, "lines": shape}, separators=(",", ":"), default=asdict
    )
    replace(root / NAME, text.encode("ascii"), access)
