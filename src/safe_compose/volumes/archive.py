"""Archives of whole volumes, whatever data they hold: packing, verification and restore.

The work is done by our own helper program, which runs in a container of an image that holds nothing
else (`engine.helper_image`); no other image ever sees the volume. Where that image does not exist
for the machine of the engine, the engine's own archive of a container that never starts is used.
What such an archive loses was found by running it, and is recorded with the archive.
"""

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from safe_compose.core.backup import Artifact, Evidence
from safe_compose.core.observed import FOLDER, describe_location
from safe_compose.core.slug import slug
from safe_compose.engine.helper_image import PACKS
from safe_compose.engine.named_pipe import AT as PIPE
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.volumes.backup_files import new_folder, removing_on_fault, sync_folder
from safe_compose.volumes.comparison import compare
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import (
    check,
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
    explain_no_program,
    has_program,
    naming_fault,
)
from safe_compose.volumes.tar import BadTar, Member, read_list, read_members, resolve_links

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
_UNMAPPED = 65534
"""The user or group that a user namespace shows for one outside of it (user_namespaces(7))."""
_MOUNTED = ": something is mounted here, which is not packed"
"""Our helper program's words about a mount that it left out (native/pack.c)."""
_INDEPENDENT = ("helper", "find")
"""Sources of a list that are independent of its archive: our helper program; GNU find in backups of
earlier releases.
"""


