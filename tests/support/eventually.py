"""Waiting for another process or thread, bounded."""

import asyncio
import time
from collections.abc import Callable


async def eventually(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Return once `condition()` holds; AssertionError naming `what` after `seconds`. `condition` may block a little."""
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)
