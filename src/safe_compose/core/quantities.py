"""Sizes, durations and moments as text for people."""

import re
from datetime import datetime

_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}):\d{2}(?:\.\d+)?(?:Z|\+00:00)", re.ASCII)
"""A time as our own files hold it."""


def format_seconds(seconds: float) -> str:
    """Return a duration for people: `1 second`, `11 seconds`, `4 minutes`, `3 hours`, `2 days`."""
    unit, size = next(
        ((u, s) for u, s in (("day", 86400), ("hour", 3600), ("minute", 60)) if seconds >= 2 * s),
        ("second", 1),
    )
    number = round(seconds / size)
    return f"{number} {unit}{'' if number == 1 else 's'}"


def format_moment(then: datetime, now: datetime) -> str:
    """Return `2026-11-25 15:41 UTC, 3 minutes ago`; both times are UTC."""
    return f"{then:%Y-%m-%d %H:%M} UTC, {format_age(then, now)}"


def format_stamp(text: str) -> str:
    """Return a time that our own files hold for a sentence: `2026-11-25 15:41 UTC`.

    A text that is no such time is returned as it is.
    """
    return rewrite_stamps(text) if _STAMP.fullmatch(text) else text


def rewrite_stamps(sentence: str) -> str:
    """Return a sentence of our own files with each of its times as `format_stamp` writes it."""
    return _STAMP.sub(r"\1 \2 UTC", sentence)


def format_age(then: datetime, now: datetime) -> str:
    """Return how long ago a moment was, or how far off it is: `3 minutes ago`, `in 29 days`."""
    ago = (now - then).total_seconds()
    if -1 < ago < 1:
        return "just now"
    return f"{format_seconds(ago)} ago" if ago > 0 else f"in {format_seconds(-ago)}"


def format_exactly(moment: datetime) -> str:
    """Return a moment in UTC, to the second: `2026-11-25 15:41:07 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 backup`, `2 backups`, `1,200 rows`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_size(size: int | None) -> str:
    """Return bytes for people, in binary units: `45.0 MiB`; None is `not measured`."""
    if size is None:
        return "not measured"
    if size < 1024:
        return f"{size} B"
    amount = size / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if round(amount, 1) < 1024:
            return f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
