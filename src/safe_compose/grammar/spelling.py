"""The word that somebody meant who made a typing error."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SHORT = 4
"""Up to so many letters one slip is allowed, beyond that two."""


def find_near(word: str, known: "Iterable[str]") -> str | None:
    """Return the known word that is the nearest to `word`, or None where none is near.

    Dashes at the front do not count as letters, and two letters that changed places are one slip.
    """
    letters = word.lstrip("-")
    best: tuple[int, str] | None = None
    for candidate in sorted(known):
        most = 1 if min(len(letters), len(candidate.lstrip("-"))) <= SHORT else 2
        if abs(len(word) - len(candidate)) > most or (word[:1] == "-") != (candidate[:1] == "-"):
            continue
        slips = count_slips(word, candidate)
        if slips <= most and (best is None or slips < best[0]):
            best = slips, candidate
    return best[1] if best is not None and len(letters) > 1 else None


def count_slips(word: str, other: str) -> int:
    """Return how many letters must be added, dropped, changed or swapped with the next one."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(word):
        earlier, before, row = before, row, [at + 1]
        for place, wanted in enumerate(other):
            slips = min(before[place] + (letter != wanted), before[place + 1] + 1, row[place] + 1)
            if at and place and letter == other[place - 1] and word[at - 1] == wanted:
                slips = min(slips, earlier[place - 1] + 1)
            row.append(slips)
    return row[-1]
