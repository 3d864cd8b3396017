"""Client programs of a running server: run to their end, streamed, or kept open as a session.

A program runs in a side container of the service's own image that shares its network, once that is
verified to reach the same server. Otherwise it runs by exec as a single program, never as a shell
in the service's container.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import IO, ClassVar, Self, TypeVar

from safe_compose.core.quantities import count
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import Stream
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.named_pipe import Ending, never_end
from safe_compose.errors import OperationFailed

ANSWER_LIMIT = 64 << 20
"""Largest size of one answer in bytes: the names of some 400,000 tables."""
ASK_TIMEOUT = 60.0
"""Time limit in seconds for one small question."""
QUESTION_SECONDS = 600.0
"""Time limit in seconds for one question about a whole database in a session; small ones have less.
"""
COUNT_SECONDS = 24 * 3600.0
"""Time limit in seconds for all counts of one database. They take as long as reading it, so this
ends only what would never end.
"""


@dataclass(frozen=True, slots=True)
class Client:
    """A connection to one server, with which client programs of its image are run."""

    engine: Engine = field(repr=False, compare=False)
    container: str
    """The container's id."""
    image: str
    """The id of its image, from which side containers are made."""
    side: bool = field(default=False, kw_only=True)
    """Connect by a side container over 127.0.0.1, otherwise by exec over the socket."""
    VARIABLES: ClassVar[Mapping[str, str]] = {}
    """Variables in the environment of every program."""

    @property
    def words(self) -> str:
        """Name of the connection in the record of a backup."""
        return "side container" if self.side else "exec"

    def by_exec(self) -> Self:
        """Return the connection for small questions.

        Running a single program takes a third of the time of a container.
        """
        return replace(self, side=False)

    def exec_user(self) -> str | None:
        """Return the user of an exec; None for the container's own user."""
        return None

    def secrets(self) -> Mapping[str, str]:
        """Return the variables that let a program in, read again for each call.

        Raises:
            HelperFailed: A file with a password cannot be read.
        """
        return {}

    def run(
        self, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float | None = None
    ) -> bytes:
        """Run a program and return its output.

        Raises:
            HelperFailed: The program failed.
        """
        given = {**self.VARIABLES, **self.secrets()}
        if self.side:
            helper = self._helper(argv, given)
            return self.engine.helpers.run(helper, stdin=stdin, timeout=timeout, limit=ANSWER_LIMIT)
        return self.engine.helpers.execute(
            self.container,
            tuple(argv),
            stdin=stdin,
            user=self.exec_user(),
            environment=given,
            timeout=timeout,
            limit=ANSWER_LIMIT,
        )

    @contextmanager
    def stream(
        self,
        argv: Sequence[str],
        *,
        piped: Sequence[str] = (),
        ending: Ending = never_end,
        stdin: int | None = None,
        discard: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Stream]:
        """Run a program for a block that reads and writes its streams.

        Args:
            argv: The program and its arguments.
            piped: Arguments for a Helper with pipes, for a side container only.
            ending: Entered until that program opens its pipe; see `Helper`.
            stdin: See `engine.helpers.stream`.
            discard: Drop the program's stdout.
            environment: Variables that let it in, instead of `secrets`.

        Raises:
            HelperFailed: At the end of the block, unless the program exits with 0.
        """
        given = {**self.VARIABLES, **(environment or self.secrets())}
        if self.side:
            with self.engine.helpers.stream(
                self._helper(argv, given, piped, ending), stdin=stdin, discard=discard
            ) as opened:
                yield opened
            return
        with self.engine.helpers.execute_stream(
            self.container,
            tuple(argv),
            stdin=stdin,
            user=self.exec_user(),
            environment=given,
            discard=discard,
        ) as opened:
            yield opened

    def _helper(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        piped: Sequence[str] = (),
        ending: Ending = never_end,
    ) -> Helper:
        return Helper(
            image=self.image,
            argv=tuple(argv),
            piped=tuple(piped),
            network=f"container:{self.container}",
            environment=environment,
            ending=ending,
        )


class SessionEnded(Exception):
    """The client ended too early; its exit code and output come with the end of the stream."""


