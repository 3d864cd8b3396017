"""Backups in the making: a hidden folder, which gets its name once all of it is on disk."""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.core.observed import describe_location
from safe_compose.core.slug import slug
from safe_compose.errors import OperationFailed
from safe_compose.store.catalogue import manifest
from safe_compose.store.catalogue.checks import find_collision, is_normal_path, is_plain_path
from safe_compose.store.catalogue.manifest import MANIFEST, OURS, RECIPE
from safe_compose.system.files import (
    Access,
    acting_as_owner,
    make_folder,
    reporting,
    set_owner,
    sync_folder,
    write_all,
)

if TYPE_CHECKING:
    from safe_compose.core.backup import Artifact, Backup, Omission, VolumeRecord
    from safe_compose.store.catalogue.schema import Verification


class Draft:
    """A backup in the making: a hidden folder that gets its name by `commit`, or is removed.

    It is removed when its `with` block ends without a commit.
    """

    def __init__(
        self,
        access: Access,
        path: Path,
        draft: "Backup",
        give_name: Callable[[Path, "Backup"], "Backup"],
    ) -> None:
        """Prepare a backup in the folder `path`; `give_name` gives it its number and its name."""
        self._access = access
        self._draft = draft
        self._give_name = give_name
        self.path = path
        """The folder for the artifacts; each `Artifact.file` is relative to it."""
        self.backup: Backup | None = None
        """The committed backup; None before."""

    @property
    def id(self) -> str:
        """Return the id that the backup will have."""
        return self._draft.id

    def folder(self, volume: str) -> Path:
        """Return the folder for one volume's artifacts, created if needed.

        Raises:
            OperationFailed: The folder cannot be created.
        """
        path = self.path / slug(volume)
        with (
            reporting(f"make the folder for {describe_location(volume)}"),
            suppress(FileExistsError),
        ):
            make_folder(path, self._access)
        return path

    def commit(
        self,
        records: Iterable["VolumeRecord"],
        *,
        warnings: Iterable[str] = (),
        omitted: Iterable["Omission"] = (),
    ) -> "Backup":
        """Sync everything to disk, then name the backup.

        It is durable afterwards, but not verified yet.

        Args:
            records: The volumes that the backup holds.
            warnings: Warnings for the manifest.
            omitted: What the backup does not hold, recorded in its manifest.

        Raises:
            OperationFailed: A file is missing or has another size than its artifact says, or a file
                cannot be read or written.
        """
        if self.backup is not None:
            raise OperationFailed(f"backup {self.id} was already kept")
        volumes = tuple(manifest.hide_secrets_of(record) for record in records)
        if not volumes:
            raise OperationFailed("a backup of no volume is none; nothing was kept")
        with reporting(f"keep backup {self.id}"):
            complete = replace(
                self._draft, volumes=volumes, warnings=tuple(warnings), omitted=tuple(omitted)
            )
            self.backup = self._give_name(self.path, complete)
        return self.backup


