"""The seed use case: one copy, its torrents, and serving them; a restart hashes no file."""

import asyncio
import shutil
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import OFFICIAL_ENDPOINT, MirrorSettings, OriginSettings
from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource, Unavailable
from p2pmodel.node.reporter import Progress, Reporter
from p2pmodel.node.seed import seed
from p2pmodel.node.seed.seed import SeedRequest, SeedResult, SeedRun
from p2pmodel.store.cache import HubCache
from p2pmodel.store.importer import commit_of
from p2pmodel.swarm.metainfo import Format
from p2pmodel.swarm.torrents import build, layout_of, parse, webseed_url
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.node_swarm import CONTENTS, TRACKER, Swarm, assert_nothing_runs
from tests.support.recording_reporter import RecordingReporter
from tests.support.torrent_files import trees_of, v1_pieces_of

MAIN = Reference.parse("org/model")
NEAR = "http://127.0.0.1:1/announce"
"""On loopback, as the mirror: it can stand in the torrent as a web seed."""


class Node:
    """A node that seeds, and what it reported since the last `prepare`."""

    def __init__(self, root: Path) -> None:
        self.cache = HubCache(root / "seeder")
        self.seen: list[Progress] = []

    def seeding(self, *mirrors: str, offline: bool = False, **request: object) -> SeedRun:
        settings = Settings(
            cache_dir=self.cache.root,
            mirrors=tuple(MirrorSettings(name=f"m{n}", endpoint=url) for n, url in enumerate(mirrors)),
            offline=offline,
            origin=OriginSettings(connect_timeout=1, read_timeout=1, patience=0.3),
        )
        return SeedRun(SeedRequest(**({"ref": MAIN} | request)), settings, RecordingReporter(self.seen.append))  # type: ignore[arg-type]

    async def prepare(self, *mirrors: str, offline: bool = False, **request: object) -> SeedResult:
        self.seen.clear()
        seeded = await self.seeding(*mirrors, offline=offline, **request).prepare([NEAR])
        await asyncio.sleep(0)
        return seeded

    @property
    def hashed(self) -> int:
        """Bytes of passes over what was here."""
        return max((p.done for p in self.seen if p.phase in ("hashing", "checking")), default=0)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def snapshot() -> HubSnapshot:
    return snapshot_of(CONTENTS)


def expected(snapshot: HubSnapshot, endpoint: str, form: Format = "v2") -> bytes:
    manifest = snapshot.manifest
    length = layout_of(manifest).piece_length
    pieces = v1_pieces_of(CONTENTS, manifest, length, form)
    webseeds = [webseed_url(endpoint, manifest, form)]
    return build(
        manifest, trees_of(CONTENTS, length), format=form, v1_pieces=pieces, trackers=[NEAR], webseeds=webseeds
    )


async def test_the_torrent_comes_out_of_the_mirroring_pass(node: Node, snapshot: HubSnapshot) -> None:
    async with FakeHub(snapshot) as hub:
        seeded = await node.prepare(hub.url)
    assert seeded.torrents == {"v2": expected(snapshot, hub.url)}
    assert node.hashed == 0, "it was hashed once more"
    assert (seeded.from_cache, seeded.from_mirrors) == (0, hub.sent)
    assert seeded.manifest == snapshot.manifest
    assert (seeded.path / "nested/other.bin").read_bytes() == CONTENTS["nested/other.bin"]
    assert node.cache.repo(MAIN.repo).refs() == {"main": snapshot.commit}
    await assert_nothing_runs()


async def test_a_restart_reads_no_file_again(node: Node, snapshot: HubSnapshot) -> None:
    async with FakeHub(snapshot) as hub:
        first = await node.prepare(hub.url)
        sent = hub.sent
        again = await Node(node.cache.root.parent).prepare(hub.url)
        assert hub.sent == sent
    assert again.torrents == first.torrents
    assert (again.from_cache, again.from_mirrors) == (snapshot.manifest.total_size, 0)
    restarted = Node(node.cache.root.parent)
    await restarted.prepare(hub.url)
    assert restarted.hashed == 0


async def test_without_its_records_the_snapshot_is_hashed_and_gives_the_same(node: Node, snapshot: HubSnapshot) -> None:
    async with FakeHub(snapshot) as hub:
        first = await node.prepare(hub.url)
        (node.cache.repo(MAIN.repo).private / "verified.jsonl").unlink()
        again = await Node(node.cache.root.parent).prepare(hub.url)
    assert again.torrents == first.torrents


