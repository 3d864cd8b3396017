"""Reading what describes a backup, nothing of it taken on trust. Imports pydantic (50 ms): only where there is a file to read."""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safe_compose.artifacts import Backup, Copy, Evidence, VolumeRecord
from safe_compose.catalogue.manifest import FORMAT, Damaged, as_bytes, is_inside


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


class Verification(_Model):
    """What was found out about a backup after it was made."""

    format: Literal[1] = 1
    manifest_sha256: str
    """Evidence is about these bytes of `manifest.json` and no others."""
    evidence: tuple[Evidence, ...] = ()
    broken: str | None = None
    offsite: tuple[Copy, ...] = ()


def read_manifest(data: bytes, folder: str, path: str) -> Backup:
    """A manifest as a Backup without evidence.

    folder: the name of the folder it lies in, which must be the backup's id. Raises Damaged.
    """
    try:
        shape = json.loads(data)
        found = shape.get("format") if isinstance(shape, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise Damaged(f"made by a newer safe-compose (format {found})")
        manifest = _Manifest.model_validate(shape)
    except ValidationError as error:
        raise Damaged(f"its manifest does not read: {_first(error)}") from error
    except (ValueError, RecursionError) as error:
        raise Damaged("its manifest is not JSON") from error
    if manifest.id != folder:
        raise Damaged(f"its manifest belongs to another backup ({manifest.id})")
    for volume in manifest.volumes:
        for artifact in volume.artifacts:
            if not is_inside(artifact.file):
                raise Damaged(f"its manifest names a file outside of its folder: {artifact.file!r}")
    facts = {name: getattr(manifest, name) for name in _Manifest.model_fields if name != "format"}
    return Backup(path=path, **facts)


def read_verification(data: bytes, digest: str) -> Verification:
    """What is known of the backup whose manifest has that sha256. Raises Damaged when it does not read or is about other bytes."""
    try:
        found = Verification.model_validate(json.loads(data))
    except (ValidationError, ValueError, RecursionError) as error:
        raise Damaged("its verification.json does not read") from error
    if found.broken is None and found.manifest_sha256 != digest:
        raise Damaged("its manifest was changed after it was verified")
    return found


def write_verification(verification: Verification) -> bytes:
    return as_bytes(verification.model_dump(mode="json"))


def _first(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