class IncomingCopy:
    """An off-site backup while it is fetched."""

    def __init__(
        self,
        access: Access,
        path: Path,
        backup: "Backup",
        digests: Mapping[str, str],
        give_name: Callable[["Backup", "Verification"], None],
    ) -> None:
        """Fetch into the folder `path`; `give_name` gives the backup its name.

        Args:
            access: Modes and owner of new files.
            path: The hidden folder.
            backup: The backup as its manifest describes it, with its future path.
            digests: Name -> sha256 of every file, as `SHA256SUMS` says.
            give_name: Gives the backup its name.
        """
        self._access = access
        self._give_name = give_name
        self.path = path
        """The folder for its files."""
        self.backup = backup
        """The backup as its manifest describes it, with its future path."""
        self.files = {name: digest for name, digest in digests.items() if name != MANIFEST}
        """The files to fetch: name -> sha256."""
        self.is_committed = False
        """Whether the backup has its name."""

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write one file as its blocks arrive; exceptions of `blocks` pass through.

        Raises:
            OperationFailed: The file cannot be written.
        """
        path = self.path / name
        with reporting(f"keep {name} of backup {self.backup.id}"):
            for folder in reversed([p for p in path.relative_to(self.path).parents if p.name]):
                with suppress(FileExistsError):
                    make_folder(self.path / folder, self._access)
            with acting_as_owner(self._access):
                descriptor = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
            try:
                for block in blocks:
                    write_all(descriptor, block)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def commit(self, found: "Verification") -> "Backup":
        """Sync everything to disk, then name the backup.

        Args:
            found: The findings of this run, the only ones that are recorded.

        Raises:
            OperationFailed: A file is missing or was not written here, or a file cannot be read or
                written.
        """
        for volume in self.backup.volumes:
            for artifact in volume.artifacts:
                _check_artifact(self.path, artifact)
        present = {
            path.relative_to(self.path).as_posix()
            for path in self.path.rglob("*")
            if not path.is_dir() or path.is_symlink()
        }
        if unexpected := sorted(present ^ self.files.keys()):
            raise OperationFailed(
                f"{unexpected[0]!r} came into backup {self.backup.id} by another hand; nothing was"
                " kept"
            )
        with reporting(f"keep backup {self.backup.id}"):
            self._give_name(self.backup, found)
        self.is_committed = True
        return replace(
            self.backup,
            evidence=found.evidence,
            offsite=found.offsite,
            unsigned_from=found.unsigned_from,
        )


def check_files(folder: Path, volumes: Iterable["VolumeRecord"]) -> dict[str, str]:
    """Return path -> sha256 of every file in a draft.

    Recorded digests of files that were hashed while they were written are trusted.

    Raises:
        OperationFailed: An artifact is missing or has another size than recorded.
        OSError: A file cannot be read.
    """
    digests: dict[str, str] = {}
    for artifact in (a for v in volumes for a in v.artifacts):
        _check_artifact(folder, artifact)
        digests[artifact.file] = artifact.sha256
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind) and name not in digests:
            if name in OURS:
                raise OperationFailed(
                    f"{name} was written into the draft by somebody else; nothing was kept"
                )
            with path.open("rb") as file:
                digests[name] = file_digest(file, "sha256").hexdigest()
        elif not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise OperationFailed(
                f"{name} in the draft is neither a file nor a folder; nothing was kept"
            )
    return digests


def _check_artifact(folder: Path, artifact: "Artifact") -> None:
    if not is_normal_path(artifact.file) or artifact.file in OURS:
        raise OperationFailed(
            f"an artifact has an impossible name: {artifact.file!r}; nothing was kept"
        )
    try:
        found = (folder / artifact.file).lstat()
    except FileNotFoundError as error:
        raise OperationFailed(
            f"{artifact.file} of {describe_location(artifact.volume)} is missing; nothing was kept"
        ) from error
    if found.st_size != artifact.bytes:
        raise OperationFailed(
            f"{artifact.file} of {describe_location(artifact.volume)} has {found.st_size} bytes"
            " on disk,"
            f" {artifact.bytes} were written; nothing was kept"
        )


def find_misnamed(backup: "Backup", digests: Mapping[str, str]) -> str | None:
    """Describe how the files of an off-site backup differ from those of any backup of safe-compose.

    Returns:
        None when they are as they should be.
    """
    needed = {MANIFEST, RECIPE, *(a.file for v in backup.volumes for a in v.artifacts)}
    if unexpected := sorted(digests.keys() ^ needed):
        return f"manifest and SHA256SUMS do not belong together ({unexpected[0]!r:.300})"
    for name in sorted(needed - {MANIFEST, RECIPE}):
        if not is_plain_path(name) or name in OURS:
            return f"it has a file that none of ours has: {name!r:.300}"
    if (twice := find_collision(needed)) is not None:
        return f"two of its files have one name: {twice!r:.300}"
    sums = {a.file: a.sha256 for v in backup.volumes for a in v.artifacts}
    if other := next((name for name, digest in sums.items() if digests[name] != digest), None):
        return f"manifest and SHA256SUMS do not belong together ({other})"
    return None


def secure(folder: Path, access: Access) -> None:
    """Set mode and owner of everything in a draft and sync it, each folder after its content.

    Raises:
        OSError: A file cannot be changed or synced.
    """
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            file = Path(path, name)
            set_owner(file, access, folder=False)
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        set_owner(Path(path), access, folder=True)
        sync_folder(Path(path))
