"""Byte streams through the real docker binary.

It half-closes on every transport, docker-py does not (dependencies.md 2.1). Each client runs in its
own session, so that a Ctrl-C at the terminal reaches only this process, which then ends the client
and removes its container.
"""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO

from safe_compose.core.text import join_lines
from safe_compose.engine.named_pipe import AT, Ending, NeverOpened, Pipe, never_end
from safe_compose.errors import OperationFailed
from safe_compose.system import children

TAIL = 8192
"""Most bytes of stderr that are kept."""
CHUNK = 256 * 1024
_NOT_STARTED = (125, 126, 127)
"""Exit codes of `docker run` when the container, or the program in it, could not be started."""


class HelperFailed(OperationFailed):
    """An error about a helper container, or a command in a container, that did not end with 0."""

    def __init__(self, what: str, returncode: int, stderr: str) -> None:
        """Describe the failure by the last lines of stderr."""
        last = join_lines(stderr.splitlines())
        gone = "No such image" in stderr  # a prune removed it after it had been found
        super().__init__(
            f"{what} failed ({returncode}){': ' + last if last else ''}",
            next_step="repeat the command when nothing prunes images any more" if gone else None,
        )
        self.returncode = returncode
        """The exit code of docker: 125 when docker could not start the container, 126 or 127 when
        the program could not be started; otherwise that of the program."""
        self.stderr = stderr
        """The last 8 KiB of stderr."""


class Stream:
    """The running client of a helper or an exec."""

    def __init__(
        self,
        stdout: IO[bytes],
        stdin: IO[bytes] | None,
        name: str,
        what: str,
        abort: Callable[[], None],
    ) -> None:
        """Hold the ends of a running client; `abort` kills it."""
        self.stdout = stdout
        self.stdin = stdin
        """Writable when `stdin=subprocess.PIPE` was given; closing it ends the program's input."""
        self.name = name
        """The name of the container."""
        self.what = what
        """The client, for messages."""
        self.abort = abort
        """Kills the container, then the client; leaving the block then raises."""
        self.warnings = ""
        """After the block, the end of the stderr of a program that ended with 0."""


