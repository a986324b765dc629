"""Latency and rate estimates of a mirror: decaying means. Pure; times are seconds of one clock."""

import math
from dataclasses import dataclass, replace

_HALF_LIFE = 3600.0
_KNOWN = 0.05
"""Weight below which an estimate is dropped: a single sample counts for some hours."""

_RATE_MEMORY = 10.0
"""Seconds of transfer that a rate covers."""

_LATENCY_MEMORY = 8.0
"""Requests that a latency covers."""

_PROBE_WEIGHT = 0.2
_MEASURED = 1.0
"""Seconds of transfer after which a rate is more than a lower bound."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean in which older samples count less; `weight` is 0 without a sample."""

    value: float = 0.0
    weight: float = 0.0
    at: float = 0.0

    def known(self, now: float) -> float | None:
        """The mean, or None if the samples weigh too little."""
        return self.value if self._weight(now) >= _KNOWN else None

    def with_sample(self, sample: float, weight: float, now: float, *, memory: float) -> "Estimate":
        """With one more `sample` of `weight`, against at most `memory` of all samples."""
        old = min(self._weight(now), max(0.0, memory - weight))
        total = old + weight
        return Estimate((self.value * old + sample * weight) / total, total, now) if total > 0 else self

    def _weight(self, now: float) -> float:
        return self.weight * math.exp2(-min(64.0, max(0.0, now - self.at) / _HALF_LIFE))


@dataclass(frozen=True, slots=True)
class Quality:
    """Speed of a mirror: seconds to connect, seconds from a request to its headers, bytes a second over all of its
    connections together while they transfer."""

    connect: Estimate = Estimate()
    first_byte: Estimate = Estimate()
    rate: Estimate = Estimate()

    def connected(self, seconds: float, now: float) -> "Quality":
        """After a connection took `seconds`."""
        return replace(self, connect=self.connect.with_sample(seconds, 1.0, now, memory=_LATENCY_MEMORY))

    def answered(self, seconds: float, now: float) -> "Quality":
        """After a request on an open connection took `seconds` to its headers."""
        return replace(self, first_byte=self.first_byte.with_sample(seconds, 1.0, now, memory=_LATENCY_MEMORY))

    def delivered(self, rate: float, seconds: float, now: float) -> "Quality":
        """After `seconds` of transfer at `rate`."""
        return replace(self, rate=self.rate.with_sample(rate, seconds, now, memory=_RATE_MEMORY))

    def probed(self, rate: float, now: float) -> "Quality":
        """After a small request on one connection came at `rate`: a lower bound."""
        return replace(self, rate=self.rate.with_sample(rate, _PROBE_WEIGHT, now, memory=_RATE_MEMORY))

    @property
    def measured(self) -> bool:
        """Whether the rate is more than a lower bound from probes."""
        return self.rate.weight >= _MEASURED


class Meter:
    """Turns the bytes of one mirror's connections into samples of its rate.

    Only time with a transfer is measured, from one block to a later one; the wait for headers is another figure.
    """

    WINDOW = 0.25
    IDLE = 2.0
    """Seconds without a byte after which a gap counts as a stall or a pause, not as transfer."""

    def __init__(self) -> None:
        self._since = 0.0
        self._last = float("-inf")
        self._bytes = 0

    def received(self, count: int, now: float) -> tuple[float, float] | None:
        """`count` bytes came at `now`; (bytes a second, seconds) whenever a window is full."""
        if now - self._last > self.IDLE:
            self._since, self._bytes, self._last = now, 0, now
            return None
        self._bytes += count
        self._last = now
        seconds = now - self._since
        if seconds < self.WINDOW:
            return None
        sample = self._bytes / seconds, seconds
        self._since, self._bytes = now, 0
        return sample

    def idle(self) -> None:
        """The mirror has no request in progress."""
        self._last = float("-inf")
