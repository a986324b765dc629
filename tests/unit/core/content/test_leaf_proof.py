"""Proofs of blocks, against trees that are computed from whole pieces."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content import merkle
from p2pmodel.core.content.layout import BLOCK, Layout
from p2pmodel.core.content.leaf_proof import (
    MOST_RUNS,
    PieceTree,
    asked,
    fits,
    parse_runs,
    proof,
    proof_length,
    proved,
    runs_of,
    runs_text,
)

PIECE = 8 * BLOCK


def piece_of(size: int, number: int = 0) -> tuple[bytes, PieceTree, bytes]:
    """The bytes of a piece of a file of `size` bytes, its tree, and its root as a torrent has it."""
    layout = Layout([("file", size)], PIECE)
    place = layout.piece_range(number)
    data = random.Random(size).randbytes(place.length)
    root = merkle.piece_hash(data, PIECE, only_piece=place.span.piece_count == 1)
    return data, PieceTree.of(place, PIECE), root


@given(
    st.sampled_from([1, BLOCK, BLOCK + 1, 5 * BLOCK - 7, PIECE, PIECE + 1, 2 * PIECE - 1, 3 * PIECE]),
    st.lists(st.tuples(st.integers(0, 7), st.integers(1, 8)), min_size=1, max_size=4),
)
def test_a_proof_proves_exactly_the_blocks_that_were_asked_for(size: int, asked_for: list[tuple[int, int]]) -> None:
    data, tree, root = piece_of(size, -(-size // PIECE) - 1)
    runs = runs_of((first % tree.count, min(tree.count, first % tree.count + many)) for first, many in asked_for)
    leaves = merkle.leaves(data)
    found = proof(leaves, tree, runs)
    assert len(found) == proof_length(tree, runs)
    assert proved(found, root, tree, runs) == {b: leaves[b] for first, end in runs for b in range(first, end)}


@given(st.integers(0, 200), st.integers(0, 7))
def test_a_changed_proof_proves_nothing(place: int, bit: int) -> None:
    data, tree, root = piece_of(3 * PIECE, 1)
    right = bytearray(proof(merkle.leaves(data), tree, ((1, 3), (6, 7))))
    right[place % len(right)] ^= 1 << bit
    assert proved(bytes(right), root, tree, ((1, 3), (6, 7))) is None


def test_a_proof_of_another_length_proves_nothing() -> None:
    data, tree, root = piece_of(3 * PIECE)
    right = proof(merkle.leaves(data), tree, ((0, 1),))
    for wrong in right[:-1], right + bytes(32), b"":
        assert proved(wrong, root, tree, ((0, 1),)) is None


def test_a_proof_of_a_tenth_of_a_large_piece_is_a_few_kilobytes() -> None:
    assert proof_length(PieceTree(0, 1024, 1024), ((100, 200),)) < 4000


def test_runs_are_joined_and_written_in_order() -> None:
    runs = runs_of([(5, 7), (0, 2), (2, 3), (6, 9)])
    assert runs == ((0, 3), (5, 9))
    assert parse_runs(runs_text(runs), 9) == runs


@pytest.mark.parametrize("text", ["", "1", "3-1", "0-2,1-4", "0-2,3-4", "5-6,0-1", "0-9", "-1-2", "0-1,", "00000-1"])
def test_other_runs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="blocks"):
        parse_runs(text, 9)


def test_too_many_runs_are_asked_for_as_one() -> None:
    many = tuple((2 * i, 2 * i + 1) for i in range(MOST_RUNS + 1))
    assert asked(many) == ((0, 2 * MOST_RUNS + 1),)
    assert asked(many[:3]) == many[:3]
    with pytest.raises(ValueError, match="blocks"):
        parse_runs(runs_text(many), 1000)


@pytest.mark.parametrize(("first", "width"), [(0, 3), (4, 8), (-8, 8), (16, 8), (0, 16384), (0, 0)])
def test_a_tree_that_no_piece_has_is_refused(first: int, width: int) -> None:
    with pytest.raises(ValueError, match="no such tree"):
        PieceTree.at(first, width, 16 * BLOCK)


def test_the_tree_of_a_piece_is_found_again_by_its_blocks() -> None:
    layout = Layout([("file", 5 * PIECE - 3 * BLOCK - 1)], PIECE)
    for piece in range(layout.piece_count):
        tree = PieceTree.of(layout.piece_range(piece), PIECE)
        assert PieceTree.at(tree.first, tree.width, layout.spans[0].size) == tree


def test_blocks_fit_their_hashes_alone() -> None:
    data = random.Random(1).randbytes(2 * BLOCK + 5)
    leaves = merkle.leaves(data)
    assert fits(data, leaves)
    assert not fits(data[:-1], leaves)
    assert not fits(data, leaves[:2])
    assert not fits(data, [leaves[0], None, leaves[2]])
