"""Messages about leases: unchanged after the way through text, and nonsense is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.leases.demand import Complaint, Demand, Grant
from p2pmodel.coordinator.leases.messages import (
    HEARTBEAT,
    MAX_MESSAGE,
    MOST_COMPLAINTS,
    MOST_HEARTBEATS,
    CoordinatorMessage,
    demand_text,
    message_text,
    parse_demand,
    parse_message,
)
from p2pmodel.coordinator.leases.peer import SILENCE
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.errors import InvalidInput

COUNT = 77
NUMBERS = st.integers(0, (1 << 62) - 1)
BITS = st.integers(0, (1 << COUNT) - 1)
DEMANDS = st.builds(
    Demand,
    scarce=BITS,
    from_seeders=st.booleans(),
    want=NUMBERS,
    origin_bytes=NUMBERS,
    leased=BITS,
    complaints=st.lists(st.builds(Complaint, NUMBERS, st.text()), max_size=MOST_COMPLAINTS).map(tuple),
)
GRANTS = st.builds(
    Grant, pieces=st.lists(NUMBERS).map(tuple), peers=NUMBERS, origin_bytes=NUMBERS, refused=st.booleans()
)
SOURCES = st.lists(st.builds(Source, st.text(), st.text(), st.text(), st.text())).map(tuple)
MESSAGES = st.builds(
    CoordinatorMessage, GRANTS, SOURCES, late=st.booleans(), heartbeats=st.integers(1, MOST_HEARTBEATS)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(DEMANDS)
def test_a_demand_survives(demand: Demand) -> None:
    assert parse_demand(demand_text(demand, COUNT)) == demand


@given(MESSAGES)
def test_a_message_survives(message: CoordinatorMessage) -> None:
    assert parse_message(message_text(message)) == message


@pytest.mark.parametrize(("said", "taken"), [(None, 1), (0, 1), (2, 2), (10**9, MOST_HEARTBEATS)])
def test_a_peer_is_never_told_to_be_silent_for_so_long_that_it_counts_as_gone(said: int | None, taken: int) -> None:
    plain = json.loads(message_text(CoordinatorMessage(Grant()))) | {"heartbeats": said}
    if said is None:  # a coordinator of an earlier version
        del plain["heartbeats"]
    assert parse_message(json.dumps(plain)).heartbeats == taken
    assert MOST_HEARTBEATS * HEARTBEAT < SILENCE


def test_a_demand_of_the_largest_torrent_fits() -> None:
    count = 1 << 21
    text = demand_text(Demand((1 << count) - 1, from_seeders=True, leased=(1 << count) - 1), count)
    assert len(text) < MAX_MESSAGE


def test_the_leased_field_of_a_demand_is_optional() -> None:
    plain = json.loads(demand_text(Demand(5, from_seeders=True), COUNT))
    del plain["leased"]
    assert parse_demand(json.dumps(plain)) == Demand(5, from_seeders=True)


def test_the_lost_source_of_a_message_is_optional() -> None:
    message = CoordinatorMessage(Grant((1,)), lost_source=True)
    assert parse_message(message_text(message)) == message
    plain = json.loads(message_text(message))
    del plain["lost_source"]
    assert parse_message(json.dumps(plain)) == CoordinatorMessage(Grant((1,)))


def test_unknown_fields_are_ignored() -> None:
    demand = json.loads(demand_text(Demand(5, from_seeders=True), COUNT)) | {"new": 1}
    message = json.loads(message_text(CoordinatorMessage(Grant((1,)), (Source("http://s.test"),)))) | {"new": 1}
    assert parse_demand(json.dumps(demand)) == Demand(5, from_seeders=True)
    assert parse_message(json.dumps(message)) == CoordinatorMessage(Grant((1,)), (Source("http://s.test"),))


def with_field(plain: dict[str, object], path: list[str], value: object) -> str:
    inner = plain
    for name in path[:-1]:
        inner = inner[name]  # type: ignore[assignment]
    inner[path[-1]] = value
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scarce", "?"),
        ("scarce", "ü"),
        ("scarce", 7),
        ("scarce", None),
        ("leased", "AA"),
        ("want", -1),
        ("want", 1.5),
        ("want", True),
        ("want", "1"),
        ("want", 1 << 62),
        ("origin_bytes", None),
        ("complaints", 7),
        ("complaints", ["x"]),
        ("complaints", [{"piece": -1, "peer": "10.0.0.1"}]),
        ("complaints", [{"peer": "10.0.0.1"}]),
    ],
)
def test_a_demand_with_a_wrong_field_is_refused(field: str, value: object) -> None:
    plain = json.loads(demand_text(Demand(5, from_seeders=True), COUNT))
    with pytest.raises(InvalidInput, match=r"the message is not a peer's demand"):
        parse_demand(with_field(plain, [field], value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("grant", None),
        ("grant", []),
        ("grant.pieces", 7),
        ("grant.pieces", [-1]),
        ("grant.pieces", ["0"]),
        ("grant.pieces", [1.0]),
        ("grant.peers", True),
        ("grant.origin_bytes", -5),
        ("sources", None),
        ("sources", [7]),
        ("sources", [{}]),
        ("sources", [{"endpoint": "x", "token": ""}]),
    ],
)
def test_a_message_with_a_wrong_field_is_refused(path: str, value: object) -> None:
    plain = json.loads(message_text(CoordinatorMessage(Grant((1,)), ())))
    with pytest.raises(InvalidInput, match="the message holds no grant"):
        parse_message(with_field(plain, path.split("."), value))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '"x"', "[" * 100_000, '{"want": ' + "9" * 5000 + "}"])
def test_a_message_other_than_an_object_is_refused(text: str) -> None:
    for parse in (parse_demand, parse_message):
        with pytest.raises(InvalidInput, match="the message is not a JSON object"):
            parse(text)


@given(st.text() | JSON.map(json.dumps))
def test_invalid_text_is_refused_with_one_error(text: str) -> None:
    for parse in (parse_demand, parse_message):
        with pytest.raises(InvalidInput):
            parse(text)


@given(DEMANDS, st.sampled_from(["scarce", "from_seeders", "want", "origin_bytes", "leased"]), JSON)
def test_any_value_in_any_field_of_a_demand_is_read_or_refused(demand: Demand, field: str, value: object) -> None:
    try:
        found = parse_demand(with_field(json.loads(demand_text(demand, COUNT)), [field], value))
    except InvalidInput:
        return
    assert found.scarce >= 0
    assert found.want >= 0
    assert found.origin_bytes >= 0


@given(MESSAGES, st.sampled_from(["grant", "grant.pieces", "grant.peers", "grant.refused", "sources"]), JSON)
def test_any_value_in_any_field_of_a_message_is_read_or_refused(
    message: CoordinatorMessage, path: str, value: object
) -> None:
    try:
        found = parse_message(with_field(json.loads(message_text(message)), path.split("."), value))
    except InvalidInput:
        return
    assert all(isinstance(piece, int) and piece >= 0 for piece in found.grant.pieces)
    assert all(isinstance(source, Source) for source in found.sources)
