"""A long-lived node in roll-outs: its transfers, and its engines."""

from p2pmodel.coordinator.rollout.nodes import RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutSpec
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Caller, Rights
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.http.server import serving
from tests.support.coordinators import HOST, PUBLISHERS
from tests.support.eventually import eventually
from tests.support.node_machine import Machine, machine, torrent, until_state

__all__ = ["machine"]


async def test_a_node_reports_its_transfers_and_a_short_visit_of_an_engine(machine: Machine) -> None:
    await machine.seeder()
    rollouts, manifest = Rollouts(), machine.swarm.metainfo.manifest
    app = coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS, rollouts=rollouts)
    async with serving(app, HOST, 0, grace=0.1) as url:
        spec = RolloutSpec(manifest.repo, manifest.commit, ("gpu001",), ("files", "loaded", "answered"))
        view, _ = await rollouts.create(spec, Caller(Rights.PUBLISHER, "team"))

        def node_there() -> RolloutNode:
            return rollouts.view(view.id).nodes[0]

        machine.use(coordinators=(url,), node_name="gpu001")
        async with machine.running() as node:
            ident = (await node.start(torrent(machine.swarm))).id
            await until_state(node, ident, "seeding")
            await eventually(lambda: node_there().ready("files"), what="all files, at the coordinator")
            assert node_there().bytes.received == manifest.total_size
            for state in ("loading", "loaded", "answered", "none"):
                node.set_engine(ident, state)  # type: ignore[arg-type]
            await eventually(lambda: node_there().ready("answered"), what="the first token, at the coordinator")
            assert rollouts.view(view.id).state == "complete"


async def test_a_complete_snapshot_that_is_asked_for_is_in_a_later_rollout(machine: Machine) -> None:
    await machine.seeder()
    rollouts, manifest = Rollouts(), machine.swarm.metainfo.manifest
    app = coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS, rollouts=rollouts)
    async with serving(app, HOST, 0, grace=0.1) as url:
        machine.use(coordinators=(url,), node_name="gpu001")
        async with machine.running() as node:
            ident = (await node.start(torrent(machine.swarm))).id
            await until_state(node, ident, "seeding")
            spec = RolloutSpec(manifest.repo, manifest.commit, ("gpu001",))
            view, _ = await rollouts.create(spec, Caller(Rights.PUBLISHER, "team"))
            await node.start(torrent(machine.swarm))
            await eventually(lambda: not rollouts.view(view.id).open, what="the end of the roll-out")
            assert rollouts.view(view.id).state == "complete"
