"""`stop`, `kill` and `rm -f` of --rm containers, without the loss of their anonymous volumes.

Such a volume is deleted when its container ends, so it cannot be archived before. But docker keeps
a volume that another container references: one of ours, created and never started, holds it until
the --rm container is gone. Nothing is deleted, so nobody is asked.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack

from safe_compose.core.observed import Container
from safe_compose.core.plan import Plan
from safe_compose.errors import SafeComposeError, StateChanged
from safe_compose.grammar.parser import Invocation
from safe_compose.operations.transaction import begin
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace

PASSING_SECONDS = 5.0
"""How long a container may continue after a signal that need not end it."""


def run(
    workspace: Workspace, made: Plan, run_docker: Callable[[Workspace, Invocation], int]
) -> int:
    """Hold the volumes that matter while docker runs, and return docker's exit code.

    They are released when the containers are gone.

    Args:
        workspace: The workspace.
        made: The plan of the command.
        run_docker: Runs the command in docker.

    Raises:
        StateChanged: A container ended by itself before docker ran.
        SafeComposeError: The volumes cannot be held; docker was not run.
    """
    workspace.catalogue.folder.ensure()
    journal_run = begin(
        workspace, made.invocation.argv, program=made.invocation.program, globals_of=made.invocation
    )
    leaving = {c.id: c for d in made.backed_up for c in d.users if c.auto_remove}
    code: int | None = None
    try:
        try:
            with ExitStack() as held:
                for doomed in made.backed_up:
                    held.enter_context(workspace.engine.helpers.holding(doomed.name))
                if any(workspace.engine.docker.container(c.id) is None for c in leaving.values()):
                    raise StateChanged(
                        "a container ended by itself meanwhile; look again with `docker ps -a`"
                    )
                journal_run.step("holding", volumes=[d.name for d in made.backed_up])
                code = run_docker(workspace, made.invocation)
                with terminal.reporting_only():
                    _await_end(workspace, made, leaving)
        except SafeComposeError as fault:
            if code is None:
                raise
            terminal.say(f"safe-compose: {fault.message}")  # a helper still holds a volume
        with terminal.reporting_only():
            _tell(workspace, made, leaving)
    finally:
        try:
            workspace.engine.helpers.sweep()
        except SafeComposeError as fault:
            terminal.say(f"safe-compose: {fault.message}")
        with terminal.reporting_only():  # docker may have run: its exit code is ours
            journal_run.step(
                "ended",
                outcome="docker was not run" if code is None else f"docker exited with {code}",
            )
    return code


def _await_end(workspace: Workspace, made: Plan, leaving: dict[str, Container]) -> None:
    """Wait until the containers are removed, or for as long as they may take.

    Docker returns before it removes a --rm container, and `kill` before it has ended.
    """
    ends = {c.id for c in made.threat.stops}
    for identity in leaving:
        until = time.monotonic() + (
            workspace.settings.stop_timeout if identity in ends else PASSING_SECONDS
        )
        while workspace.engine.docker.container(identity) is not None and time.monotonic() < until:
            time.sleep(0.05)


def _tell(workspace: Workspace, made: Plan, leaving: dict[str, Container]) -> None:
    """Report what became of each volume and its container."""
    for doomed in made.backed_up:
        user = next(c for c in doomed.users if c.id in leaving)
        where = next(m.destination for m in user.mounts if m.name == doomed.name)
        if workspace.engine.docker.container(user.id) is not None:
            terminal.say(
                f"safe-compose: {user.name} runs on; when it ends, its volume {doomed.name}"
                f" ({where}) goes with it"
            )
        elif doomed.volume.in_memory:
            terminal.say(
                f"safe-compose: volume {doomed.name} of {user.name} ({where}) kept its content in"
                " memory: it ended with it"
            )
        elif workspace.engine.docker.volume(doomed.name) is None:
            terminal.say(f"safe-compose: volume {doomed.name} of {user.name} ({where}) is gone")
        else:
            terminal.say(
                f"safe-compose: kept what {user.name} had at {where} in volume {doomed.name}, which"
                f" nothing uses any more; to use it again: -v {doomed.name}:{where}"
            )
