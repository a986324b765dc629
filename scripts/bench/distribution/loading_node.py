"""A node that fetches REPO and asks for the next tensors of a load meanwhile: python -m
scripts.bench.distribution.loading_node REPO.

Settings come from the environment. The load is a twin without torch: it takes tensors of a fixed size, each as soon as
it has arrived, so it never waits for anything but bytes. Prints a line once the snapshot is complete, and another one
once all tensors were taken; then it seeds.
"""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Sequence

from p2pmodel.config.sources import load_settings
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.request_window import FileRange
from p2pmodel.core.tasks import companions, together
from p2pmodel.loading.arrival.arrival_watch import ArrivalWatch
from p2pmodel.loading.arrival.tensor_order import NeedOrder, OrderRequests, TensorRange, begin_with, file_after_file
from p2pmodel.loading.formats import is_settings
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FOR_EVER, FetchRequest, FetchResult
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.target import ResolvedTarget, parse_target
from p2pmodel.store.arriving_file import ArrivingFile

TENSORS = 64
"""Tensors of a shard."""
LOOK_EVERY = 0.05


class LoadTwin:
    """Takes the tensors of the snapshot that `fetch` downloads, in the order of a load."""

    def __init__(self, fetch: Fetch, target: ResolvedTarget) -> None:
        self._fetch = fetch
        self._manifest = manifest = target.manifest
        repo, files = fetch.repo(manifest), fetch.selected(manifest)
        self._settings = [file for file in files if is_settings(file.path, file.size)]
        self._weights = [file for file in files if file.path.endswith(".safetensors")]
        self._watch = ArrivalWatch({file.path: ArrivingFile(repo, file) for file in (*self._settings, *self._weights)})
        self._need = NeedOrder(manifest.total_size, self._settings, self._weights)

    async def run(self) -> None:
        """Until all tensors were taken."""
        async with companions() as start:
            start(self._follow())
            start(OrderRequests(self._need, self._watch.gaps, self._request).run())
            await asyncio.to_thread(self._take_all)
        await asyncio.to_thread(self._watch.close)

    async def _request(self, places: Sequence[FileRange]) -> bool:
        return self._fetch.request_first(self._manifest, places).in_swarm

    async def _follow(self) -> None:
        while True:
            await asyncio.to_thread(self._watch.look)
            await asyncio.sleep(LOOK_EVERY)

    def _take_all(self) -> None:
        for file in self._settings:
            self._watch.wait_verified(file.path)
        for file in self._weights:
            self._watch.wait(file.path, 0, 1)
        arrived = [self._watch.file(file.path).arrived_bytes for file in self._weights]
        shards, first = [file.path for file in self._weights], begin_with(arrived, secrets.randbelow(1 << 16))
        order = file_after_file([each for file in self._weights for each in _tensors(file)], shards, first)
        self._need.begin(order)
        for place in order:
            self._watch.wait(place.shard, place.start, place.end)


def _tensors(file: ManifestFile) -> list[TensorRange]:
    length = max(1, -(-file.size // TENSORS))
    starts = range(0, file.size, length)
    return [TensorRange(f"{file.path}:{start}", file.path, start, min(start + length, file.size)) for start in starts]


async def _run(repo: str) -> None:
    fetch = Fetch(FetchRequest(parse_target(repo), seed_seconds=FOR_EVER), load_settings(), Reporter())
    found: asyncio.Future[ResolvedTarget] = asyncio.get_running_loop().create_future()
    began = time.monotonic()

    def complete(result: FetchResult) -> None:
        print(json.dumps({"path": str(result.path), "seconds": time.monotonic() - began}), flush=True)

    async def load() -> None:
        await LoadTwin(fetch, await found).run()
        print(json.dumps({"loaded": time.monotonic() - began}), flush=True)

    await together([fetch.run(complete, on_found=found.set_result), load()])


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1]))
