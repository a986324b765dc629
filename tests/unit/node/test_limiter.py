"""Limits that follow the clock: applied when they change, and only then."""

import asyncio
from datetime import UTC, datetime

import pytest

from p2pmodel.config.time_windows import Schedule
from p2pmodel.core.progress.views import LimitsView, RateLimits
from p2pmodel.node.limiter import CHECK_EVERY, Limiter


class Engine:
    """Records the limits."""

    def __init__(self) -> None:
        self.limits: list[tuple[int, int]] = []

    def change(self, *, upload: int, download: int) -> None:
        self.limits.append((upload, download))


class Time:
    """Times of a Monday, one a look."""

    def __init__(self, *times: tuple[int, int]) -> None:
        self.times = list(times)
        self.slept: list[float] = []

    def now(self) -> datetime:
        hour, minute = self.times[0]
        return datetime(2026, 11, 23, hour, minute, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.times.pop(0)
        if not self.times:
            raise asyncio.CancelledError


async def test_it_follows_the_clock() -> None:
    engine, time, seen = Engine(), Time((7, 59), (8, 0), (8, 1), (18, 0)), []
    upload = Schedule.parse(("mon-fri 08:00-18:00=5",))
    limiter = Limiter(engine, RateLimits(9, 1), upload, Schedule(), clock=time)
    with pytest.raises(asyncio.CancelledError):
        await limiter.run(seen.append)
    assert engine.limits == [(5, 1), (9, 1)]
    assert seen == [LimitsView(9, 1, 5, 1, upload.texts), LimitsView(9, 1, 9, 1, upload.texts)]
    assert set(time.slept) == {CHECK_EVERY}


async def test_what_it_is_limits_applies_at_once_where_no_window_does() -> None:
    engine, time = Engine(), Time((12, 0))
    window = Schedule.parse(("12:00-13:00=30000",))
    limiter = Limiter(engine, RateLimits(), Schedule(), window, clock=time)
    limiter.change(RateLimits(4, 5))
    assert limiter.view() == LimitsView(4, 5, 4, 30000, (), ("12:00-13:00=30000",))
    limiter.change(RateLimits(4, 6))
    assert engine.limits == [(4, 30000)]
