"""A coordinator that goes away amid a bootstrap, and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from p2pmodel.cluster.bootstrap.rollout_link import RolloutLink
from p2pmodel.cluster.bootstrap.roster import HostEntry
from p2pmodel.cluster.launchers.memory import MemoryLauncher
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollouts import RolloutClient
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.credentials import Credentials
from p2pmodel.coordinator.server.rollouts.folder import RolloutFolder
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.tasks import companions
from p2pmodel.errors import Unavailable
from p2pmodel.http.server import serving
from tests.unit.cluster.bootstrap.test_bootstrap import MEMBER, PUBLISHER, host, plan_of, run


@asynccontextmanager
async def coordinator_of(folder: Path, port: int = 0) -> AsyncIterator[Coordinator]:
    rollouts = Rollouts(RolloutFolder(folder))
    assert await rollouts.load() == ()
    credentials = Credentials(member=MEMBER, publishers={"bootstrap": PUBLISHER})
    app = coordinator_app(Tracker(), Catalog(), credentials=credentials, rollouts=rollouts)
    async with companions() as start, serving(app, "127.0.0.1", port, grace=0.1) as url:
        start(rollouts.run())
        yield Coordinator(url, MEMBER, PUBLISHER)


async def test_the_record_is_complete_though_the_coordinator_was_away(tmp_path: Path) -> None:
    hosts = [host("gpu1"), host("gpu2")]
    for each in hosts:
        each.daemon.rounds = 10**9
    async with coordinator_of(tmp_path) as coordinator:
        bootstrap = asyncio.create_task(run(MemoryLauncher(*hosts), coordinator))
        async with asyncio.timeout(60):
            while not all([each.services and await each.daemon.transfers() for each in hosts]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    for each in hosts:
        each.daemon.rounds = 1  # the fetch ends while the coordinator is away
    await asyncio.sleep(3.0)
    assert not bootstrap.done()
    async with coordinator_of(tmp_path, urlsplit(coordinator.url).port or 0):
        _, roster, _ = await bootstrap
    assert [entry.stage for entry in roster.done] == ["ready", "ready"]
    assert roster.rollout is not None
    assert roster.rollout.state == "complete"
    assert [node.ready("files") for node in roster.rollout.nodes] == [True, True]


async def test_a_report_that_a_restart_lost_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, lost = RolloutClient.report, [Unavailable("the coordinator restarts")]

    async def report_later(client: RolloutClient, *told: object) -> None:
        if lost:
            raise lost.pop()
        await report(client, *told)  # type: ignore[arg-type]

    monkeypatch.setattr(RolloutClient, "report", report_later)
    async with coordinator_of(tmp_path) as coordinator:
        plan = plan_of(MemoryLauncher(host("gpu1")), coordinator)
        async with RolloutLink(plan, coordinator, lambda _: None) as link:
            view = await link.conclude([HostEntry("gpu1", "ready")])
    assert view is not None
    assert view.state == "complete"
