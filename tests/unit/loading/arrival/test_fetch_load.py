"""A fetch that loads its model meanwhile: from peers, from mirrors, with faults; and `p2pmodel.load` for scripts."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

import p2pmodel
from p2pmodel import library
from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.content.request_window import FileRange
from p2pmodel.errors import InvalidInput, LocalResource, NoSpace, Unavailable
from p2pmodel.loading.arrival import overlap
from p2pmodel.loading.arrival.fetch_load import fetch_and_load, load_beside
from p2pmodel.loading.model import LoadedModel, load
from p2pmodel.loading.options import LoadOptions, LoadProgress
from p2pmodel.node.fetch import job
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.store.arriving_file import ArrivingFile
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files import partial_file
from p2pmodel.swarm.memory import torrent as memory
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Heard, Swarm, assert_nothing_runs, without_mirrors
from tests.support.slow_download import SlowDownload

ON_CPU = LoadOptions(device="cpu")
SEEDER, OTHER = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def no_network() -> None:
    """Replaces the fixture of the folder: fetches need loopback; transformers gets no address of a hub."""


class Site:
    """A node that fetches the snapshot `folder`."""

    def __init__(self, folder: Path, root: Path) -> None:
        contents = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.folder = folder
        self.swarm = Swarm(root, snapshot_of(contents))
        self.heard = Heard()
        self.results: list[FetchResult] = []
        self.settings = Settings(
            cache_dir=root / "node",
            mirrors=(),
            origin=OriginSettings(connect_timeout=1, read_timeout=1, patience=2),
            swarm=without_mirrors(peer_timeout=0.1, stall_timeout=1.0, coordinator_timeout=1.0),
        )

    def use(self, *hubs: FakeHub) -> None:
        mirrors = tuple(MirrorSettings(name=f"m{n}", endpoint=hub.url) for n, hub in enumerate(hubs))
        self.settings = self.settings.model_copy(update={"mirrors": mirrors})

    def fetching(self, target: str = "", **options: object) -> Fetch:
        torrent = self.swarm.root / "m.torrent"
        torrent.write_bytes(self.swarm.metainfo.raw)
        request = FetchRequest(parse_target(target or str(torrent)), **options)  # type: ignore[arg-type]
        return Fetch(request, self.settings, self.heard.reporter)

    async def load(self, target: str = "", **options: object) -> LoadedModel:
        on_ready = self.results.append
        return (await fetch_and_load(self.fetching(target), ON_CPU, on_ready=on_ready, **options))()  # type: ignore[arg-type]

    def assert_right(self, loaded: LoadedModel) -> None:
        expected = load(self.folder, device="cpu").model.state_dict()
        got = loaded.model.state_dict()
        assert got.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(got[name], tensor), name
        assert [result.path.name for result in self.results] == [self.swarm.snapshot.commit]


@pytest.fixture
def site(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(dense, tmp_path)
    monkeypatch.setattr(job, "engine_of", lambda settings: site.swarm.engine(zone=settings.swarm.zone))
    return site


async def test_from_peers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    prioritize = memory.MemoryTorrent.prioritize

    def note(self: memory.MemoryTorrent, piece: int) -> None:
        asked.append(piece)
        prioritize(self, piece)

    real = memory.MemoryTorrent.serve

    async def serve(self: memory.MemoryTorrent, piece: int) -> bytes | None:
        await eventually(lambda: bool(asked), what="small files and headers are requested first")
        return await real(self, piece)

    monkeypatch.setattr(memory.MemoryTorrent, "prioritize", note)
    monkeypatch.setattr(memory.MemoryTorrent, "serve", serve)
    seen: list[LoadProgress] = []
    async with site.swarm.engine(SEEDER) as seeder:
        await site.swarm.seed(seeder)
        site.assert_right(await site.load(on_progress=seen.append))
    assert seen[-1].phase == "loaded"
    await assert_nothing_runs()


async def test_from_mirrors(site: Site) -> None:
    async with FakeHub(site.swarm.snapshot) as hub:
        site.use(hub)
        site.assert_right(await site.load("org/model"))
    await assert_nothing_runs()


@pytest.mark.parametrize("fault", ["flip@*.safetensors", "drop:60000@*.safetensors", "truncate@*00002*"])
async def test_a_lying_mirror_beside_an_honest_one(site: Site, fault: str) -> None:
    async with FakeHub(site.swarm.snapshot, faults=[fault]) as liar, FakeHub(site.swarm.snapshot) as honest:
        site.use(liar, honest)
        site.assert_right(await site.load("org/model"))
    await assert_nothing_runs()


async def test_a_corrupt_peer_beside_an_honest_one(site: Site) -> None:
    wrong = {path: bytes(byte ^ 1 for byte in data) for path, data in site.swarm.snapshot.contents.items()}
    async with site.swarm.engine(SEEDER) as corrupt, site.swarm.engine(OTHER) as honest:
        await site.swarm.seed(corrupt, wrong)
        await site.swarm.seed(honest)
        site.assert_right(await site.load())
    await assert_nothing_runs()


def counted(site: Site, monkeypatch: pytest.MonkeyPatch, hit: Callable[[int], None]) -> None:
    """Call `hit` with the number of each piece before it is written."""
    real, count = memory._write, iter(range(10_000))

    def write(path: Path, offset: int, data: bytes) -> None:
        hit(next(count))
        real(path, offset, data)

    monkeypatch.setattr(memory, "_write", write)


@pytest.mark.parametrize("pieces", [0, 1, 7, 12])
async def test_a_full_disk_ends_it_with_its_error_and_the_next_run_resumes(
    site: Site, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    def fill(number: int) -> None:
        if number == pieces:
            raise OSError(28, "No space left on device", str(site.swarm.root))

    async with site.swarm.engine(SEEDER) as seeder:
        await site.swarm.seed(seeder)
        with monkeypatch.context() as patch:
            counted(site, patch, fill)
            with pytest.raises(NoSpace):
                await site.load()
        site.assert_right(await site.load())
    await assert_nothing_runs()


@pytest.mark.parametrize("pieces", [1, 9])
async def test_the_only_seeder_dies_midway(site: Site, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """With no source left it ends with the fetch's error, and a later run resumes."""

    async def serve(self: memory.MemoryTorrent, piece: int) -> bytes | None:
        served.append(piece)
        return await real(self, piece) if len(served) <= pieces else None

    served: list[int] = []
    real = memory.MemoryTorrent.serve
    async with site.swarm.engine(SEEDER) as seeder:
        await site.swarm.seed(seeder)
        with monkeypatch.context() as patch:
            patch.setattr(memory.MemoryTorrent, "serve", serve)
            with pytest.raises(Unavailable):
                await site.load()
        site.assert_right(await site.load())
    await assert_nothing_runs()


