"""Prometheus metrics of mirrors and of caches, which several servers have, and those of a mirror."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pmodel.http.exposition import Families, Traffic
from p2pmodel.node.snapshot.cache_views import CacheSummary, summarize
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.mirror import MirrorCounters, MirrorStatus
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache

OTHERS = "others"
"""The `mirror` label of all mirrors that only torrents name."""

_DOWN = (State.FAILING, State.QUARANTINED)
_ESTIMATES = (
    ("mirror_connect_seconds", "Estimated time to connect.", "connect"),
    ("mirror_first_byte_seconds", "Estimated time from a request to the response headers.", "first_byte"),
    ("mirror_bytes_per_second", "Estimated download rate.", "rate"),
)
_COUNTERS = (
    ("mirror_received_bytes", "Payload bytes received since the server started.", "received"),
    ("mirror_wasted_bytes", "Received bytes that were duplicate or wrong.", "wasted"),
    ("mirror_failovers", "Failures after which other mirrors were used first.", "failovers"),
    ("mirror_quarantines", "Quarantines after wrong bytes.", "quarantines"),
)


def gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    """A gauge named `p2pmodel_<name>`."""
    return GaugeMetricFamily(f"p2pmodel_{name}", meaning, labels=labels)


def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> CounterMetricFamily:
    """A counter; its samples are named `p2pmodel_<name>_total`."""
    return CounterMetricFamily(f"p2pmodel_{name}", meaning, labels=labels)


def of_mirrors(mirrors: Sequence[MirrorStatus], counters: Mapping[str, MirrorCounters]) -> Iterator[Metric]:
    """State, estimates and totals of `mirrors`; `counters` by mirror name."""
    states = gauge("mirror_state", "1 for the state of the mirror, 0 for the other states.", ["mirror", "state"])
    up = gauge("mirror_up", "0 while a mirror fails or is quarantined, 1 else; absent before it was asked.", ["mirror"])
    for mirror in mirrors:
        for state in State:
            states.add_metric([mirror.name, state.value], mirror.state is state)
        if mirror.state is not State.UNUSED:
            up.add_metric([mirror.name], mirror.state not in _DOWN)
    yield states
    yield up
    for name, meaning, attribute in _ESTIMATES:
        family = gauge(name, meaning, ["mirror"])
        for mirror in mirrors:
            value = getattr(mirror, attribute)
            if value is not None:
                family.add_metric([mirror.name], value)
        yield family
    for name, meaning, attribute in _COUNTERS:
        total = counter(name, meaning, ["mirror"])
        for known in dict.fromkeys((*(mirror.name for mirror in mirrors), *counters)):
            total.add_metric([known], getattr(counters.get(known, MirrorCounters()), attribute))
        yield total


def of_cache(cache: CacheSummary) -> Iterator[Metric]:
    """Size and state of the cache."""
    for name, meaning, value in (
        ("cache_bytes", "Bytes of blobs in the cache.", cache.size),
        ("cache_snapshots", "Snapshots in the cache.", cache.snapshots),
        ("cache_doubted_blobs", "Blobs that are damaged, or have changed since they were verified.", cache.doubted),
        ("cache_free_bytes", "Bytes free on the disk of the cache.", cache.free),
    ):
        yield GaugeMetricFamily(f"p2pmodel_{name}", meaning, value=value)


def by_label(counters: Iterable[tuple[str, MirrorCounters]], names: set[str]) -> dict[str, MirrorCounters]:
    """The counters by label: those of mirrors not in `names` are added up under OTHERS."""
    found: dict[str, MirrorCounters] = {}
    for name, each in counters:
        known = name if name in names else OTHERS
        found[known] = found.get(known, MirrorCounters()) + each
    return found


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
