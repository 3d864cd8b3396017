"""Gzip files, compressed and hashed in one pass, and read back whole for verification.

The files are ordinary single-member gzip files (level 1 of isal: five times faster than zlib's
level 1 and smaller than zlib's level 1, measured; zlib where isal is not installed), so gzip and
zcat read them everywhere. Blocks are compressed in parallel, each with the end of the one before as
its dictionary: a single stream for every reader, and all cores for us. Compressing, hashing and
writing release Python's global lock, so threads are enough. The input is compared with what is read
back by its size and gzip's own CRC-32, taken before anything is compressed; the file on the disk by
its SHA-256.
"""

import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from safe_compose.core.backup import Artifact, Evidence, VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.system.files import open_below
from safe_compose.volumes import encryption
from safe_compose.volumes.backup_files import creating, make_write_fault

if TYPE_CHECKING:
    import zlib
else:
    try:
        from isal import isal_zlib as zlib
    except ImportError:
        import zlib

BLOCK = 2 << 20
"""Bytes per block; a pass keeps a few blocks in memory. Blocks of half the size cost a tenth more
time (run).
"""

WINDOW = 32 * 1024
"""Farthest distance in bytes that deflate may refer back (RFC 1951)."""

AHEAD = 2
"""Blocks that may wait between two threads."""

_PIECE = 128 * 1024
"""Bytes that are decompressed at once, to at most twice as many. Memory of longer pieces goes back
to the system each time, which makes decompressing a third slower (measured).
"""
_GROUP = 4
"""Number of decompressed pieces handed over at once."""

GZIP = b"\x1f\x8b"
"""First bytes of every gzip stream (RFC 1952)."""
_GZIP = 31
"""zlib's `wbits` for a gzip wrapper with the largest window."""
_RAW = -15
"""zlib's `wbits` for the largest window without any wrapper."""
_HEADER = bytes([*GZIP, 8, 0, 0, 0, 0, 0, 4, 255])
"""A gzip header (RFC 1952) with no time, no name, the fastest compression and no system."""
_LAST_BLOCK = b"\x03\x00"
"""An empty deflate block that is marked as the last one."""

_OTHER_SHA256 = (
    "its sha256 is not the one measured when it was written: the file was changed or is damaged"
)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sizes and checksum that one pass over a stream measured."""

    bytes: int
    sha256: str
    uncompressed_bytes: int


def show_nothing(_: object) -> None:
    """Ignore progress; the callback that shows nothing."""


def read_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of an open stream, a block at a time."""
    while block := stream.read(BLOCK):
        yield block


def pack(
    blocks: Iterable[bytes],
    path: Path,
    *,
    subject: str,
    stage: str,
    progress: Callable[[int], None] = show_nothing,
    threads: int = 4,
) -> Sums:
    """Write `blocks` as a new gzip file (0600, fsynced) and return its sizes and SHA-256.

    The file must not exist yet; it is removed if it was not finished. `subject` (the volume) and
    `stage` only serve messages. `progress` gets the number of uncompressed bytes taken so far. If
    recipients are set, the bytes are encrypted last (`encryption`), and size and checksum are those
    of the encrypted file. Memory: some 10 blocks; with fewer than 4 `threads`, less.

    Raises:
        OperationFailed: The file cannot be written, synced or closed.

    Faults of `blocks` pass through.
    """
    size = checksum = 0
    workers = min(count_cores(), threads)
    with creating(path, subject, stage) as file:
        sink = encryption.open_writer(file)
        with _running_threads(workers) as compressing, _running_threads() as writing:
            pending: deque[Future[object]] = deque([writing.submit(sink.write, _HEADER)])
            window = b""
            for block in blocks:
                pending.append(
                    writing.submit(
                        _write_result, sink, compressing.submit(_compress_block, block, window)
                    )
                )
                checksum = zlib.crc32(block, checksum)
                window = block[-WINDOW:] if len(block) >= WINDOW else (window + block)[-WINDOW:]
                size += len(block)
                while len(pending) > workers + AHEAD:
                    pending.popleft().result()
                progress(size)
            while pending:
                pending.popleft().result()
        sink.write(_LAST_BLOCK + struct.pack("<II", checksum, size & 0xFFFFFFFF))
        sink.close()
    return Sums(file.size, file.sha256, size)


