"""Verification of the SQLite databases of a backup, with this host's SQLite."""

import shutil
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, cast

from safe_compose.core.backup import Artifact, DatabaseStatistics, Evidence
from safe_compose.core.quantities import count
from safe_compose.core.text import make_visible
from safe_compose.databases.sqlite.check import Checker, JudgedDatabase
from safe_compose.databases.sqlite.copy import UNJUDGED
from safe_compose.databases.sqlite.find import (
    MOST,
    SIDE_FILES,
    Finder,
    describe,
    find_archive,
    make_readable,
)
from safe_compose.databases.sqlite.workplace import NotEnoughSpace, making_workplace
from safe_compose.errors import VerificationFailed
from safe_compose.volumes.gzip_stream import make_damage_fault, make_evidence, unpack

FEW = 5
"""Number of databases that are named one by one in a message."""


def verify_copies(
    folder: Path, artifacts: Sequence[Artifact], counted: Sequence[DatabaseStatistics]
) -> list[Evidence]:
    """Verify the consistent SQLite copies of one volume at level L3 and return the evidence.

    L3 means: checksums match, `PRAGMA integrity_check` passes, and each table has as many rows as
    were counted. Artifacts of other kinds are ignored.

    Raises:
        VerificationFailed: A copy is damaged or differs, or a counted database has no copy.
    """
    found = []
    wanted = {d.name: d for d in counted}
    with Checker() as checker:
        for artifact in (a for a in artifacts if a.kind == "sqlite"):
            with making_workplace(folder, artifact.uncompressed_bytes) as place:
                copy = place / "copy"
                with copy.open("wb") as file:
                    for block in unpack(folder, artifact):
                        file.write(block)
                judged = checker.judge(copy)
            found.append(_compare(artifact, judged, wanted.pop(artifact.database or "", None)))
    if wanted:
        raise VerificationFailed(
            f"the backup has no copy of {', '.join(sorted(wanted))}; it is not counted as good",
            next_step="make a new backup",
        )
    return found


def _compare(
    artifact: Artifact, judged: JudgedDatabase, then: DatabaseStatistics | None
) -> Evidence:
    """Compare one copy with its statistics and return the evidence.

    Raises:
        VerificationFailed: The copy is damaged or differs.
    """
    if then is None:
        raise make_damage_fault(artifact, "it was not counted when it was made")
    unjudged = artifact.detail.get("by", "").endswith(UNJUDGED)
    if judged.fault is not None and not unjudged:
        raise make_damage_fault(artifact, f"the database is damaged: {judged.fault}")
    if judged.fault is not None:
        return make_evidence(
            "L3", artifact.file, f"SQLite: DAMAGED, kept as it was: {make_visible(judged.fault)}"
        )
    if unjudged or judged.unsure is not None:
        return make_evidence(
            "L3", artifact.file, f"not judged here: {judged.unsure or 'nor when it was made'}"
        )
    if judged.tables != then.tables:
        raise make_damage_fault(
            artifact, "its tables do not have the rows that were counted when it was made"
        )
    what = (
        f"{count(len(judged.tables), 'table')}, {count(judged.rows, 'row')} equal to their counts,"
        " integrity_check ok"
    )
    return make_evidence("L3", artifact.file, what)


def verify_archived(
    folder: Path, artifacts: Sequence[Artifact], finder: Finder, *, limit: int
) -> tuple[list[Evidence], list[str]]:
    """Check the SQLite databases in a cold archive, each with its archived `-wal` or `-journal`.

    At most `limit` bytes are unpacked, the smallest databases first. A database that is damaged, or
    that cannot be checked within the limits of `check`, is only reported: no backup can hold more
    than a faithful archive of it.

    Returns:
        The evidence, and messages for the user.

    Raises:
        VerificationFailed: A file of the backup was changed.
    """
    archive = find_archive(artifacts)
    if archive is None or not finder.found:
        return [], []
    chosen, size = [], 0
    for path in sorted(finder.found, key=finder.bytes_of):
        if size + finder.bytes_of(path) > limit:
            break
        size += finder.bytes_of(path)
        chosen.append(path)
    words = []
    if left := len(finder.found) - len(chosen):
        words.append(
            f"{left} SQLite databases were not opened: larger than trial_limit ({limit >> 20} MiB)"
        )
    if finder.more:
        words.append(f"{finder.more} SQLite databases were not opened: there are more than {MOST}")
    try:
        with making_workplace(folder, size) as place:
            copies = _unpack(folder, archive, finder, chosen, place)
            with Checker() as checker:
                judged = [(path, checker.judge(copy)) for path, copy in copies.items()]
    except NotEnoughSpace as fault:
        return [], [*words, f"{len(chosen)} SQLite databases were not opened: {fault.message}"]
    proofs, more = _sort_results(archive, judged)
    return proofs, [*words, *more]


def _sort_results(
    archive: Artifact, judged: Iterable[tuple[bytes, JudgedDatabase]]
) -> tuple[list[Evidence], list[str]]:
    """Return evidence for the intact databases, and messages about the others.

    Databases that could not be checked for the same reason share one message.
    """
    proofs: list[Evidence] = []
    damaged: list[str] = []
    unsure: dict[str, list[bytes]] = {}
    for path, found in judged:
        if found.fault is not None:
            why = make_visible(found.fault)
            damaged.append(
                f"the SQLite database {describe(path)} is damaged: {why}; the archive holds it as"
                " it is"
            )
        elif found.unsure is not None:
            unsure.setdefault(found.unsure, []).append(path)
        else:
            counts = f"{count(len(found.tables), 'table')}, {count(found.rows, 'row')}"
            what = f"SQLite: integrity_check ok, {counts}"
            proofs.append(make_evidence("L2", f"{archive.file}: {make_readable(path)}", what))
    words = damaged[:FEW]
    if len(damaged) > FEW:
        words.append(
            f"{len(damaged) - FEW} more SQLite databases are damaged; the archive holds them as"
            " they are"
        )
    for why, paths in unsure.items():
        names = ", ".join(map(describe, paths[:FEW])) + (
            f" and {len(paths) - FEW} more" if len(paths) > FEW else ""
        )
        words.append(
            f"SQLite {names}: not judged: {make_visible(why)}; the archive holds"
            f" {'it as it is' if len(paths) == 1 else 'them'}"
        )
    return proofs, words


def _unpack(
    folder: Path, archive: Artifact, finder: Finder, chosen: Sequence[bytes], place: Path
) -> dict[bytes, Path]:
    """Unpack databases of an archive and the files next to them, under names of ours.

    The archive was read strictly before; this reader only has to find the members again, sparse
    ones included.
    """
    wanted: dict[bytes, tuple[str, int]] = {}
    for number, path in enumerate(chosen):
        wanted[path] = f"{number}.db", finder.found[path].size
        for end in SIDE_FILES:
            wanted.setdefault(
                path + end, (f"{number}.db{end.decode()}", finder.side_files.get(path + end, 0))
            )
    source = cast("IO[bytes]", _Blocks(unpack(folder, archive)))
    with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as tar:
        for info in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            name, size = wanted.get(
                info.name.encode("utf-8", "surrogateescape").partition(b"/")[2], ("", 0)
            )
            if not name or not info.isfile() or info.size > size:
                continue
            if (opened := tar.extractfile(info)) is not None:
                with (place / name).open("wb") as file:
                    shutil.copyfileobj(opened, file, 1 << 20)
    return {path: at for path in chosen if (at := place / wanted[path][0]).exists()}


class _Blocks:
    """A file object over blocks, for tarfile."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (block := next(self._blocks, b"")):
            self._rest += block
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
