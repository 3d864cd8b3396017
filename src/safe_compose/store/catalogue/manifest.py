"""Writers of the files that describe a backup: `manifest.json`, `SHA256SUMS`, `verification.json`.

`schema` reads them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from safe_compose.core.redaction import hide_option
from safe_compose.store.catalogue.checks import MOST_FILES, is_normal_path

if TYPE_CHECKING:
    from safe_compose.core.backup import Backup, VolumeRecord

MANIFEST, SUMS, RECIPE, VERIFICATION = (
    "manifest.json",
    "SHA256SUMS",
    "RESTORE.md",
    "verification.json",
)
OURS = frozenset({MANIFEST, SUMS, RECIPE, VERIFICATION})
FORMAT = 1
"""Raised when an older safe-compose could misread a newer one's files; otherwise keys are only ever
added."""

_SUM = re.compile(r"(\\?)([0-9a-f]{64})  (.+)", re.DOTALL)
_ESCAPED = re.compile(r"\\[\\nr]")
_UNESCAPED = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


class ManifestDamaged(Exception):
    """An error about an unreadable file that describes a backup; the message says why."""


def write_manifest(backup: "Backup") -> bytes:
    """Return the bytes of a manifest, with sorted keys and in ASCII.

    Evidence, path and secrets are left out.
    """
    shape = asdict(backup)
    for elsewhere in ("evidence", "path", "broken", "offsite", "unsigned_from"):
        del shape[elsewhere]
    return to_bytes(shape | {"format": FORMAT})


def format_sums(digests: Mapping[str, str]) -> bytes:
    """Return `SHA256SUMS` as `sha256sum -c` reads it.

    Args:
        digests: Path inside the folder -> sha256 in hex.
    """
    lines = []
    for file in sorted(digests):
        escaped = file.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{'' if escaped == file else chr(92)}{digests[file]}  {escaped}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def read_sums(data: bytes) -> dict[str, str]:
    """Return path -> sha256 in hex from what `format_sums` wrote.

    Raises:
        ManifestDamaged: A line is unreadable or names an impossible path.
    """
    digests: dict[str, str] = {}
    if data.count(b"\n") > MOST_FILES:
        raise ManifestDamaged(f"its SHA256SUMS names more than {MOST_FILES} files")
    for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        match = _SUM.fullmatch(line)
        if match is None:
            raise ManifestDamaged("its SHA256SUMS does not read")
        file = _ESCAPED.sub(lambda found: _UNESCAPED[found[0]], match[3]) if match[1] else match[3]
        if not is_normal_path(file) or file in digests:
            raise ManifestDamaged(f"its SHA256SUMS names an impossible file: {file!r}")
        digests[file] = match[2]
    return digests


def hide_secrets_of(record: "VolumeRecord") -> "VolumeRecord":
    """Return the record with passwords in driver options hidden, and a note that says so.

    CIFS, for example, has `o=username=x,password=y`.
    """
    options = {name: hide_option(name, value) for name, value in record.options.items()}
    hidden = sorted(name for name in options if options[name] != record.options[name])
    if not hidden:
        return record
    note = (
        f"driver option {', '.join(hidden)} held a secret that is not kept (***): give it again"
        " when the volume is made"
    )
    return replace(record, options=options, notes=(*record.notes, note))


def to_bytes(shape: Mapping[str, Any]) -> bytes:
    """Return JSON with sorted keys, ASCII only."""
    return (json.dumps(shape, sort_keys=True, indent=1) + "\n").encode("ascii")
