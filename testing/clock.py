"""A clock that a test sets."""

from datetime import UTC, datetime


class Clock:
    """Stands at `now` until that is changed."""

    def __init__(self, now: datetime = datetime(2026, 11, 22, 7, 27, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now
