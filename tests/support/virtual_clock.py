"""A clock for the origin that sleeps without waiting."""

import asyncio
from datetime import UTC, datetime

from p2pmodel.origin.clock import Clock


class VirtualClock(Clock):
    """Starts at 1000 s; `sleep` moves it on at once. `slept` lists what was slept."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def date(self) -> datetime:
        # The calendar is fixed, so that the dates of a fake hub stay valid.
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.time + seconds
        await asyncio.sleep(0)
        self.time = max(self.time, until)
