"""The real docker as a child process that behaves as if it had been started directly."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from safe_compose.errors import DockerNotFound
from safe_compose.fastpath import launch
from safe_compose.grammar.parser import Invocation
from safe_compose.system.signals import ENDING, STOPPING, Terminated, handle
from safe_compose.workspace import Workspace


class _Relay:
    """A set of signal handlers for the time while docker runs.

    The terminal sends INT and QUIT to docker itself; TERM and HUP are passed on. The terminal's
    stop signals do not stop us, but docker's own stop does (`_wait`); otherwise `fg` would find us
    stopped twice.

    These are handlers, not SIG_IGN, so that exec gives docker the default dispositions. They are
    never restored: once docker ran, only the report is left, and it must not be interrupted.
    """

    def __init__(self) -> None:
        """Install the handlers; signals are collected until docker starts."""
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        handle((*ENDING, *STOPPING, signal.SIGQUIT), self._on)

    def _on(self, number: int, _frame: FrameType | None) -> None:
        if self._child is None:
            self._early += [number] if number not in STOPPING else []
        elif number in (signal.SIGTERM, signal.SIGHUP) and self._child.returncode is None:
            # Not send_signal: its poll() would take the exit status from `_wait`.
            os.kill(self._child.pid, number)

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[bytes, bytes],
        stdin: IO[bytes] | None,
        started: Callable[[int], None] | None,
    ) -> "subprocess.Popen[bytes]":
        """Start docker, and pass on the signals that come while it starts.

        Args:
            argv: The program and its arguments.
            environment: Its environment.
            stdin: Its stdin; None to inherit ours.
            started: Called with its process id.

        Raises:
            KeyboardInterrupt: SIGINT or SIGQUIT came before; docker was not started.
            Terminated: Another signal came before; docker was not started.
            DockerNotFound: It does not start.
        """
        if self._early:  # the last moment at which nothing has happened yet
            raise (
                KeyboardInterrupt
                if self._early[0] in (signal.SIGINT, signal.SIGQUIT)
                else Terminated(self._early[0])
            )
        try:
            with _restoring_signals():
                self._child = subprocess.Popen(
                    argv,
                    stdin=stdin,
                    env=environment,
                    close_fds=False,
                    restore_signals=not launch.LaunchContext.ignored,
                )
        except OSError as error:
            raise DockerNotFound(
                f"{argv[0]} does not start: {error.strerror}", next_step="set SAFE_COMPOSE_DOCKER"
            ) from error
        for number in self._early:
            self._on(number, None)
        if started is not None:
            started(self._child.pid)
        return self._child


@contextmanager
def _restoring_signals() -> Iterator[None]:
    """Leave the signals that Python ignores as they came to us, for a child that starts inside.

    subprocess itself can only set all of them to their default.
    """
    restored = launch.list_signals_to_restore() if launch.LaunchContext.ignored else []
    for number in restored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in restored:
            signal.signal(number, signal.SIG_IGN)


def run_docker(
    workspace: Workspace, invocation: Invocation, started: Callable[[int], None] | None = None
) -> int:
    """Run the real docker as a child and return its exit code.

    It is in our process group and inherits everything. When it is stopped (Ctrl-Z), we stop as
    well.

    Args:
        workspace: The workspace that names docker.
        invocation: The command.
        started: Called with the process id.

    Returns:
        The exit code; minus N when it died by signal N.

    Raises:
        DockerNotFound: It does not start.
    """
    with _replaying(workspace.stdin) as stdin:
        code = _wait(
            _Relay().start(
                [workspace.docker, *invocation.argv],
                launch.make_guarded_environment(),
                stdin,
                started,
            )
        )
    handle(STOPPING, signal.SIG_DFL)
    return code


def _wait(child: "subprocess.Popen[bytes]") -> int:
    while True:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode
        os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def _replaying(data: bytes | None) -> Iterator[IO[bytes] | None]:
    if data is None:
        yield None
        return
    import tempfile

    with tempfile.TemporaryFile() as again:
        again.write(data)
        again.seek(0)
        yield again
