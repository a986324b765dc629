"""The plan of a rank: its bytes, its pieces, and what of them is more than it needs."""

import math

from p2pmodel.core.content.layout import BLOCK, MIB, Layout, piece_length_for
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
    assert plan.pieces.every == {0, *range((HEADER + 14 * MIB) // MIB, layout.piece_count)}
    assert [part.tensor.name for part in plan.parts[PATH]] == ["b"]


def test_a_tensor_with_gaps_below_a_piece_comes_whole() -> None:
    files = headers(("o", (2048, 2048)))
    plan = rank_plan(files, rule_of(o=Cut(1, 4, 2)), layout_of(files, MIB))
    assert plan.sizes.in_pieces == layout_of(files, MIB).spans[0].size
    assert plan.sizes.own == 2048 * 2048 * 2 // 4


def test_a_packed_tensor_with_large_halves_is_fetched_in_ranges() -> None:
    files = headers(("gate_up", (16384, 1024)))
    plan = rank_plan(files, rule_of(gate_up=Cut(0, 4, 0, packed=2)), layout_of(files, MIB))
    assert plan.sizes.own == 8 * MIB
    assert 8 * MIB <= plan.sizes.in_pieces <= 11 * MIB


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
        assert sizes.needed <= sizes.in_pieces
    assert rank_plan(files, stage, layout).sizes.in_pieces <= 1.01 * rank_plan(files, stage, layout).sizes.needed


def test_the_pieces_of_a_rank_are_whole_or_in_blocks() -> None:
    files = headers(("a", (2 * MIB,)), ("b", (MIB,)))
    layout = layout_of(files, MIB)
    plan = rank_plan(files, rule_of(a=Nothing(), b=Cut(0, 4, 3)), layout)
    # The last quarter of `b` begins 4 KiB after a boundary of blocks, as all does here, and ends in a short piece.
    assert plan.pieces.whole == {6}
    assert plan.pieces.blocks == {0: ((0, 1),), 5: ((32, 64),)}
    assert plan.sizes.in_blocks == HEADER + 33 * BLOCK
    assert plan.sizes.in_pieces == HEADER + 2 * MIB


def test_a_slice_of_a_large_tensor_comes_within_a_hundredth_of_its_bytes() -> None:
    files = headers(("gate", (1536, 4096)), ("up", (1536, 4096)))
    rule = rule_of(gate=Cut(0, 4, 1), up=Cut(0, 4, 1))
    sizes = rank_plan(files, rule, layout_of(files, 16 * MIB)).sizes
    assert sizes.needed < sizes.in_blocks <= 1.01 * sizes.needed
    assert sizes.in_pieces > 3 * sizes.needed


def test_rows_of_which_the_parts_are_shorter_than_a_block_come_whole() -> None:
    files = headers(("o", (256, 16384)))
    plan = rank_plan(files, rule_of(o=Cut(1, 8, 2)), layout_of(files, MIB))
    assert plan.sizes.in_blocks >= 256 * 16384 * 2 * 7 // 8
    assert (
        plan.sizes.needed + plan.sizes.by_rows
        <= plan.sizes.in_blocks
        <= plan.sizes.needed + plan.sizes.by_rows + 3 * BLOCK
    )


def test_rows_of_which_the_parts_have_blocks_come_in_blocks() -> None:
    files = headers(("o", (64, 16 * 8192)))
    plan = rank_plan(files, rule_of(o=Cut(1, 4, 2)), layout_of(files, MIB))
    assert plan.sizes.own == 64 * 4 * 16384
    assert plan.sizes.in_blocks <= plan.sizes.own + 65 * BLOCK
    assert plan.sizes.by_rows == 0


def test_every_byte_of_a_part_is_in_a_block_that_is_fetched() -> None:
    files = headers(("q", (512, 1000)), ("o", (1000, 512)), ("gate_up", (8, 64, 500)), ("x", (70000,)))
    rule = rule_of(q=Cut(0, 4, 3), o=Cut(1, 4, 1), gate_up=Cut(1, 4, 1, packed=2))
    layout = layout_of(files, 4 * BLOCK)
    plan = rank_plan(files, rule, layout)
    for part in plan.parts[PATH]:
        for start, end in part.ranges():
            for block in range(start // BLOCK, -(-end // BLOCK)):
                piece, within = divmod(block, 4)
                runs = ((0, 4),) if piece in plan.pieces.whole else plan.pieces.blocks[piece]
                assert any(first <= within < stop for first, stop in runs)
