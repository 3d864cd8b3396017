"""The road of `protect --lock`: docker itself refuses to delete a volume, to every client, until `unprotect`.

What is to be locked stands in the registry; the lock is a container that a person or a prune may have removed, so every guarded
command puts back what is missing.
"""

from collections.abc import Sequence

from safe_compose import prompts
from safe_compose.errors import UsageError
from safe_compose.observed import Observed
from safe_compose.policy import Tier
from safe_compose.world import World

WORDS = {"running": "locked", "created": "weakly locked", "missing": "LOCK MISSING", None: "-"}
"""For people, what `states` tells."""
WEAKER = "no local image has a program that sleeps, so `container prune` and `system prune` remove its lock"


def put(world: World, names: Sequence[str], tier: Tier) -> None:
    """Protect volumes and lock them. Raises UsageError when there is none of that name: it would be made."""
    if missing := [name for name in names if world.engine.volume(name) is None]:
        raise UsageError(
            f"there is no volume {', '.join(missing)} on {world.engine.endpoint}; nothing was locked", next_step="docker volume ls"
        )
    world.catalogue.ensure()
    for name in names:
        world.catalogue.protect(name, tier, lock_on=world.engine.id)
        runs = world.engine.lock_volume(name)
        prompts.say(f"safe-compose: {name} is at least {tier.value} from now on, and docker refuses to delete it{_how(runs)}")


def held(world: World, names: Sequence[str]) -> list[str]:
    """Those of the volumes that a lock holds."""
    return [name for name in names if world.engine.lock_of(name) is not None]


def states(world: World, observed: Observed) -> dict[str, str | None]:
    """Volume -> `running`, `created`, `missing` (it is to have a lock and has none that holds) or None."""
    wanted = world.catalogue.locked(world.engine.id)
    found: dict[str, str | None] = {}
    for volume in observed.volumes:
        there = observed.lock(volume.name)
        state = there.state if there is not None and there.state in ("running", "created") else None
        found[volume.name] = state or ("missing" if volume.name in wanted else None)
    return found


def renew(world: World, observed: Observed) -> bool:
    """Put back the locks that are to be there and are not (removed by hand or by a prune; or the time of `unprotect --for` is
    over). Whether anything was done."""
    missing = [
        name
        for name in world.catalogue.locked(world.engine.id)
        if observed.volume(name) is not None and ((lock := observed.lock(name)) is None or lock.state not in ("running", "created"))
    ]
    for name in missing:
        runs = world.engine.lock_volume(name)
        prompts.say(f"safe-compose: the lock on volume {name} was missing and is there again{_how(runs)}")
    return bool(missing)


def _how(runs: bool) -> str:
    return "" if runs else f" (weaker: {WEAKER})"
