"""One pass over a byte stream: compressed and hashed while it is written; read back whole when it is judged.

The files are ordinary single-member gzip files (level 1 of isal: five times faster than zlib's level 1 and smaller than
zlib's level 1, measured; zlib where isal cannot be had), so gzip and zcat read them anywhere. Blocks are compressed side by
side, each with the end of the one before as its dictionary: one stream for every reader, all cores for us. Compressing,
hashing and writing let go of Python's lock, so threads are enough. What came in is held against what comes back by its size
and gzip's own CRC-32, taken before anything is compressed; what lies on the disk by its sha256.
"""

import errno
import os
import stat
import struct
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from safe_compose.artifacts import Artifact, Evidence, VolumeRecord
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.methods import seal

if TYPE_CHECKING:
    import zlib
else:
    try:
        from isal import isal_zlib as zlib
    except ImportError:
        import zlib

BLOCK = 2 << 20
"""Bytes per block; what a pass keeps in memory is a few of these. Handing over half as many costs a tenth more (run)."""

WINDOW = 32 * 1024
"""How far back deflate may refer (RFC 1951)."""

AHEAD = 2
"""Blocks that may wait between two threads."""

_PIECE = 128 * 1024
"""Bytes that are decompressed at once, to at most twice as many: the memory of longer ones goes back to the system each time,
which makes decompressing a third slower (measured)."""
_HANDED_OVER = 4
"""Of those pieces at once."""

GZIP = b"\x1f\x8b"
"""What every gzip stream begins with (RFC 1952)."""
_GZIP = 31
"""zlib's `wbits` for a gzip wrapper with the largest window."""
_RAW = -15
"""The same without any wrapper."""
_HEADER = bytes([*GZIP, 8, 0, 0, 0, 0, 0, 4, 255])
"""gzip's (RFC 1952): no time, no name, the fastest compression, no system."""
_LAST_BLOCK = b"\x03\x00"
"""An empty block that says it is the last one."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Sums:
    """What one pass over a stream measured."""

    bytes: int
    sha256: str
    uncompressed_bytes: int


def nothing(_: object) -> None:
    """A progress callback that shows nothing."""


def blocks_of(stream: IO[bytes]) -> Iterator[bytes]:
    """The bytes of an open stream, a block at a time."""
    while block := stream.read(BLOCK):
        yield block


class Sink(Protocol):
    """Where compressed bytes go."""

    def write(self, piece: bytes, /) -> object: ...

    def close(self) -> None:
        """No more will come, and nothing is held back any longer."""


def pack(
    blocks: Iterable[bytes],
    path: Path,
    *,
    subject: str,
    stage: str,
    progress: Callable[[int], None] = nothing,
    through: Callable[[Sink], Sink] | None = None,
) -> Sums:
    """Write `blocks` as a gzip file that must not exist yet (0600, fsynced), hashing it in the same pass.

    `subject` (the volume) and `stage` only serve messages. `progress` gets the number of uncompressed bytes taken so far. What
    `through` makes of the file's sink gets the compressed bytes before the disk does. Where recipients are set they are sealed
    last of all (`seal`), and the size and sum are those of the sealed file. Raises BackupFailed when the file cannot be written,
    synced or closed; whatever `blocks` and `through` raise passes. A file that was not finished is removed. Memory: some 10
    blocks.
    """
    size = checksum = 0

    with _new_file(path, subject, stage) as file:
        sealing = seal.sink(file)
        sink = through(sealing) if through is not None else sealing
        workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4)
        with _lane(workers) as squeezing, _lane() as writing:
            under_way: deque[Future[object]] = deque([writing.submit(sink.write, _HEADER)])
            window = b""
            for block in blocks:
                under_way.append(writing.submit(_write_result, sink, squeezing.submit(_squeezed, block, window)))
                checksum = zlib.crc32(block, checksum)
                window = block[-WINDOW:] if len(block) >= WINDOW else (window + block)[-WINDOW:]
                size += len(block)
                while len(under_way) > workers + AHEAD:
                    under_way.popleft().result()
                progress(size)
            while under_way:
                under_way.popleft().result()
        sink.write(_LAST_BLOCK + struct.pack("<II", checksum, size & 0xFFFFFFFF))
        sink.close()
    return Sums(file.size, file.sha256, size)


def keep(blocks: Iterable[bytes], path: Path, *, subject: str, stage: str, progress: Callable[[int], None] = nothing) -> Sums:
    """`pack` for a gzip stream that somebody else compresses: it is written as it comes, and opened beside that to be measured.

    `progress` gets uncompressed bytes too. Raises BackupFailed also for what is no gzip stream. Whether it ends as it should is not
    judged here: its maker's exit code says why it does not, and the proof reads it all.
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
            raise BackupFailed(f"volume {subject}: {stage}: what came is no gzip stream ({error})") from error
        return size

    with _new_file(path, subject, stage) as file:
        sink = seal.sink(file)
        with _lane() as opening, _lane() as writing:
            under_way: deque[tuple[Future[object], Future[int]]] = deque()
            for block in blocks:
                under_way.append((writing.submit(sink.write, block), opening.submit(measure, block)))
                while len(under_way) > AHEAD:
                    _both_done(*under_way.popleft(), progress)
            while under_way:
                _both_done(*under_way.popleft(), progress)
        sink.close()
    return Sums(file.size, file.sha256, size)


