"""What the card fills in after its first paint: sizes, contents, failed logins and last writes, in five seconds together."""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safe_compose import backup
from safe_compose.errors import SafeComposeError
from safe_compose.methods import written
from safe_compose.observed import WORKING_DIR_LABEL, Container
from safe_compose.plan import Doomed, Plan, moment_text
from safe_compose.policy import Tier
from safe_compose.process import utc_now
from safe_compose.world import World

SECONDS = 5.0
"""How long the card waits (design, section 6); what is not known by then stays unmeasured."""
_SIZES = 3.0
"""Of these, for the sizes: the engine walks every volume that it has for them."""
_LOG_LINES = 300
_FAILED_LOGIN: Mapping[str, str] = {"postgres": "password authentication failed"}
"""Kind of database -> what its log says of a wrong password."""


def for_card(world: World, made: Plan) -> Iterator[Sequence[Doomed]]:
    """The volumes of a plan, again each time more is known of them."""
    until = time.monotonic() + SECONDS
    doomed = list(made.doomed)
    sizes = world.engine.sizes([d.name for d in doomed], timeout=_SIZES)
    doomed = [replace(d, bytes=sizes.get(d.name)) for d in doomed]
    yield doomed
    for place, d in enumerate(doomed):
        remedy = _remedy(world, d)
        contents = backup.contents(world.engine, d.volume, d.verdict, d.users, timeout=until - time.monotonic())
        if contents or remedy:
            doomed[place] = replace(d, contents=contents, remedy=remedy)
            yield doomed
    yield _with_last_writes(world, made, doomed, until - time.monotonic())


def _with_last_writes(world: World, made: Plan, doomed: Sequence[Doomed], timeout: float) -> list[Doomed]:
    names = [d.name for d in doomed if d.verdict.tier is not Tier.DISPOSABLE]
    if timeout <= 0 or not names:
        return list(doomed)
    try:
        images = backup.image_candidates(world.engine, made.observed, names[0])
        found = written.last_written(world.engine, names, images, timeout=timeout)
    except SafeComposeError:
        return list(doomed)  # only told; what must be true before docker runs is looked at again
    now = utc_now()
    return [replace(d, last_write=moment_text(found[d.name], now)) if d.name in found else d for d in doomed]


def _remedy(world: World, doomed: Doomed) -> str | None:
    """The usual reason to delete a database is a password that was changed in `.env` alone: then its log shows failed logins."""
    words = _FAILED_LOGIN.get(doomed.verdict.kind)
    for user in doomed.users if words else ():
        try:
            failed = world.engine.logs_tail(user.id, _LOG_LINES).count(words or "")
        except SafeComposeError:
            continue
        if failed:
            return (
                f"the log of {user.name} shows failed logins ({failed}). A password that was changed in .env does not reach a "
                f"database that exists. Let the database follow, and keep the data:\n  {_sync(user)}"
            )
    return None


def _sync(user: Container) -> str:
    """The command for it, from where we stand: named by project where that is not the project of this folder."""
    if user.service is None:  # made by hand: there is no compose file that says the password
        name = user.environment.get("POSTGRES_USER", "postgres")
        return f"docker exec -it {user.name} psql -U {name} -d {user.environment.get('POSTGRES_DB', name)}, then \\password"
    there = user.labels.get(WORKING_DIR_LABEL, "")
    elsewhere = "" if not there or Path(there).resolve() == Path.cwd().resolve() else f"cd {shlex.quote(there)} && "
    return f"{elsewhere}safe-compose rotate-password --sync {user.service}"
