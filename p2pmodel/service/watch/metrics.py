"""The Prometheus metrics of `p2pmodel mirrors watch`, served at `GET /metrics`, with its health at `GET /healthz`."""

from collections.abc import Iterable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric as MetricFamily
from prometheus_client.registry import Collector

from p2pmodel.http.exposition import HEALTH, METRICS, handle_health, metrics_handler
from p2pmodel.node.measure.watch import WatchEvent
from p2pmodel.origin.mirrors.alarms import Metric
from p2pmodel.origin.mirrors.measurement import ProbeReading

_PREFIX = "p2pmodel_mirror_"


class WatchMetrics(Collector):
    """Gauges of the last probe of each mirror; values that the probe did not measure are absent."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        mirror = ["mirror"]
        self._up = Gauge(f"{_PREFIX}up", "1 if the last probe succeeded.", mirror, registry=self._registry)
        self._connect = self._gauge("connect_seconds", "Time to connect in the last probe.")
        self._first_byte = self._gauge("first_byte_seconds", "Time from request to headers in the last probe.")
        self._rate = self._gauge("bytes_per_second", "Download rate in the last probe.")
        self._alarm = Gauge(
            f"{_PREFIX}alarm", "1 while an alarm is raised.", ["mirror", "metric"], registry=self._registry
        )
        self._probes = Counter(f"{_PREFIX}probes", "Probes.", ["mirror", "result"], registry=self._registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(_PREFIX + name, meaning, ["mirror"], registry=self._registry)

    def observe(self, readings: Iterable[ProbeReading]) -> None:
        """Set the gauges from one round of probes."""
        for reading in readings:
            self._up.labels(reading.name).set(not reading.error)
            for metric in Metric:
                self._alarm.labels(reading.name, metric.value)  # 0 until it is raised
            self._probes.labels(reading.name, "failed" if reading.error else "ok").inc()
            figures = {self._connect: reading.connect, self._first_byte: reading.first_byte, self._rate: reading.rate}
            for gauge, value in figures.items():
                if value is not None:
                    gauge.labels(reading.name).set(value)
                elif (reading.name,) in _shown(gauge):
                    gauge.remove(reading.name)

    def changed(self, event: WatchEvent) -> None:
        """Set the gauge of an alarm that was raised or has recovered."""
        self._alarm.labels(event.reading.name, event.change.rule.metric.value).set(event.change.raised)

    def app(self) -> web.Application:
        """The application that serves the metrics."""
        app = web.Application()
        app.router.add_get(METRICS, metrics_handler(self._collecting))
        app.router.add_get(HEALTH, handle_health)
        return app

    def collect(self) -> Iterator[MetricFamily]:
        """The metrics now, without the samples `_created`, which say when a label was seen first."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family

    async def _collecting(self) -> Iterable[Collector]:
        return (self,)


def _shown(gauge: Gauge) -> set[tuple[str, ...]]:
    return {tuple(sample.labels.values()) for family in gauge.collect() for sample in family.samples}
