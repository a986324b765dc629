"""The Prometheus metrics of a daemon (`GET /metrics`), and its health and readiness (`/healthz`, `/readyz`).

Nothing is counted here: each scrape reads the frozen views of the control API. Label values come from bounded sets:
states and sources of this program, the configured mirrors and follow lists, and at most MOST transfers.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import get_args

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pmodel.core.progress.views import FollowView, LimitsView, NodeView, ScrubView, SpaceView, State, TransferView
from p2pmodel.errors import Unavailable
from p2pmodel.http.exposition import HEALTH, METRICS, Traffic, handle_health, metrics_handler
from p2pmodel.node.snapshot.cache_views import CacheSummary
from p2pmodel.origin.mirrors.mirror import MirrorCounters, MirrorStatus
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.metric_families import by_label, counter, gauge, of_cache, of_mirrors

MOST = 200
"""Bound on transfers with their own metrics: incomplete ones first, then the latest."""

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
    follow: tuple[FollowView, ...] = ()
    space: SpaceView = field(default_factory=SpaceView)


def add_observation(app: web.Application, api: NodeApi, traffic: Traffic) -> None:
    """Add the three routes to the application of a node. `traffic` counts the requests to all its servers."""

    async def collecting() -> Iterable[Collector]:
        return NodeCollector(await node_snapshot(api)), traffic

    async def ready(request: web.Request) -> web.Response:
        found = await api.ready(request.query.get("model"))
        return web.json_response(asdict(found), status=200 if found.ready else Unavailable.http_status)

    app.router.add_get(METRICS, metrics_handler(collecting))
    app.router.add_get(HEALTH, handle_health)
    app.router.add_get("/readyz", ready)


async def node_snapshot(api: NodeApi) -> NodeSnapshot:
    """The views of the node now."""
    mirrors = await api.mirrors()
    await api.look()
    return NodeSnapshot(
        node=api.node(),
        transfers=api.transfers(),
        mirrors=mirrors,
        counters=by_label(api.mirror_counters().items(), {mirror.name for mirror in mirrors}),
        limits=api.limits(),
        cache=await api.cache_summary(),
        scrub=api.scrub(),
        follow=api.follow_lists(),
        space=api.space(),
    )


class NodeCollector(Collector):
    """The metrics of what was `seen`."""

    def __init__(self, seen: NodeSnapshot) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        seen = self._seen
        yield InfoMetricFamily("p2pmodel_node", "Version of the node.", value={"version": seen.node.version})
        yield from _transfers(seen.transfers)
        yield from of_mirrors(seen.mirrors, seen.counters)
        yield from of_cache(seen.cache)
        yield from _scrub(seen.scrub)
        yield from _space(seen.space)
        yield from _follow(seen.follow)
        limits = gauge("limit_bytes_per_second", "Rate limit for all peers together; 0: no limit.", ["direction"])
        limits.add_metric(["upload"], seen.limits.upload_now)
        limits.add_metric(["download"], seen.limits.download_now)
        yield limits


def _transfers(views: tuple[TransferView, ...]) -> Iterator[Metric]:
    states = gauge("transfers", "Transfers by state.", ["state"])
    for state in get_args(State):
        states.add_metric([state], sum(view.state == state for view in views))
    yield states
    shown = sorted(views, key=lambda view: (view.complete, -view.added))[:MOST]
    yield from (_of_each(gauge(name, meaning, _TRANSFER), shown, value) for name, meaning, value in _GAUGES)
    yield from (_of_each(counter(name, meaning, _TRANSFER), shown, value) for name, meaning, value in _COUNTERS)
    yield from _sources(shown)
    yield from _gates(shown)


def _of_each(
    family: GaugeMetricFamily | CounterMetricFamily, views: Iterable[TransferView], value: _Value
) -> GaugeMetricFamily | CounterMetricFamily:
    for view in views:
        found = value(view)
        if found is not None:
            family.add_metric([view.repo, view.commit], found)
    return family


def _sources(views: Iterable[TransferView]) -> Iterator[Metric]:
    sources = counter(
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


def _gates(views: Iterable[TransferView]) -> Iterator[Metric]:
    gates = gauge(
        "transfer_gate_timestamp_seconds",
        "When a gate was passed: files verified, model loaded, first token answered; absent before.",
        [*_TRANSFER, "gate"],
    )
    for view in views:
        for gate, passed in asdict(view.gates).items():
            if passed is not None:
                gates.add_metric([view.repo, view.commit, gate], passed)
    yield gates


def _follow(views: tuple[FollowView, ...]) -> Iterator[Metric]:
    labels = ["repo", "revision"]
    is_open = gauge("follow_window_open", "1 while the window of a follow list is open.", labels)
    failed = gauge("follow_failed", "1 if the last look of a follow list, or a transfer of it, failed.", labels)
    lacking = gauge("follow_incomplete_snapshots", "Snapshots of a follow list that are not complete here.", labels)
    checked = gauge(
        "follow_checked_timestamp_seconds",
        "Last look at the commits of a follow list that succeeded; absent before the first.",
        labels,
    )
    for (repo, revision), lists in _by_name(views).items():
        is_open.add_metric([repo, revision], any(view.is_open for view in lists))
        failed.add_metric([repo, revision], any(view.error for view in lists))
        lacking.add_metric([repo, revision], sum(not each.complete for view in lists for each in view.snapshots))
        times = [view.checked for view in lists if view.checked is not None]
        if times:
            checked.add_metric([repo, revision], min(times))
    yield from (is_open, failed, lacking, checked)


def _by_name(views: tuple[FollowView, ...]) -> dict[tuple[str, str], list[FollowView]]:
    found: dict[tuple[str, str], list[FollowView]] = {}
    for view in views:
        found.setdefault((view.repo, view.revision), []).append(view)
    return found


def _space(space: SpaceView) -> Iterator[Metric]:
    for name, meaning, value in (
        ("cache_budget_bytes", "Budget of the cache; absent without one.", space.budget),
        ("cache_used_bytes", "Bytes counted for the budget at the last look; absent before it.", space.used),
        ("cache_over_budget_bytes", "Bytes above the budget that no removal may free.", space.over),
    ):
        family = gauge(name, meaning)
        if value is not None:
            family.add_metric([], value)
        yield family
    for name, meaning, count in (
        ("cache_removed_snapshots", "Snapshots removed for the budget, or for their age.", space.removed),
        ("cache_freed_bytes", "Bytes that these removals freed.", space.freed),
    ):
        total = counter(name, meaning)
        total.add_metric([], count)
        yield total


def _scrub(scrub: ScrubView) -> Iterator[Metric]:
    read = counter("scrub_read_bytes", "Bytes that the background check of the cache has read.")
    read.add_metric([], scrub.read)
    yield read
    found = counter("scrub_damaged_blobs", "Damaged blobs that the background check has found.")
    found.add_metric([], scrub.found)
    yield found
    ended = gauge("scrub_last_pass_timestamp_seconds", "End of the last complete pass; absent before the first.")
    if scrub.ended is not None:
        ended.add_metric([], scrub.ended)
    yield ended
