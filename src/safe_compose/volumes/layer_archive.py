"""The data in a container's own layer as one tar stream, out of it and back into it.

No helper can mount a layer, so the engine's archive of the container is read path by path, and all
but the found files is left out: the folders of an image hold more than what its program wrote.
"""

import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, cast

from safe_compose.core.backup import Artifact
from safe_compose.engine import Engine
from safe_compose.engine.tar_top import RECORD
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.volumes.archive import archive_and_list
from safe_compose.volumes.gzip_stream import unpack
from safe_compose.volumes.tar import BadTar, Member, read_list

_PIECE = 256 << 10
_TOP = "volume"


class LayerFiles(NamedTuple):
    """The files of a layer that are archived."""

    roots: Sequence[str]
    """The absolute paths that are read; none lies below another."""
    files: Collection[str]
    """The absolute paths that are kept."""

    def list_folders(self) -> set[str]:
        """Return the folders that hold a kept file, at any depth."""
        folders: set[str] = set()
        for path in self.files:
            while (path := path.rpartition("/")[0]) and path not in folders:
                folders.add(path)
        return folders


def stream_files(engine: Engine, container_id: str, wanted: LayerFiles) -> Iterator[bytes]:
    """Yield the files as a tar stream with members `volume/...`.

    Folders above the paths that are read are there too, with their owners and modes.

    Raises:
        OperationFailed: The engine does not read them, or sends something else.
    """
    folders = wanted.list_folders()
    seen: set[str] = {""}
    yield _make_folder("")
    for root in wanted.roots:
        for above in _list_above(root):
            if above not in seen:
                seen.add(above)
                yield _read_folder(engine, container_id, above)
        with engine.layers.read(container_id, root) as chunks:
            yield from _select(chunks, root.rpartition("/")[0], wanted.files, folders, seen)
    yield bytes(2 * RECORD)


def _select(
    chunks: Iterator[bytes],
    parent: str,
    files: Collection[str],
    folders: Collection[str],
    seen: set[str],
) -> Iterator[bytes]:
    """Yield the wanted members of one stream under their paths in the container."""
    try:
        with tarfile.open(
            fileobj=cast("IO[bytes]", Blocks(chunks)), mode="r|", errorlevel=2
        ) as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                path = f"{parent}/{info.name.strip('/')}"
                if path in seen or not (path in folders if info.isdir() else path in files):
                    continue
                if info.islnk():
                    target = f"{parent}/{info.linkname.strip('/')}"
                    if target not in seen:
                        raise OperationFailed(f"{path!r} is a hard link to a file that is no data")
                    info.linkname = f"{_TOP}{target}"
                seen.add(path)
                info.name = f"{_TOP}{path}"
                yield _to_header(info)
                if info.isfile():
                    yield from _read_content(tar, info)
    except (tarfile.TarError, OSError) as error:
        raise OperationFailed(f"docker did not send all of {parent}: {error}") from error


def _read_content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    content = tar.extractfile(info)
    left = info.size
    while content is not None and left:
        piece = content.read(min(_PIECE, left))
        if not piece:
            raise tarfile.ReadError("it ends in the middle of a file")
        left -= len(piece)
        yield piece
    yield bytes(-info.size % RECORD)


