"""The roll-outs of several coordinators in short."""

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollout_views import RolloutSummaries
from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeFailure, NodeReport
from p2pmodel.coordinator.rollout.rollout import RolloutSpec
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Caller, Rights
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import RepoId
from p2pmodel.http.server import serving
from tests.support.coordinators import CLOSED, HOST

REPO, COMMIT = RepoId("org/model"), "c" * 40
TEAM = Caller(Rights.PUBLISHER, "team")


async def test_open_rollouts_come_first_and_a_coordinator_that_is_gone_is_left_out() -> None:
    rollouts, now = Rollouts(), [0.0]
    app = coordinator_app(Tracker(), Catalog(), rollouts=rollouts)
    async with serving(app, HOST, 0, grace=0.1) as url:
        summaries = RolloutSummaries([Coordinator(CLOSED), Coordinator(url)], 5.0, now=lambda: now[0])
        assert await summaries.look() == ()
        first, _ = await rollouts.create(RolloutSpec(REPO, COMMIT, ("a", "b", "c")), TEAM)
        over, _ = await rollouts.create(RolloutSpec(REPO, COMMIT, ("x",)), TEAM)
        await rollouts.end(over.id, TEAM)
        numbers = NodeReport("files_ready", total=10, bytes=NodeBytes(origin=10))
        await rollouts.report("a", REPO, COMMIT, numbers)
        await rollouts.report("b", REPO, COMMIT, NodeReport("failed", failure=NodeFailure("no_space", "full")))
        assert await summaries.look() == ()  # what was asked a moment ago is not asked again
        now[0] += 10
        found = await summaries.look()
    assert [each.id for each in found] == [first.id, over.id]
    assert (found[0].passed, found[0].nodes, found[0].failed, found[0].origin_copies) == (1, 3, ("b",), 1.0)
    assert found[1].state == "ended"


async def test_without_coordinators_there_is_none() -> None:
    assert await RolloutSummaries([], 1.0).look() == ()
