"""The way in: a backup is made in a hidden folder, and gets its name when everything in it is on the disk."""

import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from hashlib import file_digest, sha256
from pathlib import Path

from safe_compose import __version__
from safe_compose.artifacts import OWNER, WORKPLACE, Artifact, Backup, VolumeRecord, redact, slug
from safe_compose.catalogue import locks, manifest
from safe_compose.catalogue.kept import Kept
from safe_compose.catalogue.manifest import MANIFEST, OURS, RECIPE, SUMS, VERIFICATION, Damaged
from safe_compose.catalogue.place import COUNTER
from safe_compose.catalogue.recipe import recipe
from safe_compose.durable import Access, make_folder, own, read_regular, sync_folder, told, write, write_all
from safe_compose.durable import replace as replace_file
from safe_compose.errors import BackupFailed, UsageError, VerifyFailed
from safe_compose.process import new_id, stamp

PIN = timedelta(days=30)
"""How long a backup made before a deletion is pinned."""
_BEFORE_A_DELETION = frozenset({"pre-delete", "pre-restore"})
"""Reasons of backups that are the last of something: what a restore writes over is deleted too."""
_PARTIAL = ".partial-"
_FORMAT = 1


class Draft:
    """A backup while it is made: a hidden folder that gets its name by `commit`, or disappears with its `with` block."""

    def __init__(self, catalogue: "Drafts", path: Path, draft: Backup) -> None:
        self._catalogue = catalogue
        self._draft = draft
        self.path = path
        """Where the artifacts are written; each `Artifact.file` is relative to it."""
        self.backup: Backup | None = None
        """The committed backup, or None before."""

    @property
    def id(self) -> str:
        return self._draft.id

    def folder(self, volume: str) -> Path:
        """The folder for one volume's artifacts, made if need be."""
        path = self.path / slug(volume)
        with told(f"make the folder for volume {volume}"), suppress(FileExistsError):
            make_folder(path, self._catalogue.access)
        return path

    def commit(self, records: Iterable[VolumeRecord], *, warnings: Iterable[str] = ()) -> Backup:
        """Everything to disk, then the name. After it the backup is durable, and not yet verified.

        Raises BackupFailed when a file is missing or not as long as its artifact says, and for every file fault.
        """
        if self.backup is not None:
            raise BackupFailed(f"backup {self.id} was already kept")
        volumes = tuple(manifest.without_secrets(record) for record in records)
        if not volumes:
            raise BackupFailed("a backup of no volume is none; nothing was kept")
        with told(f"keep backup {self.id}"):
            self.backup = self._catalogue._keep(self.path, replace(self._draft, volumes=volumes, warnings=tuple(warnings)))
        return self.backup


class Adoption:
    """A backup from elsewhere while it is fetched."""

    def __init__(
        self, catalogue: "Drafts", path: Path, backup: Backup, digests: Mapping[str, str], described: bytes, summed: bytes
    ) -> None:
        self._catalogue = catalogue
        self._described = described
        self._summed = summed
        self.path = path
        """Where its files are written."""
        self.backup = backup
        """As its manifest tells it, with the path that it will have."""
        self.files = {name: digest for name, digest in digests.items() if name != MANIFEST}
        """What must be fetched: name -> sha256."""
        self.kept = False

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """One file, as the blocks come. Raises BackupFailed, and what the blocks raise."""
        path = self.path / name
        with told(f"keep {name} of backup {self.backup.id}"):
            for folder in reversed([p for p in path.relative_to(self.path).parents if p.name]):
                with suppress(FileExistsError):
                    make_folder(self.path / folder, self._catalogue.access)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                for block in blocks:
                    write_all(descriptor, block)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def commit(self) -> Backup:
        """Everything to disk, then the name. Raises BackupFailed when a file is missing, and for every file fault."""
        for volume in self.backup.volumes:
            for artifact in volume.artifacts:
                _check(self.path, artifact)
        with told(f"keep backup {self.backup.id}"):
            self._catalogue._settle_adopted(self.path, self.backup, self._described, self._summed)
        self.kept = True
        return self.backup


