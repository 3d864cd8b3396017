"""The files that describe a backup: `manifest.json`, `SHA256SUMS`, `verification.json`, as bytes. They are read by `shapes`."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

from safe_compose.artifacts import Backup, VolumeRecord, hide_secrets

MANIFEST, SUMS, RECIPE, VERIFICATION = "manifest.json", "SHA256SUMS", "RESTORE.md", "verification.json"
OURS = frozenset({MANIFEST, SUMS, RECIPE, VERIFICATION})
FORMAT = 1
"""Goes up when an older safe-compose could misread a newer one's files; keys alone are only ever added."""

_SUM = re.compile(r"(\\?)([0-9a-f]{64})  (.+)", re.DOTALL)
_ESCAPED = re.compile(r"\\[\\nr]")
_UNESCAPED = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


class Damaged(Exception):
    """A file of ours does not read; the message says why."""


def write_manifest(backup: Backup) -> bytes:
    """The manifest's bytes: sorted keys, ASCII only, no evidence, no place, no secret."""
    shape = asdict(backup)
    for elsewhere in ("evidence", "path", "broken", "offsite"):
        del shape[elsewhere]
    return as_bytes(shape | {"format": FORMAT})


def is_inside(file: str) -> bool:
    """Is this a plain relative path that stays inside the folder it is read against?"""
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in file


def sums(digests: Mapping[str, str]) -> bytes:
    """`SHA256SUMS` as `sha256sum -c` reads it. digests: path inside the folder -> sha256 in hex."""
    lines = []
    for file in sorted(digests):
        escaped = file.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{'' if escaped == file else chr(92)}{digests[file]}  {escaped}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def read_sums(data: bytes) -> dict[str, str]:
    """Path inside the folder -> sha256 in hex, of what `sums` wrote. Raises Damaged."""
    digests: dict[str, str] = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        match = _SUM.fullmatch(line)
        if match is None:
            raise Damaged("its SHA256SUMS does not read")
        file = _ESCAPED.sub(lambda found: _UNESCAPED[found[0]], match[3]) if match[1] else match[3]
        if not is_inside(file) or file in digests:
            raise Damaged(f"its SHA256SUMS names an impossible file: {file!r}")
        digests[file] = match[2]
    return digests


def without_secrets(record: VolumeRecord) -> VolumeRecord:
    """The record with passwords in driver options (CIFS: `o=username=x,password=y`) hidden, and a note that says so."""
    options = {name: _hidden_option(name, value) for name, value in record.options.items()}
    hidden = sorted(name for name in options if options[name] != record.options[name])
    if not hidden:
        return record
    note = f"driver option {', '.join(hidden)} held a secret that is not kept (***): give it again when the volume is made"
    return replace(record, options=options, notes=(*record.notes, note))


def _hidden_option(name: str, value: str) -> str:
    return hide_secrets(f"{name}={value}").partition("=")[2]


def as_bytes(shape: Mapping[str, Any]) -> bytes:
    """A file of ours: sorted keys, ASCII only."""
    return (json.dumps(shape, sort_keys=True, indent=1) + "\n").encode("ascii")
