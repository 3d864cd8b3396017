"""One location of a backup, with everything that is needed to copy it."""

from dataclasses import dataclass
from pathlib import Path

from safe_compose.core.backup import Artifact, VolumeRecord
from safe_compose.core.observed import Container, HostFolder, Location, describe_location
from safe_compose.core.policy import Verdict
from safe_compose.engine import Engine
from safe_compose.operations.backup.records import make_record
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.volumes.engine_location import EngineLocation


@dataclass(frozen=True, slots=True)
class LocationCopy:
    """A copy of one location that is to be made."""

    engine: Engine
    request: BackupRequest
    """The backup that it is part of."""
    location: Location
    verdict: Verdict
    into: Path
    """The folder of the backup."""
    method: str = "dump"
    """The method of the settings: `physical` asks for a physical copy of a running server."""

    @property
    def name(self) -> str:
        """The name of the location."""
        return self.location.name

    @property
    def title(self) -> str:
        """The location as messages name it: `volume shop_data`."""
        return describe_location(self.location.name)

    @property
    def on_engine(self) -> EngineLocation:
        """The location, to be read on its engine."""
        is_file = isinstance(self.location, HostFolder) and self.location.is_file
        return EngineLocation(self.engine, self.location.name, is_file)

    @property
    def size(self) -> int | None:
        """The size of the location in bytes, for progress; None when it is unknown."""
        return self.request.sizes.get(self.location.name)

    @property
    def users(self) -> tuple[Container, ...]:
        """The containers that used the location when it was inspected."""
        return self.request.observed.users(self.location.name)

    def make_record(self, method: str, artifacts: tuple[Artifact, ...]) -> VolumeRecord:
        """Return the record of the location with these artifacts."""
        return make_record(self.request, self.location, self.verdict, method, artifacts)
