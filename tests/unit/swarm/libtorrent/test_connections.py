"""Conversion of libtorrent's peer info."""

from dataclasses import dataclass, field
from typing import Any

import libtorrent as lt
import pytest

from p2pmodel.swarm.libtorrent.connections import connections_of

Info = lt.peer_info
CALM = Info.choked | Info.remote_choked | Info.local_connection


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


@dataclass
class Handle:
    peers: list[Peer] = field(default_factory=list)

    def get_peer_info(self) -> list[Peer]:
        return self.peers


def converted(*peers: Peer) -> list[Any]:
    return connections_of(Handle(list(peers)))  # type: ignore[arg-type]


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
