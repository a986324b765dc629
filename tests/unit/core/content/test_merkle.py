"""Merkle arithmetic against the definition in BEP 52, written down naively."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.core.content.merkle import HASH, FileTree, leaves, piece_hash, power_of_two, reduce, tree_of
from tests.support.naive_merkle import naive_tree


def ours(data: bytes, piece_length: int) -> FileTree:
    only = len(data) <= piece_length
    pieces = [
        piece_hash(data[i : i + piece_length], piece_length, only_piece=only) for i in range(0, len(data), piece_length)
    ]
    return tree_of(pieces, piece_length)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20 * BLOCK),
    st.sampled_from([BLOCK, 2 * BLOCK, 4 * BLOCK, 16 * BLOCK]),
    st.binary(min_size=1, max_size=9),
)
@example(BLOCK, BLOCK, b"a")
@example(BLOCK + 1, BLOCK, b"a")
@example(4 * BLOCK, 4 * BLOCK, b"a")
@example(4 * BLOCK + 1, 4 * BLOCK, b"a")
@example(1, 16 * BLOCK, b"a")
def test_trees_are_those_of_the_definition(size: int, piece_length: int, pattern: bytes) -> None:
    data = (pattern * (size // len(pattern) + 1))[:size]
    tree = ours(data, piece_length)
    assert tree == naive_tree(data, piece_length)
    count = -(-size // piece_length)
    assert len(tree.layer) == (count * HASH if count > 1 else 0)


def test_piece_hashes_are_read_out_of_the_layer() -> None:
    data = bytes(range(256)) * (3 * BLOCK // 256) + b"tail"
    tree = ours(data, BLOCK)
    for number in range(4):
        block = data[number * BLOCK : (number + 1) * BLOCK]
        assert tree.piece_hash(number) == hashlib.sha256(block).digest()
    small = ours(b"small", BLOCK)
    assert small.piece_hash(0) == small.root == hashlib.sha256(b"small").digest()


def test_a_changed_byte_changes_the_root() -> None:
    data = bytearray(3 * BLOCK)
    before = ours(bytes(data), BLOCK)
    data[2 * BLOCK + 7] ^= 1
    after = ours(bytes(data), BLOCK)
    assert before.root != after.root
    assert [before.piece_hash(i) == after.piece_hash(i) for i in range(3)] == [True, True, False]


def test_leaves_take_any_buffer() -> None:
    data = bytes(BLOCK) + b"x"
    assert leaves(data) == leaves(bytearray(data)) == leaves(memoryview(data))
    assert leaves(b"") == []


def test_reducing_no_hashes_gives_the_padding_of_that_height() -> None:
    pair = hashlib.sha256(bytes(2 * HASH)).digest()
    assert reduce((), 1) == bytes(HASH)
    assert reduce((), 2) == pair
    assert reduce((), 4) == hashlib.sha256(pair + pair).digest()


@pytest.mark.parametrize(("count", "width"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (1025, 2048)])
def test_power_of_two(count: int, width: int) -> None:
    assert power_of_two(count) == width
