"""The ranks of a tiny mixture of experts, each with a cache of its own, over the in-memory swarm."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.rank_plan import Nothing, Rule, Share, Whole
from p2pmodel.core.content.tensor_cuts import Cut
from p2pmodel.errors import EntryNotFound, IntegrityError
from p2pmodel.node.fetch.job import NodeContext
from p2pmodel.node.ranks.rank_fetch import RankFetch, RankRequest, RankResult
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.memory.engine import MemoryEngine
from tests.support.eventually import PATIENCE
from tests.support.hub_snapshot import snapshot_of
from tests.support.node_swarm import Swarm, assert_nothing_runs, without_mirrors
from tests.support.recording_reporter import RecordingReporter

RANKS = 4
HIDDEN, WIDE, EXPERTS = 256, 128, 8


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {
        "model.embed_tokens.weight": (64, HIDDEN),
        "model.layers.0.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        "model.layers.0.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        "model.layers.0.mlp.experts.gate_up_proj": (EXPERTS, 2 * WIDE, HIDDEN),
        "model.layers.0.mlp.experts.down_proj": (EXPERTS, HIDDEN, WIDE),
        "model.norm.weight": (HIDDEN,),
    }
    return {name: torch.randn(shape).to(torch.bfloat16) for name, shape in shapes.items()}


def share_of(rank: int) -> Rule:
    def rule(name: str, _shape: tuple[int, ...]) -> Share:
        if "q_proj" in name:
            return Cut(0, RANKS, rank)
        if "o_proj" in name:
            return Cut(1, RANKS, rank)
        if "gate_up" in name:
            return Cut(1, RANKS, rank, packed=2)
        return Cut(2, RANKS, rank) if "down_proj" in name else Whole()

    return rule


def experts_of(rank: int) -> Rule:
    return lambda name, _shape: Cut(0, RANKS, rank) if "experts" in name else Whole()


def local(name: str, whole: torch.Tensor, rank: int) -> torch.Tensor:
    """The part of the rank, by torch's own slicing."""
    if "q_proj" in name:
        return whole.chunk(RANKS, 0)[rank]
    if "o_proj" in name:
        return whole.chunk(RANKS, 1)[rank]
    if "gate_up" in name:
        return torch.cat([half.chunk(RANKS, 1)[rank] for half in whole.chunk(2, 1)], 1)
    return whole.chunk(RANKS, 2)[rank] if "down_proj" in name else whole


@dataclass
class Rig:
    """The snapshot in a swarm, and nodes that fetch parts of it."""

    root: Path
    swarm: Swarm
    weights: dict[str, torch.Tensor]
    stack: AsyncExitStack
    notes: list[str] = field(default_factory=list)

    async def seeder(self) -> MemoryEngine:
        engine = await self.stack.enter_async_context(self.swarm.engine("127.0.0.2"))
        await self.swarm.seed(engine)
        return engine

    async def context(self, node: str, host: str) -> NodeContext:
        engine = await self.stack.enter_async_context(self.swarm.engine(host))
        return NodeContext(engine, HubCache(self.root / node))

    def fetch(self, context: NodeContext, rule: Rule, out: str, *, seed_seconds: float | None = None) -> RankFetch:
        torrent = self.root / "x.torrent"
        torrent.write_bytes(self.swarm.metainfo.raw)
        settings = Settings(
            cache_dir=context.cache.root,
            mirrors=(),
            offline=True,
            swarm=without_mirrors(peer_timeout=0.1, stall_timeout=30.0),
        )
        request = RankRequest(parse_target(str(torrent)), self.root / out, out, seed_seconds=seed_seconds)
        reporter = RecordingReporter(lambda _progress: None, self.notes.append)
        return RankFetch(request, settings, reporter, lambda _folder: rule, context=context)

    async def run(self, context: NodeContext, rule: Rule, out: str) -> RankResult:
        done: list[RankResult] = []
        async with asyncio.timeout(PATIENCE):
            await self.fetch(context, rule, out).run(done.append)
        return done[0]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    weights = tensors()
    names = sorted(weights)
    contents = {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": save({name: weights[name] for name in names[:3]}),
        "model-00002-of-00002.safetensors": save({name: weights[name] for name in names[3:]}),
    }
    async with AsyncExitStack() as stack:
        yield Rig(tmp_path, Swarm(tmp_path, snapshot_of(contents)), weights, stack)
    await assert_nothing_runs()


