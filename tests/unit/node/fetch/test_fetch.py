"""The fetch use case: selected files, their sources, the plan, and the receivers of each token."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from pydantic import SecretStr

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import EntryNotFound, InvalidInput, LocalResource, Unavailable
from p2pmodel.node.backends import LazyEngine
from p2pmodel.node.fetch import disputes, fetch, job
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.snapshot.evidence.voucher import refused_torrents
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.store.cache import HubCache
from p2pmodel.store.verify import rehash
from p2pmodel.swarm.memory.engine import MemoryEngine, MemoryNetwork
from p2pmodel.swarm.torrents import build, layout_of, parse, webseed_url
from tests.support.eventually import PATIENCE, eventually
from tests.support.fake_hub import FakeHub
from tests.support.node_swarm import CONTENTS, TRACKER, Heard, Swarm, assert_nothing_runs, without_mirrors
from tests.support.stored import publish
from tests.support.torrent_files import trees_of

PLACE = "127.0.0.2"


@dataclass
class Node:
    """A node that fetches: its settings, and the notes of its fetches."""

    swarm: Swarm
    settings: Settings
    heard: Heard = field(default_factory=Heard)
    ready: list[FetchResult] = field(default_factory=list)

    @property
    def cache(self) -> HubCache:
        return HubCache(self.settings.cache_dir)

    def fetching(self, target: str = "", **options: object) -> Fetch:
        request = FetchRequest(parse_target(target or str(self.torrent())), **options)  # type: ignore[arg-type]
        return Fetch(request, self.settings, self.heard.reporter)

    async def fetch(self, target: str = "", **options: object) -> FetchResult:
        await self.fetching(target, **options).run(self.ready.append)
        return self.ready[-1]

    def use(self, *mirrors: MirrorSettings | FakeHub, **settings: object) -> None:
        listed = [m if isinstance(m, MirrorSettings) else MirrorSettings(name="m", endpoint=m.url) for m in mirrors]
        self.settings = self.settings.model_copy(update={"mirrors": tuple(listed)} | settings)

    def torrent(self) -> Path:
        path = self.swarm.root / "m.torrent"
        path.write_bytes(self.swarm.metainfo.raw)
        return path

    def add_webseed(self, endpoint: str) -> None:
        """Let the torrent name a webseed."""
        manifest = self.swarm.metainfo.manifest
        trees = trees_of(CONTENTS, layout_of(manifest).piece_length)
        url = webseed_url(endpoint, manifest)
        self.swarm.metainfo = parse(build(manifest, trees, trackers=[TRACKER], webseeds=[url]))

    def invent_roots(self) -> None:
        """Let the torrent have the right files, and the piece hashes of other ones."""
        manifest = self.swarm.metainfo.manifest
        other = {path: bytes(byte ^ 1 for byte in data) for path, data in CONTENTS.items()}
        self.swarm.metainfo = parse(build(manifest, trees_of(other, layout_of(manifest).piece_length)))

    def published(self, commit: str = "") -> dict[str, bytes]:
        folder = self.cache.repo(self.swarm.metainfo.manifest.repo).snapshot(commit or self.swarm.snapshot.commit)
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    swarm = Swarm(tmp_path)
    settings = Settings(
        cache_dir=tmp_path / "node",
        mirrors=(),
        origin=OriginSettings(connect_timeout=1, read_timeout=1, patience=2),
        swarm=without_mirrors(peer_timeout=0.1, stall_timeout=1.0, coordinator_timeout=1.0),
    )
    monkeypatch.setattr(job, "engine_of", lambda settings: swarm.engine(zone=settings.swarm.zone))
    return Node(swarm, settings)


def no_engine(monkeypatch: pytest.MonkeyPatch, swarm: Swarm) -> None:
    class Refusing:
        async def __aenter__(self) -> None:
            raise AssertionError("an engine was started")

    monkeypatch.setattr(job, "engine_of", lambda _settings: Refusing())


CHOICES = [
    ({}, set(CONTENTS)),
    ({"include": ("*.json",)}, {"config.json"}),
    ({"include": ("*.safetensors", "*.json"), "exclude": ("copy*",)}, {"config.json", "model.safetensors"}),
    ({"exclude": ("*.safetensors",)}, {"config.json", "empty.txt", "nested/other.bin"}),
    ({"include": ("nested/",)}, {"nested/other.bin"}),
]


@pytest.mark.parametrize(("choice", "paths"), CHOICES)
async def test_only_the_chosen_files_come_from_peers(node: Node, choice: dict[str, object], paths: set[str]) -> None:
    async with node.swarm.engine(PLACE) as seeder:
        await node.swarm.seed(seeder)
        done = await node.fetch(**choice)
    assert node.published() == {path: CONTENTS[path] for path in paths}
    assert done.progress.from_peers == sum(len(CONTENTS[path]) for path in paths)
    await assert_nothing_runs()


@pytest.mark.parametrize(("choice", "paths"), CHOICES)
async def test_only_the_chosen_files_come_from_mirrors(
    node: Node, choice: dict[str, object], paths: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_engine(monkeypatch, node.swarm)
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub)
        done = await node.fetch("org/model", **choice)
        assert hub.sent == done.progress.from_mirrors == sum({f.etag: f.size for f in _files(node, paths)}.values())
    assert node.published() == {path: CONTENTS[path] for path in paths}
    await assert_nothing_runs()


def _files(node: Node, paths: set[str]):
    return [node.swarm.snapshot.file(path) for path in paths]


async def test_the_download_limit_binds_mirrors(node: Node) -> None:
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub, swarm=node.settings.swarm.model_copy(update={"download_limit": 2_000_000}))
        began = time.monotonic()
        await node.fetch("org/model")
    # Files with equal content are downloaded once; the first tenth of a second passes at once.
    assert time.monotonic() - began >= hub.sent / 2_000_000 - 0.1 > 0.3
    assert node.published() == CONTENTS


async def test_a_pattern_that_matches_no_file_is_an_error(node: Node) -> None:
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub)
        with pytest.raises(EntryNotFound, match="no file of org/model matches"):
            await node.fetch("org/model", include=("*.gguf",))
        with pytest.raises(EntryNotFound, match="no file of org/model matches"):
            await node.fetching("org/model", exclude=("*",)).plan()
        assert hub.sent == 0
    assert node.ready == []


async def test_a_plan_lists_missing_files_and_changes_no_file(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    no_engine(monkeypatch, node.swarm)
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub)
        plan = await node.fetching("org/model", exclude=("*.txt",)).plan()
        assert plan.manifest == node.swarm.snapshot.manifest
        assert {file.path for file in plan.shown} == set(CONTENTS) - {"empty.txt"}
        assert not node.settings.cache_dir.exists()
        publish(node.cache, node.swarm.snapshot, paths=["model.safetensors"], refs=())
        plan = await node.fetching("org/model").plan()
        assert {file.path for file in plan.files if file.download} == {"config.json", "nested/other.bin"}
        assert hub.sent == 0


async def test_a_torrents_webseeds_are_mirrors_but_get_no_token(node: Node) -> None:
    own = MirrorSettings(name="own", endpoint="http://127.0.0.1:1", token=SecretStr("secret"))
    async with FakeHub(node.swarm.snapshot) as hub:
        node.add_webseed(hub.url)
        node.use(own, origin=OriginSettings(allowed_networks=("127.0.0.0/8",)))
        done = await node.fetch()
        assert done.progress.from_mirrors == node.swarm.snapshot.manifest.total_size
        assert {request.token for request in hub.requests} == {""}
    assert node.published() == CONTENTS


async def test_a_webseed_that_is_an_own_mirror_gets_its_token(node: Node) -> None:
    async with FakeHub(node.swarm.snapshot, token="secret") as hub:
        node.add_webseed(hub.url)
        node.use(MirrorSettings(name="own", endpoint=hub.url, token=SecretStr("secret")))
        await node.fetch()
        assert {request.token for request in hub.requests} == {"secret"}
    assert node.published() == CONTENTS


async def test_offline_no_mirror_is_used(node: Node) -> None:
    async with FakeHub(node.swarm.snapshot) as hub:
        node.add_webseed(hub.url)
        node.use(hub, offline=True)
        for target in ("", "org/model"):
            with pytest.raises(Unavailable, match=r"mirrors? may not be asked|no mirror may be asked"):
                await node.fetch(target)
        assert hub.requests == []
    async with node.swarm.engine(PLACE) as seeder:
        await node.swarm.seed(seeder)
        done = await node.fetch()
    assert done.progress.from_peers == done.progress.total


async def test_peers_are_also_found_through_the_coordinators(node: Node) -> None:
    node.swarm.network.dead_trackers.add(TRACKER)
    node.use(coordinators=("http://coordinator.test",))
    async with node.swarm.engine(PLACE) as seeder:
        await node.swarm.seed(seeder, trackers=("http://coordinator.test/announce",))
        await node.fetch()
    assert node.published() == CONTENTS


async def test_a_zone_is_sent_to_the_trackers_and_bytes_from_other_zones_are_counted(node: Node) -> None:
    async with node.swarm.engine(PLACE) as seeder:
        await node.swarm.seed(seeder)
        node.use(swarm=without_mirrors(zone="rack-1"))
        announced: list[str] = []

        def on_ready(done: FetchResult) -> None:
            node.ready.append(done)
            (torrent,) = seeder.torrents.values()
            announced.extend(torrent.peers[0].trackers)

        await node.fetching().run(on_ready)
    assert announced == [f"{TRACKER}?zone=rack-1"]
    progress = node.ready[-1].progress
    assert progress.from_other_zones == progress.from_peers == progress.total


async def test_peers_can_be_named(node: Node) -> None:
    node.swarm.network.dead_trackers.add(TRACKER)
    async with node.swarm.engine(PLACE) as seeder:
        await node.swarm.seed(seeder)
        await node.fetch(peers=(seeder.address,))
    assert node.published() == CONTENTS


async def test_it_serves_until_the_requested_ratio(node: Node) -> None:
    async with node.swarm.engine(PLACE) as seeder:
        await node.swarm.seed(seeder)
        serving = asyncio.create_task(node.fetch(seed_ratio=1.0))
        await eventually(lambda: bool(node.ready), what="it is ready")
        assert not serving.done()
    async with node.swarm.engine("127.0.0.3") as late:
        async with node.swarm.transfer(late, cache=node.swarm.cache("late")) as transfer:
            await transfer.download()
        await asyncio.wait_for(serving, PATIENCE)
    assert node.swarm.published(node.swarm.cache("late")) == CONTENTS
    assert len(node.ready) == 1
    await assert_nothing_runs()


async def test_damaged_files_are_served_no_longer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LOOK_EVERY", 0.05)
    async with node.swarm.engine(PLACE) as seeder:
        await node.swarm.seed(seeder)
        serving = asyncio.create_task(node.fetch(seed_ratio=1.0))
        await eventually(lambda: bool(node.ready), what="it is ready")
        repo = node.cache.repo(node.swarm.metainfo.manifest.repo)
        file = node.swarm.snapshot.file("nested/other.bin")
        repo.blob_path(file).write_bytes(bytes(file.size))
        with pytest.raises(LocalResource, match=r"1 file changed since verified.*is no longer seeded"):
            await asyncio.wait_for(serving, PATIENCE)
        await node.fetch()
    assert node.published() == CONTENTS
    await assert_nothing_runs()


async def test_a_pinned_commit_with_a_damaged_blob_is_repaired(node: Node) -> None:
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub)
        target = f"org/model@{node.swarm.snapshot.commit}"
        await node.fetch(target)
        repo, file = node.cache.repo(node.swarm.metainfo.manifest.repo), node.swarm.snapshot.file("nested/other.bin")
        damaged = bytearray(CONTENTS["nested/other.bin"])
        damaged[0] ^= 1
        repo.blob_path(file).write_bytes(damaged)
        assert not rehash(repo, file)
        inode, sent = repo.blob_path(file).stat().st_ino, hub.sent
        done = await node.fetch(target)
        assert hub.sent - sent == done.progress.from_mirrors == file.size
    assert node.published() == CONTENTS
    assert repo.blob_path(file).stat().st_ino != inode


async def test_serving_without_a_swarm_gives_a_note(node: Node) -> None:
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub)
        await asyncio.wait_for(node.fetch("org/model", seed_seconds=60.0), PATIENCE)
    assert any("no swarm to serve it to" in note for note in node.heard.notes)


async def test_the_result_has_the_progress_and_the_timings(node: Node) -> None:
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub)
        first = await node.fetch("org/model")
        again = await node.fetch("org/model")
    assert first.path == node.cache.repo(first.manifest.repo).snapshot(first.manifest.commit)
    for done in (first, again):
        assert done.progress.phase == "done"
        assert done.progress.done == done.progress.total == node.swarm.snapshot.manifest.total_size
        parts = (done.timings.find, done.timings.download, done.timings.verify)
        assert min(parts) >= 0
        assert sum(parts) <= done.timings.total
    assert min(first.timings.find, first.timings.download, first.timings.verify) > 0
    assert again.progress.from_cache == again.progress.total
    assert again.timings.download == 0


async def test_a_cache_that_cannot_be_written_is_an_error_before_any_request(node: Node) -> None:
    node.settings.cache_dir.write_text("a file")
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub)
        with pytest.raises(LocalResource, match="is not a directory"):
            await node.fetch("org/model")
        assert hub.requests == []


async def test_a_malformed_target_is_refused(node: Node) -> None:
    with pytest.raises(InvalidInput):
        await node.fetch("magnet:?xt=urn:btmh:nonsense")


async def test_an_engine_with_concurrent_requests_starts_once() -> None:
    class Slow(MemoryEngine):
        starts = 0

        async def __aenter__(self) -> Self:
            self.starts += 1
            await asyncio.sleep(0)
            return await super().__aenter__()

    engine = Slow(MemoryNetwork())
    async with AsyncExitStack() as stack:
        on_demand = LazyEngine(engine, stack)
        assert await asyncio.gather(on_demand.started(), on_demand.started()) == [engine, engine]
        assert engine.starts == 1


async def test_invented_piece_roots_blame_no_mirror_and_do_not_end_the_fetch(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(disputes, "JUDGE_AFTER", 0.2)
    node.invent_roots()
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub, state_dir=tmp_path / "state")
        done = await node.fetch()
        again = await node.fetch("org/model")
    assert node.published() == CONTENTS
    assert done.progress.from_mirrors
    assert any("the torrent is dropped" in note for note in node.heard.notes)
    assert not any("sent wrong bytes" in note for note in node.heard.notes)
    refused = refused_torrents(node.settings).of(Reference.parse(f"org/model@{node.swarm.snapshot.commit}"))
    assert refused == {node.swarm.metainfo.info_hash}
    assert again.progress.from_cache == again.progress.total
    await assert_nothing_runs()


async def test_a_wrong_mirror_is_blamed_once_the_whole_file_is_right(node: Node) -> None:
    async with (
        FakeHub(node.swarm.snapshot, faults=["flip@model.safetensors"]) as bad,
        FakeHub(node.swarm.snapshot) as good,
    ):
        node.use(
            MirrorSettings(name="bad", endpoint=bad.url), MirrorSettings(name="good", endpoint=good.url, priority=1)
        )
        await node.fetch()
    assert node.published() == CONTENTS
    assert any(note.startswith("mirror bad sent wrong bytes for ") for note in node.heard.notes)
    await assert_nothing_runs()


async def test_a_commit_gets_the_names_that_it_is_asked_for_and_is_found_by_its_beginning(node: Node) -> None:
    commit = node.swarm.snapshot.commit
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub, offline=False)
        await node.fetch(f"org/model@{commit}", names=("v1", "stable"))
    assert node.cache.repo(node.swarm.metainfo.manifest.repo).refs() == {"v1": commit, "stable": commit}
    node.use(offline=True)
    found = await node.fetch(f"org/model@{commit[:8]}")
    assert found.manifest.commit == commit
    assert node.cache.repo(found.manifest.repo).refs() == {"v1": commit, "stable": commit}


async def test_a_torrent_is_named_as_the_mirrors_name_its_commit(node: Node) -> None:
    async with FakeHub(node.swarm.snapshot) as hub:
        node.use(hub, offline=False)
        found = await node.fetch()
    assert node.cache.repo(found.manifest.repo).refs() == {"main": found.manifest.commit}
