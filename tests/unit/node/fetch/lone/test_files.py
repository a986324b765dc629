"""Large files of a lone node: with a real coordinator, real seeders over HTTP, and the in-memory swarm."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

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


async def test_alone_it_downloads_large_files_whole_and_each_content_once(swarm: Swarm) -> None:
    async with FakeHub(swarm.snapshot, token="t0ken") as hub, coordinator(swarm) as boss, swarm.engine() as engine:
        boss.name_source(hub, "t0ken")
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=9) as transfer:
            await transfer.download()
            progress = transfer.progress()
        assert whole_requests(hub) == ["0.safetensors", "1.safetensors", "copy.safetensors"]
        assert hub.sent == LARGE_ONES + len(CONTENTS["config.json"])
        assert progress.done == progress.total == SIZE
        assert progress.from_seeders >= LARGE_ONES
        assert progress.rejected == 0
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_its_progress_counts_what_is_on_its_way(swarm: Swarm) -> None:
    async with (
        FakeHub(swarm.snapshot, rate=1_500_000) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        asyncio.TaskGroup() as group,
    ):
        boss.name_source(hub)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=9) as transfer:
            work = group.create_task(transfer.download())
            await eventually(lambda: transfer.progress().done > SIZE / 4, what="it has begun")
            assert transfer.progress().phase == "downloading"
            (seeder,) = await transfer.connections()
            assert seeder.downloaded > SIZE / 8
            await eventually(lambda: transfer.progress().download_rate > 0, what="it has a rate")
            await work
    assert swarm.published() == CONTENTS


async def test_once_another_node_comes_it_joins_with_what_is_right(swarm: Swarm) -> None:
    async with (
        FakeHub(swarm.snapshot, rate=SLOW) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        asyncio.TaskGroup() as group,
    ):
        boss.name_source(hub)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=30) as transfer:
            work = group.create_task(transfer.download())
            await eventually(lambda: transfer.progress().done > SIZE / 10, what="it has begun")
            async with boss.another_node():
                await eventually(lambda: transfer.pieces().count > 0, what="it is in the swarm")
                here = transfer.pieces().have
                assert any(here), "what it had was lost"
                assert transfer.progress().done < HALF
                hub._rate = 0  # the rest is no part of the test
            await work
        pieces = swarm.metainfo.layout.piece_length
        assert hub.sent < SIZE + 8 * pieces, "what it had came again"
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_shortly_before_its_end_it_goes_on(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lone_files, "ALMOST_DONE", 1e6)
    async with (
        FakeHub(swarm.snapshot, rate=1_500_000) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        asyncio.TaskGroup() as group,
    ):
        boss.name_source(hub)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=30) as transfer:
            work = group.create_task(transfer.download())
            await eventually(lambda: transfer.progress().done > SIZE / 10, what="it has begun")
            async with boss.another_node():
                await work
        assert whole_requests(hub) == ["0.safetensors", "1.safetensors", "copy.safetensors"]
    assert swarm.published() == CONTENTS


async def test_wrong_bytes_of_a_seeder_get_no_name_and_are_replaced(swarm: Swarm) -> None:
    wrong: list[str] = []

    def look(_request: object) -> None:
        blobs = swarm.cache().repo(swarm.metainfo.manifest.repo).folder.glob("blobs/*")
        named = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in blobs]
        wrong.extend(name for name, found in named if len(name) == len(found) and name != found)

    fault = "flip@0.safetensors*1"
    async with FakeHub(swarm.snapshot, faults=[fault]) as hub, coordinator(swarm) as boss, swarm.engine() as engine:
        boss.name_source(hub)
        hub.on_request = look
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=30) as transfer:
            await transfer.download()
            assert transfer.progress().from_cache == 0
        assert hub.faults[0].hits == 1
        sent = sum(each.sent for each in hub.asked("0.safetensors"))
        assert sent < len(CONTENTS["0.safetensors"]) + 2 * swarm.metainfo.layout.piece_length, "right pieces came again"
    assert not wrong
    assert swarm.published() == CONTENTS


async def test_a_killed_download_goes_on_where_it_was(swarm: Swarm) -> None:
    async with coordinator(swarm) as boss, swarm.engine() as engine, FakeHub(swarm.snapshot, rate=SLOW) as hub:
        boss.name_source(hub)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=9) as transfer:
            work = asyncio.create_task(transfer.download())
            await eventually(lambda: transfer.progress().done > SIZE / 4, what="it has begun")
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
        first, hub._rate = hub.sent, 0
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=9) as transfer:
            await transfer.download()
            assert transfer.progress().from_cache > SIZE / 8
        pieces = swarm.metainfo.layout.piece_length
        assert hub.sent < SIZE + 8 * pieces, f"what it had came again, after {first}"
        assert any(each.range.endswith("-") and each.range != "bytes=0-" for each in hub.requests)
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_it_keeps_no_thread_of_the_event_loop_busy(swarm: Swarm) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with (
        FakeHub(swarm.snapshot, rate=SLOW) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        asyncio.TaskGroup() as group,
    ):
        boss.name_source(hub)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=9) as transfer:
            work = group.create_task(transfer.download())
            await eventually(lambda: bool(whole_requests(hub)), what="a seeder is asked")
            assert await asyncio.to_thread(lambda: transfer.progress().done) < HALF
            assert not work.done()
            hub._rate = 0
            await work
    assert swarm.published() == CONTENTS


async def test_below_a_limit_the_swarm_is_used(swarm: Swarm) -> None:
    async with FakeHub(swarm.snapshot) as hub, coordinator(swarm) as boss, swarm.engine() as engine:
        boss.name_source(hub)
        pace = Pace(100_000_000)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=9, pace=pace) as transfer:
            await transfer.download()
        assert not whole_requests(hub)
    assert swarm.published() == CONTENTS


async def test_a_limit_that_is_set_meanwhile_ends_it(swarm: Swarm) -> None:
    pace = Pace()
    async with FakeHub(swarm.snapshot, rate=SLOW) as hub, coordinator(swarm) as boss, swarm.engine() as engine:
        boss.name_source(hub)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=9, pace=pace) as transfer:
            work = asyncio.create_task(transfer.download())
            await eventually(lambda: transfer.progress().done > SIZE / 10, what="it has begun")
            pace.change(100_000_000)
            await eventually(lambda: transfer.pieces().count > 0, what="it is in the swarm")
            assert transfer.progress().done < HALF
            hub._rate = 0
            await work
    assert swarm.published() == CONTENTS


async def test_a_client_that_reads_ends_it(swarm: Swarm) -> None:
    growing = GrowingFiles()
    last = swarm.metainfo.manifest.files[swarm_index(swarm, "other/copy.safetensors")]
    async with (
        FakeHub(swarm.snapshot, rate=SLOW) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        asyncio.TaskGroup() as group,
    ):
        boss.name_source(hub)
        transfer = swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=30, growing=growing)
        async with transfer:
            work = group.create_task(transfer.download())
            await eventually(lambda: transfer.progress().done > SIZE / 10, what="it has begun")
            repo = swarm.cache().repo(swarm.metainfo.manifest.repo)
            reading = group.create_task(growing.file(repo, last).open())
            await eventually(lambda: transfer.pieces().count > 0, what="it is in the swarm, where pieces have an order")
            assert transfer.progress().done < HALF
            hub._rate = 0
            with await reading as reader:
                await reader.ready(0)
                assert reader.file.read(100) == SAME[:100]
            await work
    assert swarm.published() == CONTENTS


def swarm_index(swarm: Swarm, path: str) -> int:
    return [file.path for file in swarm.metainfo.manifest.files].index(path)


async def test_a_seeder_that_refuses_leaves_it_to_the_swarm(swarm: Swarm) -> None:
    async with (
        FakeHub(swarm.snapshot, faults=["status:403*1"]) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
    ):
        boss.name_source(hub)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=30) as transfer:
            await transfer.download()
            assert transfer.progress().done == SIZE
    assert swarm.published() == CONTENTS


async def test_a_trickle_is_silence(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lone_files, "STUCK_FOR", 0.3)
    async with (
        FakeHub(swarm.snapshot, faults=["slow:2000*3"]) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
    ):
        boss.name_source(hub)
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=30) as transfer:
            async with asyncio.timeout(20):
                await transfer.download()
    assert swarm.published() == CONTENTS


def test_threads_do_not_outlive_a_download(swarm: Swarm) -> None:
    async def cancel_one() -> float:
        async with FakeHub(swarm.snapshot, faults=["stall"]) as hub, coordinator(swarm) as boss:
            boss.name_source(hub)
            async with swarm.engine() as engine:
                transfer: Download = swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=30)
                async with transfer:
                    work = asyncio.create_task(transfer.download())
                    await eventually(lambda: bool(whole_requests(hub)), what="a seeder is asked")
                    began = time.monotonic()
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                    return time.monotonic() - began

    assert asyncio.run(cancel_one()) < 2.0
