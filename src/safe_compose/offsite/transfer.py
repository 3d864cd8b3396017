"""Transfers of backups: an off-site copy is sent so that half of it never looks complete.

Copies are read back after sending, and fetched. A destination has the layout of the store:
`<project>/<id>/` with every file of the backup except later findings about it. `SHA256SUMS`, made
with the backup, decides on both sides; no server's checksum is trusted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from os import fdopen
from pathlib import Path

from safe_compose.core.destination import Destination
from safe_compose.errors import VerificationFailed
from safe_compose.offsite.limits import LARGEST_TEXT, require_progress
from safe_compose.offsite.place import (
    BLOCK,
    MANIFEST,
    PARTIAL,
    SUMS,
    Data,
    FileMissing,
    Place,
    Progress,
    Staging,
)
from safe_compose.system.files import explain_error, open_below, read_regular


@dataclass(frozen=True, slots=True)
class TransferItem:
    """A file of a backup, with its required size and digest."""

    name: str
    bytes: int
    sha256: str
    data: Data | None = None
    """The bytes, where the file is not in the backup's folder."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """The result of a push."""

    bytes: int
    """Bytes of the whole copy."""
    sent: tuple[str, ...] = ()
    """The files that were sent; the others already existed. All were read back."""
    was_whole: bool = field(default=False)
    """Whether the copy existed before; then the sent files replace damaged ones."""


def open_place(destination: Destination) -> Place:
    """Connect to a destination.

    Raises:
        OperationFailed: It cannot be reached, or its extra is not installed.
        PlaceUnusable: It does not answer properly, or in time.
    """
    if destination.kind == "s3":
        from safe_compose.offsite.s3 import Bucket

        return Bucket(destination)
    if destination.kind == "sftp":
        from safe_compose.offsite.sftp import SftpServer

        return SftpServer(destination)
    from safe_compose.offsite.folder import Folder

    return Folder(destination)


# -- send ------------------------------------------------------------------------------------------


def list_items(folder: Path, sums: dict[str, str]) -> list[TransferItem]:
    """Return the files of a copy of the backup in a folder, the manifest last.

    Args:
        folder: The folder of the backup.
        sums: Name -> sha256, from `SHA256SUMS`.

    Raises:
        VerificationFailed: A file is missing.
    """
    names = [name for name in sums if name != MANIFEST]
    try:
        digests = {**sums, SUMS: sha256(read_regular(folder / SUMS)).hexdigest()}
        return [
            TransferItem(name, (folder / name).lstat().st_size, digests[name])
            for name in (*names, SUMS, MANIFEST)
        ]
    except (OSError, KeyError) as error:
        raise VerificationFailed(
            f"backup {folder.name} is damaged in the store ({error}); it was not copied"
        ) from error


def push(
    place: Place, folder: Path, key: str, every: list[TransferItem], progress: Progress
) -> PushResult:
    """Copy a backup to `key` (`<project>/<id>`) and read every byte of it back.

    Complete files that already exist there stay. After an error, no copy is complete that was not
    complete before.

    Raises:
        VerificationFailed: A local file is damaged, another backup of this name exists there, or
            the data read back differs.
        OperationFailed: The place cannot be used.
    """
    parent, _, backup_id = key.rpartition("/")
    partial = f"{parent}/{PARTIAL}{backup_id}" if isinstance(place, Staging) else key
    there = place.files(key)
    whole = MANIFEST in there
    at = key if whole else partial
    if whole and not _is_same_file(place, at, every[-1], there, lambda _: None):
        raise VerificationFailed(
            f"another backup with the id {backup_id} is there already; nothing was sent"
        )
    if not whole:
        there = place.files(at)
    place.check(sum(item.bytes for item in every if there.get(item.name) != item.bytes))
    sent = []
    for item in every:
        if _is_same_file(place, at, item, there, progress):
            continue
        place.put(f"{at}/{item.name}", _hash_blocks(folder, item, progress), item.bytes)
        sent.append(item.name)
        if not _is_same_file(place, at, item, {item.name: item.bytes}, progress):
            raise VerificationFailed(
                f"{item.name} of backup {backup_id} was sent, but what was read back differs"
            )
    if isinstance(place, Staging) and at != key:
        place.rename(at, key)
    return PushResult(sum(item.bytes for item in every), tuple(sent), whole)


def _hash_blocks(folder: Path, item: TransferItem, progress: Progress) -> Iterator[bytes]:
    """Yield the bytes of a local file and compare their digest at the end.

    Raises:
        VerificationFailed: The file cannot be read, or is damaged.
    """
    if item.data is not None:
        progress(len(item.data))
        yield item.data
        return
    digest, size = sha256(), 0
    try:
        with fdopen(open_below(folder, item.name), "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
                if size > item.bytes:
                    break
                progress(len(block))
                yield block
    except OSError as error:
        raise VerificationFailed(
            f"{item.name} cannot be read from the store: {explain_error(error)}; it was not copied"
        ) from error
    if size != item.bytes or digest.hexdigest() != item.sha256:
        raise VerificationFailed(
            f"{item.name} of backup {folder.name} is damaged in the store; it was not copied"
        )


def _is_same_file(
    place: Place, folder: str, item: TransferItem, there: dict[str, int], progress: Progress
) -> bool:
    """Return whether exactly this file is there; it is read completely."""
    if there.get(item.name) != item.bytes:
        return False
    digest, size = sha256(), 0
    try:
        for block in require_progress(place.title, place.read(f"{folder}/{item.name}")):
            digest.update(block)
            size += len(block)
            if size > item.bytes:
                return False
            progress(len(block))
    except FileMissing:
        return False
    return size == item.bytes and digest.hexdigest() == item.sha256


# -- inspect ---------------------------------------------------------------------------------------


def read_text(place: Place, name: str) -> bytes:
    """Return the content of a small file.

    Raises:
        FileMissing: There is no such file.
        VerificationFailed: It is too large.
        OperationFailed: The place cannot be used.
    """
    data = bytearray()
    for block in require_progress(place.title, place.read(name)):
        data += block
        if len(data) > LARGEST_TEXT:
            raise VerificationFailed(
                f"{name} at {place.title} is larger than any of ours; nothing of it is used"
            )
    return bytes(data)


def compare(place: Place, key: str, sums: dict[str, str], progress: Progress) -> list[str]:
    """Read a whole copy back; return a description of each fault.

    Args:
        place: The place.
        key: `<project>/<id>` of the copy.
        sums: Name -> sha256 of all files that must be there.
        progress: Called with the bytes read.

    Raises:
        OperationFailed: The place cannot be used.
    """
    there = place.files(key)
    faults = []
    for name, digest in sums.items():
        if name not in there:
            faults.append(f"{name} is missing")
        elif not _is_same_file(
            place, key, TransferItem(name, there[name], digest), there, progress
        ):
            faults.append(f"{name} is damaged")
    return faults


# -- fetch -----------------------------------------------------------------------------------------


def fetch(place: Place, name: str, digest: str, size: int, progress: Progress) -> Iterator[bytes]:
    """Yield the bytes of a file and compare their digest at the end.

    Raises:
        VerificationFailed: The file is missing, too large or damaged.
        OperationFailed: The place cannot be used.
    """
    found, count = sha256(), 0
    try:
        for block in require_progress(place.title, place.read(name)):
            found.update(block)
            count += len(block)
            if count > size:
                break
            progress(len(block))
            yield block
    except FileMissing as missing:
        raise VerificationFailed(f"{name} is missing there; nothing was kept") from missing
    if found.hexdigest() != digest:
        raise VerificationFailed(f"{name} is damaged there; nothing was kept")
