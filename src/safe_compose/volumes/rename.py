"""Exchange the content of a volume with that of an empty one by one rename, whatever its size.

A local volume without driver options is the folder `NAME/_data` below `volumes_folder`. Our own
helper program gets that folder mounted, so this works on a daemon of another machine too; it is the
only program that ever sees all volumes. It exchanges the two `_data` folders with
`renameat2(RENAME_EXCHANGE)`, which the kernel does as a whole or not at all: an interruption leaves
no intermediate state, and no byte is copied. Where the kernel or the file system cannot do it,
nothing is touched.
"""

import subprocess
from collections.abc import Callable

from safe_compose.core.observed import Volume, describe_location
from safe_compose.core.plan import explain_no_trash
from safe_compose.core.text import shell_quote
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_image import CHANGES, NoOwnImage
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.helper_program import UNTOUCHED, read_last_words

AT = "/volumes"


class CannotMove(OperationFailed):
    """The content of this volume cannot be exchanged; nothing was touched."""


def examine(engine: Engine, volume: Volume, folder: str) -> str | None:
    """Return why the content of a volume cannot be moved, or None if it can.

    A helper container finds that out. `folder` is `engine.docker.volumes_folder()`.
    """
    if (why := explain_no_trash(volume)) is not None:
        return why
    if volume.mountpoint != f"{folder}/{volume.name}/_data":
        return f"its folder is {volume.mountpoint}"
    try:
        _exchange(EngineLocation(engine, volume.name), folder, "look", volume.name, lambda: None)
    except CannotMove as fault:
        return fault.message
    return None


def move_out(location: EngineLocation, trash: str, go: Callable[[], None]) -> None:
    """Move the content of `volume` into `trash`, and leave an empty folder in its place.

    The empty folder has the same owner and mode. The result is on the disk when this returns. `go`
    is called when everything is checked, immediately before the exchange: it raises if the volume
    is in use by then. Nothing changes if the content was moved before.

    Raises:
        CannotMove: The exchange is not possible here; nothing was touched.
        OperationFailed: The exchange failed or was interrupted; `move_back` or this can be called
            next.
    """
    _exchange(location, location.engine.docker.volumes_folder(), "out", trash, go)


def move_back(location: EngineLocation, trash: str, go: Callable[[], None]) -> None:
    """Move the content of `trash` into `volume`, which must exist and be empty.

    `go` is called immediately before the exchange. Nothing changes if the content was moved before.

    Raises:
        CannotMove: The exchange is not possible here; nothing was touched.
        OperationFailed: The exchange failed or was interrupted; this can be called again.
    """
    _exchange(location, location.engine.docker.volumes_folder(), "back", trash, go)


def require_unused(location: EngineLocation) -> None:
    """Refuse a volume that a container uses, or may use at any moment.

    Raises:
        StateChanged: Such a container exists.
    """
    for user in location.engine.docker.users(location.name):
        if user.lively:
            raise StateChanged(
                f"container {user.name} runs on volume {location.name}; its content was not moved",
                next_step=f"stop it first: docker stop {shell_quote(user.name)}",
            )


def _exchange(
    location: EngineLocation, folder: str, action: str, trash: str, go: Callable[[], None]
) -> None:
    engine = location.engine
    try:
        helper = engine.helpers.own(
            "exchange",
            action,
            AT,
            location.name,
            trash,
            binds=((folder, AT),),
            capabilities=CHANGES,
        )
    except NoOwnImage as fault:
        raise CannotMove(fault.message) from fault
    try:
        with engine.helpers.stream(helper, stdin=subprocess.PIPE) as moving:
            if moving.stdout.readline() == b"ready\n":
                go()
                if moving.stdin is not None:
                    moving.stdin.write(b"go\n")
                    moving.stdin.flush()
                moving.stdout.read()
    except HelperFailed as error:
        if error.returncode == UNTOUCHED:
            raise CannotMove(read_last_words(error)) from error
        raise OperationFailed(
            f"{describe_location(location.name)}:"
            f" its content was not moved: {read_last_words(error)}",
            next_step="safe-compose recover",
        ) from error
    except BrokenPipeError as error:
        raise OperationFailed(
            f"{describe_location(location.name)}: its content was not moved: the helper has gone"
        ) from error
