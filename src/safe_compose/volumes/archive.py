"""Archives of whole volumes, whatever data they hold: packing, verification and restore.

The work is done by our own helper program, which runs in a container of an image that holds nothing
else (`engine.helper_image`); no other image ever sees the volume. Where that image does not exist
for the machine of the engine, the engine's own archive of a container that never starts is used.
What such an archive loses was found by running it, and is recorded with the archive.
"""

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from safe_compose.core.backup import Artifact, Evidence, slug
from safe_compose.core.observed import Volume
from safe_compose.core.text import shell_quote
from safe_compose.engine import PIPE, Engine, HelperFailed, NoOwnImage
from safe_compose.engine.helper_image import PACKS
from safe_compose.errors import OperationFailed, StateChanged, VerificationFailed
from safe_compose.volumes.backup_files import new_folder, removing_on_fault, sync_folder
from safe_compose.volumes.gzip_stream import (
    check,
    checking,
    make_damage_fault,
    make_evidence,
    pack,
    read_blocks,
    show_nothing,
    unpack,
)
from safe_compose.volumes.helper_program import (
    MOUNT,
    FilesChanged,
    changing_helper,
    explain_no_program,
    feed,
    has_program,
    naming_fault,
    read_last_words,
    read_only_helper,
    unpacking_helper,
)
from safe_compose.volumes.tar import BadTar, Member, compare, read_list, read_members, resolve_links

ARCHIVE_FILE = "data.tar.gz"
LIST_FILE = "data.list.gz"
OTHERS_FILE = "others.tar.gz"
OTHERS_LIST_FILE = "others.list.gz"
OTHERS = {"others": "archive", "others list": "list"}
"""Kinds of the archive of what lies next to a database's own folders, and of its list, mapped to
the kinds of a whole volume's archive and list.
"""

_ENGINE_LOSES = (
    "extended attributes (capabilities of programs are kept), ACLs, fractions of a second in times,"
    " holes in sparse files, sockets"
)
_ENGINE_LEAVES = "ACLs and holes in sparse files, if it had any, did not come back"
"""What the engine does not unpack from an archive that our program made (run, engine 20.10)."""
_INDEPENDENT = ("helper", "find")
"""Sources of a list that are independent of its archive: our helper program; GNU find in backups of
earlier releases.
"""


def archive(
    engine: Engine,
    volume: Volume,
    *,
    into: Path,
    progress: Callable[[int], None] = show_nothing,
    live: bool = False,
) -> tuple[Artifact, ...]:
    """Archive one volume into `into/<slug>/`, with a list of its entries to verify it by.

    With `live` the users of the volume may be writing: a file that changes while it is read is no
    failure then, and the list is taken from the archive itself.

    Returns:
        The archive and its list.

    Raises:
        OperationFailed: The volume could not be read, or the archive not written.
    """
    folder = into / slug(volume.name)
    new_folder(folder, subject=volume.name, stage="archive")
    path, by = folder / ARCHIVE_FILE, "helper"
    listing: Artifact | None = None
    if why := explain_no_program(engine):
        with naming_fault(volume.name, "archive"), engine.archives.stream(volume.name) as chunks:
            tar = _pack(chunks, path, into, volume.name, "archive", progress)
        by, lost = "engine", [_ENGINE_LOSES, f"the engine itself made it, since {why}"]
    elif live:
        tar, lost = _pack_by_helper(engine, volume.name, path, into, progress, live=True)
    else:
        with (
            naming_fault(volume.name, "list"),
            _listing_meanwhile(engine, volume.name, folder, into) as pending,
        ):
            tar, lost = _pack_by_helper(engine, volume.name, path, into, progress, live=False)
            listing = pending.result()
    detail = {
        "tar": by,
        "list": "archive" if listing is None else "helper",
        "live": str(live).lower(),
    }
    if listing is None:
        listing = _make_list(tar, folder / LIST_FILE, into, volume.name)
    count, sockets = _count(into, listing)
    detail["members"] = str(count)
    lost += [f"{sockets} sockets (they hold nothing)"] if sockets else []
    if lost:
        detail["lost"] = "; ".join(lost)
    sync_folder(folder, subject=volume.name, stage="archive")
    sync_folder(into, subject=volume.name, stage="archive")
    return replace(tar, detail=detail), replace(
        listing, detail={"from": detail["list"], "members": detail["members"]}
    )


