"""Whom a transfer exchanges bytes with, one by one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MOST = 200
"""Connections that are told of at a time; the transfer's own counts are of all."""


@dataclass(frozen=True, slots=True)
class PeerConnection:
    """The other end of one connection. Payload bytes since it was made; rates in bytes a second."""

    address: str
    """ADDRESS:PORT of a peer; the URL of a seeder, without its path, which may hold a token."""
    kind: Literal["peer", "seeder"]
    """A seeder is pulled from over HTTP, as a webseed is."""
    client: str = ""
    """What the other program calls itself."""
    zone: str = ""
    progress: float = 1.0
    """The share of the snapshot that it has."""
    download_rate: int = 0
    upload_rate: int = 0
    downloaded: int = 0
    uploaded: int = 0
    flags: str = ""
    """As BitTorrent programs show them: D, d: we download, or would if it let us; U, u: it does, or would if we let it;
    K, ?: it, or we, would let the other, who wants nothing; O: let optimistically; S: silent; I: it connected to us;
    X, H, L: found by peer exchange, DHT, or on the local network; E, e: encrypted, or its handshake was."""
    peer_id: str = ""
    """By what a peer is known in the swarm, as 40 hex digits (BEP 3)."""


def busiest(connections: Iterable[PeerConnection], most: int = MOST) -> tuple[PeerConnection, ...]:
    """At most `most` of them: those that exchange most now first, then those that have."""

    def busy(each: PeerConnection) -> tuple[int, int, str]:
        return -(each.download_rate + each.upload_rate), -(each.downloaded + each.uploaded), each.address

    return tuple(sorted(connections, key=busy)[:most])
