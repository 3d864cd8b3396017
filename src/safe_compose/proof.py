"""A backup that is on disk is read back and tried out; what that showed is recorded with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from safe_compose import prompts
from safe_compose.artifacts import Artifact, Backup, Evidence, VolumeRecord
from safe_compose.catalogue import Catalogue
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.journal import Run
from safe_compose.methods import archive, database_of, sqlite, stream


def prove(engine: Engine | None, catalogue: Catalogue, backup: Backup, *, trial_limit: int, run: Run | None = None) -> Backup:
    """Read every file of a backup back (L1, L2, L3) and try it out (L4) while it is small enough; record the evidence.

    `trial_limit` in uncompressed bytes; without an engine nothing is tried. `run` is journaled to. Raises VerifyFailed after
    marking the backup as broken: it is kept and never counted as good.
    """
    try:
        evidence = _proof(engine, backup, trial_limit, run)
    except VerifyFailed as fault:
        catalogue.mark_broken(backup, fault.message)
        raise
    return catalogue.mark_verified(backup, evidence)


def _proof(engine: Engine | None, backup: Backup, trial_limit: int, run: Run | None = None) -> list[Evidence]:
    """The evidence of `prove`, recorded nowhere. Raises VerifyFailed."""
    folder = Path(backup.path)
    evidence: list[Evidence] = []
    with prompts.progress(f"verify {backup.id}", total=sum(a.uncompressed_bytes for a in _files(backup))) as report:
        done = 0
        for record in backup.volumes:
            onwards: Callable[[int], None] = lambda read, before=done: report(before + read)  # type: ignore[misc]  # noqa: E731
            evidence += check_files(folder, record, onwards, open_up_to=trial_limit)
            done += sum(a.uncompressed_bytes for a in record.artifacts)
            report(done)
    if run is not None:
        run.step("read-back", backup=backup.id)
    for record in backup.volumes:
        if engine is not None and record.statistics is not None and stream.locked(folder, record) is None:
            evidence += _tried(engine, folder, record, record.statistics.kind, trial_limit)
    return evidence


def check_files(
    folder: Path, record: VolumeRecord, progress: Callable[[int], None] = lambda read: None, *, open_up_to: int | None = None
) -> list[Evidence]:
    """L2 for the archive, L3 for each dump, from the bytes on disk; `progress` gets bytes. Raises VerifyFailed.

    `open_up_to`: SQLite databases in an archive of a volume at rest are opened too, unless they have more bytes together.
    Of files that are encrypted for others L1, which is said.
    """
    if stream.locked(folder, record) is not None:
        prompts.say(
            f"safe-compose: {record.name} is encrypted: only size and sha256 were compared (L1); --identity FILE reads all of it"
        )
        return [_as_written(folder, artifact) for artifact in record.artifacts]
    evidence = []
    finder = sqlite.Finder() if open_up_to is not None and record.method != "live" else None
    if any(a.kind == "archive" for a in record.artifacts):
        evidence.append(archive.verify(folder, record.artifacts, progress, finder))
    if record.statistics is not None:
        evidence += database_of(record.statistics.kind).verify_dump(folder, record.artifacts, record.statistics)
    evidence += sqlite.verify_copies(folder, record.artifacts, record.sqlite)
    if finder is not None and open_up_to is not None:
        proofs, words = sqlite.verify_archived(
            folder, record.artifacts, finder.found, limit=open_up_to, strict=record.data_kind == "sqlite"
        )
        evidence += proofs
        for told in words:
            prompts.say(f"safe-compose: {record.name}: {told}")
    return evidence


def check_before_use(kept: Backup, record: VolumeRecord, progress: Callable[[int], None] = lambda read: None) -> None:
    """A record of a backup before a byte of it goes anywhere. Raises VerifyFailed.

    Where every file was read to its end before, only whether they still are those bytes (sha256): what was proved of them is true
    of them now. Else all of it is read. `progress` gets bytes.
    """
    folder = Path(kept.path)
    proved = {e.subject for e in kept.evidence if e.level > "L1"}
    if not all(a.file in proved for a in record.artifacts if a.kind != "list"):
        check_files(folder, record, progress)
        return
    done = 0
    for artifact in record.artifacts:
        stream.check(folder, artifact, progress=lambda read, before=done: progress(before + read))  # type: ignore[misc]
        done += artifact.bytes


def _as_written(folder: Path, artifact: Artifact) -> Evidence:
    stream.check(folder, artifact)
    return stream.evidence("L1", artifact.file, "size and sha256; encrypted, not opened")


def _tried(engine: Engine, folder: Path, record: VolumeRecord, kind: str, trial_limit: int) -> list[Evidence]:
    size = sum(a.uncompressed_bytes for a in record.artifacts)
    image = next((u["image_id"] for u in record.users if engine.image(u["image_id"]) is not None), None)
    if size > trial_limit or image is None:
        why = "its image is not at hand" if image is None else f"larger than trial_limit ({trial_limit >> 20} MiB)"
        prompts.say(f"safe-compose: {record.name}: no trial restore (L4): {why}")
        return []
    with prompts.progress(f"trial restore of {record.name}"):
        return database_of(kind).trial(engine, folder, record, image)


class Judged(NamedTuple):
    """What a backup turned out to be."""

    backup: Backup
    """With what was found out, be it recorded or not."""
    fault: str | None
    """What is wrong with it, or None."""
    unrecorded: str | None = None
    """Why the store does not know it."""


def verify_again(catalogue: Catalogue, backup: Backup, engine: Engine | None) -> Judged:
    """`safe-compose verify`: judge a backup anew. What was found after hours of reading counts where it cannot be written too."""
    if not backup.volumes:
        return Judged(backup, backup.broken or "its manifest does not read")
    lacks = catalogue.lacks(backup)
    fault = f"{lacks}; this backup is not counted as good" if lacks else None
    evidence: list[Evidence] = []
    try:
        evidence = [] if fault else _proof(engine, backup, 1 << 62)
    except VerifyFailed as failure:
        fault = failure.message
    try:
        marked = catalogue.mark_broken(backup, fault) if fault else catalogue.mark_verified(backup, evidence)
    except BackupFailed as unwritten:
        return Judged(replace(backup, evidence=tuple(evidence), broken=fault), fault, unwritten.message)
    return Judged(marked, fault)


def _files(backup: Backup) -> tuple[Artifact, ...]:
    return tuple(a for v in backup.volumes for a in v.artifacts)
