"""The plan of an update: file by file what is adopted, reused and downloaded, and what a fetch then really does."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core.content.layout import BLOCK
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.node.snapshot.update_plan import FilePlan, Planner, UpdatePlan
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm
from tests.support.shards import random_tensors, shard
from tests.support.stored import publish, stage
from tests.support.updates import PIECE

TENSOR = 1_000_000
OLD = random_tensors(8, TENSOR)
OTHER = random_tensors(8, TENSOR, seed=2)
CHANGED = "layer.3.weight"
PATIENT = OriginSettings(connect_timeout=1, read_timeout=1, patience=0.3)
SAME = b"same" * 1000


class Planned:
    """A cache with one revision, and the plan for the next one."""

    def __init__(self, root: Path, new: bytes) -> None:
        contents = {"model.safetensors": new, "README.md": b"new", "renamed.bin": SAME, "config.json": b"{}"}
        self.swarm = Swarm(root, snapshot_of(contents))
        self.manifest = self.swarm.snapshot.manifest
        cache = self.swarm.cache()
        old = {"model.safetensors": shard(OLD), "README.md": b"older", "name.bin": SAME, "config.json": b"{}"}
        self.before = publish(cache, snapshot_of(old))
        self.repo: RepoCache = cache.repo(self.manifest.repo)

    def target(self, *, torrent: bool) -> ResolvedTarget:
        metainfo = self.swarm.metainfo if torrent else None
        return ResolvedTarget(self.manifest, metainfo, ("main",), vouched_by="mirror m")

    async def plan(self, *, torrent: bool, hub: FakeHub | None = None) -> UpdatePlan:
        if hub is None:
            return await Planner(self.repo, self.target(torrent=torrent), None).plan(self.manifest.files)
        mirror = MirrorSettings(name="m", endpoint=hub.url)
        async with Origin([mirror], PATIENT) as origin:
            return await Planner(self.repo, self.target(torrent=torrent), origin).plan(self.manifest.files)


def by_path(plan: UpdatePlan) -> Mapping[str, FilePlan]:
    return {file.path: file for file in plan.files}


async def test_each_file_says_where_its_bytes_come_from(tmp_path: Path):
    planned = Planned(tmp_path, shard(OLD | {CHANGED: OTHER[CHANGED]}))
    plan = await planned.plan(torrent=True)
    files = by_path(plan)
    assert plan.previous == planned.before.commit
    assert files["README.md"] == FilePlan("README.md", before=5, size=3)
    assert files["renamed.bin"] == FilePlan("renamed.bin", before=0, size=len(SAME), adopted=len(SAME))
    assert not files["config.json"].changed
    assert [file.path for file in plan.shown] == ["README.md", "model.safetensors", "renamed.bin"]
    assert plan.proved
    assert not plan.at_most


async def test_of_a_changed_tensor_exactly_its_bytes_are_planned(tmp_path: Path):
    planned = Planned(tmp_path, shard(OLD | {CHANGED: OTHER[CHANGED]}))
    file = by_path(await planned.plan(torrent=True))["model.safetensors"]
    assert file.download == TENSOR
    assert file.reused == file.size - TENSOR


async def test_moved_tensors_are_found_by_the_header_at_a_mirror(tmp_path: Path):
    planned = Planned(tmp_path, shard({"new": b"n" * TENSOR, **dict(reversed(OLD.items()))}))
    async with FakeHub(planned.swarm.snapshot) as hub:
        plan = await planned.plan(torrent=True, hub=hub)
        assert hub.sent < 2 * BLOCK
    assert not plan.at_most
    assert TENSOR <= by_path(plan)["model.safetensors"].download <= TENSOR + 2 * BLOCK


async def test_without_the_header_the_plan_is_a_bound(tmp_path: Path):
    planned = Planned(tmp_path, shard({"new": b"n" * TENSOR, **dict(reversed(OLD.items()))}))
    plan = await planned.plan(torrent=True)
    assert plan.at_most
    assert by_path(plan)["model.safetensors"].download > 2 * TENSOR


async def test_without_a_torrent_samples_decide(tmp_path: Path):
    planned = Planned(tmp_path, shard(OLD | {CHANGED: OTHER[CHANGED]}))
    async with FakeHub(planned.swarm.snapshot) as hub:
        plan = await planned.plan(torrent=False, hub=hub)
    assert not plan.proved
    assert TENSOR <= by_path(plan)["model.safetensors"].download <= TENSOR + BLOCK


async def test_what_an_unfinished_download_has_is_planned_apart(tmp_path: Path):
    new = shard(OTHER)
    planned = Planned(tmp_path, new)
    stage(planned.repo, planned.manifest, planned.swarm.snapshot.file("model.safetensors"), new[: 3 * PIECE])
    file = by_path(await planned.plan(torrent=True))["model.safetensors"]
    assert (file.resumed, file.reused, file.download) == (3 * PIECE, 0, file.size - 3 * PIECE)


async def test_a_plan_writes_nothing(tmp_path: Path):
    planned = Planned(tmp_path, shard(OLD | {CHANGED: OTHER[CHANGED]}))
    before = sorted(path for path in planned.repo.folder.rglob("*") if path.is_file())
    await planned.plan(torrent=True)
    assert sorted(path for path in planned.repo.folder.rglob("*") if path.is_file()) == before


def test_totals_are_sums(tmp_path: Path):
    plan = UpdatePlan(Planned(tmp_path, shard(OLD)).manifest, None, (), proved=True)
    files = (FilePlan("a", 1, 10, adopted=10), FilePlan("b", 1, 10, resumed=1, reused=2))
    assert replace(plan, files=files).download == 7
