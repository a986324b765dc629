"""A rate cap, in bytes a second."""

import asyncio
import time

from p2pmodel.origin.mirrors.pace import PullPace


async def test_without_a_bound_nobody_waits() -> None:
    for pace in (PullPace(), PullPace(0), PullPace(None)):
        assert pace.block == -1
        await pace.spend(1 << 40)


async def test_all_who_spend_share_it() -> None:
    pace = PullPace(100_000)
    began = time.monotonic()
    await asyncio.gather(*(pace.spend(5_000) for _ in range(4)))
    assert time.monotonic() - began >= 0.19


async def test_a_changed_bound_holds_for_those_who_wait() -> None:
    pace = PullPace(1)
    waiting = [asyncio.create_task(pace.spend(1 << 30)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    pace.change(0)
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
        await pace.spend(1 << 30)


async def test_who_waits_when_it_changes_waits_as_long_as_the_new_bound_says() -> None:
    pace = PullPace(10_000)
    began = time.monotonic()
    waiting = asyncio.gather(*(pace.spend(2_000) for _ in range(5)))
    await asyncio.sleep(0.01)
    for rate in (40_000, 30_000, 20_000):
        pace.change(rate)
    await waiting
    assert time.monotonic() - began >= 0.49
    assert pace.passed == 10_000


async def test_a_slow_pace_is_read_in_small_blocks_and_none_is_slower_than_a_kilobyte() -> None:
    assert PullPace(1 << 20).block == 1 << 17
    assert PullPace(1).block == 1 << 12
    began = time.monotonic()
    await PullPace(1).spend(100)
    assert 0.09 <= time.monotonic() - began < 50
