"""Backups in the store, listed, found and read.

Only the index is written here.
"""

import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING

from safe_compose.core.backup_summary import UNKNOWN_PLACE, BackupSummary
from safe_compose.core.short_id import find_matching, name_first
from safe_compose.errors import OperationFailed, UsageError, VerificationFailed
from safe_compose.store.catalogue import index, manifest
from safe_compose.store.catalogue.folder import StoreFolder, list_backups
from safe_compose.store.catalogue.manifest import MANIFEST, SUMS, VERIFICATION, ManifestDamaged
from safe_compose.system.files import explain_error, read_regular
from safe_compose.system.process import is_id

if TYPE_CHECKING:
    from safe_compose.core.backup import Backup, VolumeRecord

LARGEST_FETCHED = 1 << 40
"""Numbers of fetched copies stay below it: later backups here get higher numbers, which must be
possible too."""


def read_copy(described: bytes, backup_id: str, where: str) -> "Backup":
    """Return the backup that the manifest of an off-site copy describes.

    `broken` says why the manifest is unreadable.

    Args:
        described: Bytes of the manifest.
        backup_id: Id that the manifest must have.
        where: Becomes the path of the backup.
    """
    from safe_compose.store.catalogue import schema

    try:
        found = schema.read_manifest(described, backup_id, where)
        if found.seq >= LARGEST_FETCHED:
            raise ManifestDamaged("its number is impossible")
        return found
    except ManifestDamaged as damage:
        return _make_broken(backup_id, where.partition("/")[0], where, str(damage))


