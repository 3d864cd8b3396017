"""The outcome for one backup at one destination."""

from dataclasses import dataclass
from typing import Any

from safe_compose.core.destination import Destination
from safe_compose.errors import SafeComposeError


@dataclass(frozen=True, slots=True)
class CopyOutcome:
    """An outcome for one backup at one destination."""

    id: str
    project: str
    destination: Destination
    state: str
    """`verified`, `failed`, `there` (present, not read), `would-send`, `would-fetch`, `unknown`."""
    at: str | None = None
    bytes: int = 0
    sent: int = 0
    """The number of files that this run sent."""
    fault: SafeComposeError | None = None
    words: str = ""

    def shape(self) -> dict[str, Any]:
        """Return the outcome for `--json`."""
        return {
            "id": self.id,
            "project": self.project,
            "destination": self.destination.name,
            "url": self.destination.url,
            "state": self.state,
            "at": self.at,
            "bytes": self.bytes,
            "sent": self.sent,
            "fault": self.fault.message if self.fault is not None else None,
        }
