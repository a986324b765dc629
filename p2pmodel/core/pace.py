"""A limit in bytes a second that all its users share."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

RATE_WINDOW = 3.0
TRICKLE = 50_000
"""Bytes a second below which nothing worth waiting for is delivered: 1 GB would take five hours."""
OF_THE_LIMIT = 8
"""A limit divided by this may be what one of its users gets of it: less is no sign of a slow source."""


def trickle(limit: int) -> int:
    """Bytes a second below which a source delivers nothing worth waiting for, under a download limit (0: none)."""
    return min(TRICKLE, limit // OF_THE_LIMIT or TRICKLE)


class Rate:
    """Bytes a second over the last RATE_WINDOW seconds, or since the first byte if that is more recent."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: float | None = None
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        """`count` bytes came now."""
        now = self._now()
        if self._began is None:
            self._began = now
        self._counts.append((now, count))

    def value(self) -> int:
        """The mean over that time; 0 in the first half second, in which it would be random."""
        now = self._now()
        while self._counts and self._counts[0][0] < now - RATE_WINDOW:
            self._counts.popleft()
        passed = min(now - self._began, RATE_WINDOW) if self._began is not None else 0.0
        return int(sum(count for _, count in self._counts) / passed) if passed >= 0.5 else 0


class CounterRate:
    """The rate of a counter that is read every second or so, over the last RATE_WINDOW seconds, or since it began to
    grow if that is more recent."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._reads: deque[tuple[float, int]] = deque()

    def read(self, count: int) -> None:
        """The counter is at `count` now. A counter that has become smaller began anew."""
        now, reads = self._now(), self._reads
        if reads and (count < reads[-1][1] or reads[0][1] == count):
            reads.clear()
        reads.append((now, count))
        while len(reads) > 2 and reads[1][0] <= now - RATE_WINDOW:
            reads.popleft()

    def value(self) -> int:
        """Growth a second between the reads; it falls once no read comes."""
        if len(self._reads) < 2:
            return 0
        (began, first), (ended, last) = self._reads[0], self._reads[-1]
        now = self._now()
        passed = (ended if now - ended <= RATE_WINDOW else now) - began
        return int((last - first) / passed) if passed > 0 else 0


_BLOCKS = 8
_SMALLEST_BLOCK = 1 << 12
_SLOWEST = 1024
_UNLIMITED_BLOCK = 1 << 50
_LARGEST_READ = 2 << 20
"""Bytes that a connection has ready at most."""


class Pace:
    """Bounds bytes a second over all connections that use it together. Rate None or 0: no bound.

    What passes here also passes through the pace `within`, which other users share. Bytes pass in the order of the
    calls. `_level` of the `passed` bytes are within the rate so far.
    """

    def __init__(self, rate: int | None = None, *, within: "Pace | None" = None) -> None:
        self._rate = _bounded(rate)
        self._limit = rate or 0
        self._within = within
        self._level, self._as_of = 0.0, time.monotonic()
        self._changed = asyncio.Event()
        self.passed = 0
        """Bytes so far."""

    @property
    def block(self) -> int:
        """Bytes to move at once at most, so that a slow rate is an even one."""
        own = max(_SMALLEST_BLOCK, self._rate // _BLOCKS) if self._rate else _UNLIMITED_BLOCK
        return min(own, self._within.block) if self._within else own

    @property
    def readers(self) -> int:
        """Connections for which the rate is enough: each gets a block twice a second. With more of them, some would
        wait so long that they look silent, and what the kernel has received for them would exceed the rate."""
        return max(1, self._rate // 2 // min(self.block, _LARGEST_READ)) if self._rate else _UNLIMITED_BLOCK

    @property
    def limit(self) -> int:
        """Bytes a second of all traffic that the rate is a share of, or the rate itself; 0: no bound."""
        bounds = [limit for limit in (self._limit, self._within.limit if self._within else 0) if limit]
        return min(bounds, default=0)

    def change(self, rate: int | None, *, of: int = 0) -> None:
        """Set the rate, also for calls that wait now. `of`: the limit that the rate is a share of."""
        self._limit = of or rate or 0
        self._rise()
        self._rate = _bounded(rate)
        self._changed.set()
        self._changed = asyncio.Event()

    async def spend(self, count: int) -> None:
        """After `count` bytes came: return when they are within the rate."""
        await self.settle(self.take(count))

    def take(self, count: int) -> tuple[int, ...]:
        """Count `count` bytes that came. Returns what `settle` needs: bytes without a wait after them have used the
        rate, too."""
        self._rise()
        self.passed += count
        return (self.passed, *(self._within.take(count) if self._within else ()))

    async def settle(self, levels: Sequence[int]) -> None:
        """Return when the bytes of an earlier `take` are within the rate."""
        await self._reach(levels[0])
        if self._within:
            await self._within.settle(levels[1:])

    async def reserve(self, count: int) -> None:
        """Before `count` bytes are sent: return when all earlier bytes are within the rate."""
        self._rise()
        earlier = self.passed
        self.passed += count
        await self._reach(earlier)
        if self._within:
            await self._within.reserve(count)

    async def _reach(self, level: int) -> None:
        while self._rate and (wait := (level - self._level) / self._rate) > 0:
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


def _bounded(rate: int | None) -> int | None:
    return max(rate, _SLOWEST) if rate else None
