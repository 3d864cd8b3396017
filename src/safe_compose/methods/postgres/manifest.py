"""A physical copy, read from the disk and held against the manifest that the server itself wrote into it."""

import io
import json
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from safe_compose.artifacts import Artifact, Evidence
from safe_compose.methods.stream import BLOCK, evidence, unpack, unproved

MANIFEST = "backup_manifest"
_LOG = "pg_wal/"
"""The transactions written during the copy; the manifest names their range, not their files."""


def verify_base(folder: Path, artifact: Artifact) -> Evidence:
    """L3: the whole file is read, and every file in it has the size and sha256 that the server's manifest says.

    The manifest's own sum is checked too. What the range of transactions holds is `pg_verifybackup`'s to say, in the trial.
    Raises VerifyFailed.
    """
    found: dict[str, tuple[int, str]] = {}
    manifest: bytes | None = None
    pipe = _File(unpack(folder, artifact))
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
        while pipe.read(BLOCK):  # to the end of the gzip stream, where its sums are checked
            pass
    except (tarfile.TarError, UnicodeError) as error:
        raise unproved(artifact, f"it is no whole tar ({error})") from error
    if manifest is None:
        raise unproved(artifact, "it has no manifest at its end")
    wanted = _files(artifact, manifest)
    for name in sorted(found.keys() | wanted.keys()):
        if name not in wanted and name.startswith(_LOG):
            continue
        if found.get(name) != wanted.get(name):
            raise unproved(artifact, f"{name} is not as the server's manifest says")
    return evidence("L3", artifact.file, f"whole copy read, {len(wanted)} files equal the server's manifest")


def _files(artifact: Artifact, manifest: bytes) -> dict[str, tuple[int, str]]:
    """What a manifest lists: path -> size and sha256 (backup-manifest format, versions 1 and 2)."""
    last = manifest.rstrip(b"\n").rfind(b"\n") + 1
    try:
        shape: dict[str, Any] = json.loads(manifest)
        if shape["Manifest-Checksum"] != sha256(manifest[:last]).hexdigest():
            raise unproved(artifact, "the server's manifest was changed")
        return {_path(entry): (int(entry["Size"]), str(entry["Checksum"])) for entry in shape["Files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise unproved(artifact, "the server's manifest does not read") from error


def _path(entry: dict[str, Any]) -> str:
    if "Encoded-Path" in entry:  # in hex, where it is no UTF-8
        return bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")
    return str(entry["Path"])


class _File(io.RawIOBase):
    """Blocks as the file that tarfile reads from."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

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
        return b"".join(pieces)
