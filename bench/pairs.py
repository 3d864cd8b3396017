"""Two things measured side by side: alternated order, the median of the ratios, and how sure that is."""

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of a baseline and of a contender, pair by pair as they were measured."""

    name: str
    baseline: tuple[float, ...]
    contender: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        return [c / b for b, c in zip(self.baseline, self.contender, strict=True)]

    @property
    def added(self) -> list[float]:
        """Seconds that the contender took longer, for each pair."""
        return [c - b for b, c in zip(self.baseline, self.contender, strict=True)]


def alternate(
    name: str,
    baseline: Callable[[], float],
    contender: Callable[[], float],
    rounds: int,
    *,
    warm: bool = True,
) -> Pairs:
    """Measure `rounds` pairs, every second one in reverse order. Both callables return seconds; `warm` runs each once first."""
    if warm:
        baseline()
        contender()
    first, second = [], []
    for number in range(rounds):
        if number % 2:
            second.append(contender())
            first.append(baseline())
        else:
            first.append(baseline())
            second.append(contender())
    return Pairs(name, tuple(first), tuple(second))


def median(values: Sequence[float]) -> tuple[float, float, float]:
    """The median with the bootstrap's 95 % interval (percentiles of resampled medians; the same for the same values)."""
    chance = random.Random(len(values))
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return statistics.median(values), medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975) - 1]
