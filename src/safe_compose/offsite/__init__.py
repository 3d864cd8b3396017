"""Copies of backups elsewhere: how one is sent so that half of it never looks whole, read back, and fetched.

What lies at a destination is what lies in the store: `<project>/<id>/` with every file of the backup except what was found
out about it later. `SHA256SUMS`, made when the backup was, is the truth on both sides; no server's checksum is trusted.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol, runtime_checkable

from safe_compose.destination import Destination
from safe_compose.errors import BackupFailed, VerifyFailed

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
PARTIAL = ".partial-"
BLOCK = 1 << 20
"""Bytes that are handed on at a time."""
LARGEST_TEXT = 64 << 20
"""Bytes; `SHA256SUMS` or a manifest above that is none."""

Progress = Callable[[int], None]
"""Called with the bytes that went over the line since the last call."""


class Place(Protocol):
    """An open destination. Names are relative, `/` separated. Every fault is a BackupFailed, a missing file a `Missing`."""

    def check(self, need: int) -> None:
        """It is there and has room for so many bytes, as far as it can tell."""

    def copies(self) -> list[str]:
        """`<project>/<id>` of every folder that has a manifest under its own name."""

    def files(self, folder: str) -> dict[str, int]:
        """Name below the folder -> size of every file in it; nothing where there is no such folder."""

    def put(self, name: str, blocks: Iterable[bytes], size: int) -> None:
        """Write a file, synced where that can be asked for; it appears, or replaces an old one, only when it is whole."""

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes of a file."""

    def close(self) -> None: ...


@runtime_checkable
class Staging(Place, Protocol):
    """One where a copy is made under another name and gets its own by a rename. Elsewhere its manifest, which comes last, makes
    it one."""

    def rename(self, old: str, new: str) -> None:
        """Give a folder its name."""


class Missing(Exception):
    """There is no such file at the destination."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a backup, and what it must be."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did."""

    bytes: int
    """Of the whole copy."""
    sent: tuple[str, ...] = ()
    """The files that were sent; the others were there already. All were read back."""
    was_whole: bool = field(default=False)
    """The copy was there before; what was sent replaces damaged files of it."""


def open_place(destination: Destination) -> Place:
    """Connect. Raises BackupFailed when the destination cannot be reached or its extra is not installed."""
    if destination.kind == "s3":
        from safe_compose.offsite.s3 import Bucket

        return Bucket(destination)
    if destination.kind == "sftp":
        from safe_compose.offsite.sftp import Server

        return Server(destination)
    from safe_compose.offsite.folder import Folder

    return Folder(destination)


def unusable(destination: Destination, why: str, *, next_step: str | None = None) -> BackupFailed:
    """The fault of one destination, in words."""
    return BackupFailed(f"off-site {destination.name}: {why}", next_step=next_step)


# -- send --------------------------------------------------------------------------------------------------------------


def items(folder: Path, sums: dict[str, str]) -> list[Item]:
    """What a copy of the backup in that folder is made of, its manifest last. sums: name -> sha256, of `SHA256SUMS`.

    Raises VerifyFailed for a file that is missing.
    """
    names = [name for name in sums if name != MANIFEST]
    try:
        digests = {**sums, SUMS: sha256((folder / SUMS).read_bytes()).hexdigest()}
        return [Item(name, (folder / name).stat().st_size, digests[name]) for name in (*names, SUMS, MANIFEST)]
    except (OSError, KeyError) as error:
        raise VerifyFailed(f"backup {folder.name} is damaged in the store ({error}); it was not copied") from error


def push(place: Place, folder: Path, key: str, every: list[Item], progress: Progress) -> Pushed:
    """Copy a backup to `key` (`<project>/<id>`) and read every byte of it back. Whole files that are there stay.

    Raises VerifyFailed when a local file is not what it was, when another backup of this name is there, or when what was read
    back differs; BackupFailed. Then no whole copy is there that was not there before.
    """
    parent, _, backup_id = key.rpartition("/")
    partial = f"{parent}/{PARTIAL}{backup_id}" if isinstance(place, Staging) else key
    there = place.files(key)
    whole = MANIFEST in there
    at = key if whole else partial
    if whole and not _matches(place, at, every[-1], there, lambda _: None):
        raise VerifyFailed(f"another backup with the id {backup_id} is there already; nothing was sent")
    if not whole:
        there = place.files(at)
    place.check(sum(item.bytes for item in every if there.get(item.name) != item.bytes))
    sent = []
    for item in every:
        if _matches(place, at, item, there, progress):
            continue
        place.put(f"{at}/{item.name}", _hashed(folder, item, progress), item.bytes)
        sent.append(item.name)
        if not _matches(place, at, item, {item.name: item.bytes}, progress):
            raise VerifyFailed(f"{item.name} of backup {backup_id} was sent, but what was read back differs")
    if isinstance(place, Staging) and at != key:
        place.rename(at, key)
    return Pushed(sum(item.bytes for item in every), tuple(sent), whole)


def _hashed(folder: Path, item: Item, progress: Progress) -> Iterator[bytes]:
    """The bytes of a local file; by the last one they were held against their sum."""
    digest, size = sha256(), 0
    try:
        with (folder / item.name).open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
                if size > item.bytes:
                    break
                progress(len(block))
                yield block
    except OSError as error:
        raise VerifyFailed(f"{item.name} cannot be read from the store: {error.strerror or error}") from error
    if size != item.bytes or digest.hexdigest() != item.sha256:
        raise VerifyFailed(f"{item.name} of backup {folder.name} is damaged in the store; it was not copied")


def _matches(place: Place, folder: str, item: Item, there: dict[str, int], progress: Progress) -> bool:
    """Is that very file there, from its first byte to its last?"""
    if there.get(item.name) != item.bytes:
        return False
    digest, size = sha256(), 0
    try:
        for block in place.read(f"{folder}/{item.name}"):
            digest.update(block)
            size += len(block)
            progress(len(block))
    except Missing:
        return False
    return size == item.bytes and digest.hexdigest() == item.sha256


# -- look --------------------------------------------------------------------------------------------------------------


def text(place: Place, name: str) -> bytes:
    """A small file. Raises Missing, VerifyFailed when it is large."""
    data = b""
    for block in place.read(name):
        data += block
        if len(data) > LARGEST_TEXT:
            raise VerifyFailed(f"{name} is larger than any of ours")
    return data


def compare(place: Place, key: str, sums: dict[str, str], progress: Progress) -> list[str]:
    """Read a whole copy back; what is wrong with it, in words. sums: name -> sha256 of all that must be there."""
    there = place.files(key)
    faults = []
    for name, digest in sums.items():
        if name not in there:
            faults.append(f"{name} is missing")
        elif not _matches(place, key, Item(name, there[name], digest), there, progress):
            faults.append(f"{name} is damaged")
    return faults


# -- fetch -------------------------------------------------------------------------------------------------------------


def fetch(place: Place, name: str, digest: str, size: int, progress: Progress) -> Iterator[bytes]:
    """The bytes of a file; by the last one they were held against `digest`. Raises VerifyFailed."""
    found, count = sha256(), 0
    try:
        for block in place.read(name):
            found.update(block)
            count += len(block)
            if count > size:
                break
            progress(len(block))
            yield block
    except Missing as missing:
        raise VerifyFailed(f"{name} is missing there; nothing was kept") from missing
    if found.hexdigest() != digest:
        raise VerifyFailed(f"{name} is damaged there; nothing was kept")
