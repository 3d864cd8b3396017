"""Single entries of volumes, read through a container that is created and never started."""

import base64
import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from re import Pattern
from typing import Any, NamedTuple

from safe_compose.core.observed import describe_location
from safe_compose.engine import client_stream
from safe_compose.engine.errors import changing, inspecting, read_message
from safe_compose.errors import OperationFailed

STAT = "X-Docker-Container-Path-Stat"
"""The response header that describes the entry at a path."""
_FOLDER, _LINK = 1 << 31, 1 << 27
"""Bits of its `mode` (Go's io/fs, FileMode)."""
_TYPES = _FOLDER | _LINK | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
"""Every bit that makes an entry something else than a regular file."""
_MOST_IN_VAIN = 100
_SHORTEST = 0.2
"""Shortest timeout of one answer, in seconds."""


@dataclass(frozen=True, slots=True)
class VolumeEntry:
    """The engine's description of one entry of a volume."""

    size: int
    changed: datetime | None
    """The modification time, UTC; None where it is unreadable."""
    is_file: bool
    """Whether it is a regular file, and no link to one."""
    is_folder: bool


class VolumeListing(NamedTuple):
    """The content of a folder, as far as it was read."""

    names: tuple[str, ...] = ()
    """In the engine's order: by name."""
    whole: bool = True
    """Whether all names were seen."""
    files: Mapping[str, bytes] = {}
    """The content of the requested files, by their paths below the folder."""


