"""The store of backups on disk: one folder per backup that appears by one rename, and what is known about it."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import file_digest, sha256
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING

from safe_compose import __version__
from safe_compose.artifacts import (
    OWNER,
    WORKPLACE,
    Artifact,
    Backup,
    Copy,
    Evidence,
    Listed,
    TableCount,
    VolumeRecord,
    redact,
    slug,
)
from safe_compose.catalogue import index, locks, manifest, outgoing, registry
from safe_compose.catalogue.manifest import Damaged
from safe_compose.catalogue.recipe import recipe
from safe_compose.durable import (
    PRIVATE,
    Access,
    cause,
    make_folder,
    make_folders,
    own,
    read_regular,
    sync_folder,
    told,
    write,
    write_all,
)
from safe_compose.durable import replace as replace_file
from safe_compose.errors import BackupFailed, LookAgain, UsageError, VerifyFailed
from safe_compose.policy import Rule, Tier
from safe_compose.process import new_id, stamp, utc_now

if TYPE_CHECKING:
    from safe_compose.catalogue.shapes import Verification

PIN = timedelta(days=30)
"""How long a backup made before a deletion is pinned."""
_BEFORE_A_DELETION = frozenset({"pre-delete", "pre-restore"})
"""Reasons of backups that are the last of something: what a restore writes over is deleted too."""
_MANIFEST, _SUMS, _RECIPE, _VERIFICATION = "manifest.json", "SHA256SUMS", "RESTORE.md", "verification.json"
_OURS = frozenset({_MANIFEST, _SUMS, _RECIPE, _VERIFICATION})
_PROTECTIONS, _COUNTER = "protections.json", "store.json"
_RESERVED = frozenset({"locks", "journal", "trash", _COUNTER, _PROTECTIONS})
_PARTIAL = ".partial-"
_STORE_WAIT = 60.0
"""Seconds; the store's own lock is only ever held for moments."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Room:
    """What is free where a path is, or would be made."""

    bytes: int
    inodes: int | None
    """None: that file system does not count them."""


def room(path: Path) -> Room:
    """What an ordinary user may still write there. Raises BackupFailed."""
    with told(f"measure the room in {path}"):
        existing = next(p for p in (path, *path.parents) if p.exists())
        free = os.statvfs(existing)
    return Room(free.f_bavail * free.f_frsize, free.f_favail if free.f_files else None)


def read_copy(described: bytes, backup_id: str, where: str) -> Backup:
    """A backup as the manifest of a copy elsewhere tells it; `broken` says why that does not read. where: becomes its path."""
    from safe_compose.catalogue import shapes

    try:
        return shapes.read_manifest(described, backup_id, where)
    except Damaged as damage:
        return Backup(backup_id, 0, "", where.partition("/")[0], "", "", "", (), where, broken=str(damage))


class Draft:
    """A backup while it is made: a hidden folder that gets its name by `commit`, or disappears with its `with` block."""

    def __init__(self, catalogue: "Catalogue", path: Path, draft: Backup) -> None:
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
        self, catalogue: "Catalogue", path: Path, backup: Backup, digests: Mapping[str, str], described: bytes, summed: bytes
    ) -> None:
        self._catalogue = catalogue
        self._described = described
        self._summed = summed
        self.path = path
        """Where its files are written."""
        self.backup = backup
        """As its manifest tells it, with the path that it will have."""
        self.files = {name: digest for name, digest in digests.items() if name != _MANIFEST}
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


