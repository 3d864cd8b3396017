"""What a data directory on a volume says of itself while no server runs on it: `pg_controldata` in a helper."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePosixPath

from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.methods.archive import MOUNT
from safe_compose.methods.database import LeftBehind
from safe_compose.methods.postgres.server import Server
from safe_compose.observed import Container

_STATE = "Database cluster state"
_ANY = 6
"""Images that are tried whatever they are: those of the volume's own users are among them."""


def settled(engine: Engine, container: Container) -> AbstractContextManager[None]:
    """Nothing to do: what was committed is on the volume."""
    return nullcontext()


def left_behind(engine: Engine, volume_name: str, image_ids: Sequence[str], server: Server | None) -> LeftBehind:
    """How a data directory nobody runs on was left; `server` is what was dumped from it. Raises BackupFailed."""
    told = _control_data(engine, volume_name, image_ids, server.pgdata if server is not None else None)
    state = told.get(_STATE, "unknown")
    epoch, _, number = told.get("Latest checkpoint's NextXID", "").partition(":")
    following = (int(epoch) << 32) + int(number) if epoch.isdigit() and number.isdigit() else None
    return LeftBehind(f"control state '{state}'", clean(state), next_transaction=following if clean(state) else None)


def control_state(engine: Engine, volume_name: str, image_ids: Sequence[str], pgdata: str | None) -> str:
    """What pg_control says of a data directory nobody runs on: `shut down`, `in production`, ...; `unknown` when no local
    image can read it or there is none.

    `pgdata` is relative to the volume's root; None looks for it. Raises BackupFailed when the volume cannot be read.
    """
    return _control_data(engine, volume_name, image_ids, pgdata).get(_STATE, "unknown")


_NEEDED = {"max_prepared_xacts setting": "max_prepared_transactions", "max_locks_per_xact setting": "max_locks_per_transaction"}
"""Settings that a server's command line may have had, without which another one refuses to start on its data."""


def settings_left(engine: Engine, volume_name: str, image: str, pgdata: str) -> dict[str, str]:
    """Settings that the last server on a data directory ran with, as its control file remembers them, for one of ours."""
    told = _control_data(engine, volume_name, [image], pgdata)
    return {name: told[label] for label, name in _NEEDED.items() if told.get(label, "").isdigit()}


def _control_data(engine: Engine, volume_name: str, image_ids: Sequence[str], pgdata: str | None) -> dict[str, str]:
    """What `pg_controldata` prints, as a table; nothing where it cannot be had."""
    folder = pgdata
    for image in _readers(engine, image_ids):
        try:
            folder = find_data(engine, volume_name, image) if folder is None else folder
            if folder is None:
                return {}
            said = engine.run(reading_helper(volume_name, image, ("pg_controldata", str(PurePosixPath(MOUNT, folder)))), timeout=60)
        except HelperFailed:
            continue  # another image may have the program, in the right version
        lines = (line.partition(":") for line in said.decode("utf-8", "replace").splitlines())
        found = {name: value.strip() for name, _, value in lines}
        if _STATE in found:
            return found
    return {}


def _readers(engine: Engine, image_ids: Sequence[str]) -> list[str]:
    """Those that may have the program: the likeliest, which come first, and of all others those that tell of Postgres. A volume
    that nobody uses has every image of the engine before it, and each that is tried takes half a second."""
    there = [image for name in dict.fromkeys(image_ids) if (image := engine.image(name)) is not None]  # a recorded one may be gone
    ours = [i for i in there if {"PGDATA", "PG_MAJOR"} & i.environment.keys() or any("postgres" in r for r in i.references)]
    return list(dict.fromkeys(image.id for image in (*there[:_ANY], *ours)))


def clean(state: str) -> bool:
    """Whether a data directory in that state was left by a clean stop; standbys have a state of their own for it."""
    return state in ("shut down", "shut down in recovery")


def find_data(engine: Engine, volume: str, image: str) -> str | None:
    """Where in a volume a data directory lies, relative to its root; None where there is none. Raises HelperFailed."""
    argv = ("find", MOUNT, "-xdev", "-maxdepth", "5", "-path", "*/global/pg_control", "-print")
    said = engine.run(reading_helper(volume, image, argv), timeout=60).decode("utf-8", "surrogateescape").splitlines()
    paths = sorted(said, key=len)
    return str(PurePosixPath(paths[0]).parent.parent.relative_to(MOUNT)) if paths else None


def reading_helper(volume: str, image: str, argv: tuple[str, ...]) -> Helper:
    """One that sees a volume, read only, at MOUNT."""
    return Helper(
        image=image,
        argv=argv,
        volumes=((volume, MOUNT, True),),
        environment={"LC_ALL": "C"},
        user="0:0",
        capabilities=("DAC_READ_SEARCH",),
    )
