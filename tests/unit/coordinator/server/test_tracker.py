"""The tracker's answers, and its handlers over real HTTP."""

import random
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote_from_bytes

import pytest
from aiohttp import ClientSession
from yarl import URL

from p2pmodel.config.sections.coordinator import TrackerSettings
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.probes import ConnectionProbes
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.tracked_swarm import Counts
from p2pmodel.core.network.tokens import announce_key
from p2pmodel.errors import AccessDenied, Forbidden, InvalidInput, NotFound
from p2pmodel.http.server import serving
from p2pmodel.swarm import bencode
from tests.support.coordinators import PUBLISH_TOKEN, TOKEN, tokens

HASH = bytes(range(230, 250))


def tracker(*, interval: int = 30, full_scrape: bool = False, admits: Callable[[bytes], bool] | None = None) -> Tracker:
    return Tracker(
        clock=lambda: 0.0,
        rng=random.Random(1),
        interval=interval,
        full_scrape=full_scrape,
        admits=admits or (lambda _hash: True),
    )


def announce(peer: str = "a", *, port: int = 6881, more: str = "", info_hash: bytes = HASH) -> str:
    return f"info_hash={quote_from_bytes(info_hash)}&peer_id={peer * 20}&port={port}{more}"


def plain(body: bytes) -> dict[bytes, bencode.Bencoded]:
    value = bencode.decode(body)
    assert isinstance(value, dict)
    return value


def test_answers_contain_the_intervals_and_the_minimum_is_never_longer() -> None:
    t = tracker()
    assert plain(t.announce(announce("b"), "10.0.0.2"))[b"interval"] == 4, "it is alone, and looks again soon"
    answer = plain(t.announce(announce(), "10.0.0.1"))
    assert (answer[b"interval"], answer[b"min interval"]) == (30, 5)
    answer = plain(tracker(interval=3).announce(announce(), "10.0.0.1"))
    assert (answer[b"interval"], answer[b"min interval"]) == (3, 3)


def test_the_last_of_a_large_swarm_announces_itself_again_soon() -> None:
    t = tracker()
    for number in range(51):
        few = plain(t.announce(announce(more="&event=started", port=7000 + number), f"10.0.1.{number}"))
    assert few[b"interval"] == 30
    assert plain(t.announce(announce(more="&event=started"), "10.0.0.1"))[b"interval"] == 4
    assert plain(t.announce(announce(), "10.0.0.1"))[b"interval"] == 30


def test_a_peer_is_listed_where_its_announce_came_from() -> None:
    t = tracker()
    t.announce(announce("a", more="&ip=10.9.9.9"), "10.0.0.1")
    t.announce(announce("b"), "::ffff:10.0.0.2")
    assert plain(t.announce(announce("c"), "10.0.0.3"))[b"peers"] in (
        bytes([10, 0, 0, 1, 0x1A, 0xE1, 10, 0, 0, 2, 0x1A, 0xE1]),
        bytes([10, 0, 0, 2, 0x1A, 0xE1, 10, 0, 0, 1, 0x1A, 0xE1]),
    )


@pytest.mark.parametrize("source", ["127.0.0.1", "10.0.0.3", "::1"])
def test_no_client_may_announce_another_address_by_default(source: str) -> None:
    claimed = plain(tracker().announce(announce("a", more="&ip=203.0.113.9"), source))
    assert claimed[b"external ip"] == plain(tracker().announce(announce("a"), source))[b"external ip"]


def test_clients_in_named_networks_may_announce_another_address() -> None:
    t = Tracker(clock=lambda: 0.0, settings=TrackerSettings(ip_from=("10.1.0.0/16",)))
    t.announce(announce("a", more="&ip=203.0.113.9"), "10.1.0.1")
    t.announce(announce("b", port=2, more="&ip=203.0.113.8"), "10.2.0.1")
    peers = plain(t.announce(announce("c"), "10.0.0.3"))[b"peers"]
    assert isinstance(peers, bytes)
    assert bytes([203, 0, 113, 9]) in peers
    assert bytes([203, 0, 113, 8]) not in peers


ADVERTISING = announce("a", more="&address=203.0.113.9%3A7000&address=10.1.0.1%3A7001")
REMOTE, OWN = bytes([203, 0, 113, 9, 0x1B, 0x58]), bytes([10, 1, 0, 1, 0x1B, 0x59])


