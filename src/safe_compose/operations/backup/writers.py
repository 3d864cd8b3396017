"""Containers that may write to a volume while it is backed up before its deletion."""

from typing import TYPE_CHECKING

from safe_compose.core.observed import HELPER_LABEL, describe_location
from safe_compose.core.text import shell_quote
from safe_compose.databases.registry import DATABASES
from safe_compose.engine import Engine
from safe_compose.errors import StateChanged
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.operations.stopped_containers import refuse_own

if TYPE_CHECKING:
    pass


def require_no_writers(request: BackupRequest) -> None:
    """Check that every running user of a volume can be stopped by the command, without damage.

    The command itself must stop it, and a stop must not destroy it. Nor may it be paused when the
    only copy is what its stop leaves, because a paused server cannot be asked to save.

    Raises:
        StateChanged: One of them does not qualify.
    """
    refuse_own(request.may_stop)
    may = {c.id for c in request.may_stop}
    for volume, verdict in request.volumes:
        database = DATABASES.get(verdict.kind)
        for user in request.observed.users(volume.name):
            asked = (
                database is not None
                and not database.dumped_before_deletion
                and database.serves(user, volume.name)
            )
            if user.state == "paused" and asked:
                raise StateChanged(
                    f"{describe_location(volume.name)}: container {user.name} is paused and"
                    " cannot be asked to"
                    " save what it holds in memory; nothing was deleted",
                    next_step=(
                        f"let it go on: docker unpause {shell_quote(user.name)}, then run the"
                        " command again"
                    ),
                )
            if user.lively and (user.id not in may or user.auto_remove):
                why = (
                    "was started with --rm, so stopping it would destroy it"
                    if user.auto_remove
                    else "runs on it"
                )
                raise StateChanged(
                    f"{describe_location(volume.name)}: container {user.name} {why}, and this"
                    " command would not"
                    " stop it; nothing was deleted",
                    next_step=f"stop it first: docker stop {shell_quote(user.name)}",
                )


def require_nobody_came(engine: Engine, request: BackupRequest) -> None:
    """Check that no container that may write to a volume was created or started since.

    It may be gone before the last inspection, and `MountEvents` report only later ones.

    Raises:
        StateChanged: There is one.
    """
    known = {c.id for c in request.observed.containers}
    for volume, _ in request.volumes:
        for user in engine.docker.users(volume.name):
            ours = user.labels.get(HELPER_LABEL) == engine.run_id
            writes = any(mount.name == volume.name and not mount.read_only for mount in user.mounts)
            if writes and not ours and (user.lively or user.id not in known):
                done = "started" if user.lively else "made"
                raise StateChanged(
                    f"container {user.name} was {done} on {describe_location(volume.name)} while"
                    " its users were"
                    " stopped; nothing was deleted",
                    next_step="stop what starts it, then run the command again",
                )
