"""Messages of assemblies: round trips, and InvalidInput as the only error for invalid input."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmodel.coordinator.assembly.messages import (
    PART,
    assembly_digest,
    in_parts,
    manifest_text,
    parse_manifest,
    parse_update,
    update_text,
)
from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.messages import CoordinatorMessage, message_text, parse_message
from p2pmodel.errors import InvalidInput
from tests.support.torrent_files import SMALL, manifest_of

roots = st.dictionaries(st.integers(0, 999), st.binary(min_size=32, max_size=32))


@given(st.integers(0, (1 << 1000) - 1), roots)
def test_an_update_there_and_back(scarce: int, roots: dict[int, bytes]) -> None:
    demand = Demand(scarce, from_seeders=False, want=3, origin_bytes=7)
    assert parse_update(update_text(demand, 1000, roots)) == (demand, roots)


def test_a_manifest_there_and_back_has_one_name() -> None:
    manifest = manifest_of(SMALL)
    again = parse_manifest(manifest_text(manifest_of(dict(reversed(SMALL.items())))))
    assert again == manifest
    assert assembly_digest(manifest_text(again)) == assembly_digest(manifest_text(manifest))
    assert assembly_digest(manifest_text(manifest)) != assembly_digest(manifest_text(manifest_of(SMALL, private=True)))


@pytest.mark.parametrize("length", [0, 1, PART - 1, PART, PART + 1, 3 * PART])
def test_the_first_short_part_is_the_last(length: int) -> None:
    parts = in_parts("x" * length)
    assert "".join(parts) == "x" * length
    assert [len(part) == PART for part in parts] == [True] * (len(parts) - 1) + [False]


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"files": 3}', '{"repo": "../x", "commit": "y", "files": []}'])
def test_a_malformed_manifest(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_manifest(text)


@settings(max_examples=40)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_malformed_roots(roots: object) -> None:
    plain = json.loads(update_text(Demand(0, from_seeders=False), 8, {})) | {"roots": roots}
    try:
        parse_update(json.dumps(plain))
    except InvalidInput:
        pass
    else:
        assert roots is None or isinstance(roots, dict)


def test_messages_with_and_without_the_fields_of_an_assembly() -> None:
    message = CoordinatorMessage(Grant((1, 2), peers=3), assembled="ab" * 32, left=4)
    assert parse_message(message_text(message)) == message
    plain = json.loads(message_text(message))
    del plain["assembled"], plain["left"]
    assert parse_message(json.dumps(plain)) == CoordinatorMessage(Grant((1, 2), peers=3))