async def test_each_rank_has_its_part_and_no_byte_more(rig: Rig) -> None:
    await rig.seeder()
    for rank in range(RANKS):
        context = await rig.context(f"node-{rank}", f"127.0.1.{rank + 1}")
        result = await rig.run(context, share_of(rank), f"rank-{rank}.safetensors")
        found = load_file(result.out)
        assert set(found) == set(rig.weights)
        for name, whole in rig.weights.items():
            assert torch.equal(found[name], local(name, whole, rank)), name
        needed = sum(tensor.nbytes for tensor in found.values())
        shared = sum(tensor.nbytes for name, tensor in rig.weights.items() if "proj" not in name)
        cut = sum(tensor.nbytes for name, tensor in rig.weights.items() if "proj" in name)
        assert (result.sizes.own, result.sizes.shared) == (cut // RANKS, shared)
        assert needed == result.sizes.needed == cut // RANKS + shared
        with safe_open(result.out, "pt") as opened:
            assert opened.metadata()["commit"] == rig.swarm.snapshot.commit


async def test_nothing_unproved_has_a_name_that_others_trust_and_a_whole_fetch_begins_with_it(rig: Rig) -> None:
    await rig.seeder()
    context = await rig.context("node", "127.0.1.1")
    result = await rig.run(context, experts_of(0), "rank.safetensors")
    assert {path.name for path in result.path.iterdir()} == {"config.json"}
    repo = context.cache.repo(result.manifest.repo)
    weights = result.manifest.select(("*.safetensors",))
    assert all(repo.blob(file) is None for file in weights)
    async with rig.swarm.transfer(context.engine, cache=context.cache) as transfer:  # type: ignore[arg-type]
        await transfer.download()
        assert transfer.progress().from_cache >= result.sizes.in_pieces
    assert rig.swarm.published(context.cache) == rig.swarm.snapshot.contents


async def test_the_ranks_of_one_node_share_the_cache_and_a_second_run_moves_nothing(rig: Rig) -> None:
    seeder = await rig.seeder()
    context = await rig.context("node", "127.0.1.1")
    for rank in range(RANKS):
        await rig.run(context, experts_of(rank), f"rank-{rank}.safetensors")
    await seeder.torrents[rig.swarm.metainfo.info_hash].remove()
    again = await rig.run(context, experts_of(2), "again.safetensors")
    assert (again.progress.from_peers, again.progress.from_cache) == (0, again.progress.total)
    before, after = load_file(rig.root / "rank-2.safetensors"), load_file(again.out)
    assert all(torch.equal(before[name], after[name]) for name in before | after)


async def test_the_ranks_together_are_a_whole_copy_for_the_swarm(rig: Rig) -> None:
    seeder = await rig.seeder()
    ready: list[RankResult] = []
    serving = []
    for rank in range(RANKS):
        context = await rig.context(f"node-{rank}", f"127.0.1.{rank + 1}")
        fetch = rig.fetch(context, experts_of(rank), f"rank-{rank}", seed_seconds=1e9)
        serving.append(asyncio.create_task(fetch.run(ready.append)))
    async with asyncio.timeout(PATIENCE):
        while len(ready) < RANKS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await seeder.torrents[rig.swarm.metainfo.info_hash].remove()
        late = await rig.stack.enter_async_context(rig.swarm.engine("127.0.2.1"))
        weights = frozenset(
            index for index, file in enumerate(rig.swarm.metainfo.manifest.files) if "safetensors" in file.path
        )
        cache = HubCache(rig.root / "late")
        async with rig.swarm.transfer(late, cache=cache, files=weights) as transfer:
            await transfer.download()
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)
    whole = {path: data for path, data in rig.swarm.snapshot.contents.items() if path != "config.json"}
    assert rig.swarm.published(cache) == whole


async def test_the_plan_is_said_before_the_weights_move(rig: Rig) -> None:
    await rig.seeder()
    context = await rig.context("node", "127.0.1.1")
    result = await rig.run(context, share_of(1), "rank.safetensors")
    [said] = [line for line in rig.notes if "bytes: " in line]
    assert f"needs {result.sizes.needed} of {result.sizes.total} bytes" in said
    assert f"{result.sizes.by_rows} of them for tensors that are cut in their rows" in said
    assert result.sizes.by_rows > 0


async def test_a_damaged_piece_on_this_disk_is_noticed(rig: Rig) -> None:
    await rig.seeder()
    context = await rig.context("node", "127.0.1.1")
    result = await rig.run(context, experts_of(0), "rank.safetensors")
    repo = context.cache.repo(result.manifest.repo)
    [first, *_] = result.manifest.select(("*.safetensors",))
    staged = repo.staged.readable_path(first)
    with staged.open("r+b") as file:
        file.seek(40_000)
        file.write(b"damaged")
    with pytest.raises(IntegrityError, match="damaged on this disk"):
        await rig.run(context, experts_of(0), "again.safetensors")
    assert not (rig.root / "again.safetensors").exists()


async def test_without_safetensors_there_is_no_part(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        rig = Rig(tmp_path, Swarm(tmp_path, snapshot_of({"config.json": b"{}"})), {}, stack)
        await rig.seeder()
        context = await rig.context("node", "127.0.1.1")
        with pytest.raises(EntryNotFound, match="has no safetensors"):
            await rig.run(context, lambda _name, _shape: Nothing(), "rank.safetensors")
    await assert_nothing_runs()
