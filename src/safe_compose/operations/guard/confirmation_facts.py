"""Facts that the confirmation screen fills in after it is first shown.

What the layers of containers lose, sizes, contents, failed logins and last writes are collected in
five seconds altogether.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from safe_compose.core.observed import WORKING_DIR_LABEL, Container
from safe_compose.core.plan import Doomed, Plan
from safe_compose.core.text import shell_quote
from safe_compose.core.tier import Tier
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import Passwords
from safe_compose.databases.registry import DATABASES
from safe_compose.engine import Engine
from safe_compose.errors import SafeComposeError
from safe_compose.operations.guard import layers
from safe_compose.operations.verdicts import judge
from safe_compose.system.files import find_real_path
from safe_compose.system.process import read_clock
from safe_compose.volumes import last_write
from safe_compose.workspace import Workspace

SECONDS = 5.0
"""How long the confirmation screen waits (design, section 6).

What is not known by then is shown as unknown.
"""
_SIZES = 3.0
"""The part of this time for sizes, for which the engine walks every volume it has."""
_LOG_LINES = 300
_FIRST_DOCKER = datetime(2013, 3, 20, tzinfo=UTC)
"""The time of docker's first release.

No volume is older, and a last write before it counts as unknown: an image's folder and unpacked
files have times of their own.
"""
_CLOCKS_DIFFER = timedelta(hours=1)
"""How far the engine's clock may be ahead of ours; a last write after that counts as unknown."""


def collect_facts(workspace: Workspace, made: Plan) -> Iterator[Plan]:
    """Yield a plan, again each time more is known about its volumes or its containers' layers."""
    made = replace(made, doomed=tuple(_inspect_contents(workspace, made)))
    yield made
    until = time.monotonic() + SECONDS
    made = layers.add_warning(workspace, made)
    yield made
    for doomed in _measure_volumes(workspace, made.doomed, until):
        yield replace(made, doomed=tuple(doomed))


def _measure_volumes(
    workspace: Workspace, doomed: Sequence[Doomed], until: float
) -> Iterator[Sequence[Doomed]]:
    sizes = workspace.engine.docker.sizes([d.name for d in doomed], timeout=_SIZES)
    doomed = [replace(d, bytes=choose_size(d, sizes.get(d.name))) for d in doomed]
    yield doomed
    for place, d in enumerate(doomed):
        remedy = _suggest_remedy(workspace, d)
        contents = _find_contents(workspace.engine, d, timeout=until - time.monotonic())
        if contents or remedy:
            doomed[place] = replace(d, contents=contents, remedy=remedy)
            yield doomed
    yield _add_last_writes(workspace, doomed, until - time.monotonic())


def _inspect_contents(workspace: Workspace, made: Plan) -> list[Doomed]:
    """Return the volumes; those whose content was not inspected yet are judged again."""
    waiting = [
        d.volume for d in made.doomed if d.verdict.looks and d.name not in workspace.searched
    ]
    found = (
        {
            v.volume: v
            for v in judge(workspace, waiting, made.observed, workspace.rules(made.observed))
        }
        if waiting
        else {}
    )
    return [replace(d, verdict=found.get(d.name, d.verdict)) for d in made.doomed]


def _add_last_writes(
    workspace: Workspace, doomed: Sequence[Doomed], timeout: float
) -> list[Doomed]:
    names = [d.name for d in doomed if d.verdict.tier is not Tier.DISPOSABLE]
    if timeout <= 0 or not names:
        return list(doomed)
    try:
        found = last_write.find_last_writes(workspace.engine, names, timeout=timeout)
    except SafeComposeError:
        return list(doomed)  # for information only; what must be true is checked before docker runs
    now = read_clock()
    plausible = {name: then for name, then in found.items() if is_plausible(then, now)}
    return [replace(d, last_write=plausible.get(d.name, d.last_write)) for d in doomed]


def is_plausible(then: datetime, now: datetime) -> bool:
    """Return whether something can have been written to a volume at that time."""
    return _FIRST_DOCKER <= then <= now + _CLOCKS_DIFFER


def _find_contents(engine: Engine, doomed: Doomed, timeout: float) -> str | None:
    """Return what is in a volume, determined within `timeout` seconds.

    Returns:
        The description; None when it is not a database.
    """
    kind = doomed.verdict.kind
    database = DATABASES.get(kind)
    if database is None:
        return None
    server = next(
        (u for u in doomed.users if u.state == "running" and database.serves(u, doomed.name)), None
    )
    if server is None:
        why = (
            "; no dump: server was not running"
            if database.dumped_before_deletion
            else "; its server does not run"
        )
        return f"{kind}{why}"
    return (
        database.summary(EngineContainer(engine, server), timeout=timeout) if timeout > 0 else None
    ) or f"{kind}, contents unknown"


def choose_size(doomed: Doomed, size: int | None) -> int | None:
    """Return the size that the engine measured, or None where nothing measured says nothing.

    That is so for a database whose running server may hold all of it in memory, and for a volume
    that only points to a place: the engine sees its content while it is mounted (moby
    volume/local).
    """
    database = DATABASES.get(doomed.verdict.kind)
    may_be = database is not None and database.held_in_memory
    in_memory = may_be and any(user.lively for user in doomed.users)
    points = doomed.volume.driver != "local" or bool(doomed.volume.options)
    return None if not size and (in_memory or points) else size


def _suggest_remedy(workspace: Workspace, doomed: Doomed) -> tuple[str, str] | None:
    """Return an explanation and a command if a log shows failed logins; None otherwise.

    The usual reason is a password that was changed in `.env` alone.
    """
    database = DATABASES.get(doomed.verdict.kind)
    if database is None or (passwords := database.passwords) is None:
        return None
    for user in doomed.users:
        try:
            failed = passwords.count_refused(workspace.engine.docker.logs_tail(user.id, _LOG_LINES))
        except SafeComposeError:
            continue
        if failed:
            return (
                (
                    f"the log of {user.name} shows failed logins ({failed}). A password that was"
                    " changed in .env does not reach a database that exists. Let the database"
                    " follow, and keep the data:"
                ),
                _sync(passwords, user),
            )
    return None


def _sync(passwords: Passwords, user: Container) -> str:
    """Return the command that makes the database follow, as typed in the current folder.

    It first changes to the folder of the project if that is another one.
    """
    if user.service is None:  # made by hand, so no compose file contains the password
        return passwords.by_hand(user)
    there = user.labels.get(WORKING_DIR_LABEL, "")
    elsewhere = (
        ""
        if not there or find_real_path(there) == find_real_path(Path.cwd())
        else f"cd {shell_quote(there)} && "
    )
    return f"{elsewhere}safe-compose rotate-password --sync {shell_quote(user.service)}"
