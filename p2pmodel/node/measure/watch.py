"""Watch the mirrors: probe them periodically, raise an alarm when one becomes slow, and report its recovery."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from p2pmodel.config.sections.mirrors import WatchSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import Unavailable
from p2pmodel.node.measure.bench import measurement, sample_of
from p2pmodel.origin.mirrors.alarms import Alarm, Change, Metric, Rule
from p2pmodel.origin.mirrors.measurement import ProbeReading

_MAX_AGE = 3
"""Multiples of the time that the samples of an alarm take after which a probe is too old to count."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """An alarm about a mirror was raised or has ended with this reading."""

    reading: ProbeReading
    change: Change

    def __str__(self) -> str:
        change, name = self.change, f"mirror {self.reading.name}"
        if not change.raised:
            return f"recovered: {name}: {self.what} (the alarm lasted {change.lasted:.0f} s)"
        return f"alarm: {name}: {self.what}"

    @property
    def what(self) -> str:
        """The figure and its limit, as text."""
        value, rule = self.change.value, self.change.rule
        if math.isinf(value):
            return f"no valid response ({self.reading.error or 'no connection'})"
        beyond = self.change.raised
        if rule.metric is Metric.LATENCY:
            return f"connects in {value * 1e3:.1f} ms, {'above' if beyond else 'within'} {rule.limit * 1e3:g} ms"
        return f"delivers {value / 1e6:.1f} MB/s, {'below' if beyond else 'at least'} {rule.limit / 1e6:g} MB/s"

    def plain(self) -> dict[str, object]:
        """For JSON: seconds and bytes a second; `value` is None without a valid response."""
        change, rule = self.change, self.change.rule
        return {
            "event": "alarm" if change.raised else "recovered",
            "mirror": self.reading.name,
            "endpoint": self.reading.endpoint,
            "metric": rule.metric.value,
            "value": None if math.isinf(change.value) else change.value,
            "limit": rule.limit,
            "samples": rule.samples,
            "lasted": None if change.raised else round(change.lasted, 3),
            "error": self.reading.error,
            "text": str(self),
        }


class WatchObserver(Protocol):
    """Receives the events of a watch."""

    def probed(self, readings: list[ProbeReading]) -> None:
        """A round has ended."""

    def changed(self, event: WatchEvent) -> None:
        """An alarm was raised, or has ended."""

    def note(self, line: str) -> None:
        """A line for the user."""


class MirrorWatch:
    """Probes the mirrors, and keeps the alarms. Without `ref` there is no file to read: only the latency is watched."""

    def __init__(
        self,
        settings: Settings,
        ref: Reference | None,
        observer: WatchObserver,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._ref = ref
        self._observer = observer
        self._now = now
        self._measurement = measurement(settings)
        self._sample: tuple[Manifest, ManifestFile] | None = None
        self._rules = _rules(settings.watch)
        self._alarms: dict[tuple[str, Metric], Alarm] = {}

    @property
    def raised(self) -> int:
        """How many alarms are raised now."""
        return sum(alarm.raised for alarm in self._alarms.values())

    async def forever(self) -> None:
        """One round every interval."""
        while True:
            began = self._now()
            await self.round()
            await asyncio.sleep(max(0.0, began + self._settings.watch.interval - self._now()))

    async def once(self) -> None:
        """As many rounds as an alarm needs, without pauses."""
        for _ in range(self._settings.watch.min_samples):
            await self.round()

    async def round(self) -> None:
        """Probe every mirror. Raises what `sample_of` does, but Unavailable, and LocalResource."""
        if self._ref and self._sample is None:
            try:
                self._sample = await sample_of(self._settings, self._ref, self._observer.note)
            except Unavailable as error:
                self._observer.note(notes.warning("speed_not_probed", f"only the latency is watched for now: {error}"))
        readings = await self._measurement.measure(self._sample)
        self._observer.probed(readings)
        for reading in readings:
            self._judge(reading)

    def _judge(self, reading: ProbeReading) -> None:
        answered = reading.connect if reading.connect is not None and not reading.error else math.inf
        values = {Metric.LATENCY: answered, Metric.SPEED: reading.rate}
        for rule in self._rules:
            value = values[rule.metric]
            alarm = self._alarms.setdefault((reading.name, rule.metric), Alarm(rule))
            change = None if value is None else alarm.observe(value, self._now())
            if change is not None:
                self._observer.changed(WatchEvent(reading, change))


def _rules(watch: WatchSettings) -> tuple[Rule, Rule]:
    max_age = _MAX_AGE * watch.min_samples * max(watch.interval, 1.0) + 60.0
    return (
        Rule(Metric.LATENCY, watch.max_latency_ms / 1e3, watch.min_samples, max_age),
        Rule(Metric.SPEED, watch.min_mbps * 1e6, watch.min_samples, max_age),
    )
