"""A transfer under leases: with a real coordinator, real seeders and mirrors over HTTP, and the in-memory swarm."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.coordinator.client import connection
from p2pmodel.coordinator.leases.demand import Demand
from p2pmodel.coordinator.leases.messages import demand_text, lease_path
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.pace import Pace
from p2pmodel.errors import Unavailable
from p2pmodel.http.server import serving
from p2pmodel.node.fetch.download import Download
from p2pmodel.node.fetch.lone import web_seeds
from p2pmodel.node.fetch.pieces import feed as piece_feed
from p2pmodel.node.fetch.pieces import lease_strategy, leaseholder, seeders
from p2pmodel.origin.origin import Origin
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.node_swarm import CONTENTS, Swarm, assert_nothing_runs

PATIENT = OriginSettings(connect_timeout=1, read_timeout=1, patience=0.5)
CLOSED = "http://127.0.0.1:1"


@pytest.fixture
def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    monkeypatch.setattr(piece_feed, "TICK", 0.05)
    monkeypatch.setattr(lease_strategy, "CONNECT_WITHIN", 0.2)
    monkeypatch.setattr(connection, "RECONNECT", 0.1)
    monkeypatch.setattr(connection, "HEARTBEAT", 0.1)
    monkeypatch.setattr(leaseholder, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(seeders, "PATIENCE", 0.5)
    monkeypatch.setattr(web_seeds, "SILENCE", 0.3)
    return Swarm(tmp_path)


@dataclass
class Coordinator:
    url: str
    sources: Sources


@asynccontextmanager
async def coordinator(swarm: Swarm, *, budget: float = 1.05) -> AsyncIterator[Coordinator]:
    catalog, sources = Catalog(), Sources(time.monotonic)
    await catalog.publish(read_publication(swarm.metainfo.raw))
    app = coordinator_app(Tracker(), catalog, sources=sources, origin_budget=budget)
    async with serving(app, "127.0.0.1", 0, grace=0.2) as url:
        yield Coordinator(url, sources)


def mirror(endpoint: str) -> Origin:
    return Origin([MirrorSettings(name="m0", endpoint=endpoint)], PATIENT)


async def test_leased_pieces_come_from_a_seeder_over_http_and_count_as_from_peers(swarm: Swarm) -> None:
    async with (
        FakeHub(swarm.snapshot, token="t0ken") as seeder,
        FakeHub(swarm.snapshot) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        mirror(hub.url) as origin,
    ):
        boss.sources.add(swarm.metainfo.info_hash, Source(seeder.url, "t0ken"))
        async with swarm.transfer(engine, origin=origin, coordinators=(boss.url,)) as transfer:
            await transfer.download()
            progress = transfer.progress()
        assert progress.from_peers == progress.from_seeders == progress.total
        assert seeder.sent == progress.total
        assert hub.sent == 0
    assert swarm.published() == CONTENTS


async def test_seeders_are_pulled_from_at_a_pace_that_may_change(swarm: Swarm) -> None:
    pace = Pace(1024)
    async with FakeHub(swarm.snapshot) as seeder, coordinator(swarm) as boss, swarm.engine() as engine:
        boss.sources.add(swarm.metainfo.info_hash, Source(seeder.url, ""))
        async with swarm.transfer(engine, coordinators=(boss.url,), pace=pace) as transfer:
            downloading = asyncio.create_task(transfer.download())
            await eventually(lambda: seeder.sent > 0, what="it has begun")
            await asyncio.sleep(0.3)
            assert transfer.progress().done < transfer.progress().total
            pace.change(None)
            await downloading
            assert transfer.progress().from_seeders == transfer.progress().total


@pytest.mark.parametrize("seeded", [True, False], ids=["seeder", "mirror"])
async def test_peers_that_start_together_pull_one_copy_in_all(swarm: Swarm, seeded: bool) -> None:
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(FakeHub(swarm.snapshot, rate=2_000_000))
        boss = await stack.enter_async_context(coordinator(swarm))
        if seeded:
            boss.sources.add(swarm.metainfo.info_hash, Source(hub.url))
        transfers: list[Download] = []
        for number in range(4):
            engine = await stack.enter_async_context(swarm.engine(f"127.0.0.{number + 2}"))
            origin = await stack.enter_async_context(mirror(CLOSED if seeded else hub.url))
            one = swarm.transfer(
                engine, cache=swarm.cache(f"peer{number}"), origin=origin, coordinators=(boss.url,), stall_timeout=5
            )
            transfers.append(await stack.enter_async_context(one))
        await asyncio.gather(*(transfer.download() for transfer in transfers))
        total = transfers[0].progress().total
        assert hub.sent <= 1.1 * total
        assert sum(t.progress().from_mirrors for t in transfers) == (0 if seeded else hub.sent)
    for number in range(4):
        assert swarm.published(swarm.cache(f"peer{number}")) == CONTENTS


async def test_a_coordinator_that_is_gone_from_the_start_is_done_without(swarm: Swarm) -> None:
    async with (
        FakeHub(swarm.snapshot) as hub,
        swarm.engine() as engine,
        mirror(hub.url) as origin,
        swarm.transfer(engine, origin=origin, coordinators=(CLOSED,), peer_timeout=0.1) as transfer,
    ):
        await transfer.download()
        assert transfer.progress().from_mirrors == transfer.progress().total
    assert swarm.published() == CONTENTS


@pytest.mark.parametrize("seeded", [True, False], ids=["seeder", "mirror"])
async def test_a_transfer_completes_without_a_coordinator_lost_midway(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch, seeded: bool
) -> None:
    monkeypatch.setattr(leaseholder, "LOST_FOR", 0.3)
    async with (
        FakeHub(swarm.snapshot, rate=1_000_000) as hub,
        swarm.engine() as engine,
        mirror(CLOSED if seeded else hub.url) as origin,
        asyncio.TaskGroup() as group,
    ):
        async with coordinator(swarm) as boss:
            if seeded:
                boss.sources.add(swarm.metainfo.info_hash, Source(hub.url))
            transfer = swarm.transfer(
                engine, origin=origin, coordinators=(boss.url,), peer_timeout=0.5, stall_timeout=5
            )
            work = group.create_task(download(transfer))
            await eventually(lambda: transfer.progress().done > 100_000, what="it has begun")
            assert not work.done()
        await work
    assert swarm.published() == CONTENTS


async def download(transfer: Download) -> None:
    async with transfer:
        await transfer.download()


async def test_a_seeder_that_dies_midway_is_replaced_by_mirrors(swarm: Swarm) -> None:
    async with (
        FakeHub(swarm.snapshot) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        mirror(hub.url) as origin,
        asyncio.TaskGroup() as group,
    ):
        transfer = swarm.transfer(engine, origin=origin, coordinators=(boss.url,), stall_timeout=9)
        async with FakeHub(swarm.snapshot, rate=500_000) as seeder:
            boss.sources.add(swarm.metainfo.info_hash, Source(seeder.url))
            work = group.create_task(download(transfer))
            await eventually(lambda: transfer.progress().from_peers > 0, what="it has begun")
        await work
        progress = transfer.progress()
        assert progress.from_peers > 0
        assert progress.from_mirrors > 0
        assert progress.from_peers + progress.from_mirrors == progress.total
    assert swarm.published() == CONTENTS


async def test_a_spent_budget_delays_a_node_that_has_no_peers_and_does_not_stop_it(swarm: Swarm) -> None:
    async with (
        FakeHub(swarm.snapshot) as hub,
        coordinator(swarm, budget=0.25) as boss,
        swarm.engine() as engine,
        mirror(hub.url) as origin,
    ):
        async with swarm.transfer(engine, origin=origin, coordinators=(boss.url,), peer_timeout=0.5) as transfer:
            await transfer.download()
            progress = transfer.progress()
        assert progress.from_mirrors == progress.total == hub.sent
        assert "cannot reach its peers" in progress.exception
        (note,) = [line for line in swarm.heard.notes if "cannot reach its peers" in line]
        assert "from the mirrors" in note
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_a_spent_budget_is_named_while_a_node_waits(swarm: Swarm) -> None:
    async with (
        FakeHub(swarm.snapshot) as hub,
        coordinator(swarm, budget=0.25) as boss,
        swarm.engine() as engine,
        mirror(hub.url) as origin,
    ):
        with pytest.raises(Unavailable, match=r"no source for .*swarm\.origin_budget") as caught:
            async with swarm.transfer(engine, origin=origin, coordinators=(boss.url,)) as transfer:
                await transfer.download()
        assert "\n" not in str(caught.value)
        pieces = swarm.metainfo.layout.piece_count
        assert 0 < hub.sent <= (0.25 + 2 / pieces) * swarm.metainfo.manifest.total_size + (1 << 20)
        assert hub.sent < swarm.metainfo.manifest.total_size
    await assert_nothing_runs()


async def test_where_leases_never_come_the_seeder_is_asked_without_them(swarm: Swarm) -> None:
    """Hostile leaseholders hold everything, and the mirror is left alone."""
    async with (
        FakeHub(swarm.snapshot) as seeder,
        FakeHub(swarm.snapshot) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        mirror(hub.url) as origin,
        asyncio.TaskGroup() as group,
    ):
        boss.sources.add(swarm.metainfo.info_hash, Source(seeder.url))
        hostile = group.create_task(claim_everything(boss.url, swarm))
        async with swarm.transfer(
            engine, origin=origin, coordinators=(boss.url,), peer_timeout=0.5, stall_timeout=30
        ) as transfer:
            await transfer.download()
            progress = transfer.progress()
        hostile.cancel()
        assert progress.from_seeders == progress.total
        assert progress.exception == ""
        assert hub.sent == 0
    assert swarm.published() == CONTENTS


async def claim_everything(coordinator: str, swarm: Swarm) -> None:
    """Take every lease of a swarm, and pull nothing, until cancelled."""
    everything = (1 << swarm.metainfo.layout.piece_count) - 1
    url = coordinator + lease_path(swarm.metainfo.info_hash)
    async with aiohttp.ClientSession() as session, session.ws_connect(url, params={"peer": "h", "id": "h"}) as socket:
        while True:
            demand = Demand(everything, from_seeders=True, want=1000, origin_bytes=1 << 60)
            await socket.send_str(demand_text(demand, swarm.metainfo.layout.piece_count))
            await asyncio.sleep(0.05)


async def test_a_complete_node_requests_no_leases(swarm: Swarm) -> None:
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine:
        await swarm.seed(seeder)
        async with swarm.transfer(engine) as transfer:
            await transfer.download()
    with socket.create_server(("127.0.0.1", 0)) as coordinator:
        coordinator.setblocking(False)
        url = f"http://127.0.0.1:{coordinator.getsockname()[1]}"
        async with swarm.engine() as engine, swarm.transfer(engine, coordinators=(url,)) as transfer:
            await transfer.download()
            assert transfer.progress().from_cache == transfer.progress().total
        with pytest.raises(BlockingIOError):
            coordinator.accept()


async def test_alone_with_a_seeder_it_is_joined_in_the_swarm(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaseholder, "ALONE_FOR", 0.1)
    async with swarm.engine("127.0.0.2") as seeder, swarm.engine() as engine, coordinator(swarm) as boss:
        await swarm.seed(seeder, trackers=())
        where = f"{seeder.address[0]}:{seeder.address[1]}"
        boss.sources.add(swarm.metainfo.info_hash, Source(CLOSED, peer=where))
        async with swarm.transfer(engine, coordinators=(boss.url,), stall_timeout=5) as transfer:
            await transfer.download()
    assert swarm.published() == CONTENTS


async def test_the_stall_timeout_starts_after_the_wait_for_peers(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers get time to connect first, which may be longer than the stall timeout."""
    monkeypatch.setattr(lease_strategy, "CONNECT_WITHIN", 0.8)
    async with (
        FakeHub(swarm.snapshot) as hub,
        coordinator(swarm) as boss,
        swarm.engine() as engine,
        mirror(hub.url) as origin,
        swarm.transfer(engine, origin=origin, coordinators=(boss.url,), stall_timeout=0.3) as transfer,
    ):
        await transfer.download()
        assert transfer.progress().from_mirrors == transfer.progress().total
