"""Signals that end a command, and those that suspend it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from safe_compose.system import children

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

TYPE_CHECKING = False  # typing would cost 3 ms before compose is asked
if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from types import FrameType
    from typing import NoReturn

    Handler = Callable[[int, FrameType | None], object] | signal.Handlers
_SOON = 0.005
"""Seconds until a signal whose exception was dropped may be sent again."""


class Terminated(BaseException):
    """A SIGTERM or SIGHUP that came before docker ran: clean up, then die by the same signal."""

    def __init__(self, number: int) -> None:
        """Keep the number of the signal."""
        super().__init__(number)
        self.number = number


def handle(numbers: Sequence[int], handler: "Handler") -> None:
    """Handle these signals, except those that our parent process set to be ignored.

    Those (`nohup`, a background job) stay ignored for docker as well, which inherits that.
    """
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def raise_first(set_handler: "Callable[[Handler], object]") -> None:
    """Let the first SIGINT raise KeyboardInterrupt, and the first SIGTERM or SIGHUP Terminated.

    Those that follow change nothing: an impatient second Ctrl-C must not interrupt what unwinds.

    Args:
        set_handler: Sets a handler of all three signals.
    """

    def unwind(number: int, _frame: "FrameType | None") -> None:
        set_handler(lambda *_: None)
        _Dropped.raised = number
        _Dropped.set_again = lambda: set_handler(unwind)
        raise _make_exception(number)

    _Dropped.raised = None
    set_handler(unwind)


def raise_swallowed() -> None:
    """Raise once more what `raise_first` raised, where a library swallowed it.

    Some ignore every exception that comes while they are imported. Called before a question and
    before anything is stopped: nothing that unwinds comes there.

    Raises:
        KeyboardInterrupt: The signal was SIGINT.
        Terminated: It was another one.
    """
    if _Dropped.raised is not None:
        raise _make_exception(_Dropped.raised)


def _make_exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


class _Dropped:
    """The way in which a signal whose exception was dropped can raise one again."""

    raised: int | None = None
    """The first signal, once it raised an exception."""
    set_again: Callable[[], object] = staticmethod(lambda: None)
    is_handled = False
    """Whether the hook for dropped exceptions runs, which would drop the next one as well."""


def resend_dropped_signals() -> None:
    """From now on, send every signal again whose exception Python drops.

    Nobody gets an exception that a signal raises amid the callback of a weak reference (Python only
    prints it), and each import ends with such a callback: a Ctrl-C would be lost, and with
    `raise_first` every later one too.
    """
    hook = sys.unraisablehook

    def send_again(dropped: "UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt | Terminated):
            hook(dropped)
            return
        value = dropped.exc_value
        number = value.number if isinstance(value, Terminated) else signal.SIGINT
        _Dropped.is_handled = True
        threading.Thread(target=_send_later, args=(number,), daemon=True).start()
        _Dropped.set_again()
        _Dropped.is_handled = False

    sys.unraisablehook = send_again


def _send_later(number: int) -> None:
    while _Dropped.is_handled:
        time.sleep(_SOON)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def die_by(number: int) -> "NoReturn":
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
