"""The address for peers follows from the configuration, the own coordinator, or the route to a coordinator."""

import ipaddress
import socket
from pathlib import Path

import pytest

from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.node import local_address as module
from p2pmodel.node.local_address import (
    address_notes,
    engine_count,
    free_port,
    host_addresses,
    local_address,
    other_networks,
    peer_addresses,
    reachable_hosts,
    with_peer_address,
)


def settings(*coordinators: str, listen: str | None = None) -> Settings:
    return Settings(cache_dir=Path("cache"), mirrors=(), coordinators=coordinators, swarm=SwarmSettings(listen=listen))


ROUTES = {
    "http://10.0.0.1:6969": "10.0.0.7",
    "http://10.1.0.1:6969": "10.1.0.7",
    "http://127.0.0.1:6969": "127.0.0.1",
    "http://[fd00::1]:6969": "fd00::7",
}


@pytest.fixture(autouse=True)
def routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "local_address", ROUTES.get)
    monkeypatch.setattr(module, "host_addresses", lambda: ("10.0.0.7", "10.1.0.7", "fd00::7"))
    monkeypatch.setattr(module, "free_port", lambda host, port: 0 if ListenAddress(host, 0).loopback else port)


@pytest.mark.parametrize(
    ("coordinators", "expected"),
    [
        ((), "127.0.0.1:0"),
        (("http://127.0.0.1:6969",), "127.0.0.1:0"),
        (("http://10.0.0.1:6969",), "10.0.0.7:6881"),
        (("http://127.0.0.1:6969", "http://10.0.0.1:6969"), "10.0.0.7:6881"),
        (("http://nowhere.test:6969", "http://[fd00::1]:6969"), "[fd00::7]:6881"),
    ],
)
def test_it_is_the_address_of_the_route_to_a_coordinator(coordinators: tuple[str, ...], expected: str) -> None:
    assert with_peer_address(settings(*coordinators)).swarm.listen == expected


def test_a_configured_address_stays() -> None:
    given = settings("http://10.0.0.1:6969", listen="192.0.2.1:7000")
    assert with_peer_address(given) is given


def test_a_coordinator_on_another_network_is_named_with_what_to_set() -> None:
    placed = with_peer_address(settings("http://10.0.0.1:6969", "http://127.0.0.1:6969", "http://10.1.0.1:6969"))
    (note,) = other_networks(placed)
    assert str(note) == (
        "the coordinator http://10.1.0.1:6969 is reached from 10.1.0.7, but peers reach this node at 10.0.0.7 only; "
        "--swarm-listen 0.0.0.0:6881 listens on both networks"
    )


@pytest.mark.parametrize("listen", [None, "0.0.0.0:6881", "[::]:0"])
def test_a_node_that_listens_on_each_network_is_told_nothing(listen: str | None) -> None:
    coordinators = ["http://10.0.0.1:6969", "http://10.1.0.1:6969"][: 1 if listen is None else 2]
    assert list(other_networks(with_peer_address(settings(*coordinators, listen=listen)))) == []


@pytest.mark.parametrize(
    ("own", "expected"),
    [("10.0.0.1:6970", "10.0.0.1:6881"), ("0.0.0.0:0", "0.0.0.0:6881"), ("127.0.0.1:0", "127.0.0.1:0")],
)
def test_beside_an_own_coordinator_it_is_the_same_host(own: str, expected: str) -> None:
    assert with_peer_address(settings(), ListenAddress.parse(own)).swarm.listen == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.0.0.9", ("10.0.0.9",)),
        ("127.0.0.1", ("127.0.0.1",)),
        ("0.0.0.0", ("10.0.0.7", "10.1.0.7")),
        ("::", ("10.0.0.7", "10.1.0.7", "fd00::7")),
    ],
)
def test_a_listener_on_all_addresses_is_reached_at_those_of_the_machine(host: str, expected: tuple[str, ...]) -> None:
    assert reachable_hosts(host) == expected


def test_the_address_of_the_default_route_stands_for_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "local_address", {"http://192.0.2.1": "10.1.0.7", "http://[2001:db8::1]": "::1"}.get)
    assert reachable_hosts("::") == ("10.1.0.7", "fd00::7")
    monkeypatch.setattr(module, "host_addresses", tuple)
    monkeypatch.setattr(module, "local_address", lambda _: None)
    assert reachable_hosts("0.0.0.0") == ("127.0.0.1",), "a machine without a network"


def test_peers_are_told_the_advertised_addresses() -> None:
    bound = ListenAddress("0.0.0.0", 6881)
    assert list(map(str, peer_addresses(SwarmSettings(), bound))) == ["10.0.0.7:6881", "10.1.0.7:6881"]
    swarm = SwarmSettings(advertise=("203.0.113.7:7777", "fd00::9"))
    assert list(map(str, peer_addresses(swarm, bound))) == ["203.0.113.7:7777", "[fd00::9]:6881"]


@pytest.mark.parametrize("wrong", ["0.0.0.0", "127.0.0.1:80", "fe80::1", "169.254.1.1", "::", "a b", "name.test"])
def test_an_address_that_no_peer_reaches_is_not_advertised(wrong: str) -> None:
    with pytest.raises(ValueError, match="advertise"):
        SwarmSettings(advertise=(wrong,))


def test_a_route_is_found_without_a_packet() -> None:
    assert local_address("http://127.0.0.1:9") == "127.0.0.1"
    assert local_address("http://[broken") is None


def test_a_taken_port_gives_way_to_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListenAddress, "loopback", property(lambda _: False))
    with socket.create_server(("127.0.0.9", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.9", port) == 0
    assert free_port("127.0.0.9", port) == port


@pytest.mark.parametrize(
    ("cores", "link", "count"),
    [(2, 12.5e9, 1), (64, None, 1), (64, 1.25e9, 1), (64, 3.125e9, 2), (7, 3.125e9, 1), (64, 50e9, 4), (12, 50e9, 3)],
)
def test_the_number_of_engines_follows_from_cores_and_link(cores: int, link: float | None, count: int) -> None:
    assert engine_count(SwarmSettings(), cores=cores, link=link) == count
    assert engine_count(SwarmSettings(engines=5), cores=cores, link=link) == 5


def test_a_published_port_leads_to_one_engine_which_a_note_says() -> None:
    swarm = SwarmSettings(engines=4, advertise=("10.0.0.7:7000",))
    assert engine_count(swarm, cores=64, link=50e9) == 1
    assert engine_count(SwarmSettings(engines=4, advertise=("10.0.0.7",)), cores=64, link=50e9) == 4
    plain = settings()
    told = list(address_notes(plain.model_copy(update={"swarm": swarm})))
    assert ["swarm.advertise" in str(note) for note in told] == [True]
    assert list(address_notes(plain)) == []


def test_private_snapshots_use_one_engine_which_a_note_says() -> None:
    given = Settings(cache_dir=Path("cache"), mirrors=(), swarm={"engines": 2}, private={"repos": ("org/*",)})
    assert ["private snapshots use one engine" in str(note) for note in address_notes(given)] == [True]


def test_each_is_an_address_of_this_machine_that_others_may_reach() -> None:
    found = host_addresses()
    assert len(found) == len(set(found))
    for text in found:
        address = ipaddress.ip_address(text)
        assert not any((address.is_loopback, address.is_link_local, address.is_unspecified))
        with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((text, 0))


def test_it_is_among_them_where_a_default_route_leads() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:  # no route: nothing to compare
            return
        assert probe.getsockname()[0] in host_addresses()
