"""The rollback of a rotation: files, role and services, from whatever point it reached.

It also rolls back what a killed run left.
"""

from collections.abc import Callable
from dataclasses import replace

from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.registry import DATABASES, find_passwords
from safe_compose.errors import SafeComposeError, StateChanged
from safe_compose.grammar.parser import Invocation
from safe_compose.operations.passwords.recreate import RotationState, find_running, recreate
from safe_compose.store.journal import Run
from safe_compose.store.run_record import RunRecord
from safe_compose.store.steps import PasswordAccepted, PasswordRotated, RollingBackPassword
from safe_compose.system.project_files import FileChange, Originals
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace


def roll_back(
    workspace: Workspace,
    run: Run,
    originals: Originals,
    state: RotationState,
    invocation: Invocation,
    fault: BaseException,
) -> str:
    """Roll back files, role and services after a fault.

    Returns:
        The outcome; empty when something could not be rolled back, which is reported.
    """
    with terminal.reporting_only():  # a full disk must not prevent the rollback
        run.step("putting-password-back")
    try:
        lines = _roll_back(
            workspace, state, invocation, stop_seconds=workspace.settings.stop_timeout
        )
        originals.drop()
    except SafeComposeError as further:
        terminal.say(f"safe-compose: not everything could be put back: {further.message}")
        terminal.say(
            "safe-compose: what was there before is kept; to put it back: safe-compose recover"
        )
        return ""
    terminal.say(f"safe-compose: put back: {', '.join(lines) or 'nothing had changed'}")
    return f"put back: {type(fault).__name__}"


def _roll_back(
    workspace: Workspace,
    state: RotationState,
    invocation: Invocation | RunRecord,
    *,
    stop_seconds: int,
    cwd: str | None = None,
) -> list[str]:
    """Roll back everything, from whatever point was reached.

    What somebody else has changed since is theirs: it is left alone, and reported.

    Returns:
        What was done, one phrase for each.

    Raises:
        SafeComposeError: The first fault, after everything else was tried.
    """
    lines: list[str] = []
    faults: list[SafeComposeError] = []

    def attempt(what: str, step: Callable[[], bool]) -> bool:
        try:
            if step():
                lines.append(what)
        except StateChanged as theirs:
            lines.append(theirs.message)
        except SafeComposeError as fault:
            faults.append(fault)
            return False
        return True

    for change in state.changes:

        def file(change: FileChange = change) -> bool:
            touched = change.state() != "before"
            change.take_back()
            return touched

        attempt(change.path, file)

    def role() -> bool:
        return _put_role_back(workspace, state)

    def services() -> bool:
        recreate(workspace, state, invocation, stop_seconds=stop_seconds, cwd=cwd, back=True)
        return True

    reached = attempt(f"the password of {state.user}", role)
    if state.first or state.services:
        silent = faults.pop() if not reached else None
        attempt(f"services {', '.join((*state.first, *state.services))}", services)
        if silent is not None:  # the database may not have run; now it does
            attempt(f"the password of {state.user}", role)
    if faults:
        raise faults[0]
    return lines


def _put_role_back(workspace: Workspace, state: RotationState) -> bool:
    """Give the role its earlier password verifier.

    Returns:
        False when the role has it already.

    Raises:
        StateChanged: Somebody else has changed it.
    """
    container = find_running(workspace.engine, state.project, state.service)
    server = DATABASES[state.kind].server(EngineContainer(workspace.engine, container))
    now = find_passwords(state.kind).role(server, state.user).verifier
    if now == state.old:
        return False
    if now != state.new:
        raise StateChanged(
            f"the password of {state.user} was changed by somebody else meanwhile; it was left as"
            " it is"
        )
    find_passwords(state.kind).put(server, state.user, state.old)
    return True


def recover(workspace: Workspace) -> list[str]:
    """Roll back or complete password rotations that were killed.

    Returns:
        What was done, one line for each run.
    """
    lines = []
    for record in workspace.journal.list_unfinished():
        if record.rotates is None or record.engine_id not in ("", workspace.engine.id):
            continue
        originals = Originals(workspace.catalogue.root, record.id)
        helpers = str(record.facts.get("helpers") or record.id)
        workspace.engine.helpers.sweep(helpers, keepers=False)
        saved = originals.load()
        run = workspace.journal.reopen(record.id)
        complete = (
            record.newest(PasswordRotated) is not None
            and record.newest(RollingBackPassword) is None
        )
        if saved is None or complete:
            done = "it was complete" if complete else "nothing had changed"
        else:
            state = RotationState.read(*saved)
            if record.newest(PasswordAccepted) is None:  # no container was recreated yet
                state = replace(state, first=(), services=())
            words_of = find_passwords(state.kind).knowing(
                state.user, *saved[1].get("passwords", ())
            )
            with (
                workspace.catalogue.folder.lock(
                    workspace.engine.id, state.project, command=("safe-compose", "recover")
                ),
                words_of,
            ):
                words = _roll_back(
                    workspace,
                    state,
                    record,
                    stop_seconds=workspace.settings.stop_timeout,
                    cwd=record.cwd or None,
                )
            done = f"put back: {', '.join(words)}" if words else "nothing had changed"
        originals.drop()
        workspace.engine.helpers.sweep(helpers)
        run.step("ended", outcome=f"cut off; {done}")
        lines.append(
            f"run {record.id} was cut off while it changed the password of service"
            f" {record.rotates}; {done}"
        )
    for line in lines:
        terminal.say(f"safe-compose: {line}")
    return lines
