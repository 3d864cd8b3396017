"""A person at a terminal: `safe-compose` under a pseudo terminal that is its controlling one."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pexpect
import pyte

PROGRAM = str(Path(sys.executable).with_name("safe-compose"))


class Person:
    """Types into and reads from one command."""

    def __init__(
        self,
        *argv: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        columns: int = 200,
        rows: int = 60,
    ) -> None:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), **(env or {})}
        self._screen = pyte.Screen(columns, rows)
        self._emulator = pyte.Stream(self._screen)
        self._child = pexpect.spawn(
            PROGRAM,
            list(argv),
            cwd=str(cwd),
            env=environment,
            encoding="utf-8",
            codec_errors="replace",  # Ctrl-C has the terminal drop what it holds, also in the middle of a character
            timeout=timeout,
            dimensions=(rows, columns),
        )
        self.glimpsed = ""
        """What `looks` took."""

    def sees(self, text: str) -> str:
        """Wait until `text` appears; what stood before it."""
        self._child.expect_exact(text)
        self._emulator.feed(f"{self._child.before}{self._child.after}")
        return str(self._child.before)

    def shows(self) -> list[str]:
        """The lines of the terminal after the last text that was waited for."""
        return [line.rstrip() for line in self._screen.display]

    def looks(self) -> None:
        """Take what stands on the terminal now. A program whose terminal nobody reads comes to a
        halt.
        """
        with suppress(pexpect.TIMEOUT, pexpect.EOF):
            self.glimpsed += self._child.read_nonblocking(1 << 16, timeout=0)

    def types(self, line: str) -> None:
        self._child.sendline(line)

    def types_bytes(self, some: bytes) -> None:
        os.write(self._child.child_fd, some)

    def presses(self, key: str) -> None:
        """A control key: `c` for Ctrl-C, `d` for Ctrl-D, `z` for Ctrl-Z."""
        self._child.sendcontrol(key)

    def dies(self) -> None:
        """Have the command killed, as by a lack of memory."""
        self._child.kill(signal.SIGKILL)
        self._child.wait()

    def leaves_with(self) -> int:
        """Wait for the end; the exit code, or minus the signal. `read_last_words` is what nobody
        waited for.
        """
        self.last_words = self.glimpsed + self._child.read()
        self._child.wait()
        return int(
            self._child.exitstatus
            if self._child.exitstatus is not None
            else -(self._child.signalstatus or 0)
        )

    def hangs_up(self) -> None:
        """Close the terminal, as a window or an ssh connection that goes away does."""
        self._child.ptyproc.fileobj.close()
        self._child.ptyproc.closed = self._child.closed = (
            True  # its own close() would send signals besides
        )
