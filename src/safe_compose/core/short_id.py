"""The short form of an id, and the ids that a typed word means.

An id is `20261122T072700Z-3f9a1c`. Its beginning is the time, which backups of one day share and
which every list shows as an age; its random end tells backups apart, and it is what the copies that
a restore sets aside carry in their names (`shop_old_3f9a1c`). So the end is the short form. An item
of the trash keeps its number: `3f9a1c-2`. Where another id has the same end the whole id is shown.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

SHORTEST = 4
"""Fewest characters of the short form that count as its beginning; `forget 3` means nothing."""
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-(?P<end>[0-9a-f]{6}(?:-[0-9]{1,4})?)", re.ASCII)
_NAMED = 5
"""Most candidates that a message names."""


def find_end(id: str) -> str:
    """Return the random end of an id; empty for a text of another form."""
    found = _ID.fullmatch(id)
    return found["end"] if found is not None else ""


def find_matching(word: str, every: Sequence[T], id_of: Callable[[T], str]) -> list[T]:
    """Return the entries that a typed word means; several of them make it ambiguous.

    The whole id comes first, then the beginning of an id or the whole short form, then the
    beginning of a short form. An empty word means nothing.
    """
    if not word:
        return []
    ends = [(entry, id_of(entry), find_end(id_of(entry))) for entry in every]
    return (
        [entry for entry, id, _ in ends if id == word]
        or [entry for entry, id, end in ends if id.startswith(word) or end == word]
        or [entry for entry, _, end in ends if len(word) >= SHORTEST and end.startswith(word)]
    )


def shorten_ids(every: Iterable[str]) -> Callable[[str], str]:
    """Return a function that shortens an id among these; the result means that id alone."""
    known = set(every)
    ends = Counter(find_end(id) for id in known)
    beginnings = {id[:length] for id in known for length in {len(end) for end in ends}}

    def shorten(id: str) -> str:
        end = find_end(id)
        others = ends[end] - (id in known)
        return id if not end or others or end in beginnings else end

    return shorten


def shorten_in(text: str, shorten: Callable[[str], str]) -> str:
    """Return a sentence of ours with its ids shortened."""
    return _ID.sub(lambda found: shorten(found[0]), text)


def name_first(names: Sequence[str]) -> str:
    """Return the first of some candidates as a list, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
