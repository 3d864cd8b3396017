"""Several databases at the same time: each once, and the first fault ends the work on all."""

import threading
from collections.abc import Callable

import pytest

from safe_compose.databases.parallel import WorkQueue, work_through
from safe_compose.system.signals import Terminated


def test_each_item_is_worked_on_once() -> None:
    queue = WorkQueue(range(200))
    done: list[int] = []

    def work() -> None:
        done.extend(queue)

    def begin(start_other: Callable[[], None]) -> None:
        start_other()
        start_other()
        work()

    work_through(queue, begin, work)
    assert sorted(done) == list(range(200))


@pytest.mark.parametrize("own_fails", [True, False])
def test_the_first_fault_ends_what_runs_and_is_the_one_that_is_raised(own_fails: bool) -> None:
    queue = WorkQueue(["fails", "waits", "never begun"])
    begun: list[str] = []
    waiting, ended = threading.Event(), threading.Event()

    def wait() -> None:
        for item in queue:
            begun.append(item)
            with queue.ending_by(ended.set):
                waiting.set()
                assert ended.wait(20), "nobody ended it"
                raise RuntimeError("its client was killed")

    def fail() -> None:
        for item in queue:
            begun.append(item)
            assert waiting.wait(20)
            raise KeyboardInterrupt

    own, other = (fail, wait) if own_fails else (wait, fail)

    def begin(start_other: Callable[[], None]) -> None:
        start_other()
        own()

    with pytest.raises(KeyboardInterrupt):
        work_through(queue, begin, other)
    assert len(begun) == 2


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), Terminated(15)])
def test_a_signal_is_raised_also_after_another_fault(signal: BaseException) -> None:
    queue = WorkQueue(["own", "other"])
    failed = threading.Event()

    def fail() -> None:
        raise RuntimeError("Ctrl-C reached its client first")

    def begin(start_other: Callable[[], None]) -> None:
        with queue.ending_by(failed.set):
            start_other()
            assert failed.wait(20)
            raise signal

    with pytest.raises(type(signal)):
        work_through(queue, begin, fail)


def test_work_that_begins_as_a_fault_comes_is_ended_too() -> None:
    queue = WorkQueue[str](())
    queue.fail(ValueError("first"))
    queue.fail(ValueError("second"))
    ended: list[bool] = []
    with queue.ending_by(lambda: ended.append(True)):
        assert ended == [True]
    assert str(queue.fault) == "first"
    assert list(queue) == []
