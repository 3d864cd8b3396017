"""Consistent copies of SQLite databases that are in use.

A copy of the file may be inconsistent, and a backup of such a file looks like any other. So SQLite
itself makes the copy, in a container on the same kernel, where all users share its locks: the
SQLite of our own helper program, or that of the service's own image. Where neither has it, a copy
is accepted only if two passes read the same bytes.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from safe_compose.core.backup import Artifact, DatabaseStatistics
from safe_compose.core.observed import describe_location
from safe_compose.core.slug import slug
from safe_compose.core.text import make_visible
from safe_compose.databases.protocol import list_service_images
from safe_compose.databases.sqlite.check import Checker, JudgedDatabase
from safe_compose.databases.sqlite.find import MAGIC, SIDE_FILES, describe, make_readable
from safe_compose.databases.sqlite.workplace import making_workplace
from safe_compose.databases.trials import making_scratch_volume
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.errors import OperationFailed
from safe_compose.volumes.backup_files import new_folder, sync_folder
from safe_compose.volumes.engine_location import MISSING, EngineLocation
from safe_compose.volumes.gzip_stream import Sums, pack, read_blocks, show_nothing
from safe_compose.volumes.helper_program import MOUNT, read_last_words
from safe_compose.volumes.tar import Member

STABLE_PASSES = 8
COPY_SECONDS = 3600.0
"""Time limit for one copy; then its helper is killed."""
COPIES_SECONDS = 7200.0
"""Time limit for all copies of one volume; each needs a container."""
WAIT_SECONDS = 300
"""Time to wait for a process that has locked the database exclusively."""
_NOT_THERE = (126, 127)
_LACKS = {False: _NOT_THERE, True: (11,)}
"""Exit codes that mean there is no SQLite: docker's for a program of an image, and those of our own
helper program.
"""
_CAPABILITIES = ("DAC_OVERRIDE", "CHOWN", "FOWNER")
"""As root, SQLite gives a `-wal` or `-shm` that it has to make to the owner of the database
(os_unix.c, robustFchown).
"""

# `mode=ro` neither checkpoints nor removes anything of the application's. One step copies all
# pages: a second step would start over after each write of the application. The callback stops a
# wait for an exclusive lock.
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
UNJUDGED = "not judged"
"""End of a copy's `by` if the copy was not checked when it was made."""
NO_DATABASE = "file is not a database"
"""SQLite's message about a file that only begins like a database."""
OWN = "own"
METHODS = (OWN, "python3", "sqlite3")


class _CopySource(NamedTuple):
    """A volume whose databases are copied, and the programs that may copy them."""

    location: EngineLocation
    images: tuple[str, ...]
    """Images of the services that use the volume."""
    methods: tuple[str, ...]

    def offers(self) -> Iterator[tuple[str, str]]:
        """Yield method and image of each attempt."""
        for method in self.methods:
            for image in ("",) if method == OWN else self.images:
                if (self.location.engine.run_id, image, method) not in _lacking:
                    yield method, image


def copy_databases(
    location: EngineLocation,
    found: Mapping[bytes, Member],
    into: Path,
    progress: Callable[[int], None] = show_nothing,
    methods: Sequence[str] = METHODS,
) -> tuple[tuple[Artifact, ...], tuple[DatabaseStatistics, ...], tuple[str, ...]]:
    """Copy each database of `found` consistently, check the copies and count their rows.

    The copies go into `into/<slug of the volume>/`. Our own helper program makes them, or else the
    service's own image; `methods` are those tried. A damaged database is not copied: the archive
    holds it as it was read.

    Returns:
        The copies, their statistics, and notes for the user.

    Raises:
        OperationFailed: A database is written to all the time and no SQLite is available, or all
            copies together take longer than COPIES_SECONDS.
    """
    folder, name = into / slug(location.name), location.name
    new_folder(folder, subject=name, stage="copy of SQLite")
    artifacts, counted, notes = [], [], []
    done = 0
    source = _CopySource(location, list_service_images(location), tuple(methods))
    until = time.monotonic() + COPIES_SECONDS
    with Checker() as checker:
        for path, member in sorted(found.items()):
            if time.monotonic() > until:
                raise OperationFailed(
                    f"{describe_location(name)}: {len(found)} SQLite databases were not copied in"
                    f" {COPIES_SECONDS:.0f} s",
                    next_step="stop what writes to them, then repeat the command",
                )
            with making_workplace(into, member.size) as place:
                copy = place / "copy"
                by, judged, note = _copy_and_judge(source, checker, path, copy)
                notes += [note] if note else []
                if judged is None:
                    continue
                target = folder / f"sqlite-{slug(make_readable(path))}.db.gz"
                sums = _pack(copy, target, name, _count_onwards(progress, done))
            done += sums.uncompressed_bytes
            artifacts.append(_artifact(target.relative_to(into), sums, name, member, by))
            counted.append(
                DatabaseStatistics(make_readable(path), sums.uncompressed_bytes, judged.tables)
            )
    sync_folder(folder, subject=name, stage="copy of SQLite")
    return tuple(artifacts), tuple(counted), tuple(notes)


