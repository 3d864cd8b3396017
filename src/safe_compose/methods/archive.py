"""The archive of a whole volume, of any kind of data: tar through a helper container, read back, and put back.

GNU tar in a local image keeps everything but sockets and `trusted.*` attributes; where no image has it, the engine's own
archive of a container that never starts is taken (what that loses was found by running it, and is said). Nothing is pulled.
"""

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

from safe_compose.artifacts import Artifact, Evidence, hide_secrets, slug
from safe_compose.engine import PIPE, Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed, LookAgain, VerifyFailed
from safe_compose.methods.members import BadTar, Member, compare, listed, members, resolved
from safe_compose.methods.stream import (
    blocks_of,
    check,
    checking,
    evidence,
    new_folder,
    nothing,
    pack,
    sync_folder,
    unpack,
    unproved,
    whole,
)
from safe_compose.observed import Volume

MOUNT = "/volume"
"""Where helpers see a volume; no image has such a folder, so the engine copies nothing into an empty volume."""

ARCHIVE_FILE = "data.tar.gz"
LIST_FILE = "data.list.gz"

_READ = ("DAC_READ_SEARCH",)
_WRITE = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
_ATTRIBUTES = ("--xattrs", "--xattrs-include=*", "--xattrs-exclude=security.selinux", "--acls")
_PAX = "--pax-option=delete=atime,delete=ctime"
"""No extraction brings these back, and whoever looks at a folder (the engine's own `system df`) changes its atime."""
_CREATE = ("tar", "--create", "--format=posix", _PAX, "--numeric-owner", "--sparse", *_ATTRIBUTES, "--one-file-system")
_EXTRACT = ("tar", "--extract", "--numeric-owner", "--same-owner", "--preserve-permissions", *_ATTRIBUTES)
_LARGE = ("--blocking-factor=128", "--read-full-records")
"""64 KiB at a time: a sixth of the calls of tar's own 10 KiB; the archive is padded to a multiple of it. A read from a pipe may
bring less, at any byte: without the last word tar gives up then ("Unaligned block", run)."""
_LIST = ("find", MOUNT, "-xdev", "-printf", r"%y %s %m %U %G %P\0")
_BOTH = ("find", "/", "-maxdepth", "0", "-printf", "%y", "-exec", "tar", "--version", ";")
"""Fails where find does not know `-printf`, as hardly any but GNU's does."""
_ENGINE_LOSES = (
    "extended attributes (capabilities of programs are kept), ACLs, fractions of a second in times, holes in sparse files, sockets"
)
_ARGV = 256 << 10
"""Characters of names that are given to one program; Linux takes 2 MiB, of bytes and pointers."""
_NOT_THERE = (126, 127)
"""`docker run` ends so when the program cannot be started."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """An image that has GNU tar, and perhaps GNU find."""

    image: str
    find: bool


_offers: dict[tuple[str, str], _Offer | None] = {}
"""What was found out per run of ours and image id; neither ever changes."""


def archive(
    engine: Engine,
    volume: Volume,
    *,
    image_ids: Sequence[str],
    into: Path,
    progress: Callable[[int], None] = nothing,
    live: bool = False,
) -> tuple[Artifact, ...]:
    """Archive one volume into `into/<slug>/`, with a list of its entries as an independent witness.

    `image_ids` are the local images to run helpers from, the likeliest first. `live`: its users may be writing; then a file
    that changes while it is read is no failure, and the list is taken from the archive itself.

    Returns the archive and the list. Raises BackupFailed.
    """
    folder = into / slug(volume.name)
    new_folder(folder, subject=volume.name, stage="archive")
    offer = _offer(engine, image_ids)
    listing: Artifact | None = None
    if offer is not None and offer.find and not live:
        # Both helpers start at once: nobody writes, and their starts are most of what a small volume costs.
        with _fault(volume.name, "list"), engine.stream(_reading(offer, _LIST, volume.name)) as found:
            tar, lost = _gnu_tar(engine, offer, volume, folder, into, progress, live=live)
            listing = _pack(blocks_of(found.stdout), folder / LIST_FILE, into, volume.name, "list")
    elif offer is not None:
        tar, lost = _gnu_tar(engine, offer, volume, folder, into, progress, live=live)
    else:
        with _fault(volume.name, "archive"), engine.archive_out(volume.name, _any_image(engine, image_ids, volume.name)) as chunks:
            tar = _pack(chunks, folder / ARCHIVE_FILE, into, volume.name, "archive", progress)
        lost = _ENGINE_LOSES
    detail = {"tar": "gnu" if offer is not None else "engine", "list": "find", "live": str(live).lower()}
    if offer is not None and (image := engine.image(offer.image)) is not None:
        detail["image"] = next(iter(image.references), image.id)  # for a restore by hand
    if listing is None:
        detail["list"] = "archive"
        listing = _list_of(tar, folder, into, volume.name)
    if lost:
        detail["lost"] = lost
    count, sockets = _counted(into, listing)
    detail["members"] = str(count)
    if sockets:
        detail["lost"] = "; ".join(filter(None, (detail.get("lost"), f"{sockets} sockets (they hold nothing)")))
    sync_folder(folder, subject=volume.name, stage="archive")
    sync_folder(into, subject=volume.name, stage="archive")
    return replace(tar, detail=detail), replace(listing, detail={"from": detail["list"], "members": detail["members"]})


def verify(
    folder: Path,
    artifacts: Sequence[Artifact],
    progress: Callable[[int], None] = nothing,
    look: Callable[[Member, bytes], None] | None = None,
) -> Evidence:
    """L2 of one volume's archive: sums, whole gzip streams, tar from end to end, members equal to the list.

    `look` sees the beginning of every file (see `members`).

    `artifacts` are those of one volume; others than its archive and list are ignored. Raises VerifyFailed.
    """
    tar, listing = _both(artifacts)
    check(folder, listing)
    try:
        count = compare(lambda: members(unpack(folder, tar, progress=progress), look), lambda: listed(unpack(folder, listing)))
    except BadTar as error:
        raise unproved(tar, str(error)) from error
    if tar.detail.get("members", str(count)) != str(count):
        raise unproved(tar, f"it has {count} members, {tar.detail['members']} were written")
    witness = "the list" if tar.detail.get("list") == "find" else "the list taken from it"
    return evidence("L2", tar.file, f"whole archive read, {count} members equal {witness}")


def extract(
    engine: Engine,
    folder: Path,
    artifacts: Sequence[Artifact],
    volume_name: str,
    image_ids: Sequence[str],
    progress: Callable[[int], None] = nothing,
) -> None:
    """Fill an existing empty volume from an archive, its root's owner and mode included, and look whether it is all there.

    `artifacts` are those of one volume, as `archive` returned them and `verify` found them. Raises LookAgain when the volume
    is not empty, VerifyFailed before the first byte when a file is not what was written, and afterwards when the volume does
    not hold what the archive does; BackupFailed when the engine cannot do it. After the latter two the volume holds a part:
    nothing here deletes it.
    """
    artifact, listing = _both(artifacts)
    _require_empty(engine, volume_name)
    blocks = unpack(folder, artifact, progress=progress, checked=True)
    try:
        with checking(folder, artifact, listing) as proved:
            offer = _offer(engine, image_ids)
            if offer is not None:
                argv, piped = ((*_EXTRACT, f"--file={file}", *_LARGE, "-C", "/") for file in ("-", PIPE))
                helper = replace(_writing(offer, argv, volume_name), piped=piped)
                with _fault(volume_name, "extract"), engine.stream(helper, stdin=subprocess.PIPE) as filled:
                    proved()  # no byte is given before; where it raises, the helper is killed before its input ends
                    feed(blocks, filled.stdin)
            else:
                proved()
                with _fault(volume_name, "extract"):
                    engine.archive_in(volume_name, _any_image(engine, image_ids, volume_name), blocks)

        # The list, not the archive again: it came from the volume that was archived, and L2 held the two against each other.
        compare(lambda: _storable(folder, listing), lambda: _entries(engine, offer, volume_name, image_ids))
    except BadTar as error:
        raise VerifyFailed(
            f"volume {volume_name}: extract: it does not hold what {artifact.file} does: {error}",
            next_step="restore again into an empty volume",
        ) from error


def sync(engine: Engine, volume: str, image_ids: Sequence[str]) -> None:
    """Bring what was written to the disk: what is told to be back must be there after a power cut. Raises BackupFailed.

    Only the volume's file system (syncfs): a sync of all of them may wait for a dead network. Where no image has GNU's programs,
    or its `sync` does not know the option (coreutils before 8.24), it is left to the kernel.
    """
    offer = _offer(engine, image_ids)
    if offer is None:
        return
    with _fault(volume, "sync"):
        try:
            engine.run(_reading(offer, ("sync", "--file-system", MOUNT), volume))
        except HelperFailed as error:
            if error.returncode not in _NOT_THERE and "option" not in error.stderr:
                raise


class Piece(NamedTuple):
    """One file or folder of an archive on its way into a living volume: extracted beside, then renamed into its place."""

    volume: str
    path: str
    """Relative to the volume's root."""
    staging: str
    """A folder of ours at the volume's root, while it is extracted."""
    aside: str
    """The path that what is there now gets."""
    image: str
    """One with GNU tar."""

    @property
    def target(self) -> str:
        return f"{MOUNT}/{self.path}"