def write_stream(
    blocks: Iterable[bytes],
    path: Path,
    *,
    subject: str,
    stage: str,
    progress: Callable[[int], None] = show_nothing,
) -> Sums:
    """Write a gzip stream of another program as a new file, and return its sizes and SHA-256.

    The stream is written as it comes, and decompressed at the same time to measure it; `progress`
    gets the number of uncompressed bytes. Whether the stream ends as it should is not checked here:
    the exit code of the other program explains why it does not, and verification reads all of it.

    Raises:
        OperationFailed: The input is not a gzip stream, or the file cannot be written.
    """
    size = 0
    decompressor = zlib.decompressobj(_GZIP)

    def measure(piece: bytes) -> int:
        nonlocal size
        try:
            while piece and not decompressor.eof:
                size += len(decompressor.decompress(piece, 2 * _PIECE))
                piece = decompressor.unconsumed_tail
        except zlib.error as error:
            raise OperationFailed(
                f"{describe_location(subject)}: {stage}: what came is no gzip stream ({error})"
            ) from error
        return size

    with creating(path, subject, stage) as file:
        sink = encryption.open_writer(file)
        with _running_threads() as opening, _running_threads() as writing:
            pending: deque[tuple[Future[object], Future[int]]] = deque()
            for block in blocks:
                pending.append((writing.submit(sink.write, block), opening.submit(measure, block)))
                while len(pending) > AHEAD:
                    _wait_for_both(*pending.popleft(), progress)
            while pending:
                _wait_for_both(*pending.popleft(), progress)
        sink.close()
    return Sums(file.size, file.sha256, size)


def _wait_for_both(
    written: "Future[object]", measured: "Future[int]", progress: Callable[[int], None]
) -> None:
    written.result()
    progress(measured.result())


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _running_threads(workers: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Run threads for the length of a block; a single thread does its work in order.

    If the block fails, work that has not begun is dropped, and work that has begun is waited for.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="stream")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _compress_block(block: bytes, window: bytes) -> bytes:
    """Compress a block into a part of a deflate stream that ends at a byte boundary."""
    if window:
        compressor = zlib.compressobj(
            1, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, window
        )
    else:
        compressor = zlib.compressobj(1, zlib.DEFLATED, _RAW)
    return compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)


def _write_result(sink: encryption.Sink, piece: "Future[bytes]") -> None:
    sink.write(piece.result())


def check(
    folder: Path,
    artifact: Artifact,
    *,
    progress: Callable[[int], None] = show_nothing,
    given_up: Callable[[], bool] = lambda: False,
) -> None:
    """Verify a file at level L1: its size and SHA-256 are those measured while it was written.

    `progress` gets the number of bytes read from the file. If `given_up` returns true, reading
    stops.

    Raises:
        VerificationFailed: The file is missing or was changed.
    """
    digest = sha256()
    done = 0
    with _open(folder, artifact) as file:
        try:
            while not given_up() and (block := file.read(BLOCK)):
                digest.update(block)
                done += len(block)
                progress(done)
        except OSError as error:
            raise make_damage_fault(artifact, error.strerror or str(error)) from error
    if digest.hexdigest() != artifact.sha256:
        raise make_damage_fault(artifact, _OTHER_SHA256)


@contextmanager
def checking(folder: Path, *artifacts: Artifact) -> Iterator[Callable[[], None]]:
    """Verify files at level L1 in a thread while the block prepares something else.

    Yields:
        A function that waits for the end of the check and raises VerificationFailed if a file was
        changed.
    """
    left = threading.Event()

    def run() -> None:
        for artifact in artifacts:
            check(folder, artifact, given_up=left.is_set)

    with _running_threads() as reading:
        checked = reading.submit(run)
        try:
            yield checked.result
        finally:
            left.set()


def unpack(
    folder: Path,
    artifact: Artifact,
    *,
    progress: Callable[[int], None] = show_nothing,
    checked: bool = False,
) -> Iterator[bytes]:
    """Yield the uncompressed bytes of an artifact, verified by the time the last block is read.

    A caller that cannot take bytes back calls `check` first and passes `checked`: then the SHA-256
    is not computed a second time, only the size and gzip's own checksum are compared. `progress`
    gets the number of uncompressed bytes. A thread reads and decompresses ahead of the caller.

    Raises:
        VerificationFailed: The file is missing, truncated, followed by anything, or has another
            size or checksum than recorded; raised after the last block at the latest.
    """
    size = 0
    for block in _read_ahead(_inflate(folder, artifact, checked)):
        size += len(block)
        progress(size)
        yield block
    if size != artifact.uncompressed_bytes:
        raise make_damage_fault(artifact, "it does not hold as many bytes as were written")


def _read_ahead(blocks: Generator[bytes, None, None]) -> Iterator[bytes]:
    """Yield the blocks of a generator that runs ahead in a thread.

    A few blocks are handed over at a time, because each handover costs.
    """
    try:
        with _running_threads() as making:
            coming = deque(making.submit(_take_group, blocks) for _ in range(2))
            while group := coming.popleft().result():
                coming.append(making.submit(_take_group, blocks))
                yield from group
    finally:
        blocks.close()


def _take_group(blocks: Iterator[bytes]) -> tuple[bytes, ...]:
    return tuple(islice(blocks, _GROUP))


