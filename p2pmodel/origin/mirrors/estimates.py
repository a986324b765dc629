"""What is believed about a mirror: decaying means of the speed it has shown. Pure; times are seconds of one clock."""

import math
from dataclasses import dataclass, replace

_HALF_LIFE = 3600.0
_KNOWN = 0.05
"""Weight below which an estimate says nothing any more: a single sample counts for some hours."""

_RATE_MEMORY = 10.0
"""Seconds of transfer that a rate remembers."""

_LATENCY_MEMORY = 8.0
"""Requests that a latency remembers."""

_PROBE_WEIGHT = 0.2
_MEASURED = 1.0
"""Seconds of transfer after which a rate is a mirror's own."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean whose samples count the less the older they are; `weight` is 0 for no sample at all."""

    value: float = 0.0
    weight: float = 0.0
    at: float = 0.0

    def known(self, now: float) -> float | None:
        """The mean, or None when there is too little to go by."""
        return self.value if self._weight(now) >= _KNOWN else None

    def with_sample(self, sample: float, weight: float, now: float, *, memory: float) -> "Estimate":
        """After `sample` was seen, which counts `weight` against all that is remembered, `memory` at most."""
        old = min(self._weight(now), max(0.0, memory - weight))
        total = old + weight
        return Estimate((self.value * old + sample * weight) / total, total, now) if total > 0 else self

    def _weight(self, now: float) -> float:
        return self.weight * math.exp2(-min(64.0, max(0.0, now - self.at) / _HALF_LIFE))


@dataclass(frozen=True, slots=True)
class Quality:
    """How quick a mirror is: seconds to connect, seconds from a request to its headers, bytes a second over all of
    its connections together while it is busy."""

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
        """After a small request on one connection came at `rate`, which it can do at least."""
        return replace(self, rate=self.rate.with_sample(rate, _PROBE_WEIGHT, now, memory=_RATE_MEMORY))

    @property
    def measured(self) -> bool:
        """Whether the rate is more than a lower bound from probes."""
        return self.rate.weight >= _MEASURED


class Meter:
    """Turns the bytes of one mirror's connections into samples of its rate.

    Only time in which bytes flow is measured, from a block to a later one: waiting for headers is another figure.
    """

    WINDOW = 0.25
    IDLE = 2.0
    """Seconds without a byte after which a gap is no longer transfer, but a stall or nothing to do."""

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
        """Nothing is asked of the mirror any more."""
        self._last = float("-inf")
