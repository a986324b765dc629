"""Parts of tensors: the bytes of a part are those of the elements that slicing takes."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.shard_header import StoredTensor
from p2pmodel.core.content.tensor_cuts import Cut, TensorPart

START = 100
WIDTH = 2  # bytes of a BF16


def stored(shape: tuple[int, ...]) -> StoredTensor:
    return StoredTensor("t", "BF16", shape, START, START + WIDTH * math.prod(shape))


def sliced(shape: tuple[int, ...], cut: Cut) -> list[int]:
    """The numbers of the elements that the rank has, row by row, by the definition of the cut."""
    size, part = shape[cut.dim], shape[cut.dim] // cut.packed // cut.of
    chosen = {
        pack * (size // cut.packed) + cut.index * part + number for pack in range(cut.packed) for number in range(part)
    }
    places = enumerate(itertools.product(*map(range, shape)))
    return [number for number, place in places if place[cut.dim] in chosen]


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], Cut]:
    of, packed = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    dim = draw(st.integers(0, len(shape) - 1))
    shape[dim] *= of * packed
    return tuple(shape), Cut(dim, of, draw(st.integers(0, of - 1)), packed)


@given(cuts())
def test_the_ranges_have_the_elements_of_the_part_in_their_order(drawn: tuple[tuple[int, ...], Cut]) -> None:
    shape, cut = drawn
    assert cut.fits(stored(shape))
    part = TensorPart(stored(shape), cut)
    ranges = list(part.ranges())
    found = [(at - START) // WIDTH for start, end in ranges for at in range(start, end, WIDTH)]
    assert found == sliced(shape, cut)
    assert part.size == sum(end - start for start, end in ranges) == WIDTH * math.prod(part.shape)
    assert part.reach == (ranges[0][0], ranges[-1][1])
    assert {after[0] - before[1] for before, after in itertools.pairwise(ranges)} <= {part.gap}


@given(cuts())
def test_the_parts_of_all_ranks_are_the_tensor(drawn: tuple[tuple[int, ...], Cut]) -> None:
    shape, cut = drawn
    every = [sliced(shape, Cut(cut.dim, cut.of, index, cut.packed)) for index in range(cut.of)]
    assert sorted(itertools.chain.from_iterable(every)) == list(range(math.prod(shape)))


@pytest.mark.parametrize(
    ("shape", "cut"), [((6, 4), Cut(0, 4, 0)), ((8,), Cut(1, 2, 0)), ((6,), Cut(0, 2, 0, packed=2))]
)
def test_a_tensor_without_equal_parts_does_not_fit(shape: tuple[int, ...], cut: Cut) -> None:
    assert not cut.fits(stored(shape))


def test_a_whole_tensor_is_one_range() -> None:
    part = TensorPart(stored((3, 4)))
    assert (list(part.ranges()), part.shape, part.size) == ([(START, START + 24)], (3, 4), 24)
