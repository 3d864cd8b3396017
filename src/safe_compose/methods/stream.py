"""One pass over a byte stream: compressed, hashed and counted while it is written; read back whole when it is judged.

The files are ordinary single-member gzip files (level 1 of isal: five times faster than zlib's level 1 and smaller than
zlib's level 1, measured; zlib where isal cannot be had), so gzip and zcat read them anywhere.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING

from safe_compose.artifacts import Artifact, Evidence
from safe_compose.errors import BackupFailed, VerifyFailed

if TYPE_CHECKING:
    import zlib
else:
    try:
        from isal import isal_zlib as zlib
    except ImportError:
        import zlib

BLOCK = 1 << 20
"""Bytes per block; what a pass keeps in memory is a few of these."""

_GZIP = 31
"""zlib's `wbits` for a gzip wrapper with the largest window; such a header carries mtime 0 and no name (RFC 1952)."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Sums:
    """What one pass over a stream measured."""

    bytes: int
    sha256: str
    uncompressed_bytes: int
    uncompressed_sha256: str


def nothing(_: int) -> None:
    """A progress callback that shows nothing."""


def blocks_of(stream: IO[bytes]) -> Iterator[bytes]:
    """The bytes of an open stream, a block at a time."""
    while block := stream.read(BLOCK):
        yield block


def pack(
    blocks: Iterable[bytes],
    path: Path,
    *,
    subject: str,
    stage: str,
    consumer: Callable[[bytes], None] | None = None,
    progress: Callable[[int], None] = nothing,
) -> Sums:
    """Write `blocks` as a gzip file that must not exist yet (0600, fsynced), hashing both sides in the same pass.

    `subject` (the volume) and `stage` only serve messages. `consumer` sees each uncompressed block, `progress` the number of
    uncompressed bytes done so far. Raises BackupFailed when the file cannot be written, synced or closed; whatever `blocks`
    and `consumer` raise passes. A file that was not finished is removed.
    """
    plain = sha256()
    packed = sha256()
    size = packed_size = 0
    compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unwritten(error, path, subject, stage) from error
    done = False
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for block in blocks:
                plain.update(block)
                size += len(block)
                if consumer is not None:
                    consumer(block)
                piece = compressor.compress(block)
                packed.update(piece)
                packed_size += len(piece)
                _write(file, piece, path, subject, stage)
                progress(size)
            piece = compressor.flush()
            packed.update(piece)
            packed_size += len(piece)
            _write(file, piece, path, subject, stage)
            try:
                os.fsync(file.fileno())
                file.close()  # network file systems and quotas report here
            except OSError as error:
                raise _unwritten(error, path, subject, stage) from error
        done = True
    finally:
        if not done:
            with suppress(OSError):
                path.unlink()
    return Sums(packed_size, packed.hexdigest(), size, plain.hexdigest())


def _write(file: IO[bytes], piece: bytes, path: Path, subject: str, stage: str) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise _unwritten(error, path, subject, stage) from error


def _unwritten(error: OSError, path: Path, subject: str, stage: str) -> BackupFailed:
    cause = error.strerror or str(error)
    if error.errno in _FULL:
        step = f"make room on the file system of {path.parent}, or choose another store with SAFE_COMPOSE_HOME"
    else:
        step = f"look at the file system of {path.parent}, or choose another store with SAFE_COMPOSE_HOME"
    return BackupFailed(f"volume {subject}: {stage}: {path.name} could not be written: {cause}", next_step=step)


def new_folder(path: Path, *, subject: str, stage: str) -> None:
    """Make a folder (0700) with whatever is missing above it; raises BackupFailed."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritten(error, path, subject, stage) from error


def sync_folder(path: Path, *, subject: str, stage: str) -> None:
    """Bring the names in a folder to the disk; raises BackupFailed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unwritten(error, path, subject, stage) from error


def check(folder: Path, artifact: Artifact) -> None:
    """L1: the file on disk has the size and sha256 that were measured while it was written; raises VerifyFailed."""
    digest = sha256()
    with _open(folder, artifact) as file:
        try:
            while block := file.read(BLOCK):
                digest.update(block)
        except OSError as error:
            raise _unread(artifact, error.strerror or str(error)) from error
    if digest.hexdigest() != artifact.sha256:
        raise _unread(artifact, "its sha256 is not the one measured when it was written: the file was changed or is damaged")


def unpack(folder: Path, artifact: Artifact, *, progress: Callable[[int], None] = nothing) -> Iterator[bytes]:
    """The uncompressed bytes of an artifact; by the last block everything was held against what was measured.

    Raises VerifyFailed for a file that is missing, cut, followed by anything, or has another size or sum than recorded, at
    the latest after its last block: whoever cannot take bytes back calls `check` first. `progress` gets uncompressed bytes.
    """
    plain = sha256()
    packed = sha256()
    size = 0
    decompressor = zlib.decompressobj(_GZIP)
    with _open(folder, artifact) as file:
        while not decompressor.eof:
            try:
                piece = file.read(BLOCK // 4)
            except OSError as error:
                raise _unread(artifact, error.strerror or str(error)) from error
            if not piece:
                raise _unread(artifact, "the gzip stream ends too early")
            packed.update(piece)
            while piece and not decompressor.eof:
                try:
                    block = decompressor.decompress(piece, BLOCK)
                except zlib.error as error:
                    raise _unread(artifact, f"the gzip stream is damaged ({error})") from error
                piece = decompressor.unconsumed_tail
                if block:
                    plain.update(block)
                    size += len(block)
                    if size > artifact.uncompressed_bytes:
                        raise _unread(artifact, "it holds more bytes than were written")
                    progress(size)
                    yield block
        if decompressor.unused_data or file.read(1):
            raise _unread(artifact, "something follows the gzip stream")
    if packed.hexdigest() != artifact.sha256:
        raise _unread(artifact, "its sha256 is not the one measured when it was written: the file was changed or is damaged")
    if size != artifact.uncompressed_bytes or plain.hexdigest() != artifact.uncompressed_sha256:
        raise _unread(artifact, "its uncompressed bytes are not those that were written")


def _open(folder: Path, artifact: Artifact) -> IO[bytes]:
    try:
        file = (folder / artifact.file).open("rb", buffering=0)
    except OSError as error:
        raise _unread(artifact, error.strerror or str(error)) from error
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_size != artifact.bytes:
        file.close()
        raise _unread(artifact, f"it has {found.st_size} bytes, {artifact.bytes} were written")
    return file


def _unread(artifact: Artifact, cause: str) -> VerifyFailed:
    return VerifyFailed(
        f"volume {artifact.volume}: verify: {artifact.file}: {cause}; this backup is not counted as good",
        next_step="make a new backup, or restore from another one: safe-compose list",
    )


def evidence(level: str, subject: str, what: str) -> Evidence:
    """An Evidence of this moment."""
    return Evidence(level, subject, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), what)
