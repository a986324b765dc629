"""Nodes of a cold cluster in one process: fetches over a real coordinator, a fake hub and the in-memory swarm."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from aiohttp import web

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.assembly import partial_torrents
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.errors import Unavailable, WrongBytes
from p2pmodel.http.server import serving
from p2pmodel.node.assembly import assembly, membership, outcome
from p2pmodel.node.fetch import download, job
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.torrents import Metainfo, parse
from tests.support.coordinators import PUBLISHERS, token_file
from tests.support.eventually import PATIENCE
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Heard, Swarm, assert_nothing_runs, without_mirrors
from tests.support.stored import publish

CONTENTS = {
    "config.json": b"{}",
    "empty.txt": b"",
    "a.safetensors": random.Random(1).randbytes(3_000_000),
    "b.safetensors": random.Random(2).randbytes(1_500_000),
}
SIZE = sum(map(len, CONTENTS.values()))


@dataclass
class Site:
    """An empty coordinator, and the nodes' surroundings."""

    swarm: Swarm
    catalog: Catalog = field(default_factory=Catalog)
    url: str = ""
    heard: dict[int, Heard] = field(default_factory=dict)
    peer_timeout: float = 1.0

    @asynccontextmanager
    async def coordinator(self, *, budget: float = 1.05) -> AsyncIterator[None]:
        app = coordinator_app(Tracker(), self.catalog, credentials=PUBLISHERS, origin_budget=budget)
        async with serving(app, "127.0.0.1", 0, grace=0.2) as self.url:
            yield

    def cache(self, number: int) -> HubCache:
        return HubCache(self.swarm.root / f"node{number}")

    async def fetch(self, number: int, hub: FakeHub, **options: object) -> FetchResult:
        settings = Settings(
            cache_dir=self.cache(number).root,
            mirrors=(MirrorSettings(name="hub", endpoint=hub.url),),
            coordinators=(self.url,),
            publish_token_file=token_file(self.swarm.root),
            origin=OriginSettings(connect_timeout=1, read_timeout=1, patience=1),
            swarm=without_mirrors(
                listen=f"127.0.0.{number}:0",
                peer_timeout=self.peer_timeout,
                stall_timeout=2 * self.peer_timeout,
                coordinator_timeout=2,
            ),
        )
        ready: list[FetchResult] = []
        heard = self.heard[number] = Heard()
        request = FetchRequest(parse_target("org/model"), **options)  # type: ignore[arg-type]
        await Fetch(request, settings, heard.reporter).run(ready.append)
        (done,) = ready
        assert self.published(number) == CONTENTS
        return done

    def published(self, number: int) -> dict[str, bytes]:
        return self.swarm.published(self.cache(number))

    def alone(self, number: int) -> list[str]:
        """Notes of node `number` about downloading from the mirrors alone."""
        return [note for note in self.heard[number].notes if note.endswith("mirrors alone")]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    swarm = Swarm(tmp_path, snapshot_of(CONTENTS))
    monkeypatch.setattr(job, "engine_of", lambda settings: swarm.engine(settings.swarm.listen.partition(":")[0]))
    monkeypatch.setattr(assembly, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(membership, "LOST_FOR", 0.5)
    monkeypatch.setattr(download, "HANDED_ON_AFTER", 0.3)
    return Site(swarm)


async def test_nodes_pull_one_copy_together_and_give_each_other_the_rest(site: Site) -> None:
    site.peer_timeout = 20.0  # nodes of a busy machine are late
    async with FakeHub(site.swarm.snapshot, rate=3_000_000) as hub, site.coordinator():
        done = await asyncio.gather(*(site.fetch(number, hub) for number in (2, 3, 4)))
        assert SIZE <= hub.sent <= 1.02 * SIZE
    assert sum(each.progress.from_mirrors for each in done) == SIZE
    for each in done:
        assert each.progress.from_mirrors + each.progress.from_peers == SIZE == each.progress.done
    (publication,) = site.catalog.publications()
    assert publication.info_hash == site.swarm.metainfo.info_hash
    await assert_nothing_runs()


async def test_nodes_exchange_pieces_while_the_rest_is_pulled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_torrents, "MIN_BYTES", 256 << 10)
    site.peer_timeout = 20.0
    async with FakeHub(site.swarm.snapshot, rate=600_000) as hub, site.coordinator():
        done = await asyncio.gather(*(site.fetch(number, hub) for number in (2, 3, 4)))
        assert SIZE <= hub.sent <= 1.02 * SIZE
    for number, each in zip((2, 3, 4), done, strict=True):
        assert each.progress.from_mirrors + each.progress.from_peers == SIZE == each.progress.done
        assert site.heard[number].most_from_peers >= 256 << 10
    (publication,) = site.catalog.publications()
    assert publication.info_hash == site.swarm.metainfo.info_hash
    await assert_nothing_runs()