def piece_of(engine: Engine, volume: str, path: str, token: str, image_ids: Sequence[str]) -> Piece:
    """The plan for one. Raises BackupFailed where no local image has GNU tar."""
    offer = _offer(engine, image_ids)
    if offer is None:
        raise BackupFailed(
            f"volume {volume}: no local image has GNU tar, which takes one piece out of an archive; nothing was restored",
            next_step="docker pull any image with GNU tar (debian, postgres, ...), then repeat the command",
        )
    return Piece(volume, path, f".safe-compose-{token}", f"{path}.before-{token}", offer.image)


def holds(folder: Path, artifacts: Sequence[Artifact], path: str) -> int:
    """How many entries of an archive lie at or below a path. Raises VerifyFailed."""
    wanted = path.encode("utf-8", "surrogateescape")
    _, listing = _both(artifacts)
    return sum(_within(m.path, wanted) for m in _storable(folder, listing))


def there(engine: Engine, piece: Piece, path: str) -> bool:
    """Whether a living volume has a path, be it a link to nowhere. Raises BackupFailed."""
    with _fault(piece.volume, "look"):
        try:
            engine.run(_in(piece, "ls", "-d", f"{MOUNT}/{path}"), timeout=60)
        except HelperFailed as error:
            if error.returncode in (1, 2):
                return False
            raise
    return True


