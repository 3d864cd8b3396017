"""Restore of consistent SQLite copies over the inconsistent files of an extracted archive."""

import os
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from safe_compose.core.backup import Artifact
from safe_compose.core.observed import describe_location
from safe_compose.databases.sqlite.find import SIDE_FILES, describe
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import unpack
from safe_compose.volumes.helper_program import MOUNT, read_last_words

STALE = (*SIDE_FILES, b"-shm")
_AT_ONCE = 500
"""Paths in one argument list."""


def put_copies(location: EngineLocation, folder: Path, artifacts: Sequence[Artifact]) -> int:
    """Write each consistent copy over its file in an extracted archive, and return their number.

    The file's owner and mode are those recorded with the copy. The log, index and journal next to
    it are removed, or emptied where our own helper program cannot run.

    Raises:
        VerificationFailed: A copy is damaged, or its path does not lie in a volume.
        OperationFailed: The volume could not be written.
    """
    wanted = [a for a in artifacts if a.kind == "sqlite"]
    if not wanted:
        return 0
    paths = {a.file: unquote_to_bytes(a.detail["path"]) for a in wanted}
    for path in paths.values():
        if not all(part not in (b"", b".", b"..") for part in path.split(b"/")):
            raise VerificationFailed(
                f"the backup has a SQLite database at {describe(path)}, which lies in no volume;"
                " nothing was put there"
            )
    stale = [os.fsdecode(path + end) for path in paths.values() for end in STALE]
    try:
        for at in range(0, len(stale), _AT_ONCE):
            words = ("remove", MOUNT, *stale[at : at + _AT_ONCE])
            location.engine.helpers.run(location.changing_helper(*words))
        stale = []
    except NoOwnImage:
        stale = location.engine.archives.list_existing(
            location.name, stale
        )  # an empty log or journal counts as none
    except HelperFailed as error:
        raise OperationFailed(
            f"{describe_location(location.name)}: restore of SQLite: {read_last_words(error)}"
        ) from error
    location.engine.archives.unpack(location.name, _tar(folder, wanted, paths, stale))
    return len(wanted)


def _tar(
    folder: Path, wanted: Sequence[Artifact], paths: Mapping[str, bytes], empty: Sequence[str]
) -> Iterator[bytes]:
    for artifact in wanted:
        info = tarfile.TarInfo(f"volume/{os.fsdecode(paths[artifact.file])}")
        uid, gid, mode = artifact.detail["owner"].split()
        info.uid, info.gid, info.mode, info.size = (
            int(uid),
            int(gid),
            int(mode, 8),
            artifact.uncompressed_bytes,
        )
        info.mtime = int(time.time())
        yield info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
        yield from unpack(folder, artifact)
        yield bytes(-artifact.uncompressed_bytes % tarfile.BLOCKSIZE)
    for path in empty:
        yield tarfile.TarInfo(f"volume/{path}").tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    yield bytes(2 * tarfile.BLOCKSIZE)
