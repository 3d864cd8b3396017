"""A program that is asked something, and answers while we go on."""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence

from safe_compose.compose.single_use import duplicate
from safe_compose.core.text import join_for_shell
from safe_compose.errors import DockerNotFound, EngineUnavailable
from safe_compose.system import children

PROBE_TIMEOUT = 60.0
"""Seconds for docker's own answers; ssh to a far host is slow, but a dead one must not hang a
deploy job for ever."""
_STANDARD = 2
"""The last descriptor that every child has of its own: stderr."""


class Probe:
    """A child process whose answer is collected later.

    It runs in its own session: a Ctrl-C at the terminal reaches only this process, and the child
    can never stop for the terminal.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        stdin: bytes | None = None,
        cwd: str | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start the child.

        Args:
            argv: The command.
            environ: Its environment.
            stdin: Bytes for its stdin; None: no input.
            cwd: Its folder; None: the current one.
            descriptors: Descriptors that are open in the child under the same numbers; each can be
                opened again (`single_use`).

        Raises:
            DockerNotFound: The command cannot be started.
        """
        self.argv = tuple(argv)
        self._stdin = stdin
        with contextlib.ExitStack() as opened:
            try:
                given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
                if 0 in descriptors and stdin is None:
                    given = duplicate(0)
                    opened.callback(os.close, given)
                self._child = children.start(
                    self.argv,
                    environ=dict(environ),
                    cwd=cwd,
                    stdin=given,
                    pass_fds=[n for n in descriptors if n > _STANDARD],
                )
            except OSError as error:
                raise DockerNotFound(
                    f"{self.argv[0]} cannot be started: {error.strerror}; nothing was looked at"
                ) from error

    def answer(self, timeout: float = PROBE_TIMEOUT) -> tuple[int, bytes, str]:
        """Return the child's exit code, stdout and stderr.

        On any exception, everything that the child started is ended too.

        Raises:
            EngineUnavailable: It took longer than `timeout` seconds, or printed without end.
        """
        try:
            stdout, stderr = children.finish(self._child, self._stdin, seconds=timeout)
        except subprocess.TimeoutExpired as error:
            raise EngineUnavailable(
                f"docker did not answer within {timeout:.0f} s; nothing was looked at",
                next_step="try `docker info` with the same flags",
            ) from error
        except children.TooMuch as error:
            raise EngineUnavailable(
                f"docker's answer to `{join_for_shell(self.argv[1:][-4:])}` does not end: {error};"
                " nothing was looked at",
                next_step="look at the compose files, and at what their variables hold",
            ) from error
        return self._child.returncode, stdout, stderr.decode("utf-8", "replace")

    def drop(self) -> None:
        """End the child, whose answer is not needed any more."""
        if self._child.poll() is None:
            children.end(self._child)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()
