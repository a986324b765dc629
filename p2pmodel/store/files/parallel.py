"""Work over many files on some threads, with a byte count, stopped as a whole."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from p2pmodel.core.content.layout import MIB

T = TypeVar("T")
Count = Callable[[int], None]
"""Takes the number of bytes done since the last call."""

MAX_JOBS = 16

COUNT_EVERY = 4 * MIB
"""Bytes between two calls of the caller's Count, which may wake an event loop: there are many chunks."""


class Stopped(BaseException):
    """Raised inside a worker when another has failed or the caller was interrupted; never leaves `in_parallel`."""


def default_jobs() -> int:
    """Threads to use: the cores this process may run on. Hashing releases the GIL, so threads scale."""
    return min(MAX_JOBS, len(os.sched_getaffinity(0)))


def ignore(_count: int) -> None:
    """A Count without effect."""


def in_parallel(items: Iterable[T], work: Callable[[T, Count], None], jobs: int, on_bytes: Count = ignore) -> None:
    """Call `work(item, count)` for every item, `jobs` at a time; items are taken from the iterable as needed.

    Workers call `count(bytes)` often; the sums go to `on_bytes`, every COUNT_EVERY bytes and at the end, from any
    thread but never twice at once. The first exception, of a worker, of `on_bytes` or a KeyboardInterrupt, stops
    all workers and is raised.
    """
    source = iter(items)
    counter = _Counter(on_bytes)
    guard = threading.Lock()

    def worker() -> None:
        while not counter.stopped.is_set():
            with guard:
                item = next(source, None)
            if item is None:
                return
            work(item, counter)

    with ThreadPoolExecutor(jobs, thread_name_prefix="p2pmodel-store") as pool:
        futures = [pool.submit(worker) for _ in range(jobs)]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            counter.stopped.set()
    counter.flush()


class _Counter:
    """The Count of the workers: adds up, and raises Stopped in them once `stopped` is set."""

    def __init__(self, on_bytes: Count) -> None:
        self.stopped = threading.Event()
        self._on_bytes = on_bytes
        self._guard = threading.Lock()
        self._unreported = 0

    def __call__(self, size: int) -> None:
        if self.stopped.is_set():
            raise Stopped
        with self._guard:
            self._unreported += size
            if self._unreported >= COUNT_EVERY:
                self._report()

    def flush(self) -> None:
        """Report the remaining bytes."""
        with self._guard:
            if self._unreported:
                self._report()

    def _report(self) -> None:
        size, self._unreported = self._unreported, 0
        self._on_bytes(size)