def _inflate(folder: Path, artifact: Artifact, checked: bool) -> Generator[bytes, None, None]:
    """Yield the blocks of an artifact; its file is verified by the time the last one is read.

    Raises:
        VerificationFailed: The file is damaged.
    """
    packed = sha256()
    measure: Callable[[bytes], object] = show_nothing if checked else packed.update
    size = 0
    decompressor = zlib.decompressobj(_GZIP)
    with (
        _open(folder, artifact) as file,
        closing(_read_compressed(folder, artifact, file, measure)) as pieces,
    ):
        while not decompressor.eof:
            piece = next(pieces, b"")
            if not piece:
                raise make_damage_fault(artifact, "the gzip stream ends too early")
            while piece and not decompressor.eof:
                try:
                    block = decompressor.decompress(piece, 2 * _PIECE)
                except zlib.error as error:
                    raise make_damage_fault(
                        artifact, f"the gzip stream is damaged ({error})"
                    ) from error
                piece = decompressor.unconsumed_tail
                if block:
                    size += len(block)
                    if size > artifact.uncompressed_bytes:
                        raise make_damage_fault(artifact, "it holds more bytes than were written")
                    yield block
        if decompressor.unused_data or next(pieces, b""):
            raise make_damage_fault(artifact, "something follows the gzip stream")
    if not checked and packed.hexdigest() != artifact.sha256:
        raise make_damage_fault(artifact, _OTHER_SHA256)


def _read_compressed(
    folder: Path, artifact: Artifact, file: IO[bytes], measure: Callable[[bytes], object]
) -> Generator[bytes, None, None]:
    """Yield the gzip stream of a file, decrypted if necessary.

    `measure` gets the bytes as they are on the disk.

    Raises:
        VerificationFailed: The file is damaged.
        KeyMissing: No identity at hand opens the file, and its checksum is right.
    """

    def read(size: int) -> bytes:
        try:
            piece = file.read(size)
        except OSError as error:
            raise make_damage_fault(artifact, error.strerror or str(error)) from error
        measure(piece)
        return piece

    if not encryption.is_encrypted(file):
        while piece := read(_PIECE):
            yield piece
        return
    try:
        yield from encryption.decrypt(read, artifact.file)
    except encryption.EncryptedFileDamaged as damage:
        raise make_damage_fault(artifact, str(damage)) from damage
    except encryption.KeyMissing:
        check(folder, artifact)  # a damaged header looks like one for other recipients
        raise


def _open(folder: Path, artifact: Artifact) -> IO[bytes]:
    try:
        file = os.fdopen(open_below(folder, artifact.file), "rb", buffering=0)
    except OSError as error:
        raise make_damage_fault(artifact, error.strerror or str(error)) from error
    found = os.fstat(file.fileno())
    if found.st_size != artifact.bytes:
        file.close()
        raise make_damage_fault(
            artifact, f"it has {found.st_size} bytes, {artifact.bytes} were written"
        )
    return file


def rename_encrypted(folder: Path, record: VolumeRecord) -> VolumeRecord:
    """Rename the encrypted files of a volume to end in `.age`, and return the updated record.

    Raises:
        OperationFailed: A file cannot be renamed.
    """
    artifacts = []
    for artifact in record.artifacts:
        with _open(folder, artifact) as file:
            encrypted = encryption.is_encrypted(file)
        if encrypted:
            path, new = folder / artifact.file, artifact.file + encryption.SUFFIX
            try:
                path.rename(folder / new)
            except OSError as error:
                raise make_write_fault(error, path, record.name, "seal") from error
            artifact = replace(artifact, file=new)
        artifacts.append(artifact)
    return replace(record, artifacts=tuple(artifacts))


def has_key(folder: Path, artifacts: Iterable[Artifact]) -> bool:
    """Return whether an identity at hand opens each of the files that is encrypted.

    Raises:
        VerificationFailed: A file is damaged.
    """
    try:
        require_key(folder, artifacts)
    except encryption.KeyMissing:
        return False
    return True


def require_key(folder: Path, artifacts: Iterable[Artifact]) -> None:
    """Check that an identity at hand opens each of the files that is encrypted.

    Raises:
        KeyMissing: None does.
        VerificationFailed: A file is damaged.
    """
    for artifact in artifacts:
        if artifact.sealed:
            with (
                _open(folder, artifact) as file,
                closing(_read_compressed(folder, artifact, file, lambda _: None)) as pieces,
            ):
                next(pieces, b"")


def make_damage_fault(artifact: Artifact, cause: str) -> VerificationFailed:
    """Make the fault of an artifact that fails verification."""
    return VerificationFailed(
        f"{describe_location(artifact.volume)}:"
        f" verify: {artifact.file}: {cause}; this backup is not counted as"
        " good",
        next_step="make a new backup, or restore from another one: safe-compose list",
    )


def make_evidence(level: str, subject: str, what: str) -> Evidence:
    """Make an Evidence with the current time."""
    return Evidence(level, subject, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), what)
