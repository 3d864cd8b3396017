"""A change that is made completely or rolled back.

It is locked, journaled before its first step, and closed after its last.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safe_compose.errors import Interrupted
from safe_compose.grammar.parser import Invocation
from safe_compose.store.journal import CommandLine, Run
from safe_compose.system.signals import ignoring_signals
from safe_compose.ui import terminal

if TYPE_CHECKING:
    from safe_compose.workspace import Workspace


@contextmanager
def locking(
    workspace: "Workspace", projects: Collection[str], command: Sequence[str], *, wait: float
) -> Iterator[None]:
    """Hold the locks of projects on the engine of `workspace`.

    Args:
        workspace: The engine and the store.
        projects: The names of the projects.
        command: The holder's command, shown to those who wait; without the name of our program.
        wait: Seconds to wait for each lock.

    Raises:
        StateChanged: Another safe-compose holds one of them.
        OperationFailed: The store cannot be written.
    """
    workspace.catalogue.folder.ensure()
    words = ("safe-compose", *command)
    with ExitStack() as locks:
        for project in sorted(projects):  # in a fixed order, so two runs cannot wait for each other
            locks.enter_context(
                workspace.catalogue.folder.lock(
                    workspace.engine.id, project, wait=wait, command=words
                )
            )
        yield


def begin(
    workspace: "Workspace",
    command: Sequence[str],
    *,
    program: str = "safe-compose",
    globals_of: Invocation | None = None,
    project: str | None = None,
    run_id: str | None = None,
    **facts: object,
) -> Run:
    """Begin a run in the journal, on the engine of `workspace`.

    Args:
        workspace: The engine and the journal.
        command: The words of the command, without those before the verb.
        program: The program that the command names.
        globals_of: A command whose words before the verb are recorded too.
        project: The project that the run is about.
        run_id: The id of the run; by default that of `workspace`.
        facts: Further fields of its first line.

    Raises:
        OperationFailed: The journal cannot be written.
    """
    return workspace.journal.begin(
        run_id or workspace.run_id,
        CommandLine(
            command,
            program,
            docker_globals=globals_of.docker_globals if globals_of is not None else (),
            compose_globals=globals_of.compose_globals if globals_of is not None else (),
        ),
        project=project,
        cwd=None,
        endpoint=workspace.engine.endpoint,
        engine_id=workspace.engine.id,
        **facts,
    )


@dataclass(slots=True)
class Transaction:
    """A change in progress."""

    outcome: str = "nothing was changed"
    """The outcome that its run is closed with; if empty, the run stays open for `recover`."""


@contextmanager
def transaction(
    run: Run,
    take_back: Callable[[BaseException], str],
    *,
    leave: Callable[[], bool] = lambda: True,
    interrupted: str | None = None,
) -> Iterator[Transaction]:
    """Make a change in the block; a fault or a signal rolls it back.

    Args:
        run: The run that it is journaled to, which is closed in the end.
        take_back: Called after a fault, with signals ignored. It returns the outcome, which is
            empty when `recover` has to continue.
        leave: Called in every case afterwards, to start what was stopped. It returns False when the
            run has to stay open.
        interrupted: The message for Ctrl-C; by default it names the outcome.

    Raises:
        Interrupted: Ctrl-C. Every other fault of the block is raised as it is.
    """
    change = Transaction()
    # Until it is known, because a run whose rollback fails or never begins is for `recover`.
    outcome = ""
    try:
        yield change
        outcome = change.outcome
    except BaseException as fault:
        with ignoring_signals():
            outcome = take_back(fault)
        if isinstance(fault, KeyboardInterrupt):
            raise Interrupted(interrupted or f"interrupted: {outcome or 'see above'}") from fault
        raise
    finally:
        complete = leave()
        with terminal.reporting_only():  # no fault here hides an earlier one
            if complete and outcome:
                run.step("ended", outcome=outcome)
