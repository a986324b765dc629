"""Metrics and health of a server, as Prometheus and orchestrators ask for them: `GET /metrics`, `GET /healthz`.

The requests to the servers of a process, and the bytes sent, are counted here.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pmodel import __version__
from p2pmodel.http.access_log import SENT
from p2pmodel.http.admission.protection import OUTER_MIDDLEWARES

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


_LOST = 0
"""In place of a status: the connection ended before a response."""


class Traffic(Collector):
    """Counts for each server that it `watches`, by its name in the label `server`."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sent: Counter[str] = Counter()
        self._open: Counter[str] = Counter()

    def watch(self, app: web.Application, server: str) -> web.Application:
        """Count the requests to `app`, also those that its guard refuses; returns `app`, which is not served yet."""
        self._sent[server] += 0
        app.middlewares.insert(0, self._counting(server))
        app[OUTER_MIDDLEWARES] = app.get(OUTER_MIDDLEWARES, 0) + 1
        return app

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        requests = CounterMetricFamily(
            "p2pmodel_http_requests", "Requests by HTTP status; 0: the client was gone.", labels=["server", "code"]
        )
        for (server, status), count in sorted(self._requests.items()):
            requests.add_metric([server, str(status)], count)
        sent = CounterMetricFamily("p2pmodel_http_sent_bytes", "Bytes of bodies sent.", labels=["server"])
        pending = GaugeMetricFamily(
            "p2pmodel_http_open_requests", "Requests that are being answered.", labels=["server"]
        )
        for server, count in sorted(self._sent.items()):
            sent.add_metric([server], count)
            pending.add_metric([server], self._open[server])
        yield from (requests, sent, pending)

    def _counting(self, server: str) -> Middleware:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._open[server] += 1
            status, body = _LOST, 0
            try:
                response = await handler(request)
                status, body = response.status, _body(request, response)
            except web.HTTPException as error:
                status = error.status
                raise
            else:
                return response
            finally:
                self._open[server] -= 1
                self._requests[server, status] += 1
                self._sent[server] += request.get(SENT, 0) or body

        return count


def _body(request: web.Request, response: web.StreamResponse) -> int:
    """Bytes of a body that aiohttp sends after the handler."""
    body = response.body if isinstance(response, web.Response) and request.method != "HEAD" else None
    return len(body) if isinstance(body, bytes) else 0


class SentBytes:
    """Counts the body bytes of each response when the response ends."""

    def __init__(self) -> None:
        self._by_snapshot: Counter[tuple[str, str]] = Counter()

    @property
    def bytes(self) -> int:
        """The total."""
        return self._by_snapshot.total()

    def of(self, repo: str, revision: str) -> int:
        """The bytes for requests with this repository and revision in the path."""
        return self._by_snapshot[repo, revision]

    def middleware(self) -> Middleware:
        """The counting middleware."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            finally:
                if sent := request.get(SENT, 0):
                    path = request.match_info
                    self._by_snapshot[path.get("repo", ""), path.get("revision", "")] += sent

        return count
