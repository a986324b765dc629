"""The HTTP tracker protocol in bytes."""

import ipaddress
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.coordinator.tracker.announces import AnnounceAnswer
from p2pmodel.coordinator.tracker.codec import (
    AnnounceQuery,
    announce_response,
    failure_response,
    pack_address,
    parse_announce,
    parse_scrape,
    scrape_response,
)
from p2pmodel.coordinator.tracker.tracked_swarm import Announce, Counts, TrackedPeer
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm import bencode

HASH = bytes(range(236, 256))
PEER = b"-LT2110-abc&=%+ \xff\x00\x01\x02"
HOST = bytes([10, 0, 0, 9])
V4 = bytes([10, 0, 0, 1, 0x1A, 0xE1])
V6 = bytes([0xFD]) + bytes(14) + b"\1" + b"\x1a\xe1"


def query(**fields: object) -> str:
    values = {"info_hash": HASH, "peer_id": PEER, "port": 6881} | fields
    return "&".join(
        f"{name}={quote_from_bytes(value) if isinstance(value, bytes) else value}"
        for name, value in values.items()
        if value is not None
    )


def test_a_full_announce() -> None:
    text = query(left=7, event="started", numwant=9, key="0A1B", compact=1, no_peer_id=1, uploaded=0, downloaded=0)
    assert parse_announce(text) == AnnounceQuery(
        Announce(HASH, PEER, 6881, 7, "started", 9, b"0A1B"), compact=True, no_peer_id=True
    )


def test_the_least_announce() -> None:
    assert parse_announce(query()) == AnnounceQuery(
        Announce(HASH, PEER, 6881, None, "", 50), compact=True, no_peer_id=False
    )


def test_a_partial_seed_announces_paused() -> None:
    assert parse_announce(query(event="paused")).announce.event == "paused"


def test_a_zone_is_any_bytes_and_the_first_of_several_counts() -> None:
    assert parse_announce(query()).announce.zone == b""
    assert parse_announce("zone=rack%201%ff&" + query(zone="forged")).announce.zone == b"rack 1\xff"


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20))
def test_ids_are_bytes_however_they_are_escaped(info_hash: bytes, peer_id: bytes) -> None:
    everything = "".join(f"%{byte:02x}" for byte in info_hash)
    text = f"info_hash={everything}&peer_id={quote_from_bytes(peer_id)}&port=1"
    announce = parse_announce(text).announce
    assert (announce.info_hash, announce.peer_id) == (info_hash, peer_id)


def test_stray_bytes_survive_a_server_that_decoded_them() -> None:
    raw = (b"info_hash=" + bytes(range(200, 220)) + b"&port=1&peer_id=" + b"p" * 20).decode("utf-8", "surrogateescape")
    assert parse_announce(raw).announce.info_hash == bytes(range(200, 220))


def test_a_plus_is_a_plus() -> None:
    assert parse_announce(query(info_hash="+" * 20)).announce.info_hash == b"+" * 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"info_hash": None}, "info_hash must be 20 bytes"),
        ({"info_hash": b"x" * 32}, "info_hash must be 20 bytes"),
        ({"peer_id": b"x" * 19}, "peer_id must be 20 bytes"),
        ({"port": None}, "port must be 1 to 65535"),
        ({"zone": "z" * 65}, "zone must be at most 64 bytes"),
        ({"port": 0}, "port must be 1 to 65535"),
        ({"port": 65536}, "port must be 1 to 65535"),
        ({"port": -1}, "port must be 1 to 65535"),
        ({"port": "6881x"}, "port must be a number"),
        ({"port": "%D9%A3"}, "port must be a number"),
        ({"left": "many"}, "left must be a number"),
        ({"numwant": "1e3"}, "numwant must be a number"),
        ({"padding": "x" * 8200}, "the query is longer than 8190 characters"),
        ({"padding": "\ud800"}, "the query is not made of bytes"),
    ],
)
def test_invalid_announces_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_announce(query(**fields))
    assert str(caught.value) == message


@pytest.mark.parametrize(("numwant", "given_"), [(-1, 50), (0, 0), (200, 200), (201, 200), (10**19, 200), ("", 50)])
def test_numwant_is_bounded(numwant: object, given_: int) -> None:
    assert parse_announce(query(numwant=numwant)).announce.numwant == given_


def test_a_client_that_leaves_may_have_no_port() -> None:
    assert parse_announce(query(port=0, event="stopped")).announce.port == 0


@pytest.mark.parametrize(
    ("role", "read"),
    [("source", "source"), ("leaseholder", "leaseholder"), ("", ""), ("LEASEHOLDER", ""), ("boss", ""), (b"\xff", "")],
)
def test_a_role_is_one_of_ours_or_none(role: object, read: str) -> None:
    assert parse_announce(query(role=role)).announce.role == read


