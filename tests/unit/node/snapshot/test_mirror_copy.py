"""One verified copy from the mirrors: adopted, refused and resumed bytes, and its reports."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.pace import Rate
from p2pmodel.errors import NoSpace, Unavailable, WrongBytes
from p2pmodel.node.reporter import Progress
from p2pmodel.node.snapshot import mirror_copy
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy, MirrorCopyResult
from p2pmodel.node.snapshot.piece_record import PieceRecord
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.partial_file import PartialFile
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.node_swarm import Swarm, assert_nothing_runs
from tests.support.recording_reporter import RecordingReporter
from tests.support.stored import publish
from tests.support.torrent_files import trees_of

WEIGHTS = os.urandom(900_000)
CONTENTS = {
    "config.json": b'{"a": 1}',
    "copy.safetensors": WEIGHTS,
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "nested/other.bin": os.urandom(300_001),
}
PATIENT = OriginSettings(part_size=1 << 16, connect_timeout=1, read_timeout=1, patience=0.3)


class Job:
    """A snapshot, a cache, and what a mirroring into it reported."""

    def __init__(self, root: Path, snapshot: HubSnapshot) -> None:
        self.snapshot = snapshot
        self.manifest = snapshot.manifest
        self.cache = HubCache(root)
        self.seen: list[Progress] = []
        self.notes: list[str] = []

    @property
    def repo(self) -> RepoCache:
        return self.cache.repo(self.manifest.repo)

    async def run(self, *hubs: FakeHub, paths: tuple[str, ...] | None = None) -> MirrorCopyResult:
        listed = [MirrorSettings(name=f"m{n}", endpoint=hub.url, max_connections=2) for n, hub in enumerate(hubs)]
        files = [f for f in self.manifest.files if paths is None or f.path in paths]
        reporter = RecordingReporter(self.seen.append, self.notes.append)
        if not hubs:
            return await MirrorCopy(None, self.repo, self.manifest, reporter).run(files, ("main",))
        async with Origin(listed, PATIENT, on_note=self.notes.append) as origin:
            return await MirrorCopy(origin, self.repo, self.manifest, reporter).run(files, ("main",))

    def published(self) -> dict[str, bytes]:
        commit = self.repo.resolve("main")
        folder = self.repo.snapshot(commit or self.manifest.commit)
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(mirror_copy, "REPORT_EVERY", 0.001)
    return Job(tmp_path / "hub", snapshot_of(CONTENTS))


async def test_everything_is_pulled_once_and_published(job: Job) -> None:
    async with FakeHub(job.snapshot) as hub:
        done = await job.run(hub)
        assert hub.sent == len(WEIGHTS) + 300_001 + 8
        asked = [hub.asked(path) for path in ("model.safetensors", "copy.safetensors")]
    assert [] in asked, "equal contents were pulled twice"
    assert job.published() == CONTENTS
    assert done.from_mirrors == hub.sent
    assert done.from_cache == 0
    await assert_nothing_runs()


async def test_the_trees_of_the_pass_are_those_of_the_content(job: Job) -> None:
    async with FakeHub(job.snapshot) as hub:
        done = await job.run(hub)
    assert done.trees == trees_of(CONTENTS, piece_length_for(job.manifest.total_size))


async def test_right_blobs_are_adopted_and_wrong_ones_replaced(job: Job) -> None:
    publish(job.cache, job.snapshot, paths=["model.safetensors", "nested/other.bin", "config.json"], refs=())
    wrong = job.snapshot.file("nested/other.bin")
    job.repo.blob_path(wrong).write_bytes(bytes(wrong.size))
    job.repo.forget_verified(job.snapshot.file("model.safetensors"))
    async with FakeHub(job.snapshot) as hub:
        done = await job.run(hub)
        assert {r.path.rpartition("/resolve/")[2].partition("/")[2] for r in hub.requests} == {"nested/other.bin"}
    assert job.published() == CONTENTS
    assert done.from_cache == 2 * len(WEIGHTS) + 8
    assert done.from_mirrors == wrong.size
    assert list(done.trees) == ["nested/other.bin"], "adopted files were not hashed for the torrent"


async def test_small_files_come_before_large_ones(tmp_path: Path) -> None:
    small = {f"{number}.json": b"%d" % number for number in range(mirror_copy.FILES_AT_ONCE)}
    job = Job(tmp_path / "hub", snapshot_of({"model.safetensors": bytes(mirror_copy.SMALL + 1)} | small))
    async with FakeHub(job.snapshot) as hub:
        await job.run(hub)
        assert hub.requests[0].path.endswith(".json")


async def test_a_part_of_the_files(job: Job) -> None:
    async with FakeHub(job.snapshot) as hub:
        await job.run(hub, paths=("config.json", "empty.txt"))
        assert hub.sent == 8
    assert job.published() == {"config.json": CONTENTS["config.json"], "empty.txt": b""}
    assert job.seen[-1].total == job.seen[-1].done == 8


async def test_a_stopped_run_is_resumed(job: Job) -> None:
    async with FakeHub(job.snapshot, faults=["slow:400000@*.safetensors"]) as hub:
        running = asyncio.create_task(job.run(hub))
        await eventually(lambda: bool(job.seen) and job.seen[-1].from_mirrors > 500_000, what="half is here")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not job.published()
        job.seen.clear()
        hub.faults.clear()
        before = hub.sent
        done = await job.run(hub)
        resumed = job.seen[-1].from_cache
        assert resumed > 300_001
        assert hub.sent - before <= done.from_mirrors + PATIENT.part_size
        assert done.from_mirrors == job.manifest.total_size - len(WEIGHTS) - resumed
    assert job.published() == CONTENTS
    assert done.trees["model.safetensors"] == trees_of(CONTENTS, piece_length_for(0))["model.safetensors"]


@pytest.mark.parametrize(
    ("fault", "error"), [("status:404", "m0"), ("flip", "wrong bytes"), ("truncate", "m0"), ("html", "m0")]
)
async def test_a_failure_publishes_no_snapshot_but_keeps_verified_bytes(job: Job, fault: str, error: str) -> None:
    async with FakeHub(job.snapshot, faults=[f"{fault}@*/other.bin"]) as hub:
        with pytest.raises(Exception, match=error):
            await job.run(hub)
    assert not job.published()
    assert job.repo.commits() == []
    assert job.repo.refs() == {}
    assert job.repo.blob(job.snapshot.file("nested/other.bin")) is None
    assert job.seen[-1].phase != "done"
    await assert_nothing_runs()


async def test_a_corrupt_mirror_costs_only_its_bytes(job: Job) -> None:
    async with FakeHub(job.snapshot, faults=["flip"]) as liar, FakeHub(job.snapshot) as honest:
        done = await job.run(liar, honest)
    assert job.published() == CONTENTS
    assert done.from_mirrors > job.manifest.total_size - len(WEIGHTS), "wrong bytes count: they crossed the link"
    assert any("m0" in note for note in job.notes)


async def test_if_all_mirrors_are_corrupt_the_error_names_mirror_and_hash(job: Job) -> None:
    async with FakeHub(job.snapshot, faults=["flip@*.safetensors"]) as hub:
        with pytest.raises(WrongBytes, match=job.snapshot.file("model.safetensors").etag):
            await job.run(hub)
    assert not job.published()


async def test_offline_the_missing_files_are_reported(job: Job) -> None:
    publish(job.cache, job.snapshot, paths=["model.safetensors"], refs=())
    with pytest.raises(Unavailable, match=r"this cache lacks 3 files of org/model; .*HF_HUB_OFFLINE"):
        await job.run()
    assert job.repo.refs() == {}


async def test_offline_with_everything_here(job: Job) -> None:
    publish(job.cache, job.snapshot, refs=())
    done = await job.run()
    assert done == MirrorCopyResult({}, job.manifest.total_size, 0)
    assert job.published() == CONTENTS


async def test_a_full_disk_is_noticed_before_anything_is_pulled(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr("p2pmodel.store.files.space.shutil.disk_usage", lambda _path: free)
    async with FakeHub(job.snapshot) as hub:
        with pytest.raises(NoSpace, match=r"1\.2 MB are needed"):
            await job.run(hub)
        assert hub.sent == 0


def _publish_half(job: Job) -> None:
    publish(job.cache, job.snapshot, paths=["model.safetensors"], refs=())
    job.repo.forget_verified(job.snapshot.file("model.safetensors"))


@pytest.mark.parametrize("faults", [(), ("flip*3",), ("drop:100000",)], ids=["well", "liar", "dropping"])
@pytest.mark.parametrize("prepare", [lambda _job: None, _publish_half], ids=["empty", "half"])
async def test_reported_progress_is_consistent(
    job: Job, faults: tuple[str, ...], prepare: Callable[[Job], None]
) -> None:
    prepare(job)
    async with FakeHub(job.snapshot, faults=faults) as shaky, FakeHub(job.snapshot) as honest:
        await job.run(shaky, honest)
    total = job.manifest.total_size
    assert all(0 <= p.done <= p.total == total for p in job.seen)
    phases = [p.phase for p in job.seen]
    assert phases[0] == "checking"
    assert phases[-3:] == ["verifying", "publishing", "done"] or faults
    assert phases[-2:] == ["publishing", "done"]
    assert next(p.done for p in job.seen if p.phase == "publishing") == total
    mirrored = [p.done for p in job.seen if p.phase in ("mirroring", "verifying")]
    assert mirrored == sorted(mirrored)
    assert job.seen[-1].done == total


def test_the_rate_is_a_mean_over_the_last_seconds() -> None:
    now = 100.0
    rate = Rate(lambda: now)
    assert rate.value() == 0
    rate.add(600)
    assert rate.value() == 0
    now += 1
    rate.add(400)
    assert rate.value() == 1000
    now += 1
    assert rate.value() == 500
    now += 1.5
    assert rate.value() == int(400 / 3), "the first 600 are too long ago"
    now += 100
    assert rate.value() == 0
    rate.add(300)
    assert rate.value() == 100


async def test_bytes_of_another_commit_with_the_same_content_are_not_pulled_again(job: Job) -> None:
    moved = snapshot_of(CONTENTS | {"config.json": b'{"a": 2}'})
    file, half = job.snapshot.file("model.safetensors"), 450_000
    async with PartialFile.open(job.repo.staged.path_of(file), file, piece_length_for(0)) as partial:
        await partial.write(0, WEIGHTS[:half])
    job.manifest = moved.manifest
    async with FakeHub(moved) as hub:
        done = await job.run(hub)
        assert hub.sent == len(WEIGHTS) - half + 300_001 + 8
    assert done.from_mirrors == hub.sent
    assert job.published() == dict(moved.contents)


async def test_pieces_that_came_from_peers_are_not_pulled_again(job: Job, tmp_path: Path) -> None:
    metainfo = Swarm(tmp_path, job.snapshot).metainfo
    index = job.manifest.files.index(job.snapshot.file("copy.safetensors"))
    pieces = [*metainfo.layout.spans[index].pieces][:3]
    path = job.repo.staged.paths_of(job.manifest.files)[index]
    had = len(pieces) * metainfo.layout.piece_length
    path.write_bytes(WEIGHTS[:had])
    PieceRecord(job.repo.staged, metainfo).save(pieces, pieces)
    async with FakeHub(job.snapshot) as hub:
        await job.run(hub)
        assert hub.sent == len(WEIGHTS) - had + 300_001 + 8
    assert job.published() == CONTENTS
