"""Ranges of versions: which of the names of a catalog they mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.server.catalog.versions import newest
from p2pmodel.core.content.names import is_range, is_version

NAMES = [
    "main",
    "stable",
    "0.3.1",
    "v0.3.9",
    "0.4.0",
    "v1.2.3",
    "1.2.10",
    "v1.10.0",
    "1.11.0-rc.1",
    "v2.0.0",
    "1.99",
    "x1.9.9",
]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("^1.2", "v1.10.0"),
        ("^v1", "v1.10.0"),
        ("~1.2", "1.2.10"),
        ("~1.2.11", None),
        ("^0.3", "v0.3.9"),
        ("^1.11.0-rc.0", "1.11.0-rc.1"),
        ("^1.10.1", None),
        ("^3", None),
    ],
)
def test_the_highest_version_in_the_range(wanted: str, name: str | None) -> None:
    assert newest(wanted, NAMES) == name
    assert newest(wanted, reversed(NAMES)) == name


@given(
    st.from_regex(r"[\^~]v?[0-9a-z.-]{1,20}", fullmatch=True),
    st.lists(st.text("v0123456789.-ab", max_size=12), max_size=5),
)
def test_whatever_the_texts_are_the_answer_is_one_of_the_names(wanted: str, names: list[str]) -> None:
    if is_range(wanted):
        found = newest(wanted, names)
        assert found is None or (found in names and is_version(found))
