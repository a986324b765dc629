"""Work over many files on a few threads, counted, and stopped as a whole."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
Count = Callable[[int], None]
"""Takes the number of bytes done since the last call."""

MAX_JOBS = 16


class Stopped(BaseException):
    """Raised inside a worker when another has failed or the caller was interrupted; never leaves `in_parallel`."""


def default_jobs() -> int:
    """Threads to use: the cores this process may run on. Hashing releases the GIL, so threads do scale."""
    return min(MAX_JOBS, len(os.sched_getaffinity(0)))


def ignore(_count: int) -> None:
    """A Count that nobody looks at."""


def in_parallel(items: Iterable[T], work: Callable[[T, Count], None], jobs: int, on_bytes: Count = ignore) -> None:
    """Call `work(item, count)` for every item, `jobs` at a time; items are taken from the iterable as needed.

    Workers call `count(bytes)` often; it calls `on_bytes` from their threads, never twice at once. The first
    exception, of a worker, of `on_bytes` or a KeyboardInterrupt, stops all workers and is raised.
    """
    source = iter(items)
    guard = threading.Lock()
    stopped = threading.Event()

    def count(size: int) -> None:
        if stopped.is_set():
            raise Stopped
        with guard:
            on_bytes(size)

    def worker() -> None:
        while not stopped.is_set():
            with guard:
                item = next(source, None)
            if item is None:
                return
            work(item, count)

    with ThreadPoolExecutor(jobs, thread_name_prefix="p2pmodel-store") as pool:
        futures = [pool.submit(worker) for _ in range(jobs)]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            stopped.set()
