"""What is in a volume, as tar streams of the archive API: no process reads or writes it, so every image will do."""

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from safe_compose.engine import clients
from safe_compose.engine.faults import acting, reading, words_of
from safe_compose.engine.helpers import PARKED_AT, Helpers
from safe_compose.errors import BackupFailed, SafeComposeError

ROOTS_AT_ONCE = 64
"""Volumes that one container is made for when the roots of many are listed."""
ROOT_LISTING_LIMIT = 8 * 1024 * 1024
"""Bytes of a volume's archive that are read at most to list its root."""


class Archives(Helpers):
    """A daemon whose volumes can be read and filled through containers that are created and never started."""

    @contextmanager
    def archive_out(self, volume: str, image: str | None = None) -> Iterator[Iterator[bytes]]:
        """The volume as a tar stream with members `volume/...`, by the archive API of a created, never started container.

        The way without GNU tar: loses user.* xattrs, parts of seconds, sockets and sparseness (lab.md, section 3). `image`
        is any local image's id; None imports an empty one tagged `safe-compose/empty`, which stays.
        """
        with self._parked(volume, image, read_only=True) as container_id, self._archive(container_id) as chunks:
            yield chunks

    def archive_in(self, volume: str, image: str | None, chunks: Iterable[bytes]) -> None:
        """Unpack a tar stream with members `volume/...` into the volume; into a fresh one, since a cut stream leaves parts.

        Unpacked at `/`, because at `/volume` the root folder would lose its owner and mode (lab.md, section 3, run).
        """
        with (
            self._parked(volume, image, read_only=False) as container_id,
            acting(f"unpack an archive into volume {volume}"),
        ):
            api = self._way.api
            url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/archive"
            # no limit on the time between two chunks: the daemon answers when the last one is on its disk
            answer = api.put(url, params={"path": "/"}, data=iter(chunks), timeout=None)
            if not answer.ok:
                raise BackupFailed(f"docker could not unpack an archive into volume {volume}: {words_of(answer)}")

    def list_root(self, volume: str, image: str | None = None) -> list[str] | None:
        """Names at the volume's root, read through a created, never started container of any local image.

        [] is sure: nothing is in it. A long list may be cut (only the first 8 MiB of its archive are read). None: it could
        not be read, or there is no image at all (none is made for this: a look writes nothing that stays).
        """
        try:
            any_image = image or next((i.id for i in self.images()), None)
            if any_image is None or self.volume(volume) is None:
                return None
            with self._parked(volume, any_image, read_only=True) as container_id:
                names, whole = self._names_below(container_id, 1)
            return names.get("") or ([] if whole else None)  # where no end was seen, nothing is sure
        except SafeComposeError:
            return None

    def list_roots(self, volumes: Sequence[str]) -> dict[str, list[str] | None]:
        """The same of many: one container and one archive for all that are empty or small, so that a hundred take no longer
        than a few."""
        found: dict[str, list[str] | None] = dict.fromkeys(volumes)
        left = list(volumes)
        while left:
            some, left = left[:ROOTS_AT_ONCE], left[ROOTS_AT_ONCE:]
            if len(some) == 1:
                found[some[0]] = self.list_root(some[0])
                continue
            listed = self._roots(some)
            found |= listed
            unseen = [name for name in some if name not in listed]
            if len(unseen) == len(some):
                found |= {name: self.list_root(name) for name in some}
            else:
                left = unseen + left
        return found

    def _roots(self, volumes: Sequence[str]) -> dict[str, list[str] | None]:
        """The roots of those that stand before the limit in one archive of all; nothing when there is none to be had."""
        from docker.types import Mount as MountPoint

        try:
            gone = {name: None for name in volumes if self.volume(name) is None}
            there = [name for name in volumes if name not in gone]
            image = next((i.id for i in self.images()), None)
            if image is None or not there:
                return dict(gone)
            mounts = [
                MountPoint(f"{PARKED_AT}/{number:03}", name, type="volume", read_only=True, no_copy=True)
                for number, name in enumerate(there)
            ]
            with self._created(image, {}, mounts, f"to reach {len(there)} volumes") as container_id:
                names, whole = self._names_below(container_id, 2)
        except SafeComposeError:
            return {}
        # The archive goes by name: what stands before the last that was seen was read to its end.
        known = len(there) if whole else max((int(root) for root in names), default=0)
        if not known:
            return gone | {there[0]: self.list_root(there[0])}
        return gone | {name: list(names.get(f"{number:03}", ())) for number, name in enumerate(there[:known])}

    def _names_below(self, container_id: str, depth: int) -> tuple[dict[str, list[str]], bool]:
        """Of an archive of /volume the names at a depth, by the folder above them; and whether its end was seen."""
        names: dict[str, dict[str, None]] = {}
        source: _Chunks | None = None
        try:
            with self._archive(container_id) as chunks:
                source = _Chunks(chunks, ROOT_LISTING_LIMIT)
                with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as archive:
                    for member in archive:
                        parts = member.name.strip("/").split("/")
                        if len(parts) > depth:
                            names.setdefault("/".join(parts[1:depth]), {}).setdefault(parts[depth])
        except (SafeComposeError, tarfile.TarError, OSError):
            return {root: list(found) for root, found in names.items()}, False
        return {root: list(found) for root, found in names.items()}, source.whole

    @contextmanager
    def _archive(self, container_id: str) -> Iterator[Iterator[bytes]]:
        with reading():
            api = self._way.api
            url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/archive"
            answer = api.get(url, params={"path": PARKED_AT}, stream=True, timeout=60)
        with answer:
            if not answer.ok:
                raise BackupFailed(f"docker could not read the volume: {words_of(answer)}")
            yield _chunks(answer)


class _Chunks(io.RawIOBase):
    """A file over byte chunks that ends early after `limit` bytes; `whole` tells whether the real end was seen."""

    def __init__(self, chunks: Iterator[bytes], limit: int) -> None:
        self._chunks = chunks
        self._left = limit
        self._rest = b""
        self.whole = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and self._left > 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.whole = True
                break
            self._left -= len(chunk)
            self._rest += chunk
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def _chunks(answer: Any) -> Iterator[bytes]:
    """The body of an answer; a connection that breaks is a BackupFailed."""
    with acting("send the whole archive"):
        yield from answer.iter_content(clients.CHUNK)
