"""Compare a volume that lost a part of its content with the archive made before."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose.core.backup import Artifact
from safe_compose.core.observed import describe_location
from safe_compose.errors import OperationFailed
from safe_compose.volumes import archive, gzip_stream
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.tar import BadTar, Member, read_members

EXAMPLES = 3
"""Number of missing entries that are named."""


class RemainingContent(NamedTuple):
    """The part of an archive that its volume still holds, without the volume's own folder."""

    missing: int
    """Entries of the archive that are missing or differ."""
    total: int
    """Entries of the archive."""
    extra: int
    """Entries of the volume that are not in the archive, or differ."""
    examples: tuple[str, ...] = ()
    """Paths of the first missing entries."""

    @property
    def nothing(self) -> bool:
        """Return whether all entries of the archive are missing."""
        return self.missing == self.total


def compare_with_archive(
    location: EngineLocation, folder: Path, artifacts: Sequence[Artifact]
) -> RemainingContent:
    """Compare a volume with the list of its archive.

    Types, sizes, modes, owners and names are compared, not the contents of files.

    Raises:
        OperationFailed: The volume cannot be read, or the list is damaged.
        VerificationFailed: The list is missing or its file is damaged.
    """
    _, listing = archive.archive_and_list(artifacts)
    try:
        return _compare(archive.select_storable(folder, listing), archive.read_entries(location))
    except BadTar as error:
        raise OperationFailed(f"{describe_location(location.name)}: compare: {error}") from error


def _compare(before: Iterable[Member], now: Iterable[Member]) -> RemainingContent:
    """Compare two lists; one small number is kept in memory for each entry of the volume."""
    there = {hash(entry.record()) for entry in now if entry.path and entry.type != "s"}
    missing, total = 0, 0
    examples: list[str] = []
    for entry in before:
        if not entry.path:
            continue
        total += 1
        if hash(entry.record()) not in there:
            missing += 1
            if len(examples) < EXAMPLES:
                examples.append(entry.path.decode("utf-8", "backslashreplace"))
    return RemainingContent(missing, total, len(there) - (total - missing), tuple(examples))


def is_part_of_archive(
    location: EngineLocation, folder: Path, artifacts: Sequence[Artifact]
) -> bool:
    """Return whether everything that a volume holds is in its archive unchanged, contents included.

    The volume and the archive are read once, or twice if there are hard links.

    Raises:
        OperationFailed: The volume cannot be read.
        VerificationFailed: The archive is damaged.
    """
    tar, _ = archive.archive_and_list(artifacts)
    try:
        known = set(_contents(lambda: gzip_stream.unpack(folder, tar)))
        return all(entry in known for entry in _contents(lambda: archive.stream_volume(location)))
    except BadTar as error:
        raise OperationFailed(f"{describe_location(location.name)}: compare: {error}") from error


def _contents(tar: Callable[[], Iterable[bytes]]) -> Iterator[int]:
    """Yield a hash of the metadata and content of each member.

    Hard links count as the files that they are. The hash of a member is the same within this
    process only. The volume's own folder is left out.

    Raises:
        BadTar: The stream is damaged.
    """
    links: list[Member] = []
    for member, digest in _pair_with_digests(tar()):
        if member.type == "h":
            links.append(member)
        elif member.path:
            yield hash((member.record(), digest))
    wanted = {member.link for member in links}
    targets = (
        {m.path: (m, digest) for m, digest in _pair_with_digests(tar()) if m.path in wanted}
        if wanted
        else {}
    )
    for link in links:
        if link.link not in targets:
            raise BadTar(f"a hard link to nothing: {link.path!r}")
        target, digest = targets[link.link]
        yield hash((target._replace(path=link.path).record(), digest))


def _pair_with_digests(blocks: Iterable[bytes]) -> Iterator[tuple[Member, bytes]]:
    seen: list[bytes] = []
    for member in read_members(blocks, lambda _, digest: seen.append(digest), digests=True):
        yield member, seen.pop() if seen else b""