def archive_others(
    engine: Engine,
    volume: Volume,
    hidden: Sequence[str],
    *,
    into: Path,
    progress: Callable[[int], None] = show_nothing,
) -> tuple[Artifact, ...]:
    """Archive a volume, while it may be written, without the folders of a database that was dumped.

    `hidden` holds the paths of those folders, relative to the volume's root. The helper mounts a
    tmpfs over each, and nothing that is mounted is ever packed.

    Returns:
        The archive and its list.

    Raises:
        OperationFailed: The volume could not be read, the archive not written, or a hidden folder
            was packed nevertheless.
        NoOwnImage: Our helper program does not run on this engine.
    """
    folder = into / slug(volume.name)
    new_folder(folder, subject=volume.name, stage="archive")
    tar, _ = _pack_by_helper(
        engine, volume.name, folder / OTHERS_FILE, into, progress, live=True, hidden=hidden
    )
    listing = _make_list(tar, folder / OTHERS_LIST_FILE, into, volume.name)
    count, _ = _count(into, listing)
    below = tuple(path.encode("utf-8", "surrogateescape") + b"/" for path in hidden)
    if any(entry.path.startswith(below) for entry in read_list(unpack(into, listing))):
        raise OperationFailed(
            f"volume {volume.name}: archive: the folder of its database was not left out"
        )
    detail = {
        "tar": "helper",
        "list": "archive",
        "live": "true",
        "members": str(count),
        "without": json.dumps(list(hidden)),
    }
    sync_folder(folder, subject=volume.name, stage="archive")
    sync_folder(into, subject=volume.name, stage="archive")
    return replace(tar, kind="others", detail=detail), replace(
        listing, kind="others list", detail={"members": str(count)}
    )


