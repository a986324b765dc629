"""Metrics and health of a server, as Prometheus and orchestrators ask for them: `GET /metrics`, `GET /healthz`."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pmodel import __version__

METRICS = "/metrics"
HEALTH = "/healthz"

Collecting = Callable[[], Awaitable[Iterable[Collector]]]
"""Looks at what is to be exposed now."""


@dataclass(frozen=True, slots=True, eq=False)
class Families(Collector):
    """Metrics that were made at one moment."""

    metrics: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        return self.metrics


def exposition(collectors: Iterable[Collector]) -> bytes:
    """What `collectors` have, the version, and the process (`process_...`), in the text format of Prometheus."""
    registry = CollectorRegistry()
    version = InfoMetricFamily("p2pmodel_build", "Version of the program.", value={"version": __version__})
    registry.register(Families((version,)))
    ProcessCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def metrics_handler(collecting: Collecting) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of `METRICS`."""

    async def metrics(_request: web.Request) -> web.StreamResponse:
        body = exposition(await collecting())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return metrics


async def handle_health(_request: web.Request) -> web.StreamResponse:
    """The handler of `HEALTH`: the process serves requests."""
    return web.json_response({"status": "ok"})
