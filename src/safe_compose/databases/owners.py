"""The owner of a data directory: recorded while its server is dumped, and restored with the data.

A dump has no files. The server that recreates them runs as the image's own user, while the service
may run as any other (`user: 65534`), and could not read them.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from safe_compose.core.observed import describe_location, kind_of_location
from safe_compose.core.owners import (
    FILES,
    FOLDERS,
    Owner,
    Owners,
    list_folders_to,
    make_file_commands,
    parse_owner,
)
from safe_compose.databases.data_location import DataLocation
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.helper_image import CHANGES
from safe_compose.engine.values import Image
from safe_compose.errors import OperationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.helper_program import MOUNT, read_last_words

UNKNOWN = (
    "who owns its data directory could not be found out: made again from the dump it belongs to the"
    " image's own user"
)


def record(
    at: EngineContainer,
    location: EngineLocation | None,
    directory: str,
    inside: str,
    file: str,
    *,
    part: bool = False,
) -> dict[str, str]:
    """Return the owners of a data directory for an artifact's `detail`; empty if they are unknown.

    They are read in the server's container, or else by our own helper program.

    Args:
        at: The running container.
        location: Where its data is; None if our own helper program cannot see it there.
        directory: The data directory in the container.
        inside: The data directory relative to the volume's root; `.` is the root itself.
        file: The name of a file, or a folder, of the server's own in the data directory.
        part: Only a part of the volume is mounted, so that the container does not see the folders
            above it.
    """
    folders = list_folders_to(inside)
    data = PurePosixPath(directory)
    above = [str(folder) for folder in reversed((data, *data.parents)[: len(folders)])]
    if part and location is not None:
        return _as_detail(
            _stat_paths(location, [*folders, str(PurePosixPath(inside, file))]), folders
        )
    try:
        output = at.execute("stat", "-L", "-c", "%u %g %a", *above, str(data / file))
        found = [parse_owner(line) for line in output.decode("ascii", "replace").splitlines()]
    except (HelperFailed, ValueError):
        found = (
            []
            if location is None
            else _stat_paths(location, [*folders, str(PurePosixPath(inside, file))])
        )
    return _as_detail(found, folders)


def _as_detail(found: Sequence[Owner], paths: Sequence[str]) -> dict[str, str]:
    if len(found) != len(paths) + 1:
        return {}
    *folders, last = found
    return {FOLDERS: json.dumps(folders), FILES: f"{last.uid} {last.gid} {last.mode:o}"}


def _stat_paths(location: EngineLocation, paths: list[str]) -> list[Owner]:
    """Return the owners as our own helper program sees them; empty if it does not run."""
    try:
        found = location.look(paths)
    except OperationFailed:
        return []
    return [
        Owner(member.uid, member.gid, member.mode)
        for path in paths
        if (member := found.get(path)) is not None
    ]


def make_subpath(location: EngineLocation, subpath: str) -> None:
    """Make the folder of a volume that docker is to mount: unlike a volume's root it must exist.

    Raises:
        OperationFailed: The folder cannot be made.
    """
    if not location.is_there(subpath):
        _make_folders_of_root(location, subpath, 0o755)


def _make_folders_of_root(location: EngineLocation, path: str, mode: int) -> None:
    folders = tuple(Owner(0, 0, mode) for _ in list_folders_to(path))
    make_folders(location, Owners(folders, Owner(0, 0, 0o644)), path)


def make_mounted_folders(
    location: EngineLocation, place: DataLocation, image: Image | None
) -> None:
    """Make what a new server of ours needs of a recorded location in an empty volume.

    Docker mounts no subpath that is missing, and a server that does not run as root could create
    its data directory nowhere but in the volume's root. Above one deeper in a folder of the host,
    which only root may enter while it is filled, the server's user has to pass.
    """
    if place.subpath:
        make_subpath(location, place.subpath)
    if place.owners is not None and image is not None and not image.runs_as_root:
        make_folders(location, place.owners, place.inside)
    elif place.inside != "." and kind_of_location(location.name) == "folder":
        _make_folders_of_root(location, str(PurePosixPath(place.inside).parent), 0o711)


def make_folders(location: EngineLocation, owners: Owners, inside: str) -> None:
    """Make the folders from a volume's root down to a data directory, with their recorded owners.

    Folders that exist get these owners and modes.
    """
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as made:
        for path, owner in owners.at(inside):
            member = tarfile.TarInfo(str(PurePosixPath(MOUNT.lstrip("/"), path)))
            member.type, member.uid, member.gid, member.mode = (
                tarfile.DIRTYPE,
                owner.uid,
                owner.gid,
                owner.mode,
            )
            made.addfile(member)
    location.engine.archives.unpack(location.name, iter([tar.getvalue()]))


def restore_owners(
    location: EngineLocation, image: str, owners: Owners | None, inside: str, subject: str
) -> None:
    """Give a data directory that a server of ours made and left to its recorded owner.

    Nothing happens if the owner is unknown. `image` is the service's image, whose own `chown` is
    used.

    Raises:
        OperationFailed: The owner cannot be set.
    """
    if owners is None:
        return
    capabilities = (*CHANGES, "DAC_READ_SEARCH")
    for argv in make_file_commands(owners, str(PurePosixPath(MOUNT, inside))):
        helper = Helper(
            image=image,
            argv=argv,
            volumes=((location.name, MOUNT, False),),
            user="0:0",
            capabilities=capabilities,
        )
        try:
            location.engine.helpers.run(helper)
        except HelperFailed as error:
            raise OperationFailed(
                f"{describe_location(subject)}:"
                f" give its files to their owner: {read_last_words(error)}"
            ) from error
    make_folders(location, owners, inside)