class BackupReader:
    """The backups of a store.

    A store that does not exist is empty.
    """

    def __init__(self, folder: StoreFolder) -> None:
        """Read the store in this folder."""
        self.folder = folder
        self._read: dict[str, tuple[str, Backup]] = {}
        """Folder of a backup -> sha256 of its manifest, and the backup that it describes."""

    def backups(self, project: str | None = None, *, bare: bool = False) -> list["Backup"]:
        """Return every backup, or those of one project, the newest first.

        A damaged one comes last, with `broken` set.

        Args:
            project: None for all projects.
            bare: Leave out what takes most of the memory with thousands of backups. Such backups
                are for counting, never for restoring.
        """
        folders = (
            [self.folder.folder_of(project)]
            if project is not None
            else self.folder.project_folders()
        )
        found: list[Backup] = []
        for folder in folders:
            try:
                found += [
                    _reduce(self._load(entry, keep=False)) if bare else self._load(entry)
                    for entry in list_backups(folder)
                ]
            except OperationFailed as fault:
                found.append(
                    _make_broken(folder.name, project or folder.name, str(folder), fault.message)
                )
        wanted = [b for b in found if project is None or b.project in (project, folders[0].name)]
        return sorted(wanted, key=lambda b: b.seq, reverse=True)

    def list_summaries(self, project: str | None = None) -> list[BackupSummary]:
        """Return the summaries of all backups, or of one project's, in the order of `backups`.

        They come mostly from the index: show them, but never decide on them.
        """
        folders = (
            [self.folder.folder_of(project)]
            if project is not None
            else self.folder.project_folders()
        )
        known = index.read(self.folder.root)
        lines: dict[str, tuple[index.Key, BackupSummary]] = {}
        found: list[BackupSummary] = []
        read = 0
        for folder in folders:
            try:
                entries = list_backups(folder)
            except OperationFailed as fault:
                found.append(_make_unlistable(folder, project or folder.name, fault.message))
                continue
            for entry in entries:
                name = f"{folder.name}/{entry.name}"
                key = index.make_key(entry.path, (MANIFEST, VERIFICATION))
                line = known.get(name)
                if line is None or key is None or line[0] != key:
                    backup = self._load(entry, keep=False)
                    line = (key or (), backup.summarize())
                    if key is None or backup.broken or not index.is_settled(key):
                        found.append(line[1])
                        continue
                    read += 1
                lines[name] = line
                found.append(line[1])
        others = {} if project is None else {n: line for n, line in known.items() if n not in lines}
        if index.is_worth_writing({**others, **lines}, read):
            with suppress(OSError):  # a read-only store is listed too, more slowly
                index.write(self.folder.root, {**others, **lines}, self.folder.access)
        wanted = [b for b in found if project is None or b.project in (project, folders[0].name)]
        return sorted(wanted, key=lambda b: b.seq, reverse=True)

    def list_ids(self) -> list[str]:
        """Return the ids of all backups; of a project's folder that cannot be listed there is none.

        Nothing is read: they serve to tell short ids apart.
        """
        found: list[str] = []
        for folder in self.folder.project_folders():
            with suppress(OperationFailed):  # `list_summaries` reports it
                found += [entry.name for entry in list_backups(folder)]
        return found

    def find_newest(self, engine_id: str, locations: Collection[str]) -> dict[str, "Backup"]:
        """Return the newest verified backup of each of these locations of an engine.

        Only backups that were made here or were signed count. They are read from their own files. A
        location without one is left out.
        """
        found: dict[str, Backup] = {}
        if not locations:
            return found
        for line in self.list_summaries():
            wanted = set(locations).intersection(line.volumes) - found.keys()
            if (
                wanted
                and line.counts
                and (backup := self.at(line.path))
                and backup.counts
                and backup.engine_id == engine_id
            ):
                found |= dict.fromkeys(wanted, backup)
        return found

    def find(
        self,
        word: str,
        project: str | None = None,
        *,
        holding: Collection[str] = (),
        fits: Callable[["Backup"], bool] | None = None,
    ) -> "Backup":
        """Return a backup by its id, by its short form, by a unique beginning, or by `latest`.

        `latest` is the newest verified backup; one that was fetched without a signature is chosen
        only where there is no other.

        Args:
            word: Id, short id, unique beginning of either, or `latest`.
            project: The project to search; None for all.
            holding: Volumes that `latest` must hold, where any backup holds them all.
            fits: A further condition for `latest`, where any backup meets it.

        Raises:
            UsageError: No backup or several match; the message names the candidates.
            OperationFailed: A folder of the store cannot be listed.
        """
        if word == "latest":
            return self._find_latest(project, holding, fits)
        folders = (
            [self.folder.folder_of(project)]
            if project is not None
            else self.folder.project_folders()
        )
        entries = [entry for folder in folders for entry in list_backups(folder)]
        matching = find_matching(word, entries, lambda entry: entry.name)
        loaded = [self._load(entry) for entry in matching]
        if len(loaded) == 1:
            return loaded[0]
        if loaded:
            raise UsageError(
                f"{word!r} means {len(loaded)} backups: {_name_first(loaded)}",
                next_step="give more of the id",
            )
        near = self.list_summaries(project)
        there = (
            f"; there are {_name_first(near)}" if near else f"; there is none in {self.folder.root}"
        )
        raise UsageError(f"there is no backup {word!r}{there}", next_step="safe-compose list")

    def _find_latest(
        self,
        project: str | None,
        holding: Collection[str],
        fits: Callable[["Backup"], bool] | None,
    ) -> "Backup":
        every = self.list_summaries(project)
        verified = [line for line in every if line.verified]
        with_them = [line for line in verified if set(holding) <= set(line.volumes)]
        trusted_first = sorted(with_them or verified, key=lambda line: not line.counts)
        newest: Backup | None = None
        for found in filter(None, (self.at(line.path) for line in trusted_first)):
            if found.verified and (fits is None or fits(found)):
                return found
            newest = newest or (found if found.verified else None)
        if newest is not None:
            return newest
        of = f" of project {project}" if project is not None else ""
        there = f"; not verified: {_name_first(every)}" if every else ""
        whole = [line.id for line in every if line.broken is None]
        step = f"safe-compose verify {whole[0]}" if whole else "safe-compose list"
        raise UsageError(
            f"there is no verified backup{of} in {self.folder.root}{there}", next_step=step
        )

    def list_passed_over(self, latest: "Backup") -> list[BackupSummary]:
        """Return the newer, unverified backups of the volumes of `latest`, which it did not mean.

        Raises:
            OperationFailed: A folder of the store cannot be listed.
        """
        names = {record.name for record in latest.volumes}
        return [
            line
            for line in self.list_summaries(latest.project)
            if line.seq > latest.seq and not line.verified and names & set(line.volumes)
        ]

    def at(self, path: str) -> "Backup | None":
        """Return the backup in a folder that `listed` named, or None when it is gone.

        It is read from its own files.
        """
        folder = Path(path)
        return next(
            (
                self._load(entry)
                for entry in list_backups(folder.parent)
                if entry.name == folder.name
            ),
            None,
        )

    def _load(self, entry: "os.DirEntry[str]", *, keep: bool = True) -> "Backup":
        """Read the folder of one backup; damage is reported in `broken`, never raised.

        Args:
            entry: The folder.
            keep: Keep the manifest in memory for the next read.
        """
        from safe_compose.store.catalogue import schema

        if not is_id(entry.name):
            return self._make_damaged(entry, "its folder has not the name of a backup")
        try:
            data = read_regular(f"{entry.path}/{MANIFEST}", schema.LARGEST)
            digest = sha256(data).hexdigest()
            known = self._read.get(entry.path)
            if known is None or known[0] != digest:
                known = (digest, schema.read_manifest(data, entry.name, entry.path))
                if keep:
                    self._read[entry.path] = known
            backup = known[1]
        except ManifestDamaged as damage:
            return self._make_damaged(entry, str(damage))
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            return self._make_damaged(
                entry,
                (
                    "it has no manifest"
                    if missing
                    else f"its manifest cannot be read: {explain_error(error)}"
                ),
            )
        try:
            found = schema.read_verification(
                read_regular(f"{entry.path}/{VERIFICATION}", schema.LARGEST), digest
            )
        except FileNotFoundError:
            return replace(backup, unsigned_from=UNKNOWN_PLACE)
        except ManifestDamaged as damage:
            return replace(backup, broken=str(damage), unsigned_from=UNKNOWN_PLACE)
        except OSError as error:
            why = f"its verification.json cannot be read: {explain_error(error)}"
            return replace(backup, broken=why, unsigned_from=UNKNOWN_PLACE)
        return replace(
            backup,
            evidence=found.evidence,
            broken=found.broken,
            offsite=found.offsite,
            unsigned_from=found.unsigned_from,
        )

    def _make_damaged(self, entry: "os.DirEntry[str]", why: str) -> "Backup":
        return _make_broken(entry.name, Path(entry.path).parent.name, entry.path, why)

    def lacks(self, backup: "Backup") -> str | None:
        """Describe the first file of a backup that is missing or of another size, or return None.

        Only metadata is compared: no content is read.
        """
        folder = Path(backup.path)
        for record in backup.volumes:
            for artifact in record.artifacts:
                path = folder / artifact.file
                try:
                    linked = any(
                        p.is_symlink()
                        for p in (path, *path.parents)
                        if p.is_relative_to(folder) and p != folder
                    )
                    found = path.lstat()
                except OSError as error:
                    if isinstance(error, FileNotFoundError):
                        return f"{artifact.file} is missing"
                    return f"{artifact.file} cannot be looked at: {explain_error(error)}"
                if linked or not stat.S_ISREG(found.st_mode):
                    return f"{artifact.file} is no file of the backup's own"
                if found.st_size != artifact.bytes:
                    return (
                        f"{artifact.file} has {found.st_size} bytes, {artifact.bytes} were written"
                    )
        return None

    def sums(self, backup: "Backup") -> dict[str, str]:
        """Return path -> sha256 of every file of a backup but `SHA256SUMS`.

        Raises:
            VerificationFailed: `SHA256SUMS` is missing or damaged.
        """
        try:
            return manifest.read_sums(read_regular(Path(backup.path, SUMS)))
        except (OSError, ManifestDamaged) as error:
            why = explain_error(error) if isinstance(error, OSError) else str(error)
            raise VerificationFailed(
                f"backup {backup.id} is damaged in the store: SHA256SUMS: {why}"
            ) from error

    def read_sums(self, summed: bytes, backup_id: str) -> dict[str, str]:
        """Return path -> sha256 of every file of an off-site copy, including `SHA256SUMS`.

        Raises:
            VerificationFailed: `SHA256SUMS` is damaged.
        """
        try:
            return {**manifest.read_sums(summed), SUMS: sha256(summed).hexdigest()}
        except ManifestDamaged as damage:
            raise VerificationFailed(f"backup {backup_id} there: {damage}") from damage


