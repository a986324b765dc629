"""The clock of the origin; tests replace it to avoid real waits."""

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock."""

    def now(self) -> float:
        """Monotonic time in seconds."""
        return time.monotonic()

    def date(self) -> datetime:
        """Date and time in UTC, for headers that carry dates."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