def select_others(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """Return the artifacts of `archive_others` as `verify` and `extract` expect them.

    Returns:
        An empty tuple if the backup has none.
    """
    return tuple(replace(a, kind=OTHERS[a.kind]) for a in artifacts if a.kind in OTHERS)


def verify(
    folder: Path,
    artifacts: Sequence[Artifact],
    progress: Callable[[int], None] = show_nothing,
    look: Callable[[Member, bytes], None] | None = None,
) -> Evidence:
    """Verify one volume's archive at level L2 and return the evidence.

    L2 means: the checksums match, the gzip streams are complete, the tar is read to its end, and
    its members equal the list. `look` gets the beginning of every file (see `tar.read_members`).
    `artifacts` are those of one volume; any but its archive and list are ignored.

    Raises:
        VerificationFailed: An artifact is missing, damaged, or differs from the list.
    """
    tar, listing = archive_and_list(artifacts)
    check(folder, listing)
    try:
        count = compare(
            lambda: read_members(unpack(folder, tar, progress=progress), look),
            lambda: read_list(unpack(folder, listing)),
        )
    except BadTar as error:
        raise make_damage_fault(tar, str(error)) from error
    if tar.detail.get("members", str(count)) != str(count):
        raise make_damage_fault(
            tar, f"it has {count} members, {tar.detail['members']} were written"
        )
    source = tar.detail.get("list")
    its_list = "the list" if source in _INDEPENDENT else "the list taken from it"
    return make_evidence("L2", tar.file, f"whole archive read, {count} members equal {its_list}")


def extract(
    engine: Engine,
    folder: Path,
    artifacts: Sequence[Artifact],
    volume_name: str,
    progress: Callable[[int], None] = show_nothing,
    *,
    add: bool = False,
) -> str:
    """Fill an existing empty volume from a verified archive, and compare the result with the list.

    The owner and mode of the volume's root are restored too. With `add` the volume may already hold
    a part of the archive (`survivors.is_part_of_archive`), which stays as it is. `artifacts` are
    those of one volume, as `archive` returned and `verify` accepted them.

    Returns:
        What could not be restored, in words; empty if nothing was lost.

    Raises:
        StateChanged: The volume is not empty.
        VerificationFailed: A file of the backup is not what was written (raised before the first
            byte is extracted), or the volume does not hold what the archive does (raised
            afterwards).
        OperationFailed: The engine cannot extract the archive.

    After an OperationFailed, or a VerificationFailed at the end, the volume holds a part of the
    data. Nothing here deletes it.
    """
    artifact, listing = archive_and_list(artifacts)
    if not add:
        _require_empty(engine, volume_name)
    blocks = unpack(folder, artifact, progress=progress, checked=True)
    lost = ""
    try:
        with checking(folder, artifact, listing) as require_checked:
            if not (why := explain_no_program(engine)):
                lost = _extract_by_helper(engine, volume_name, blocks, require_checked, add=add)
            elif add:
                raise OperationFailed(
                    f"volume {volume_name}: what is missing cannot be put back here alone: {why}"
                )
            else:
                require_checked()
                with naming_fault(volume_name, "extract"):
                    engine.archives.unpack(volume_name, blocks)
                # An archive that the engine made has none of these.
                if artifact.detail.get("tar") == "helper":
                    lost = f"{_ENGINE_LEAVES}; the engine itself unpacked it, since {why}"

        # Compare with the list instead of reading the archive again: the list came from the volume
        # that was archived, and L2 compared the two.
        compare(lambda: select_storable(folder, listing), lambda: read_entries(engine, volume_name))
    except BadTar as error:
        raise VerificationFailed(
            f"volume {volume_name}: extract: it does not hold what {artifact.file} does: {error}",
            next_step="restore again into an empty volume",
        ) from error
    return lost


def _extract_by_helper(
    engine: Engine,
    volume: str,
    blocks: Iterable[bytes],
    require_checked: Callable[[], None],
    *,
    add: bool,
) -> str:
    """Unpack blocks with our helper program, and return what could not be restored, in words."""
    adding = ("--add",) if add else ()
    piped = ("unpack", *adding, f"--file={PIPE}", MOUNT)
    helper = unpacking_helper(engine, volume, *adding, MOUNT, piped=piped)
    with (
        naming_fault(volume, "extract"),
        engine.helpers.stream(helper, stdin=subprocess.PIPE) as filled,
    ):
        # Nothing is sent before this check. If it raises, the helper is killed before its input
        # ends.
        require_checked()
        feed(blocks, filled.stdin)
    return filled.warnings


def sync(engine: Engine, volume: str) -> None:
    """Flush what was written into a volume to the disk, so that it survives a power failure.

    Only the file system of the volume is flushed (syncfs): a sync of all file systems may wait for
    a dead network. Without our own helper program the kernel flushes in its own time.

    Raises:
        OperationFailed: The helper failed.
    """
    if has_program(engine):
        with naming_fault(volume, "sync"):
            engine.helpers.run(read_only_helper(engine, volume, "sync", MOUNT))


def clear(engine: Engine, volume_name: str) -> None:
    """Remove every entry of a volume and keep the volume itself.

    Only `restore` calls this, after a safety backup.

    Raises:
        OperationFailed: Our own helper program does not run, or entries are left.
    """
    cause = "something is left in it"
    try:
        engine.helpers.run(changing_helper(engine, volume_name, "empty", MOUNT))
    except NoOwnImage as error:
        cause = error.message
    except HelperFailed as error:
        cause = read_last_words(error)
    if engine.archives.list_root(volume_name) != []:
        raise OperationFailed(
            f"volume {volume_name}: empty: {cause}", next_step="restore into a new volume instead"
        )


def _pack_by_helper(
    engine: Engine,
    volume: str,
    path: Path,
    into: Path,
    progress: Callable[[int], None],
    *,
    live: bool,
    hidden: Sequence[str] = (),
) -> tuple[Artifact, list[str]]:
    """Pack a volume with our helper program, and return the archive and what it lost, in words.

    `hidden`: see `archive_others`.
    """
    words = ("pack", *(["--live"] if live else []))
    piped = (*words, f"--file={PIPE}", MOUNT)
    covers = tuple(f"{MOUNT}/{folder}" for folder in hidden)
    helper = engine.helpers.own(
        *words,
        MOUNT,
        piped=piped,
        volumes=((volume, MOUNT, True),),
        tmpfs=covers,
        capabilities=PACKS,
    )
    tar: Artifact | None = None
    with removing_on_fault(path):
        try:
            with naming_fault(volume, "archive", live=live), engine.helpers.stream(helper) as made:
                tar = _pack(read_blocks(made.stdout), path, into, volume, "archive", progress)
        except FilesChanged as error:
            if tar is None:
                raise OperationFailed(f"volume {volume}: archive: {error}") from error
            return tar, ["files that changed while they were read may be inconsistent"]
    return tar, []


def stream_volume(engine: Engine, volume: str) -> Iterator[bytes]:
    """Stream a volume as a tar, to compare it with an archive; nothing is stored.

    Raises:
        OperationFailed: The volume could not be read.
    """
    if has_program(engine):
        helper = engine.helpers.own(
            "pack", MOUNT, volumes=((volume, MOUNT, True),), capabilities=PACKS
        )
        with naming_fault(volume, "compare"), engine.helpers.stream(helper) as made:
            yield from read_blocks(made.stdout)
    else:
        with naming_fault(volume, "compare"), engine.archives.stream(volume) as chunks:
            yield from chunks


@contextmanager
def _listing_meanwhile(
    engine: Engine, volume: str, folder: Path, into: Path
) -> Iterator[Future[Artifact]]:
    """Make the list in a second helper while the block packs, and yield its future.

    The two run at once because starting helpers is most of what a small volume costs. A thread
    reads the list immediately: of a container that has ended, the daemon keeps unread output for
    ten seconds and then ends the stream as if it were complete (run, engine 20.10).
    """
    with (
        engine.helpers.stream(read_only_helper(engine, volume, "list", MOUNT)) as found,
        ThreadPoolExecutor(1) as reader,
    ):
        try:
            yield reader.submit(
                _pack, read_blocks(found.stdout), folder / LIST_FILE, into, volume, "list"
            )
        except BaseException:
            found.abort()
            raise


def _pack(
    blocks: Iterable[bytes],
    path: Path,
    into: Path,
    volume: str,
    kind: str,
    progress: Callable[[int], None] = show_nothing,
) -> Artifact:
    sums = pack(blocks, path, subject=volume, stage=kind, progress=progress)
    return Artifact(
        file=path.relative_to(into).as_posix(),
        kind=kind,
        bytes=sums.bytes,
        sha256=sums.sha256,
        uncompressed_bytes=sums.uncompressed_bytes,
        volume=volume,
    )


def _make_list(tar: Artifact, path: Path, into: Path, volume: str) -> Artifact:
    """Make a list from the archive itself, read back from the disk."""
    entries = (
        member.record() + b"\0" for member in resolve_links(lambda: read_members(unpack(into, tar)))
    )
    try:
        return _pack(_join(entries), path, into, volume, "list")
    except BadTar as error:
        raise OperationFailed(
            f"volume {volume}: archive: what the engine sent is no whole archive: {error}"
        ) from error


def _join(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size > 1 << 18:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    yield b"".join(waiting)


def _count(into: Path, listing: Artifact) -> tuple[int, int]:
    """Count the entries of a list without its sockets, and the sockets."""
    entries = sockets = 0
    try:
        for entry in read_list(unpack(into, listing)):
            if entry.type == "s":
                sockets += 1
            else:
                entries += 1
    except BadTar as error:
        raise OperationFailed(f"volume {listing.volume}: list: {error}") from error
    return entries, sockets


def archive_and_list(artifacts: Sequence[Artifact]) -> tuple[Artifact, Artifact]:
    """Return the archive of a volume and its list.

    Raises:
        VerificationFailed: One of them is missing.
    """
    tar = next((a for a in artifacts if a.kind == "archive"), None)
    listing = next(
        (a for a in artifacts if a.kind == "list" and tar is not None and a.volume == tar.volume),
        None,
    )
    if tar is None or listing is None:
        raise VerificationFailed(
            "the backup names no archive with its list; it is not counted as good"
        )
    return tar, listing


def _require_empty(engine: Engine, volume: str) -> None:
    names = engine.archives.list_root(volume)
    if names is None or names:
        state = (
            "cannot be looked into"
            if names is None
            else f"is not empty ({', '.join(map(repr, names[:3]))})"
        )
        step = f"safe-compose restore --volume {shell_quote(volume)}"
        raise StateChanged(f"volume {volume} {state}; nothing was written into it", next_step=step)


def read_entries(engine: Engine, volume: str) -> Iterator[Member]:
    """Read the entries that a volume holds now; hard links count as the files that they are.

    Raises:
        OperationFailed: The volume could not be read.
        BadTar: The stream is damaged.
    """
    if has_program(engine):
        with (
            naming_fault(volume, "compare"),
            engine.helpers.stream(read_only_helper(engine, volume, "list", MOUNT)) as found,
        ):
            yield from read_list(read_blocks(found.stdout))
    else:
        yield from resolve_links(lambda: _receive_list(engine, volume))


def count_files(folder: Path, artifacts: Sequence[Artifact]) -> int:
    """Return the number of files in the archive of a volume, as its list has them."""
    return sum(
        entry.type in ("f", "h")
        for listing in artifacts
        if listing.kind == "list"
        for entry in select_storable(folder, listing)
    )


def select_storable(folder: Path, listing: Artifact) -> Iterator[Member]:
    """Return the entries of a list that a tar can hold, which excludes sockets."""
    return (entry for entry in read_list(unpack(folder, listing)) if entry.type != "s")


def _receive_list(engine: Engine, volume: str) -> Iterator[Member]:
    with naming_fault(volume, "compare"), engine.archives.stream(volume) as chunks:
        yield from read_members(chunks)
