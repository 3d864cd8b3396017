"""The request for a backup: what it is to hold, and why it is made."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from safe_compose.core.backup import Omission
from safe_compose.core.observed import Container, Location, Observed
from safe_compose.core.policy import Verdict
from safe_compose.engine import Engine
from safe_compose.store.catalogue.catalogue import Catalogue, Draft


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """A request to back up volumes, with the reason and with what may be stopped for it."""

    project: str
    reason: str
    """`pre-delete`, `pre-restore`, `pre-rotate`, `schedule` or `manual`."""
    command: tuple[str, ...]
    observed: Observed
    volumes: tuple[tuple[Location, Verdict], ...]
    may_stop: tuple[Container, ...] = ()
    """The containers that the command itself stops or removes; nothing else is ever stopped."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """The volumes' sizes in bytes, as far as the engine reports them; for progress only."""
    omitted: tuple[Omission, ...] = ()
    """What the project also mounts, and why it is not backed up."""
    recorded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Volume -> ids of the images that served it, according to its last verified backup."""


def open_draft(
    engine: Engine, catalogue: Catalogue, request: BackupRequest
) -> AbstractContextManager[Draft]:
    """Open the draft of a requested backup in the store."""
    return catalogue.writer.draft(
        request.project,
        request.reason,
        endpoint=engine.endpoint,
        engine_id=engine.id,
        command=request.command,
    )
