"""Synchronised snapshots: downloaded bytes, records, and the state after a failure."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import IntegrityError, InvalidInput, RepoNotFound, Unavailable
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.sync import MirrorSync, SyncResult
from p2pmodel.store.cache import HubCache
from p2pmodel.store.state.revisions import known_revision
from p2pmodel.store.state.sync_log import SyncLog, verify_log
from tests.support.eventually import eventually
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.recording_reporter import RecordingReporter

SHARD = os.urandom(400_000)
OLD = snapshot_of({"a.safetensors": SHARD, "b.safetensors": os.urandom(300_000), "config.json": b"{}"})
NEW = snapshot_of({"a.safetensors": SHARD, "b.safetensors": os.urandom(200_000), "renamed.json": b"{}"})
MAIN = Reference(OLD.manifest.repo)
OTHER = Reference.parse("org/absent")


class Job:
    def __init__(self, root: Path, hub: FakeHub) -> None:
        self.hub = hub
        self.done: list[SyncResult] = []
        self.notes: list[str] = []
        self.settings = Settings(
            cache_dir=root,
            mirrors=(MirrorSettings(name="up", endpoint=hub.url),),
            origin=OriginSettings(connect_timeout=1, read_timeout=1, patience=0.3),
        )
        self.cache = HubCache(root)
        self.log = SyncLog(root.parent / "log" / "sync.jsonl")

    def syncing(self, *, deny: tuple[str, ...] = ()) -> MirrorSync:
        reporter = RecordingReporter(note=self.notes.append)
        return MirrorSync(self.settings, reporter, self.done.append, rules=Admission((), deny), log=self.log)


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with AsyncExitStack() as stack:
        yield Job(tmp_path / "hub", await stack.enter_async_context(FakeHub(OLD)))


async def test_only_changed_refs_move(job: Job) -> None:
    await job.syncing().once([MAIN])
    job.hub.snapshot = NEW
    await job.syncing().once([MAIN])
    first, second = job.done
    assert (first.before, first.downloaded) == (None, OLD.manifest.total_size)
    assert (second.before, second.downloaded, second.adopted) == (OLD.commit, 200_000, 400_002)
    repo = job.cache.repo(MAIN.repo)
    assert repo.resolve("main") == NEW.commit
    assert {p.name: p.read_bytes() for p in second.path.iterdir()} == NEW.contents
    assert repo.snapshot(OLD.commit).is_dir(), "readers of the old snapshot continue"


async def test_the_log_contains_moved_refs_only(job: Job) -> None:
    await job.syncing().once([MAIN])
    job.hub.snapshot = NEW
    await job.syncing().once([MAIN])
    entries = [json.loads(line) for line in job.log.path.read_text().splitlines()]
    first = {e["path"]: e["sha256"] for e in entries if e["commit"] == OLD.commit}
    assert first == {path: hashlib.sha256(data).hexdigest() for path, data in OLD.contents.items()}
    assert [e["path"] for e in entries if e["commit"] == NEW.commit] == ["b.safetensors"]
    assert {tuple(e["sources"]) for e in entries} == {("up",)}
    assert {e["vouched_by"] for e in entries} == {"mirror up"}
    assert verify_log(job.log.path).seq == 4


async def test_a_log_that_cannot_be_gone_on_with_stops_the_sync(job: Job) -> None:
    job.log.path.parent.mkdir()
    job.log.path.write_text("{}\n")
    with pytest.raises(IntegrityError, match="sync log"):
        await job.syncing().once([MAIN])
    assert not job.hub.requests


async def test_an_unchanged_snapshot_costs_two_requests(job: Job) -> None:
    await job.syncing().once([MAIN])
    before = len(job.hub.requests)
    await job.syncing().once([MAIN])
    assert job.done[1].downloaded == 0
    assert len(job.hub.requests) == before + 2


async def test_a_mirror_on_the_same_cache_needs_no_further_request(job: Job) -> None:
    await job.syncing().once([MAIN])
    known = known_revision(job.cache.repo(MAIN.repo), "main")
    assert known is not None
    assert known.commit == OLD.commit


async def test_one_failure_does_not_keep_the_others(job: Job) -> None:
    with pytest.raises(RepoNotFound, match=r"1 of 2 were not synced; the first is org/absent"):
        await job.syncing().once([OTHER, MAIN])
    assert [done.ref for done in job.done] == [MAIN]
    assert any("org/absent@main was not synced" in note for note in job.notes)
    with pytest.raises(RepoNotFound, match="was not found"):
        await job.syncing().once([OTHER])


async def test_the_rules_hold(job: Job) -> None:
    with pytest.raises(InvalidInput, match="--deny"):
        await job.syncing(deny=("org/*",)).once([MAIN])
    assert not job.hub.requests


async def test_offline_is_an_error(job: Job) -> None:
    job.settings = job.settings.model_copy(update={"offline": True})
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE"):
        await job.syncing().once([MAIN])


async def test_rounds_follow_the_list_and_survive_failures(job: Job) -> None:
    rounds = iter([[OTHER], [MAIN]])
    every = asyncio.create_task(job.syncing().every(0.01, lambda: next(rounds, [MAIN])))
    await eventually(lambda: len(job.done) >= 3, what="three rounds")
    every.cancel()
    with pytest.raises(asyncio.CancelledError):
        await every
    assert any("org/absent" in note for note in job.notes)
