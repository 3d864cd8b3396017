"""Small files of a database server that no dump holds: settings, login rules, certificates.

They are stored as files of the backup, and restored on request only: they fit the former server,
and may refer to things that a new one lacks. They may hold secrets, so none of their content is
ever shown. If a backup has an archive, or a physical copy, that holds them too.
"""

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from safe_compose.core.backup import Artifact, Evidence
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import check, make_damage_fault, make_evidence, pack, unpack
from safe_compose.volumes.helper_program import MOUNT

FILES, STATE = "settings.tar.gz", "settings.txt.gz"
"""The files as they were in the data directory; and, for users to read, settings that were in no
file of the server.
"""
KIND = "settings"
LARGEST = 256 << 10
"""Largest size in bytes of one file that is stored."""
MOST = 100
_ALL = 32 << 20
"""Largest size in bytes of all of them."""
_WORDS = 12
"""Number of names in a note."""


def keep(
    files: Mapping[str, bytes],
    state: str,
    folder: Path,
    into: Path,
    volume: str,
    inside: str,
    owner: str,
) -> tuple[Artifact, ...]:
    """Write the files that were found next to a database into the backup.

    Args:
        files: Content by the path relative to the data directory.
        state: Text of settings that are in no file; empty if there are none.
        folder: The folder of the volume in the backup.
        into: The folder of the backup.
        volume: The name of the volume.
        inside: The data directory relative to the volume's root.
        owner: `uid gid mode` of the server's files; empty if unknown.

    Raises:
        OperationFailed: A file cannot be written.
    """
    made = []
    place = {"pgdata": inside, "owner": owner or "0 0 600"}
    if files:
        tar = _tar(files, place["owner"])
        made.append(
            _artifact(
                tar, folder / FILES, into, volume, {**place, "names": ", ".join(sorted(files))}
            )
        )
    if state:
        made.append(
            _artifact(state.encode("utf-8", "surrogateescape"), folder / STATE, into, volume, place)
        )
    return tuple(made)


def _artifact(
    content: bytes, path: Path, into: Path, volume: str, detail: Mapping[str, str]
) -> Artifact:
    sums = pack([content], path, subject=volume, stage="settings")
    file = path.relative_to(into).as_posix()
    return Artifact(
        file, KIND, sums.bytes, sums.sha256, sums.uncompressed_bytes, volume, detail=dict(detail)
    )


def _tar(files: Mapping[str, bytes], owner: str, at: str = ".") -> bytes:
    """Make a tar of the files, readable by their owner only, with the folders that they are in."""
    uid, gid, _ = owner.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        folders: dict[str, None] = {}
        for name in sorted(files):
            folders |= {str(above): None for above in reversed(PurePosixPath(name).parents[:-1])}
        for name in (*folders, *sorted(files)):
            member = tarfile.TarInfo(str(PurePosixPath(at, name)))
            member.uid, member.gid, member.mode = int(uid), int(gid), 0o600
            if name in folders:
                member.type, member.mode = tarfile.DIRTYPE, 0o700
            else:
                member.size = len(files[name])
            made.addfile(member, io.BytesIO(files.get(name, b"")))
    return out.getvalue()


def note(artifacts: Iterable[Artifact]) -> tuple[str, ...]:
    """Return the note about them for a record; empty if there are none."""
    if not (some := list_names(artifacts)):
        return ()
    return (
        (
            f"stored with the dump: {some}; what is rebuilt from the dump gets them back with"
            " restore --settings only"
        ),
    )


def list_names(artifacts: Iterable[Artifact]) -> str:
    """Return the names of the stored files, the first of many; empty if there are none."""
    names = list_paths(artifacts)
    return ", ".join(names[:_WORDS]) + (
        f" and {len(names) - _WORDS} more" if len(names) > _WORDS else ""
    )


def list_paths(artifacts: Iterable[Artifact]) -> list[str]:
    """Return the paths of the stored files in the data directory."""
    return [
        n for a in artifacts if a.kind == KIND for n in a.detail.get("names", "").split(", ") if n
    ]


