"""The backups that are in the store: listed, found and read. Nothing is written here but the index."""

import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from sys import intern

from safe_compose.artifacts import Backup, Listed, TableCount, VolumeRecord
from safe_compose.catalogue import index, manifest
from safe_compose.catalogue.manifest import MANIFEST, SUMS, VERIFICATION, Damaged
from safe_compose.catalogue.place import Place, backups_in
from safe_compose.durable import PRIVATE, Access, cause, read_regular
from safe_compose.errors import BackupFailed, UsageError, VerifyFailed
from safe_compose.process import utc_now


def read_copy(described: bytes, backup_id: str, where: str) -> Backup:
    """A backup as the manifest of a copy elsewhere tells it; `broken` says why that does not read. where: becomes its path."""
    from safe_compose.catalogue import shapes

    try:
        return shapes.read_manifest(described, backup_id, where)
    except Damaged as damage:
        return Backup(backup_id, 0, "", where.partition("/")[0], "", "", "", (), where, broken=str(damage))


class Kept(Place):
    """A store that is read. One that does not exist is empty."""

    def __init__(self, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(root, access, clock=clock)
        self._read: dict[str, tuple[str, Backup]] = {}
        """Folder of a backup -> sha256 of its manifest, and what that says."""

    def backups(self, project: str | None = None, *, bare: bool = False) -> list[Backup]:
        """Every backup, or every one of a project, the newest first. A damaged one comes last with `broken` set.

        bare: without what takes most of the memory, when there are thousands: to count them, never to restore from.
        """
        folders = [self.folder_of(project)] if project is not None else self._project_folders()
        found: list[Backup] = []
        for folder in folders:
            try:
                found += [_bare(self._load(entry, keep=False)) if bare else self._load(entry) for entry in backups_in(folder)]
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
                entries = backups_in(folder)
            except BackupFailed as fault:
                broken = Backup(folder.name, 0, "", project or folder.name, "", "", "", (), str(folder), broken=fault.message)
                found.append(Listed.of(broken))
                continue
            for entry in entries:
                name = f"{folder.name}/{entry.name}"
                key = index.key_of(entry.path, (MANIFEST, VERIFICATION))
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
        matching = [e for folder in folders for e in backups_in(folder) if word and e.name.startswith(word)]
        exact = [e for e in matching if e.name == word]
        found = [self._load(entry) for entry in exact or matching]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{word!r} is the beginning of {len(found)} backups: {_some(found)}", next_step="give more")
        near = self.listed(project)
        there = f"; there are {_some(near)}" if near else f"; there is none in {self.root}"
        raise UsageError(f"there is no backup {word!r}{there}", next_step="safe-compose list")

    def at(self, path: str) -> Backup | None:
        """The backup in a folder that `listed` named, as its own files tell it; None when it has gone."""
        folder = Path(path)
        return next((self._load(entry) for entry in backups_in(folder.parent) if entry.name == folder.name), None)

    def _load(self, entry: "os.DirEntry[str]", *, keep: bool = True) -> Backup:
        """One backup's folder; never raises for what is in it. keep: in memory, for the next time."""
        from safe_compose.catalogue import shapes

        try:
            data = read_regular(f"{entry.path}/{MANIFEST}")
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
            found = shapes.read_verification(read_regular(f"{entry.path}/{VERIFICATION}"), digest)
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

    def sums(self, backup: Backup) -> dict[str, str]:
        """File -> sha256 of every file of a backup but `SHA256SUMS` itself, the manifest included. Raises VerifyFailed."""
        try:
            return manifest.read_sums(Path(backup.path, SUMS).read_bytes())
        except (OSError, Damaged) as error:
            why = cause(error) if isinstance(error, OSError) else str(error)
            raise VerifyFailed(f"backup {backup.id} is damaged in the store: SHA256SUMS: {why}") from error

    def read_sums(self, summed: bytes, backup_id: str) -> dict[str, str]:
        """The same of a copy that lies elsewhere, `SHA256SUMS` itself included. Raises VerifyFailed."""
        try:
            return {**manifest.read_sums(summed), SUMS: sha256(summed).hexdigest()}
        except Damaged as damage:
            raise VerifyFailed(f"backup {backup_id} there: {damage}") from damage


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
        return replace(record, name=name, options=_NOTHING, labels=_NOTHING, users=(), notes=(), artifacts=files, statistics=found)

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