async def test_exchanged_pieces_are_not_pulled_again_by_a_node_that_continues_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_torrents, "MIN_BYTES", 256 << 10)
    monkeypatch.setattr(membership, "ALONE_FOR", 0.1)
    site.peer_timeout = 5.0  # the nodes of a busy machine find each other late
    async with FakeHub(site.swarm.snapshot, rate=600_000) as hub, site.coordinator():
        stays, goes = (asyncio.create_task(site.fetch(number, hub)) for number in (2, 3))
        async with asyncio.timeout(PATIENCE):
            while not (2 in site.heard and site.heard[2].most_from_peers >= 256 << 10):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        goes.cancel()
        await stays
        assert hub.sent <= 2 * SIZE - site.heard[2].most_from_peers
    await asyncio.wait({goes})
    await assert_nothing_runs()


async def test_alone_it_is_mirrored_and_a_torrent_left_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "ALONE_FOR", 0.1)
    async with FakeHub(site.swarm.snapshot, rate=8_000_000) as hub, site.coordinator():
        done = await site.fetch(2, hub)
        assert hub.sent == SIZE == done.progress.from_mirrors
    assert [p.info_hash for p in site.catalog.publications()] == [site.swarm.metainfo.info_hash]
    assert site.alone(2) == []
    await assert_nothing_runs()


async def test_a_node_alone_shares_as_soon_as_another_joins(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "ALONE_FOR", 0.1)
    async with FakeHub(site.swarm.snapshot, rate=3_000_000) as hub, site.coordinator():
        first = asyncio.create_task(site.fetch(2, hub))
        await asyncio.sleep(0.6)
        second = await site.fetch(3, hub)
        await first
        assert hub.sent <= 1.1 * SIZE
    assert second.progress.from_peers > 0


async def test_cached_files_are_not_pulled(site: Site) -> None:
    publish(site.cache(2), site.swarm.snapshot, paths=["a.safetensors"], refs=())
    async with FakeHub(site.swarm.snapshot, rate=2_000_000) as hub, site.coordinator():
        done = await asyncio.gather(*(site.fetch(number, hub) for number in (2, 3)))
        assert hub.sent <= 1.05 * (SIZE - len(CONTENTS["a.safetensors"]))
    assert done[0].progress.from_cache == len(CONTENTS["a.safetensors"])


async def test_a_corrupt_piece_withdraws_the_torrent_and_no_node_loops(site: Site) -> None:
    async with (
        FakeHub(site.swarm.snapshot, rate=4_000_000, faults=["flip@a.safetensors*1"]) as hub,
        site.coordinator(),
    ):
        await asyncio.gather(*(site.fetch(number, hub) for number in (2, 3)))
        assert site.catalog.publications() == []
        for number in (2, 3):
            (note,) = site.alone(number)
            assert "the torrent is dropped" in note
        await site.fetch(4, hub)
        (note,) = site.alone(4)
        assert "the coordinator cannot assemble this snapshot" in note


async def test_a_mirror_that_is_always_corrupt_is_named(site: Site) -> None:
    async with FakeHub(site.swarm.snapshot, rate=4_000_000, faults=["flip@a.safetensors"]) as hub, site.coordinator():
        results = await asyncio.gather(*(site.fetch(number, hub) for number in (2, 3)), return_exceptions=True)
    assert [type(result) for result in results] == [WrongBytes, WrongBytes]
    assert site.published(2) == site.published(3) == {}


