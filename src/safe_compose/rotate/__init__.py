"""The road of a database's password: looked up, planned, backed up, changed everywhere at once, tried, or put back everywhere.

`--sync` is the other half: the files were changed already and nothing can log in, so the database follows them. A run that is
killed leaves its originals in the store; `recover` puts everything back from there, or finds that it was done.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from safe_compose import backup, consumers, prompts
from safe_compose.artifacts import Backup
from safe_compose.edits import Originals
from safe_compose.errors import BackupFailed, Interrupted, LookAgain, Refused, SafeComposeError
from safe_compose.halted import undisturbed
from safe_compose.methods import PASSWORDS
from safe_compose.rotate.anew import Way, make_anew, running
from safe_compose.rotate.back import put_back, recover
from safe_compose.rotate.look import Looked, drifted, knowing, look
from safe_compose.rotate.plan import Rotation, generated, plan, plan_sync, shape, told
from safe_compose.world import World

LOG_LINES = 1000
"""Of a container that was just made: all of its log."""

__all__ = [
    "Looked", "Rotation", "act", "drifted", "generated", "look", "plan", "plan_sync", "recover", "shape"
]  # fmt: skip


def act(world: World, rotation: Rotation, *, again: Callable[[Looked], Rotation], user: str | None, wait: float) -> dict[str, Any]:
    """Back up, change everything, try it, and tell; any failure or signal puts everything back.

    `again` makes the plan anew from a second look, under the lock. Raises LookAgain when that differs.
    """
    looked = rotation.looked
    with knowing(looked.account, looked.old, rotation.new):
        return _acted(world, rotation, again=again, user=user, wait=wait)


def _acted(
    world: World, rotation: Rotation, *, again: Callable[[Looked], Rotation], user: str | None, wait: float
) -> dict[str, Any]:
    looked = rotation.looked
    if rotation.sync and looked.agrees and not rotation.first and not rotation.services:
        _try_login(world, rotation)
        return told(rotation, None, done=True)
    kept = _backed_up(world, looked, wait)
    command = ("safe-compose", "rotate-password", looked.account.service)
    with world.catalogue.lock(world.engine.id, looked.project, wait=wait, command=command):
        now = again(look(world, looked.invocation, looked.account.service, user, looked.old))
        if now.lines() != rotation.lines() or [c.before for c in now.changes] != [c.before for c in rotation.changes]:
            raise LookAgain("the project changed between the plan and now; nothing was changed", next_step="look at the plan anew")
        _act(world, now, kept.id)
    return told(rotation, kept.id, done=True)


def _backed_up(world: World, looked: Looked, wait: float) -> Backup:
    if looked.server.in_folder:
        kind = looked.account.kind
        return backup.of_folder(world, looked.observed, looked.container, kind, wait=wait, reason="pre-rotate")
    return backup.by_hand(world, looked.invocation, names=(looked.server.volume,), wait=wait, reason="pre-rotate")


def _act(world: World, rotation: Rotation, backup_id: str) -> None:
    looked, account = rotation.looked, rotation.looked.account
    passwords = PASSWORDS[account.kind]
    run_id = world.journal.new_id()
    originals = Originals(world.catalogue.root, run_id)
    invocation = looked.invocation
    run = world.journal.begin(
        run_id,
        command=("rotate-password", *(("--sync",) if rotation.sync else ()), account.service),
        program="safe-compose",
        docker_globals=invocation.docker_globals,
        compose_globals=invocation.compose_globals,
        project=looked.project,
        endpoint=world.engine.endpoint,
        engine_id=world.engine.id,
        rotates=account.service,
        helpers=world.run_id,
        backup=backup_id,
    )
    verifier = passwords.verifier(rotation.new, account.user)
    way = Way(
        changes=rotation.changes,
        project=looked.project,
        service=account.service,
        kind=account.kind,
        user=account.user,
        old=looked.role.verifier,
        new=verifier,
        first=rotation.first,
        services=rotation.services,
        scale=dict(rotation.scale),
        mounted=rotation.survey.mounted,
        awaited=dict(rotation.awaited),
    )
    # A server that lets nobody in without a password has to be entered to put it back
    needed = [] if account.kind == "postgres" else [w for w in (account.password, rotation.new, looked.old) if w]
    anew = False
    try:
        originals.keep(rotation.changes, passwords=needed, **way.facts())
        run.step("changing", files=[c.path for c in rotation.changes], role=account.user)
        for change in rotation.changes:
            change.apply()
        run.step("written")
        _prove_files(world, rotation)
        passwords.put(world.engine, looked.server, account.user, verifier)
        run.step("database")
        _try_login(world, rotation)
        run.step("let-in")
        anew = True
        make_anew(world, way, invocation, stop_seconds=world.settings.stop_timeout)
        _try_login(world, rotation)
        run.step("rotated")
    except BaseException as fault:
        with undisturbed():
            reached = replace(way, first=(), services=()) if not anew else way
            put_back(world, run, originals, reached, invocation, fault)
        if isinstance(fault, KeyboardInterrupt):
            raise Interrupted("interrupted while the password was changed") from fault
        raise
    originals.drop()
    run.step("ended", outcome="the password was changed")
    _tell_of_others(world, rotation)


def _tell_of_others(world: World, rotation: Rotation) -> None:
    """Whoever still tries another password stands in the log of the new container, which begins with it."""
    looked, account = rotation.looked, rotation.looked.account
    number = 0
    with suppress(SafeComposeError):  # everything is done and was tried: this is only told
        found = running(world.engine, looked.project, account.service)
        if found.id != looked.container.id:
            number = PASSWORDS[account.kind].refused(world.engine.logs_tail(found.id, LOG_LINES), account.user)
    if number:
        refused = "1 login was refused" if number == 1 else f"{number} logins were refused"
        prompts.say(
            f"safe-compose: {refused} as {account.user} since: something still has another password (docker compose logs "
            f"{account.service})"
        )


def _prove_files(world: World, rotation: Rotation) -> None:
    """Compose reads the files as they were meant: every consumer has the new password, and nothing else is another. Raises
    Refused."""
    if not rotation.changes:
        return
    looked = rotation.looked
    now = world.engine.model(looked.invocation)
    if now is None:
        raise Refused("compose does not load the edited files; they were put back")
    own = consumers.own_names(looked.raw, looked.account)
    left = bool(rotation.survey.left)
    if wrong := consumers.differences(looked.model, now, looked.account, rotation.new, own, leave=left):
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise Refused(
            f"compose does not read the edited files as they were meant: {'; '.join(wrong[:3])}{more}; everything was put back",
            next_step="change these places by hand, and name them with --leave",
        )


def _try_login(world: World, rotation: Rotation) -> None:
    looked, account = rotation.looked, rotation.looked.account
    found = running(world.engine, looked.project, account.service)
    let_in = PASSWORDS[account.kind].lets_in(world.engine, found, account.user, rotation.new)
    if let_in is False:
        raise BackupFailed(f"{found.name} does not let {account.user} in over the network with the new password")
    if let_in is None:
        prompts.say(f"safe-compose: {found.name} asks for no password over a network, so no login could prove anything")
    else:
        prompts.say(f"safe-compose: {found.name} lets {account.user} in over the network")