@pytest.mark.parametrize(
    ("ip_from", "member", "listed"),
    [((), False, {OWN}), ((), True, {REMOTE, OWN}), (("10.1.0.0/16",), False, {REMOTE, OWN})],
)
def test_a_client_advertises_ports_of_its_own_address_and_others_by_right(
    ip_from: tuple[str, ...], member: bool, listed: set[bytes]
) -> None:
    t = Tracker(clock=lambda: 0.0, settings=TrackerSettings(ip_from=ip_from))
    answer = plain(t.announce(ADVERTISING, "10.1.0.1", member=member))
    peers = plain(t.announce(announce("c"), "10.0.0.3"))[b"peers"]
    assert isinstance(peers, bytes)
    assert {peers[at : at + 6] for at in range(0, len(peers), 6)} == listed
    warning = answer.get(b"warning message", b"")
    assert isinstance(warning, bytes)
    assert (b"203.0.113.9:7000" in warning) == (REMOTE not in listed)


async def test_an_announce_through_an_unknown_proxy_is_refused_and_logged() -> None:
    logged: list[str] = []
    app = coordinator_app(tracker(), Catalog())
    async with serving(app, "127.0.0.1", 0, note=logged.append) as base, ClientSession() as session:
        for _ in range(2):
            url = URL(f"{base}/announce?{announce()}", encoded=True)
            async with session.get(url, headers={"X-Forwarded-For": "10.0.0.7"}) as response:
                reason = plain(await response.read())[b"failure reason"]
        assert isinstance(reason, bytes)
        assert b"set http.trusted_proxies to 127.0.0.1" in reason
    assert len([line for line in logged if "http.trusted_proxies" in line]) == 1


