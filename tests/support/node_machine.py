"""A long-lived node over real files and the in-memory swarm, and the disk that outlives it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.progress.views import State, TransferView
from p2pmodel.node.fetch.job import NodeContext
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.node import Node
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.memory.engine import MemoryEngine
from tests.support.eventually import PATIENCE
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import CONTENTS, Swarm, assert_nothing_runs, without_mirrors

SEEDER = "127.0.0.2"


@dataclass
class Machine:
    """What outlives a node's process: its disk. `running` is the node on it."""

    root: Path
    swarm: Swarm
    settings: Settings
    stack: AsyncExitStack
    notes: list[str] = field(default_factory=list)
    engine: MemoryEngine | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        async with self.swarm.engine() as self.engine:
            context = NodeContext(self.engine, HubCache(self.settings.cache_dir))
            async with Node(context, self.settings, self.root / "state", note=self.notes.append) as node:
                yield node
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("transfer")]
            assert not self.engine.torrents

    async def seeder(self, swarm: Swarm | None = None, host: str = SEEDER) -> MemoryEngine:
        engine = await self.stack.enter_async_context(self.swarm.engine(host))
        await (swarm or self.swarm).seed(engine)
        return engine

    def use(self, **settings: object) -> None:
        self.settings = self.settings.model_copy(update=settings)

    def published(self, swarm: Swarm | None = None) -> dict[str, bytes]:
        manifest = (swarm or self.swarm).metainfo.manifest
        folder = HubCache(self.settings.cache_dir).repo(manifest.repo).snapshot(manifest.commit)
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def refs(self) -> dict[str, str]:
        return HubCache(self.settings.cache_dir).repo(self.swarm.metainfo.manifest.repo).refs()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    settings = Settings(
        cache_dir=tmp_path / "hub",
        mirrors=(),
        offline=True,
        origin=OriginSettings(connect_timeout=1, read_timeout=1, patience=1),
        swarm=without_mirrors(peer_timeout=0.1, stall_timeout=30.0, coordinator_timeout=1.0),
    )
    async with AsyncExitStack() as stack:
        yield Machine(tmp_path, Swarm(tmp_path), settings, stack)
    await assert_nothing_runs()


def torrent(swarm: Swarm, **options: object) -> FetchRequest:
    path = swarm.root / f"{swarm.metainfo.info_hash}.torrent"
    path.write_bytes(swarm.metainfo.raw)
    return FetchRequest(parse_target(str(path)), **options)  # type: ignore[arg-type]


def other_swarm(machine: Machine, number: int) -> Swarm:
    """Another snapshot in the same network."""
    swarm = Swarm(machine.root, snapshot_of(CONTENTS | {"config.json": b"%d" % number}, repo=f"org/other-{number}"))
    swarm.network = machine.swarm.network
    return swarm


async def until(node: Node, ident: str, met: Callable[[TransferView], bool]) -> TransferView:
    async with asyncio.timeout(PATIENCE):
        while True:
            version = node.version.value
            if met(view := node.transfer(ident)):
                return view
            await node.version.beyond(version, timeout=PATIENCE)


async def until_state(node: Node, ident: str, *states: State) -> TransferView:
    return await until(node, ident, lambda view: view.state in states)
