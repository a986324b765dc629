"""The single connections of a transfer to peers and seeders."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

MOST = 200
"""Maximum number of reported connections; the totals of a transfer include all."""


@dataclass(frozen=True, slots=True)
class PeerConnection:
    """The remote end of one connection. Payload bytes since its start; rates in bytes a second."""

    address: str
    """ADDRESS:PORT of a peer; URL of a seeder, without its path, which may contain a token."""
    kind: Literal["peer", "seeder"]
    """A seeder sends over HTTP, like a web seed."""
    client: str = ""
    """Name that the remote program gives itself."""
    zone: str = ""
    progress: float = 1.0
    """Share of the snapshot that it has, 0 to 1."""
    download_rate: int = 0
    upload_rate: int = 0
    downloaded: int = 0
    uploaded: int = 0
    flags: str = ""
    """As in other BitTorrent programs. D, d: we are interested, and unchoked or choked by it; U, u: the same for its
    interest. K, ?: unchoked without interest, by it or by us. O: optimistic unchoke; S: snubbed; I: incoming. X, H, L:
    found by peer exchange, DHT or local discovery. E, e: encrypted, or encrypted handshake only."""
    peer_id: str = ""
    """Peer id in the swarm, 40 hex digits (BEP 3)."""


def joined(*groups: Iterable[PeerConnection]) -> tuple[PeerConnection, ...]:
    """All of them, each seeder once: its connections of a node's own requests and of its engine together."""
    seeders: dict[str, PeerConnection] = {}
    peers: list[PeerConnection] = []
    for each in (connection for group in groups for connection in group):
        if each.kind == "peer":
            peers.append(each)
        elif (known := seeders.get(each.address)) is None:
            seeders[each.address] = each
        else:
            rate, count = known.download_rate + each.download_rate, known.downloaded + each.downloaded
            seeders[each.address] = replace(known, download_rate=rate, downloaded=count)
    return (*seeders.values(), *peers)


def busiest(connections: Iterable[PeerConnection], most: int = MOST) -> tuple[PeerConnection, ...]:
    """At most `most` of them: by current rates first, then by total bytes."""

    def busy(each: PeerConnection) -> tuple[int, int, str]:
        return -(each.download_rate + each.upload_rate), -(each.downloaded + each.uploaded), each.address

    return tuple(sorted(connections, key=busy)[:most])