def test_through_an_unknown_proxy_a_client_advertises_its_address_where_the_settings_allow_it() -> None:
    t = Tracker(clock=lambda: 0.0, settings=TrackerSettings(ip_from=("10.1.0.0/16",)))
    t.announce(announce("a", more="&address=203.0.113.9%3A7000"), "10.1.0.1", forwarded=True)
    assert plain(t.announce(announce("c"), "10.0.0.3"))[b"peers"] == REMOTE
    with pytest.raises(Forbidden, match="an announce through a proxy"):
        t.announce(announce("b", more="&address=10.2.0.1%3A7000"), "10.2.0.1", forwarded=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0:7", "fe80::1", "name.test", "", "10.0.0.1:99999"])
def test_no_client_advertises_an_address_that_others_cannot_reach(address: str) -> None:
    with pytest.raises(InvalidInput, match="address must be"):
        tracker().announce(announce(more=f"&address={address}"), "10.0.0.1", member=True)


def test_an_announce_needs_an_address() -> None:
    with pytest.raises(InvalidInput, match=r"^an announce must come from an IP address$"):
        tracker().announce(announce(), "")


def test_only_admitted_torrents_are_tracked() -> None:
    t = tracker(admits=lambda info_hash: info_hash == HASH)
    t.announce(announce(), "10.0.0.1")
    with pytest.raises(NotFound, match=r"^this torrent is not registered with this tracker$"):
        t.announce(announce(info_hash=b"x" * 20), "10.0.0.1")


def test_a_scrape_of_several_and_of_all() -> None:
    t = tracker(full_scrape=True)
    t.announce(announce(more="&left=0"), "10.0.0.1")
    both = plain(t.scrape(f"info_hash={quote_from_bytes(HASH)}&info_hash={'x' * 20}"))[b"files"]
    seeded = {b"complete": 1, b"downloaded": 0, b"incomplete": 0}
    assert both == {HASH: seeded, b"x" * 20: {b"complete": 0, b"downloaded": 0, b"incomplete": 0}}
    assert plain(t.scrape(""))[b"files"] == {HASH: seeded}
    assert t.counts(HASH) == Counts(seeders=1)


def test_a_scrape_of_all_is_refused_unless_allowed() -> None:
    with pytest.raises(AccessDenied, match=r"^a scrape must name its info_hash$"):
        tracker().scrape("")


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


async def get(session: ClientSession, url: str) -> tuple[int, dict[bytes, bencode.Bencoded]]:
    async with session.get(URL(url, encoded=True)) as response:
        assert response.content_type == "text/plain"
        return response.status, plain(await response.read())


async def test_announces_over_http_find_each_other(session: ClientSession) -> None:
    async with serving(coordinator_app(tracker(), Catalog()), "127.0.0.1", 0) as base:
        assert (await get(session, f"{base}/announce?{announce('a', port=1)}"))[1][b"peers"] == b""
        _, answer = await get(session, f"{base}/announce?{announce('b', port=2)}")
        assert answer[b"peers"] == bytes([127, 0, 0, 1, 0, 1])
        _, answer = await get(session, f"{base}/scrape?info_hash={quote_from_bytes(HASH)}")
        assert answer[b"files"] == {HASH: {b"complete": 0, b"downloaded": 0, b"incomplete": 2}}


async def test_a_refusal_is_an_answer_with_a_reason(session: ClientSession) -> None:
    async with serving(coordinator_app(tracker(), Catalog()), "127.0.0.1", 0) as base:
        assert await get(session, f"{base}/announce?port=1") == (
            200,
            {b"failure reason": b"info_hash must be 20 bytes"},
        )
        status, answer = await get(session, f"{base}/scrape")
        assert (status, answer) == (200, {b"failure reason": b"a scrape must name its info_hash"})


async def test_the_announce_key_is_part_of_the_path(session: ClientSession) -> None:
    async with serving(coordinator_app(tracker(), Catalog(), credentials=tokens(TOKEN)), "127.0.0.1", 0) as base:
        key, publishers = announce_key(TOKEN), announce_key(PUBLISH_TOKEN)
        wrong = ("/announce", "/announce/wrong", f"/announce/{TOKEN}", f"/announce/{key}x", "/scrape")
        for path in (*wrong, f"/scrape/{key}"):
            status, answer = await get(session, f"{base}{path}?{announce(port=1)}")
            assert status == 200
            assert (b"failure reason" in answer) == (path in wrong)
        _, answer = await get(session, f"{base}/announce/{key}?{announce('b', port=2)}")
        assert answer[b"peers"] == b""
        _, answer = await get(session, f"{base}/announce/{publishers}?{announce('c', port=3)}")
        assert answer[b"peers"] == bytes([127, 0, 0, 1, 0, 2])


async def test_an_announce_key_opens_the_tracker_alone(session: ClientSession) -> None:
    key = announce_key(TOKEN)
    async with serving(coordinator_app(tracker(), Catalog(), credentials=tokens(TOKEN)), "127.0.0.1", 0) as base:
        for path in ("/catalog", f"/leases/{'0' * 64}", f"/assemblies/{'0' * 64}", "/announce"):
            async with session.get(base + path, headers={"Authorization": f"Bearer {key}"}) as response:
                assert response.status == 401 or b"failure reason" in await response.read()


@pytest.mark.parametrize(
    ("more", "forwarded", "tried"),
    [
        ("", False, ["10.1.0.1:6881"]),
        ("&ip=203.0.113.9", False, ["10.1.0.1:6881"]),
        ("&address=203.0.113.9", False, []),
        ("&address=203.0.113.9&address=10.1.0.1%3A7000", False, ["10.1.0.1:7000"]),
        ("", True, []),
        ("&event=stopped", False, []),
    ],
)
async def test_a_client_makes_the_tracker_connect_to_the_clients_own_address_alone(
    more: str, forwarded: bool, tried: list[str]
) -> None:
    seen: list[str] = []

    async def connect(host: str, port: int) -> str:
        seen.append(f"{host}:{port}")
        return "timed out"

    t = Tracker(clock=lambda: 0.0, probes=ConnectionProbes(lambda: 0.0, connect))
    await t.probe(announce(more=more), "10.1.0.1", forwarded=forwarded)
    assert seen == tried
    warning = plain(t.announce(announce(more=more), "10.1.0.1", member=True)).get(b"warning message", b"")
    assert (f"cannot connect to this client at {tried[0]} (timed out)".encode() if tried else b"") in warning  # type: ignore[operator]
    assert t.unreachable(HASH) == [f"{each} (timed out)" for each in tried]