@pytest.mark.parametrize("pieces", [0, 9])
async def test_a_cancellation_midway_leaves_nothing_behind(
    site: Site, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    reached: list[int] = []
    async with site.swarm.engine(SEEDER) as seeder:
        await site.swarm.seed(seeder)
        with monkeypatch.context() as patch:
            counted(site, patch, reached.append)
            loading = asyncio.create_task(site.load())
            await eventually(lambda: len(reached) > pieces, what="some pieces are written")
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
        site.assert_right(await site.load())
    await assert_nothing_runs()


async def test_the_model_is_used_while_the_fetch_seeds(site: Site) -> None:
    used: list[LoadedModel] = []
    async with site.swarm.engine(SEEDER) as seeder:
        await site.swarm.seed(seeder)
        fetch = site.fetching(seed_seconds=1000.0)
        running = asyncio.create_task(
            fetch_and_load(fetch, ON_CPU, on_ready=site.results.append, use=lambda outcome: used.append(outcome()))
        )
        await eventually(lambda: bool(used), what="the model is used")
        assert not running.done()
        running.cancel()
        await asyncio.wait({running})
    site.assert_right(used[0])


async def test_an_error_of_the_load_waits_for_the_fetch_only_if_the_model_is_used(site: Site) -> None:
    async with site.swarm.engine(SEEDER) as seeder:
        await site.swarm.seed(seeder)
        nowhere = LoadOptions(device="cuda:77")
        outcome = await fetch_and_load(site.fetching(), nowhere, on_ready=site.results.append, use=lambda _o: None)
        assert len(site.results) == 1
        with pytest.raises(LocalResource, match="no device cuda:77"):
            outcome()
        with pytest.raises(LocalResource, match="no device cuda:77"):
            await fetch_and_load(site.fetching(), nowhere)
    await assert_nothing_runs()


async def beside(download: SlowDownload, seen: list[LoadProgress], options: LoadOptions = ON_CPU) -> LoadedModel:
    """The model of a snapshot that a daemon downloads; this process knows the repository, the commit and the cache."""
    manifest = download.snapshot.manifest
    ready: list[Path] = []

    async def fetch(on_found: Callable[[RepoId, str], None]) -> Path:
        on_found(manifest.repo, manifest.commit)
        await download.run()
        return download.folder

    async def request(repo: RepoId, commit: str, places: Sequence[FileRange]) -> bool:
        asked.append((repo, commit, places))
        return True

    asked: list[tuple[RepoId, str, Sequence[FileRange]]] = []
    cache = HubCache(download.cache.root)
    outcome = await load_beside(
        fetch, cache, Selection(), options, request=request, on_ready=ready.append, on_progress=seen.append
    )
    assert ready == [download.folder]
    assert {(repo, commit) for repo, commit, _ in asked} <= {(manifest.repo, manifest.commit)}
    return outcome()


async def test_beside_a_daemon(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived is seen on the disk alone."""
    monkeypatch.setattr(partial_file, "RECORD_EVERY", 1)
    seen: list[LoadProgress] = []
    loaded = await beside(SlowDownload.of(dense, tmp_path, pause=0.01), seen)
    expected = load(dense, device="cpu").model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert any(0 < each.loaded < each.total for each in seen), "tensors were loaded while others arrived"


async def test_records_that_cannot_be_read_only_cost_the_overlap(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "SEEN_WITHIN", 0.1)
    monkeypatch.setattr(ArrivingFile, "look", lambda _self: False)
    loaded = await beside(SlowDownload.of(dense, tmp_path), [])
    expected = load(dense, device="cpu").model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())


async def test_an_error_of_the_load_beside_a_daemon_comes_after_the_fetch(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(LocalResource, match="no device cuda:77"):
        await beside(SlowDownload.of(dense, tmp_path), [], LoadOptions("cuda:77"))


@pytest.fixture
def from_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("HF_HUB_CACHE", str(site.settings.cache_dir))
    monkeypatch.setenv("P2PMODEL_SWARM_LISTEN", "127.0.0.1:0")
    return site


async def test_load_in_a_script(from_environment: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a loop runs already, as in a notebook."""
    site = from_environment
    async with FakeHub(site.swarm.snapshot) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        seen: list[LoadProgress] = []
        model, processor = await asyncio.to_thread(
            p2pmodel.load, "org/model", device="cpu", dtype="float32", on_progress=seen.append
        )
    expected = load(site.folder, options=LoadOptions("cpu", dtype="float32")).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert processor.tokenizer is not None
    assert seen[-1].phase == "loaded"


def test_ctrl_c_ends_load_in_a_script() -> None:
    """A real signal, in the main thread: what waits there must go on to the end of the load."""
    ended: list[bool] = []

    async def never() -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        library._run(never())
    assert ended == [True]


def test_ctrl_c_at_the_end_of_a_load_in_a_script_is_no_other_error() -> None:
    async def at_once() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(20):
        with pytest.raises(KeyboardInterrupt):
            library._run(at_once())


def test_load_in_a_script_raises_errors_of_the_package_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(library, "_loaded", fail)
    with pytest.raises(NoSpace, match="/somewhere"):
        p2pmodel.load("org/model")


def test_wrong_options_of_load_are_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="'tpu' is not a device name"):
        p2pmodel.load("org/model", device="tpu")
    with pytest.raises(InvalidInput, match="'int3' is not a dtype"):
        p2pmodel.load("org/model", dtype="int3")


def test_importing_the_package_imports_nothing_more() -> None:
    assert "p2pmodel.library" in sys.modules
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        p2pmodel.unknown  # noqa: B018
