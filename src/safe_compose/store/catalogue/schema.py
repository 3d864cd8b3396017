"""Strict readers of the files that describe a backup.

Imports pydantic (50 ms), so it is imported only where there is a file to read.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safe_compose.core.backup import Backup, Evidence, Omission, VolumeRecord
from safe_compose.core.backup_summary import OffsiteCopy
from safe_compose.store.catalogue import checks
from safe_compose.store.catalogue.manifest import FORMAT, ManifestDamaged, to_bytes

LARGEST = 64 << 20
"""Largest size of a manifest in bytes."""
MOST_SHAPES = 1_000_000
"""Largest number of objects and lists in a file: JSON of empty ones takes thirty times its size in
memory."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Manifest(_Model):
    format: Literal[1]
    id: str
    seq: int = Field(ge=1)
    created: str
    project: str
    endpoint: str
    engine_id: str
    reason: str
    command: tuple[str, ...] = ()
    volumes: tuple[VolumeRecord, ...]
    pinned_until: str | None = None
    tool_version: str = ""
    warnings: tuple[str, ...] = ()
    omitted: tuple[Omission, ...] = ()


class Verification(_Model):
    """The findings about a backup after it was made."""

    format: Literal[1] = 1
    manifest_sha256: str
    """The evidence is about these bytes of `manifest.json` and no others."""
    evidence: tuple[Evidence, ...] = ()
    broken: str | None = None
    offsite: tuple[OffsiteCopy, ...] = ()
    unsigned_from: str | None = None


def read_manifest(data: bytes, folder: str, path: str) -> Backup:
    """Return the backup that a manifest describes, without evidence.

    Args:
        data: Bytes of the manifest.
        folder: The name of the manifest's folder, which must be the backup's id.
        path: Becomes the path of the backup.

    Raises:
        ManifestDamaged: The manifest is unreadable, or breaks the rules of `checks`.
    """
    try:
        shape = _json(data)
        found = shape.get("format") if isinstance(shape, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise ManifestDamaged(f"made by a newer safe-compose (format {found})")
        manifest = _Manifest.model_validate(shape)
    except ValidationError as error:
        raise ManifestDamaged(f"its manifest does not read: {_first(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ManifestDamaged("its manifest is not JSON") from error
    if manifest.id != folder:
        raise ManifestDamaged(f"its manifest belongs to another backup ({manifest.id})")
    facts = {name: getattr(manifest, name) for name in _Manifest.model_fields if name != "format"}
    backup = Backup(path=path, **facts)
    if (fault := checks.find_fault(backup)) is not None:
        raise ManifestDamaged(fault)
    return backup


def read_verification(data: bytes, digest: str) -> Verification:
    """Return the findings about the backup whose manifest has this sha256.

    Raises:
        ManifestDamaged: The file is unreadable, or is about another manifest.
    """
    try:
        found = Verification.model_validate(_json(data))
    except (ValidationError, ValueError, RecursionError) as error:
        raise ManifestDamaged("its verification.json does not read") from error
    if found.broken is None and found.manifest_sha256 != digest:
        raise ManifestDamaged("its manifest was changed after it was verified")
    return found


def _json(data: bytes) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: It is no JSON, or holds half of a surrogate pair, which no file or terminal
            takes.
        RecursionError: It is nested too deeply.
        ManifestDamaged: It is so large that it would exhaust the memory.
    """
    if len(data) > LARGEST or data.count(b"{") + data.count(b"[") > MOST_SHAPES:
        raise ManifestDamaged("it is larger than any of ours")
    # json.loads of bytes would accept other encodings and halves of surrogate pairs
    found = json.loads(data.decode("utf-8"))
    if b"\\ud" in data or b"\\uD" in data:
        json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return found


def write_verification(verification: Verification) -> bytes:
    """Return the bytes of `verification.json`."""
    return to_bytes(verification.model_dump(mode="json"))


def _first(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
