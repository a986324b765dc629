"""`p2pmodel mirrors watch`: metrics of the probes, and alarms posted to a webhook.

The metrics are served at `GET /metrics`, with the health at `GET /healthz`. Alarms are JSON messages, posted in order
from a queue, so that the sender never waits.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric as MetricFamily
from prometheus_client.registry import Collector

from p2pmodel.core import notes
from p2pmodel.core.backoff import doubled
from p2pmodel.core.network.proxies import DIRECT, Proxies
from p2pmodel.http.exposition import HEALTH, METRICS, handle_health, metrics_handler
from p2pmodel.http_pool import through
from p2pmodel.node.measure.watch import WatchEvent
from p2pmodel.origin.failures import reason_of, retryable
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


_TRIES = 3
_PAUSE = 0.5
_TIMEOUT = 5.0
_QUEUE = 100
_DRAIN = 5.0


class Webhook:
    """Tries to post each message up to three times. `async with` starts it; its end waits 5 s for queued messages.

    `proxies` is the rule for the proxy; raises InvalidInput for one that cannot be used. `on_note` receives a line when
    a message is lost. The line has only the host of the URL, which may hold a secret.
    """

    def __init__(
        self, url: str, on_note: Callable[[str], None], *, pause: float = _PAUSE, proxies: Proxies = DIRECT
    ) -> None:
        self._url = url
        self._proxy = proxies.of(url)
        self._host = urlsplit(url).hostname or "?"
        self._on_note = on_note
        self._pause = pause
        self._queue: asyncio.Queue[Mapping[str, object]] = asyncio.Queue(_QUEUE)

    def post(self, message: Mapping[str, object]) -> None:
        """Queue `message`. A full queue drops it, with a note."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._on_note(
                notes.warning(
                    "webhook_slow", f"the webhook at {self._host} is too slow: a message was dropped", host=self._host
                )
            )

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT), cookie_jar=aiohttp.DummyCookieJar()
        )
        self._worker = asyncio.ensure_future(self._work())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            async with asyncio.timeout(_DRAIN):
                await self._queue.join()
        except TimeoutError:
            self._on_note(
                notes.warning(
                    "webhook_slow", f"the webhook at {self._host} is too slow: messages were dropped", host=self._host
                )
            )
        finally:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            await self._session.close()

    async def _work(self) -> None:
        while True:
            message = await self._queue.get()
            try:
                await self._deliver(message)
            finally:
                self._queue.task_done()

    async def _deliver(self, message: Mapping[str, object]) -> None:
        reason = ""
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(doubled(self._pause, number, _TIMEOUT))
            try:
                sent = through(self._proxy, self._url, {})
                async with self._session.post(self._url, json=message, allow_redirects=False, **sent) as answer:
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = reason_of(error)
                continue
            if 200 <= status < 300:
                return
            reason = f"HTTP {status}"
            if not retryable(status):
                break
        if self._proxy is not None:
            reason = f"by proxy {self._proxy.name}: {reason}"
        self._on_note(
            notes.warning(
                "webhook_failed", f"a message to the webhook at {self._host} failed: {reason}", host=self._host
            )
        )
