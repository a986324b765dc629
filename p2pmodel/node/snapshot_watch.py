"""Compare the files of a node's complete transfers with the records, so that reports about them are current.

Only sizes, times and inodes are compared. Large caches take longer, and are compared less often.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from p2pmodel.core.tasks import SingleFlight

LOOK_EVERY = 5.0
"""Seconds between two comparisons while no client asks."""
SHARE = 0.05
"""Most of the time that may be spent on comparisons: the result of one is used again for as long as this requires, 20
times its duration."""


class SnapshotWatch:
    """`look` compares by `compare`, unless a result is recent enough. `run` does it all the time."""

    def __init__(self, compare: Callable[[], Awaitable[None]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._compare = compare
        self._clock = clock
        self._valid_until = clock()
        self._looking: SingleFlight[None, None] = SingleFlight()

    async def look(self) -> None:
        """Return once the result of a recent comparison is known."""
        if self._clock() >= self._valid_until:
            await self._looking.join(None, self._look)

    async def run(self) -> None:
        """Look every `LOOK_EVERY` seconds until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_EVERY)
        finally:
            await self._looking.close()

    async def _look(self) -> None:
        began = self._clock()
        await self._compare()
        ended = self._clock()
        self._valid_until = ended + (ended - began) / SHARE
