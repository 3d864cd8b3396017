"""Deletion locks: docker itself refuses every client's deletion of a volume until `unprotect`.

The registry says which volumes are to be locked (`protect --lock`). The lock is a container that a
person or a prune may have removed, so every guarded command recreates the missing ones.
"""

from collections.abc import Sequence

from safe_compose.core.observed import Observed
from safe_compose.core.plan import Plan
from safe_compose.core.tier import Tier
from safe_compose.errors import Refused, UsageError
from safe_compose.operations.transaction import begin
from safe_compose.operations.verdicts import judge
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace

WORDS = {"running": "locked", "created": "weakly locked", "missing": "LOCK MISSING", None: "-"}
"""The states of `read_states`, in words for people."""
WEAKER = (
    "our own program cannot run on this engine, so `container prune` and `system prune` remove its"
    " lock"
)


def create(workspace: Workspace, names: Sequence[str], tier: Tier) -> None:
    """Protect volumes and lock them.

    Raises:
        UsageError: A volume does not exist; locking it would create it.
    """
    if missing := [name for name in names if workspace.engine.docker.volume(name) is None]:
        raise UsageError(
            f"there is no volume {', '.join(missing)} on {workspace.engine.endpoint}; nothing was"
            " locked",
            next_step="docker volume ls",
        )
    for name in names:
        workspace.protections.protect([name], tier, lock_on=workspace.engine.id)
        runs = workspace.engine.locks.lock(name)
        terminal.say(
            f"safe-compose: {name} is at least {tier.value} from now on, and docker refuses to"
            f" delete it{_describe_weakness(runs)}"
        )


def list_held(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """Return those of the volumes that a lock holds."""
    return [name for name in names if workspace.engine.locks.find(name) is not None]


def read_states(workspace: Workspace, observed: Observed) -> dict[str, str | None]:
    """Return volume -> the state of its lock.

    Returns:
        `running`, `created`, `missing` for a volume that should have a lock and has none that
            works, or None for no lock.
    """
    wanted = workspace.protections.list_locked(workspace.engine.id)
    found: dict[str, str | None] = {}
    for volume in observed.volumes:
        there = observed.lock(volume.name)
        state = there.state if there is not None and there.state in ("running", "created") else None
        found[volume.name] = state or ("missing" if volume.name in wanted else None)
    return found


def renew(workspace: Workspace, observed: Observed) -> bool:
    """Recreate the missing locks and return whether there were any.

    A lock is missing after it was removed by hand or by a prune, or when the time of `unprotect
    --for` is over.
    """
    missing = [
        name
        for name in workspace.protections.list_locked(workspace.engine.id)
        if observed.volume(name) is not None
        and ((lock := observed.lock(name)) is None or lock.state not in ("running", "created"))
    ]
    for name in missing:
        runs = workspace.engine.locks.lock(name)
        terminal.say(
            f"safe-compose: the lock on volume {name} was missing and is there"
            f" again{_describe_weakness(runs)}"
        )
    return bool(missing)


def confirm_removal(workspace: Workspace, made: Plan) -> None:
    """Have a person confirm that docker may remove deletion locks, and journal it.

    Raises:
        Refused: It was not confirmed, or volumes would be deleted by the same command.
    """
    volumes = [v for v in made.observed.volumes if v.name in dict(made.unlocks)]
    tiers = {
        v.volume: v
        for v in judge(workspace, volumes, made.observed, workspace.rules(made.observed))
    }
    for name, container in made.unlocks:
        worth = f"{tiers[name].tier.value}, {tiers[name].why}"
        terminal.say(
            f"safe-compose: this removes {container}, which keeps docker from deleting volume"
            f" {name} ({worth})"
        )
    if made.invocation.own.confirm is None and made.verdict == "refuse":
        raise Refused(
            "a deletion lock would go, and nobody has agreed to that; nothing was removed",
            next_step=made.refusal,
        )
    if made.doomed and made.verdict == "refuse":
        raise Refused(
            "deletion locks do not go together with volumes; nothing was removed",
            next_step=made.refusal,
        )
    terminal.ask_phrase(
        f"To let docker delete {', '.join(dict(made.unlocks))} again",
        str(made.phrase),
        made.invocation.own.confirm,
        ask=not made.invocation.own.non_interactive,
        nothing="nothing was removed",
    )
    run = begin(
        workspace, made.invocation.argv, program=made.invocation.program, globals_of=made.invocation
    )
    run.step("ended", outcome=f"let docker remove the lock on {', '.join(dict(made.unlocks))}")
    terminal.say(
        "safe-compose: what is protected with a lock gets it back with the next guarded command;"
        f" to end that: safe-compose unprotect {' '.join(dict(made.unlocks))}"
    )


def _describe_weakness(runs: bool) -> str:
    return "" if runs else f" (weaker: {WEAKER})"
