"""The inspections right before docker runs.

The volumes must be unchanged, and nobody may have written to them since their backup began.
"""

from safe_compose.core.observed import HELPER_LABEL
from safe_compose.core.plan import Plan
from safe_compose.core.text import join_for_shell
from safe_compose.errors import StateChanged
from safe_compose.operations.backup.before_deletion import ColdBackup
from safe_compose.operations.guard.look import look
from safe_compose.operations.stopped_containers import StoppedContainers
from safe_compose.workspace import Workspace


def require_same(made: Plan, again: Plan) -> None:
    """Check that two inspections found the same volumes, verdict and settings.

    Raises:
        StateChanged: They differ.
    """
    if made.identity() != again.identity() or again.verdict != made.verdict:
        raise StateChanged(
            "the volumes changed between the plan and now; nothing was deleted",
            next_step="run the command again and read the new plan",
        )
    if (made.safety, made.promises) != (again.safety, again.promises) and not made.insisted:
        before, now = ({"safety": p.safety, **dict(p.promises)} for p in (made, again))
        changed = [
            f"{name} was {before.get(name, '-')}, and is {now[name]}"
            for name in now
            if before.get(name) != now[name]
        ]
        raise StateChanged(
            f"the settings changed between the plan and now ({'; '.join(changed)}); nothing was"
            " deleted",
            next_step="run the command again and read the new plan",
        )


def take_last_look(
    workspace: Workspace,
    made: Plan,
    backup: ColdBackup | None,
    stopped_containers: StoppedContainers,
) -> Plan:
    """Inspect once more, and return the plan that docker may carry out.

    The volumes are the same, nobody wrote to them since their archives began, and no helper holds
    one of them any more. Volumes in memory are released last, because their content ends with that.

    Raises:
        StateChanged: One of this is not so.
        OperationFailed: A volume in memory has lost its content.
    """
    workspace.engine.archives.require_released()
    if workspace.engine.mounts.list_mounted():
        workspace.engine.helpers.sweep(keepers=False)
        stopped_containers.require_kept()
        _require_unchanged(workspace, made, backup)
    workspace.engine.helpers.sweep()
    left = workspace.engine.helpers.leftovers()
    if left:
        raise StateChanged(
            f"helper containers of this backup are still there ({', '.join(left)}); nothing was"
            " deleted"
        )
    return _require_unchanged(workspace, made, backup)


def _require_unchanged(workspace: Workspace, made: Plan, backup: ColdBackup | None) -> Plan:
    """Inspect once more and check that the volumes are as the backup has them.

    Raises:
        StateChanged: They are not.
    """
    again = look(workspace, made.invocation, made)
    require_same(made, again)
    workspace.engine.archives.require_released()
    if backup is None:
        return again
    backup.require_unwritten()
    ours = workspace.engine.mounts.keepers()
    for d in again.backed_up:
        if parked := [
            u.name
            for u in d.users
            if HELPER_LABEL in u.labels and u.is_marked_as_ours and u.name not in ours
        ]:
            raise StateChanged(
                f"a helper container of another safe-compose holds volume {d.name}; nothing was"
                " deleted",
                next_step=(
                    f"when that one is dead: docker rm -f {join_for_shell(parked)}, then run the"
                    " command again"
                ),
            )
        # Up to engine 20.10, that is the time of the underlying folder once a volume in memory is
        # not mounted.
        if backup.created_at.get(d.name) != d.volume.created_at and not d.volume.in_memory:
            raise StateChanged(
                f"volume {d.name} changed after its archive began; nothing was deleted",
                next_step="find out what writes into it, stop that, then run the command again",
            )
        for user in (u for u in d.users if u.name not in ours):
            if user.lively or backup.ran_since(user):
                raise StateChanged(
                    f"container {user.name} ran on volume {d.name} after its archive began; nothing"
                    " was deleted",
                    next_step="stop what starts it, then run the command again",
                )
    return again
