"""The Prometheus metrics of a daemon (`GET /metrics`), and its health and readiness (`/healthz`, `/readyz`).

Nothing is counted here: each scrape reads the frozen views of the control API. Label values come from bounded sets:
states and sources of this program, the configured mirrors, and at most MOST transfers.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import get_args

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pmodel.core.progress.views import LimitsView, NodeView, ScrubView, State, TransferView
from p2pmodel.errors import Unavailable
from p2pmodel.node.snapshot.cache_summary import CacheSummary
from p2pmodel.origin.mirrors.health import State as MirrorState
from p2pmodel.origin.mirrors.mirror import MirrorCounters, MirrorStatus
from p2pmodel.service.control.api import NodeApi

HEALTH = "/healthz"
MOST = 200
"""Bound on transfers with their own metrics: incomplete ones first, then the latest."""
OTHERS = "others"
"""The `mirror` label of all mirrors that only torrents name."""

_TRANSFER = ["repo", "commit"]
_Value = Callable[[TransferView], float | None]


def _active(view: TransferView) -> float:
    return float(view.state == "active")


def _origin_ratio(view: TransferView) -> float | None:
    came = view.progress.from_peers + view.progress.from_mirrors
    return view.progress.from_mirrors / came if came else None


_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    (
        "snapshot_ready",
        "1 if the requested files are complete, visible, and unchanged since verified.",
        lambda v: float(v.complete),
    ),
    (
        "transfer_doubted_files",
        "Files that are missing, damaged, or changed since they were verified.",
        lambda v: float(v.doubted),
    ),
    ("engine_ready", "1 while an inference engine reports that it serves the model.", lambda v: float(v.engine_ready)),
    ("transfer_active", "1 while it downloads: not queued, paused, failed or complete.", _active),
    ("transfer_size_bytes", "Requested bytes.", lambda v: v.progress.total),
    ("transfer_done_bytes", "Requested bytes that are verified.", lambda v: v.progress.done),
    ("transfer_eta_seconds", "Estimated time to completion; absent while nothing arrives.", lambda v: v.eta),
    ("transfer_rate_bytes_per_second", "Rate of bytes that arrive from all sources together.", lambda v: v.rate),
    ("transfer_peers", "Connected peers.", lambda v: v.progress.peers),
    ("transfer_peer_upload_bytes_per_second", "Upload rate to peers.", lambda v: v.progress.upload_rate),
    (
        "transfer_origin_ratio",
        "Share of mirrors in the bytes received since the transfer last started; absent before the first byte.",
        _origin_ratio,
    ),
)
_COUNTERS: tuple[tuple[str, str, _Value], ...] = (
    ("transfer_uploaded_bytes", "Bytes sent to peers since the transfer last started.", lambda v: v.progress.uploaded),
    ("transfer_corrupt_pieces", "Pieces that failed verification.", lambda v: v.progress.rejected),
)
_DOWN = (MirrorState.FAILING, MirrorState.QUARANTINED)
_ESTIMATES = (
    ("mirror_connect_seconds", "Estimated time to connect.", "connect"),
    ("mirror_first_byte_seconds", "Estimated time from a request to the response headers.", "first_byte"),
    ("mirror_bytes_per_second", "Estimated download rate.", "rate"),
)
_MIRROR_COUNTERS = (
    ("mirror_received_bytes", "Payload bytes received since the node started.", "received"),
    ("mirror_wasted_bytes", "Received bytes that were duplicate or wrong.", "wasted"),
    ("mirror_failovers", "Failures after which other mirrors were used first.", "failovers"),
    ("mirror_quarantines", "Quarantines after wrong bytes.", "quarantines"),
)


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The views of a node at one moment. `counters` by mirror name."""

    node: NodeView
    transfers: tuple[TransferView, ...]
    mirrors: tuple[MirrorStatus, ...]
    counters: dict[str, MirrorCounters]
    limits: LimitsView
    cache: CacheSummary
    scrub: ScrubView


def add_observation(app: web.Application, api: NodeApi) -> None:
    """Add the three routes to the application of a node."""

    async def metrics(_request: web.Request) -> web.Response:
        body = exposition(await node_snapshot(api))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        found = await api.ready(request.query.get("model"))
        return web.json_response(asdict(found), status=200 if found.ready else Unavailable.http_status)

    app.router.add_get("/metrics", metrics)
    app.router.add_get(HEALTH, health)
    app.router.add_get("/readyz", ready)


async def node_snapshot(api: NodeApi) -> NodeSnapshot:
    """The views of the node now."""
    mirrors = await api.mirrors()
    await api.look()
    return NodeSnapshot(
        node=api.node(),
        transfers=api.transfers(),
        mirrors=mirrors,
        counters=_named(api.mirror_counters().items(), {mirror.name for mirror in mirrors}),
        limits=api.limits(),
        cache=await api.cache_summary(),
        scrub=api.scrub(),
    )


