"""The plan of a rank: its bytes, its pieces, and what of them is more than it needs."""

import math

from p2pmodel.core.content.layout import MIB, Layout, piece_length_for
from p2pmodel.core.content.rank_plan import Nothing, Rule, Share, Whole, rank_plan
from p2pmodel.core.content.shard_header import BYTES, StoredTensor
from p2pmodel.core.content.tensor_cuts import Cut

HEADER = 4096
PATH = "model.safetensors"


def headers(*tensors: tuple[str, tuple[int, ...]], path: str = PATH) -> dict[str, list[StoredTensor]]:
    found, offset = [], HEADER
    for name, shape in tensors:
        end = offset + BYTES["BF16"] * math.prod(shape)
        found.append(StoredTensor(name, "BF16", shape, offset, end))
        offset = end
    return {path: found}


def layout_of(files: dict[str, list[StoredTensor]], piece_length: int = 0) -> Layout:
    sizes = [(path, tensors[-1].end) for path, tensors in sorted(files.items())]
    return Layout(sizes, piece_length or piece_length_for(sum(size for _, size in sizes)))


def rule_of(**shares: Share) -> Rule:
    return lambda name, _shape: shares.get(name, Whole())


def test_the_sizes_are_those_of_the_parts() -> None:
    files = headers(("q", (512, 1024)), ("o", (1024, 512)), ("norm", (1024,)), ("other", (1024, 1024)))
    rule = rule_of(q=Cut(0, 4, 1), o=Cut(1, 4, 1), other=Nothing())
    sizes = rank_plan(files, rule, layout_of(files, 16384)).sizes
    assert sizes.own == 2 * 512 * 1024 * 2 // 4
    assert sizes.shared == 1024 * 2
    assert sizes.total == 2 * (2 * 512 * 1024 + 1024 + 1024 * 1024)
    assert not sizes.uncut


def test_a_range_touches_its_pieces_and_the_header_alone() -> None:
    files = headers(("a", (4 * MIB,)), ("b", (4 * MIB,)))
    layout = layout_of(files, MIB)
    plan = rank_plan(files, rule_of(a=Nothing(), b=Cut(0, 4, 3)), layout)
    assert plan.pieces == {0, *range((HEADER + 14 * MIB) // MIB, layout.piece_count)}
    assert [part.tensor.name for part in plan.parts[PATH]] == ["b"]


def test_a_tensor_with_gaps_below_a_piece_comes_whole() -> None:
    files = headers(("o", (2048, 2048)))
    plan = rank_plan(files, rule_of(o=Cut(1, 4, 2)), layout_of(files, MIB))
    assert plan.sizes.fetched == layout_of(files, MIB).spans[0].size
    assert plan.sizes.own == 2048 * 2048 * 2 // 4


def test_a_packed_tensor_with_large_halves_is_fetched_in_ranges() -> None:
    files = headers(("gate_up", (16384, 1024)))
    plan = rank_plan(files, rule_of(gate_up=Cut(0, 4, 0, packed=2)), layout_of(files, MIB))
    assert plan.sizes.own == 8 * MIB
    assert 8 * MIB <= plan.sizes.fetched <= 11 * MIB


def test_what_has_no_equal_parts_is_taken_whole_and_named() -> None:
    files = headers(("odd", (7, 3)))
    sizes = rank_plan(files, rule_of(odd=Cut(0, 4, 0)), layout_of(files)).sizes
    assert (sizes.own, sizes.shared, sizes.uncut) == (0, 42, ("odd",))


def test_a_stage_of_a_pipeline_and_the_experts_of_a_rank_fetch_within_a_hundredth_of_what_they_need() -> None:
    """24 layers in as many files, each with 8 large experts: 50 GB, pieces of 4 MiB."""
    files: dict[str, list[StoredTensor]] = {}
    for layer in range(24):
        names = [("attn", (4096, 4096)), *((f"experts.{expert}", (3 * 8192, 5120)) for expert in range(8))]
        named = [(f"layers.{layer}.{name}", shape) for name, shape in names]
        files |= headers(*named, path=f"model-{layer:05}.safetensors")
    layout = layout_of(files)
    assert layout.piece_length == 4 * MIB

    def stage(name: str, _shape: tuple[int, ...]) -> Share:
        return Whole() if int(name.split(".")[1]) < 6 else Nothing()

    def experts(name: str, _shape: tuple[int, ...]) -> Share:
        return Whole() if "attn" in name or int(name.rsplit(".", maxsplit=1)[-1]) // 2 == 1 else Nothing()

    for rule in stage, experts:
        sizes = rank_plan(files, rule, layout).sizes
        assert sizes.needed <= sizes.fetched
    assert rank_plan(files, stage, layout).sizes.fetched <= 1.01 * rank_plan(files, stage, layout).sizes.needed
