"""Waiting for another process, thread or task, bounded."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which what a test waits for counts as hanging: many times what any of it takes on a slow machine.

The only bound of a wait in the tests, and no limit under test is near it. That something is quick shows in another way:
what it must not wait for takes longer than this, or never comes.
"""


async def eventually(condition: Callable[[], bool], *, what: str) -> None:
    """Return once `condition()` holds; AssertionError naming `what` if it does not. `condition` may block a little."""
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        await asyncio.sleep(0.05)