def verify(folder: Path, artifacts: Iterable[Artifact]) -> list[Evidence]:
    """Verify each of them at level L2 and return the evidence.

    L2 means: the file is read to its end, and holds nothing but files within the data directory.

    Raises:
        VerificationFailed: A file is damaged.
    """
    found = []
    for artifact in artifacts:
        if artifact.kind == KIND:
            what = "whole file read"
            if "names" in artifact.detail:
                what = f"whole file read, {len(_read(folder, artifact))} files in it"
            else:
                check(folder, artifact)
                sum(len(block) for block in unpack(folder, artifact))
            found.append(make_evidence("L2", artifact.file, what))
    return found


def restore_files(
    location: EngineLocation, folder: Path, artifacts: Sequence[Artifact]
) -> list[str]:
    """Restore the stored files into a rebuilt data directory, and return their names.

    No server may run on it.

    Raises:
        VerificationFailed: A file is damaged.
        OperationFailed: The volume cannot be written.
    """
    names: list[str] = []
    for artifact in artifacts:
        if artifact.kind == KIND and "names" in artifact.detail:
            files = _read(folder, artifact)
            owner = artifact.detail.get("owner") or "0 0 600"
            put_files(location, files, artifact.detail.get("pgdata", "."), owner)
            names += sorted(files)
    return names


def put_files(
    location: EngineLocation, files: Mapping[str, bytes], inside: str, owner: str
) -> None:
    """Write small files into a data directory on which no server runs.

    `inside`: that directory relative to the volume's root. `owner`: `uid gid mode` of the files.

    Raises:
        OperationFailed: The volume cannot be written.
    """
    at = str(PurePosixPath(MOUNT.lstrip("/"), inside))
    location.engine.archives.unpack(location.name, iter([_tar(files, owner, at)]))


def read_files(folder: Path, artifacts: Iterable[Artifact]) -> dict[str, bytes]:
    """Return the stored files by their paths relative to the data directory.

    Raises:
        VerificationFailed: A file of the backup is damaged.
    """
    found: dict[str, bytes] = {}
    for artifact in artifacts:
        if artifact.kind == KIND and "names" in artifact.detail:
            found |= _read(folder, artifact)
    return found


def _read(folder: Path, artifact: Artifact) -> dict[str, bytes]:
    """Return the files by their paths.

    Raises:
        VerificationFailed: The archive is damaged, or holds anything that none of ours does.
    """
    check(folder, artifact)
    if artifact.uncompressed_bytes > 2 * _ALL:
        raise make_damage_fault(artifact, "it is larger than any settings of a server")
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(
            fileobj=io.BytesIO(b"".join(unpack(folder, artifact))), mode="r:"
        ) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if (
                    path.is_absolute()
                    or ".." in path.parts
                    or not (member.isreg() or member.isdir())
                ):
                    raise make_damage_fault(
                        artifact,
                        f"it holds {member.name!r:.80}, which is no file within a data directory",
                    )
                if member.isreg() and (opened := archive.extractfile(member)) is not None:
                    found[str(path)] = opened.read()
    except (tarfile.TarError, OSError, ValueError) as error:
        raise make_damage_fault(artifact, f"it does not read ({type(error).__name__})") from error
    if sorted(found) != sorted(artifact.detail["names"].split(", ")):
        raise VerificationFailed(
            f"{artifact.file} does not hold the files that it should", next_step="make a new backup"
        )
    return found


def read_by_programs(at: EngineContainer, directory: str, *tests: str) -> dict[str, bytes]:
    """Return the small files of a container's folder that match tests of `find`, by name.

    The result is empty if the image lacks these programs, or if the sizes and the content differ
    because somebody changed a file meanwhile.
    """
    argv = ("find", directory, "-maxdepth", "1", "-type", "f", "-size", f"-{LARGEST >> 9}", *tests)
    try:
        output = at.execute(*argv, limit=LARGEST)
        listed = output.decode("utf-8", "surrogateescape").splitlines()
        paths = sorted(
            path
            for path in listed
            if path.startswith(f"{directory.rstrip('/')}/") and "," not in path
        )[:MOST]
        if not paths:
            return {}
        measured = at.execute("stat", "-c", "%s", *paths, limit=LARGEST)
        sizes = [int(n) for n in measured.split()]
        content = at.execute("cat", *paths, limit=_ALL)
    except (HelperFailed, ValueError):
        return {}
    if len(sizes) != len(paths) or sum(sizes) != len(content):
        return {}
    found = {}
    for path, size in zip(paths, sizes, strict=True):
        found[PurePosixPath(path).name], content = content[:size], content[size:]
    return found
