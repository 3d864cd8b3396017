"""Delete a volume and bring it back: by the trash at several sizes, and by a backup next to the
biggest.
"""

from pathlib import Path

import table
from pairs import Pairs
from stage import PROGRAM, Stage, docker, timed

from testing.projects import unique

MEGABYTE = 1 << 20


def rows(stage: Stage, rounds: int, *, gigabytes: int) -> list[table.Row]:
    """Each time out and back, `rounds` times; the content does not compress."""
    found = []
    folder = stage.scratch / "trash"
    folder.mkdir()
    for size, name in ((MEGABYTE, "1 MB"), (gigabytes << 30, f"{gigabytes} GB")):
        volume = _filled(size)
        try:
            moved = [
                _there_and_back(stage, folder, volume, f"trash {volume}") for _ in range(rounds)
            ]
            found.append(
                table.single(f"volume rm of {name} into the trash", [gone for gone, _ in moved])
            )
            found.append(
                table.single(f"undo of {name} from the trash", [back for _, back in moved])
            )
            if size > MEGABYTE:
                copied = [_there_and_back(stage, folder, volume, volume) for _ in range(rounds)]
                for what, at in (("volume rm", 0), ("undo", 1)):
                    pairs = Pairs(
                        f"{what} of {name}: backup / trash",
                        tuple(c[at] for c in copied),
                        tuple(m[at] for m in moved),
                    )
                    found.append(table.pair(pairs, speed=True))
        finally:
            docker("volume", "rm", "--force", volume, check=False)
    return found


def _filled(size: int) -> str:
    """A volume of nobody's with one file of so many random bytes."""
    name = unique("sctrash")
    docker("volume", "create", name)
    words = ("run", "--rm", "--network", "none", "--volume", f"{name}:/v", "busybox:latest")
    docker(*words, "sh", "-c", f"head -c {size} /dev/urandom >/v/file && sync")
    return name


def _there_and_back(stage: Stage, folder: Path, volume: str, phrase: str) -> tuple[float, float]:
    """Seconds of the deletion and of its undo."""
    gone = timed(
        [PROGRAM, "volume", "rm", volume, "--confirm", phrase], cwd=folder, environ=stage.environ
    )
    return gone, timed([PROGRAM, "undo"], cwd=folder, environ=stage.environ)