def archive(
    location: EngineLocation,
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
    folder = into / slug(location.name)
    new_folder(folder, subject=location.name, stage="archive")
    path, by = folder / ARCHIVE_FILE, "helper"
    listing: Artifact | None = None
    if (why := explain_no_program(location.engine)) and location.is_file:
        raise OperationFailed(f"{describe_location(location.name)}: archive: a single file: {why}")
    if why:
        with (
            naming_fault(location.name, "archive"),
            location.engine.archives.stream(location.name) as chunks,
        ):
            tar = _pack(chunks, path, into, location.name, "archive", progress)
        by, lost = "engine", [_ENGINE_LOSES, f"the engine itself made it, since {why}"]
    elif live:
        tar, lost = _pack_by_helper(location, path, into, progress, live=True)
    else:
        with (
            naming_fault(location.name, "list"),
            _listing_meanwhile(location, folder, into) as pending,
        ):
            tar, lost = _pack_by_helper(location, path, into, progress, live=False)
            listing = pending.result()
    if listing is None:
        listing = _make_list(tar, folder / LIST_FILE, into, location.name)
        source = "archive"
    else:
        source = "helper"
    if location.is_file:
        _require_file(location, into, listing)
    maps_users = location.name.startswith(FOLDER) and location.engine.docker.connection.maps_users
    facts: Mapping[str, str | bool] = {"tar": by, "list": source, "live": live}
    return _describe(tar, listing, into, facts, lost, maps_users=maps_users)


def _require_file(location: EngineLocation, into: Path, listing: Artifact) -> None:
    """Check that the archive of a single file holds it, and nothing but the folder it lies in.

    Raises:
        OperationFailed: It does not, as where the file vanished or is a link now.
    """
    name = os.fsencode(location.name).rpartition(b"/")[2]
    entries = [(entry.path, entry.type) for entry in read_list(unpack(into, listing))]
    if sorted(entries) != [(b"", "d"), (name, "f")]:
        raise OperationFailed(
            f"{describe_location(location.name)}: archive:"
            " it is not there any more as a single file"
        )


def archive_blocks(
    blocks: Iterable[bytes],
    name: str,
    *,
    into: Path,
    progress: Callable[[int], None] = show_nothing,
    live: bool = False,
) -> tuple[Artifact, ...]:
    """Archive a location from a tar stream with members `volume/...` that the engine sends.

    Args:
        blocks: The stream.
        name: The name of the location.
        into: As for `archive`.
        progress: Called with the bytes read so far.
        live: As for `archive`.

    Returns:
        The archive and its list.

    Raises:
        OperationFailed: The stream is no whole archive, or it could not be written.
    """
    folder = into / slug(name)
    new_folder(folder, subject=name, stage="archive")
    path = folder / ARCHIVE_FILE
    with removing_on_fault(path):
        tar = _pack(blocks, path, into, name, "archive", progress)
        listing = _make_list(tar, folder / LIST_FILE, into, name)
    return _describe(
        tar, listing, into, {"tar": "engine", "list": "archive", "live": live}, [_ENGINE_LOSES]
    )


def _describe(
    tar: Artifact,
    listing: Artifact,
    into: Path,
    facts: Mapping[str, str | bool],
    lost: list[str],
    *,
    maps_users: bool = False,
) -> tuple[Artifact, ...]:
    """Flush the folder of an archive, and return archive and list with facts about them."""
    detail = {name: str(value).lower() for name, value in facts.items()}
    count, sockets, unmapped = _count(into, listing)
    detail["members"] = str(count)
    lost += [f"{sockets} sockets (they hold nothing)"] if sockets else []
    if maps_users and unmapped:
        lost += [f"owners that this engine maps to nobody ({unmapped} entries of {_UNMAPPED})"]
    if lost:
        detail["lost"] = "; ".join(lost)
    folder = (into / tar.file).parent
    sync_folder(folder, subject=tar.volume, stage="archive")
    sync_folder(into, subject=tar.volume, stage="archive")
    return replace(tar, detail=detail), replace(
        listing, detail={"from": detail["list"], "members": detail["members"]}
    )


def archive_others(
    location: EngineLocation,
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
    folder = into / slug(location.name)
    new_folder(folder, subject=location.name, stage="archive")
    tar, _ = _pack_by_helper(
        location, folder / OTHERS_FILE, into, progress, live=True, hidden=hidden
    )
    listing = _make_list(tar, folder / OTHERS_LIST_FILE, into, location.name)
    count, _, _ = _count(into, listing)
    below = tuple(path.encode("utf-8", "surrogateescape") + b"/" for path in hidden)
    if any(entry.path.startswith(below) for entry in read_list(unpack(into, listing))):
        raise OperationFailed(
            f"{describe_location(location.name)}:"
            " archive: the folder of its database was not left out"
        )
    detail = {
        "tar": "helper",
        "list": "archive",
        "live": "true",
        "members": str(count),
        "without": json.dumps(list(hidden)),
    }
    sync_folder(folder, subject=location.name, stage="archive")
    sync_folder(into, subject=location.name, stage="archive")
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


def _pack_by_helper(
    location: EngineLocation,
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
    words = ("pack", *(["--live"] if live else []), *location.only)
    piped = (*words, f"--file={PIPE}", MOUNT)
    covers = tuple(f"{MOUNT}/{folder}" for folder in hidden)
    helper = location.engine.helpers.own(
        *words,
        MOUNT,
        piped=piped,
        volumes=((location.mounted, MOUNT, True),),
        tmpfs=covers,
        capabilities=PACKS,
    )
    tar: Artifact | None = None
    with removing_on_fault(path):
        try:
            with (
                naming_fault(location.name, "archive", live=live),
                location.engine.helpers.stream(helper) as made,
            ):
                tar = _pack(
                    read_blocks(made.stdout), path, into, location.name, "archive", progress
                )
        except FilesChanged as error:
            if tar is None:
                raise OperationFailed(
                    f"{describe_location(location.name)}: archive: {error}"
                ) from error
            if _MOUNTED in (cause := str(error)):
                where = cause.rpartition(_MOUNTED)[0].rpartition(" / ")[2]
                return tar, [f"what is mounted at {where} in it, or further mounts"]
            return tar, ["files that changed while they were read may be inconsistent"]
    return tar, []


def stream_volume(location: EngineLocation) -> Iterator[bytes]:
    """Stream a volume as a tar, to compare it with an archive; nothing is stored.

    Raises:
        OperationFailed: The volume could not be read.
    """
    engine = location.engine
    with naming_fault(location.name, "compare"):
        if has_program(engine):
            helper = engine.helpers.own(
                "pack",
                *location.only,
                MOUNT,
                volumes=((location.mounted, MOUNT, True),),
                capabilities=PACKS,
            )
            with engine.helpers.stream(helper) as made:
                yield from read_blocks(made.stdout)
        else:
            with engine.archives.stream(location.name) as chunks:
                yield from chunks


@contextmanager
def _listing_meanwhile(
    location: EngineLocation, folder: Path, into: Path
) -> Iterator[Future[Artifact]]:
    """Make the list in a second helper while the block packs, and yield its future.

    The two run at once because starting helpers is most of what a small volume costs. A thread
    reads the list immediately: of a container that has ended, the daemon keeps unread output for
    ten seconds and then ends the stream as if it were complete (run, engine 20.10).
    """
    with (
        location.engine.helpers.stream(
            location.read_only_helper("list", *location.only, MOUNT)
        ) as found,
        ThreadPoolExecutor(1) as reader,
    ):
        try:
            yield reader.submit(
                _pack, read_blocks(found.stdout), folder / LIST_FILE, into, location.name, "list"
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
            f"{describe_location(volume)}:"
            f" archive: what the engine sent is no whole archive: {error}"
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


def _count(into: Path, listing: Artifact) -> tuple[int, int, int]:
    """Count the entries of a list without its sockets, the sockets, and those without an owner."""
    entries = sockets = unmapped = 0
    try:
        for entry in read_list(unpack(into, listing)):
            unmapped += _UNMAPPED in (entry.uid, entry.gid)
            if entry.type == "s":
                sockets += 1
            else:
                entries += 1
    except BadTar as error:
        raise OperationFailed(f"{describe_location(listing.volume)}: list: {error}") from error
    return entries, sockets, unmapped


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


def read_entries(location: EngineLocation) -> Generator[Member]:
    """Read the entries that a volume holds now; hard links count as the files that they are.

    Raises:
        OperationFailed: The volume could not be read.
        BadTar: The stream is damaged.
    """
    if has_program(location.engine):
        with (
            naming_fault(location.name, "compare"),
            location.engine.helpers.stream(
                location.read_only_helper("list", *location.only, MOUNT)
            ) as found,
        ):
            yield from read_list(read_blocks(found.stdout))
    else:
        yield from resolve_links(lambda: _receive_list(location))


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


def _receive_list(location: EngineLocation) -> Iterator[Member]:
    with (
        naming_fault(location.name, "compare"),
        location.engine.archives.stream(location.name) as chunks,
    ):
        yield from read_members(chunks)
