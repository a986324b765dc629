"""Pacing what a server sends, over all its connections together."""

import asyncio
import time
from collections.abc import Callable

UNLIMITED = 1 << 50
"""Bytes a second that no machine reaches."""


class SendPace:
    """At most `rate` bytes a second in all; senders are served in the order in which they ask."""

    def __init__(self, rate: int = UNLIMITED, *, clock: Callable[[], float] = time.monotonic) -> None:
        if rate < 1:
            raise ValueError("a rate is at least one byte a second")
        self.rate = rate
        self._clock = clock
        self._free_at = clock()
        self.passed = 0
        """Bytes that were to be sent so far."""

    def change(self, rate: int) -> None:
        """From now on this is the rate (0: no limit)."""
        self.rate = rate or UNLIMITED

    @property
    def slice(self) -> int:
        """Bytes to send in one go: a tenth of a second's worth."""
        return max(1, self.rate // 10)

    def reserve(self, count: int) -> float:
        """Seconds to wait before sending `count` bytes, which are then accounted for."""
        now = self._clock()
        self.passed += count
        start = max(now, self._free_at)
        self._free_at = start + count / self.rate
        return start - now

    async def turn(self, count: int) -> None:
        """Wait until `count` bytes may be sent."""
        delay = self.reserve(count)
        if delay > 0:
            await asyncio.sleep(delay)
