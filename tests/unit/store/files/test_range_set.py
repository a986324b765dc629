"""RangeSet against a set of integers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.store.files.range_set import RangeSet

RANGE = st.tuples(st.integers(0, 30), st.integers(0, 30))
STEP = st.tuples(st.booleans(), RANGE)


def build(steps: list[tuple[bool, tuple[int, int]]]) -> tuple[RangeSet, set[int]]:
    ours, model = RangeSet(), set[int]()
    for adding, (start, end) in steps:
        if adding:
            ours.add(start, end)
            model |= set(range(start, end))
        else:
            ours.remove(start, end)
            model -= set(range(start, end))
    return ours, model


def positions(ranges: list[tuple[int, int]]) -> set[int]:
    return {position for start, end in ranges for position in range(start, end)}


@given(st.lists(STEP, max_size=12))
def test_it_equals_a_set_in_merged_ranges(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    ours, model = build(steps)
    ranges = list(ours)
    assert positions(ranges) == model
    assert len(ours) == len(model)
    assert all(start < end for start, end in ranges)
    assert all(before[1] < after[0] for before, after in pairwise(ranges))
    assert (ours.start(), ours.end()) == ((min(model), max(model) + 1) if model else (0, 0))
    assert ours.prefix() == next(i for i in range(32) if i not in model)


@given(st.lists(STEP, max_size=12), RANGE)
def test_gaps_are_the_missing_positions(steps: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]) -> None:
    ours, model = build(steps)
    gaps = ours.gaps(*asked)
    assert positions(gaps) == set(range(*asked)) - model
    assert all(start < end for start, end in gaps)
    assert gaps == sorted(gaps)


def test_a_copy_is_independent() -> None:
    first = RangeSet([(0, 4)])
    second = first.copy()
    second.add(4, 8)
    assert list(first) == [(0, 4)]
    assert list(second) == [(0, 8)]