class Drafts(Kept):
    """A store that backups are added to."""

    @contextmanager
    def draft(self, project: str, reason: str, *, endpoint: str, engine_id: str, command: Sequence[str] = ()) -> Iterator[Draft]:
        """A hidden folder to write artifacts into; `Draft.commit` makes it a backup.

        Leaving the block without a commit, by an exception or not, removes it. Raises BackupFailed for every file fault,
        those of the block included.
        """
        self.ensure()
        folder = self.folder_of(project)
        now = self._clock()
        backup_id = new_id(now)
        words = tuple(word.encode("utf-8", "backslashreplace").decode() for word in redact(command))
        backup = Backup(backup_id, 0, stamp(now), project, endpoint, engine_id, reason, words, str(folder / backup_id))
        partial = folder / f"{_PARTIAL}{backup_id}"
        lock = self._lock_path(f"draft-{backup_id}")
        # Held as long as the draft lives: the kernel lets go of it whatever kills us, so that a sweep can tell.
        with locks.held(lock, f"draft {backup_id}", access=self.access, wait=0):
            draft = Draft(self, partial, backup)
            try:
                with told("make the backup"):
                    with suppress(FileExistsError):
                        make_folder(folder, self.access)
                    if not stat.S_ISDIR(folder.lstat().st_mode):  # no list would show what lies behind a link
                        raise BackupFailed(f"cannot make the backup: {folder} is not a folder of the store but a link or a file")
                    make_folder(partial, self.access)
                    yield draft
            finally:
                if draft.backup is None:
                    # The first fault is the one to tell; what cannot be removed now is swept by a later run.
                    shutil.rmtree(partial, ignore_errors=True)
                with suppress(OSError):  # nobody else ever uses this name: one that stays is only untidy
                    lock.unlink()

    @contextmanager
    def copying(self, backup_id: str) -> Iterator[None]:
        """Hold one backup while it is sent elsewhere or fetched, so that no two runs do it at once. Raises LookAgain."""
        self.ensure()
        with locks.held(self._lock_path(f"copy-{backup_id}"), f"backup {backup_id}", access=self.access, wait=0):
            yield

    @contextmanager
    def adopt(self, backup_id: str, described: bytes, summed: bytes) -> Iterator["Adoption"]:
        """A draft for a backup that was made before and comes from elsewhere: its own manifest and sums, its own number.

        The block writes the other files into `Adoption.path` and calls `Adoption.commit` when all of them were judged; leaving
        it without that removes everything. Raises VerifyFailed when manifest and sums do not belong together, UsageError when
        there is a backup of that id, BackupFailed.
        """
        from safe_compose.catalogue import shapes

        try:
            found = shapes.read_manifest(described, backup_id, "")
            digests = manifest.read_sums(summed)
        except Damaged as damage:
            raise VerifyFailed(f"backup {backup_id} there: {damage}; nothing was kept") from damage
        needed = {MANIFEST, RECIPE, *(a.file for v in found.volumes for a in v.artifacts)}
        wrong = needed - digests.keys() or digests.keys() & {SUMS, VERIFICATION}
        if wrong or digests[MANIFEST] != sha256(described).hexdigest():
            raise VerifyFailed(f"backup {backup_id} there: manifest and SHA256SUMS do not belong together; nothing was kept")
        self.ensure()
        folder = self.folder_of(found.project)
        partial = folder / f"{_PARTIAL}{backup_id}"
        with locks.held(self._lock_path(f"draft-{backup_id}"), f"draft {backup_id}", access=self.access, wait=0):
            if any(os.path.lexists(p / backup_id) for p in self._project_folders()):
                raise UsageError(f"backup {backup_id} is in the store already", next_step=f"safe-compose show {backup_id}")
            adoption = Adoption(self, partial, replace(found, path=str(folder / backup_id)), digests, described, summed)
            try:
                with told(f"fetch backup {backup_id}"):
                    with suppress(FileExistsError):
                        make_folder(folder, self.access)
                    if partial.exists():  # of a run that was cut off: the lock is ours
                        shutil.rmtree(partial)
                    make_folder(partial, self.access)
                    yield adoption
            finally:
                if not adoption.kept:
                    shutil.rmtree(partial, ignore_errors=True)
                with suppress(OSError):
                    self._lock_path(f"draft-{backup_id}").unlink()

    def _settle_adopted(self, partial: Path, backup: Backup, described: bytes, summed: bytes) -> None:
        """Sync and name what was fetched; later backups get higher numbers. Raises OSError, BackupFailed."""
        write(partial / SUMS, summed, self.access)
        _settle(partial, self.access)
        with self._hold("store"):
            self._next_seq(after=backup.seq)
            write(partial / MANIFEST, described, self.access)
            sync_folder(partial)
            partial.rename(backup.path)
            sync_folder(partial.parent)

    def _keep(self, partial: Path, draft: Backup) -> Backup:
        """Number, describe, sync and name a draft. Raises OSError, BackupFailed."""
        digests = _checked(partial, draft.volumes)
        _settle(partial, self.access)
        with self._hold("store"):
            backup = replace(
                draft,
                seq=self._next_seq(),
                tool_version=__version__,
                pinned_until=stamp(self._clock() + PIN) if draft.reason in _BEFORE_A_DELETION else None,
            )
            final = Path(backup.path)
            if any(os.path.lexists(p / backup.id) for p in self._project_folders()):
                raise BackupFailed(f"a backup with the id {backup.id} exists already; nothing was kept")
            described = manifest.write_manifest(backup)
            text = recipe(backup).encode("utf-8", "backslashreplace")
            digests |= {MANIFEST: sha256(described).hexdigest(), RECIPE: sha256(text).hexdigest()}
            write(partial / RECIPE, text, self.access)
            write(partial / SUMS, manifest.sums(digests), self.access)
            write(partial / MANIFEST, described, self.access)
            sync_folder(partial)
            partial.rename(final)
            sync_folder(final.parent)
        return backup

    def _next_seq(self, *, after: int = 0) -> int:
        """The next number, written down before it is used, and higher than `after`; the store's lock is held."""
        number = self._counter()
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            number = 1 + max((b.seq for b in self.backups()), default=0)  # lost or damaged: counted again
        number = max(number, after + 1)
        text = json.dumps({"format": _FORMAT, "next_seq": number + 1})
        replace_file(self.root / COUNTER, text.encode(), self.access)
        return number

    def _counter(self) -> object:
        """What the store says is its next number; None when that is lost. Raises BackupFailed when we are too old for it."""
        try:
            found = json.loads(read_regular(self.root / COUNTER))
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(found, dict):
            return None
        if isinstance(found.get("format"), int) and found["format"] > _FORMAT:
            raise BackupFailed(
                f"the store {self.root} was made by a newer safe-compose (format {found['format']}); nothing was changed in it",
                next_step="install the newer safe-compose again",
            )
        return found.get("next_seq")

    def sweep(self) -> tuple[str, ...]:
        """Remove the drafts of runs that are certainly dead, and what they were looking at; the drafts' ids. Whatever is in
        doubt stays."""
        swept = []
        for folder in self._project_folders():
            for workplace in folder.glob(f"{WORKPLACE}*"):
                process = locks.signer(workplace / OWNER)
                if process is not None and process.is_dead():
                    with told(f"remove {workplace}"):
                        shutil.rmtree(workplace)
            for partial in folder.glob(f"{_PARTIAL}*"):
                backup_id = partial.name.removeprefix(_PARTIAL)
                path = self._lock_path(f"draft-{backup_id}")
                process = locks.signer(path)
                if process is None or not process.is_dead():
                    continue
                lock = locks.try_hold(path, access=self.access)
                if lock is None:
                    continue
                try:
                    with told(f"remove the unfinished backup {partial}"):
                        shutil.rmtree(partial)
                        path.unlink(missing_ok=True)
                finally:
                    lock.release()
                swept.append(backup_id)
        return tuple(swept)


