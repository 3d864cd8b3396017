"""Signals that end a command, and those that suspend it."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from safe_compose.system import children

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


class Terminated(BaseException):
    """A SIGTERM or SIGHUP that came before docker ran: clean up, then die by the same signal."""

    def __init__(self, number: int) -> None:
        """Keep the number of the signal."""
        super().__init__(number)
        self.number = number


def handle(numbers: Sequence[int], handler: Handler) -> None:
    """Handle these signals, except those that our parent process set to be ignored.

    Those (`nohup`, a background job) stay ignored for docker as well, which inherits that.
    """
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def die_by(number: int) -> NoReturn:
    """End by a signal as if it had never been caught, with every remaining child."""
    children.end_left()
    if number != signal.SIGKILL:  # SIGKILL has no other disposition, and setting it is an error
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # blocked by our parent: the shell's exit code for the signal


@contextmanager
def ignoring_signals() -> Iterator[list[int]]:
    """Ignore SIGINT, SIGTERM and SIGHUP in the block; yield those that come."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda came_now, _: came.append(came_now))
        for number in ENDING
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferring_signals() -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGHUP of the block after it, as one: the first that came."""
    with ignoring_signals() as came:
        yield
    if came:
        signal.raise_signal(came[0])
