"""What a daemon shows to Prometheus (`GET /metrics`) and to who starts and stops things (`/healthz`, `/readyz`).

Nothing is counted here: each scrape collects from the frozen views that the control API answers with. Labels take names
from a bounded set only: states and sources of our own, the configured mirrors, and at most MOST transfers.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import get_args

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pmodel.core.views import LimitsView, NodeView, State, TransferView
from p2pmodel.errors import Unavailable
from p2pmodel.node.snapshot.cache_summary import CacheSummary
from p2pmodel.origin.mirrors.health import State as MirrorState
from p2pmodel.origin.mirrors.mirror import MirrorCounters, MirrorStatus
from p2pmodel.service.control.api import NodeApi

HEALTH = "/healthz"
MOST = 200
"""Transfers with figures of their own, those that are not complete and the latest first."""
OTHERS = "others"
"""The `mirror` of those that torrents name and the settings do not."""

_TRANSFER = ["repo", "commit"]
_Value = Callable[[TransferView], float | None]


def _active(view: TransferView) -> float:
    return float(view.state == "active")


def _origin_ratio(view: TransferView) -> float | None:
    came = view.progress.from_peers + view.progress.from_mirrors
    return view.progress.from_mirrors / came if came else None


_FIGURES: tuple[tuple[str, str, _Value], ...] = (
    ("artifact_ready", "1 if all that was asked for is here, verified and visible.", lambda v: float(v.complete)),
    ("engine_ready", "1 while an inference engine says that it has the model up.", lambda v: float(v.engine_ready)),
    ("transfer_active", "1 while it is on its way here: not queued, paused, failed or complete.", _active),
    ("transfer_size_bytes", "Bytes that were asked for.", lambda v: v.progress.total),
    ("transfer_done_bytes", "Those of them that are here and verified.", lambda v: v.progress.done),
    ("transfer_eta_seconds", "Seconds until the last byte is here; absent while nothing comes.", lambda v: v.eta),
    ("transfer_rate_bytes_per_second", "Bytes that are verified, from all sources together.", lambda v: v.rate),
    ("transfer_peers", "Connected peers.", lambda v: v.progress.peers),
    ("transfer_peer_download_bytes_per_second", "What peers send.", lambda v: v.progress.download_rate),
    ("transfer_peer_upload_bytes_per_second", "What peers are sent.", lambda v: v.progress.upload_rate),
    ("transfer_uploaded_bytes", "Sent to peers since the transfer last started.", lambda v: v.progress.uploaded),
    ("transfer_verify_failures", "Pieces that failed their hash check since then.", lambda v: v.progress.rejected),
    ("transfer_origin_ratio", "Share of mirrors in what came since then; absent until something did.", _origin_ratio),
)
_DOWN = (MirrorState.FAILING, MirrorState.QUARANTINED)
_ESTIMATES = (
    ("mirror_connect_seconds", "Time to connect.", "connect"),
    ("mirror_first_byte_seconds", "Time from a request to its headers.", "first_byte"),
    ("mirror_bytes_per_second", "Rate at which it delivers.", "rate"),
)
_TALLIES = (
    ("mirror_received_bytes", "Payload bytes that came, since the node started.", "received"),
    ("mirror_wasted_bytes", "Those of them that were of no use: they came twice, or were wrong.", "wasted"),
    ("mirror_failovers", "Times it failed so that others went first.", "failovers"),
    ("mirror_quarantines", "Times it was caught with wrong bytes.", "quarantines"),
)


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """A node at one moment. `tallies` by mirror name."""

    node: NodeView
    transfers: tuple[TransferView, ...]
    mirrors: tuple[MirrorStatus, ...]
    tallies: dict[str, MirrorCounters]
    limits: LimitsView
    holding: CacheSummary


def add_observation(app: web.Application, api: NodeApi) -> None:
    """Add the three routes to the application of a node."""

    async def metrics(_request: web.Request) -> web.Response:
        body = exposition(await look(api))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        found = await api.ready(request.query.get("model"))
        return web.json_response(asdict(found), status=200 if found.ready else Unavailable.http_status)

    app.router.add_get("/metrics", metrics)
    app.router.add_get(HEALTH, health)
    app.router.add_get("/readyz", ready)


async def look(api: NodeApi) -> NodeSnapshot:
    """The node now."""
    mirrors = await api.mirrors()
    return NodeSnapshot(
        node=api.node(),
        transfers=api.transfers(),
        mirrors=mirrors,
        tallies=_named(api.mirror_counters().items(), {mirror.name for mirror in mirrors}),
        limits=api.limits(),
        holding=await api.holding(),
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
        yield InfoMetricFamily("p2pmodel_node", "The node itself.", value={"version": seen.node.version})
        yield from _transfers(seen.transfers)
        yield from _mirrors(seen.mirrors, seen.tallies)
        yield from _cache(seen.holding)
        limits = _gauge("limit_bytes_per_second", "Exchanged with peers at most; 0: no limit.", ["direction"])
        limits.add_metric(["upload"], seen.limits.upload_now)
        limits.add_metric(["download"], seen.limits.download_now)
        yield limits


def _gauge(name: str, meaning: str, labels: list[str] | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"p2pmodel_{name}", meaning, labels=labels or [])


def _transfers(views: tuple[TransferView, ...]) -> Iterator[Metric]:
    states = _gauge("transfers", "Transfers by state.", ["state"])
    for state in get_args(State):
        states.add_metric([state], sum(view.state == state for view in views))
    yield states
    shown = sorted(views, key=lambda view: (view.complete, -view.added))[:MOST]
    yield from (_of_each(shown, *figure) for figure in _FIGURES)
    yield from _sources(shown)


def _of_each(views: Iterable[TransferView], name: str, meaning: str, value: _Value) -> Metric:
    family = _gauge(name, meaning, _TRANSFER)
    for view in views:
        found = value(view)
        if found is not None:
            family.add_metric([view.repo, view.commit], found)
    return family


def _sources(views: Iterable[TransferView]) -> Iterator[Metric]:
    sources = _gauge(
        "transfer_bytes",
        "Verified bytes by where they came from, since the transfer last started; webseed: seeders, over HTTP.",
        [*_TRANSFER, "source"],
    )
    for view in views:
        progress = view.progress
        for source, count in (
            ("cache", progress.from_cache),
            ("peer", progress.from_peers - progress.from_seeders),
            ("webseed", progress.from_seeders),
            ("mirror", progress.from_mirrors),
        ):
            sources.add_metric([view.repo, view.commit, source], count)
    yield sources


def _mirrors(standings: tuple[MirrorStatus, ...], tallies: dict[str, MirrorCounters]) -> Iterator[Metric]:
    states = _gauge("mirror_state", "1 for the state a mirror is in, 0 for the others.", ["mirror", "state"])
    for standing in standings:
        for state in MirrorState:
            states.add_metric([standing.name, state.value], standing.state is state)
    yield states
    up = _gauge("mirror_up", "0 while a mirror is left alone, because it fails or sent wrong bytes.", ["mirror"])
    for standing in standings:
        up.add_metric([standing.name], standing.state not in _DOWN)
    yield up
    for name, meaning, attribute in _ESTIMATES:
        family = _gauge(name, meaning, ["mirror"])
        for standing in standings:
            value = getattr(standing, attribute)
            if value is not None:
                family.add_metric([standing.name], value)
        yield family
    for name, meaning, attribute in _TALLIES:
        counter = CounterMetricFamily(f"p2pmodel_{name}", meaning, labels=["mirror"])
        for mirror in dict.fromkeys((*(standing.name for standing in standings), *tallies)):
            counter.add_metric([mirror], getattr(tallies.get(mirror, MirrorCounters()), attribute))
        yield counter


def _cache(holding: CacheSummary) -> Iterator[Metric]:
    yield GaugeMetricFamily("p2pmodel_cache_bytes", "Bytes of blobs in the cache.", value=holding.size)
    yield GaugeMetricFamily("p2pmodel_cache_snapshots", "Snapshots in the cache.", value=holding.snapshots)
    yield GaugeMetricFamily("p2pmodel_cache_free_bytes", "Bytes free on the cache's disk.", value=holding.free)


def _named(tallies: Iterable[tuple[str, MirrorCounters]], names: set[str]) -> dict[str, MirrorCounters]:
    found: dict[str, MirrorCounters] = {}
    for name, tally in tallies:
        known = name if name in names else OTHERS
        found[known] = found.get(known, MirrorCounters()) + tally
    return found
