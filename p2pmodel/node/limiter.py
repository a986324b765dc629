"""Apply the rate limits of a node: those that were set, and those that the schedules say for the time of day."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from p2pmodel.config.settings import Settings
from p2pmodel.config.time_windows import Schedule
from p2pmodel.core import notes
from p2pmodel.core.progress.views import LimitsView, RateLimits

CHECK_EVERY = 10.0
"""Seconds between two reads of the clock: it may be set, and a suspended machine sleeps longer."""


def base_limits(settings: Settings) -> RateLimits:
    """The limits of the settings outside all windows."""
    return RateLimits(settings.swarm.upload_limit, settings.swarm.download_limit)


def schedules(settings: Settings) -> tuple[Schedule, Schedule]:
    """The schedules of the settings: uploads, downloads."""
    return Schedule.parse(settings.daemon.upload_schedule), Schedule.parse(settings.daemon.download_schedule)


class LimitedTraffic(Protocol):
    """Traffic with a rate limit in each direction."""

    def change(self, *, upload: int, download: int) -> None:
        """Use at most these rates from now on, bytes/s (0: no limit)."""


class WallClock:
    """The local time of day."""

    def now(self) -> datetime:
        """The local time."""
        return datetime.now().astimezone()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Limiter:
    """Changes the limits of `traffic`, which starts with `base`. Schedules are in local time."""

    def __init__(
        self,
        traffic: LimitedTraffic,
        base: RateLimits,
        upload: Schedule,
        download: Schedule,
        *,
        clock: WallClock | None = None,
    ) -> None:
        self._traffic = traffic
        self._base = base
        self._upload = upload
        self._download = download
        self._clock = clock or WallClock()
        self._applied = base

    def view(self) -> LimitsView:
        """The base limits, and the limits that apply now."""
        return LimitsView(
            self._base.upload,
            self._base.download,
            self._applied.upload,
            self._applied.download,
            self._upload.texts,
            self._download.texts,
        )

    def change(self, base: RateLimits) -> None:
        """Replace the limits that apply outside the scheduled windows."""
        self._base = base
        self.apply()

    def reschedule(self, upload: Schedule, download: Schedule) -> None:
        """Replace the schedules."""
        self._upload, self._download = upload, download
        self.apply()

    def apply(self) -> bool:
        """Apply the limits for this time. Returns whether they have changed."""
        now = self._clock.now()
        day, minute = now.weekday(), now.hour * 60 + now.minute
        limits = RateLimits(
            self._upload.rate(self._base.upload, day, minute), self._download.rate(self._base.download, day, minute)
        )
        if limits == self._applied:
            return False
        self._traffic.change(upload=limits.upload, download=limits.download)
        self._applied = limits
        return True

    async def run(self, on_change: Callable[[LimitsView], None]) -> None:
        """Follow the clock until cancelled; call `on_change` when another window applies."""
        while True:
            if self.apply():
                on_change(self.view())
            await self._clock.sleep(CHECK_EVERY)


def limits_note(limits: LimitsView) -> str:
    """The note for the log when another window applies."""
    text = f"limits by the time of day: {limits.upload_now} B/s up, {limits.download_now} B/s down (0: none)"
    return notes.info("limits_changed", text, upload=limits.upload_now, download=limits.download_now)
