"""The page of metrics: name, type, labels and meaning, from what the program exposes for sample values."""

import asyncio
from typing import get_type_hints

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from p2pmodel.coordinator.rollout.links import LinkRate, NodeLinks
from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeReport
from p2pmodel.coordinator.rollout.rollout import Rollout, RolloutSpec
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.metrics import CoordinatorMetrics, RolloutCollector
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import RepoId
from p2pmodel.http.exposition import Families, Traffic, exposition
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.cache_views import CacheSummary
from p2pmodel.origin.mirrors.mirror import MirrorStatus
from p2pmodel.service.control.metrics import NodeCollector, NodeSnapshot
from p2pmodel.service.metric_families import of_cache, of_mirrors
from p2pmodel.service.watch import WatchMetrics
from p2pmodel.serving.answers import AnswerCounts, AnswerQueue
from p2pmodel.serving.endpoint import ServingMetrics
from p2pmodel.serving.startup import Startup
from scripts.documentation.markdown import code, page, table
from scripts.documentation.samples import sample_of

_INTRO = "Prometheus collects them from `/metrics`. Counters and sizes are in bytes, times in seconds."
_DAEMON = "At the daemon's TCP address and on its socket."
_EVERY = (
    "`GET /healthz` needs no token; `GET /metrics` needs that of the server. `server` is `hub` (a hub endpoint), "
    "`control` and `socket` (the control API), `source` (for leaseholders), `serve` (a model) or `coordinator`."
)
_MIRROR = "At the mirror's address; those of mirrors with `--upstream` only."
_COORDINATOR = "At the coordinator's address, with the token of a member if it has one."
_SERVE = "At the address of the model, with its key if it has one."
_WATCH = "At the address of `--metrics` (setting `watch.metrics`)."


def text() -> str:
    """The page."""
    sections = (
        ("Every server", _EVERY, _of_every_server()),
        ("p2pmodel daemon", _DAEMON, _of_daemon()),
        ("p2pmodel mirror serve", _MIRROR, _of_mirror()),
        ("p2pmodel serve", _SERVE, _of_serve()),
        ("p2pmodel coordinator, p2pmodel seed", _COORDINATOR, _of_coordinator()),
        ("p2pmodel mirrors watch", _WATCH, _of_watch()),
    )
    blocks = []
    for title, where, exposed in sections:
        rows = [row for family in text_string_to_metric_families(exposed) for row in _rows(family)]
        blocks += [f"## {title}", where, table(("metric", "type", "labels", "meaning"), rows)]
    return page("Metrics", _INTRO, *blocks)


def _rows(family: Metric) -> list[tuple[str, str, str, str]]:
    shown = {sample.name: sample.labels for sample in family.samples if not sample.name.endswith("_created")}
    return [
        (code(name), family.type, ", ".join(map(code, labels)), family.documentation) for name, labels in shown.items()
    ]


def _of_every_server() -> str:
    traffic = Traffic()
    app = traffic.watch(web.Application(), "x")
    request = make_mocked_request("GET", "/x", app=app)
    asyncio.run(app.middlewares[0](request, _answered))
    return exposition([traffic]).decode()


async def _answered(_request: web.Request) -> web.StreamResponse:
    return web.Response()


def _of_daemon() -> str:
    return _alone([NodeCollector(sample_of(NodeSnapshot))])


def _of_mirror() -> str:
    return _alone([Families((*of_cache(sample_of(CacheSummary)), *of_mirrors([sample_of(MirrorStatus)], {})))])


def _of_coordinator() -> str:
    rollout = Rollout("x", RolloutSpec(RepoId("x"), "0" * 40, ("x",)), "", began=0.0, began_wall=0.0)
    rate = LinkRate(1, "declared")
    links = NodeLinks(rate, rate, rate, mirroring=True)
    rollout.take("x", NodeReport("files_ready", total=1, bytes=NodeBytes(peers=1), links=links), 1.0, 1.0)
    metrics = CoordinatorMetrics(Tracker(), Catalog(), Rollouts(), Traffic())
    catalog, _, _ = asyncio.run(metrics.collect())
    return _alone([catalog, RolloutCollector([rollout.view(1.0)])])


def _alone(collectors: list[Collector]) -> str:
    """The metrics of `collectors`, without those of every server."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry).decode()


def _of_serve() -> str:
    return _alone([ServingMetrics(Startup("x", Reporter()), AnswerQueue(1), AnswerCounts())])


def _of_watch() -> str:
    metrics = WatchMetrics()
    readings = get_type_hints(WatchMetrics.observe)["readings"]
    (reading,) = readings.__args__
    metrics.observe([sample_of(reading)])
    return _alone([metrics])
