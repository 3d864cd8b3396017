"""Verification: a backup on disk is read back and test-restored, and the result is recorded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from safe_compose.core.backup import Artifact, Backup, Evidence, VolumeRecord
from safe_compose.databases import server_files, sqlite
from safe_compose.databases.registry import find_database
from safe_compose.databases.trials import TrialSkipped
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Run
from safe_compose.ui import terminal
from safe_compose.volumes import archive, gzip_stream


def verify_draft(
    engine: Engine | None,
    catalogue: Catalogue,
    backup: Backup,
    *,
    trial_limit: int,
    run: Run | None = None,
) -> Backup:
    """Read every file of a backup back (L1, L2, L3), test-restore it (L4), and record the evidence.

    Args:
        engine: The engine for test restores; None for none.
        catalogue: The catalogue that records the evidence.
        backup: The backup.
        trial_limit: The uncompressed size in bytes up to which a test restore is made.
        run: The run to journal to.

    Raises:
        VerificationFailed: The backup is damaged. It is kept, marked as broken and never counts as
            good.
    """
    try:
        evidence = _collect_evidence(engine, backup, trial_limit, run)
    except VerificationFailed as fault:
        catalogue.writer.mark_broken(backup, fault.message)
        raise
    return catalogue.writer.mark_verified(backup, evidence)


def _collect_evidence(
    engine: Engine | None, backup: Backup, trial_limit: int, run: Run | None = None
) -> list[Evidence]:
    """Return the evidence for `verify_draft` without recording it.

    Raises:
        VerificationFailed: The backup is damaged.
    """
    folder = Path(backup.path)
    evidence: list[Evidence] = []
    with terminal.showing_progress(
        f"verify {backup.id}", total=sum(a.uncompressed_bytes for a in _files(backup))
    ) as report:
        done = 0
        for record in backup.volumes:
            onwards: Callable[[int], None] = lambda read, before=done: report(before + read)  # type: ignore[misc]  # noqa: E731
            evidence += check_files(folder, record, onwards, open_up_to=trial_limit)
            done += sum(a.uncompressed_bytes for a in record.artifacts)
            report(done)
    if run is not None:
        run.step("read-back", backup=backup.id)
    for record in backup.volumes:
        if (
            engine is not None
            and record.statistics is not None
            and gzip_stream.has_key(folder, record.artifacts)
        ):
            evidence += _test_restore(engine, folder, record, record.statistics.kind, trial_limit)
    return evidence


def check_files(
    folder: Path,
    record: VolumeRecord,
    progress: Callable[[int], None] = gzip_stream.show_nothing,
    *,
    open_up_to: int | None = None,
) -> list[Evidence]:
    """Return evidence from the bytes on disk: L2 for the archive, L3 for each dump.

    For files that are encrypted for others it is L1, which is reported.

    Args:
        folder: The folder of the backup.
        record: The record of the volume.
        progress: Called with the bytes read so far.
        open_up_to: Also open the SQLite databases in the archive of a volume at rest, unless they
            are larger together than this, in bytes.

    Raises:
        VerificationFailed: A file is damaged.
    """
    if not gzip_stream.has_key(folder, record.artifacts):
        terminal.say(
            f"safe-compose: {record.name} is encrypted: only size and sha256 were compared (L1);"
            " --identity FILE reads all of it"
        )
        return [_confirm_hash(folder, artifact) for artifact in record.artifacts]
    evidence = []
    finder = sqlite.Finder() if open_up_to is not None and record.method != "live" else None
    if any(a.kind == "archive" for a in record.artifacts):
        evidence.append(archive.verify(folder, record.artifacts, progress, finder))
    if others := archive.select_others(record.artifacts):
        evidence.append(archive.verify(folder, others, progress))
    if record.statistics is not None:
        evidence += find_database(record.statistics.kind).verify_dump(
            folder, record.artifacts, record.statistics
        )
    evidence += server_files.verify(folder, record.artifacts)
    evidence += sqlite.verify_copies(folder, record.artifacts, record.sqlite)
    if finder is not None and open_up_to is not None:
        proofs, words = sqlite.verify_archived(folder, record.artifacts, finder, limit=open_up_to)
        evidence += proofs
        for line in words:
            terminal.say(f"safe-compose: {record.name}: {line}")
        # Damaged data is recorded with the backup; the archive is as faithful as any.
        if words:
            evidence.append(
                gzip_stream.make_evidence("L2", f"{record.name}: SQLite", "; ".join(words))
            )
    return evidence


def check_before_use(
    backup: Backup, record: VolumeRecord, progress: Callable[[int], None] = gzip_stream.show_nothing
) -> None:
    """Check a record of a backup before any byte of it is restored.

    If every file was read completely before, only its sha256 is compared: what was verified then
    still applies. Otherwise all of it is read.

    Args:
        backup: The backup.
        record: The record of the volume.
        progress: Called with the bytes read so far.

    Raises:
        KeyMissing: It is encrypted, and no identity at hand opens it.
        VerificationFailed: A file is damaged.
    """
    folder = Path(backup.path)
    gzip_stream.require_key(folder, record.artifacts)
    proved = {e.subject for e in backup.evidence if e.level > "L1"}
    if not all(a.file in proved for a in record.artifacts if a.kind != "list"):
        check_files(folder, record, progress)
        return
    done = 0
    for artifact in record.artifacts:
        gzip_stream.check(folder, artifact, progress=partial(_advance, progress, done))
        done += artifact.bytes


@contextmanager
def marking_damage(catalogue: Catalogue, backup: Backup) -> Iterator[None]:
    """Mark a backup as broken when a block that changes nothing yet finds it damaged.

    Raises:
        VerificationFailed: It is damaged; the message says that nothing was touched.
    """
    try:
        yield
    except VerificationFailed as fault:
        catalogue.writer.mark_broken(backup, fault.message)
        raise VerificationFailed(
            f"{fault.message}; nothing was touched", next_step=fault.next_step
        ) from fault


def _advance(progress: Callable[[int], None], before: int, read: int) -> None:
    progress(before + read)


def _confirm_hash(folder: Path, artifact: Artifact) -> Evidence:
    gzip_stream.check(folder, artifact)
    return gzip_stream.make_evidence("L1", artifact.file, "size and sha256; encrypted, not opened")


def _test_restore(
    engine: Engine, folder: Path, record: VolumeRecord, kind: str, trial_limit: int
) -> list[Evidence]:
    """Restore a dump into a server of its own, and return the evidence (L4).

    Returns:
        The evidence; none when no test restore is possible, which is reported.
    """
    size = sum(a.uncompressed_bytes for a in record.artifacts)
    image = next(
        (u["image_id"] for u in record.users if engine.docker.image(u["image_id"]) is not None),
        None,
    )
    if size > trial_limit or image is None or engine.docker.disk_is_full:
        why = (
            "its image is not at hand"
            if image is None
            else f"larger than trial_limit ({trial_limit >> 20} MiB)"
        )
        why = "the engine's disk is full" if engine.docker.disk_is_full else why
        terminal.say(f"safe-compose: {record.name}: no trial restore (L4): {why}")
        return []
    try:
        with terminal.showing_progress(f"trial restore of {record.name}"):
            evidence = find_database(kind).trial(engine, folder, record, image).run()
    except TrialSkipped as reason:
        terminal.say(f"safe-compose: {record.name}: no trial restore (L4): {reason.message}")
        return []
    for notes in (e.what.partition("; ")[2] for e in evidence):
        if notes:
            terminal.say(f"safe-compose: {record.name}: the trial restore says: {notes}")
    return evidence


class VerificationResult(NamedTuple):
    """A result of verifying a backup again."""

    backup: Backup
    """The backup with the new evidence, recorded or not."""
    fault: str | None
    """What is wrong with it; None when it is good."""
    unrecorded: str | None = None
    """Why the result could not be written to the store; None when it was."""
    is_closed: bool = False
    """Whether a key was lacking, so that of some files only size and SHA-256 were compared."""


def verify_again(catalogue: Catalogue, backup: Backup, engine: Engine | None) -> VerificationResult:
    """Verify a backup for `safe-compose verify`, and record the result.

    After hours of reading, the result counts even if it cannot be written.
    """
    if not backup.volumes:
        return VerificationResult(backup, backup.broken or "its manifest does not read")
    lacks = catalogue.reader.lacks(backup)
    fault = f"{lacks}; this backup is not counted as good" if lacks else None
    evidence: list[Evidence] = []
    try:
        evidence = [] if fault else _collect_evidence(engine, backup, 1 << 62)
    except VerificationFailed as failure:
        fault = failure.message
    is_closed = any(e.level == "L1" for e in evidence)
    try:
        marked = (
            catalogue.writer.mark_broken(backup, fault)
            if fault
            else catalogue.writer.mark_verified(backup, evidence)
        )
    except OperationFailed as unwritten:
        found = replace(backup, evidence=tuple(evidence), broken=fault)
        return VerificationResult(found, fault, unwritten.message, is_closed)
    return VerificationResult(marked, fault, is_closed=is_closed)


def _files(backup: Backup) -> tuple[Artifact, ...]:
    return tuple(a for v in backup.volumes for a in v.artifacts)