def _list_above(path: str) -> list[str]:
    """Return the folders above a path, the highest first: `/a/b/c` -> `/a`, `/a/b`."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _read_folder(engine: Engine, container_id: str, path: str) -> bytes:
    """Return the header of a folder of a container, without what is in it."""
    try:
        with (
            engine.layers.read(container_id, path) as chunks,
            tarfile.open(fileobj=cast("IO[bytes]", Blocks(chunks)), mode="r|") as tar,
        ):
            info = tar.next()
    except tarfile.TarError as error:
        raise OperationFailed(f"docker did not send the folder {path!r}: {error}") from error
    if info is None or not info.isdir():
        return _make_folder(path)
    info.name = f"{_TOP}{path}"
    return _to_header(info)


def _make_folder(path: str) -> bytes:
    info = tarfile.TarInfo(f"{_TOP}{path}")
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return _to_header(info)


def _to_header(info: tarfile.TarInfo) -> bytes:
    info.pax_headers = {
        key: value for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")
    }
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def list_files(folder: Path, artifacts: Sequence[Artifact]) -> list[Member]:
    """Return the entries of the archive of a layer, without its root.

    Raises:
        VerificationFailed: The list is missing or damaged, or an entry lies below something that is
            no folder.
    """
    _, listing = archive_and_list(artifacts)
    try:
        entries = [entry for entry in read_list(unpack(folder, listing)) if entry.path]
    except BadTar as error:
        raise VerificationFailed(f"the list of the layer's archive is damaged: {error}") from error
    tree = _Tree()
    for entry in sorted(entries, key=lambda entry: (entry.type != "d", entry.path)):
        tree.add(entry.path, is_folder=entry.type == "d")
    return entries


class _Tree:
    """The members of an archive so far.

    What lies below a link would be written to where that leads: into another folder of the
    container, or into a volume.
    """

    def __init__(self) -> None:
        """Begin with the root."""
        self._folders, self._others = {b""}, set[bytes]()

    def add(self, path: bytes, *, is_folder: bool, target: bytes | None = None) -> None:
        """Add a member.

        Args:
            path: Its path, relative to the root.
            is_folder: Whether it is a folder.
            target: For a hard link: the path of the member that holds the content.

        Raises:
            VerificationFailed: The archive cannot be one of ours.
        """
        above = path.rpartition(b"/")[0]
        twice = path in self._others or path in self._folders
        odd = not {b"", b".", b".."}.isdisjoint(path.split(b"/"))
        elsewhere = target is not None and target not in self._others
        if above not in self._folders or twice or odd or elsewhere:
            raise VerificationFailed(
                f"the archive of the layer holds {path[:100]!r}, which does not lie in a folder of"
                " it, lies there twice, or leads elsewhere"
            )
        (self._folders if is_folder else self._others).add(path)


def stream_back(
    folder: Path, artifacts: Sequence[Artifact], there: Collection[bytes]
) -> Iterator[bytes]:
    """Yield an archive of a layer as a tar stream to be unpacked at a container's root.

    Args:
        folder: The folder of the backup.
        artifacts: The archive of the layer, verified, and its list.
        there: The folders that the container has: they stay as they are. Relative to its root.

    Raises:
        VerificationFailed: The archive is damaged, or a member leads elsewhere.
    """
    artifact, _ = archive_and_list(artifacts)
    source = cast("IO[bytes]", Blocks(unpack(folder, artifact, checked=True)))
    try:
        with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as tar:
            yield from _rebuild(tar, there)
    except tarfile.TarError as error:
        raise VerificationFailed(f"the archive of the layer is damaged: {error}") from error
    yield bytes(2 * RECORD)


def _rebuild(tar: tarfile.TarFile, there: Collection[bytes]) -> Iterator[bytes]:
    tree = _Tree()
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # it would keep them all
        top, _, path = info.name.rstrip("/").partition("/")
        if top != _TOP:
            raise VerificationFailed(f"a member outside of the archive: {info.name[:100]!r}")
        if not path:
            continue
        if info.islnk():
            info.linkname = info.linkname.removeprefix(f"{_TOP}/")
        target = _encode(info.linkname) if info.islnk() else None
        tree.add(_encode(path), is_folder=info.isdir(), target=target)
        if _encode(path) in there:
            continue
        info.name = path
        yield _to_header(info)
        if info.isfile():
            yield from _read_content(tar, info)


def _encode(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


class Blocks:
    """A file object over blocks, for tarfile."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        """Read these blocks."""
        self._blocks = iter(blocks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return `size` bytes; fewer at the end."""
        pieces, found = [self._rest], len(self._rest)
        while found < size and (block := next(self._blocks, b"")):
            pieces.append(block)
            found += len(block)
        whole = b"".join(pieces)
        self._rest = whole[size:]
        return whole[:size]