async def test_all_formats(node: Node, snapshot: HubSnapshot) -> None:
    async with FakeHub(snapshot) as hub:
        seeded = await node.prepare(hub.url, exports=("hybrid", "v1"))
    assert seeded.torrents == {form: expected(snapshot, hub.url, form) for form in ("v2", "hybrid", "v1")}


@pytest.mark.parametrize("gated", [False, True])
async def test_a_private_repository_gets_a_private_torrent(node: Node, snapshot: HubSnapshot, gated: bool) -> None:
    async with FakeHub(snapshot, token="t", gated=gated) as hub:
        own = MirrorSettings(name="m", endpoint=hub.url, token="t")  # type: ignore[arg-type]
        settings = Settings(cache_dir=node.cache.root, mirrors=(own,))
        seeded = await SeedRun(SeedRequest(MAIN), settings, Reporter()).prepare([TRACKER])
    assert parse(seeded.torrents["v2"]).manifest.private
    assert b"7:privatei1e" in seeded.torrents["v2"]


async def test_a_zone_is_sent_to_the_trackers_and_stays_out_of_the_torrent(node: Node, tmp_path: Path) -> None:
    async with FakeHub(snapshot_of(CONTENTS)) as hub, Swarm(tmp_path).engine() as engine:
        plain = await node.prepare(hub.url)
        mirror = MirrorSettings(name="m0", endpoint=hub.url)
        settings = Settings(cache_dir=node.cache.root, mirrors=(mirror,), swarm=SwarmSettings(zone="rack-1"))
        seeding = SeedRun(SeedRequest(MAIN), settings, Reporter())
        seeded = await seeding.prepare([NEAR])
        serving = asyncio.create_task(seeding.serve(seeded, engine, lambda: None))
        await eventually(lambda: bool(engine.torrents), what="it is served")
        (torrent,) = engine.torrents.values()
        assert torrent.trackers == (f"{NEAR}?zone=rack-1&role=source",)
        assert seeded.torrents == plain.torrents
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_pinned_commit_moves_no_ref(node: Node, snapshot: HubSnapshot) -> None:
    async with FakeHub(snapshot) as hub:
        await node.prepare(hub.url, ref=Reference.parse(f"org/model@{snapshot.commit}"))
    assert node.cache.repo(MAIN.repo).refs() == {}


async def test_a_repository_without_content_cannot_be_seeded(node: Node) -> None:
    async with FakeHub(snapshot_of({"empty.txt": b""})) as hub:
        with pytest.raises(InvalidInput, match="org/model has no content to seed"):
            await node.prepare(hub.url)


async def test_offline_a_cached_snapshot_is_seeded(node: Node, snapshot: HubSnapshot) -> None:
    with pytest.raises(Unavailable, match="no mirror may be asked"):
        await node.prepare(offline=True)
    async with FakeHub(snapshot) as hub:
        first = await node.prepare(hub.url)
        before = len(hub.requests)
        assert (await node.prepare(hub.url, offline=True)).torrents == first.torrents
        assert len(hub.requests) == before


