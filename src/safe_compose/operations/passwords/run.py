"""The rotation of a password: backed up, changed everywhere at once, and tested.

If a step fails, everything is rolled back. With `--sync`, the files were changed before and nothing
can log in, so only the database is changed. A killed run leaves its originals in the store, from
where `recover` rolls everything back, unless it finds that the rotation was complete.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from safe_compose import credentials
from safe_compose.core.backup import Backup
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.registry import find_passwords
from safe_compose.errors import OperationFailed, Refused, SafeComposeError, StateChanged
from safe_compose.operations.backup import manual
from safe_compose.operations.passwords.inspect import RotationInspection, inspect, knowing
from safe_compose.operations.passwords.plan import Rotation, report
from safe_compose.operations.passwords.recreate import RotationState, find_running, recreate
from safe_compose.operations.passwords.roll_back import roll_back
from safe_compose.operations.transaction import begin, locking, transaction
from safe_compose.store.journal import Run
from safe_compose.system.project_files import Originals
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace

LOG_LINES = 1000
"""How many log lines of a new container are read, which is all of its log."""


def rotate(
    workspace: Workspace,
    rotation: Rotation,
    *,
    again: Callable[[RotationInspection], Rotation],
    user: str | None,
    wait: float,
) -> dict[str, Any]:
    """Back up, change everything, test it, and return the report; any fault or signal rolls back.

    Args:
        workspace: The workspace.
        rotation: The confirmed plan.
        again: Makes the plan from a second inspection, under the lock.
        user: The role; None for that of the project's files.
        wait: Seconds to wait for the project's lock.

    Raises:
        StateChanged: The second plan differs from the first.
        Interrupted: Ctrl-C; everything was rolled back.
        SafeComposeError: It failed, and was rolled back or is left to `recover`.
    """
    inspection = rotation.inspection
    with knowing(inspection.account, inspection.old, rotation.new):
        return _rotate_locked(workspace, rotation, again=again, user=user, wait=wait)


def _rotate_locked(
    workspace: Workspace,
    rotation: Rotation,
    *,
    again: Callable[[RotationInspection], Rotation],
    user: str | None,
    wait: float,
) -> dict[str, Any]:
    """Rotate as `rotate` does; the logins with old and new passwords are prepared."""
    inspection = rotation.inspection
    if rotation.sync and inspection.agrees and not rotation.first and not rotation.services:
        _try_login(workspace, rotation)
        return report(rotation, None, done=True)
    backup = _back_up(workspace, inspection, wait)
    with locking(
        workspace, [inspection.project], ("rotate-password", inspection.account.service), wait=wait
    ):
        now = again(
            inspect(
                workspace, inspection.invocation, inspection.account.service, user, inspection.old
            )
        )
        if now.lines() != rotation.lines() or [c.before for c in now.changes] != [
            c.before for c in rotation.changes
        ]:
            raise StateChanged(
                "the project changed between the plan and now; nothing was changed",
                next_step="look at the plan again",
            )
        _change_everywhere(workspace, now, backup.id)
    return report(rotation, backup.id, done=True)


def _back_up(workspace: Workspace, inspection: RotationInspection, wait: float) -> Backup:
    """Back up the volume of the database, or the folder of the host that has its data."""
    return manual.back_up(
        workspace,
        inspection.invocation,
        names=(inspection.server.volume,),
        wait=wait,
        reason="pre-rotate",
    )


def _change_everywhere(workspace: Workspace, rotation: Rotation, backup_id: str) -> None:
    """Change everything and test it, or roll everything back."""
    inspection, account = rotation.inspection, rotation.inspection.account
    passwords = find_passwords(account.kind)
    invocation = inspection.invocation
    run = _begin(workspace, rotation, backup_id)
    originals = Originals(workspace.catalogue.root, run.id)
    state = _make_state(rotation)
    # A server that admits nobody without a password must be entered for a rollback.
    needed = [w for w in (account.password, rotation.new, inspection.old) if w]
    recreating = done = False

    def take_back(fault: BaseException) -> str:
        nonlocal done
        done = False  # a rollback that fails needs the originals, for `recover`
        reached = state if recreating else replace(state, first=(), services=())
        return roll_back(workspace, run, originals, reached, invocation, fault)

    def leave() -> bool:
        if done:  # before the run is closed; `recover` removes those of an open run
            originals.drop()
        return True

    with transaction(
        run, take_back, leave=leave, interrupted="interrupted while the password was changed"
    ) as change:
        originals.keep(rotation.changes, passwords=needed, **state.facts())
        run.step("changing", files=[c.path for c in rotation.changes], role=account.user)
        for edit in rotation.changes:
            edit.apply()
        run.step("written")
        _verify_files(workspace, rotation)
        passwords.put(inspection.server, account.user, state.new)
        run.step("database")
        _try_login(workspace, rotation)
        run.step("let-in")
        recreating = True
        recreate(workspace, state, invocation, stop_seconds=workspace.settings.stop_timeout)
        _try_login(workspace, rotation)
        run.step("rotated")
        change.outcome = "the password was changed"
        done = True
    _tell_of_others(workspace, rotation)


def _begin(workspace: Workspace, rotation: Rotation, backup_id: str) -> Run:
    """Begin a run of its own in the journal, which `recover` recognizes as a rotation."""
    account = rotation.inspection.account
    return begin(
        workspace,
        ("rotate-password", *(("--sync",) if rotation.sync else ()), account.service),
        globals_of=rotation.inspection.invocation,
        project=rotation.inspection.project,
        run_id=workspace.journal.new_id(),
        rotates=account.service,
        helpers=workspace.run_id,
        backup=backup_id,
    )


def _make_state(rotation: Rotation) -> RotationState:
    """Return everything needed to finish or revert a rotation."""
    inspection, account = rotation.inspection, rotation.inspection.account
    return RotationState(
        changes=rotation.changes,
        project=inspection.project,
        service=account.service,
        kind=account.kind,
        user=account.user,
        old=inspection.role.verifier,
        new=find_passwords(account.kind).verifier(
            rotation.new, account.user, inspection.role.verifier
        ),
        first=rotation.first,
        services=rotation.services,
        scale=dict(rotation.scale),
        mounted=rotation.survey.mounted,
        awaited=dict(rotation.awaited),
    )


def _tell_of_others(workspace: Workspace, rotation: Rotation) -> None:
    """Report refused logins in the log of the new container, which begins with it.

    They come from clients that still use another password.
    """
    inspection, account = rotation.inspection, rotation.inspection.account
    number: int | None = 0
    with suppress(SafeComposeError):  # everything is done and tested: this is only a report
        found = find_running(workspace.engine, inspection.project, account.service)
        if found.id != inspection.container.id:
            number = find_passwords(account.kind).count_refused(
                workspace.engine.docker.logs_tail(found.id, LOG_LINES), account.user
            )
    if number is None:
        terminal.say(
            f"safe-compose: whether somebody is still refused as {account.user} is unknown: the log"
            f" does not tell it in words that are read here (docker compose logs {account.service})"
        )
    if number:
        refused = "1 login was refused" if number == 1 else f"{number} logins were refused"
        terminal.say(
            f"safe-compose: {refused} as {account.user} since: something still has another password"
            f" (docker compose logs {account.service})"
        )


def _verify_files(workspace: Workspace, rotation: Rotation) -> None:
    """Check that compose reads the edited files as intended.

    Every consumer must have the new password, and nothing else may have changed.

    Raises:
        Refused: It reads them differently.
    """
    if not rotation.changes:
        return
    inspection = rotation.inspection
    now = workspace.engine.commands.model(inspection.invocation)
    if now is None:
        raise Refused("compose does not load the edited files; they were put back")
    own = credentials.own_names(inspection.raw, inspection.account)
    left = bool(rotation.survey.left)
    if wrong := credentials.find_differences(
        inspection.model, now, inspection.account, rotation.new, own, leave=left
    ):
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise Refused(
            "compose does not read the edited files as they were meant:"
            f" {'; '.join(wrong[:3])}{more}; everything was put back",
            next_step="change these places by hand, and name them with --leave",
        )


def _try_login(workspace: Workspace, rotation: Rotation) -> None:
    """Log in over the network with the new password, and report the result.

    Raises:
        OperationFailed: The login fails.
    """
    inspection, account = rotation.inspection, rotation.inspection.account
    found = find_running(workspace.engine, inspection.project, account.service)
    let_in = find_passwords(account.kind).can_log_in(
        EngineContainer(workspace.engine, found), account.user, rotation.new
    )
    if let_in is False:
        raise OperationFailed(
            f"{found.name} does not let {account.user} in over the network with the new password"
        )
    if let_in is None:
        terminal.say(
            f"safe-compose: {found.name} asks for no password over a network, so no login could"
            " prove anything"
        )
    else:
        terminal.say(f"safe-compose: {found.name} lets {account.user} in over the network")