class Catalogue:
    """The store at `root`. Reading works for a store that does not exist; writing begins with `ensure`."""

    def __init__(self, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.root = root
        self.access = access
        self._clock = clock
        self._read: dict[str, tuple[str, Backup]] = {}

    def __repr__(self) -> str:
        return f"Catalogue({str(self.root)!r})"

    # -- the place -----------------------------------------------------------------------------------------------------

    def ensure(self) -> None:
        """Make the store and prove that it can be written. Raises BackupFailed with the cause in words."""
        with told(f"make the store {self.root}"):
            make_folders(self.root, self.access)
        self._refuse_unsafe()
        with told(f"write to the store {self.root}"):
            with suppress(FileExistsError):
                make_folder(self.root / "locks", self.access)
            outgoing.prepare(self.root, self.access)
            ignore = self.root / ".gitignore"
            if not ignore.exists():  # a store inside of a work tree must never be committed
                replace_file(ignore, b"*\n", self.access)
            probe = self.root / f".probe-{os.getpid()}"
            replace_file(probe, b"probe\n", self.access)
            probe.unlink()

    def _refuse_unsafe(self) -> None:
        """Raises BackupFailed when others than its owner could change what is in the store."""
        with told(f"use the store {self.root}"):
            found = self.root.stat()
        ours = {os.geteuid()} | ({self.access.owner[0]} if self.access.owner is not None else set())
        shared = bool(self.access.files & 0o060)
        where = f"the store {self.root}"
        if not stat.S_ISDIR(found.st_mode):
            raise BackupFailed(f"cannot use {where}: a file is in the way", next_step="set SAFE_COMPOSE_HOME to a folder")
        if found.st_uid not in ours and not (shared and found.st_gid in {os.getegid(), *os.getgroups()}):
            raise BackupFailed(
                f"cannot use {where}: it belongs to user {found.st_uid}, not to {os.geteuid()}: others can change backups",
                next_step="set SAFE_COMPOSE_HOME to a folder of your own, or choose a shared store ([store] shared = true)",
            )
        if found.st_mode & (0o002 if shared else 0o022):
            raise BackupFailed(
                f"cannot use {where}: others may write to it (mode {stat.S_IMODE(found.st_mode):04o})",
                next_step=f"chmod {'o-w' if shared else 'go-w'} {self.root}",
            )
        self._refuse_strange()

    def _refuse_strange(self) -> None:
        """A folder with things in it that is no store yet stays as it is: our `.gitignore` would hide them all from git."""
        with told(f"look into {self.root}"):
            names = {entry.name for entry in os.scandir(self.root)}
        strange = sorted(name for name in names if not name.startswith(".") and name != "lost+found")
        if strange and names.isdisjoint({"locks", "store.json"}):
            raise BackupFailed(
                f"cannot use the store {self.root}: it is no store, and other things are in it ({', '.join(strange[:3])}...)",
                next_step=f"give it a folder of its own: SAFE_COMPOSE_HOME={self.root / 'safe-compose'}",
            )

    def room(self) -> Room:
        """What is free where backups go. Raises BackupFailed."""
        return room(self.root)

    def folder_of(self, project: str) -> Path:
        """Where a project's backups lie, whether or not there are any."""
        name = slug(project)
        # `slug` leaves `locks` as it is; one blank more gives it the hash that tells it from our own folder.
        return self.root / (slug(f"{project} ") if name in _RESERVED else name)

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    @contextmanager
    def _hold(self, name: str, *, must_sign: bool = True) -> Iterator[None]:
        what = f"the {name} of {self.root}"
        with locks.held(self._lock_path(name), what, access=self.access, wait=_STORE_WAIT, must_sign=must_sign):
            yield

    @contextmanager
    def lock(
        self, engine_id: str, project: str, *, wait: float = 0, command: Sequence[str] = (), full: bool = False
    ) -> Iterator[None]:
        """Hold one project of one engine during the block.

        wait: seconds until LookAgain, which names the holder. command: what we run, shown to others without secrets.
        full: the store is there and its disk may be full.
        """
        if not full:
            self.ensure()
        name = f"{slug(project)}-{sha256(f'{engine_id} {project}'.encode()).hexdigest()[:12]}"
        words = redact(command)
        path, what = self._lock_path(name), f"project {project}"
        with locks.held(path, what, access=self.access, wait=wait, command=words, must_sign=not full):
            yield

    # -- making a backup -----------------------------------------------------------------------------------------------

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

    def sums(self, backup: Backup) -> dict[str, str]:
        """File -> sha256 of every file of a backup but `SHA256SUMS` itself, the manifest included. Raises VerifyFailed."""
        try:
            return manifest.read_sums(Path(backup.path, _SUMS).read_bytes())
        except (OSError, Damaged) as error:
            why = cause(error) if isinstance(error, OSError) else str(error)
            raise VerifyFailed(f"backup {backup.id} is damaged in the store: SHA256SUMS: {why}") from error

    def read_sums(self, summed: bytes, backup_id: str) -> dict[str, str]:
        """The same of a copy that lies elsewhere, `SHA256SUMS` itself included. Raises VerifyFailed."""
        try:
            return {**manifest.read_sums(summed), _SUMS: sha256(summed).hexdigest()}
        except Damaged as damage:
            raise VerifyFailed(f"backup {backup_id} there: {damage}") from damage

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
        needed = {_MANIFEST, _RECIPE, *(a.file for v in found.volumes for a in v.artifacts)}
        wrong = needed - digests.keys() or digests.keys() & {_SUMS, _VERIFICATION}
        if wrong or digests[_MANIFEST] != sha256(described).hexdigest():
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
        write(partial / _SUMS, summed, self.access)
        _settle(partial, self.access)
        with self._hold("store"):
            self._next_seq(after=backup.seq)
            write(partial / _MANIFEST, described, self.access)
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
            digests |= {_MANIFEST: sha256(described).hexdigest(), _RECIPE: sha256(text).hexdigest()}
            write(partial / _RECIPE, text, self.access)
            write(partial / _SUMS, manifest.sums(digests), self.access)
            write(partial / _MANIFEST, described, self.access)
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
        replace_file(self.root / _COUNTER, text.encode(), self.access)
        return number

    def _counter(self) -> object:
        """What the store says is its next number; None when that is lost. Raises BackupFailed when we are too old for it."""
        try:
            found = json.loads(read_regular(self.root / _COUNTER))
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

    # -- reading -------------------------------------------------------------------------------------------------------

    def backups(self, project: str | None = None, *, bare: bool = False) -> list[Backup]:
        """Every backup, or every one of a project, the newest first. A damaged one comes last with `broken` set.

        bare: without what takes most of the memory, when there are thousands: to count them, never to restore from.
        """
        folders = [self.folder_of(project)] if project is not None else self._project_folders()
        found: list[Backup] = []
        for folder in folders:
            try:
                found += [_bare(self._load(entry, keep=False)) if bare else self._load(entry) for entry in _entries(folder)]
            except BackupFailed as fault:
                found.append(Backup(folder.name, 0, "", project or folder.name, "", "", "", (), str(folder), broken=fault.message))
        wanted = [b for b in found if project is None or b.project in (project, folders[0].name)]
        return sorted(wanted, key=lambda b: b.seq, reverse=True)

    def listed(self, project: str | None = None) -> list[Listed]:
        """The same as lists show it, in the same order, mostly from the index: to look at, never to decide on."""
        folders = [self.folder_of(project)] if project is not None else self._project_folders()
        known = index.read(self.root)
        lines: dict[str, tuple[index.Key, Listed]] = {}
        found: list[Listed] = []
        read = 0
        for folder in folders:
            try:
                entries = _entries(folder)
            except BackupFailed as fault:
                broken = Backup(folder.name, 0, "", project or folder.name, "", "", "", (), str(folder), broken=fault.message)
                found.append(Listed.of(broken))
                continue
            for entry in entries:
                name = f"{folder.name}/{entry.name}"
                key = index.key_of(entry.path, (_MANIFEST, _VERIFICATION))
                line = known.get(name)
                if line is None or key is None or line[0] != key:
                    backup = self._load(entry, keep=False)
                    line = (key or (), Listed.of(backup))
                    if key is None or backup.broken or not index.is_settled(key):
                        found.append(line[1])
                        continue
                    read += 1
                lines[name] = line
                found.append(line[1])
        if read >= index.WORTH:
            others = {} if project is None else {n: line for n, line in known.items() if n not in lines}
            with suppress(OSError):  # a store that only reads is listed too, more slowly
                index.write(self.root, {**others, **lines}, self.access)
        wanted = [b for b in found if project is None or b.project in (project, folders[0].name)]
        return sorted(wanted, key=lambda b: b.seq, reverse=True)

    def newest_of(self, engine_id: str, volumes: Collection[str]) -> dict[str, Backup]:
        """Of each of these volumes of an engine its newest verified backup, read from its own files; none where there is none."""
        found: dict[str, Backup] = {}
        if not volumes:
            return found
        for line in self.listed():
            wanted = set(volumes).intersection(line.volumes) - found.keys()
            if wanted and line.verified and (backup := self.at(line.path)) and backup.verified and backup.engine_id == engine_id:
                found |= dict.fromkeys(wanted, backup)
        return found

    def find(self, word: str, project: str | None = None) -> Backup:
        """A backup by its id, a unique beginning of it, or `latest`: the newest verified one.

        Raises UsageError that names the candidates.
        """
        if word == "latest":
            every = self.listed(project)
            candidates = (self.at(line.path) for line in every if line.verified)
            newest = next((b for b in candidates if b is not None and b.verified), None)
            if newest is None:
                of = f" of project {project}" if project is not None else ""
                there = f"; not verified: {_some(every)}" if every else ""
                raise UsageError(f"there is no verified backup{of} in {self.root}{there}", next_step="safe-compose list")
            return newest
        folders = [self.folder_of(project)] if project is not None else self._project_folders()
        matching = [e for folder in folders for e in _entries(folder) if word and e.name.startswith(word)]
        exact = [e for e in matching if e.name == word]
        found = [self._load(entry) for entry in exact or matching]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{word!r} is the beginning of {len(found)} backups: {_some(found)}", next_step="give more")
        near = self.listed(project)
        there = f"; there are {_some(near)}" if near else f"; there is none in {self.root}"
        raise UsageError(f"there is no backup {word!r}{there}", next_step="safe-compose list")

    def _project_folders(self) -> list[Path]:
        return [Path(e.path) for e in _scan(self.root) if not e.name.startswith(".") and e.name not in _RESERVED]

    def at(self, path: str) -> Backup | None:
        """The backup in a folder that `listed` named, as its own files tell it; None when it has gone."""
        folder = Path(path)
        return next((self._load(entry) for entry in _entries(folder.parent) if entry.name == folder.name), None)

    def _load(self, entry: "os.DirEntry[str]", *, keep: bool = True) -> Backup:
        """One backup's folder; never raises for what is in it. keep: in memory, for the next time."""
        from safe_compose.catalogue import shapes

        try:
            data = read_regular(f"{entry.path}/{_MANIFEST}")
            digest = sha256(data).hexdigest()
            known = self._read.get(entry.path)
            if known is None or known[0] != digest:
                known = (digest, shapes.read_manifest(data, entry.name, entry.path))
                if keep:
                    self._read[entry.path] = known
            backup = known[1]
        except Damaged as damage:
            return self._damaged(entry, str(damage))
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            return self._damaged(entry, "it has no manifest" if missing else f"its manifest cannot be read: {cause(error)}")
        try:
            found = shapes.read_verification(read_regular(f"{entry.path}/{_VERIFICATION}"), digest)
        except FileNotFoundError:
            return backup
        except Damaged as damage:
            return replace(backup, broken=str(damage))
        except OSError as error:
            return replace(backup, broken=f"its verification.json cannot be read: {cause(error)}")
        return replace(backup, evidence=found.evidence, broken=found.broken, offsite=found.offsite)

    def _damaged(self, entry: "os.DirEntry[str]", why: str) -> Backup:
        return Backup(entry.name, 0, "", Path(entry.path).parent.name, "", "", "", (), entry.path, broken=why)

    def lacks(self, backup: Backup) -> str | None:
        """What of a backup's files is not there as its manifest says, seen from outside: no byte is read. None: nothing."""
        folder = Path(backup.path)
        for record in backup.volumes:
            for artifact in record.artifacts:
                path = folder / artifact.file
                try:
                    linked = any(p.is_symlink() for p in (path, *path.parents) if p.is_relative_to(folder) and p != folder)
                    found = path.lstat()
                except OSError as error:
                    missing = isinstance(error, FileNotFoundError)
                    return f"{artifact.file} {'is missing' if missing else f'cannot be looked at: {cause(error)}'}"
                if linked or not stat.S_ISREG(found.st_mode):
                    return f"{artifact.file} is no file of the backup's own"
                if found.st_size != artifact.bytes:
                    return f"{artifact.file} has {found.st_size} bytes, {artifact.bytes} were written"
        return None

    # -- the way out ---------------------------------------------------------------------------------------------------

    def forget(self, chosen: Collection[str], may_go: Callable[[Sequence[Backup]], Collection[str]]) -> list[Backup]:
        """Take backups out of the store, each by one rename; `finish_forgetting` then frees their room. Works on a full disk.

        chosen: their paths. may_go: which paths may go, asked once more of all that is there while nothing can be added and
        nothing be found broken. Returns those that went. Raises LookAgain when one may not go any more (then none went),
        BackupFailed.
        """
        self._refuse_unsafe()
        with told(f"read {self.root / _COUNTER}"):
            self._counter()
        with self._hold("store", must_sign=False), self._hold("verification", must_sign=False):
            now = {b.path: b for b in self.backups(bare=True)}
            allowed = may_go(list(now.values()))
            doubted = sorted(Path(path).name for path in chosen if path not in now or path not in allowed)
            if doubted:
                raise LookAgain(
                    f"the store has changed since the plan: {', '.join(doubted)} must be looked at again; nothing was forgotten",
                    next_step="safe-compose forget --dry-run",
                )
            with told("take a backup out of the store"):
                outgoing.prepare(self.root, self.access)
                for path in chosen:
                    outgoing.take(self.root, Path(path))
        return [now[path] for path in chosen]

    def finish_forgetting(self) -> int:
        """Remove what was forgotten, also by a run that was killed; how many backups that were. Raises BackupFailed."""
        removed = 0
        with told(f"empty {self.root / outgoing.NAME}"):
            for path in outgoing.waiting(self.root):
                # One at a time, so that others can number and name in between; one that has gone was another run's.
                with self._hold("store", must_sign=False), suppress(FileNotFoundError):
                    outgoing.remove(path)
                    removed += 1
        return removed

    # -- what is found out later ---------------------------------------------------------------------------------------

    def mark_verified(self, backup: Backup, evidence: Iterable[Evidence]) -> Backup:
        """Add evidence; of one subject and level the newest counts. The backup as it is now.

        A broken one stays broken unless every one of its artifacts was read (L1 alone reads nothing). Raises BackupFailed.
        """

        def add(before: "Verification") -> "Verification":
            new = tuple(evidence)
            merged = {(e.subject, e.level): e for e in (*before.evidence, *new)}
            files = {a.file for v in backup.volumes for a in v.artifacts if a.kind != "list"}
            broken = before.broken if before.broken and not files <= {e.subject for e in new if e.level > "L1"} else None
            return before.model_copy(update={"evidence": tuple(merged.values()), "broken": broken})

        return self._amend(backup, add)

    def mark_broken(self, backup: Backup, why: str) -> Backup:
        """Say that a backup must not be trusted. It is kept, and never chosen by itself. Raises BackupFailed."""
        return self._amend(backup, lambda before: before.model_copy(update={"evidence": (), "broken": why}))

    def mark_copied(self, backup: Backup, copy: Copy) -> Backup:
        """Note what is known of a copy elsewhere, in the place of what was known before. Raises BackupFailed."""

        def note(before: "Verification") -> "Verification":
            return before.model_copy(update={"offsite": (*(c for c in before.offsite if c.name != copy.name), copy)})

        return self._amend(backup, note)

    def _amend(self, backup: Backup, change: Callable[["Verification"], "Verification"]) -> Backup:
        from safe_compose.catalogue import shapes

        folder = Path(backup.path)
        with self._hold("verification"), told(f"write what was found out about backup {backup.id}"):
            described = read_regular(folder / _MANIFEST) if (folder / _MANIFEST).exists() else b""
            digest = sha256(described).hexdigest()
            try:
                before = shapes.read_verification(read_regular(folder / _VERIFICATION), digest)
            except FileNotFoundError:
                before = shapes.Verification(manifest_sha256=digest)
            except Damaged as damage:  # what it said is worth nothing any more
                before = shapes.Verification(manifest_sha256=digest, broken=str(damage))
            after = change(before).model_copy(update={"manifest_sha256": digest})
            replace_file(folder / _VERIFICATION, shapes.write_verification(after), self.access)
        return replace(backup, evidence=after.evidence, broken=after.broken, offsite=after.offsite)

    # -- protections ---------------------------------------------------------------------------------------------------

    def protections(self) -> list[Rule]:
        """The floors that hold now. Raises BackupFailed when the registry does not read: then nobody knows them."""
        return registry.rules(registry.read(self.root / _PROTECTIONS), stamp(self._clock()))

    def locked(self, engine_id: str) -> list[str]:
        """The volumes of an engine that are to have a deletion lock now. Raises BackupFailed as `protections` does."""
        return registry.locked(registry.read(self.root / _PROTECTIONS), stamp(self._clock()), engine_id)

    def is_protected(self, name: str) -> bool:
        """Whether there is something to take away, be it lifted for a while."""
        return name in registry.read(self.root / _PROTECTIONS)

    def protect(self, name: str, tier: Tier, *, lock_on: str | None = None) -> None:
        """Make `tier` the floor of a volume, until `unprotect`; with a lock on the engine of that id. Raises UsageError,
        BackupFailed."""
        if tier is Tier.DISPOSABLE or not name:
            raise UsageError("a protection is critical or important, and of a volume with a name; nothing was changed")
        with self._protections() as every:
            engines = {*every.get(name, {}).get("locked_on", "").split(), *([lock_on] if lock_on else [])}
            locked = {"locked_on": " ".join(sorted(engines))} if engines else {}
            every[name] = {"tier": tier.value, "since": stamp(self._clock()), **locked}

    def require_protected(self, names: Iterable[str]) -> None:
        """Raises UsageError when one of the volumes is not protected, BackupFailed."""
        every = registry.read(self.root / _PROTECTIONS)
        there = f"protected are: {', '.join(sorted(every))}" if every else "nothing is protected"
        for name in names:
            if name not in every:
                raise UsageError(f"{name} is not protected ({there}); nothing was changed")

    def unprotect(self, name: str, *, until: datetime | None = None) -> None:
        """Take a protection away, or lift it until a moment. Raises UsageError when there is none, BackupFailed."""
        self.require_protected([name])
        with self._protections() as every:
            facts = every.pop(name, None)
            if facts is not None and until is not None:
                every[name] = {**facts, "suspended_until": stamp(until)}

    @contextmanager
    def _protections(self) -> Iterator[dict[str, Mapping[str, str]]]:
        """The registry to be changed in the block, and written when it ends well."""
        self.ensure()
        with self._hold("protections"):
            every = dict(registry.read(self.root / _PROTECTIONS))
            yield every
            with told("write what is protected"):
                replace_file(self.root / _PROTECTIONS, registry.text(every), self.access)


def _scan(folder: Path) -> list["os.DirEntry[str]"]:
    """The folders in a folder; none when it cannot be listed because it is not there."""
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if e.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BackupFailed(f"cannot list {folder}: {cause(error)}", next_step="correct its owner and mode") from error


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    return [e for e in _scan(folder) if not e.name.startswith(".")]


_NOTHING: Mapping[str, str] = {}


def _bare(backup: Backup) -> Backup:
    """What is asked of thousands at once: which volumes, files of which size, proved how far, how many rows."""

    def less(record: VolumeRecord) -> VolumeRecord:
        files = tuple(
            replace(a, file=intern(a.file), volume=intern(a.volume), kind=intern(a.kind), sha256="", detail=_NOTHING)
            for a in record.artifacts
        )
        found = record.statistics
        if found is not None:
            databases = tuple(replace(d, name=intern(d.name), tables=(TableCount("", "", d.rows),)) for d in found.databases)
            found = replace(found, databases=databases, settings=_NOTHING)
        name = intern(record.name)
        return replace(
            record, name=name, options=_NOTHING, labels=_NOTHING, users=(), notes=(), artifacts=files, statistics=found
        )

    evidence = tuple(replace(e, level=intern(e.level), subject=intern(e.subject), what="") for e in backup.evidence)
    return replace(
        backup,
        project=intern(backup.project),
        endpoint=intern(backup.endpoint),
        engine_id=intern(backup.engine_id),
        volumes=tuple(map(less, backup.volumes)),
        evidence=evidence,
        command=(),
        warnings=(),
    )


def _some(backups: Sequence[Backup | Listed]) -> str:
    names = [f"{b.id} ({b.project})" for b in backups[:5]]
    return ", ".join(names) + (f" and {len(backups) - 5} more" if len(backups) > 5 else "")


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
            if name in _OURS:
                raise BackupFailed(f"{name} was written into the draft by somebody else; nothing was kept")
            with path.open("rb") as file:
                digests[name] = file_digest(file, "sha256").hexdigest()
        elif not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise BackupFailed(f"{name} in the draft is neither a file nor a folder; nothing was kept")
    return digests


def _check(folder: Path, artifact: Artifact) -> None:
    if not manifest.is_inside(artifact.file) or artifact.file in _OURS:
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
