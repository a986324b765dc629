"""A limit in bytes a second, for received and for sent bytes."""

import asyncio
import time
from collections.abc import Coroutine

from p2pmodel.core.pace import CounterRate, Pace
from tests.support.eventually import PATIENCE


async def test_without_a_bound_no_call_waits() -> None:
    for pace in (Pace(), Pace(0), Pace(None)):
        assert pace.block > 1 << 40
        await pace.spend(1 << 40)


async def test_all_calls_share_the_rate() -> None:
    pace = Pace(100_000)
    began = time.monotonic()
    await asyncio.gather(*(pace.spend(5_000) for _ in range(4)))
    assert time.monotonic() - began >= 0.19


async def test_a_changed_rate_applies_to_waiting_calls() -> None:
    pace = Pace(1)
    waiting = [asyncio.create_task(pace.spend(1 << 30)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    pace.change(0)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*waiting)
        await pace.spend(1 << 30)


async def test_a_waiting_call_waits_as_long_as_the_new_rate_requires() -> None:
    pace = Pace(10_000)
    began = time.monotonic()
    waiting = asyncio.gather(*(pace.spend(2_000) for _ in range(5)))
    await asyncio.sleep(0.01)
    for rate in (40_000, 30_000, 20_000):
        pace.change(rate)
    await waiting
    assert time.monotonic() - began >= 0.49
    assert pace.passed == 10_000


async def test_a_slow_pace_is_read_in_small_blocks_and_none_is_slower_than_a_kilobyte() -> None:
    assert Pace(1 << 20).block == 1 << 17
    assert Pace(1).block == 1 << 12
    began = time.monotonic()
    await Pace(1).spend(100)
    assert time.monotonic() - began >= 0.09


async def test_the_first_bytes_are_sent_at_once_and_later_ones_after_those_before_them() -> None:
    pace, began = Pace(100_000), time.monotonic()
    assert returns_at_once(pace.reserve(5_000))
    await pace.reserve(5_000)
    assert time.monotonic() - began >= 0.049
    await pace.reserve(1)
    assert time.monotonic() - began >= 0.099
    await asyncio.sleep(0.01)
    assert returns_at_once(pace.reserve(1)), "unused time gives no burst, but no wait either"
    assert pace.passed == 10_002


def returns_at_once(call: Coroutine[object, None, None]) -> bool:
    """Whether `call` ends without a wait."""
    try:
        call.send(None)
    except StopIteration:
        return True
    call.close()
    return False


async def test_a_pace_within_another_obeys_both_and_counts_in_both() -> None:
    whole = Pace(100_000)
    first, second = Pace(1_000_000, within=whole), Pace(within=whole)
    began = time.monotonic()
    await asyncio.gather(first.spend(20_000), second.spend(20_000))
    assert time.monotonic() - began >= 0.3
    assert (first.passed, second.passed, whole.passed) == (20_000, 20_000, 40_000)
    assert first.block == second.block == whole.block < Pace(1_000_000).block


def test_the_rate_of_a_counter_that_is_read_every_second():
    now = [0.0]
    rate = CounterRate(lambda: now[0])
    said = []
    for count in (0, 0, 0, 1000, 2000, 3000, 4000, 4000, 4000, 4000, 4000):
        rate.read(count)
        said.append(rate.value())
        now[0] += 1.0
    assert said == [0, 0, 0, 1000, 1000, 1000, 1000, 666, 333, 0, 0], "right from the first second of bytes on"


def test_the_rate_of_a_counter_falls_without_reads_and_survives_a_new_beginning():
    now = [0.0]
    rate = CounterRate(lambda: now[0])
    for count in (0, 1000, 2000):
        rate.read(count)
        now[0] += 1.0
    assert rate.value() == 1000
    now[0] += 8.0
    assert rate.value() == 181
    rate.read(10)
    assert rate.value() == 0


async def test_bytes_without_a_wait_have_used_the_rate():
    shared = Pace(100_000)
    one, other = Pace(None, within=shared), Pace(None, within=shared)
    began = time.monotonic()
    one.take(20_000)
    assert shared.passed == one.passed == 20_000
    await other.spend(10_000)
    assert time.monotonic() - began >= 0.25
