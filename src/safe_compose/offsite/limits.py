"""Limits on what an off-site place may consume: time without progress, bytes and entries.

The length of a transfer is unlimited: 500 GB may take days, as long as data arrives.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from safe_compose.errors import PlaceUnusable

STALL_SECONDS = 120.0
"""Longest time without any data while an answer is awaited."""
SYNC_SECONDS = 1800.0
"""Longest time without any data while a server syncs a large file to its disk."""
LISTING_SECONDS = 900.0
"""Longest time for a listing of all copies at a place."""
WINDOW_SECONDS, LEAST_BYTES = 300.0, 256 << 10
"""Fewest bytes of a file that must arrive in that many seconds of waiting; no usable connection is
slower."""
MOST_ENTRIES = 200_000
"""Most names in all the folders that one listing returns."""
LARGEST_TEXT = 64 << 20
"""Bytes; a larger `SHA256SUMS` or manifest is not from safe-compose."""
MOST_TEXT = 4 << 30
"""Bytes of all manifests that one listing reads."""


class Deadline:
    """The time that one listing of a place may take, and the number of names that it may return."""

    def __init__(
        self, title: str, seconds: float = LISTING_SECONDS, entries: int = MOST_ENTRIES
    ) -> None:
        """Start the time now."""
        self._title = title
        self._ends = time.monotonic() + seconds
        self._seconds = seconds
        self._left = entries
        self._most = entries

    @property
    def remaining(self) -> float:
        """Return the remaining seconds, never below 0."""
        return max(0.0, self._ends - time.monotonic())

    def count(self, entries: int = 1) -> None:
        """Count names that were listed.

        Raises:
            PlaceUnusable: There are too many names, or the time is over.
        """
        self._left -= entries
        if self._left < 0:
            raise PlaceUnusable(
                f"{self._title}: it lists more than {self._most} names; nothing of it is used",
                next_step="give copies a folder or prefix of their own",
            )
        if time.monotonic() > self._ends:
            raise self.make_fault()

    def make_fault(self) -> PlaceUnusable:
        """Return the error about a listing that does not end."""
        return PlaceUnusable(
            f"{self._title}: its listing did not end within {self._seconds:g} s; nothing of it is"
            " used",
            next_step="look at the server, then try again",
        )


def require_progress(
    title: str,
    blocks: Iterable[bytes],
    *,
    window: float = WINDOW_SECONDS,
    least: int = LEAST_BYTES,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bytes]:
    """Yield the blocks unchanged while they arrive at an acceptable rate.

    Only the time spent waiting for blocks counts, not the time that their consumer takes.

    Raises:
        PlaceUnusable: Almost no data arrives.
    """
    coming = iter(blocks)
    waited, came = 0.0, 0
    while True:
        begun = clock()
        block = next(coming, None)
        if block is None:
            return
        waited += clock() - begun
        came += len(block)
        if waited > window:
            if came < least:
                raise PlaceUnusable(
                    f"{title}: only {came} bytes came in {waited:.0f} s; nothing was kept",
                    next_step="look at the line and the server, then try again",
                )
            waited, came = 0.0, 0
        yield block
