"""When something in a volume was last written: the newest modification time of anything in it, read beside whoever runs on it."""

import re
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from safe_compose.engine import Engine, Helper, HelperFailed

_AT = "/volume"
_LINE = re.compile(rb"(-?\d+) /volume/(\d+)(?:/|$)")
_NOT_THERE = (126, 127)
"""`docker run` ends so when the program cannot be started."""
_IMAGES = 3
"""How many images are tried, should the first ones have no `find` and `stat`: each costs a container."""


def last_written(engine: Engine, volumes: Sequence[str], image_ids: Sequence[str], *, timeout: float) -> Mapping[str, datetime]:
    """Volume name -> its newest modification time, for those whose every entry was seen within `timeout` seconds.

    One helper sees all of them, read only; only metadata is read. `image_ids` are local images, the likeliest first.
    """
    for image in image_ids[:_IMAGES] if timeout > 0 else ():
        newest: dict[int, int] = {}
        late = threading.Event()
        try:
            _read(engine, image, volumes, newest, late, timeout)
        except HelperFailed as fault:
            if fault.returncode in _NOT_THERE and not late.is_set():
                continue
            newest.pop(max(newest, default=0), None)  # cut off in the middle of that one
        return {volumes[place]: datetime.fromtimestamp(at, UTC) for place, at in newest.items() if 0 <= at < 1 << 34}
    return {}


def _read(
    engine: Engine, image: str, volumes: Sequence[str], newest: dict[int, int], late: threading.Event, timeout: float
) -> None:
    """Fill in place of volume -> seconds since 1970, one volume after the other. Raises HelperFailed."""
    mounts = [f"{_AT}/{place}" for place in range(len(volumes))]
    helper = Helper(
        image=image,
        # what GNU and busybox both have; one bare argv, so that a name in a volume is never a word of a shell
        argv=("find", *mounts, "-xdev", "-exec", "stat", "-c", "%Y %n", "{}", "+"),
        volumes=tuple((name, at, True) for name, at in zip(volumes, mounts, strict=True)),
        user="0:0",
        capabilities=("DAC_READ_SEARCH",),
    )
    with engine.stream(helper) as found:

        def end() -> None:
            late.set()
            found.abort()

        timer = threading.Timer(timeout, end)
        timer.start()
        try:
            for line in found.stdout:
                if match := _LINE.match(line):
                    place = int(match[2])
                    newest[place] = max(int(match[1]), newest.get(place, 0))
        finally:
            timer.cancel()
