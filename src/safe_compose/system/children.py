"""Programs that we run: each is given up with everything that it has started.

Every program that is asked something runs in its own session, so that a Ctrl-C at the terminal
reaches only this process. `docker` starts further programs (compose, ssh), so giving one up ends
all of them, with `end`. Output is read up to a limit.

The first question to compose waits for the imports of this module, so it has few.
"""

import atexit
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

LARGEST_ANSWER = 32 << 20
"""Most bytes of stdout that are read of a program."""
_KEPT_WORDS = 64 << 10
"""Most bytes of its stderr that are kept; the rest is read and dropped."""
_GRACE = 10.0
"""Seconds that a program has to end by itself after a Ctrl-C."""
_PATIENCE = 1.0
"""Seconds to wait, after a program has ended, for its children to close its pipes."""
_alive: set["subprocess.Popen[bytes]"] = set()


class TooMuch(Exception):
    """An error about a program that printed too much and was ended."""


def start(
    argv: Sequence[str],
    *,
    environ: Mapping[bytes, bytes] | Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start a program in its own session that ends with this process.

    It is ended by `end`, at our exit, and when SIGTERM or SIGHUP ends us. `pass_fds` are
    descriptors that it has under the same numbers; closed ones are left out.

    Raises:
        OSError: The program cannot be started.
    """
    _end_with_us()
    child = subprocess.Popen(
        list(argv),
        env=environ,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        pass_fds=[number for number in pass_fds if _is_open(number)],
    )
    _alive.difference_update([c for c in _alive if c.returncode is not None])
    _alive.add(child)
    return child


def run(
    argv: Sequence[str],
    *,
    seconds: float,
    given: bytes | None = None,
    environ: Mapping[bytes, bytes] | Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stderr: int = subprocess.PIPE,
    largest: int = LARGEST_ANSWER,
) -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end and return its result; on an error, everything it started is ended.

    Raises:
        OSError: The program cannot be started.
        subprocess.TimeoutExpired: It took longer than `seconds`.
        TooMuch: It printed more than `largest` bytes.
    """
    stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
    child = start(argv, environ=environ, cwd=cwd, stdin=stdin, stderr=stderr)
    out, words = finish(child, given, seconds=seconds, largest=largest)
    return subprocess.CompletedProcess(child.args, child.returncode, out, words)


def run_shown(
    argv: Sequence[str],
    *,
    cwd: str | os.PathLike[str] | None,
    environ: Mapping[bytes, bytes] | Mapping[str, str],
) -> int:
    """Run a program whose output a person sees, with stdout on stderr, and return its exit code.

    It stays in our process group, so that the terminal's Ctrl-C reaches it; when this process ends
    in another way, it is ended with all its descendants.

    Raises:
        OSError: The program cannot be started.
    """
    child = subprocess.Popen(list(argv), cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=2)
    try:
        return child.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)  # it got the same Ctrl-C
        raise
    finally:
        if child.poll() is None:
            end(child)


