"""JSON from others."""

import pytest

from p2pmodel.core.plain_json import parse_json


def test_values_are_those_of_json() -> None:
    assert parse_json(b'{"a": [1, -2.5, "x", null, true]}') == {"a": [1, -2.5, "x", None, True]}
    assert parse_json(str(2**63)) == 2**63
    assert float(parse_json("9" * 300)) == 1e300


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "9" * 301,
        "9" * 9999,
        "[" * 100_000,
        b"\xff",
        b'"\xff"',
    ],
)
def test_text_that_a_reader_could_stumble_over_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
