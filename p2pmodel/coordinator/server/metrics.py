"""The Prometheus metrics of a coordinator: its catalog, its swarms, its roll-outs and the requests to it.

Nothing is counted here: each scrape reads what the coordinator has. Label values come from bounded sets: of roll-outs
the open ones, the latest `MOST_OVER` that are over, phases and gates.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pmodel.coordinator.rollout.report import GateReport, RolloutReport, rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutState, RolloutView
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.http.exposition import Families, Traffic

MOST_OVER = 5
_ROLLOUT = ["rollout", "repo"]
_GAUGES: tuple[tuple[str, str, Callable[[RolloutView, RolloutReport], float | None]], ...] = (
    ("expected_nodes", "Nodes that the roll-out expects.", lambda view, _: len(view.spec.nodes)),
    ("unlisted_nodes", "Nodes that report and are not expected.", lambda _, report: len(report.unlisted)),
    ("elapsed_seconds", "Time since the roll-out began, or its duration.", lambda view, _: view.elapsed),
    ("enough_ready", "1 once as many nodes as asked for have passed the last gate.", lambda _, r: float(r.enough)),
    ("rate_bytes_per_second", "Rate of what all nodes receive together.", lambda _, report: report.rate),
    ("received_bytes", "Bytes that the nodes have received.", lambda _, report: report.received),
    ("origin_bytes", "Bytes that the nodes have received from mirrors.", lambda _, report: report.origin_bytes),
    ("model_bytes", "Bytes of the requested files; 0 while unknown.", lambda _, report: report.model_bytes),
)
_TIMES: tuple[tuple[str, Callable[[GateReport], float | None]], ...] = (
    ("first", lambda gate: gate.first),
    ("p50", lambda gate: gate.p50),
    ("p95", lambda gate: gate.p95),
    ("last", lambda gate: gate.last),
)


class RolloutCollector(Collector):
    """The metrics of `views`, the latest first."""

    def __init__(self, views: Sequence[RolloutView]) -> None:
        over = [view for view in views if not view.open][:MOST_OVER]
        shown = [view for view in views if view.open or view in over]
        self._views = views
        self._reports = [(view, rollout_report(view)) for view in shown]

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        states = _family("rollouts", "Roll-outs by state.", ["state"])
        for state in get_args(RolloutState):
            states.add_metric([state], sum(view.state == state for view in self._views))
        yield states
        for name, meaning, value in _GAUGES:
            family = _family(f"rollout_{name}", meaning, _ROLLOUT)
            for view, report in self._reports:
                family.add_metric(_labels(view), value(view, report) or 0.0)
            yield family
        yield self._by_phase()
        yield from self._by_gate()

    def _by_phase(self) -> GaugeMetricFamily:
        family = _family("rollout_nodes", "Expected nodes by phase.", [*_ROLLOUT, "phase"])
        for view, report in self._reports:
            for phase, count in report.counts.items():
                family.add_metric([*_labels(view), phase], count)
        return family

    def _by_gate(self) -> Iterator[GaugeMetricFamily]:
        ready = _family("rollout_ready_ratio", "Share of the nodes that is behind a gate.", [*_ROLLOUT, "gate"])
        times = _family(
            "rollout_gate_seconds",
            "Time until the first, half, 95 % and the last of the nodes had passed a gate; absent before.",
            [*_ROLLOUT, "gate", "nodes"],
        )
        bounds = _family(
            "rollout_bound_seconds",
            "T*, the time that the links need at least; absent where a rate is not known.",
            _ROLLOUT,
        )
        for view, report in self._reports:
            if report.bound is not None and report.bound.seconds is not None:
                bounds.add_metric(_labels(view), report.bound.seconds)
            for gate in report.gates:
                ready.add_metric([*_labels(view), gate.gate], gate.ready_share)
                for name, value in _TIMES:
                    if (seconds := value(gate)) is not None:
                        times.add_metric([*_labels(view), gate.gate, name], seconds)
        yield ready
        yield times
        yield bounds


def _labels(view: RolloutView) -> list[str]:
    return [view.id, str(view.spec.repo)]


def _family(name: str, meaning: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"p2pmodel_{name}", meaning, labels=labels)


@dataclass(frozen=True, slots=True)
class CoordinatorMetrics:
    """What `GET /metrics` of a coordinator reads. Nothing is counted here."""

    tracker: Tracker
    catalog: Catalog
    rollouts: Rollouts
    traffic: Traffic

    async def collect(self) -> Iterable[Collector]:
        """As `exposition.Collecting`."""
        torrents = GaugeMetricFamily("p2pmodel_catalog_torrents", "Torrents in the catalog.", labels=["format"])
        formats = [publication.format for publication in self.catalog.publications()]
        for form in ("v2", "hybrid", "v1"):
            torrents.add_metric([form], formats.count(form))
        swarms, counts = self.tracker.totals()
        held = GaugeMetricFamily("p2pmodel_tracker_swarms", "Swarms with a peer.", value=swarms)
        peers = GaugeMetricFamily("p2pmodel_tracker_peers", "Peers of all swarms.", labels=["kind"])
        peers.add_metric(["seeder"], counts.seeders)
        peers.add_metric(["leecher"], counts.leechers)
        return Families((torrents, held, peers)), RolloutCollector(self.rollouts.views()), self.traffic