class ClientSession:
    """A session with a client over its stdin and stdout.

    It exists because starting a program costs more than most answers.
    """

    def __init__(self, opened: Stream) -> None:
        """Begin a session over the streams of a running client."""
        self._opened = opened
        self._answered = f"answered {secrets.token_hex(16)}"
        """The line after each answer: it is random, so that no answer or name can look like it."""

    def abort(self) -> None:
        """Kill the client; the block of the session then raises."""
        self._opened.abort()

    def send(self, script: str) -> None:
        """Send statements.

        Raises:
            SessionEnded: The client ended.
        """
        stdin = _pipe(self._opened)
        try:
            stdin.write(f"{script}\nSELECT '{self._answered}';\n".encode())
            stdin.flush()
        except BrokenPipeError as error:
            raise SessionEnded from error

    def lines(self, server: str, *, most: int | None = None) -> Iterator[bytes]:
        """Yield the lines that answer what was sent, without their line ends.

        Args:
            server: Name of the server in a fault.
            most: Largest size of the whole answer in bytes; None limits only each line.

        Raises:
            SessionEnded: The client ended.
            OperationFailed: The answer is too long.
        """
        left, answered = most, self._answered.encode()
        while line := self._opened.stdout.readline(ANSWER_LIMIT if left is None else left):
            if left is not None:
                left -= len(line)
            if len(line) == ANSWER_LIMIT or left == 0:
                raise OperationFailed(f"{server} answered with more than {ANSWER_LIMIT >> 20} MiB")
            line = line.removesuffix(b"\n")
            if line == answered:
                return
            yield line
        raise SessionEnded

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """Limit the time of a block.

        Raises:
            OperationFailed: The time is over.
        """
        return limiting(self._opened, seconds)


Opened = TypeVar("Opened", bound=ClientSession)


@contextmanager
def open_session(
    started: AbstractContextManager[Stream], begin: Callable[[Stream], Opened], ended: str
) -> Iterator[Opened]:
    """Open a session for the length of a block.

    `ended` is the message if the client ended too early.

    Raises:
        HelperFailed: The client failed; the message is its output.
        OperationFailed: The client ended too early without a failure.
    """
    over: SessionEnded | None = None
    with started as opened:
        try:
            yield begin(opened)
        except SessionEnded as error:
            over = error
        with suppress(BrokenPipeError):  # it has ended; its exit code shows how
            _pipe(opened).close()
    if over is not None:
        raise OperationFailed(ended) from over


def _pipe(opened: Stream) -> IO[bytes]:
    if opened.stdin is None:
        raise TypeError("the client was started without stdin")
    return opened.stdin


@contextmanager
def limiting(opened: Stream, seconds: float) -> Iterator[None]:
    """Kill the client of a block after `seconds`.

    Raises:
        OperationFailed: The time is over.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        opened.abort()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BaseException as error:
        if late.is_set():
            raise OperationFailed(f"{opened.what} did not answer within {seconds:.0f} s") from error
        raise
    finally:
        timer.cancel()


def ask_timeout() -> float:
    """Return the time limit of one small question in seconds.

    Callers use it that have no limit for several questions together.
    """
    return ASK_TIMEOUT


def time_left(subject: str, seconds: float) -> Callable[[], float]:
    """Return a function that returns how many of these seconds are left.

    It raises ServerUnreachable when none are left.
    """
    until = time.monotonic() + seconds

    def left() -> float:
        if (more := until - time.monotonic()) <= 0:
            raise ServerUnreachable(f"container {subject}: its server did not answer in time")
        return more

    return left


def summary_words(title: str, databases: int, tables: int, rows: int) -> str:
    """Format a summary, as in `PostgreSQL 15.18, 3 databases, 41 tables, about 1.2 M rows`."""
    return (
        f"{title}, {count(databases, 'database')}, {count(tables, 'table')},"
        f" about {_short(rows)} {'row' if rows == 1 else 'rows'}"
    )


def _short(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= 10 * size or (number >= size and unit != "k"):
            return f"{number / size:.1f} {unit}"
    return f"{number:,}"
