"""Verification of a physical copy against the manifest that the server wrote into it."""

import io
import json
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from safe_compose.core.backup import Artifact, Evidence
from safe_compose.volumes.gzip_stream import BLOCK, make_damage_fault, make_evidence, unpack

MANIFEST = "backup_manifest"
_MOST_IN_VAIN = 100
_LOG = "pg_wal/"
"""Folder of the transactions written during the copy; the manifest names their range, not their
files.
"""


def verify_base(folder: Path, artifact: Artifact) -> Evidence:
    """Verify a physical copy at level L3 and return the evidence.

    L3 means: the whole file is read, and every file in it has the size and SHA-256 of the server's
    manifest, whose own checksum matches. The content of the range of transactions is checked by
    `pg_verifybackup` in the test restore.

    Raises:
        VerificationFailed: The copy is damaged.
    """
    found: dict[str, tuple[int, str]] = {}
    manifest: bytes | None = None
    pipe = _ArchivedFile(unpack(folder, artifact))
    try:
        with tarfile.open(fileobj=pipe, mode="r|", errorlevel=2) as copy:
            while (member := copy.next()) is not None:
                content = copy.extractfile(member) if member.isreg() else None
                if content is not None and member.name == MANIFEST:
                    manifest = content.read()
                elif content is not None:
                    digest = sha256()
                    while block := content.read(BLOCK):
                        digest.update(block)
                    found[member.name] = member.size, digest.hexdigest()
                copy.members.clear()  # type: ignore[attr-defined]  # or it keeps every one until the end
        while pipe.read(BLOCK):  # to the end of the gzip stream, where its checksums are compared
            pass
    except (tarfile.TarError, UnicodeError) as error:
        raise make_damage_fault(artifact, f"it is no whole tar ({error})") from error
    if manifest is None:
        raise make_damage_fault(artifact, "it has no manifest at its end")
    wanted = _files(artifact, manifest)
    for name in sorted(found.keys() | wanted.keys()):
        if name not in wanted and name.startswith(_LOG):
            continue
        if found.get(name) != wanted.get(name):
            raise make_damage_fault(artifact, f"{name} is not as the server's manifest says")
    return make_evidence(
        "L3", artifact.file, f"whole copy read, {len(wanted)} files equal the server's manifest"
    )


def _files(artifact: Artifact, manifest: bytes) -> dict[str, tuple[int, str]]:
    """Parse a manifest into path -> size and SHA-256 (backup-manifest format, versions 1 and 2).

    Raises:
        VerificationFailed: The manifest is damaged.
    """
    last = manifest.rstrip(b"\n").rfind(b"\n") + 1
    try:
        shape: dict[str, Any] = json.loads(manifest)
        if shape["Manifest-Checksum"] != sha256(manifest[:last]).hexdigest():
            raise make_damage_fault(artifact, "the server's manifest was changed")
        return {
            _path(entry): (int(entry["Size"]), str(entry["Checksum"])) for entry in shape["Files"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise make_damage_fault(artifact, "the server's manifest does not read") from error


def _path(entry: dict[str, Any]) -> str:
    if "Encoded-Path" in entry:  # in hex, if it is not UTF-8
        return bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")
    return str(entry["Path"])


class _ArchivedFile(io.RawIOBase):
    """A file object over blocks, for tarfile."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")
        self._asked_in_vain = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces, wanted = [], size
        while wanted > 0:
            if not self._rest:
                self._rest = memoryview(next(self._blocks, b""))
                if not self._rest:
                    break
            pieces.append(bytes(self._rest[:wanted]))
            wanted -= len(pieces[-1])
            self._rest = self._rest[len(pieces[-1]) :]
        self._asked_in_vain = 0 if pieces else self._asked_in_vain + 1
        # Otherwise tarfile would skip the announced bytes, 10 KiB at a time.
        if self._asked_in_vain > _MOST_IN_VAIN:
            raise tarfile.ReadError("it ends within a member")
        return b"".join(pieces)