def finish(
    child: "subprocess.Popen[bytes]",
    given: bytes | None = None,
    *,
    seconds: float,
    largest: int = LARGEST_ANSWER,
) -> tuple[bytes, bytes]:
    """Send a child of `start` its input, and return its stdout and the beginning of its stderr.

    On any exception, everything that it started is ended.

    Raises:
        subprocess.TimeoutExpired: It took longer than `seconds`.
        TooMuch: It printed more than `largest` bytes.
    """
    try:
        return _Exchange(child, given or b"", largest).run(time.monotonic() + seconds, seconds)
    except BaseException:
        end(child)
        raise
    finally:
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class _Exchange:
    """The input and output of a child, exchanged without waiting for a single one of its pipes."""

    def __init__(self, child: "subprocess.Popen[bytes]", given: bytes, largest: int) -> None:
        self._child = child
        self._left = memoryview(given)
        self._largest = largest
        self._out, self._words = bytearray(), bytearray()

    def run(self, until: float, seconds: float) -> tuple[bytes, bytes]:
        child, idle_since = self._child, None
        with selectors.DefaultSelector() as ready:
            self._register(ready)
            while ready.get_map():
                now = time.monotonic()
                if now > until:
                    raise subprocess.TimeoutExpired(child.args, seconds)
                events = ready.select(min(until - now, 0.2))
                if events:
                    idle_since = None
                elif child.poll() is not None:  # a descendant still holds its pipes
                    idle_since = idle_since or now
                    if now - idle_since > _PATIENCE:
                        break
                for key, _ in events:
                    if not self._handle(key):
                        ready.unregister(key.fileobj)
                        if key.fileobj is child.stdin:
                            with suppress(BrokenPipeError):
                                child.stdin.close()
        try:
            child.wait(max(0.0, until - time.monotonic()) + 0.1)
        except subprocess.TimeoutExpired:
            raise subprocess.TimeoutExpired(child.args, seconds) from None
        return bytes(self._out), bytes(self._words)

    def _register(self, ready: selectors.BaseSelector) -> None:
        child = self._child
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                ready.register(pipe, selectors.EVENT_READ)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            ready.register(child.stdin, selectors.EVENT_WRITE)

    def _handle(self, key: selectors.SelectorKey) -> bool:
        """Write to a pipe that is ready, or read from it; return whether more is to come."""
        if key.fileobj is self._child.stdin:
            if self._left:
                try:
                    self._left = self._left[os.write(key.fd, self._left[: 1 << 16]) :]
                except BrokenPipeError:  # nobody reads it
                    self._left = memoryview(b"")
            return bool(self._left)
        more = os.read(key.fd, 1 << 16)
        if key.fileobj is self._child.stdout:
            self._out += more
            if len(self._out) > self._largest:
                raise TooMuch(f"it printed more than {self._largest >> 20} MiB")
        else:
            self._words += more[: max(0, _KEPT_WORDS - len(self._words))]
        return bool(more)


def end(child: "subprocess.Popen[bytes]") -> None:
    """Kill a child and everything that it started, and wait for it.

    A program that has left both its session and its parents, as a daemon does, remains.
    """
    end_all(child.pid, reaped=child.poll() is not None)
    child.wait()
    _alive.discard(child)


def end_all(pid: int, *, reaped: bool = False) -> None:
    """Kill a process, its descendants, and the processes of its session.

    With `reaped` it has ended, and only the others may be left.
    """
    if sys.platform != "linux":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        return
    for _ in range(3):  # again for a process that was started in the meantime
        others = _list_descendants(pid)
        for one in (*others, *([] if reaped else [pid])):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(one, signal.SIGKILL)
        if not others:
            return


def _list_descendants(pid: int) -> list[int]:
    """Return the living descendants of a process, and those of the session that it leads."""
    parents: dict[int, int] = {}
    found: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        fields = read_stat(int(entry))
        if len(fields) < 4 or fields[0] in ("Z", "X"):
            continue  # it has ended in the meantime
        parents[int(entry)], session = int(fields[1]), fields[3]
        found += [int(entry)] if int(session) == pid != int(entry) else []
    todo = [*found] if pid not in parents else [pid, *found]
    while todo:
        above = todo.pop()
        fresh = [
            child for child, parent in parents.items() if parent == above and child not in found
        ]
        found += fresh
        todo += fresh
    return found


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _end_with_us() -> None:
    """End remaining children at our exit and by the signals that end us.

    Signals that are handled already are left alone.
    """
    atexit.unregister(end_left)
    atexit.register(end_left)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _die)


def end_left() -> None:
    """Kill the children of `start` that were not waited for."""
    for child in [*_alive]:
        if child.poll() is None:
            end(child)


def _die(number: int, _frame: object) -> None:
    end_left()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def hold_standard_descriptors() -> None:
    """Occupy closed standard descriptors, so that none of our files gets such a number.

    Messages would otherwise be written into it. /dev/null stays there until exec (it is not
    inherited), so docker finds the descriptors closed as we did.
    """
    while (held := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(held)


def read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on, all read at one moment."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return []  # no /proc, or the process has just ended: the caller then uses the number alone
    # The name is in parentheses and may hold blanks and parentheses itself; field 3 follows its
    # last `)`.
    return text.rpartition(")")[2].split()
