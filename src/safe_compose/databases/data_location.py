"""The location of a server's data, as a backup recorded it or as its container has it now."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from safe_compose.core.backup import VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.core.owners import Owners
from safe_compose.errors import VerificationFailed


@dataclass(frozen=True, slots=True)
class DataLocation:
    """The image, the mount and the folder of a server's data."""

    image: str
    destination: str
    directory: str
    """The data directory, within the container."""
    owners: Owners | None = field(default=None, kw_only=True)
    """The owners of the folders and files; None if no backup records them."""
    subpath: str = field(default="", kw_only=True)
    """The part of the volume that is mounted there; empty for all of it."""

    @property
    def inside(self) -> str:
        """The data directory relative to the volume's root."""
        return str(
            PurePosixPath(self.subpath, PurePosixPath(self.directory).relative_to(self.destination))
        )


def read_location(record: VolumeRecord, image: str) -> DataLocation:
    """Return the recorded mount of the data directory, and the image of its container.

    If several containers had the data directory there, `image` is preferred.

    Raises:
        VerificationFailed: The backup does not record the location.
    """
    directory = record.statistics.pgdata if record.statistics else ""
    above = [
        u
        for u in record.users
        if directory and PurePosixPath(directory).is_relative_to(u["destination"])
    ]
    if not above:
        raise VerificationFailed(
            f"{describe_location(record.name)}:"
            " the backup does not say where the server kept its data"
        )
    user = max(above, key=lambda u: (len(u["destination"]), u["image_id"] == image))
    owned, subpath = Owners.of(record.artifacts), user.get("subpath", "")
    return DataLocation(
        user["image_id"], user["destination"], directory, owners=owned, subpath=subpath
    )
