"""When to raise an alarm about a mirror, and when it is over: once per change of state. Pure; the clock is passed in.

An alarm looks at the median of the last `samples` probes, and says nothing before it has as many: a single slow answer
is no alarm, and a single quick one no recovery. Probes older than `max_age` do not count, so what was seen before a
pause does not speak for now; a raised alarm stays raised until enough new probes clear it.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from statistics import median_high, median_low


class Metric(StrEnum):
    """What is watched: seconds to connect (infinite for no answer), and bytes a second."""

    LATENCY = "latency"
    SPEED = "speed"


@dataclass(frozen=True, slots=True)
class Rule:
    """The limit that a median may reach but not pass: upwards for latency, downwards for speed."""

    metric: Metric
    limit: float
    samples: int
    max_age: float

    def broken(self, value: float) -> bool:
        """Whether `value` is bad."""
        return value > self.limit if self.metric is Metric.LATENCY else value < self.limit


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm was raised, or is over: `value` is the median that says so, `lasted` the seconds it was raised for."""

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
        """Take in a probe's `value`; the change it brings, if any."""
        self._seen.append((now, value))
        values = [seen for at, seen in self._seen if now - at <= self.rule.max_age]
        if len(values) < self.rule.samples:
            return None
        # Of an even number the better middle one: half of the probes are not yet a majority.
        middle = median_low(values) if self.rule.metric is Metric.LATENCY else median_high(values)
        if self.rule.broken(middle) == self.raised:
            return None
        lasted, self._since = (now - self._since if self.raised else 0.0), now
        self.raised = not self.raised
        return Change(self.rule, self.raised, middle, lasted)
