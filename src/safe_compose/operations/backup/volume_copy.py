"""One location of a backup, with everything that is needed to copy it."""

from dataclasses import dataclass
from pathlib import Path

from safe_compose.core.backup import Artifact, VolumeRecord
from safe_compose.core.observed import Container, HostFolder, Location, describe_location
from safe_compose.core.policy import Verdict
from safe_compose.engine import Engine
from safe_compose.operations.backup.records import make_record
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.volumes.engine_volume import EngineVolume


@dataclass(frozen=True, slots=True)
class VolumeCopy:
    """A copy of one location that is to be made."""

    engine: Engine
    request: BackupRequest
    """The backup that it is part of."""
    volume: Location
    verdict: Verdict
    into: Path
    """The folder of the backup."""
    method: str = "dump"
    """The method of the settings: `physical` asks for a physical copy of a running server."""

    @property
    def name(self) -> str:
        """The name of the volume."""
        return self.volume.name

    @property
    def title(self) -> str:
        """The location as messages name it: `volume shop_data`."""
        return describe_location(self.volume.name)

    @property
    def on_engine(self) -> EngineVolume:
        """The volume, to be read on its engine."""
        is_file = isinstance(self.volume, HostFolder) and self.volume.is_file
        return EngineVolume(self.engine, self.volume.name, is_file)

    @property
    def size(self) -> int | None:
        """The size of the volume in bytes, for progress; None when it is unknown."""
        return self.request.sizes.get(self.volume.name)

    @property
    def users(self) -> tuple[Container, ...]:
        """The containers that used the volume when it was inspected."""
        return self.request.observed.users(self.volume.name)

    def make_record(self, method: str, artifacts: tuple[Artifact, ...]) -> VolumeRecord:
        """Return the record of the volume with these artifacts."""
        return make_record(self.request, self.volume, self.verdict, method, artifacts)
