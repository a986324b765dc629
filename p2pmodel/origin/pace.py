"""A rate cap: how long to hold back after bytes have come."""

import asyncio
import time
from contextlib import suppress

_BLOCKS = 8
_SLOWEST = 1024


class Pace:
    """Bounds bytes a second, over all connections that spend from it together. None, or 0, is no bound."""

    def __init__(self, rate: int | None = None) -> None:
        self._rate = max(rate, _SLOWEST) if rate else None
        self._free_at = 0.0
        self._changed = asyncio.Event()

    @property
    def block(self) -> int:
        """Bytes to read at once at most, so that a slow pace is an even one; -1 for no bound."""
        return max(1 << 12, self._rate // _BLOCKS) if self._rate else -1

    def change(self, rate: int | None) -> None:
        """From now on this is the bound. Who holds back does so no longer."""
        self._rate = max(rate, _SLOWEST) if rate else None
        self._free_at = 0.0
        self._changed.set()
        self._changed = asyncio.Event()

    async def spend(self, count: int) -> None:
        """Return when `count` bytes that have come fit the pace."""
        if self._rate and count:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self._rate
            with suppress(TimeoutError):
                async with asyncio.timeout(self._free_at - now):
                    await self._changed.wait()