def parent_is_real(engine: Engine, piece: Piece) -> bool:
    """The folder that it goes into is there, and no link leads to another one. Raises BackupFailed."""
    parent = piece.target.rpartition("/")[0]
    with _fault(piece.volume, "look"):
        try:
            real = engine.run(_in(piece, "readlink", "-e", parent), timeout=60)
        except HelperFailed as error:
            if error.returncode == 1:
                return False
            raise
    return real.rstrip(b"\n") == parent.encode("utf-8", "surrogateescape")


def place(
    engine: Engine, folder: Path, artifacts: Sequence[Artifact], piece: Piece, progress: Callable[[int], None] = nothing
) -> None:
    """Extract a verified archive's piece beside its place, rename it there and sync; what is there gets the name `aside` first.

    Raises BackupFailed, VerifyFailed. `settle` is called after it, whatever came of it.
    """
    artifact, _ = _both(artifacts)
    staged = f"{MOUNT}/{piece.staging}"
    with _fault(piece.volume, f"extract {piece.path}"):
        engine.run(_in(piece, "mkdir", "-m", "0700", staged), timeout=60)
        names = [f"volume/{path}" for path in (piece.path, *_other_names(folder, artifact, piece.path))]
        helper = _in(piece, *_EXTRACT, "--no-unquote", "--file=-", "-C", staged, "--", *names)
        with engine.stream(helper, stdin=subprocess.PIPE) as filled:
            feed(unpack(folder, artifact, progress=progress), filled.stdin)
        if there(engine, piece, piece.path):
            engine.run(_in(piece, "mv", "-T", "-n", "--", piece.target, f"{MOUNT}/{piece.aside}"), timeout=60)
        engine.run(_in(piece, "mv", "-T", "-n", "--", f"{staged}/volume/{piece.path}", piece.target), timeout=60)
    sync(engine, piece.volume, (piece.image,))


def _other_names(folder: Path, artifact: Artifact, path: str) -> list[str]:
    """The members elsewhere that hold the content of hard links at or below a path: these come out with it, and go with the
    staging folder. Raises VerifyFailed, and BackupFailed where they are more than an argv takes."""
    wanted = path.encode("utf-8", "surrogateescape")
    try:
        links = {m.link for m in members(unpack(folder, artifact)) if m.link and _within(m.path, wanted)}
    except BadTar as error:
        raise unproved(artifact, str(error)) from error
    others = [link.decode("utf-8", "surrogateescape") for link in sorted(links) if not _within(link, wanted)]
    if sum(map(len, others)) > _ARGV:
        raise BackupFailed(
            f"{path} has hard links to {len(others)} files outside of it, too many to take it out alone; nothing was restored",
            next_step="restore the whole volume for a look: --into scratch instead of --path",
        )
    return others