async def test_a_directory_is_imported_and_the_public_hub_is_no_webseed_of_it(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    for path, data in CONTENTS.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    seeded = await node.prepare(OFFICIAL_ENDPOINT, "http://own.test", directory=source)
    assert seeded.manifest.commit == commit_of(seeded.manifest.files)
    assert node.cache.repo(MAIN.repo).refs() == {"main": seeded.manifest.commit}
    metainfo = parse(seeded.torrents["v2"])
    assert metainfo.webseeds == ("http://own.test/org/model/resolve/",)
    assert metainfo.trees == trees_of(CONTENTS, metainfo.layout.piece_length)
    assert seeded.from_mirrors == 0
    other = Node(tmp_path / "elsewhere")
    assert (await other.prepare("http://own.test", directory=source)).torrents == seeded.torrents


async def test_a_cancelled_start_is_taken_up_again(node: Node, snapshot: HubSnapshot) -> None:
    async with FakeHub(snapshot, faults=["slow:500000"]) as hub:
        preparing = asyncio.create_task(node.prepare(hub.url))
        await eventually(lambda: hub.sent > 200_000, what="some of it is here")
        preparing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await preparing
        hub.faults.clear()
        seeded = await node.prepare(hub.url)
    assert seeded.torrents == {"v2": expected(snapshot, hub.url)}
    assert seeded.from_mirrors < snapshot.manifest.total_size - 768_000


class Service:
    """A seeder that serves in `swarm`'s network."""

    def __init__(self, node: Node, swarm: Swarm) -> None:
        self.node = node
        self.swarm = swarm

    async def start(self, engine, seeded: SeedResult) -> asyncio.Task[None]:
        serving = asyncio.Event()
        task = asyncio.create_task(self.node.seeding().serve(seeded, engine, serving.set))
        waiting = asyncio.create_task(serving.wait())
        await asyncio.wait({task, waiting}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return task


@pytest.fixture
async def seeded(node: Node, snapshot: HubSnapshot) -> SeedResult:
    async with FakeHub(snapshot) as hub:
        return await node.seeding(hub.url).prepare([TRACKER])


@pytest.fixture
def service(node: Node, tmp_path: Path) -> Service:
    return Service(node, Swarm(tmp_path))


async def test_it_serves_until_it_is_stopped(service: Service, seeded: SeedResult) -> None:
    swarm = service.swarm
    swarm.metainfo = parse(seeded.torrents["v2"])
    async with swarm.engine("127.0.0.2") as engine:
        serving = await service.start(engine, seeded)
        async with swarm.engine() as other, swarm.transfer(other) as transfer:
            await transfer.download()
            size = seeded.manifest.total_size
            latest = service.node.seen
            await eventually(lambda: latest[-1].uploaded == size, what="the upload is reported")
            assert (latest[-1].phase, latest[-1].peers) == ("seeding", 1)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert engine.torrents == {}, "the swarm was not left"
    assert swarm.published() == CONTENTS
    await assert_nothing_runs()


async def test_damaged_files_are_brought_again_in_place_of_the_old(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "LOOK_EVERY", 0.05)
    source = tmp_path / "checkpoint"
    for path, data in CONTENTS.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    run = node.seeding(directory=source)
    seeded = await run.prepare([TRACKER])
    repo = node.cache.repo(MAIN.repo)
    file = next(file for file in seeded.manifest.files if file.path == "nested/other.bin")
    async with Swarm(tmp_path).engine() as engine:
        serving = asyncio.create_task(run.serve(seeded, engine, lambda: None))
        await eventually(lambda: bool(engine.torrents), what="it is served")
        (first,) = engine.torrents.values()
        repo.blob_path(file).write_bytes(bytes(file.size))
        await eventually(lambda: first not in engine.torrents.values() and bool(engine.torrents), what="it is back")
        assert repo.is_verified(file)
        assert repo.blob_path(file).read_bytes() == CONTENTS["nested/other.bin"]
        (source / "config.json").write_text("changed")
        repo.blob_path(file).write_bytes(bytes(file.size))
        with pytest.raises(IntegrityError, match="no longer what is seeded"):
            await asyncio.wait_for(serving, PATIENCE)
        assert engine.torrents == {}


async def test_a_removed_snapshot_ends_it(
    service: Service, seeded: SeedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed, "LOOK_EVERY", 0.05)
    async with service.swarm.engine() as engine:
        serving = await service.start(engine, seeded)
        shutil.rmtree(service.node.cache.repo(MAIN.repo).folder)
        with pytest.raises(LocalResource, match="another program removed"):
            await asyncio.wait_for(serving, PATIENCE)


async def test_a_disk_that_fails_ends_it(service: Service, seeded: SeedResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed, "LOOK_EVERY", PATIENCE)
    swarm = service.swarm
    swarm.metainfo = parse(seeded.torrents["v2"])
    async with swarm.engine("127.0.0.2") as engine, swarm.engine() as other:
        serving = await service.start(engine, seeded)
        for blob in (service.node.cache.repo(MAIN.repo).folder / "blobs").iterdir():
            blob.unlink()
        async with swarm.transfer(other) as transfer:
            downloading = asyncio.create_task(transfer.download())
            with pytest.raises(LocalResource, match=r"cannot read .*No such file"):
                await asyncio.wait_for(serving, PATIENCE)
            downloading.cancel()
            await asyncio.wait({downloading})
    await assert_nothing_runs()


async def test_a_blob_that_has_gone_is_named(service: Service, seeded: SeedResult) -> None:
    repo = service.node.cache.repo(MAIN.repo)
    repo.blob_path(next(f for f in seeded.manifest.files if f.path == "config.json")).unlink()
    async with service.swarm.engine() as engine:
        with pytest.raises(LocalResource, match=r"the blob of config\.json is no longer in"):
            await asyncio.wait_for(await service.start(engine, seeded), PATIENCE)