async def test_a_coordinator_without_assembly(site: Site) -> None:
    async def nothing(_request: web.Request) -> web.Response:
        return web.json_response({"code": "not_found", "message": "no", "hint": ""}, status=404)

    app = web.Application()
    app.router.add_get("/{tail:.*}", nothing)
    async with FakeHub(site.swarm.snapshot) as hub, serving(app, "127.0.0.1", 0, grace=0.2) as site.url:
        done = await site.fetch(2, hub)
        assert hub.sent == SIZE == done.progress.from_mirrors
    assert len(site.alone(2)) == 1


async def test_a_node_that_cannot_get_the_assembled_torrent_at_first_tries_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    download, calls = outcome.download_torrent, count(1)

    async def late(url: str, *arguments: object, **options: object) -> Metainfo:
        if next(calls) <= 2:
            raise Unavailable("timed out connecting")
        return await download(url, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(outcome, "download_torrent", late)
    site.peer_timeout = 20.0
    async with FakeHub(site.swarm.snapshot, rate=3_000_000) as hub, site.coordinator():
        await asyncio.gather(*(site.fetch(number, hub) for number in (2, 3)))
        assert hub.sent <= 1.02 * SIZE
    assert [note for heard in site.heard.values() for note in heard.notes if "joining" in note or "alone" in note] == []


async def test_after_an_assembly_that_fails_a_node_joins_the_swarm_of_the_torrent_that_others_made(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> Metainfo:
        raise Unavailable("timed out connecting")

    monkeypatch.setattr(outcome, "download_torrent", never)
    site.peer_timeout = 20.0
    async with FakeHub(site.swarm.snapshot, rate=3_000_000) as hub, site.coordinator():
        await asyncio.gather(*(site.fetch(number, hub) for number in (2, 3)))
        assert hub.sent <= 1.02 * SIZE
    for number in (2, 3):
        assert site.alone(number) == []
        (note,) = [note for note in site.heard[number].notes if "joining" in note]
        assert note == "timed out connecting: joining the swarm of its torrent"
    await assert_nothing_runs()


async def test_a_spent_budget_ends_the_assembly_and_not_the_fetch(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "ALONE_FOR", 60.0)
    async with FakeHub(site.swarm.snapshot) as hub, site.coordinator(budget=0.3):
        done = await site.fetch(2, hub)
        assert hub.sent <= 1.1 * SIZE
    assert done.progress.from_mirrors == SIZE
    assert "cannot reach its peers" in done.progress.exception
    (note,) = site.alone(2)
    assert "swarm.origin_budget" in note
    await assert_nothing_runs()


async def test_a_mirror_without_ranges_is_used_alone(site: Site) -> None:
    async with FakeHub(site.swarm.snapshot, faults=["norange"]) as hub, site.coordinator():
        done = await site.fetch(2, hub)
    assert done.progress.from_mirrors == SIZE
    (note,) = site.alone(2)
    assert "it answers a range with the whole file" in note


async def test_a_part_of_the_files_is_taken_alone(site: Site) -> None:
    async with FakeHub(site.swarm.snapshot) as hub, site.coordinator():
        with pytest.raises(AssertionError):
            await site.fetch(2, hub, include=("*.json",))
    assert set(site.published(2)) == {"config.json"}
    assert site.catalog.publications() == []


async def test_the_stored_torrent_is_the_assembled_one(site: Site) -> None:
    async with FakeHub(site.swarm.snapshot, rate=3_000_000) as hub, site.coordinator():
        await asyncio.gather(*(site.fetch(number, hub) for number in (2, 3)))
    manifest = site.swarm.snapshot.manifest
    stored = site.cache(2).repo(manifest.repo).staging(manifest.commit).load_metainfo()
    assert stored is not None
    assert parse(stored).info_hash == site.swarm.metainfo.info_hash
