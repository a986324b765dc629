"""Zones in client names, and bytes from other zones."""

import pytest

from p2pmodel import __version__
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.swarm.zones import ZoneTraffic, client_name, program_of, zone_of

A, B = "10.0.0.1:1", "10.0.0.2:2"


def sender(address: str, zone: str, received: int) -> PeerConnection:
    return PeerConnection(address, "peer", zone=zone, downloaded=received)


@pytest.mark.parametrize("zone", ["a", "rack-1.b_2", "z" * 64])
def test_a_client_is_named_by_its_zone(zone: str) -> None:
    name = client_name(zone).encode()
    assert (program_of(name), zone_of(name)) == (f"p2pmodel/{__version__}", zone)


@pytest.mark.parametrize(
    "client", [b"", b"qBittorrent/4.5.2", b"p2pmodel/1 zone=", b"p2pmodel/1 zone=a b", b"\xff\xfe"]
)
def test_others_have_none(client: bytes) -> None:
    assert (program_of(client), zone_of(client)) == (client.decode(errors="replace"), "")


def test_only_other_zones_count_and_only_once() -> None:
    crossed = ZoneTraffic("a")
    for received in (5, 5, 9):
        crossed.update([sender(A, "a", 100), sender(B, "b", received)])
    assert crossed.total == 9


def test_programs_without_a_zone_count_as_another_zone() -> None:
    crossed = ZoneTraffic("a")
    crossed.update([sender(A, "", 7)])
    assert crossed.total == 7


def test_a_new_connection_from_the_same_address_starts_at_zero() -> None:
    crossed = ZoneTraffic("a")
    crossed.update([sender(B, "b", 10)])
    crossed.update([sender(B, "b", 4)])
    crossed.update([])
    crossed.update([sender(B, "b", 3)])
    assert crossed.total == 17
