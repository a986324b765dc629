"""Large files of a lone node: with a real coordinator, real seeders over HTTP, and the in-memory swarm."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import demand_text, lease_path
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.pace import Pace
from p2pmodel.http.server import serving
from p2pmodel.node.fetch.download import Download
from p2pmodel.node.fetch.lone import files as lone_files
from p2pmodel.store.growing_file import GrowingFiles
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm, assert_nothing_runs

KIB = 1 << 10
SAME = random.Random(3).randbytes(600 * KIB)
CONTENTS = {
    "config.json": b"{}",
    "empty.txt": b"",
    "0.safetensors": random.Random(1).randbytes(1500 * KIB + 17),
    "1.safetensors": random.Random(2).randbytes(900 * KIB),
    "copy.safetensors": SAME,
    "other/copy.safetensors": SAME,
}
LARGE_ONES = sum(len(CONTENTS[name]) for name in ("0.safetensors", "1.safetensors", "copy.safetensors"))
SIZE = sum(map(len, CONTENTS.values()))
HALF = LARGE_ONES / 2
"""More has come when something waits for whole files to end."""
SLOW = 250_000


@pytest.fixture
def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    monkeypatch.setattr(lone_files, "LARGE", 500 * KIB)
    monkeypatch.setattr(lone_files, "LEAST", 500 * KIB)
    return Swarm(tmp_path, snapshot_of(CONTENTS))


class Coordinator:
    """A coordinator of `swarm`: `url`, and its sources."""

    def __init__(self, swarm: Swarm, url: str, sources: Sources) -> None:
        self.url = url
        self._swarm = swarm
        self._sources = sources

    def name_source(self, hub: FakeHub, token: str = "") -> None:
        self._sources.add(self._swarm.metainfo.info_hash, Source(hub.url, token))

    @asynccontextmanager
    async def another_node(self) -> AsyncIterator[None]:
        """A node that lacks everything is connected while the context lasts."""
        count = self._swarm.metainfo.layout.piece_count
        url = self.url + lease_path(self._swarm.metainfo.info_hash)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, params={"peer": "127.0.0.7:1", "id": "another"}) as socket,
        ):
            await socket.send_str(demand_text(Demand((1 << count) - 1, from_seeders=False, want=0), count))
            yield


@asynccontextmanager
async def coordinator(swarm: Swarm) -> AsyncIterator[Coordinator]:
    catalog, sources = Catalog(), Sources(time.monotonic)
    await catalog.publish(read_publication(swarm.metainfo.raw))
    async with serving(coordinator_app(Tracker(), catalog, sources=sources), "127.0.0.1", 0, grace=0.2) as url:
        yield Coordinator(swarm, url, sources)


def whole_requests(hub: FakeHub) -> list[str]:
    """Files that were asked for from some byte to the end, by their names."""
    return sorted(each.path.rpartition("/")[2] for each in hub.requests if each.range.endswith("-"))


@dataclass
class Scene:
    """A lone node beside a coordinator, which lists one seeder."""

    hub: FakeHub
    """The seeder."""
    boss: Coordinator
    transfer: Download

    async def has(self, size: float) -> None:
        """Wait until it has more than `size` bytes."""
        await eventually(lambda: self.transfer.progress().done > size, what="it has begun")

    async def joins(self) -> None:
        """Wait until it is in the swarm, which it must be long before the large files could have come whole."""
        await eventually(lambda: self.transfer.pieces().count > 0, what="it is in the swarm")
        assert self.transfer.progress().done < HALF

    def hurry(self) -> None:
        """Let the rest come at full speed: it is no part of the test."""
        self.hub._rate = 0


@asynccontextmanager
async def scene(
    swarm: Swarm,
    *,
    rate: int = 0,
    faults: Sequence[str] = (),
    token: str = "",
    pace: Pace | None = None,
    growing: GrowingFiles | None = None,
) -> AsyncIterator[Scene]:
    async with (
        FakeHub(swarm.snapshot, rate=rate, faults=faults, token=token or None) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=30, pace=pace, growing=growing) as transfer,
    ):
        boss.name_source(hub, token)
        yield Scene(hub, boss, transfer)


@asynccontextmanager
async def downloading(swarm: Swarm, **options: Any) -> AsyncIterator[Scene]:
    """As `scene`; it downloads meanwhile, and publishes the snapshot in the end."""
    async with scene(swarm, **options) as found, asyncio.TaskGroup() as group:
        group.create_task(found.transfer.download())
        yield found
    assert swarm.published() == CONTENTS


async def test_alone_it_downloads_large_files_whole_and_each_content_once(swarm: Swarm) -> None:
    async with scene(swarm, token="t0ken") as found:
        await found.transfer.download()
        progress, hub = found.transfer.progress(), found.hub
    assert whole_requests(hub) == ["0.safetensors", "1.safetensors", "copy.safetensors"]
    assert hub.sent == LARGE_ONES + len(CONTENTS["config.json"])
    assert progress.done == progress.total == SIZE
    assert progress.from_seeders >= LARGE_ONES
    assert progress.rejected == 0
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_its_progress_counts_what_is_on_its_way(swarm: Swarm) -> None:
    async with downloading(swarm, rate=1_500_000) as found:
        await found.has(SIZE / 4)
        assert found.transfer.progress().phase == "downloading"
        (seeder,) = await found.transfer.connections()
        assert seeder.downloaded > SIZE / 8
        await eventually(lambda: found.transfer.progress().download_rate > 0, what="it has a rate")


async def test_once_another_node_comes_it_joins_with_what_is_right(swarm: Swarm) -> None:
    async with downloading(swarm, rate=SLOW) as found:
        await found.has(SIZE / 10)
        async with found.boss.another_node():
            await found.joins()
            assert any(found.transfer.pieces().have), "what it had was lost"
            found.hurry()
    assert found.hub.sent < SIZE + 8 * swarm.metainfo.layout.piece_length, "what it had came again"
    await assert_nothing_runs()


async def test_shortly_before_its_end_it_goes_on(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lone_files, "ALMOST_DONE", 1e6)
    async with scene(swarm, rate=1_500_000) as found, asyncio.TaskGroup() as group:
        work = group.create_task(found.transfer.download())
        await found.has(SIZE / 10)
        async with found.boss.another_node():
            await work
    assert whole_requests(found.hub) == ["0.safetensors", "1.safetensors", "copy.safetensors"]
    assert swarm.published() == CONTENTS


async def test_wrong_bytes_of_a_seeder_get_no_name_and_are_replaced(swarm: Swarm) -> None:
    wrong: list[str] = []

    def look(_request: object) -> None:
        blobs = swarm.cache().repo(swarm.metainfo.manifest.repo).folder.glob("blobs/*")
        named = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in blobs]
        wrong.extend(name for name, found in named if len(name) == len(found) and name != found)

    async with scene(swarm, faults=["flip@0.safetensors*1"]) as found:
        found.hub.on_request = look
        await found.transfer.download()
        assert found.transfer.progress().from_cache == 0
    assert found.hub.faults[0].hits == 1
    sent = sum(each.sent for each in found.hub.asked("0.safetensors"))
    assert sent < len(CONTENTS["0.safetensors"]) + 2 * swarm.metainfo.layout.piece_length, "right pieces came again"
    assert not wrong
    assert swarm.published() == CONTENTS


async def test_a_killed_download_goes_on_where_it_was(swarm: Swarm) -> None:
    async with scene(swarm, rate=SLOW) as found:
        work = asyncio.create_task(found.transfer.download())
        await found.has(SIZE / 4)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    before = found.hub.sent
    async with scene(swarm) as found:
        await found.transfer.download()
        assert found.transfer.progress().from_cache > SIZE / 8
    assert before + found.hub.sent < SIZE + 8 * swarm.metainfo.layout.piece_length, "what it had came again"
    assert any(each.range.endswith("-") and each.range != "bytes=0-" for each in found.hub.requests)
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_it_keeps_no_thread_of_the_event_loop_busy(swarm: Swarm) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with downloading(swarm, rate=SLOW) as found:
        await eventually(lambda: bool(whole_requests(found.hub)), what="a seeder is asked")
        assert await asyncio.to_thread(lambda: found.transfer.progress().done) < HALF
        found.hurry()


async def test_below_a_limit_the_swarm_is_used(swarm: Swarm) -> None:
    async with downloading(swarm, pace=Pace(100_000_000)) as found:
        pass
    assert not whole_requests(found.hub)


async def test_a_limit_that_is_set_meanwhile_ends_it(swarm: Swarm) -> None:
    pace = Pace()
    async with downloading(swarm, rate=SLOW, pace=pace) as found:
        await found.has(SIZE / 10)
        pace.change(100_000_000)
        await found.joins()
        found.hurry()


async def test_a_client_that_reads_ends_it(swarm: Swarm) -> None:
    growing = GrowingFiles()
    (last,) = (file for file in swarm.metainfo.manifest.files if file.path == "other/copy.safetensors")
    async with downloading(swarm, rate=SLOW, growing=growing) as found, asyncio.TaskGroup() as group:
        await found.has(SIZE / 10)
        repo = swarm.cache().repo(swarm.metainfo.manifest.repo)
        reading = group.create_task(growing.file(repo, last).open())
        await found.joins()
        found.hurry()
        with await reading as reader:
            await reader.ready(0)
            assert reader.file.read(100) == SAME[:100]


@pytest.mark.parametrize("fault", ["status:403*1", "slow:2000*3"], ids=["refuses", "trickles"])
async def test_a_seeder_that_fails_leaves_it_to_the_swarm(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(lone_files, "STUCK_FOR", 0.3)
    async with asyncio.timeout(60), downloading(swarm, faults=[fault]) as found:
        await found.has(SIZE - 1)


def test_threads_do_not_outlive_a_download(swarm: Swarm) -> None:
    async def cancel_one() -> float:
        async with scene(swarm, faults=["stall"]) as found:
            work = asyncio.create_task(found.transfer.download())
            await eventually(lambda: bool(whole_requests(found.hub)), what="a seeder is asked")
            began = time.monotonic()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return time.monotonic() - began

    assert asyncio.run(cancel_one()) < 2.0
