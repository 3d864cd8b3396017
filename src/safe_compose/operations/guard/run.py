"""The guard: it stands between docker and a command that may delete volumes.

It inspects, confirms and executes, each in a module of its own. Nothing of ours is printed on
stdout, and stdin is docker's. Before docker runs, every exit is an error of ours; afterwards the
exit code is docker's.
"""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from safe_compose.core import refused_words
from safe_compose.core.observed import kind_of_location
from safe_compose.core.plan import Plan
from safe_compose.errors import EngineUnavailable, Refused
from safe_compose.fastpath import impostors, launch
from safe_compose.grammar import own_flags
from safe_compose.grammar.parser import Invocation
from safe_compose.operations import approval as operations_approval
from safe_compose.operations import deletion_lock
from safe_compose.operations.backup.store_place import require_store_outside
from safe_compose.operations.guard import autoremove, layers
from safe_compose.operations.guard.confirm import confirm
from safe_compose.operations.guard.docker_child import run_docker
from safe_compose.operations.guard.explain import (
    explain_harmless,
    explain_offline,
    explain_refused,
    print_plan,
)
from safe_compose.operations.guard.look import look, make_refusal_of_unloaded, tell_unseen
from safe_compose.system.children import hold_standard_descriptors
from safe_compose.system.signals import ENDING, Terminated, die_by, handle, raise_first
from safe_compose.ui import terminal as ui_terminal
from safe_compose.workspace import StartedConnection, Workspace, open_workspace


def run(invocation: Invocation, begun: StartedConnection | None = None) -> int:
    """Guard a command: inspect it, confirm it and run it in docker.

    Docker is exec'd when nothing that matters would be deleted.

    Args:
        invocation: The command.
        begun: The connection whose questions were sent before this module was imported.

    Returns:
        Docker's exit code, or 0 for `--explain`.

    Raises:
        SafeComposeError: Docker was not run.
    """
    hold_standard_descriptors()
    try:
        with operations_approval.reporting_refusals(invocation) as case:
            return _run_guarded(invocation, begun, case)
    finally:
        if begun is not None:
            begun.engine.close()


def _run_guarded(
    invocation: Invocation,
    begun: StartedConnection | None,
    case: operations_approval.RefusalContext,
) -> int:
    if invocation.own.non_interactive:
        case.nobody = "nobody may be asked (--non-interactive)"
    invocation = invocation._replace(own=own_flags.add_environment(invocation.own, os.environ))
    if invocation.own.explain and invocation.own.offline:
        return explain_offline(invocation)
    if invocation.is_refused:
        return _refuse_words(invocation)
    if invocation.kind == "none":
        return explain_harmless(invocation)
    workspace = _open_workspace(invocation, begun)
    if not invocation.own.explain:
        invocation = _note_absence(invocation, case)
    if invocation.own.explain:
        with workspace.engine.images.leaving_no_image():
            made = case.plan = look(workspace, invocation)
            tell_unseen(workspace, made)
        print_plan(layers.add_warning(workspace, made))
        return 0
    made = case.plan = look(workspace, invocation, quick=_has_a_reader(invocation))
    if deletion_lock.renew(workspace, made.observed) or made.holds:
        made = case.plan = look(workspace, invocation)
    if made.doomed and not made.holds and os.path.lexists(workspace.catalogue.root):
        require_store_outside(workspace.catalogue.root, (d.volume for d in made.doomed))
    if made.unlocks:
        deletion_lock.confirm_removal(workspace, made)
        return _hand_over(workspace, made)
    return _carry_out(workspace, made, case)


def _note_absence(invocation: Invocation, case: operations_approval.RefusalContext) -> Invocation:
    """Return the invocation as with `--non-interactive` where `--backup-first` meets no terminal.

    So the verified backup takes the place of the confirmation in a job that gives the one flag.
    """
    own = invocation.own
    if not own.backup_first or own.non_interactive or own.confirm is not None:
        return invocation
    terminal = ui_terminal.Terminal.open()
    if terminal is None:
        case.nobody = "there is no terminal to ask on"
        return invocation._replace(own=own._replace(non_interactive=True))
    os.close(terminal.fd)
    return invocation


def _open_workspace(invocation: Invocation, begun: StartedConnection | None) -> Workspace:
    """Open the workspace of a guarded command.

    Raises:
        Refused: It is an engine of Podman or nerdctl.
        EngineUnavailable: The daemon cannot be inspected.
    """
    try:
        workspace = open_workspace(invocation, begun, guarded=True)
    except EngineUnavailable:
        # Podman and nerdctl do not answer the first questions to docker: say which one it was.
        impostors.refuse_impostor(launch.find_docker(invocation.program))
        raise
    gc.freeze()  # imports stay; see `shim.start`
    gc.enable()
    if "podman" in workspace.engine.docker.maker.lower():  # docker's own client on Podman's socket
        impostors.refuse("Podman")
    return workspace


