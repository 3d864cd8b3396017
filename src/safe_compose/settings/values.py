"""The values of settings: sizes, times, tiers, addresses and keys, as people write them."""

import math
import re
from datetime import timedelta

from safe_compose.core import destination
from safe_compose.core.retention import parse_span
from safe_compose.core.tier import Tier

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{tail}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for tail, base in (("", 1000), ("b", 1000), ("ib", 1024), ("i", 1024))
}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_MOST_DIGITS = 30


def parse_bytes(value: object) -> int:
    """Return a number of bytes.

    Raises:
        ValueError: It is neither a number nor such a text.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = (
        re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower(), re.ASCII)
        if isinstance(value, str)
        else None
    )
    if match is None or match[2] not in _UNITS or len(match[1]) > _MOST_DIGITS:
        raise ValueError('a size is a number of bytes or a text such as "500MB" or "1.5GiB"')
    return (
        int(float(match[1]) * _UNITS[match[2]])
        if "." in match[1]
        else int(match[1]) * _UNITS[match[2]]
    )


def parse_budget(value: object) -> int:
    """Return a number of bytes above 0.

    Raises:
        ValueError: It is 0, or no size.
    """
    if (size := parse_bytes(value)) == 0:
        raise ValueError(
            "a budget of 0 would allow no backup at all; leave the key out for no budget"
        )
    return size


def parse_duration(value: object) -> int:
    """Return a number of whole seconds, rounded up.

    Raises:
        ValueError: It is no time, or longer than a day.
    """
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    elif isinstance(value, str) and (
        match := re.fullmatch(r"(\d{1,9})\s*([smh]?)", value.strip().lower(), re.ASCII)
    ):
        seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds is None or not 0 < seconds <= 86400:  # NaN compares false
        raise ValueError(
            'a time is a number of seconds or a text such as "90s" or "3m", above 0 and at most'
            " a day"
        )
    return math.ceil(seconds)


def parse_tier(value: object) -> Tier:
    """Return a tier.

    Raises:
        ValueError: It is no tier.
    """
    if isinstance(value, str) and value in [t.value for t in Tier]:
        return Tier(value)
    raise ValueError('a tier is "critical", "important" or "disposable"')


def parse_age(value: object) -> timedelta:
    """Return an age.

    Raises:
        ValueError: It is no age.
    """
    found = parse_span(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            'an age is a text such as "48h", "14d" or "8w", above 0 and at most 100 years'
        )
    return found


def parse_address(value: object) -> str:
    """Return a web address; no message repeats it because it may hold a secret.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, str) and re.fullmatch(r"https?://[^\s/?#]+([/?][!-~]*)?", value, re.ASCII):
        return value
    raise ValueError("a web address begins with https:// or http:// and has no blanks")


def parse_public_key(value: object) -> str:
    """Return a public key.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError("a public key is a text")
    return destination.parse_public_key(value)
