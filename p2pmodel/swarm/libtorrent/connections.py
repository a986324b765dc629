"""Conversion of libtorrent's peer info into PeerConnection."""

from typing import Any

import libtorrent as lt

from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.swarm.zones import program_of, zone_of

_Info = lt.peer_info
_NAME = 60
"""Maximum characters of a client name, which is untrusted text."""


def connections_of(handle: lt.torrent_handle) -> list[PeerConnection]:
    """All established connections; empty for a removed torrent. Blocking."""
    try:
        return [
            _connection(peer)
            for peer in handle.get_peer_info()
            if not peer.flags & (_Info.connecting | _Info.handshake)
        ]
    except RuntimeError:
        return []


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
