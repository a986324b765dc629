"""The Prometheus metrics of a coordinator: its catalog, its swarms, its roll-outs and the requests to it."""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.rollouts.metrics import RolloutCollector
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.http.exposition import Families
from p2pmodel.http.traffic import Traffic


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