def _carry_out(workspace: Workspace, made: Plan, case: operations_approval.RefusalContext) -> int:
    """Carry out a plan that removes no lock, and return docker's exit code."""
    deleted = {d.name for d in made.doomed}
    if made.verdict == "refuse" and made.observed.not_loaded:
        raise make_refusal_of_unloaded(made)
    if made.verdict == "pass":
        for warning in made.warnings:
            ui_terminal.say(f"safe-compose: {warning}")
        _tell_staying(made)
        layers.tell(workspace, made.invocation, made.observed)
        workspace.note_folders(made.observed, deleted)
        return _hand_over(workspace, made)
    workspace.note_folders(made.observed)
    tell_unseen(workspace, made)
    if not made.holds and not _has_a_reader(made.invocation):
        made = layers.add_warning(workspace, made)  # a reader sees it on the screen, a little later
    with _unwinding_on_signals():
        code = (
            autoremove.run(workspace, made, run_docker)
            if made.holds
            else _confirm_and_act(workspace, made, case)
        )
    if made.holds and made.invocation.own.json:
        _report_as_json(workspace, made, code)
    if code == 0 and not made.holds:
        workspace.note_folders(made.observed, deleted)
    return code if code >= 0 else die_by(-code)


def _tell_staying(made: Plan) -> None:
    """Say to a person, where no screen does, which folders of the host `down -v` leaves."""
    paths = [name for name, _ in made.threat.spared if kind_of_location(name) == "folder"]
    if paths and os.isatty(2):
        ui_terminal.say(f"safe-compose: folders of the host stay: {', '.join(paths)}")


def _refuse_words(invocation: Invocation) -> int:
    """Refuse words that may delete something that cannot be determined or backed up.

    With `--explain` the refusal is printed, and 0 is returned. No version is asked whether the
    client knows a flag: a wrapper, a patched client or one that lies would know better.

    Raises:
        Refused: In every other case.
    """
    if invocation.own.explain:
        return explain_refused(invocation)
    if impostors.has_own_flag(invocation.argv):
        impostors.refuse_impostor(launch.find_docker(invocation.program))
    raise Refused(
        f"{refused_words.reason(invocation)}; nothing was deleted",
        next_step=refused_words.next_step(invocation),
    )


def _has_a_reader(invocation: Invocation) -> bool:
    """Return whether a person waits for the confirmation screen.

    It is then shown before disposable volumes are inspected. A person who approves a refused
    command later sees what was found.
    """
    if invocation.own.non_interactive or invocation.own.confirm is not None:
        return False
    terminal = ui_terminal.Terminal.open()
    if terminal is not None:
        os.close(terminal.fd)
    return terminal is not None


def _hand_over(workspace: Workspace, made: Plan) -> int:
    """Replace this process by docker.

    With a compose file read from stdin, docker runs as a child and reads it again; with `--json`
    as a child whose work is told afterwards.

    Raises:
        StateChanged: The engine still tries to mount one of the volumes.
    """
    invocation = made.invocation
    workspace.engine.archives.require_released()
    if invocation.own.json:
        code = run_docker(workspace, invocation)
        _report_as_json(workspace, made, code)
        return code if code >= 0 else die_by(-code)
    workspace.engine.close()
    if workspace.stdin is None:
        launch.hand_over(invocation.argv, invocation.program, judged=True)
    code = run_docker(workspace, invocation)
    return code if code >= 0 else die_by(-code)


def _report_as_json(workspace: Workspace, made: Plan, code: int) -> None:
    """Print the line of `--json`; docker has run, so a fault here changes nothing."""
    from safe_compose.operations.guard.report import report_as_json

    with ui_terminal.reporting_only():
        report_as_json(workspace, made, code)


def _confirm_and_act(
    workspace: Workspace, made: Plan, case: operations_approval.RefusalContext
) -> int:
    """Confirm and execute, and return docker's exit code, or minus the signal that it died by."""
    workspace, made, approval = confirm(workspace, made, case)
    layers.keep_where_asked(workspace, made)
    # Imported here, the confirmation screen is shown 40 ms sooner.
    from safe_compose.operations.guard.execute import execute

    command = (made.invocation.program, *made.invocation.argv)
    with workspace.catalogue.folder.lock(
        workspace.engine.id, made.project or "volumes", command=command
    ):
        if approval is not None:
            operations_approval.take(workspace, made, approval)
        return execute(workspace, made, approval)


@contextmanager
def _unwinding_on_signals() -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP unwind the block, so that stopped containers restart.

    Those that follow change nothing: an impatient second Ctrl-C must not interrupt that. SIGQUIT
    still ends us.
    """
    raise_first(partial(handle, ENDING))
    try:
        yield
    except Terminated as terminated:
        name, code = signal.Signals(terminated.number).name, 128 + terminated.number
        ui_terminal.say(f"safe-compose: ended by {name}; nothing was deleted")
        ui_terminal.say(f"safe-compose: docker was not run ({code})")
        die_by(terminated.number)
