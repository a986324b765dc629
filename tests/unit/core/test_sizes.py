"""Parsing and formatting of byte counts and durations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.sizes import counted, duration, human, parse_duration, parse_size
from p2pmodel.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("17", 17), ("500GB", 5 * 10**11), ("1.5 TB", 15 * 10**11), ("64MiB", 64 << 20), ("24Mbit", 3 * 10**6)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("45s", 45), ("30m", 1800), ("72h", 259200), ("7d", 604800), ("0.5h", 1800)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "5 lightyears", "1e9", "GB", "1GB2", "inf", "nan"])
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a size"):
        parse_size(text)
    with pytest.raises(InvalidInput, match="is not a time"):
        parse_duration(text)


@given(st.integers(0, 10**15 - 10**12))
def test_formatted_sizes_can_be_parsed(size: int) -> None:
    assert parse_size(human(size)) == pytest.approx(size, rel=0.06)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (45.4, "45 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (356_400, "4 d 3 h")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_one_is_not_many():
    assert [counted(n, "peer") for n in (0, 1, 2)] == ["0 peers", "1 peer", "2 peers"]
    assert counted(2, "entry", "entries") == "2 entries"
