"""A folder of the host archived, ours against `tar czf`, on the same files."""

import os
from functools import partial
from pathlib import Path

import table
from pairs import Pairs, by_turns
from stage import Stage, real_docker, shell
from volume_copies import after, archive_once, through_the_daemon

from safe_compose.core.observed import HostFolder
from safe_compose.engine import connect
from testing.projects import unique

MEGABYTE = 1 << 20
_FILE = 2 * MEGABYTE


def rows(stage: Stage, rounds: int, *, gigabytes: int) -> list[table.Row]:
    """The comparisons. Half of the files do not compress, as photos, the others are text.

    Each round runs every way once. By hand it is done on the host, as its administrator would,
    without a container.
    """
    folder = stage.scratch / "folder"
    _fill(folder, gigabytes << 30)
    tar = f"tar czf {stage.scratch}/naive.tar.gz -C {folder.parent} {folder.name}"
    proofs: list[float] = []
    sizes: dict[str, int] = {}
    with connect(real_docker(), (), environ=stage.environ, run_id=unique("bench")) as engine:
        location = HostFolder(str(folder))
        pack = partial(archive_once, stage, engine, location, proofs, sizes)
        by_hand = partial(shell, tar, cwd=stage.scratch, environ=stage.environ)
        ways = [after(os.sync, way) for way in (by_hand, pack, through_the_daemon(engine, pack))]
        naive, piped, far = by_turns(ways, rounds, warm=False)
    name = f"a folder of {gigabytes} GB archived"
    made = (stage.scratch / "naive.tar.gz").stat().st_size
    return [
        table.pair(Pairs(f"{name} / tar czf", naive, piped), speed=True),
        table.pair(Pairs(f"{name} through the daemon / tar czf", naive, far), speed=True),
        table.single("  bytes of it, by tar czf", [made / 1e6], "MB"),
        table.single("  bytes of it, by ours", [sizes["helper"] / 1e6], "MB"),
        table.single("  the archive verified, L2", proofs),
    ]


def _fill(folder: Path, size: int) -> None:
    """Files of 2 MB each, in folders of a hundred."""
    photo = os.urandom(32 * MEGABYTE)
    text = b"".join(b"%d;%s;shipped\n" % (n, os.urandom(8).hex().encode()) for n in range(800_000))
    for number in range(size // _FILE):
        path = folder / f"{number // 100}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        source = photo if number % 2 else text
        begin = number * 7919 * 64 % (len(source) - _FILE)
        path.write_bytes(source[begin : begin + _FILE])
