"""Bitfields against their definition in BEP 3."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.bitfield import bits_of, pack, pieces_of, unpack

COUNTS = st.integers(0, 200)


@given(
    COUNTS.flatmap(lambda n: st.tuples(st.just(n), st.frozensets(st.integers(0, n - 1)) if n else st.just(frozenset())))
)
def test_unpack_undoes_pack(case: tuple[int, frozenset[int]]) -> None:
    count, pieces = case
    field = pack(pieces, count)
    assert len(field) == (count + 7) // 8
    assert unpack(field, count) == pieces


@given(st.binary(max_size=20), COUNTS)
def test_any_bytes_are_refused_or_mean_one_set(field: bytes, count: int) -> None:
    try:
        pieces = unpack(field, count)
    except ValueError:
        return
    assert all(0 <= piece < count for piece in pieces)
    assert pack(pieces, count) == field


def test_the_first_piece_is_the_highest_bit() -> None:
    assert pack([0], 9) == b"\x80\x00"
    assert pack([7, 8], 9) == b"\x01\x80"


@pytest.mark.parametrize("piece", [-1, 9])
def test_a_piece_outside_is_an_index_error(piece: int) -> None:
    with pytest.raises(IndexError):
        pack([piece], 9)


def test_a_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="9 pieces has 2 bytes, not 1"):
        unpack(b"\x80", 9)


def test_spare_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="spare bits"):
        unpack(b"\x80\x40", 9)


@given(st.sets(st.integers(0, 3000)))
def test_a_set_of_pieces_as_an_integer_there_and_back(pieces: set[int]) -> None:
    assert bits_of(pieces) == sum(1 << piece for piece in pieces)
    assert list(pieces_of(bits_of(pieces))) == sorted(pieces)


@given(st.sets(st.integers(0, 300)), st.integers(0, 300))
def test_a_dense_set_as_an_integer_is_the_same_number(missing: set[int], count: int) -> None:
    pieces = set(range(count)) - missing
    assert bits_of(pieces) == sum(1 << piece for piece in pieces)


@pytest.mark.parametrize("pieces", [[], [0], [9_999], [0, 9_999], range(10_000)])
def test_few_and_many_pieces_are_the_same_bits(pieces: Sequence[int]) -> None:
    assert bits_of(pieces) == sum(1 << piece for piece in pieces)
