"""How much comes before everything else."""

import pytest

from p2pmodel.core.content.layout import GB, MIB, piece_length_for
from p2pmodel.core.content.request_window import MOST_FIRST, most_pieces, window


@pytest.mark.parametrize(
    ("size", "expected"), [(0, MIB), (100 * MIB, 2 * MIB), (4 * GB, 80_000_000), (500 * GB, MOST_FIRST)]
)
def test_a_window_is_a_few_pieces_or_a_small_share(size: int, expected: int) -> None:
    assert window(size) == pytest.approx(expected, rel=0.05)


def test_it_is_the_same_in_pieces() -> None:
    for size in (1, 100 * MIB, 16 * GB, 500 * GB):
        assert 0 <= window(size) - most_pieces(size) * piece_length_for(size) < piece_length_for(size)
        assert most_pieces(size) >= 8
