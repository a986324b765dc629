"""A file without a torrent: what samples show to be the same is copied, and the hub's hash has the last word."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.node.reporter import Progress
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy, MirrorCopyResult
from p2pmodel.node.snapshot.reuse.presumed_ranges import SAMPLE, SAMPLES
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.mirrors.mirror import MirrorStatus
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache, RepoCache
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.recording_reporter import RecordingReporter
from tests.support.shards import random_tensors, shard
from tests.support.stored import publish

PATH = "model.safetensors"
TENSOR = 800_000
OLD = random_tensors(8, TENSOR)
OTHER = random_tensors(8, TENSOR, seed=2)
ASKED = SAMPLES * SAMPLE + 20_000
"""Bytes of samples and headers at most."""
PATIENT = OriginSettings(connect_timeout=1, read_timeout=1, patience=1)


@dataclass
class Copy:
    """A cache with an older revision, and what a copy of the next one from a mirror does."""

    root: Path
    new: HubSnapshot
    notes: list[str] = field(default_factory=list)
    seen: list[Progress] = field(default_factory=list)
    mirrors: tuple[MirrorStatus, ...] = ()

    def __post_init__(self) -> None:
        self.cache = HubCache(self.root)

    @property
    def repo(self) -> RepoCache:
        return self.cache.repo(self.new.manifest.repo)

    async def run(self, hub: FakeHub) -> MirrorCopyResult:
        mirror = MirrorSettings(name="m", endpoint=hub.url)
        manifest = self.new.manifest
        async with Origin([mirror], PATIENT, on_note=self.notes.append) as origin:
            reporter = RecordingReporter(self.seen.append, self.notes.append)
            done = await MirrorCopy(origin, self.repo, manifest, reporter).run(manifest.files, ("main",))
            self.mirrors = origin.statuses()
        assert (self.repo.snapshot(manifest.commit) / PATH).read_bytes() == self.new.contents[PATH]
        return done


def copy_of(root: Path, new: Mapping[str, bytes], metadata: Mapping[str, str] | None = None) -> Copy:
    copy = Copy(root, snapshot_of({PATH: shard(new, metadata)}))
    publish(copy.cache, snapshot_of({PATH: shard(OLD)}))
    return copy


async def test_a_longer_header_costs_the_header_and_samples(tmp_path: Path):
    copy = copy_of(tmp_path, OLD, {"license": "apache-2.0"})
    async with FakeHub(copy.new) as hub:
        await copy.run(hub)
        assert hub.sent <= ASKED
    assert any("seem to be the same in another revision" in note for note in copy.notes)
    assert copy.seen[-1].done == copy.seen[-1].total


async def test_of_changed_tensors_those_alone_are_downloaded(tmp_path: Path):
    copy = copy_of(tmp_path, OLD | {"layer.3.weight": OTHER["layer.3.weight"], "new": b"n" * TENSOR})
    async with FakeHub(copy.new) as hub:
        await copy.run(hub)
        assert hub.sent <= 2 * TENSOR + ASKED


async def test_a_change_beside_the_samples_is_found_by_the_hash_and_no_mirror_is_blamed(tmp_path: Path):
    tensor = OLD["layer.3.weight"]
    copy = copy_of(tmp_path, OLD | {"layer.3.weight": b"changed" + tensor[7:]})
    async with FakeHub(copy.new) as hub:
        await copy.run(hub)
        assert hub.sent <= copy.new.file(PATH).size + ASKED
    assert any("has changed in more places than its samples" in note for note in copy.notes)
    assert [mirror.state for mirror in copy.mirrors] == [State.HEALTHY]


async def test_a_retrained_file_costs_a_few_samples_more(tmp_path: Path):
    copy = copy_of(tmp_path, OTHER)
    async with FakeHub(copy.new) as hub:
        await copy.run(hub)
        assert hub.sent <= copy.new.file(PATH).size + ASKED
    assert not any("in another revision" in note for note in copy.notes)


async def test_a_mirror_without_ranges_sends_the_whole_file(tmp_path: Path):
    copy = copy_of(tmp_path, OLD, {"license": "apache-2.0"})
    async with FakeHub(copy.new, faults=["norange"]) as hub:
        await copy.run(hub)
        assert hub.sent >= copy.new.file(PATH).size


async def test_the_older_revision_is_only_read(tmp_path: Path):
    copy = copy_of(tmp_path, OLD, {"license": "apache-2.0"})
    before = copy.repo.refs()["main"]
    async with FakeHub(copy.new) as hub:
        await copy.run(hub)
    assert (copy.repo.snapshot(before) / PATH).read_bytes() == shard(OLD)
