"""A rate cap: how long to hold back after bytes have come."""

import asyncio
import time

_BLOCKS = 8


class Pace:
    """Bounds one mirror's bytes a second, over all of its connections together. None is no bound."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._free_at = 0.0

    @property
    def block(self) -> int:
        """Bytes to read at once at most, so that a slow pace is an even one; -1 for no bound."""
        return max(1 << 12, self._rate // _BLOCKS) if self._rate else -1

    async def spend(self, count: int) -> None:
        """Return when `count` bytes that have come fit the pace."""
        if self._rate and count:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self._rate
            await asyncio.sleep(self._free_at - now)
