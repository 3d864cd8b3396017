"""The writer of backups, and of what is found out about them later."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose import __version__
from safe_compose.core.backup_summary import UNKNOWN_PLACE, OffsiteCopy
from safe_compose.core.redaction import redact
from safe_compose.errors import OperationFailed, UsageError, VerificationFailed
from safe_compose.store import locks
from safe_compose.store.catalogue import manifest
from safe_compose.store.catalogue.draft import (
    Draft,
    IncomingCopy,
    check_files,
    find_misnamed,
    secure,
)
from safe_compose.store.catalogue.folder import COUNTER, FORMAT
from safe_compose.store.catalogue.manifest import (
    MANIFEST,
    RECIPE,
    SUMS,
    VERIFICATION,
    ManifestDamaged,
)
from safe_compose.store.catalogue.reader import BackupReader
from safe_compose.system.files import (
    make_folder,
    read_regular,
    reporting,
    sync_folder,
    write,
)
from safe_compose.system.files import replace as replace_file
from safe_compose.system.process import is_id, make_id, stamp

if TYPE_CHECKING:
    from safe_compose.core.backup import Backup, Evidence
    from safe_compose.store.catalogue.schema import Verification

PIN = timedelta(days=30)
"""How long a backup made before a deletion is pinned."""
_BEFORE_A_DELETION = frozenset({"pre-delete", "pre-restore"})
"""Reasons of backups that may hold the last copy: data that a restore overwrites is deleted too."""
_PARTIAL = ".partial-"


class BackupWriter:
    """The writer of new backups, and of findings about existing ones."""

    def __init__(self, reader: BackupReader) -> None:
        """Write to the store of this reader."""
        self.folder = reader.folder
        self._reader = reader

    @contextmanager
    def draft(
        self,
        project: str,
        reason: str,
        *,
        endpoint: str,
        engine_id: str,
        command: Sequence[str] = (),
    ) -> Iterator[Draft]:
        """Yield a hidden folder to write artifacts into; `Draft.commit` turns it into a backup.

        Leaving the block without a commit, by an exception or not, removes it.

        Raises:
            OperationFailed: A file cannot be read or written, here or in the block.
        """
        from safe_compose.core.backup import Backup

        self.folder.ensure()
        folder = self.folder.folder_of(project)
        now = self.folder.clock()
        backup_id = make_id(now)
        words = tuple(word.encode("utf-8", "backslashreplace").decode() for word in redact(command))
        backup = Backup(
            backup_id,
            0,
            stamp(now),
            project,
            endpoint,
            engine_id,
            reason,
            words,
            str(folder / backup_id),
        )
        unfinished = folder / f"{_PARTIAL}{backup_id}"
        with self._locking_draft(backup_id):
            draft = Draft(self.folder.access, unfinished, backup, self._name_draft)
            try:
                with reporting("make the backup"):
                    self._make_draft_folder(unfinished, "cannot make the backup")
                    yield draft
            finally:
                if draft.backup is None:
                    _discard(unfinished)

    @contextmanager
    def _locking_draft(self, backup_id: str) -> Iterator[None]:
        """Hold the lock of a draft as long as the draft exists.

        The kernel releases it however the process ends, so that a sweep can tell.
        """
        lock = self.folder.lock_path(f"draft-{backup_id}")
        with locks.holding(lock, f"draft {backup_id}", access=self.folder.access, wait=0):
            try:
                yield
            finally:
                with suppress(OSError):  # this name is never used again: a leftover is only untidy
                    lock.unlink()

    def _make_draft_folder(self, unfinished: Path, refusal: str) -> None:
        """Create the folder of a draft, and that of its project if needed.

        Raises:
            OperationFailed: The project's folder is a link: no list would show the content there.
            OSError: A folder cannot be created.
        """
        folder = unfinished.parent
        with suppress(FileExistsError):
            make_folder(folder, self.folder.access)
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise OperationFailed(
                f"{refusal}: {folder} is not a folder of the store but a link or a file"
            )
        make_folder(unfinished, self.folder.access)

    @contextmanager
    def copying(self, backup_id: str) -> Iterator[None]:
        """Lock one backup while it is sent or fetched, so that no two runs do it at once.

        Raises:
            StateChanged: Another run holds the lock.
            VerificationFailed: The text is no id of a backup.
            OperationFailed: The store cannot be used.
        """
        _require_id(backup_id)
        self.folder.ensure()
        with locks.holding(
            self.folder.lock_path(f"copy-{backup_id}"),
            f"backup {backup_id}",
            access=self.folder.access,
            wait=0,
        ):
            yield

    @contextmanager
    def adopt(self, backup_id: str, described: bytes, summed: bytes) -> Iterator["IncomingCopy"]:
        """Yield a draft for an off-site backup, which keeps its manifest, its sums and its number.

        The block writes the other files with `IncomingCopy.write` and calls `IncomingCopy.commit`
        when all of them have been checked. Leaving it without a commit removes everything.

        Raises:
            VerificationFailed: Manifest and sums are damaged or do not belong together.
            UsageError: The store has a backup with that id.
            OperationFailed: The store cannot be used, or a file cannot be written.
        """
        _require_id(backup_id)
        found, digests = _read_description(backup_id, described, summed)
        self.folder.ensure()
        folder = self.folder.folder_of(found.project)
        unfinished = folder / f"{_PARTIAL}{backup_id}"
        with self._locking_draft(backup_id):
            if any(os.path.lexists(p / backup_id) for p in self.folder.project_folders()):
                raise UsageError(
                    f"backup {backup_id} is in the store already",
                    next_step=f"safe-compose show {backup_id}",
                )
            adopted = replace(found, path=str(folder / backup_id))
            give_name = partial(self._name_copy, unfinished, described, summed)
            copy = IncomingCopy(self.folder.access, unfinished, adopted, digests, give_name)
            try:
                with reporting(f"fetch backup {backup_id}"):
                    # left by an interrupted run: this process holds the lock
                    _discard(unfinished)
                    self._make_draft_folder(unfinished, "nothing was fetched")
                    yield copy
            finally:
                if not copy.is_committed:
                    _discard(unfinished)

    def _name_copy(
        self,
        unfinished: Path,
        described: bytes,
        summed: bytes,
        backup: "Backup",
        found: "Verification",
    ) -> None:
        """Sync and name a fetched backup, and make later backups get higher numbers.

        Raises:
            OSError: A file cannot be written.
            OperationFailed: The store cannot be locked.
        """
        from safe_compose.store.catalogue import schema

        write(unfinished / SUMS, summed, self.folder.access)
        write(unfinished / VERIFICATION, schema.write_verification(found), self.folder.access)
        secure(unfinished, self.folder.access)
        with self.folder.holding("store"):
            self._next_seq(after=backup.seq)
            write(unfinished / MANIFEST, described, self.folder.access)
            sync_folder(unfinished)
            unfinished.rename(backup.path)
            sync_folder(unfinished.parent)

    def _name_draft(self, unfinished: Path, draft: "Backup") -> "Backup":
        """Number, describe, sync and name a draft.

        Raises:
            OSError: A file cannot be read or written.
            OperationFailed: A file is not as recorded, the id is taken, or the store cannot be
                locked.
        """
        from safe_compose.store.catalogue import restore_md, schema

        digests = check_files(unfinished, draft.volumes)
        secure(unfinished, self.folder.access)
        with self.folder.holding("store"):
            backup = replace(
                draft,
                seq=self._next_seq(),
                tool_version=__version__,
                pinned_until=(
                    stamp(self.folder.clock() + PIN) if draft.reason in _BEFORE_A_DELETION else None
                ),
            )
            final = Path(backup.path)
            if any(os.path.lexists(p / backup.id) for p in self.folder.project_folders()):
                raise OperationFailed(
                    f"a backup with the id {backup.id} exists already; nothing was kept"
                )
            described = manifest.write_manifest(backup)
            try:
                schema.read_manifest(described, backup.id, backup.path)
            except ManifestDamaged as damage:
                raise OperationFailed(
                    f"the backup could not be read again ({damage}); nothing was kept"
                ) from damage
            text = restore_md.write_text(backup).encode("utf-8", "backslashreplace")
            digests |= {MANIFEST: sha256(described).hexdigest(), RECIPE: sha256(text).hexdigest()}
            write(unfinished / RECIPE, text, self.folder.access)
            write(unfinished / SUMS, manifest.format_sums(digests), self.folder.access)
            nothing_yet = schema.Verification(manifest_sha256=digests[MANIFEST])
            write(
                unfinished / VERIFICATION,
                schema.write_verification(nothing_yet),
                self.folder.access,
            )
            write(unfinished / MANIFEST, described, self.folder.access)
            sync_folder(unfinished)
            unfinished.rename(final)
            sync_folder(final.parent)
        return backup

    def _next_seq(self, *, after: int = 0) -> int:
        """Return the next number, higher than `after` and recorded before it is used.

        The caller holds the store's lock.
        """
        number = self.folder.counter()
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            # lost or damaged: count again
            number = 1 + max((b.seq for b in self._reader.backups()), default=0)
        number = max(number, after + 1)
        text = json.dumps({"format": FORMAT, "next_seq": number + 1})
        replace_file(self.folder.root / COUNTER, text.encode(), self.folder.access)
        return number

    def sweep(self) -> tuple[str, ...]:
        """Remove the drafts of runs that are certainly dead, and their work folders.

        A draft stays when in doubt.

        Returns:
            The ids of the removed drafts.

        Raises:
            OperationFailed: A draft or a work folder cannot be removed.
        """
        from safe_compose.core.backup import OWNER, WORKPLACE

        swept = []
        for folder in self.folder.project_folders():
            for workplace in folder.glob(f"{WORKPLACE}*"):
                process = None if workplace.is_symlink() else locks.read_holder(workplace / OWNER)
                if process is not None and process.is_dead():
                    with reporting(f"remove {workplace}"):
                        shutil.rmtree(workplace)
            for unfinished in folder.glob(f"{_PARTIAL}*"):
                backup_id = unfinished.name.removeprefix(_PARTIAL)
                if not is_id(backup_id) or unfinished.is_symlink() or not unfinished.is_dir():
                    continue
                path = self.folder.lock_path(f"draft-{backup_id}")
                process = locks.read_holder(path)
                if process is None or not process.is_dead():
                    continue
                lock = locks.try_hold(path, access=self.folder.access)
                if lock is None:
                    continue
                try:
                    with reporting(f"remove the unfinished backup {unfinished}"):
                        shutil.rmtree(unfinished)
                        path.unlink(missing_ok=True)
                finally:
                    lock.release()
                swept.append(backup_id)
        return tuple(swept)

    # -- later findings ----------------------------------------------------------------------------

    def mark_verified(self, backup: "Backup", evidence: Iterable["Evidence"]) -> "Backup":
        """Add evidence and return the updated backup; the newest of one subject and level counts.

        A broken backup stays broken unless every one of its artifacts was read (L1 alone reads
        nothing).

        Raises:
            OperationFailed: The findings cannot be written.
        """

        def add(before: "Verification") -> "Verification":
            new = tuple(evidence)
            merged = {(e.subject, e.level): e for e in (*before.evidence, *new)}
            files = {a.file for v in backup.volumes for a in v.artifacts if a.kind != "list"}
            broken = (
                before.broken
                if before.broken and not files <= {e.subject for e in new if e.level > "L1"}
                else None
            )
            return before.model_copy(update={"evidence": tuple(merged.values()), "broken": broken})

        return self._amend(backup, add)

    def mark_broken(self, backup: "Backup", why: str) -> "Backup":
        """Record that a backup must not be trusted.

        It is kept, but never chosen automatically.

        Raises:
            OperationFailed: The findings cannot be written.
        """
        return self._amend(
            backup, lambda before: before.model_copy(update={"evidence": (), "broken": why})
        )

    def mark_copied(self, backup: "Backup", copy: OffsiteCopy) -> "Backup":
        """Record the state of an off-site copy; it replaces the recorded one.

        Raises:
            OperationFailed: The findings cannot be written.
        """

        def note(before: "Verification") -> "Verification":
            return before.model_copy(
                update={"offsite": (*(c for c in before.offsite if c.name != copy.name), copy)}
            )

        return self._amend(backup, note)

    def _amend(
        self, backup: "Backup", change: Callable[["Verification"], "Verification"]
    ) -> "Backup":
        from safe_compose.store.catalogue import schema

        folder = Path(backup.path)
        with (
            self.folder.holding("verification"),
            reporting(f"write what was found out about backup {backup.id}"),
        ):
            described = read_regular(folder / MANIFEST) if (folder / MANIFEST).exists() else b""
            digest = sha256(described).hexdigest()
            try:
                before = schema.read_verification(read_regular(folder / VERIFICATION), digest)
            except FileNotFoundError:
                before = schema.Verification(manifest_sha256=digest, unsigned_from=UNKNOWN_PLACE)
            except ManifestDamaged as damage:  # its content does not count any more
                before = schema.Verification(
                    manifest_sha256=digest, broken=str(damage), unsigned_from=UNKNOWN_PLACE
                )
            after = change(before).model_copy(update={"manifest_sha256": digest})
            replace_file(
                folder / VERIFICATION, schema.write_verification(after), self.folder.access
            )
        return replace(
            backup,
            evidence=after.evidence,
            broken=after.broken,
            offsite=after.offsite,
            unsigned_from=after.unsigned_from,
        )


def _discard(unfinished: Path) -> None:
    """Remove what there is of a draft, as far as possible: a later run sweeps the rest.

    Nothing is removed where the project's folder is a link: the content is not the store's.
    """
    if not unfinished.parent.is_symlink():
        shutil.rmtree(unfinished, ignore_errors=True)


def _read_description(
    backup_id: str, described: bytes, summed: bytes
) -> tuple["Backup", dict[str, str]]:
    """Return an off-site backup and the SHA-256 of each of its files.

    Raises:
        VerificationFailed: Manifest and sums are damaged or do not belong together.
    """
    from safe_compose.store.catalogue import schema

    try:
        found = schema.read_manifest(described, backup_id, "")
        digests = manifest.read_sums(summed)
    except ManifestDamaged as damage:
        raise VerificationFailed(
            f"backup {backup_id} there: {damage}; nothing was kept"
        ) from damage
    if (wrong := find_misnamed(found, digests)) is not None:
        raise VerificationFailed(f"backup {backup_id} there: {wrong}; nothing was kept")
    if digests[MANIFEST] != sha256(described).hexdigest():
        raise VerificationFailed(
            f"backup {backup_id} there: manifest and SHA256SUMS do not belong together; nothing"
            " was kept"
        )
    return found, digests


def _require_id(text: str) -> None:
    if not is_id(text):
        raise VerificationFailed(f"{text!r:.80} is no id of a backup; nothing was done")