def _pack(copy: Path, target: Path, volume: str, progress: Callable[[int], None]) -> Sums:
    with copy.open("rb") as made:
        return pack(
            read_blocks(made), target, subject=volume, stage="copy of SQLite", progress=progress
        )


def _copy_and_judge(
    source: _CopySource, checker: Checker, path: bytes, copy: Path
) -> tuple[str, JudgedDatabase | None, str]:
    """Copy one database and check the copy.

    Returns:
        The method, the findings, and a note for the user (empty if there is none). The findings are
        None if no copy is kept: the database disappeared, or the archive holds as much of it.
    """
    archived = "the archive holds it as it was read"
    by = _copy(source, path, copy)
    if by is None:
        return "", None, ""  # removed meanwhile
    if by == NO_DATABASE:
        return by, None, f"SQLite {describe(path)} is damaged: {NO_DATABASE}; {archived}"
    has_side_file = any(copy.with_name(copy.name + end.decode()).exists() for end in SIDE_FILES)
    judged = checker.judge(copy)
    if judged.fault is not None:
        return (
            by,
            None,
            f"SQLite {describe(path)} is damaged: {make_visible(judged.fault)}; {archived}",
        )
    if judged.unsure is None:
        return by, judged, ""
    if has_side_file:  # a copy without its log or journal would hold less than the archive
        return (
            by,
            None,
            f"SQLite {describe(path)}: not judged: {make_visible(judged.unsure)}; {archived}",
        )
    note = f"SQLite {describe(path)}: copied ({by}), but not judged: {make_visible(judged.unsure)}"
    return f"{by}; {UNJUDGED}", judged, note


def _artifact(file: Path, sums: Sums, volume: str, member: Member, by: str) -> Artifact:
    return Artifact(
        file=file.as_posix(),
        kind="sqlite",
        bytes=sums.bytes,
        sha256=sums.sha256,
        uncompressed_bytes=sums.uncompressed_bytes,
        volume=volume,
        database=make_readable(member.path),
        detail={
            "path": quote_from_bytes(member.path),
            "by": by,
            "owner": f"{member.uid} {member.gid} {member.mode:o}",
        },
    )


def _count_onwards(progress: Callable[[int], None], done: int) -> Callable[[int], None]:
    return lambda size: progress(done + size)


def _copy(source: _CopySource, path: bytes, copy: Path) -> str | None:
    """Copy a database consistently and return the method.

    Returns:
        NO_DATABASE if the file is none, and None if it disappeared.

    Raises:
        OperationFailed: No consistent copy could be made.
    """
    cause = "neither our own program nor the service's image has SQLite"
    for method, image in source.offers():
        try:
            if method == OWN:
                _copy_by_helper(source, path, copy)
            else:
                _receive(
                    source.location.engine,
                    _helper(image, source.location.mounted, _argv(method, path)),
                    copy,
                )
        except NoOwnImage:
            _lacking.add((source.location.engine.run_id, image, method))
        except HelperFailed as error:
            words = read_last_words(error)
            if not source.location.is_there(os.fsdecode(path)):
                return None
            if NO_DATABASE in words:
                return NO_DATABASE
            if (
                error.returncode in _LACKS[method == OWN]
                or "No module named" in words
                or "has no attribute 'backup'" in words
            ):
                _lacking.add((source.location.engine.run_id, image, method))
            else:
                cause = words
        else:
            with copy.open("rb") as made:
                return f"backup API ({method})" if made.read(len(MAGIC)) == MAGIC else NO_DATABASE
    if not _copy_until_stable(source, path, copy):
        raise OperationFailed(
            f"{describe_location(source.location.name)}:"
            f" the SQLite database {describe(path)} was written to all"
            f" the time and could not be copied consistently ({cause})",
            next_step="stop what writes to it, then repeat the command",
        )
    with copy.open("rb") as made:
        return "two equal copies" if made.read(len(MAGIC)) == MAGIC else NO_DATABASE


_lacking: set[tuple[str, str, str]] = set()
"""Images that lack a program, remembered per run."""


