"""What a node finds in its cache when it starts is served, once it is verified; nothing is downloaded for it."""

from pathlib import Path

import pytest

from p2pmodel.config.sections.daemon import StoreSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import LocalResource
from p2pmodel.node import cached_snapshots as module
from p2pmodel.node.cached_snapshots import CachedSnapshots
from p2pmodel.store.cache import HubCache
from p2pmodel.store.scrub import Scrubber
from p2pmodel.store.snapshots.snapshot_list import CachedSnapshot
from p2pmodel.store.state.verified_blobs import BlobState
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_machine import Machine, machine
from tests.support.stored import CONTENTS, publish

__all__ = ["machine"]

COORDINATORS = ("http://127.0.0.1:9",)
WEIGHTS = "model-00001.safetensors"


class Starts:
    """Records what is started; the first of `failing` repositories fail."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **store: int) -> None:
        monkeypatch.setattr(module, "START_EVERY", 0)
        self.notes: list[str] = []
        self.started: list[str] = []
        self.failing: set[str] = set()
        self.cache = HubCache(root / "hub")
        settings = StoreSettings(**{"scrub_rate": 1 << 40, **store})
        scrubber = Scrubber(self.cache, settings, root / "scrub", note=self.notes.append)
        needed = Settings(cache_dir=self.cache.root, mirrors=(), coordinators=COORDINATORS)
        self.found = CachedSnapshots(self.cache, needed, scrubber, self.start, log=self.notes.append)

    async def start(self, snapshot: CachedSnapshot) -> None:
        if str(snapshot.repo) in self.failing:
            raise LocalResource("no more records")
        repo = self.cache.repo(snapshot.repo)
        assert {repo.states([file])[file.etag] for file in snapshot.manifest.files} == {BlobState.VERIFIED}
        self.started.append(str(snapshot.repo))

    def forget(self, repo: str) -> None:
        """As if another program had downloaded it."""
        (self.cache.repo(RepoId(repo)).private / "verified.jsonl").unlink()


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(tmp_path, monkeypatch)


async def test_verified_snapshots_go_first_and_the_others_are_hashed(starts: Starts) -> None:
    for name in ("org/a", "org/b"):
        publish(starts.cache, snapshot_of(CONTENTS, repo=name))
    starts.forget("org/a")
    await starts.found.run()
    assert starts.started == ["org/b", "org/a"]


async def test_a_part_of_a_snapshot_and_a_damaged_one_are_left(starts: Starts) -> None:
    publish(starts.cache, snapshot_of(CONTENTS, repo="org/part"), paths=["config.json"])
    damaged = publish(starts.cache, snapshot_of(CONTENTS, repo="org/damaged"))
    [file] = [file for file in damaged.files if file.path == WEIGHTS]
    starts.cache.repo(damaged.repo).blob_path(file).write_bytes(b"x" * file.size)
    starts.forget("org/damaged")
    await starts.found.run()
    assert starts.started == []


async def test_without_a_list_of_a_hub_a_snapshot_may_lack_files_and_is_left(starts: Starts) -> None:
    manifest = publish(starts.cache)
    repo = starts.cache.repo(manifest.repo)
    (repo.private / "manifests" / f"{manifest.commit}.json").unlink()
    (repo.folder / "trees" / f"{manifest.commit}.json").unlink()
    assert repo.manifest(manifest.commit)
    await starts.found.run()
    assert starts.started == []


async def test_a_failure_does_not_stop_the_others(starts: Starts) -> None:
    for name in ("org/a", "org/b"):
        publish(starts.cache, snapshot_of(CONTENTS, repo=name))
    starts.failing = {"org/a"}
    await starts.found.run()
    assert starts.started == ["org/b"]
    assert "no more records" in starts.notes[0]


async def test_where_hashing_is_turned_off_only_verified_snapshots_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(tmp_path, monkeypatch, scrub_rate=0)
    for name in ("org/a", "org/b"):
        publish(starts.cache, snapshot_of(CONTENTS, repo=name))
    starts.forget("org/a")
    await starts.found.run()
    assert starts.started == ["org/b"]


async def test_a_node_makes_transfers_of_them_and_a_pause_outlives_a_restart(machine: Machine) -> None:
    manifest = publish(HubCache(machine.settings.cache_dir))
    machine.use(coordinators=COORDINATORS)
    async with machine.running() as node:
        while not node.transfers():
            await node.version.beyond(node.version.value, timeout=1)
        [view] = node.transfers()
        assert (view.repo, view.commit, view.complete, view.revisions) == (
            str(manifest.repo),
            manifest.commit,
            True,
            ("main",),
        )
        await node.pause(view.id)
    async with machine.running() as node:
        assert [view.state for view in node.transfers()] == ["paused"]


@pytest.mark.parametrize("settings", [{"coordinators": ()}, {"serve_cached": False}])
async def test_a_node_without_a_swarm_or_with_the_setting_leaves_them(
    machine: Machine, settings: dict[str, object]
) -> None:
    publish(HubCache(machine.settings.cache_dir))
    daemon = machine.settings.daemon.model_copy(update={"serve_cached": settings.get("serve_cached", True)})
    machine.use(coordinators=settings.get("coordinators", COORDINATORS), daemon=daemon)
    async with machine.running() as node:
        await node._cached.run()
        assert node.transfers() == ()
