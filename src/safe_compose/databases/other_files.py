"""Files that share a volume with a database: archived with its dump, restored before it."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from safe_compose.core.backup import Artifact
from safe_compose.core.observed import describe_location
from safe_compose.core.text import make_visible, shell_quote
from safe_compose.databases.protocol import OwnFiles
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_image import READS, NoOwnImage
from safe_compose.errors import OperationFailed
from safe_compose.volumes import archive
from safe_compose.volumes.engine_location import CHANGED, EngineLocation
from safe_compose.volumes.gzip_stream import read_blocks, show_nothing
from safe_compose.volumes.helper_program import MOUNT, read_last_words
from safe_compose.volumes.tar import BadTar, Member, read_list

_SHOWN = 3
_LEFT_BY_FILE_SYSTEMS = "lost+found"


def keep(
    location: EngineLocation,
    owned: OwnFiles,
    into: Path,
    progress: Callable[[int], None] = show_nothing,
    *,
    copied: Collection[str] | None = None,
) -> tuple[tuple[Artifact, ...], tuple[str, ...]]:
    """Archive what a volume holds besides a database that was just dumped.

    Args:
        location: The location of its data.
        owned: The parts of the volume that are the database's own.
        into: The folder of the backup.
        progress: Called with the bytes packed so far.
        copied: The files of the data directory that are in the backup besides the dump, by their
            paths in it; None where all are.

    Returns:
        The artifacts and notes; both are empty if there are no other files.

    Raises:
        OperationFailed: The other files cannot be archived: the dump alone would not be a backup of
            the volume.
    """
    notes = () if copied is None else _tell_foreign(location, owned, copied)
    if "." in owned.folders:
        return (), notes
    step = f"stop its services, then: safe-compose backup --volume {shell_quote(location.name)}"
    if odd := [path for path in owned.folders if not _can_be_covered(path)]:
        raise OperationFailed(
            f"{describe_location(location.name)}:"
            " the files next to its database cannot be told from it:"
            f" {make_visible(odd[0])} has a name that docker takes no folder of; no backup was"
            " made",
            next_step=step,
        )
    try:
        names = list(_find_others(location, owned))
        if not names:
            return (), notes
        artifacts = archive.archive_others(location, owned.folders, into=into, progress=progress)
    except NoOwnImage as fault:
        raise OperationFailed(
            f"{describe_location(location.name)}:"
            " whether there are other files next to its database cannot be"
            f" told here: {fault.message}",
            next_step=step,
        ) from fault
    shown = ", ".join(map(make_visible, names[:_SHOWN]))
    return artifacts, (
        f"the other files of the volume ({shown}) were archived while they may have been written",
        *notes,
    )


def _tell_foreign(
    location: EngineLocation, owned: OwnFiles, copied: Collection[str]
) -> tuple[str, ...]:
    """Return a note about the files in a data directory that no server creates, if there are any.

    Raises:
        OperationFailed: The volume cannot be listed.
    """
    if owned.known is None:
        return ()
    inside = "" if owned.folders[0] == "." else f"{owned.folders[0]}/"
    found: list[str] = []
    count = 0
    try:
        for member in _members(location):
            path = member.path.decode("utf-8", "surrogateescape")
            below = path.removeprefix(inside)
            if member.type in "ds" or not path.startswith(inside) or owned.known.fullmatch(below):
                continue
            if below not in copied:
                count += 1
                found = sorted([*found, make_visible(below)])[:_SHOWN]
    except NoOwnImage:
        return ("whether other files are in its data directory cannot be told here",)
    if not found:
        return ()
    more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
    return (
        f"in its data directory, and in no dump: {', '.join(found)}{more}; an archive has them:"
        f" safe-compose backup --volume {shell_quote(location.name)}"
        " while its services are stopped",
    )


def _can_be_covered(path: str) -> bool:
    """Return whether `--tmpfs` accepts the path unchanged."""
    return not set(path) & set(':,\n"')


def _find_others(location: EngineLocation, owned: OwnFiles) -> Iterator[str]:
    """Yield some paths that are neither the database's nor a folder above it.

    Raises:
        OperationFailed: The volume cannot be listed.
    """
    above = {
        str(parent)
        for path in (*owned.folders, *owned.files)
        for parent in PurePosixPath(path).parents
    }
    known = {*above, *owned.folders, *owned.files, _LEFT_BY_FILE_SYSTEMS}
    covers = tuple(f"{MOUNT}/{path}" for path in owned.folders)
    found: list[str] = []
    for member in _members(location, covers):
        path = member.path.decode("utf-8", "surrogateescape")
        if path and path not in known and len(found) < _SHOWN and not _is_passing(member):
            found.append(path)
    yield from found


def _members(location: EngineLocation, covers: tuple[str, ...] = ()) -> Iterator[Member]:
    """Yield the entries of a volume, which may change meanwhile.

    Raises:
        OperationFailed: The volume cannot be listed.
        NoOwnImage: Our helper program does not run on this engine.
    """
    helper = location.engine.helpers.own(
        "list",
        MOUNT,
        volumes=((location.name, MOUNT, True),),
        tmpfs=covers,
        capabilities=READS,
    )
    try:
        with location.engine.helpers.stream(helper) as opened:
            yield from read_list(read_blocks(opened.stdout))
    except BadTar as error:
        raise OperationFailed(
            f"{describe_location(location.name)}: it was not listed to its end: {error}"
        ) from error
    except HelperFailed as error:
        if error.returncode != CHANGED:
            raise OperationFailed(
                f"{describe_location(location.name)}: list: {read_last_words(error)}"
            ) from error


def _is_passing(member: Member) -> bool:
    """Return whether an entry is a socket, which holds nothing."""
    return member.type == "s"
