"""The requests to the servers of a process, and the bytes sent, as Prometheus metrics."""

from collections import Counter
from collections.abc import Iterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pmodel.http.access_log import SENT
from p2pmodel.http.admission.protection import OUTER_MIDDLEWARES

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
