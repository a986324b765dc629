"""Counts from threads: reported on the loop, and the way to stop those threads."""

import asyncio
import threading

import pytest

from p2pmodel.errors import Interrupted
from p2pmodel.node.reporter import Count, Progress, Reporter, reported, stoppable
from tests.support.eventually import PATIENCE
from tests.support.recording_reporter import RecordingReporter


def test_counts_pass_until_the_block_is_left() -> None:
    seen: list[int] = []
    with stoppable(seen.append) as count:
        count(1)
    with pytest.raises(Interrupted):
        count(2)
    assert seen == [1]


async def test_sums_are_reported_on_the_loop() -> None:
    seen: list[Progress] = []
    threads: set[int] = set()

    def see(progress: Progress) -> None:
        seen.append(progress)
        threads.add(threading.get_ident())

    with reported(RecordingReporter(see), "hashing", 10) as count:
        for size in (4, 5, 6):
            await asyncio.to_thread(count, size)
    await asyncio.sleep(0)
    assert [(p.phase, p.done, p.total) for p in seen] == [("hashing", 4, 10), ("hashing", 9, 10), ("hashing", 10, 10)]
    assert threads == {threading.get_ident()}


async def test_an_unknown_total_stays_unknown() -> None:
    seen: list[Progress] = []
    with reported(RecordingReporter(seen.append), "hashing", 0) as count:
        await asyncio.to_thread(count, 7)
    await asyncio.sleep(0)
    assert [(p.done, p.total) for p in seen] == [(7, 0)]


async def test_a_cancelled_pass_ends_at_its_next_count() -> None:
    ended = threading.Event()
    counted = threading.Semaphore(0)

    def work(count: Count) -> None:
        try:
            while counted.acquire(timeout=PATIENCE):
                count(1)
        except Interrupted:
            ended.set()

    async def run() -> None:
        with reported(Reporter(), "hashing", 100) as count:
            await asyncio.to_thread(work, count)

    task = asyncio.create_task(run())
    counted.release()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    counted.release()
    assert await asyncio.to_thread(ended.wait, 5)
