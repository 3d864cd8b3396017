"""A folder as destination: another disk, a mounted share."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from safe_compose.destination import Destination
from safe_compose.durable import cause, sync_folder, write_all
from safe_compose.errors import BackupFailed
from safe_compose.offsite import BLOCK, MANIFEST, PARTIAL, Missing, unusable


class Folder:
    """Its base must exist: where a disk is not mounted, nothing is written to the empty folder below it by our own doing."""

    def __init__(self, destination: Destination) -> None:
        self._to = destination
        self._base = Path(destination.path)
        if not self._base.is_dir():
            raise unusable(
                destination, f"there is no folder {self._base}", next_step="mount that disk, or make the folder, and try again"
            )

    def check(self, need: int) -> None:
        try:
            free = os.statvfs(self._base)
        except OSError as error:
            raise self._fault("measured", error) from error
        left = free.f_bavail * free.f_frsize
        if left < need:
            raise unusable(
                self._to,
                f"no room: {need >> 20} MiB are needed, {left >> 20} MiB are free in {self._base}",
                next_step="make room there and try again",
            )

    def copies(self) -> list[str]:
        try:
            found = [path.parent for path in self._base.glob(f"*/*/{MANIFEST}")]
        except OSError as error:
            raise self._fault("listed", error) from error
        return [f"{f.parent.name}/{f.name}" for f in found if not f.name.startswith(PARTIAL)]

    def files(self, folder: str) -> dict[str, int]:
        root = self._base / folder
        found = {}
        try:
            for path in root.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    found[path.relative_to(root).as_posix()] = path.stat().st_size
        except OSError as error:
            raise self._fault("listed", error) from error
        return found

    def put(self, name: str, blocks: Iterable[bytes], size: int) -> None:
        path = self._base / name
        draft = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                for block in blocks:
                    write_all(descriptor, block)
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read back comes from the disk
            finally:
                os.close(descriptor)
            draft.rename(path)
            sync_folder(path.parent)
        except OSError as error:
            raise self._fault("written", error) from error

    def read(self, name: str) -> Iterator[bytes]:
        try:
            with (self._base / name).open("rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    yield block
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Missing(name) from error
        except OSError as error:
            raise self._fault("read", error) from error

    def rename(self, old: str, new: str) -> None:
        try:
            (self._base / old).rename(self._base / new)
            sync_folder((self._base / new).parent)
            sync_folder(self._base)
        except OSError as error:
            raise self._fault("written", error) from error

    def close(self) -> None:
        """Nothing is open."""

    def _fault(self, done: str, error: OSError) -> BackupFailed:
        where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
        return unusable(self._to, f"cannot be {done}: {cause(error)}{where}", next_step="correct that, then try again")
