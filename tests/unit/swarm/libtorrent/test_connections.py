"""Conversion of libtorrent's peer info."""

from dataclasses import dataclass, field
from typing import Any

import libtorrent as lt
import pytest

from p2pmodel import __version__
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.swarm.libtorrent.connections import ZoneTraffic, client_name, connections_of, program_of, zone_of

Info = lt.peer_info
CALM = Info.choked | Info.remote_choked | Info.local_connection


A, B = "10.0.0.1:1", "10.0.0.2:2"


@dataclass
class Peer:
    flags: int = CALM
    source: int = Info.tracker
    client: bytes = b"qBittorrent/4.5.2"
    pid: lt.sha1_hash = field(default_factory=lambda: lt.sha1_hash(b"-qB4520-abcdefghijkl"))
    ip: tuple[str, int] = ("10.0.0.2", 6881)
    progress: float = 0.5
    payload_down_speed: int = 1
    payload_up_speed: int = 2
    total_download: int = 3
    total_upload: int = 4
    connection_type: int = Info.standard_bittorrent


@dataclass
class Handle:
    peers: list[Peer] = field(default_factory=list)

    def get_peer_info(self) -> list[Peer]:
        return self.peers


def converted(*peers: Peer) -> list[Any]:
    return connections_of(Handle(list(peers)), "a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "source", "letters"),
    [
        (CALM, 0, ""),
        (CALM | Info.interesting, 0, "d"),
        (CALM ^ Info.remote_choked | Info.interesting, 0, "D"),
        (CALM ^ Info.remote_choked, 0, "K"),
        (CALM | Info.remote_interested, 0, "u"),
        (CALM ^ Info.choked | Info.remote_interested | Info.optimistic_unchoke, 0, "UO"),
        (CALM ^ Info.choked, 0, "?"),
        (CALM ^ Info.local_connection | Info.snubbed, 0, "SI"),
        (CALM | Info.rc4_encrypted, Info.pex | Info.dht | Info.lsd, "XHLE"),
        (CALM | Info.plaintext_encrypted, Info.tracker, "e"),
    ],
)
def test_flags(flags: int, source: int, letters: str) -> None:
    assert converted(Peer(flags, source))[0].flags == letters


def test_unfinished_connections_are_not_reported() -> None:
    assert converted(Peer(CALM | Info.connecting), Peer(CALM | Info.handshake)) == []


def test_the_client_name_of_a_peer_is_made_printable_and_short() -> None:
    [found] = converted(Peer(client=b"\x1b[2J\xff" + b"x" * 500, ip=("fe80::1", 1)))
    assert found.client.isprintable()
    assert len(found.client) <= 60
    assert found.address == "[fe80::1]:1"


def test_counts_are_payload() -> None:
    [found] = converted(Peer())
    assert (found.download_rate, found.upload_rate, found.downloaded, found.uploaded) == (1, 2, 3, 4)
    assert found.peer_id == b"-qB4520-abcdefghijkl".hex()
    assert (found.kind, found.client, found.zone, found.progress) == ("peer", "qBittorrent/4.5.2", "", 0.5)


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


def test_a_web_seed_is_a_seeder_of_our_zone() -> None:
    [found] = converted(Peer(connection_type=Info.web_seed, client=b"10.0.0.2"))
    assert found == PeerConnection("http://10.0.0.2:6881", "seeder", zone="a", download_rate=1, downloaded=3)