class Entries:
    """A reader of single entries of some volumes; `Archives.entries` makes it.

    The engine follows symbolic links on the way, within its empty image and the volumes, but not
    one at the end of a path.
    """

    def __init__(self, api: Any, places: Mapping[str, tuple[str, str]], until: float) -> None:
        """Read through the containers of `places` until the monotonic time `until`."""
        self._api = api
        self._places = places
        """Volume -> a container that has it, and the path there."""
        self._until = until

    def stat(self, volume: str, path: str) -> VolumeEntry | None:
        """Return the entry at a path, or None.

        Raises:
            OperationFailed: The engine does not answer properly, or in time.
        """
        with inspecting():
            answer = self._api.head(
                self._url(volume), params={"path": self._at(volume, path)}, timeout=self._seconds()
            )
        if answer.status_code == 404:
            return None
        if not answer.ok:
            raise OperationFailed(
                f"docker could not look at {path} of {describe_location(volume)}"
                f" ({answer.status_code})"
            )
        return _entry(answer.headers.get(STAT, ""))

    def file(self, volume: str, path: str, limit: int) -> bytes | None:
        """Return the bytes of a regular file, or None.

        None where there is none, or it has more than `limit` bytes.

        Raises:
            OperationFailed: The engine does not send the file properly, or in time.
        """
        with self._receiving(volume, path) as answer:
            if not answer.ok:
                return None
            data = Chunks(read_chunks(answer), limit + (64 << 10)).read(limit + (32 << 10))
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
                member = archive.next()
                opened = (
                    archive.extractfile(member)
                    if member is not None and member.isreg() and member.size <= limit
                    else None
                )
                return opened.read() if opened is not None else None
        except (tarfile.TarError, OSError) as error:
            raise OperationFailed(
                f"docker sent no file of {describe_location(volume)}: {error}"
            ) from error

    def listing(
        self, volume: str, path: str = "", *, limit: int, keep: Pattern[str] | None = None
    ) -> VolumeListing | None:
        """Return the content of a folder, or None where there is no folder.

        Args:
            volume: Name of the volume.
            path: Path of the folder; empty: the root.
            limit: Most bytes of the folder's archive that are read.
            keep: Matches paths, below the folder, of regular files whose content is returned too.

        Raises:
            OperationFailed: The engine cannot read the folder.
        """
        with self._receiving(volume, path) as answer:
            if answer.status_code == 404:
                return None
            if not answer.ok:
                raise OperationFailed(
                    f"docker could not read {path or 'the root'} of {describe_location(volume)}:"
                    f" {read_message(answer)}"
                )
            if not is_folder(
                answer.headers.get(STAT, ""), self._at(volume, path).rpartition("/")[2]
            ):
                return None
            return list_archive(Chunks(read_chunks(answer), limit), keep)

    @contextmanager
    def _receiving(self, volume: str, path: str) -> Iterator[Any]:
        """Yield the answer with the archive of one entry."""
        with inspecting():
            answer = self._api.get(
                self._url(volume),
                params={"path": self._at(volume, path)},
                stream=True,
                timeout=self._seconds(),
            )
        with answer:
            yield answer

    def _url(self, volume: str) -> str:
        container_id = self._places[volume][0]
        return f"{self._api.base_url}/v{self._api.api_version}/containers/{container_id}/archive"

    def _at(self, volume: str, path: str) -> str:
        return f"{self._places[volume][1]}/{path}".rstrip("/")

    def _seconds(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise OperationFailed("the time for it is over")
        return max(left, _SHORTEST)


def read_chunks(answer: Any) -> Iterator[bytes]:
    """Yield the body of an answer.

    Raises:
        OperationFailed: The connection broke.
    """
    with changing("send the whole archive"):
        yield from answer.iter_content(client_stream.CHUNK)


def list_archive(source: "Chunks", keep: Pattern[str] | None) -> VolumeListing:
    """Return the names at the top of an archive's folder, and the files that `keep` matches."""
    names: dict[str, None] = {}
    files: dict[str, bytes] = {}
    whole = False
    try:
        with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as archive:
            for member in archive:
                below = member.name.strip("/").partition("/")[2]
                if below:
                    names.setdefault(below.partition("/")[0])
                if (
                    keep is not None
                    and member.isreg()
                    and keep.fullmatch(below)
                    and (opened := archive.extractfile(member))
                ):
                    content = opened.read()
                    if len(content) == member.size:
                        files[below] = content
            whole = source.ends_at(archive.offset)
    except (tarfile.TarError, OSError):
        whole = False
    return VolumeListing(tuple(names), whole, files)


def is_folder(header: str, name: str) -> bool:
    """Return whether the engine says that the requested path is a folder of this name.

    A link to one is not.
    """
    stat = _stat(header)
    if stat is None:
        return False
    mode = stat["mode"]
    return (
        stat.get("name") == name
        and bool(mode & _FOLDER)
        and not mode & _LINK
        and not stat.get("linkTarget")
    )


def _entry(header: str) -> VolumeEntry:
    stat = _stat(header)
    if stat is None:
        raise OperationFailed("the engine does not say what lies in the volume")
    linked = bool(stat.get("linkTarget"))
    folder = bool(stat["mode"] & _FOLDER) and not linked
    return VolumeEntry(
        stat["size"], _moment(stat.get("mtime")), not stat["mode"] & _TYPES and not linked, folder
    )


def _stat(header: str) -> dict[str, Any] | None:
    try:
        stat = json.loads(base64.b64decode(header, validate=True))
        return {**stat, "mode": int(stat["mode"]), "size": int(stat.get("size", 0))}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _moment(text: object) -> datetime | None:
    try:
        # Go writes nanoseconds; Python reads six digits at most
        found = datetime.fromisoformat(
            str(text)[:19] + "+00:00"
            if str(text).endswith("Z")
            else str(text)[:19] + str(text)[-6:]
        )
        return found.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter next to the years 1 and 9999
        return None


class Chunks(io.RawIOBase):
    """A file over byte chunks that ends early after `limit` bytes."""

    def __init__(self, chunks: Iterator[bytes], limit: int) -> None:
        """Read from `chunks`."""
        self._chunks = chunks
        self._left = limit
        self._rest = b""
        self._taken = 0
        self._content = 0
        """The offset of the end of the last non-zero byte of a chunk."""
        self._ended = False
        self._asked_in_vain = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes.

        Raises:
            OSError: The caller asks again and again after the end: tarfile skips a file of 8 EiB,
                10 KiB at a time, to find its end.
        """
        while len(self._rest) < size and self._more():
            continue
        piece, self._rest = self._rest[:size], self._rest[size:]
        self._asked_in_vain = 0 if piece else self._asked_in_vain + 1
        if self._asked_in_vain > _MOST_IN_VAIN:
            raise OSError("the archive ends within a file")
        return piece

    def ends_at(self, offset: int) -> bool:
        """Return whether the stream ends within the limit, with only zeros from `offset` on."""
        while self._more():
            self._rest = b""
        return self._ended and self._content <= offset

    def _more(self) -> bool:
        chunk = next(self._chunks, None) if self._left > 0 and not self._ended else None
        if chunk is None:
            self._ended = self._ended or self._left > 0
            return False
        if used := len(chunk.rstrip(b"\0")):
            self._content = self._taken + used
        self._taken += len(chunk)
        self._left -= len(chunk)
        self._rest += chunk
        return True
