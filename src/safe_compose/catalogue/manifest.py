"""The files that describe a backup: `manifest.json`, `SHA256SUMS`, `verification.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safe_compose.artifacts import Backup, Evidence, VolumeRecord, hide_secrets

FORMAT = 1
"""Goes up when an older safe-compose could misread a newer one's files; keys alone are only ever added."""


class Damaged(Exception):
    """A file of ours does not read; the message says why."""


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


def write_manifest(backup: Backup) -> bytes:
    """The manifest's bytes: sorted keys, ASCII only, no evidence, no place, no secret."""
    shape = asdict(backup)
    for elsewhere in ("evidence", "path", "broken"):
        del shape[elsewhere]
    return _json(shape | {"format": FORMAT})


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


def is_inside(file: str) -> bool:
    """Is this a plain relative path that stays inside the folder it is read against?"""
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in file


def write_verification(verification: Verification) -> bytes:
    return _json(verification.model_dump(mode="json"))


def read_verification(data: bytes, digest: str) -> Verification:
    """What is known of the backup whose manifest has that sha256. Raises Damaged when it does not read or is about other bytes."""
    try:
        found = Verification.model_validate(json.loads(data))
    except (ValidationError, ValueError, RecursionError) as error:
        raise Damaged("its verification.json does not read") from error
    if found.broken is None and found.manifest_sha256 != digest:
        raise Damaged("its manifest was changed after it was verified")
    return found


def sums(digests: Mapping[str, str]) -> bytes:
    """`SHA256SUMS` as `sha256sum -c` reads it. digests: path inside the folder -> sha256 in hex."""
    lines = []
    for file in sorted(digests):
        escaped = file.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{'' if escaped == file else chr(92)}{digests[file]}  {escaped}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


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


def _first(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"


def _json(shape: Mapping[str, Any]) -> bytes:
    return (json.dumps(shape, sort_keys=True, indent=1) + "\n").encode("ascii")
