"""Work on several databases of one server at the same time; the first fault ends all of it."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


class WorkQueue(Generic[Item]):
    """The items that nobody has begun yet, and how to end the work on those that were begun."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Hold the items, in the order in which they are begun."""
        self._lock = threading.Lock()
        self._waiting = deque(items)
        self._aborts: dict[int, Callable[[], None]] = {}
        self.fault: BaseException | None = None
        """The first fault; no item is begun after it."""

    def __len__(self) -> int:
        """Return how many items nobody has begun yet."""
        with self._lock:
            return len(self._waiting)

    def __iter__(self) -> Iterator[Item]:
        """Yield items that no other thread gets, until there are none or a fault came."""
        while True:
            with self._lock:
                if self.fault is not None or not self._waiting:
                    return
                item = self._waiting.popleft()
            yield item

    @contextmanager
    def ending_by(self, abort: Callable[[], None]) -> Iterator[None]:
        """End the block's work with `abort` as soon as a fault comes anywhere else."""
        key = id(abort)
        with self._lock:
            self._aborts[key] = abort
            late = self.fault is not None
        if late:
            abort()
        try:
            yield
        finally:
            with self._lock:
                self._aborts.pop(key, None)

    def fail(self, fault: BaseException) -> None:
        """Keep the first fault, and end what runs."""
        with self._lock:
            if self.fault is not None:
                return
            self.fault = fault
            running = tuple(self._aborts.values())
        for abort in running:
            abort()


def work_through(
    queue: WorkQueue[Item], own: Callable[[Callable[[], None]], None], other: Callable[[], None]
) -> None:
    """Run `own` in this thread, which signals interrupt, and `other` beside it once that is asked.

    Both take their items from the queue. `own` gets a function that starts `other`, once.

    Raises:
        BaseException: The first fault of either, or a signal, once neither runs any more.
    """
    started: list[Future[None]] = []

    def run_other() -> None:
        try:
            other()
        except BaseException as fault:
            queue.fail(fault)
            raise

    with ThreadPoolExecutor(1, thread_name_prefix="databases") as pool:

        def start_other() -> None:
            if not started:
                started.append(pool.submit(run_other))

        try:
            own(start_other)
            for future in started:
                future.result()
        except BaseException as fault:
            queue.fail(fault)
            # A signal may have reached the other one's client first, and must not be lost.
            if queue.fault is fault or not isinstance(fault, Exception):
                raise
    if queue.fault is not None:
        raise queue.fault
