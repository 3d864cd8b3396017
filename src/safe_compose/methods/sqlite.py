"""SQLite databases in any volume, found by their first bytes: copied consistently while they are written, judged, put back.

A copy of the living file may be torn, and a backup of such a file looks as good as any. So SQLite itself makes the copy, in a
side container on the same kernel, where its locks are everybody's; where no image has it, only a copy that two passes found the
same counts. This host's own SQLite judges every copy, and the databases that lie in an archive.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

from safe_compose.artifacts import OWNER, WORKPLACE, Artifact, DatabaseStatistics, Evidence, TableCount, slug
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.methods import seal
from safe_compose.methods.archive import MOUNT, last_words
from safe_compose.methods.members import BadTar, Member, members
from safe_compose.methods.stream import blocks_of, evidence, new_folder, nothing, pack, sync_folder, unpack, unproved
from safe_compose.process import Process

MAGIC = b"SQLite format 3\0"
BESIDE = (b"-wal", b"-journal")
"""What belongs to a database besides its file; `-shm` is made again from the first of them."""
STALE = (b"-wal", b"-shm", b"-journal")

IMAGES_TRIED = 12
"""How many images are asked for Python or the sqlite3 program; each question costs a container."""
STABLE_PASSES = 8
COPY_SECONDS = 3600.0
"""How long one copy may take before its helper is killed."""
_NOT_THERE = (126, 127)
_CAPABILITIES = ("DAC_OVERRIDE", "CHOWN", "FOWNER")
"""As root SQLite gives a `-wal` or `-shm` that it has to make to the owner of the database (os_unix.c, robustFchown)."""

# `mode=ro` neither checkpoints nor removes anything of the application's. One step for all pages: another one would start anew
# with each write of the application's. The callback ends what would wait for ever for an exclusive lock.
_SCRIPT = """
import os, shutil, sqlite3, sys, tempfile, time, urllib.parse
until = time.monotonic() + 300
def look(status, left, total):
    if time.monotonic() > until:
        raise TimeoutError('the database has been locked for 300 s')
