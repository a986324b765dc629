"""A rate cap: how long to hold back after bytes have come."""

import asyncio
import time
from contextlib import suppress

_BLOCKS = 8
_SLOWEST = 1024


class PullPace:
    """Bounds bytes a second, over all connections that spend from it together. None, or 0, is no bound."""

    def __init__(self, rate: int | None = None) -> None:
        self._rate = max(rate, _SLOWEST) if rate else None
        self._level, self._as_of = 0.0, time.monotonic()
        """How many of the bytes that have passed fit the pace, and when that was."""
        self._changed = asyncio.Event()
        self.passed = 0
        """Bytes that have come."""

    @property
    def block(self) -> int:
        """Bytes to read at once at most, so that a slow pace is an even one; -1 for no bound."""
        return max(1 << 12, self._rate // _BLOCKS) if self._rate else -1

    def change(self, rate: int | None) -> None:
        """From now on this is the bound. Who holds back does so for as long as it says."""
        self._rise()
        self._rate = max(rate, _SLOWEST) if rate else None
        self._changed.set()
        self._changed = asyncio.Event()

    async def spend(self, count: int) -> None:
        """Return when `count` bytes that have come fit the pace."""
        self._rise()
        self.passed += count
        mine = self.passed
        while self._rate and (wait := (mine - self._level) / self._rate) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            self._rise()

    def _rise(self) -> None:
        now = time.monotonic()
        if self._rate is None:
            self._level = float(self.passed)
        else:
            self._level = min(float(self.passed), self._level + (now - self._as_of) * self._rate)
        self._as_of = now