def exposition(seen: NodeSnapshot) -> bytes:
    """`seen` in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Collector(seen))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, seen: NodeSnapshot) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        seen = self._seen
        yield InfoMetricFamily("p2pmodel_node", "Version of the node.", value={"version": seen.node.version})
        yield from _transfers(seen.transfers)
        yield from _mirrors(seen.mirrors, seen.counters)
        yield from _cache(seen.cache)
        yield from _scrub(seen.scrub)
        limits = _gauge("limit_bytes_per_second", "Rate limit for all peers together; 0: no limit.", ["direction"])
        limits.add_metric(["upload"], seen.limits.upload_now)
        limits.add_metric(["download"], seen.limits.download_now)
        yield limits


def _gauge(name: str, meaning: str, labels: list[str] | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"p2pmodel_{name}", meaning, labels=labels or [])


def _counter(name: str, meaning: str, labels: list[str] | None = None) -> CounterMetricFamily:
    """A counter; its samples are named `p2pmodel_<name>_total`."""
    return CounterMetricFamily(f"p2pmodel_{name}", meaning, labels=labels or [])


def _transfers(views: tuple[TransferView, ...]) -> Iterator[Metric]:
    states = _gauge("transfers", "Transfers by state.", ["state"])
    for state in get_args(State):
        states.add_metric([state], sum(view.state == state for view in views))
    yield states
    shown = sorted(views, key=lambda view: (view.complete, -view.added))[:MOST]
    yield from (_of_each(_gauge(name, meaning, _TRANSFER), shown, value) for name, meaning, value in _GAUGES)
    yield from (_of_each(_counter(name, meaning, _TRANSFER), shown, value) for name, meaning, value in _COUNTERS)
    yield from _sources(shown)


def _of_each(
    family: GaugeMetricFamily | CounterMetricFamily, views: Iterable[TransferView], value: _Value
) -> GaugeMetricFamily | CounterMetricFamily:
    for view in views:
        found = value(view)
        if found is not None:
            family.add_metric([view.repo, view.commit], found)
    return family


def _sources(views: Iterable[TransferView]) -> Iterator[Metric]:
    sources = _counter(
        "transfer_verified_bytes",
        "Verified bytes by source since the transfer last started; web_seed: HTTP sources of seeders.",
        [*_TRANSFER, "source"],
    )
    for view in views:
        progress = view.progress
        for source, count in (
            ("cache", progress.from_cache),
            ("peer", progress.from_peers - progress.from_seeders),
            ("web_seed", progress.from_seeders),
            ("mirror", progress.from_mirrors),
        ):
            sources.add_metric([view.repo, view.commit, source], count)
    yield sources


def _mirrors(mirrors: tuple[MirrorStatus, ...], counters: dict[str, MirrorCounters]) -> Iterator[Metric]:
    states = _gauge("mirror_state", "1 for the state of the mirror, 0 for the other states.", ["mirror", "state"])
    for mirror in mirrors:
        for state in MirrorState:
            states.add_metric([mirror.name, state.value], mirror.state is state)
    yield states
    up = _gauge("mirror_up", "0 while a mirror is not used because it fails or is quarantined.", ["mirror"])
    for mirror in mirrors:
        up.add_metric([mirror.name], mirror.state not in _DOWN)
    yield up
    for name, meaning, attribute in _ESTIMATES:
        family = _gauge(name, meaning, ["mirror"])
        for mirror in mirrors:
            value = getattr(mirror, attribute)
            if value is not None:
                family.add_metric([mirror.name], value)
        yield family
    for name, meaning, attribute in _MIRROR_COUNTERS:
        counter = _counter(name, meaning, ["mirror"])
        for known in dict.fromkeys((*(mirror.name for mirror in mirrors), *counters)):
            counter.add_metric([known], getattr(counters.get(known, MirrorCounters()), attribute))
        yield counter


def _cache(cache: CacheSummary) -> Iterator[Metric]:
    yield GaugeMetricFamily("p2pmodel_cache_bytes", "Bytes of blobs in the cache.", value=cache.size)
    yield GaugeMetricFamily("p2pmodel_cache_snapshots", "Snapshots in the cache.", value=cache.snapshots)
    yield GaugeMetricFamily(
        "p2pmodel_cache_doubted_blobs",
        "Blobs that are damaged, or have changed since they were verified.",
        value=cache.doubted,
    )
    yield GaugeMetricFamily("p2pmodel_cache_free_bytes", "Bytes free on the disk of the cache.", value=cache.free)


def _scrub(scrub: ScrubView) -> Iterator[Metric]:
    read = _counter("scrub_read_bytes", "Bytes that the background check of the cache has read.")
    read.add_metric([], scrub.read)
    yield read
    found = _counter("scrub_damaged_blobs", "Damaged blobs that the background check has found.")
    found.add_metric([], scrub.found)
    yield found
    ended = _gauge("scrub_last_pass_timestamp_seconds", "End of the last complete pass; absent before the first.")
    if scrub.ended is not None:
        ended.add_metric([], scrub.ended)
    yield ended


def _named(counters: Iterable[tuple[str, MirrorCounters]], names: set[str]) -> dict[str, MirrorCounters]:
    """The counters by label: those of mirrors not in `names` are added up under OTHERS."""
    found: dict[str, MirrorCounters] = {}
    for name, each in counters:
        known = name if name in names else OTHERS
        found[known] = found.get(known, MirrorCounters()) + each
    return found