_NOTHING: Mapping[str, str] = {}


def _make_unlistable(folder: Path, project: str, why: str) -> BackupSummary:
    """Return a broken backup that stands for a project's folder that cannot be listed."""
    return _make_broken(folder.name, project, str(folder), why).summarize()


def _make_broken(backup_id: str, project: str, path: str, why: str) -> "Backup":
    """Return a backup of which only this is known, and why it must not be trusted."""
    # Imported here, the confirmation screen is shown sooner.
    from safe_compose.core.backup import Backup

    return Backup(backup_id, 0, "", project, "", "", "", (), path, broken=why)


def _reduce(backup: "Backup") -> "Backup":
    """Return a backup with only the fields needed to compare thousands of backups.

    It keeps the volumes, the sizes of files, the levels of verification and the numbers of rows.
    """
    evidence = tuple(
        replace(e, level=intern(e.level), subject=intern(e.subject), what="")
        for e in backup.evidence
    )
    return replace(
        backup,
        project=intern(backup.project),
        endpoint=intern(backup.endpoint),
        engine_id=intern(backup.engine_id),
        volumes=tuple(map(_reduce_record, backup.volumes)),
        evidence=evidence,
        command=(),
        warnings=(),
        omitted=(),
    )


def _reduce_record(record: "VolumeRecord") -> "VolumeRecord":
    from safe_compose.core.backup import TableCount

    files = tuple(
        replace(
            a,
            file=intern(a.file),
            volume=intern(a.volume),
            kind=intern(a.kind),
            sha256="",
            detail=_NOTHING,
        )
        for a in record.artifacts
    )
    found = record.statistics
    if found is not None:
        databases = tuple(
            replace(d, name=intern(d.name), tables=(TableCount("", "", d.rows),))
            for d in found.databases
        )
        found = replace(found, databases=databases, settings=_NOTHING)
    name = intern(record.name)
    return replace(
        record,
        name=name,
        options=_NOTHING,
        labels=_NOTHING,
        users=(),
        notes=(),
        artifacts=files,
        statistics=found,
    )


def _name_first(backups: Sequence["Backup | BackupSummary"]) -> str:
    return name_first([f"{b.id} ({b.project})" for b in backups])
