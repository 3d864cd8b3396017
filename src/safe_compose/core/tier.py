"""The importance of a volume."""

from enum import Enum


class Tier(Enum):
    """The importance of a volume, the strictest first."""

    CRITICAL = "critical"
    """Requires a verified backup and a typed phrase."""
    IMPORTANT = "important"
    """Requires a verified backup and y/N."""
    DISPOSABLE = "disposable"
    """Requires nothing."""

    @property
    def rank(self) -> int:
        """The rank, 0 for the strictest."""
        return _RANKS[self]

    def __lt__(self, other: "Tier") -> bool:
        """Return whether this tier is stricter."""
        return self.rank < other.rank


_RANKS = {tier: rank for rank, tier in enumerate(Tier)}
TIER_NAMES = tuple(tier.value for tier in Tier)