def _within(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


def settle(engine: Engine, piece: Piece, *, existed: bool) -> bool:
    """End it, wherever it was cut off: True when the new one is in its place, else all is as it was. `existed`: something was
    there before. Raises BackupFailed."""
    new, old = there(engine, piece, piece.path), there(engine, piece, piece.aside)
    with _fault(piece.volume, f"tidy up after {piece.path}"):
        if old and not new:
            engine.run(_in(piece, "mv", "-T", "-n", "--", f"{MOUNT}/{piece.aside}", piece.target), timeout=60)
        engine.run(_in(piece, "rm", "-rf", "--", f"{MOUNT}/{piece.staging}"), timeout=600)
    return new and (old or not existed)


def _in(piece: Piece, *argv: str) -> Helper:
    return _writing(_Offer(piece.image, find=False), argv, piece.volume)


def empty(engine: Engine, volume_name: str, image_ids: Sequence[str]) -> None:
    """Remove every entry of a volume and keep the volume itself; only for `restore`, after a safety backup.

    Raises BackupFailed when no local image has `find` and `rm`, or when something is left.
    """
    argv = ("find", MOUNT, "-mindepth", "1", "-maxdepth", "1", "-exec", "rm", "-rf", "{}", "+")  # busybox has no -delete
    cause = "there is no local image with find"
    for image in _at_hand(engine, image_ids):
        try:
            engine.run(_writing(_Offer(image, find=True), argv, volume_name))
        except HelperFailed as error:
            if error.returncode not in _NOT_THERE:
                cause = last_words(error)
        if engine.list_root(volume_name) == []:
            return
    raise BackupFailed(f"volume {volume_name}: empty: {cause}", next_step="restore into a new volume instead")


def _gnu_tar(
    engine: Engine, offer: _Offer, volume: Volume, folder: Path, into: Path, progress: Callable[[int], None], *, live: bool
) -> tuple[Artifact, str]:
    argv, piped = ((*_CREATE, f"--file={file}", *_LARGE, "-C", "/", MOUNT.removeprefix("/")) for file in ("-", PIPE))
    helper = replace(_reading(offer, argv, volume.name), piped=piped)
    path = folder / ARCHIVE_FILE
    tar: Artifact | None = None
    with whole(path):
        try:
            with _fault(volume.name, "archive", live=live), engine.stream(helper) as made:
                tar = _pack(blocks_of(made.stdout), path, into, volume.name, "archive", progress)
        except _Changed as error:
            if tar is None:
                raise BackupFailed(f"volume {volume.name}: archive: {error}") from error
            return tar, "files that changed while they were read may be inconsistent"
    return tar, ""


class _Changed(Exception):
    """GNU tar ended with 1: some files changed while they were read; everything was written."""


@contextmanager
def _fault(volume: str, stage: str, *, live: bool = False) -> Iterator[None]:
    """Name volume, stage and cause of a helper's failure."""
    try:
        yield
    except HelperFailed as error:
        cause = last_words(error)
        if stage == "archive" and error.returncode == 1:
            if live:
                raise _Changed(cause) from error
            raise BackupFailed(
                f"volume {volume}: {stage}: {cause}",
                next_step="stop whatever writes into the volume, then repeat the command",
            ) from error
        raise BackupFailed(f"volume {volume}: {stage}: {cause}", next_step=error.next_step) from error


def last_words(error: HelperFailed) -> str:
    """What a helper said last, for a message: at most three lines, no more than 600 characters."""
    lines = [line.strip() for line in str(error.stderr or "").splitlines() if line.strip()]
    return hide_secrets(" / ".join(lines[-3:]) or error.message)[-600:]


def _offer(engine: Engine, image_ids: Sequence[str]) -> _Offer | None:
    """An image that has GNU tar, or None. What was found is kept for the run, and one that is known to have all goes first:
    a probe costs a container."""
    known = [i for i in image_ids if (o := _offers.get((engine.run_id, i))) is not None and o.find]
    for image in _at_hand(engine, [*known, *image_ids]):
        key = (engine.run_id, image)
        if key not in _offers:
            _offers[key] = _probed(engine, image)
        if (offer := _offers[key]) is not None:
            return offer
    return None


def _probed(engine: Engine, image: str) -> _Offer | None:
    """What an image offers: by one container where it has both programs, else by another one for tar alone."""
    if _says_gnu(engine, image, _BOTH):
        return _Offer(image, find=True)
    return _Offer(image, find=False) if _says_gnu(engine, image, ("tar", "--version")) else None


def _says_gnu(engine: Engine, image: str, argv: tuple[str, ...]) -> bool:
    """Whether the image can run that and names GNU tar. An image that cannot even start counts as a no."""
    try:
        return b"GNU tar" in engine.run(Helper(image=image, argv=argv, user="0:0"), timeout=60)
    except HelperFailed:
        return False


def _at_hand(engine: Engine, image_ids: Sequence[str]) -> Iterator[str]:
    """Those of the images that are on the engine: what a backup recorded may be gone, and nothing is pulled."""
    return (image for image in dict.fromkeys(image_ids) if engine.image(image) is not None)


def _any_image(engine: Engine, image_ids: Sequence[str], volume: str) -> str:
    for image in _at_hand(engine, image_ids):
        return image
    raise BackupFailed(
        f"volume {volume}: there is no local image at all to read or fill it through, and none is ever pulled",
        next_step="docker pull any image with GNU tar (debian, postgres, ...), then repeat the command",
    )


def _reading(offer: _Offer, argv: tuple[str, ...], volume: str) -> Helper:
    return Helper(image=offer.image, argv=argv, volumes=((volume, MOUNT, True),), user="0:0", capabilities=_READ)


def _writing(offer: _Offer, argv: tuple[str, ...], volume: str) -> Helper:
    return Helper(image=offer.image, argv=argv, volumes=((volume, MOUNT, False),), user="0:0", capabilities=_WRITE)


def _pack(
    blocks: Iterable[bytes], path: Path, into: Path, volume: str, kind: str, progress: Callable[[int], None] = nothing
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


def _list_of(tar: Artifact, folder: Path, into: Path, volume: str) -> Artifact:
    """A list made from the archive itself, read back from the disk."""
    entries = (member.record() + b"\0" for member in resolved(lambda: members(unpack(into, tar))))
    try:
        return _pack(_joined(entries), folder / LIST_FILE, into, volume, "list")
    except BadTar as error:
        raise BackupFailed(f"volume {volume}: archive: what the engine sent is no whole archive: {error}") from error


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
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


def _counted(into: Path, listing: Artifact) -> tuple[int, int]:
    """How many entries a list has without sockets, and how many sockets."""
    entries = sockets = 0
    try:
        for entry in listed(unpack(into, listing)):
            if entry.type == "s":
                sockets += 1
            else:
                entries += 1
    except BadTar as error:
        raise BackupFailed(f"volume {listing.volume}: list: {error}") from error
    return entries, sockets


def _both(artifacts: Sequence[Artifact]) -> tuple[Artifact, Artifact]:
    tar = next((a for a in artifacts if a.kind == "archive"), None)
    listing = next((a for a in artifacts if a.kind == "list" and tar is not None and a.volume == tar.volume), None)
    if tar is None or listing is None:
        raise VerifyFailed("the backup names no archive with its list; it is not counted as good")
    return tar, listing


def _require_empty(engine: Engine, volume: str) -> None:
    names = engine.list_root(volume)
    if names is None or names:
        what = "cannot be looked into" if names is None else f"is not empty ({', '.join(map(repr, names[:3]))})"
        raise LookAgain(f"volume {volume} {what}; nothing was written into it", next_step=f"safe-compose restore --volume {volume}")


def feed(blocks: Iterable[bytes], pipe: IO[bytes] | None) -> None:
    """Write everything into a helper. One that died is no fault here: its exit code says more than a broken pipe."""
    if pipe is None:
        raise TypeError("the helper was started without stdin")
    try:
        for block in blocks:
            pipe.write(block)
        pipe.close()
    except BrokenPipeError:
        with suppress(BrokenPipeError):
            pipe.close()


def _entries(engine: Engine, offer: _Offer | None, volume: str, image_ids: Sequence[str]) -> Iterator[Member]:
    """What a volume holds now; hard links as the files that they are."""
    if offer is not None and offer.find:
        with _fault(volume, "compare"), engine.stream(_reading(offer, _LIST, volume)) as found:
            yield from listed(blocks_of(found.stdout))
        return
    yield from resolved(lambda: _sent(engine, volume, _any_image(engine, image_ids, volume)))


def _storable(folder: Path, listing: Artifact) -> Iterator[Member]:
    """The entries of a list that a tar can hold."""
    return (entry for entry in listed(unpack(folder, listing)) if entry.type != "s")


def _sent(engine: Engine, volume: str, image: str) -> Iterator[Member]:
    with _fault(volume, "compare"), engine.archive_out(volume, image) as chunks:
        yield from members(chunks)
