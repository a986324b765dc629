"""Time as this room sees it, so that tests need not wait."""

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds that never go backwards."""
        return time.monotonic()

    def date(self) -> datetime:
        """Date and time in UTC, for headers that carry dates."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
