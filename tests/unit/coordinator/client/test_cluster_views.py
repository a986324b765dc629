"""Views of coordinators' swarms, from answers that are not trusted."""

import json

import pytest
from aiohttp import web

from p2pmodel.coordinator.client.catalog import list_torrents
from p2pmodel.coordinator.client.cluster_views import ASK_EVERY, MAX_SWARMS, RolloutSummaries, SwarmViews, merged
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeFailure, NodeReport
from p2pmodel.coordinator.rollout.rollout import RolloutSpec
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Caller, Rights
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.views import CatalogView
from p2pmodel.errors import Unavailable
from p2pmodel.http.server import serving
from tests.support.coordinators import CLOSED, HOST

GOOD = {
    "repo": "org/model",
    "commit": "a" * 40,
    "revisions": ["main"],
    "size": 10,
    "seeders": 1,
    "leechers": 2,
    "origin_bytes": 3,
    "cut_off": ["gpu\x1b017"],
}
VIEW = CatalogView("org/model", "a" * 40, ("main",), 10, 1, 2, 3, ("gpu\N{REPLACEMENT CHARACTER}017",))


REPO, COMMIT = RepoId("org/model"), "c" * 40
TEAM = Caller(Rights.PUBLISHER, "team")


class FakeCoordinator:
    """Gives a fixed answer, and counts requests."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = 0

    def app(self) -> web.Application:
        async def catalog(_request: web.Request) -> web.Response:
            self.asked += 1
            text = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
            return web.Response(text=text, content_type="application/json")

        app = web.Application()
        app.router.add_get("/catalog", catalog)
        return app


async def views_of(answer: object) -> tuple[CatalogView, ...]:
    async with serving(FakeCoordinator(answer).app(), "127.0.0.1", 0, grace=0.2) as url:
        return await SwarmViews([Coordinator(url)], 5.0).look()


async def test_a_swarm_as_reported_by_a_coordinator() -> None:
    assert await views_of({"torrents": [GOOD]}) == (VIEW,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"repo": "../x"},
        {"repo": None},
        {"commit": "main"},
        {"size": -1},
        {"seeders": True},
        {"leechers": "2"},
        {"origin_bytes": 1 << 70},
        {"revisions": 5},
    ],
)
async def test_invalid_entries_are_left_out(wrong: dict[str, object]) -> None:
    assert await views_of({"torrents": [GOOD | wrong, 5, GOOD]}) == (VIEW,)


async def test_names_are_sanitized() -> None:
    [view] = await views_of({"torrents": [GOOD | {"revisions": ["a\nb", *map(str, range(20))]}]})
    assert view.revisions[0] == "a\N{REPLACEMENT CHARACTER}b"
    assert len(view.revisions) == 10


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"torrents": 5}', "[" * 100_000, {"torrents": None}])
async def test_an_invalid_answer_gives_no_views(answer: object) -> None:
    assert await views_of(answer) == ()
    async with serving(FakeCoordinator(answer).app(), "127.0.0.1", 0, grace=0.2) as url:
        with pytest.raises(Unavailable):
            await list_torrents(Coordinator(url), 5.0)


async def test_lookups_within_the_interval_share_one_request() -> None:
    time, coordinator = 100.0, FakeCoordinator({"torrents": [GOOD]})
    async with serving(coordinator.app(), "127.0.0.1", 0, grace=0.2) as url:
        catalogs = SwarmViews(
            [Coordinator(url), Coordinator(url), Coordinator("http://127.0.0.1:9")], 5.0, now=lambda: time
        )
        for _ in range(3):
            assert await catalogs.look() == (VIEW,)
        assert coordinator.asked == 1
        time += ASK_EVERY
        await catalogs.look()
        assert coordinator.asked == 2


async def test_without_coordinators_there_are_no_views() -> None:
    assert await SwarmViews([], 5.0).look() == ()


def test_of_one_snapshot_the_busiest_swarm_counts_and_there_are_not_too_many() -> None:
    quiet, busy = VIEW, CatalogView("org/model", "a" * 40, (), 10, 9, 9, 0)
    assert merged([quiet, busy, quiet]) == (busy,)
    many = [CatalogView(f"org/m{n}", "a" * 40, (), 1, n, 0, 0) for n in range(2 * MAX_SWARMS)]
    assert [view.seeders for view in merged(many)] == list(range(2 * MAX_SWARMS - 1, MAX_SWARMS - 1, -1))


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
