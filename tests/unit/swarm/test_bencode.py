"""The codec: canonical, bounded, with a value or BencodeError as its only results."""

import libtorrent as lt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.swarm import bencode
from p2pmodel.swarm.bencode import BencodeError, Truncated

values = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=6), inner, max_size=4),
    max_leaves=20,
)
nearly = st.text("ilde:0123456789-ab", max_size=30).map(str.encode)


@given(values)
def test_round_trip_and_the_same_bytes_as_libtorrent(value: object) -> None:
    encoded = bencode.encode(value)  # type: ignore[arg-type]
    assert bencode.decode(encoded) == value
    assert encoded == lt.bencode(value)


@given(nearly | st.binary(max_size=60))
def test_decoded_values_are_canonical_and_all_failures_are_one_error(data: bytes) -> None:
    try:
        value = bencode.decode(data)
    except BencodeError:
        return
    assert bencode.encode(value) == data


@given(st.dictionaries(st.binary(max_size=6), values, max_size=5))
def test_spans_are_the_positions_of_the_values(value: dict[bytes, bencode.Bencoded]) -> None:
    data = bencode.encode(value)
    decoded, spans = bencode.decode_dict(data)
    assert decoded == value
    assert {key: bencode.decode(data[span]) for key, span in spans.items()} == value


@given(values.map(bencode.encode), st.data())  # type: ignore[arg-type]
def test_cut_anywhere_is_truncated(data: bytes, drawn: st.DataObject) -> None:
    with pytest.raises(Truncated):
        bencode.decode(data[: drawn.draw(st.integers(0, len(data) - 1))])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"d1:bi1e1:ai2ee", "repeated or out of order at byte 7"),
        (b"d1:ai1e1:ai2ee", "repeated or out of order at byte 7"),
        (b"i01e", "not a number"),
        (b"i-0e", "not a number"),
        (b"ie", "not a number"),
        (b"i" + b"9" * 30 + b"e", "not a number"),
        (b"01:a", "not a number"),
        (b"-1:a" + b" " * 30, "not bencode at byte 0"),
        (b"d-1:ai1ee" + b" " * 30, "negative length"),
        (b"di1ei1ee" + b" " * 30, "not a number at byte 1"),
        (b"1:ab", "unexpected data after the end at byte 3"),
        (b"<!DOCTYPE html>", "not bencode at byte 0"),
        (b"l" * 100 + b"e" * 100, "nested too deeply"),
        (b"99999999999:a", "inside a string"),
        (b"", "ends at byte 0"),
    ],
)
def test_each_fault_is_named(data: bytes, message: str) -> None:
    with pytest.raises(BencodeError, match=message):
        bencode.decode(data)


def test_many_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bencode, "MAX_VALUES", 100)
    assert bencode.decode(b"l" + b"0:" * 99 + b"e")
    with pytest.raises(BencodeError, match="too many"):
        bencode.decode(b"l" + b"0:" * 100 + b"e")


@pytest.mark.parametrize("data", [b"le", b"i1e", b"1:a"])
def test_decode_dict_requires_a_dictionary(data: bytes) -> None:
    with pytest.raises(BencodeError, match="not a dictionary"):
        bencode.decode_dict(data)
