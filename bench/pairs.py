"""Two things measured side by side: alternated order, the median of the ratios, and how sure that
is.
"""

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
    """Measure `rounds` pairs, every second one in reverse order. Both callables return seconds;
    `warm` runs each once first.
    """
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


def by_turns(
    contenders: Sequence[Callable[[], float]], rounds: int, *, warm: bool = True
) -> list[tuple[float, ...]]:
    """Measure several ways of one thing in each of `rounds` rounds, every second one in reverse
    order: any two of them are pairs then. For what takes too long to be repeated for each pair.
    `warm` runs each once first.
    """
    taken: list[list[float]] = [[] for _ in contenders]
    for number in range(-1 if warm else 0, rounds):
        order = range(len(contenders)) if number % 2 == 0 else reversed(range(len(contenders)))
        for place in order:
            took = contenders[place]()
            if number >= 0:
                taken[place].append(took)
    return [tuple(times) for times in taken]


def median(values: Sequence[float]) -> tuple[float, float, float]:
    """The median with the bootstrap's 95 % interval (percentiles of resampled medians; the same for
    the same values).
    """
    chance = random.Random(len(values))
    medians = sorted(
        statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    return (
        statistics.median(values),
        medians[int(RESAMPLES * 0.025)],
        medians[int(RESAMPLES * 0.975) - 1],
    )