def _both_done(written: "Future[object]", measured: "Future[int]", progress: Callable[[int], None]) -> None:
    written.result()
    progress(measured.result())


@contextmanager
def _lane(workers: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Threads for the length of a block; one alone does its work in order. What has not begun when the block fails is
    dropped, and what has is waited for."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="stream")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _squeezed(block: bytes, window: bytes) -> bytes:
    """A part of a deflate stream that ends at a byte's border."""
    if window:
        compressor = zlib.compressobj(1, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, window)
    else:
        compressor = zlib.compressobj(1, zlib.DEFLATED, _RAW)
    return compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)


def _write_result(sink: Sink, piece: "Future[bytes]") -> None:
    sink.write(piece.result())


class _File:
    """A file of ours while it is written: hashed, and every fault named."""

    def __init__(self, descriptor: int, path: Path, subject: str, stage: str) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._where = path, subject, stage
        self._hash = sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, piece: bytes, /) -> None:
        self._hash.update(piece)
        self.size += len(piece)
        _write(self._file, piece, *self._where)

    def close(self) -> None:
        """Bring it to the disk."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()  # network file systems and quotas report here
        except OSError as error:
            raise _unwritten(error, *self._where) from error

    def abandon(self) -> None:
        with suppress(OSError):
            self._file.close()


@contextmanager
def _new_file(path: Path, subject: str, stage: str) -> Iterator[_File]:
    """A file that must not exist yet, for the length of a block that closes it; else it is removed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unwritten(error, path, subject, stage) from error
    file = _File(descriptor, path, subject, stage)
    done = False
    try:
        yield file
        done = True
    finally:
        file.abandon()
        if not done:
            with suppress(OSError):
                path.unlink()


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """The file that a block makes is removed when the block fails: its source may tell only after the last byte that it was
    not the last. One that was there before is not touched."""
    before = os.path.lexists(path)
    try:
        yield
    except BaseException:
        if not before:
            with suppress(OSError):
                path.unlink()
        raise


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


def check(
    folder: Path, artifact: Artifact, *, progress: Callable[[int], None] = nothing, given_up: Callable[[], bool] = lambda: False
) -> None:
    """L1: the file on disk has the size and sha256 that were measured while it was written; raises VerifyFailed. `progress` gets
    bytes of the file."""
    digest = sha256()
    done = 0
    with _open(folder, artifact) as file:
        try:
            while not given_up() and (block := file.read(BLOCK)):
                digest.update(block)
                done += len(block)
                progress(done)
        except OSError as error:
            raise unproved(artifact, error.strerror or str(error)) from error
    if digest.hexdigest() != artifact.sha256:
        raise unproved(artifact, "its sha256 is not the one measured when it was written: the file was changed or is damaged")


@contextmanager
def checking(folder: Path, *artifacts: Artifact) -> Iterator[Callable[[], None]]:
    """`check` files while the block prepares something else; what is yielded waits for the end of that and raises VerifyFailed."""
    left = threading.Event()

    def run() -> None:
        for artifact in artifacts:
            check(folder, artifact, given_up=left.is_set)

    with _lane() as reading:
        checked = reading.submit(run)
        try:
            yield checked.result
        finally:
            left.set()


def unpack(
    folder: Path, artifact: Artifact, *, progress: Callable[[int], None] = nothing, checked: bool = False
) -> Iterator[bytes]:
    """The uncompressed bytes of an artifact; by the last block everything was held against what was measured.

    Raises VerifyFailed for a file that is missing, cut, followed by anything, or has another size or sum than recorded, at
    the latest after its last block: whoever cannot take bytes back calls `check` first, and says so by `checked`: then the sha256
    is not made a second time, only the size and gzip's own sum. `progress` gets uncompressed bytes. Reads and decompresses ahead
    of whoever takes the blocks.
    """
    size = 0
    for block in _ahead(_inflated(folder, artifact, checked)):
        size += len(block)
        progress(size)
        yield block
    if size != artifact.uncompressed_bytes:
        raise unproved(artifact, "it does not hold as many bytes as were written")


