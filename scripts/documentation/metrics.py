"""The page of metrics: name, type, labels and meaning, from what the program exposes for sample values."""

import asyncio
from typing import get_type_hints

from aiohttp.test_utils import make_mocked_request
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.coordinator.rollout.rollout import Rollout, RolloutSpec
from p2pmodel.coordinator.server.rollouts.metrics import rollout_exposition
from p2pmodel.core.content.names import RepoId
from p2pmodel.service.control.metrics import exposition
from p2pmodel.service.watch.metrics import WatchMetrics
from scripts.documentation.markdown import code, page, table
from scripts.documentation.samples import sample_of

_INTRO = "Prometheus collects them from `/metrics`. Counters and sizes are in bytes, times in seconds."
_DAEMON = "At the daemon's TCP address and on its socket."
_COORDINATOR = "At the coordinator's address, with the token of a member."
_WATCH = "At the address of `--metrics` (setting `watch.metrics`)."


def text() -> str:
    """The page."""
    sections = (
        ("p2pmodel daemon", _DAEMON, _of_daemon()),
        ("p2pmodel coordinator", _COORDINATOR, _of_coordinator()),
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


def _of_daemon() -> str:
    (argument,) = (kind for name, kind in get_type_hints(exposition).items() if name != "return")
    return exposition(sample_of(argument)).decode()


def _of_coordinator() -> str:
    rollout = Rollout("x", RolloutSpec(RepoId("x"), "0" * 40, ("x",)), "", began=0.0, began_wall=0.0)
    rollout.take("x", NodeReport("files_ready"), 1.0, 1.0)
    return rollout_exposition([rollout.view(1.0)]).decode()


def _of_watch() -> str:
    metrics = WatchMetrics()
    readings = get_type_hints(WatchMetrics.observe)["readings"]
    (reading,) = readings.__args__
    metrics.observe([sample_of(reading)])
    (route,) = (route for route in metrics.app().router.routes() if route.method == "GET")
    answer = asyncio.run(route.handler(make_mocked_request("GET", "/metrics")))  # type: ignore[arg-type]
    return bytes(answer.body).decode()  # type: ignore[attr-defined]