def _copy_by_helper(source: _CopySource, path: bytes, copy: Path) -> None:
    """Copy with our own helper program, which needs a scratch volume while it works.

    Raises:
        NoOwnImage: Our own helper program does not run on this engine.
        HelperFailed: The copy failed.
        OperationFailed: The copy could not be written.
    """
    source.location.engine.images.own_image()
    with making_scratch_volume(source.location.engine) as place:
        # `/tmp` is a path within the container.
        mounts = ((source.location.mounted, MOUNT, False), (place.name, "/tmp", False))
        words = (MOUNT, os.fsdecode(path), "--seconds", str(WAIT_SECONDS))
        helper = source.location.engine.helpers.own(
            "sqlite-copy", *words, volumes=mounts, capabilities=_CAPABILITIES
        )
        _receive(source.location.engine, helper, copy)


def _argv(method: str, path: bytes) -> tuple[str, ...]:
    place = f"{MOUNT}/{os.fsdecode(path)}"
    if method == "python3":
        return ("python3", "-I", "-c", _SCRIPT, place)
    # The read transaction makes the copy one state: by itself the program copies a few pages at a
    # time, and starts over after each write.
    commands = (
        ".bail on",
        ".timeout 60000",
        ".output /dev/null",
        "BEGIN",
        "SELECT count(*) FROM sqlite_master",
        ".backup /tmp/safe-compose-copy",
        ".system cat /tmp/safe-compose-copy",
    )
    return (
        "sqlite3",
        "-batch",
        "-readonly",
        *(word for c in commands for word in ("-cmd", c)),
        place,
        ".quit",
    )


def _helper(image: str, volume: str, argv: tuple[str, ...], *, read_only: bool = False) -> Helper:
    return Helper(
        image=image,
        argv=argv,
        volumes=((volume, MOUNT, read_only),),
        user="0:0",
        capabilities=_CAPABILITIES,
    )


def _receive(engine: Engine, helper: Helper, copy: Path) -> str:
    """Write the output of a helper into a file and return its SHA-256.

    Raises:
        HelperFailed: The helper failed.
        OperationFailed: The file could not be written.
    """
    digest = hashlib.sha256()
    try:
        with engine.helpers.stream(helper) as made, copy.open("wb") as file:
            timer = threading.Timer(COPY_SECONDS, made.abort)
            timer.start()
            try:
                for block in read_blocks(made.stdout):
                    digest.update(block)
                    file.write(block)
            finally:
                timer.cancel()
    except OSError as error:
        raise OperationFailed(
            f"{copy.parent.parent}: a copy of a SQLite database cannot be written:"
            f" {error.strerror or error}",
            next_step="make room there, or choose another store with SAFE_COMPOSE_HOME",
        ) from error
    return digest.hexdigest()


def _copy_until_stable(source: _CopySource, path: bytes, copy: Path) -> bool:
    """Copy a database and the files next to it until two passes read the same bytes.

    Then nothing was written in between, for every transaction changes a counter in one of the
    files.

    Returns:
        False if no two passes were equal.

    Raises:
        OperationFailed: A file could not be read or written.
    """
    before: tuple[str, ...] = ()
    for _ in range(STABLE_PASSES):
        seen = []
        for end in (b"", *SIDE_FILES):
            target = copy.with_name(copy.name + end.decode())
            digest = _copy_bytes(source, path + end, target)
            if digest is None:
                target.unlink(missing_ok=True)
            seen.append(digest or "none")
        if seen[0] != "none" and tuple(seen) == before:
            return True
        before = tuple(seen)
    return False


def _copy_bytes(source: _CopySource, path: bytes, target: Path) -> str | None:
    """Copy a file's bytes into `target` and return their SHA-256; None if there is no such file.

    Raises:
        OperationFailed: The file could not be read or written.
    """
    name = os.fsdecode(path)
    try:
        if not source.location.is_there(name):
            return None
        return _receive(
            source.location.engine,
            source.location.read_only_helper("cat", MOUNT, name),
            target,
        )
    except NoOwnImage:
        pass  # try the service's own image
    except HelperFailed as error:
        if error.returncode == MISSING:
            return None
        raise OperationFailed(
            f"{describe_location(source.location.name)}: copy of SQLite {describe(path)}:"
            f" {read_last_words(error)}"
        ) from error
    for image in source.images:
        try:
            return _receive(
                source.location.engine,
                _helper(image, source.location.mounted, ("cat", f"{MOUNT}/{name}"), read_only=True),
                target,
            )
        except HelperFailed as error:
            if error.returncode in _NOT_THERE:
                continue
            if "No such file" in read_last_words(error):
                return None
            raise OperationFailed(
                f"{describe_location(source.location.name)}: copy of SQLite {describe(path)}:"
                f" {read_last_words(error)}"
            ) from error
    raise OperationFailed(
        f"{describe_location(source.location.name)}:"
        f" copy of SQLite {describe(path)}: neither our own program nor"
        " the service's image can read it"
    )
