"""Bytes counted in threads. A thread cannot be cancelled, but its next count can end it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from p2pmodel.errors import Interrupted
from p2pmodel.node.reporter import Phase, Progress, Reporter

Count = Callable[[int], None]


@contextmanager
def stoppable(count: Count) -> Iterator[Count]:
    """`count` for work in threads; once the block is left, calling it raises Interrupted there.

    Without it a cancelled pass over 500 GB would go on to its end, and the process would wait for it.
    """
    stopped = False

    def counted(size: int) -> None:
        if stopped:
            raise Interrupted("stopped")
        count(size)

    try:
        yield counted
    finally:
        stopped = True


@contextmanager
def reported(reporter: Reporter, phase: Phase, total: int) -> Iterator[Count]:
    """A stoppable count whose sum is reported, on this event loop, as what is done of `total` bytes (0: unknown)."""
    loop = asyncio.get_running_loop()
    done = 0

    def add(size: int) -> None:
        nonlocal done
        done += size
        progress = Progress(phase, total, min(done, total) if total else done)
        loop.call_soon_threadsafe(reporter.progress, progress)

    with stoppable(add) as count:
        yield count
