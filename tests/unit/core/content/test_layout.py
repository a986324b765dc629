"""File-piece-byte arithmetic against a byte by byte definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.layout import BLOCK, GB, KIB, MIB, Layout, piece_length_for

SIZES = st.lists(st.integers(0, 40), max_size=8)
PIECE = st.sampled_from([1, 2, 4, 8, 16])


def layout_of(sizes: list[int], piece_length: int) -> Layout:
    return Layout([(f"f{i}", size) for i, size in enumerate(sizes)], piece_length)


def bytes_by_piece(sizes: list[int], piece_length: int) -> list[list[tuple[int, int]]]:
    """The definition: (file, offset) of every byte, piece by piece, each file starting a new one."""
    pieces: list[list[tuple[int, int]]] = []
    for index, size in enumerate(sizes):
        for start in range(0, size, piece_length):
            end = min(start + piece_length, size)
            pieces += [[(index, offset) for offset in range(start, end)]]
    return pieces


@given(SIZES, PIECE)
def test_every_byte_is_in_exactly_the_piece_of_the_definition(sizes: list[int], piece_length: int) -> None:
    layout = layout_of(sizes, piece_length)
    found = []
    for piece in range(layout.piece_count):
        place = layout.piece_range(piece)
        assert place.span is layout.span_of(piece)
        assert piece in place.span.pieces
        found.append([(place.span.index, place.offset + i) for i in range(place.length)])
    assert found == bytes_by_piece(sizes, piece_length)


@given(SIZES.filter(any), PIECE, st.data())
def test_pieces_in_are_those_that_touch_the_range(sizes: list[int], piece_length: int, data: st.DataObject) -> None:
    layout = layout_of(sizes, piece_length)
    span = data.draw(st.sampled_from([s for s in layout.spans if s.size]))
    offset = data.draw(st.integers(0, span.size))
    length = data.draw(st.integers(0, span.size - offset))
    wanted = {(span.index, offset + i) for i in range(length)}
    touched = [i for i, held in enumerate(bytes_by_piece(sizes, piece_length)) if wanted & set(held)]
    assert list(layout.pieces_in(span, offset, length)) == touched


@given(SIZES, PIECE, st.integers())
def test_a_piece_outside_is_an_index_error(sizes: list[int], piece_length: int, piece: int) -> None:
    layout = layout_of(sizes, piece_length)
    if not 0 <= piece < layout.piece_count:
        with pytest.raises(IndexError):
            layout.span_of(piece)


@pytest.mark.parametrize(
    ("total", "length"),
    [
        (0, 128 * KIB),
        (128 * MIB - 1, 128 * KIB),
        (128 * MIB, 256 * KIB),
        (512 * MIB - 1, 256 * KIB),
        (512 * MIB, 512 * KIB),
        (4 * GB - 1, 512 * KIB),
        (4 * GB, MIB),
        (10 * GB - 1, MIB),
        (10 * GB, 4 * MIB),
        (100 * GB - 1, 4 * MIB),
        (100 * GB, 16 * MIB),
        (2000 * GB, 16 * MIB),
    ],
)
def test_the_piece_length_rule_never_changes(total: int, length: int) -> None:
    """It is part of every info-hash: a change here splits the swarms of old and new nodes."""
    assert piece_length_for(total) == length


@given(st.integers(0, 4000 * GB))
def test_piece_lengths_are_powers_of_two_that_keep_torrents_small(total: int) -> None:
    length = piece_length_for(total)
    assert length >= BLOCK
    assert length & (length - 1) == 0
    assert total // length <= max(25_000, total // (16 * MIB))
