"""The newest modification time in a volume, read while containers use it."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_image import READS, NoOwnImage
from safe_compose.volumes.engine_location import ending_after

SEARCH_SECONDS = 120.0
"""How long the search for the youngest file of a location may take, where much depends on it."""
_AT = "/volumes"
_LINE = re.compile(rb"(-?\d+) /volumes/(\d+)\n")


def find_last_writes(
    engine: Engine, volumes: Sequence[str], *, timeout: float
) -> Mapping[str, datetime]:
    """Return the newest modification time in each volume that was read completely in time.

    One helper container sees all volumes read-only, and only metadata is read. A volume that was
    not read completely within `timeout` seconds is left out. The result is empty where our own
    helper program cannot run.
    """
    mounts = [f"{_AT}/{place}" for place in range(len(volumes))]
    newest: dict[int, int] = {}
    if timeout <= 0 or not mounts:
        return {}
    with suppress(HelperFailed, NoOwnImage):  # volumes that were read completely by then count
        seen = tuple((name, at, True) for name, at in zip(volumes, mounts, strict=True))
        helper = engine.helpers.own("newest", *mounts, volumes=seen, capabilities=READS)
        with engine.helpers.stream(helper) as found, ending_after(timeout, found):
            for line in found.stdout:
                if match := _LINE.fullmatch(line):
                    newest[int(match[2])] = int(match[1])
    return {
        volumes[place]: datetime.fromtimestamp(at, UTC)
        for place, at in newest.items()
        if 0 <= at < 1 << 34
    }
