"""Signals that end a command, also where Python drops the exception that they raise."""

import signal
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial

import pytest

from safe_compose.system.signals import (
    ENDING,
    Terminated,
    handle,
    raise_first,
    raise_swallowed,
    resend_dropped_signals,
)

LONG = 20.0
"""Seconds within which a signal comes."""


class Mark:
    """Something that a weak reference can be had of."""


def signal_amid_a_callback(number: int) -> None:
    """Get a signal where nobody gets its exception, as at the end of each import."""
    mark = Mark()
    reference = weakref.ref(mark, lambda _: signal.raise_signal(number))
    del mark
    assert reference() is None


@pytest.fixture(autouse=True)
def _restored() -> object:
    handlers = {number: signal.getsignal(number) for number in ENDING}
    hook = sys.unraisablehook
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    sys.unraisablehook = hook
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGTERM, Terminated),
        (signal.SIGHUP, Terminated),
    ],
)
def test_a_signal_whose_exception_is_dropped_raises_it_again(
    number: signal.Signals, raised: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    resend_dropped_signals()
    raise_first(partial(handle, ENDING))
    with pytest.raises(raised):
        signal_amid_a_callback(number)
        threading.Event().wait(LONG)
    signal.raise_signal(signal.SIGINT)  # an impatient second one interrupts no cleaning up
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGHUP, Terminated)]
)
def test_a_signal_that_a_library_swallowed_ends_the_command_before_the_question(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    raise_first(partial(handle, ENDING))
    raise_swallowed()  # none came
    with suppress(BaseException):
        signal.raise_signal(number)
    with pytest.raises(raised):
        raise_swallowed()
    raise_first(partial(handle, ENDING))
    raise_swallowed()


def test_a_ctrl_c_before_that_is_not_lost_either() -> None:
    resend_dropped_signals()
    with pytest.raises(KeyboardInterrupt):
        signal_amid_a_callback(signal.SIGINT)
        threading.Event().wait(LONG)


def test_other_exceptions_that_are_dropped_are_printed_as_ever() -> None:
    told = []
    sys.unraisablehook = told.append
    resend_dropped_signals()
    mark = Mark()
    reference = weakref.ref(mark, lambda _: 1 // 0)
    del mark
    assert reference() is None and [one.exc_type for one in told] == [ZeroDivisionError]
