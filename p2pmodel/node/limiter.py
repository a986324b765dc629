"""How much a node exchanges with its peers: what it was told, and what the day and the hour say."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from p2pmodel.config.schedules import Schedule
from p2pmodel.core.views import LimitsView, RateLimits

LOOK_EVERY = 10.0
"""Seconds between looks at the clock: it may be set, and a suspended machine's sleep lasts longer."""


def _local_now() -> datetime:
    return datetime.now().astimezone()


class Limiter:
    """Has `limit` obey, which takes bytes a second `upload` and `download`. Schedules are of local time."""

    def __init__(
        self,
        limit: Callable[..., None],
        base: RateLimits,
        upload: Schedule,
        download: Schedule,
        *,
        now: Callable[[], datetime] = _local_now,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._limit = limit
        self._base = base
        self._upload = upload
        self._download = download
        self._now = now
        self._sleep = sleep
        self._applied = base  # what it started with

    def view(self) -> LimitsView:
        """What it was told, and what applies now."""
        return LimitsView(
            self._base.upload,
            self._base.download,
            self._applied.upload,
            self._applied.download,
            self._upload.texts,
            self._download.texts,
        )

    def change(self, base: RateLimits) -> None:
        """From now on `base` applies where no window does."""
        self._base = base
        self.apply()

    def apply(self) -> bool:
        """Have it obey what applies now; whether that is new."""
        now = self._now()
        day, minute = now.weekday(), now.hour * 60 + now.minute
        limits = RateLimits(
            self._upload.rate(self._base.upload, day, minute), self._download.rate(self._base.download, day, minute)
        )
        if limits == self._applied:
            return False
        self._limit(upload=limits.upload, download=limits.download)
        self._applied = limits
        return True

    async def run(self, on_change: Callable[[LimitsView], None]) -> None:
        """Follow the clock until cancelled; `on_change` is told when another window applies."""
        while True:
            if self.apply():
                on_change(self.view())
            await self._sleep(LOOK_EVERY)
