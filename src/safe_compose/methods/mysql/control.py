"""How a stopped server left its volume.

InnoDB removes its file of temporary tables at the end of every clean stop and keeps it after a crash (documented by MySQL and
MariaDB; run): where that file is, the server did not get to its end. Its exit code has to agree where it is known.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePosixPath

from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.methods.archive import MOUNT
from safe_compose.methods.database import LeftBehind
from safe_compose.methods.mysql.server import Server
from safe_compose.observed import Container


def settled(engine: Engine, container: Container) -> AbstractContextManager[None]:
    """Nothing to do: what was committed is on the volume once it is stopped."""
    return nullcontext()


def left_behind(engine: Engine, volume_name: str, image_ids: Sequence[str], server: Server | None) -> LeftBehind:
    """How a volume nobody runs on was left; `server` is what was dumped from it. Raises BackupFailed."""
    temporary = server.temporary if server is not None else "ibtmp1"
    files = _files(engine, volume_name, image_ids, temporary)
    if files is None or not {PurePosixPath(name).name for name in files} & {"ibdata1", "mysql"}:
        return LeftBehind("how it was stopped cannot be told from its files", clean=False)
    if any(PurePosixPath(name).name == temporary for name in files):
        return LeftBehind(f"{temporary} is still there: it was not stopped in order", clean=False)
    if server is not None and (now := engine.container(server.container.id)) is not None and now.exit_code != 0:
        return LeftBehind(f"it ended with {now.exit_code}", clean=False)
    return LeftBehind(f"{temporary} is gone: it was stopped in order", clean=True)


def _files(engine: Engine, volume: str, image_ids: Sequence[str], temporary: str) -> list[str] | None:
    """Paths of what marks a data directory; None when no local image can look."""
    names = ("(", "-name", "ibdata1", "-o", "-name", "mysql", "-o", "-name", temporary, ")")
    for image in image_ids:
        if engine.image(image) is None:
            continue  # what a backup recorded may be gone
        try:
            return look_for(engine, volume, image, ("-maxdepth", "4", *names, "-print"))
        except HelperFailed:
            continue
    return None


def look_for(engine: Engine, volume: str, image: str, words: Sequence[str]) -> list[str]:
    """What `find` prints of a volume, line by line. Raises HelperFailed."""
    helper = Helper(
        image=image,
        argv=("find", MOUNT, "-xdev", *words),
        volumes=((volume, MOUNT, True),),
        environment={"LC_ALL": "C"},
        user="0:0",
        capabilities=("DAC_READ_SEARCH",),
    )
    return engine.run(helper, timeout=60).decode("utf-8", "surrogateescape").splitlines()
