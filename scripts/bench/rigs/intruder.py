"""A BitTorrent client that tries to get a private snapshot. Run as a program: prints one JSON object at its end.

Usage: python -m scripts.bench.rigs.intruder TORRENT FOLDER SECONDS OWN_ADDRESS PEER_ADDRESS PORT... [CERTIFICATE KEY]

Without a certificate it tries TLS all the same, unless the environment has PLAIN=1: then it speaks plain BitTorrent, as
clients do that know no private torrents.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import libtorrent as lt

from p2pmodel.swarm.libtorrent.private_torrents import FFDHE2048

_REASONS = ("peer_error", "peer_disconnected")


def client_settings(own: str) -> dict[str, Any]:
    """libtorrent's settings of a client at the address `own` that speaks TLS, and connects again soon."""
    return {
        "listen_interfaces": f"{own}:0s",
        "outgoing_interfaces": own,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "allow_multiple_connections_per_ip": True,
        "min_reconnect_time": 1,
    }


def run(arguments: list[str]) -> dict[str, Any]:
    """Connect again and again for the given time; what came, and the last reasons why connections ended."""
    torrent, folder, seconds, own, peer, *rest = arguments
    ports = [int(text) for text in rest if text.isdecimal()]
    files = [Path(text) for text in rest if not text.isdecimal()]
    if os.environ.get("PLAIN") == "1":
        return _plain(torrent, float(seconds), own, [(peer, port) for port in ports])
    session = lt.session(client_settings(own) | {"alert_mask": lt.alert.category_t.all_categories})
    params = lt.load_torrent_file(torrent)
    params.trackers, params.url_seeds, params.save_path = [], [], folder
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    handle = session.add_torrent(params)
    if files:
        handle.set_ssl_certificate_buffer(files[0].read_text(), files[1].read_text(), FFDHE2048)
    reasons: list[str] = []
    ends, tried = time.monotonic() + float(seconds), 0
    while time.monotonic() < ends:
        for port in ports:
            handle.connect_peer((peer, port))
            tried += 1
        time.sleep(0.5)
        reasons += [alert.message() for alert in session.pop_alerts() if alert.what() in _REASONS]
    return {"payload": handle.status().total_payload_download, "tried": tried, "reason": (reasons or [""])[-1]}


def _plain(torrent: str, seconds: float, own: str, peers: list[tuple[str, int]]) -> dict[str, Any]:
    """Send a handshake and an interest; what follows a handshake of BitTorrent counts, but no TLS alert."""
    info_hash = lt.load_torrent_file(torrent).ti.info_hashes().v2.to_bytes()[:20]
    hello = b"\x13BitTorrent protocol" + bytes(8) + info_hash + b"-XX0000-intruder0000" + b"\0\0\0\1\2"
    ends, tried, got, reason = time.monotonic() + seconds, 0, 0, ""
    while time.monotonic() < ends:
        for peer in peers:
            tried += 1
            try:
                with socket.create_connection(peer, timeout=2, source_address=(own, 0)) as link:
                    link.sendall(hello)
                    answer = b""
                    while data := link.recv(1 << 16):
                        answer += data
                got += len(answer) if answer.startswith(hello[:20]) else 0
                reason = "closed"
            except OSError as error:
                reason = str(error)
        time.sleep(0.5)
    return {"payload": got, "tried": tried, "reason": f"]: {reason} ("}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1:])) + "\n")