@pytest.mark.parametrize("event", ["", "empty", "STARTED"])
def test_an_unknown_event_is_a_regular_announce(event: str) -> None:
    assert parse_announce(query(event=event)).announce.event == ""


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("10.1.2.3", bytes([10, 1, 2, 3])),
        ("fd00%3A%3A1", V6[:16].replace(b"\xfd", b"\xfd", 1)),
        ("%3A%3Affff%3A10.1.2.3", bytes([10, 1, 2, 3])),
        ("seeder.example", None),
        ("%ff", None),
        ("", None),
    ],
)
def test_claimed_addresses(text: str, packed: bytes | None) -> None:
    assert parse_announce(query(ip=text)).claimed == packed


@given(st.text() | st.text(alphabet="infohash_peridlkytcm&=%0123456789abcdef-+\udcff", max_size=200))
def test_any_announce_parses_or_is_refused(text: str) -> None:
    try:
        parsed = parse_announce(text)
    except InvalidInput:
        return
    assert len(parsed.announce.info_hash) == 20


FIELD = st.sampled_from(
    ["info_hash", "peer_id", "port", "left", "event", "numwant", "key", "compact", "ip", "no_peer_id"]
)
VALUE = st.sampled_from(["%ff" * 20, "x" * 20, "1", "0", "-1", "started", "9" * 20, "10.0.0.1", "%3A%3A1"]) | st.text()


@given(st.lists(st.tuples(FIELD, VALUE)))
def test_any_fields_parse_or_are_refused(fields: list[tuple[str, str]]) -> None:
    text = query() + "&" + "&".join(f"{name}={value}" for name, value in reversed(fields))
    for candidate in (text, "&".join(reversed(text.split("&")))):
        try:
            announce = parse_announce(candidate).announce
        except InvalidInput:
            continue
        assert 0 <= announce.port <= 65535
        assert 0 <= announce.numwant <= 200
        assert len(announce.key) <= 64


@given(st.text())
def test_any_scrape_parses_or_is_refused(text: str) -> None:
    try:
        hashes = parse_scrape(text)
    except InvalidInput:
        return
    assert all(len(h) == 20 for h in hashes)


def test_scrapes_of_none_several_and_too_many() -> None:
    one, two = quote_from_bytes(HASH), quote_from_bytes(b"x" * 20)
    assert parse_scrape("") == ()
    assert parse_scrape(f"info_hash={one}&info_hash={two}&info_hash={one}") == (HASH, b"x" * 20)
    with pytest.raises(InvalidInput, match=r"^at most 74 info_hash in one scrape$"):
        parse_scrape("&".join([f"info_hash={'x' * 20}"] * 75))
    with pytest.raises(InvalidInput, match=r"^info_hash must be 20 bytes$"):
        parse_scrape("info_hash=short")


def answered(text: str, *peers: TrackedPeer) -> dict[bytes, bencode.Bencoded]:
    body = announce_response(
        parse_announce(text), AnnounceAnswer(Counts(1, 2, 3), peers), interval=30, min_interval=5, host=HOST
    )
    plain = bencode.decode(body)
    assert isinstance(plain, dict)
    return plain


def test_a_compact_answer_separates_address_families() -> None:
    assert answered(query(), TrackedPeer(PEER, (V4, V6)), TrackedPeer(b"q" * 20, (V4[:4] + b"\0\1",))) == {
        b"complete": 1,
        b"incomplete": 2,
        b"downloaded": 3,
        b"interval": 30,
        b"min interval": 5,
        b"external ip": HOST,
        b"peers": V4 + V4[:4] + b"\0\1",
        b"peers6": V6,
    }


def test_a_compact_answer_without_peers() -> None:
    answer = answered(query())
    assert answer[b"peers"] == b""
    assert b"peers6" not in answer


def test_a_plain_answer_lists_every_endpoint() -> None:
    four, six = {b"ip": b"10.0.0.1", b"port": 6881}, {b"ip": b"fd00::1", b"port": 6881}
    peer = TrackedPeer(PEER, (V4, V6))
    named = [entry | {b"peer id": PEER} for entry in (four, six)]
    assert answered(query(compact=0), peer)[b"peers"] == named
    assert answered(query(compact=0, no_peer_id=1), peer)[b"peers"] == [four, six]


def test_a_scrape_answer() -> None:
    body = scrape_response([(HASH, Counts(1, 2, 3)), (b"a" * 20, Counts())], min_interval=30)
    assert bencode.decode(body) == {
        b"files": {
            HASH: {b"complete": 1, b"incomplete": 2, b"downloaded": 3},
            b"a" * 20: {b"complete": 0, b"incomplete": 0, b"downloaded": 0},
        },
        b"flags": {b"min_request_interval": 30},
    }


def test_a_failure_has_one_key() -> None:
    assert failure_response("no such torrent") == b"d14:failure reason15:no such torrente"


@given(st.ip_addresses())
def test_addresses_pack_as_they_are_unless_mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    assert pack_address(str(address)) == (mapped or address).packed


def test_a_scope_is_not_part_of_an_address() -> None:
    assert pack_address("fe80::1%eth0") == ipaddress.ip_address("fe80::1").packed
