"""Alarms about mirrors: when one is raised and when it ends. Pure; the clock is passed in.

An alarm depends on the median of the last `samples` probes; with fewer probes it does not change. So a single slow
response raises no alarm, and a single quick one ends none. Probes older than `max_age` do not count; a raised alarm
stays raised until enough new probes clear it.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from statistics import median_high, median_low


class Metric(StrEnum):
    """The figure: seconds to connect (infinite without a response), or bytes a second."""

    LATENCY = "latency"
    SPEED = "speed"


@dataclass(frozen=True, slots=True)
class Rule:
    """The limit of the median: a maximum for latency, a minimum for speed."""

    metric: Metric
    limit: float
    samples: int
    max_age: float

    def broken(self, value: float) -> bool:
        """Whether `value` is beyond the limit."""
        return value > self.limit if self.metric is Metric.LATENCY else value < self.limit


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm was raised or ended. `value`: the median at that time; `lasted`: seconds it was raised."""

    rule: Rule
    raised: bool
    value: float
    lasted: float


class Alarm:
    """One rule about one mirror."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.raised = False
        self._since = 0.0
        self._seen: deque[tuple[float, float]] = deque(maxlen=rule.samples)

    def observe(self, value: float, now: float) -> Change | None:
        """Add a probe's `value`; the change of state, if any."""
        self._seen.append((now, value))
        values = [seen for at, seen in self._seen if now - at <= self.rule.max_age]
        if len(values) < self.rule.samples:
            return None
        # The better of two middle values: half of the probes are not a majority.
        middle = median_low(values) if self.rule.metric is Metric.LATENCY else median_high(values)
        if self.rule.broken(middle) == self.raised:
            return None
        lasted, self._since = (now - self._since if self.raised else 0.0), now
        self.raised = not self.raised
        return Change(self.rule, self.raised, middle, lasted)
