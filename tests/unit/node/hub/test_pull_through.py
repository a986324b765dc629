"""The pull-through mirror: each file once, readable while it grows, never completed before it is verified."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import NoSpace, P2PModelError, RepoNotFound, Unavailable, WrongBytes
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.pull_through import PullThrough
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.growing_file import HOLD_BACK
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.recording_reporter import RecordingReporter

WEIGHTS = os.urandom(3 * HOLD_BACK)
CONTENTS = {"config.json": b"{}", "copy.safetensors": WEIGHTS, "empty.txt": b"", "model.safetensors": WEIGHTS}
SNAPSHOT = snapshot_of(CONTENTS)
MODEL = SNAPSHOT.file("model.safetensors")
PATIENT = OriginSettings(part_size=1 << 18, connect_timeout=1, read_timeout=1, patience=0.3)


class Tier:
    """A pull-through mirror below `root` in front of `hubs`."""

    def __init__(self, root: Path, *hubs: FakeHub, linger: float = 5.0, max_bytes: int | None = None) -> None:
        mirrors = tuple(MirrorSettings(name=f"m{n}", endpoint=hub.url) for n, hub in enumerate(hubs))
        self.cache = HubCache(root)
        self.notes: list[str] = []
        settings = Settings(cache_dir=root, mirrors=mirrors, origin=PATIENT)
        reporter = RecordingReporter(note=self.notes.append)
        self.repo = self.cache.repo(SNAPSHOT.manifest.repo)
        self.through = PullThrough(self.cache, settings, reporter, linger=linger, max_bytes=max_bytes)

    async def read(self, file: ManifestFile = MODEL, start: int = 0) -> bytes:
        async with self.through.reader(SNAPSHOT.manifest, file) as reader:
            got = b""
            while start + len(got) < file.size:
                at = start + len(got)
                got += os.pread(reader.file.fileno(), await reader.ready(at) - at, at)
            return got

    async def read_of(self, snapshot: HubSnapshot, file: ManifestFile) -> bytes:
        """Read a small file whole, and wait until it is published."""
        async with self.through.reader(snapshot.manifest, file) as reader:
            assert await reader.ready(0) == file.size
            got = os.pread(reader.file.fileno(), file.size, 0)
        await eventually(lambda: not self.through._downloads, what="it is published")
        return got

    def snapshot(self, snapshot: HubSnapshot) -> Path:
        return self.cache.repo(snapshot.manifest.repo).snapshot(snapshot.commit)

    def held(self, snapshot: HubSnapshot) -> int:
        return sum(p.stat().st_size for p in (self.cache.repo(snapshot.manifest.repo).folder / "blobs").iterdir())

    def blob(self, file: ManifestFile = MODEL) -> bytes | None:
        path = self.cache.repo(SNAPSHOT.manifest.repo).blob(file)
        return path.read_bytes() if path else None


@asynccontextmanager
async def tier_of(root: Path, *faults: str, linger: float = 5.0) -> AsyncIterator[tuple[Tier, FakeHub]]:
    async with FakeHub(SNAPSHOT, faults=faults) as hub:
        tier = Tier(root, hub, linger=linger)
        async with tier.through:
            yield tier, hub
        assert not tier.through._downloads, "a pull continues after the end"


async def published(tier: Tier, file: ManifestFile = MODEL) -> None:
    await eventually(lambda: tier.blob(file) is not None, what="the blob is published")


async def test_a_hundred_concurrent_clients_are_one_download(tmp_path: Path) -> None:
    async with tier_of(tmp_path) as (tier, hub):
        got = await asyncio.gather(*(tier.read() for _ in range(100)))
        assert set(got) == {WEIGHTS}
        await published(tier)
        assert hub.sent == MODEL.size
        await eventually(lambda: not list(tmp_path.rglob("*.part*")), what="nothing is left of the pull")


async def test_a_growing_file_is_readable_but_not_its_end(tmp_path: Path) -> None:
    async with (
        tier_of(tmp_path, f"slow:{4 * HOLD_BACK}") as (tier, hub),
        tier.through.reader(SNAPSHOT.manifest, MODEL) as reader,
    ):
        early = await reader.ready(0)
        assert hub.sent < MODEL.size, "shown before all of it was here"
        assert early <= MODEL.size - HOLD_BACK
        while early < MODEL.size - HOLD_BACK:
            early = await reader.ready(early)
        assert early == MODEL.size - HOLD_BACK
        assert await reader.ready(early) == MODEL.size
        assert hub.sent == MODEL.size


async def test_a_reader_in_the_middle_need_not_wait_for_the_end(tmp_path: Path) -> None:
    async with tier_of(tmp_path) as (tier, _):
        assert await tier.read(start=MODEL.size // 2) == WEIGHTS[MODEL.size // 2 :]


async def test_small_and_empty_files_are_readable_as_a_whole(tmp_path: Path) -> None:
    async with tier_of(tmp_path) as (tier, _):
        assert await tier.read(SNAPSHOT.file("config.json")) == b"{}"
        assert await tier.read(SNAPSHOT.file("empty.txt")) == b""
        await published(tier, SNAPSHOT.file("empty.txt"))


async def test_a_snapshot_has_the_published_files(tmp_path: Path) -> None:
    async with tier_of(tmp_path) as (tier, _):
        await tier.read()
        await published(tier)
        repo = tier.cache.repo(SNAPSHOT.manifest.repo)
        await eventually(lambda: bool(repo.commits()), what="the snapshot is there")
        folder = repo.snapshot(SNAPSHOT.commit)
        assert [p.name for p in folder.iterdir()] == ["model.safetensors"]
        tier.through.cache_hit(SNAPSHOT.manifest, SNAPSHOT.file("copy.safetensors"))
        assert sorted(p.name for p in folder.iterdir()) == ["copy.safetensors", "model.safetensors"]
        assert repo.manifest(SNAPSHOT.commit) == SNAPSHOT.manifest


async def test_no_client_completes_a_wrong_file(tmp_path: Path) -> None:
    async with tier_of(tmp_path, "flip") as (tier, _):
        got = await asyncio.gather(*(tier.read() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(each, P2PModelError) for each in got), "a reader came to the end of wrong bytes"
        assert tier.blob() is None
        assert tier.repo.recently_corrupt(MODEL)
        assert not tier.repo.recently_corrupt(SNAPSHOT.file("config.json"))


async def test_readers_of_wrong_bytes_end_though_right_ones_follow(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(FakeHub(SNAPSHOT, faults=["flip*40"]))
        honest = await stack.enter_async_context(FakeHub(SNAPSHOT))
        tier = Tier(tmp_path, liar, honest)
        await stack.enter_async_context(tier.through)
        got = await asyncio.gather(*(tier.read() for _ in range(5)), return_exceptions=True)
        assert all(isinstance(each, P2PModelError) or each == WEIGHTS for each in got)
        assert any(isinstance(each, P2PModelError) for each in got)
        await published(tier)
        assert tier.blob() == WEIGHTS
        assert tier.repo.recently_corrupt(MODEL)


async def test_a_download_without_clients_stops_and_is_resumed(tmp_path: Path) -> None:
    async with tier_of(tmp_path, f"slow:{HOLD_BACK // 4}", linger=0.05) as (tier, hub):
        async with tier.through.reader(SNAPSHOT.manifest, MODEL) as reader:
            await reader.ready(0)
        await eventually(lambda: not tier.through._downloads, what="the pull has stopped")
        before = hub.sent
        assert before < MODEL.size
        hub.faults.clear()
        assert await tier.read() == WEIGHTS
        assert hub.sent - before < MODEL.size - HOLD_BACK // 16


async def test_bytes_of_another_commit_are_not_downloaded_again(tmp_path: Path) -> None:
    moved, half = snapshot_of(CONTENTS | {"config.json": b"{ }"}), 2 * HOLD_BACK
    async with FakeHub(moved) as hub, Tier(tmp_path, hub).through as through:
        repo = through.repo(moved.manifest)
        async with PartialFile.open(repo.staged.path_of(MODEL), MODEL, piece_length_for(0)) as partial:
            await partial.write(0, WEIGHTS[:half])
        async with through.reader(moved.manifest, MODEL):
            await eventually(lambda: repo.blob(MODEL) is not None, what="the blob is published")
        assert hub.sent == MODEL.size - half
    assert (repo.snapshot(moved.commit) / MODEL.path).read_bytes() == WEIGHTS


async def test_a_client_that_returns_in_time_keeps_the_download_running(tmp_path: Path) -> None:
    async with tier_of(tmp_path, f"slow:{HOLD_BACK}") as (tier, hub):
        async with tier.through.reader(SNAPSHOT.manifest, MODEL) as reader:
            await reader.ready(0)
        assert tier.through._downloads
        hub.faults.clear()
        assert await tier.read() == WEIGHTS
        await published(tier)
        assert hub.sent == MODEL.size


async def test_closing_ends_waiting_readers(tmp_path: Path) -> None:
    async with FakeHub(SNAPSHOT, faults=["stall"]) as hub:
        tier = Tier(tmp_path, hub)
        async with tier.through:
            reading = asyncio.create_task(tier.read())
            await eventually(lambda: bool(hub.requests), what="it is being pulled")
        with pytest.raises(Unavailable, match="stopped"):
            await reading


async def test_a_failure_reaches_all_and_the_next_tries_again(tmp_path: Path) -> None:
    async with tier_of(tmp_path, "status:404") as (tier, hub):
        got = await asyncio.gather(*(tier.read() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(each, P2PModelError) and not isinstance(each, WrongBytes) for each in got)
        assert any("model.safetensors" in note for note in tier.notes)
        hub.faults.clear()
        assert await tier.read() == WEIGHTS


async def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_folder: Path, needed: int) -> None:
        raise NoSpace(f"{needed} are needed")

    monkeypatch.setattr("p2pmodel.node.hub.pull_through.check_space", full)
    async with tier_of(tmp_path) as (tier, hub):
        with pytest.raises(NoSpace):
            await tier.read()
        assert hub.sent == 0


MANY = snapshot_of({f"{n}.bin": bytes([n]) * 100_000 for n in range(5)}, repo="org/many")


async def test_files_served_longest_ago_are_evicted(tmp_path: Path) -> None:
    async with FakeHub(MANY) as hub:
        tier = Tier(tmp_path, hub, max_bytes=250_000)
        async with tier.through:
            for file in MANY.files.values():
                assert await tier.read_of(MANY, file) == MANY.contents[file.path]
                assert tier.held(MANY) <= 250_000
            assert {p.name for p in tier.snapshot(MANY).iterdir()} == {"3.bin", "4.bin"}
            await tier.read_of(MANY, MANY.file("0.bin"))
            assert hub.sent == 600_000, "what had to go comes again"
            assert any("evicted" in note for note in tier.notes)


async def test_files_being_served_stay(tmp_path: Path) -> None:
    first, second, third = list(MANY.files.values())[:3]
    async with FakeHub(MANY) as hub:
        tier = Tier(tmp_path, hub, max_bytes=200_000)
        async with tier.through:
            await tier.read_of(MANY, first)
            await tier.read_of(MANY, second)
            with tier.through.serving(MANY.manifest, first):
                await tier.read_of(MANY, third)
                assert {p.name for p in tier.snapshot(MANY).iterdir()} == {"0.bin", "2.bin"}
                with tier.through.serving(MANY.manifest, third), pytest.raises(Unavailable, match="being served"):
                    await tier.read_of(MANY, second)
            await tier.read_of(MANY, second)


async def test_a_file_larger_than_the_cache_evicts_no_file(tmp_path: Path) -> None:
    async with FakeHub(SNAPSHOT) as hub:
        tier = Tier(tmp_path, hub, max_bytes=HOLD_BACK)
        async with tier.through:
            await tier.read(SNAPSHOT.file("config.json"))
            await published(tier, SNAPSHOT.file("config.json"))
            with pytest.raises(NoSpace, match="--max-cache-bytes"):
                await tier.read()
            assert tier.blob(SNAPSHOT.file("config.json")) == b"{}"


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("models--*"))


@pytest.mark.parametrize(
    ("rules", "admitted"),
    [
        (Admission(), True),
        (Admission(deny=("Org/Model",)), False),
        (Admission(deny=("OLD/model",)), False),
        (Admission(allow=("ORG/*",)), True),
        (Admission(allow=("old/*",)), False),
    ],
)
async def test_rules_judge_the_name_at_the_hub(tmp_path: Path, rules: Admission, admitted: bool):
    names = ("ORG/model", "old/model")
    async with FakeHub(SNAPSHOT, also=names) as hub:
        settings = Settings(cache_dir=tmp_path, mirrors=(MirrorSettings(name="m", endpoint=hub.url),), origin=PATIENT)
        async with PullThrough(HubCache(tmp_path), settings, RecordingReporter(), rules=rules) as through:
            for _ in range(2):
                if admitted:
                    assert (await through.manifest(Reference.parse("old/model"))).repo == SNAPSHOT.manifest.repo
                else:
                    with pytest.raises(RepoNotFound, match="does not admit old/model"):
                        await through.manifest(Reference.parse("old/model"))
    assert folders(tmp_path) == (["models--org--model"] if admitted else [])


async def test_all_spellings_are_one_repository_also_while_upstream_is_away(tmp_path: Path):
    settings = Settings(cache_dir=tmp_path, mirrors=(), origin=PATIENT)
    async with FakeHub(SNAPSHOT, also=("ORG/Model", "old/model")) as hub:
        settings = settings.model_copy(update={"mirrors": (MirrorSettings(name="m", endpoint=hub.url),)})
        async with PullThrough(HubCache(tmp_path), settings, RecordingReporter(), metadata_ttl=0) as through:
            for name in ("ORG/Model", "old/model", "org/model"):
                assert (await through.manifest(Reference.parse(name))).repo == SNAPSHOT.manifest.repo
    assert folders(tmp_path) == ["models--org--model"]
    async with PullThrough(HubCache(tmp_path), settings, RecordingReporter(), metadata_ttl=0) as through:
        assert (await through.manifest(Reference.parse("ORG/Model"))).commit == SNAPSHOT.commit
