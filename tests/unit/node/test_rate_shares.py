"""Sharing one limit: all of it is assigned, and each user can get at least a half."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.node.bandwidth import shares

RATES = st.floats(0, 1e12)


@given(st.integers(1, 1 << 40), RATES, RATES)
def test_together_they_never_use_more(limit: int, first: float, second: float) -> None:
    found = shares(limit, first, second)
    assert sum(found) == max(limit, 2)
    assert min(found) >= 1


@given(st.integers(100, 1 << 40), st.floats(0, 1), st.floats(0, 1))
def test_a_user_of_part_of_its_half_gets_more_than_that_part(limit: int, first: float, second: float) -> None:
    used = first * limit / 2, second * limit / 2
    assert all(share + 1 >= min(each, limit / 2) for share, each in zip(shares(limit, *used), used, strict=True))


def test_the_unused_part_of_a_half_goes_to_the_other() -> None:
    assert shares(1000, 0, 0) == (500, 500)
    assert shares(1000, 700, 0) == (980, 20)
    assert shares(1000, 0, 700) == (62, 938)
    assert shares(1000, 10, 0) == (506, 494), "HTTP may begin"
    assert shares(1000, 900, 0) == (980, 20)
    assert shares(1000, 100, 900) == (145, 855)
    assert shares(1000, 900, 100) == (855, 145)
    assert shares(1000, 500, 500) == (500, 500)


def test_a_late_user_gets_its_half_soon() -> None:
    first = 0.0
    for _ in range(12):
        first, second = shares(1000, first, 1000 - first)
    assert (first, second) == (500, 500)


def test_a_side_that_begins_has_much_of_what_the_other_leaves() -> None:
    """A fetch begins over HTTP, and goes on in the swarm."""
    assert shares(1000, 0, 430)[0] >= 200


def test_a_side_that_begins_soon_uses_what_the_other_leaves() -> None:
    used = 0.0
    for _ in range(5):
        share, other = shares(1000, used, 250)
        assert other >= 250
        used = float(share)
    assert used >= 600
