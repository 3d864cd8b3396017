"""A person at a terminal: `safe-compose` under a pseudo terminal that is its controlling one."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pexpect

PROGRAM = str(Path(sys.executable).with_name("safe-compose"))


class Person:
    """Types into and reads from one command."""

    def __init__(self, *argv: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120) -> None:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", **(env or {})}
        self._child = pexpect.spawn(
            PROGRAM,
            list(argv),
            cwd=str(cwd),
            env=environment,
            encoding="utf-8",
            codec_errors="replace",  # Ctrl-C has the terminal drop what it holds, also in the middle of a character
            timeout=timeout,
            dimensions=(60, 200),
        )
        self._glimpsed = ""

    def sees(self, text: str) -> str:
        """Wait until `text` appears; what stood before it."""
        self._child.expect_exact(text)
        return str(self._child.before)

    def looks(self) -> None:
        """Take what stands on the terminal now. A program whose terminal nobody reads comes to a halt."""
        with suppress(pexpect.TIMEOUT, pexpect.EOF):
            self._glimpsed += self._child.read_nonblocking(1 << 16, timeout=0)

    def types(self, line: str) -> None:
        self._child.sendline(line)

    def types_bytes(self, some: bytes) -> None:
        os.write(self._child.child_fd, some)

    def presses(self, key: str) -> None:
        """A control key: `c` for Ctrl-C, `d` for Ctrl-D, `z` for Ctrl-Z."""
        self._child.sendcontrol(key)

    def leaves_with(self) -> int:
        """Wait for the end; the exit code, or minus the signal. `last_words` is what nobody waited for."""
        self.last_words = self._glimpsed + self._child.read()
        self._child.wait()
        return int(self._child.exitstatus if self._child.exitstatus is not None else -(self._child.signalstatus or 0))

    def hangs_up(self) -> None:
        """Close the terminal, as a window or an ssh connection that goes away does."""
        self._child.ptyproc.fileobj.close()
        self._child.ptyproc.closed = self._child.closed = True  # its own close() would send signals besides