name = urllib.parse.quote(os.fsencode(sys.argv[1]))
source = sqlite3.connect('file:' + name + '?mode=ro', uri=True, timeout=60)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'copy')
    copy = sqlite3.connect(path)
    source.backup(copy, progress=look)
    copy.close()
    source.close()
    with open(path, 'rb') as made:
        shutil.copyfileobj(made, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""
_UNKNOWN = ("no such", "unknown", "unsupported file format", "not authorized")
"""In errors of a database that is whole but needs functions, collations or modules of its application's."""

WAYS = ("python3", "sqlite3")


@dataclass(frozen=True, slots=True)
class Judged:
    """What this host's SQLite said of one database."""

    tables: tuple[TableCount, ...]
    fault: str | None = None
    """It is damaged: the first words of `PRAGMA integrity_check`."""
    unsure: str | None = None
    """It cannot be judged here."""

    @property
    def rows(self) -> int:
        return sum(t.rows for t in self.tables)


@dataclass(slots=True)
class Finder:
    """Remembers which files of an archive begin like SQLite databases; given to `members` to look with."""

    found: dict[bytes, Member] = field(default_factory=dict)

    def __call__(self, member: Member, head: bytes) -> None:
        if head == MAGIC:
            self.found[member.path] = member


def readable(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


# -- judging -----------------------------------------------------------------------------------------------------------


def judge(path: Path) -> Judged:
    """Open a database of ours with what lies beside it, roll back or in what a writer left, check it, count its tables.

    A file of ours: it is written to. Never raises for what is in it.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as opened:
            opened.text_factory = lambda text: text.decode("utf-8", "backslashreplace")
            opened.execute("PRAGMA trusted_schema = OFF")
            said = [str(row[0]) for row in opened.execute("PRAGMA integrity_check(3)")]
            if said != ["ok"]:
                words = "; ".join(" ".join(line.split()) for line in said)[:300]
                sure = not all(any(u in line for u in _UNKNOWN) for line in said)
                return Judged((), fault=words) if sure else Judged((), unsure=words)
            names = opened.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
                "AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
            )
            tables = [TableCount("", name, _count(opened, name)) for (name,) in names.fetchall()]
            opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return Judged(tuple(tables))
    except sqlite3.Error as error:
        words = str(error)
        return Judged((), unsure=words) if any(u in words for u in _UNKNOWN) else Judged((), fault=words)


def _count(opened: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(opened.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])


@contextmanager
def _workplace(folder: Path, need: int) -> Iterator[Path]:
    """A private folder for `need` bytes, beside the backup: a user's data lies nowhere else. One that a killed run left says
    whose it was, for the store's next sweep.

    In the system's temporary folder only where backups are encrypted (nothing in the clear may lie beside them) and where the
    store cannot be written to.
    """
    private = seal.is_set() or not os.access(folder.parent, os.W_OK)
    try:
        with tempfile.TemporaryDirectory(prefix=WORKPLACE, dir=None if private else folder.parent) as made:
            Path(made, OWNER).write_text(json.dumps({"process": Process.current().facts()}), "ascii")
            yield Path(made)
    except OSError as error:
        where = "in the system's temporary folder (or set TMPDIR to one with more)" if private else f"beside {folder}"
        raise BackupFailed(
            f"there is no room to look into SQLite databases ({need >> 20} MiB are needed): {error.strerror or error}",
            next_step=f"make room {where}",
        ) from error


# -- while it is written -----------------------------------------------------------------------------------------------


def find(folder: Path, artifacts: Sequence[Artifact]) -> dict[bytes, Member]:
    """The SQLite databases in an archive that was just made, by path. Raises VerifyFailed."""
    archive = _archive_of(artifacts)
    finder = Finder()
    if archive is not None:
        try:
            for _ in members(unpack(folder, archive), finder):
                continue
        except BadTar as error:
            raise unproved(archive, str(error)) from error
    return finder.found


def copies(
    engine: Engine,
    volume: str,
    found: Mapping[bytes, Member],
    image_ids: Sequence[str],
    into: Path,
    progress: Callable[[int], None] = nothing,
    ways: Sequence[str] = WAYS,
) -> tuple[tuple[Artifact, ...], tuple[DatabaseStatistics, ...], tuple[str, ...]]:
    """A consistent copy of each database that `find` found, into `into/<slug of the volume>/`, judged and counted.

    `ways`: the programs that are looked for in the images. Returns the copies, what they hold, and notes. Raises BackupFailed
    where a database is damaged, or is written to all the time and no image has SQLite.
    """
    folder = into / slug(volume)
    new_folder(folder, subject=volume, stage="copy of SQLite")
    artifacts, counted, notes = [], [], []
    done = 0
    for path, member in sorted(found.items()):
        with _workplace(into, member.size) as place:
            copy = place / "copy"
            by = _copied(engine, volume, path, member, image_ids, copy, ways)
            if by is None:
                continue  # no database after all, or gone meanwhile
            judged = judge(copy)
            if judged.fault is not None:
                raise BackupFailed(
                    f"volume {volume}: the SQLite database {readable(path)} is damaged: {judged.fault}; no backup was made",
                    next_step="look at it with its application; a stopped one is archived as it is",
                )
            if judged.unsure is not None:
                notes.append(f"SQLite {readable(path)}: copied by SQLite, but not judged here: {judged.unsure}")
            target = folder / f"sqlite-{slug(readable(path))}.db.gz"
            with copy.open("rb") as made:
                sums = pack(blocks_of(made), target, subject=volume, stage="copy of SQLite", progress=_onwards(progress, done))
        done += sums.uncompressed_bytes
        artifacts.append(
            Artifact(
                file=target.relative_to(into).as_posix(),
                kind="sqlite",
                bytes=sums.bytes,
                sha256=sums.sha256,
                uncompressed_bytes=sums.uncompressed_bytes,
                volume=volume,
                database=readable(path),
                detail={"path": quote_from_bytes(path), "by": by, "owner": f"{member.uid} {member.gid} {member.mode:o}"},
            )
        )
        counted.append(DatabaseStatistics(readable(path), sums.uncompressed_bytes, judged.tables))
    sync_folder(folder, subject=volume, stage="copy of SQLite")
    return tuple(artifacts), tuple(counted), tuple(notes)


def _onwards(progress: Callable[[int], None], done: int) -> Callable[[int], None]:
    return lambda size: progress(done + size)


def _copied(
    engine: Engine, volume: str, path: bytes, member: Member, image_ids: Sequence[str], copy: Path, ways: Sequence[str]
) -> str | None:
    """Make a consistent copy; how it was made, or None when it is no database or gone. Raises BackupFailed."""
    cause = "no local image has Python or the sqlite3 program"
    for image in list(dict.fromkeys(i for i in image_ids if engine.image(i) is not None))[:IMAGES_TRIED]:
        for way in ways:
            if (engine.run_id, image, way) in _lacking:
                continue
            try:
                _received(engine, _helper(image, volume, _argv(way, path)), copy)
            except HelperFailed as error:
                words = last_words(error)
                if "file is not a database" in words or not _is_there(engine, volume, path, image_ids, copy.parent):
                    return None
                if error.returncode in _NOT_THERE or "No module named" in words or "has no attribute 'backup'" in words:
                    _lacking.add((engine.run_id, image, way))
                else:
                    cause = words
                continue
            with copy.open("rb") as made:
                return f"backup API ({way})" if made.read(len(MAGIC)) == MAGIC else None
    if not _stable(engine, volume, path, image_ids, copy):
        raise BackupFailed(
            f"volume {volume}: the SQLite database {readable(path)} was written to all the time and could not be copied "
            f"consistently ({cause}); no backup was made",
            next_step="docker pull an image with Python (python:3-slim), or stop what writes to it, then repeat the command",
        )
    with copy.open("rb") as made:
        return "two equal copies" if made.read(len(MAGIC)) == MAGIC else None


_lacking: set[tuple[str, str, str]] = set()
"""What was found out per run of ours: images without a program."""


def _argv(way: str, path: bytes) -> tuple[str, ...]:
    place = f"{MOUNT}/{os.fsdecode(path)}"
    if way == "python3":
        return ("python3", "-I", "-c", _SCRIPT, place)
    # The read transaction makes it one state: by itself the program copies some pages at a time, and starts anew with each write.
    commands = (
        ".bail on",
        ".timeout 60000",
        ".output /dev/null",
        "BEGIN",
        "SELECT count(*) FROM sqlite_master",
        ".backup /tmp/safe-compose-copy",
        ".system cat /tmp/safe-compose-copy",
    )
    return ("sqlite3", "-batch", "-readonly", *(word for c in commands for word in ("-cmd", c)), place, ".quit")


def _helper(image: str, volume: str, argv: tuple[str, ...], *, read_only: bool = False) -> Helper:
    return Helper(image=image, argv=argv, volumes=((volume, MOUNT, read_only),), user="0:0", capabilities=_CAPABILITIES)


def _received(engine: Engine, helper: Helper, copy: Path) -> str:
    """What a helper writes on its stdout, as a file; its sha256. Raises HelperFailed, BackupFailed."""
    digest = hashlib.sha256()
    try:
        with engine.stream(helper) as made, copy.open("wb") as file:
            timer = threading.Timer(COPY_SECONDS, made.abort)
            timer.start()
            try:
                for block in blocks_of(made.stdout):
                    digest.update(block)
                    file.write(block)
            finally:
                timer.cancel()
    except OSError as error:
        raise BackupFailed(
            f"{copy.parent.parent}: a copy of a SQLite database cannot be written: {error.strerror or error}",
            next_step="make room there, or choose another store with SAFE_COMPOSE_HOME",
        ) from error
    return digest.hexdigest()


def _stable(engine: Engine, volume: str, path: bytes, image_ids: Sequence[str], copy: Path) -> bool:
    """Copy the database and what lies beside it again and again until two passes found the same bytes: then nothing was written
    in between, for every transaction changes a counter in one of them. Raises BackupFailed."""
    before: tuple[str, ...] = ()
    for _ in range(STABLE_PASSES):
        seen = []
        for end in (b"", *BESIDE):
            target = copy.with_name(copy.name + end.decode())
            digest = _catted(engine, volume, path + end, image_ids, target)
            if digest is None:
                target.unlink(missing_ok=True)
            seen.append(digest or "none")
        if seen[0] != "none" and tuple(seen) == before:
            return True
        before = tuple(seen)
    return False


def _catted(engine: Engine, volume: str, path: bytes, image_ids: Sequence[str], target: Path) -> str | None:
    """The file's bytes into `target`; their sha256, or None where there is no such file. Raises BackupFailed."""
    for image in list(dict.fromkeys(i for i in image_ids if engine.image(i) is not None))[:IMAGES_TRIED]:
        try:
            return _received(engine, _helper(image, volume, ("cat", f"{MOUNT}/{os.fsdecode(path)}"), read_only=True), target)
        except HelperFailed as error:
            if error.returncode in _NOT_THERE:
                continue
            if "No such file" in last_words(error):
                return None
            raise BackupFailed(f"volume {volume}: copy of SQLite {readable(path)}: {last_words(error)}") from error
    raise BackupFailed(f"volume {volume}: copy of SQLite {readable(path)}: no local image has even cat")


def _is_there(engine: Engine, volume: str, path: bytes, image_ids: Sequence[str], place: Path) -> bool:
    look = place / "look"
    found = _catted(engine, volume, path, image_ids, look)
    look.unlink(missing_ok=True)
    return found is not None


# -- proof -------------------------------------------------------------------------------------------------------------


def verify_copies(folder: Path, artifacts: Sequence[Artifact], counted: Sequence[DatabaseStatistics]) -> list[Evidence]:
    """L3 of the consistent copies of one volume: sums, `PRAGMA integrity_check`, rows of each table equal to their counts.

    Artifacts of other kinds are ignored. Raises VerifyFailed, also when a counted database has no copy.
    """
    found = []
    wanted = {d.name: d for d in counted}
    for artifact in artifacts:
        if artifact.kind != "sqlite":
            continue
        with _workplace(folder, artifact.uncompressed_bytes) as place:
            copy = place / "copy"
            with copy.open("wb") as file:
                for block in unpack(folder, artifact):
                    file.write(block)
            judged = judge(copy)
        then = wanted.pop(artifact.database or "", None)
        if then is None:
            raise unproved(artifact, "it was not counted when it was made")
        if judged.fault is not None:
            raise unproved(artifact, f"the database is damaged: {judged.fault}")
        if judged.unsure is None and judged.tables != then.tables:
            raise unproved(artifact, "its tables do not have the rows that were counted when it was made")
        what = f"{len(judged.tables)} tables, {judged.rows} rows equal to their counts, integrity_check ok"
        found.append(evidence("L3", artifact.file, f"not judged here: {judged.unsure}" if judged.unsure else what))
    if wanted:
        raise VerifyFailed(
            f"the backup has no copy of {', '.join(sorted(wanted))}; it is not counted as good", next_step="make a new backup"
        )
    return found


def verify_archived(
    folder: Path, artifacts: Sequence[Artifact], found: Mapping[bytes, Member], *, limit: int, strict: bool
) -> tuple[list[Evidence], list[str]]:
    """Open each SQLite database of a cold archive, as the archive holds it with its `-wal` or `-journal`, and check it.

    `limit`: bytes that are unpacked at most. `strict`: a damaged one raises VerifyFailed; else it is only said, since a faithful
    archive of a damaged file is all that can be had. Returns evidence, and what has to be said.
    """
    archive = _archive_of(artifacts)
    if archive is None or not found:
        return [], []
    proofs, words = [], []
    size = sum(m.size for m in found.values())
    if size > limit:
        return [], [f"{len(found)} SQLite databases were not opened: larger than trial_limit ({limit >> 20} MiB)"]
    with _workplace(folder, size) as place:
        for path, copy in _unpacked(folder, archive, found, place, limit).items():
            judged = judge(copy)
            if judged.fault is not None:
                told = f"the SQLite database {readable(path)} is damaged: {judged.fault}"
                if strict:
                    raise unproved(archive, told)
                words.append(f"{told}; the archive holds it as it is")
            elif judged.unsure is not None:
                words.append(f"SQLite {readable(path)} cannot be judged here: {judged.unsure}")
            else:
                what = f"SQLite: integrity_check ok, {len(judged.tables)} tables, {judged.rows} rows"
                proofs.append(evidence("L2", f"{archive.file}: {readable(path)}", what))
    return proofs, words


def _unpacked(folder: Path, archive: Artifact, found: Mapping[bytes, Member], place: Path, limit: int) -> dict[bytes, Path]:
    """The databases of an archive and what lies beside them, as files with names of ours.

    The archive was read strictly before; this reader only has to find members again, holes and all.
    """
    numbers = {path: number for number, path in enumerate(found)}
    wanted = {path + end: f"{numbers[path]}.db{end.decode()}" for path in found for end in (b"", *BESIDE)}
    left = 4 * limit + (1 << 20)
    source = cast("IO[bytes]", _Blocks(unpack(folder, archive)))
    with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as tar:
        for info in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            path = info.name.encode("utf-8", "surrogateescape").partition(b"/")[2]
            if path not in wanted or not info.isfile():
                continue
            left -= info.size
            opened = tar.extractfile(info)
            if opened is None or left < 0:
                continue
            with (place / wanted[path]).open("wb") as file:
                shutil.copyfileobj(opened, file, 1 << 20)
    return {path: place / wanted[path] for path in found if (place / wanted[path]).exists()}


class _Blocks:
    """A file over blocks, for tarfile."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (block := next(self._blocks, b"")):
            self._rest += block
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


# -- the way back ------------------------------------------------------------------------------------------------------


def put_copies(engine: Engine, folder: Path, artifacts: Sequence[Artifact], volume: str, image_ids: Sequence[str]) -> int:
    """After an archive was extracted: each consistent copy in the place of the torn file, which keeps its owner and mode; what
    lay beside the torn one is removed. How many there were. Raises VerifyFailed, BackupFailed."""
    wanted = [a for a in artifacts if a.kind == "sqlite"]
    if not wanted:
        return 0
    paths = {a.file: unquote_to_bytes(a.detail["path"]) for a in wanted}
    _remove(engine, volume, [path + end for path in paths.values() for end in STALE], image_ids)
    image = next(i for i in image_ids if engine.image(i) is not None)
    engine.archive_in(volume, image, _tar(folder, wanted, paths))
    return len(wanted)


def _tar(folder: Path, wanted: Sequence[Artifact], paths: Mapping[str, bytes]) -> Iterator[bytes]:
    for artifact in wanted:
        info = tarfile.TarInfo(f"volume/{os.fsdecode(paths[artifact.file])}")
        uid, gid, mode = artifact.detail["owner"].split()
        info.uid, info.gid, info.mode, info.size = int(uid), int(gid), int(mode, 8), artifact.uncompressed_bytes
        info.mtime = int(time.time())
        yield info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
        yield from unpack(folder, artifact)
        yield bytes(-artifact.uncompressed_bytes % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _remove(engine: Engine, volume: str, paths: Sequence[bytes], image_ids: Sequence[str]) -> None:
    argv = ("rm", "-f", "--", *(f"{MOUNT}/{os.fsdecode(path)}" for path in paths))
    for image in list(dict.fromkeys(i for i in image_ids if engine.image(i) is not None))[:IMAGES_TRIED]:
        try:
            engine.run(_helper(image, volume, argv))
        except HelperFailed as error:
            if error.returncode in _NOT_THERE:
                continue
            raise BackupFailed(f"volume {volume}: restore of SQLite: {last_words(error)}") from error
        return
    raise BackupFailed(f"volume {volume}: restore of SQLite: no local image has rm", next_step="docker pull busybox")


def _archive_of(artifacts: Sequence[Artifact]) -> Artifact | None:
    return next((a for a in artifacts if a.kind == "archive"), None)
