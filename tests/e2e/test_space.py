"""Two nodes of one swarm that prune at once, with the real engine, tracker and catalog: one copy stays."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.content.names import RepoId
from p2pmodel.http.server import serving
from p2pmodel.node.backends import engine_of
from p2pmodel.node.fetch.job import NodeContext
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.node import Node
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.node.space_keeper import SpaceKeeper, SpaceSurveyor
from p2pmodel.store.cache import HubCache
from p2pmodel.store.space.plan import SpaceRules
from tests.support.coordinators import PUBLISHERS, token_file
from tests.support.eventually import PATIENCE
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of

SNAPSHOT = snapshot_of({"config.json": b"{}", "model.safetensors": bytes(range(256)) * 2000})
KEY = (RepoId(SNAPSHOT.repo), SNAPSHOT.commit)


class _Member:
    """One node on an address of its own, with all of its parts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cache = HubCache(settings.cache_dir, settings.state_dir)
        self.surveyor = SpaceSurveyor(self.cache, settings, settled=0.0)

    async def start(self, stack: AsyncExitStack) -> None:
        engine = await stack.enter_async_context(engine_of(self.settings))
        context, folder = NodeContext(engine, self.cache), self.settings.cache_dir.parent / "node"
        self.node = await stack.enter_async_context(Node(context, self.settings, folder))
        await self.node.start(FetchRequest(parse_target(f"{SNAPSHOT.repo}@{SNAPSHOT.commit}")))

    async def sees(self, copies: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                views = self.node.transfers()
                counted = (await self.surveyor.copies(views)).get(KEY)
                if counted == copies and all(view.state == "seeding" for view in views):
                    return
                await asyncio.sleep(0.1)

    async def prune(self) -> int:
        keeper = SpaceKeeper(self.cache, self.settings, self.node, log=lambda _line: None, surveyor=self.surveyor)
        return len(await keeper.prune(SpaceRules(budget=1)))

    @property
    def has_it(self) -> bool:
        return (self.cache.repo(KEY[0]).snapshot(KEY[1]) / "model.safetensors").exists()


@pytest.mark.main
async def test_of_two_nodes_that_prune_at_once_one_keeps_its_copy(tmp_path: Path) -> None:
    publishes = token_file(tmp_path)
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(FakeHub(SNAPSHOT))
        app = coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS)
        url = await stack.enter_async_context(serving(app, "127.0.0.1", 0, grace=0.2))
        members = [
            _Member(
                Settings(
                    cache_dir=tmp_path / name / "hub",
                    state_dir=tmp_path / name / "state",
                    mirrors=(MirrorSettings(name="m", endpoint=hub.url),),
                    coordinators=(url,),
                    publish_token_file=publishes,
                    swarm=SwarmSettings(listen=f"{address}:0"),
                )
            )
            for name, address in (("a", "127.0.0.2"), ("b", "127.0.0.3"))
        ]
        for member in members:
            await member.start(stack)
        for member in members:
            await member.sees(1)
        removed = await asyncio.gather(*(member.prune() for member in members))
        assert sum(removed) <= 1
        assert [member.has_it for member in members].count(True) == 2 - sum(removed) >= 1
        for member in members:
            if member.has_it:
                await member.sees(1 - sum(removed))
        for member in members:
            if member.has_it and sum(member.has_it for member in members) == 1:
                assert await member.prune() == 0
                assert member.has_it