def _checked(folder: Path, volumes: Iterable[VolumeRecord]) -> dict[str, str]:
    """File -> sha256 of everything in a draft: what was hashed while it was written is taken as recorded.

    Raises BackupFailed when an artifact is missing or has another size than recorded, OSError.
    """
    digests: dict[str, str] = {}
    for artifact in (a for v in volumes for a in v.artifacts):
        _check(folder, artifact)
        digests[artifact.file] = artifact.sha256
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind) and name not in digests:
            if name in OURS:
                raise BackupFailed(f"{name} was written into the draft by somebody else; nothing was kept")
            with path.open("rb") as file:
                digests[name] = file_digest(file, "sha256").hexdigest()
        elif not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise BackupFailed(f"{name} in the draft is neither a file nor a folder; nothing was kept")
    return digests


def _check(folder: Path, artifact: Artifact) -> None:
    if not manifest.is_inside(artifact.file) or artifact.file in OURS:
        raise BackupFailed(f"an artifact has an impossible name: {artifact.file!r}; nothing was kept")
    try:
        found = (folder / artifact.file).lstat()
    except FileNotFoundError as error:
        raise BackupFailed(f"{artifact.file} of volume {artifact.volume} is missing; nothing was kept") from error
    if found.st_size != artifact.bytes:
        raise BackupFailed(
            f"{artifact.file} of volume {artifact.volume} has {found.st_size} bytes on disk, {artifact.bytes} were written; "
            "nothing was kept"
        )


def _settle(folder: Path, access: Access) -> None:
    """Mode, owner and sync of everything in a draft, the folders after what is in them. Raises OSError."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            file = Path(path, name)
            own(file, access, folder=False)
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        own(Path(path), access, folder=True)
        sync_folder(Path(path))