@dataclass(frozen=True, kw_only=True)
class ClientRun:
    """A docker client to be run."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    what: str
    """The client, for messages."""
    name: str
    """The name of its container."""
    clean: Callable[[], None]
    """Removes its container."""
    stdin: IO[bytes] | int | None = None
    """Its input. None: none; `subprocess.PIPE`: written by the block; a file: copied to it by a
    thread."""
    discard: bool = False
    """Whether its stdout is discarded."""
    pipe: Pipe | None = None
    """The pipe for its bytes; `stdin` determines the direction."""
    patience: float | None = None
    """Seconds within which its container must open the pipe."""
    ending: Ending = never_end
    """Entered while its container has not opened the pipe yet."""


@contextmanager
def running_client(run: ClientRun) -> Iterator[Stream]:
    """Run one docker client during the block.

    Leaving the block normally ends the client's input and waits for its exit. On any exception,
    Ctrl-C included, the client is killed first (a terminated one would still wait for its
    container) and `clean` is called. The name of a pipe is removed.

    Raises:
        HelperFailed: The client did not exit with 0.
        NeverOpened: The container did not open the pipe in time. No byte was read or requested.
    """
    running = _Running(run)
    try:
        running.open()
        opened = Stream(running.stdout, running.stdin, run.name, run.what, running.abort)
        yield opened
        opened.warnings = running.finish()
    except BaseException:
        running.give_up()
        raise
    finally:
        running.close()


def read_whole(
    stream: AbstractContextManager[Stream],
    *,
    timeout: float | None = None,
    limit: int | None = None,
) -> bytes:
    """Run a client to its end and return its whole stdout.

    Raises:
        HelperFailed: It did not end with 0 within `timeout` seconds and `limit` bytes.
    """
    with stream as running:
        late = threading.Event()

        def end() -> None:
            late.set()
            running.abort()

        timer = threading.Timer(timeout, end) if timeout is not None else None
        if timer is not None:
            timer.start()
        try:
            out = running.stdout.read(-1 if limit is None else limit + 1)
        finally:
            if timer is not None:
                timer.cancel()
        if late.is_set():
            raise HelperFailed(f"{running.what}, after {timeout:g} s,", -1, "")
        if limit is not None and len(out) > limit:
            raise HelperFailed(f"{running.what}, after {limit} bytes of output,", -1, "")
        return out


class _Running:
    """The process of one client, with the threads that feed and drain it."""

    def __init__(self, run: ClientRun) -> None:
        """Start the client."""
        self._run = run
        self._attached = None if run.pipe is not None else run.stdin
        given = subprocess.DEVNULL if self._attached is None else subprocess.PIPE
        self._child = children.start(run.argv, environ=dict(run.environ), stdin=given)
        assert self._child.stdout is not None
        self.stdout: IO[bytes] = self._child.stdout
        self.stdin: IO[bytes] | None = self._child.stdin
        self._tail = bytearray()
        self._faults: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def abort(self) -> None:
        """Kill the container, then the client."""
        # The container first: if the client ended first, the program would take that for the end of
        # its input.
        self._run.clean()
        # also its ssh, if it connects through one
        children.end_all(self._child.pid, reaped=self._child.poll() is not None)

    def open(self) -> None:
        """Start the threads, and open the pipe if there is one.

        Raises:
            NeverOpened: The container did not open the pipe in time.
            HelperFailed: The program ended with an error of its own before that.
        """
        child = self._child
        self._threads = [
            threading.Thread(target=_keep_tail, args=(child.stderr, self._tail), daemon=True)
        ]
        if self._attached is not None and not isinstance(self._attached, int):
            given = (self._attached, child.stdin, self._faults, self.abort)
            self._threads.append(threading.Thread(target=_feed, args=given, daemon=True))
        if self._run.discard or self._run.pipe is not None:
            self._threads.append(
                threading.Thread(target=_discard, args=(child.stdout,), daemon=True)
            )
        for thread in self._threads:
            thread.start()
        if self._run.pipe is not None:
            self._open_pipe(self._run.pipe)

    def _open_pipe(self, pipe: Pipe) -> None:
        child = self._child
        try:
            with self._run.ending(self.abort):
                if self._run.stdin is None:
                    self.stdout = pipe.reader(lambda: child.poll() is not None, self._run.patience)
                else:
                    self.stdin = pipe.writer(lambda: child.poll() is not None, self._run.patience)
        except NeverOpened:
            if child.poll() is None or child.returncode in (0, *_NOT_STARTED):
                raise
            self._threads[0].join()
            if AT.encode() in self._tail:
                raise
            raise HelperFailed(self._run.what, child.returncode, self._read_tail()) from None
        finally:
            pipe.remove()

    def _read_tail(self) -> str:
        return bytes(self._tail).decode("utf-8", "replace")

    def finish(self) -> str:
        """End the client's input, wait for its exit, and return the end of its stderr.

        Exceptions of the source of its input are raised again.

        Raises:
            HelperFailed: The client did not exit with 0, or wrote after the end of its output.
        """
        if self._run.stdin == subprocess.PIPE and self.stdin is not None:
            # the exit code, read next, tells why a program has ended
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
        piped = self.stdout is not self._child.stdout
        unread = (
            not self.stdout.closed and (piped or not self._run.discard) and _discard(self.stdout)
        )
        code = self._child.wait()
        for thread in self._threads:
            thread.join()
        if self._faults:
            raise self._faults[0]
        if code:
            raise HelperFailed(self._run.what, code, self._read_tail())
        if piped and (unread or self.stdout.read(1)):
            raise HelperFailed(
                self._run.what, code, "it went on writing after the end of its output"
            )
        return self._read_tail().strip()

    def give_up(self) -> None:
        """Kill the client, and remove its container."""
        if self._child.poll() is None:
            # Nothing blocks the daemon when a pipe is used: a killed program leaves it at once.
            if (
                self.stdout is self._child.stdout
                and not self._run.discard
                and not self.stdout.closed
            ):
                # If nothing reads, the engine waits for the client to take the rest, and a removal
                # waits for the engine.
                threading.Thread(target=_discard, args=(self.stdout,), daemon=True).start()
            self.abort()
            self._child.wait()
        self._run.clean()  # again: the client may have been about to create the container

    def close(self) -> None:
        """Close the ends of the client that are still open."""
        for end in (
            self.stdin,
            self.stdout,
            self._child.stdin,
            self._child.stdout,
            self._child.stderr,
        ):
            if end is not None:
                with contextlib.suppress(BrokenPipeError):
                    end.close()


def _keep_tail(source: IO[bytes], tail: bytearray) -> None:
    # a pipe of Popen is a BufferedReader
    while chunk := source.read1(CHUNK):  # type: ignore[attr-defined]
        tail += chunk
        del tail[:-TAIL]


def _discard(source: IO[bytes]) -> bool:
    """Read to the end; return whether there was anything."""
    found = False
    with contextlib.suppress(ValueError):  # closed in the meantime: the client was given up
        while source.read(CHUNK):
            found = True
    return found


def _feed(
    source: IO[bytes], target: IO[bytes], faults: list[BaseException], abort: Callable[[], None]
) -> None:
    """Copy `source` to the client.

    An error of the source fails the stream, so that the program never sees an early end.
    """
    try:
        while chunk := source.read(CHUNK):
            target.write(chunk)
        target.close()
    except BrokenPipeError:
        return  # the program has ended; its exit code tells why
    # raised again by `running_client`, in the caller's thread
    except Exception as error:  # noqa: BLE001
        faults.append(error)
        abort()
