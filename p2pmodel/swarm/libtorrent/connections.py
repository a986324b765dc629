"""The connections of a libtorrent torrent, the zones of their peers, and the traffic between zones.

A node adds its zone to the client name in the BitTorrent handshake (BEP 10). So each end of a connection receives the
zone of the other. Other programs have no zone.
"""

import re
from collections.abc import Iterable
from typing import Any

import libtorrent as lt

from p2pmodel import __version__
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.connections import PeerConnection

_Info = lt.peer_info
_WEB_SEED = int(_Info.web_seed)
"""`connection_type` of a BEP 19 server."""
_NAME = 60
"""Maximum characters of a client name, which is untrusted text."""


_ZONE = re.compile(rb"(p2pmodel/\S+) zone=([A-Za-z0-9._-]{1,64})")


def connections_of(handle: lt.torrent_handle, zone: str) -> list[PeerConnection]:
    """All established connections of a node in `zone`; empty for a removed torrent. Blocking."""
    try:
        return [
            _web_seed(peer, zone) if peer.connection_type == _WEB_SEED else _connection(peer)
            for peer in handle.get_peer_info()
            if not peer.flags & (_Info.connecting | _Info.handshake)
        ]
    except RuntimeError:
        return []


def _web_seed(peer: Any, zone: str) -> PeerConnection:
    return PeerConnection(
        address=f"http://{ListenAddress(str(peer.ip[0]), int(peer.ip[1]))}",
        kind="seeder",
        zone=zone,
        download_rate=int(peer.payload_down_speed),
        downloaded=int(peer.total_download),
    )


def _connection(peer: Any) -> PeerConnection:
    return PeerConnection(
        address=str(ListenAddress(str(peer.ip[0]), int(peer.ip[1]))),
        kind="peer",
        client=printable(program_of(peer.client), _NAME),
        peer_id=str(peer.pid),
        zone=zone_of(peer.client),
        progress=float(peer.progress),
        download_rate=int(peer.payload_down_speed),
        upload_rate=int(peer.payload_up_speed),
        downloaded=int(peer.total_download),
        uploaded=int(peer.total_upload),
        flags=_flags(int(peer.flags), int(peer.source)),
    )


def _flags(flags: int, source: int) -> str:
    wants, wanted = bool(flags & _Info.interesting), bool(flags & _Info.remote_interested)
    lets_us, let = not flags & _Info.remote_choked, not flags & _Info.choked
    letters = (
        ("D", wants and lets_us),
        ("d", wants and not lets_us),
        ("U", wanted and let),
        ("u", wanted and not let),
        ("K", lets_us and not wants),
        ("?", let and not wanted),
        ("O", flags & _Info.optimistic_unchoke),
        ("S", flags & _Info.snubbed),
        ("I", not flags & _Info.local_connection),
        ("X", source & _Info.pex),
        ("H", source & _Info.dht),
        ("L", source & _Info.lsd),
        ("E", flags & _Info.rc4_encrypted),
        ("e", flags & _Info.plaintext_encrypted),
    )
    return "".join(letter for letter, applies in letters if applies)


def client_name(zone: str) -> str:
    """The client name of a node in `zone`."""
    return f"p2pmodel/{__version__} zone={zone}"


def zone_of(client: bytes) -> str:
    """The zone in a client name; "" without one."""
    found = _ZONE.fullmatch(client)
    return found[2].decode() if found else ""


def program_of(client: bytes) -> str:
    """A client name without its zone."""
    found = _ZONE.fullmatch(client)
    return (found[1] if found else client).decode(errors="replace")


class ZoneTraffic:
    """Counts payload bytes from other zones than `zone`. Bytes between the last `update` and the end of a connection
    are not counted."""

    def __init__(self, zone: str) -> None:
        self.total = 0
        self._zone = zone
        self._seen: dict[str, int] = {}

    def update(self, connections: Iterable[PeerConnection]) -> None:
        """Count the bytes of all current connections since the last update."""
        seen = {c.address: c.downloaded for c in connections if c.zone != self._zone}
        for address, received in seen.items():
            before = self._seen.get(address, 0)
            self.total += received - (before if before <= received else 0)  # fewer: a new connection from that address
        self._seen = seen
