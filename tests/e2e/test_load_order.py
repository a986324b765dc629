"""A load beside a daemon has the daemon download what it waits for before everything else: real processes."""

import asyncio
import random
from pathlib import Path

import pytest

from p2pmodel.client import Client, DaemonOrder
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.views import RateLimits
from p2pmodel.loading.arrival.arrival_watch import ArrivalWatch
from p2pmodel.loading.arrival.tensor_order import NeedOrder, OrderRequests, TensorRange
from p2pmodel.store.arriving_file import ArrivingFile
from p2pmodel.store.cache import HubCache, RepoCache
from tests.support.eventually import PATIENCE
from tests.support.processes import Nodes

pytestmark = pytest.mark.main

REPO = "org/model"
SHARD, SHARDS = 18 << 20, 2
TENSOR = 512 << 10
LIMIT = 2_000_000
"""Bytes a second: a whole download takes 19 seconds."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    for number in range(SHARDS):
        (source / f"model-{number}.safetensors").write_bytes(random.Random(number).randbytes(SHARD))
    return source


def test_a_late_tensor_comes_first(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    """Alone with its seeder a daemon downloads the files in their order; the last tensor would come last."""
    coordinator = str(nodes.seed(model, "--as", REPO).ready()["coordinator"])
    socket = tmp_path / "d.sock"
    where = ("--coordinator", coordinator, "--endpoint", "http://127.0.0.1:9", "--swarm-listen", "127.0.0.11:0")
    daemon = nodes.start("node", "daemon", *where, "--json", P2PMODEL_DAEMON_SOCKET=str(socket))
    daemon.ready()
    arrived, total = asyncio.run(read_last(HubCache(nodes.cache("node")), socket))
    assert TENSOR <= arrived < 0.9 * total, "in the order of the files all else is there before"
    assert daemon.stop().code == 0


async def read_last(cache: HubCache, socket: Path) -> tuple[int, int]:
    """Bytes of the shards that had arrived when the last tensor of the last one could be read, and all of them."""
    async with asyncio.timeout(PATIENCE), Client(socket) as client:
        await client.limit(RateLimits(0, LIMIT))
        view = await client.start(REPO)
        repo = cache.repo(RepoId(REPO))
        manifest = await listed(repo, view.commit)
        weights = [file for file in manifest.files if file.path.endswith(".safetensors")]
        watch = ArrivalWatch({file.path: ArrivingFile(repo, file) for file in weights})
        need = NeedOrder(manifest.total_size, [], weights)
        late = TensorRange("late", weights[-1].path, SHARD - TENSOR, SHARD)
        need.begin([late, TensorRange("rest", weights[0].path, 0, SHARD)])
        order = DaemonOrder(socket)
        requests = OrderRequests(need, watch.gaps, lambda places: order.request(repo.repo, view.commit, places))
        running = asyncio.create_task(requests.run())
        try:
            while watch.gaps(late.shard, late.start, late.end):
                await asyncio.to_thread(watch.look)
                await asyncio.sleep(0.02)
            return sum(watch.file(file.path).arrived_bytes for file in weights), sum(file.size for file in weights)
        finally:
            running.cancel()
            watch.close()


async def listed(repo: RepoCache, commit: str) -> Manifest:
    while True:
        manifest = await asyncio.to_thread(repo.manifest, commit)
        if manifest is not None:
            return manifest
        await asyncio.sleep(0.02)
