"""Waits for a change: none is missed, and none is waited for twice."""

import asyncio

from p2pmodel.core.tasks import Version


async def test_a_change_before_the_wait_is_not_missed() -> None:
    version = Version()
    seen = version.value
    version.advance()
    assert await version.beyond(seen, timeout=0)


async def test_all_waiting_readers_wake() -> None:
    version = Version()
    waiting = [asyncio.create_task(version.beyond(0, timeout=5)) for _ in range(3)]
    await asyncio.sleep(0)
    version.advance()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert version.value == 1


async def test_the_wait_is_bounded() -> None:
    assert not await Version().beyond(0, timeout=0.01)
