"""Pacing what a server sends, over all its connections together."""

import asyncio
import time
from collections.abc import Callable


class Pace:
    """At most `rate` bytes a second in all; senders are served in the order in which they ask."""

    def __init__(self, rate: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        if rate < 1:
            raise ValueError("a rate is at least one byte a second")
        self.rate = rate
        self._clock = clock
        self._free_at = clock()

    @property
    def slice(self) -> int:
        """Bytes to send in one go: a tenth of a second's worth."""
        return max(1, self.rate // 10)

    def reserve(self, count: int) -> float:
        """Seconds to wait before sending `count` bytes, which are then accounted for."""
        now = self._clock()
        start = max(now, self._free_at)
        self._free_at = start + count / self.rate
        return start - now

    async def turn(self, count: int) -> None:
        """Wait until `count` bytes may be sent."""
        delay = self.reserve(count)
        if delay > 0:
            await asyncio.sleep(delay)
