"""The Prometheus metrics of a mirror: the requests to it, its cache, and the mirrors that it downloads from."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.registry import Collector

from p2pmodel.http.exposition import Families
from p2pmodel.http.traffic import Traffic
from p2pmodel.node.snapshot.cache_summary import summarize
from p2pmodel.origin.origin import Origin
from p2pmodel.service.metric_families import of_cache, of_mirrors
from p2pmodel.store.cache import HubCache


@dataclass(frozen=True, slots=True)
class EndpointMetrics:
    """What `GET /metrics` of a mirror reads. `upstream`: None for a mirror that downloads nothing."""

    cache: HubCache
    upstream: Origin | None
    traffic: Traffic

    async def collect(self) -> Iterable[Collector]:
        """As `exposition.Collecting`."""
        metrics = [*of_cache(await asyncio.to_thread(summarize, self.cache))]
        if self.upstream is not None:
            metrics += of_mirrors(self.upstream.statuses(), self.upstream.counters())
        return Families(tuple(metrics)), self.traffic