def _ahead(blocks: Generator[bytes, None, None]) -> Iterator[bytes]:
    """The same blocks, made in a thread while those before are in use; a few at a time, because handing over costs."""
    try:
        with _lane() as making:
            coming = deque(making.submit(_some, blocks) for _ in range(2))
            while some := coming.popleft().result():
                coming.append(making.submit(_some, blocks))
                yield from some
    finally:
        blocks.close()


def _some(blocks: Iterator[bytes]) -> tuple[bytes, ...]:
    return tuple(islice(blocks, _HANDED_OVER))


def _inflated(folder: Path, artifact: Artifact, checked: bool) -> Generator[bytes, None, None]:
    """The blocks of an artifact; by the last one its file was held against what was measured. Raises VerifyFailed."""
    packed = sha256()
    measure: Callable[[bytes], object] = nothing if checked else packed.update
    size = 0
    decompressor = zlib.decompressobj(_GZIP)
    with _open(folder, artifact) as file, closing(_compressed(folder, artifact, file, measure)) as pieces:
        while not decompressor.eof:
            piece = next(pieces, b"")
            if not piece:
                raise unproved(artifact, "the gzip stream ends too early")
            while piece and not decompressor.eof:
                try:
                    block = decompressor.decompress(piece, 2 * _PIECE)
                except zlib.error as error:
                    raise unproved(artifact, f"the gzip stream is damaged ({error})") from error
                piece = decompressor.unconsumed_tail
                if block:
                    size += len(block)
                    if size > artifact.uncompressed_bytes:
                        raise unproved(artifact, "it holds more bytes than were written")
                    yield block
        if decompressor.unused_data or next(pieces, b""):
            raise unproved(artifact, "something follows the gzip stream")
    if not checked and packed.hexdigest() != artifact.sha256:
        raise unproved(artifact, "its sha256 is not the one measured when it was written: the file was changed or is damaged")


def _compressed(
    folder: Path, artifact: Artifact, file: IO[bytes], measure: Callable[[bytes], object]
) -> Generator[bytes, None, None]:
    """The gzip stream of a file, opened where it is sealed; `measure` sees what lies on the disk."""

    def read(size: int) -> bytes:
        try:
            piece = file.read(size)
        except OSError as error:
            raise unproved(artifact, error.strerror or str(error)) from error
        measure(piece)
        return piece

    if not seal.is_sealed(file):
        while piece := read(_PIECE):
            yield piece
        return
    try:
        yield from seal.opened(read, artifact.file)
    except seal.Damaged as damage:
        raise unproved(artifact, str(damage)) from damage
    except seal.Locked:
        check(folder, artifact)  # a head that was changed looks like one for others
        raise


def _open(folder: Path, artifact: Artifact) -> IO[bytes]:
    try:
        file = (folder / artifact.file).open("rb", buffering=0)
    except OSError as error:
        raise unproved(artifact, error.strerror or str(error)) from error
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_size != artifact.bytes:
        file.close()
        raise unproved(artifact, f"it has {found.st_size} bytes, {artifact.bytes} were written")
    return file


def renamed(folder: Path, record: VolumeRecord) -> VolumeRecord:
    """The record with `.age` at the end of the names of its sealed files, which are renamed. Raises BackupFailed."""
    artifacts = []
    for artifact in record.artifacts:
        with _open(folder, artifact) as file:
            sealed = seal.is_sealed(file)
        if sealed:
            path, new = folder / artifact.file, artifact.file + seal.SUFFIX
            try:
                path.rename(folder / new)
            except OSError as error:
                raise _unwritten(error, path, record.name, "seal") from error
            artifact = replace(artifact, file=new)
        artifacts.append(artifact)
    return replace(record, artifacts=tuple(artifacts))


def locked(folder: Path, record: VolumeRecord) -> seal.Locked | None:
    """Why the sealed files of a volume cannot be opened with the identities at hand; None when they can.

    Raises VerifyFailed for a file that is damaged.
    """
    for artifact in record.artifacts:
        if artifact.sealed:
            with _open(folder, artifact) as file, closing(_compressed(folder, artifact, file, lambda _: None)) as pieces:
                try:
                    next(pieces, b"")
                except seal.Locked as fault:
                    return fault
    return None


def unproved(artifact: Artifact, cause: str) -> VerifyFailed:
    """The fault of an artifact that does not prove itself."""
    return VerifyFailed(
        f"volume {artifact.volume}: verify: {artifact.file}: {cause}; this backup is not counted as good",
        next_step="make a new backup, or restore from another one: safe-compose list",
    )


def evidence(level: str, subject: str, what: str) -> Evidence:
    """An Evidence of this moment."""
    return Evidence(level, subject, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), what)
