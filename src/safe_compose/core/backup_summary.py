"""What lists show of a backup. The confirmation screen waits for no more than this."""

from dataclasses import dataclass

UNKNOWN_PLACE = "an unknown place (it has no verification.json that reads)"
"""Every backup that is made or fetched here has that file from the first moment: the author of one
without it is unknown."""


@dataclass(frozen=True, slots=True)
class OffsiteCopy:
    """The state of one off-site copy of a backup."""

    name: str
    """The destination's name in the settings."""
    url: str
    """The URL, which never holds credentials."""
    pushed: str | None = None
    """When it was last sent as a whole, or fetched from there, UTC."""
    verified: str | None = None
    """When every byte of it was last read back and found good, UTC."""
    fault: str | None = None
    """Why the last push or verification failed, or None."""

    @property
    def state(self) -> str:
        """`failed`, `verified` or `unknown`."""
        return (
            "failed"
            if self.fault is not None
            else "verified"
            if self.verified is not None
            else "unknown"
        )


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """A backup as lists show it: the fields that are needed of thousands at once."""

    id: str
    seq: int
    created: str
    project: str
    endpoint: str
    engine_id: str
    reason: str
    volumes: tuple[str, ...]
    bytes: int
    path: str
    level: str | None
    verified: bool
    verified_at: str
    """When it was last read back; empty when it never was, or is broken."""
    pinned_until: str | None
    broken: str | None
    offsite: tuple[OffsiteCopy, ...] = ()
    unsigned_from: str | None = None
    lacking: tuple[str, ...] = ()
    """Names of the volumes that a partial backup lacks."""

    @property
    def counts(self) -> bool:
        """Whether it is verified and was made here or was signed."""
        return self.verified and self.unsigned_from is None
