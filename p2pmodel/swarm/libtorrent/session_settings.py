"""The libtorrent session settings of a node in a cluster, each with its reason.

Where no figure stands, no effect was measured of that setting by itself: it is kept for the reason given.
"""

import ipaddress
from typing import Any

from p2pmodel.core.layout import KIB, MIB
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.engine import EngineSettings
from p2pmodel.swarm.zones import client_name

STOP_ANNOUNCE_SECONDS = 2
"""How long leaving a swarm waits for a tracker that does not answer."""


def session_settings(settings: EngineSettings, alert_mask: int, peer_id: str) -> Any:
    """libtorrent's settings pack for `settings`. Raises InvalidInput when the host is not an IP address."""
    host = _host(settings.host)
    bracketed = f"[{host}]" if host.version == 6 else str(host)
    pack: dict[str, Any] = {
        "listen_interfaces": f"{bracketed}:{settings.port}",
        # Dial from the address we listen on, so that a node is one address to its peers and trackers.
        "outgoing_interfaces": "" if host.is_unspecified else str(host),
        "upload_rate_limit": settings.upload_limit,
        "download_rate_limit": settings.download_limit,
        "alert_mask": alert_mask,
        # All of a peer id, not just its beginning: whoever shares the mirrors with us must know what we are called.
        "peer_fingerprint": bytes.fromhex(peer_id).decode(),
        # What peers are told we are; libtorrent's own name if empty.
        "handshake_client_version": client_name(settings.zone) if settings.zone else "",
    }
    return pack | _NETWORK | _TRANSFER | _DISK | dict(settings.extra)


def _host(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InvalidInput(f"cannot listen on '{text}': it is not an IP address", hint="use 0.0.0.0 for all") from None


_NETWORK: dict[str, Any] = {
    # Peers come from trackers we were given, never from the world.
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # uTP carries 8-12 MB/s where TCP carries 500, at six times the CPU.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    # The port asked for or an error: nobody would find us on another.
    "max_retry_port_bind": 0,
    "listen_system_port_fallback": False,
    # Several nodes behind one address (containers, tests) are several peers.
    "allow_multiple_connections_per_ip": True,
    # Our coordinators may be on loopback or private addresses, at any path; their URLs come from our own settings.
    "ssrf_mitigation": False,
    # A peer that has all it wants now may want more, or be asked for what it gets later: reconnecting costs seconds.
    "close_redundant_connections": False,
    # A cluster starts all at once: meet everybody in the first second.
    "connection_speed": 500,
    "connections_limit": 2000,
    "torrent_connect_boost": 200,
    "smooth_connects": False,
    "listen_queue_size": 512,
    # Nodes restart; a peer that was gone for a moment must be found again.
    "min_reconnect_time": 2,
    "max_failcount": 10,
    "min_announce_interval": 10,
    # Leaving waits for the trackers' answers; one that is gone must not hold us.
    "stop_tracker_timeout": STOP_ANNOUNCE_SECONDS,
    # Announce to every coordinator, not just the first that answers: their swarms must not drift apart.
    "announce_to_all_trackers": True,
    "announce_to_all_tiers": True,
    "max_concurrent_http_announces": 50,
}

_TRANSFER: dict[str, Any] = {
    # Everybody serves everybody: in a cluster there are no strangers to choke. 8 slots, dealt anew every 2 s, 32 nodes,
    # 64 MB, 10 Mbit/s, one run each: half the nodes after 1.23 T* instead of 1.27, the last after 1.32 instead of 1.28.
    "unchoke_slots_limit": -1,
    # Requests outstanding, in seconds of what the peer sends: well above the time a request takes on a full link (see
    # send_buffer_watermark_factor), or a flow that began slowly asks for too little to ever become quicker; not so long
    # that slow peers hoard blocks. See send_buffer_low_watermark for its effect.
    "request_queue_time": 3,
    "max_out_request_queue": 500,
    "max_allowed_in_request_queue": 2000,
    # Rarest first from the first piece on: all peers start together, and random picks duplicate.
    "initial_picker_threshold": 0,
    # A piece that a peer has already is no news to it. Each such word makes libtorrent go through all files of a v2
    # torrent (bt_peer_connection::on_have, hash_picker::pick_hashes), which for thousands of files is most of its time.
    "send_redundant_have": False,
    # A peer that stalls gives its blocks back after this many seconds.
    "piece_timeout": 10,
    "request_timeout": 20,
    # Our requests wait behind the pieces in our own send buffer. So it holds a tenth of a second (factor: percent of a
    # second's bytes), at least one block, and at most what 10 Gbit/s need (with aio_threads: 540 -> 630-670 MB/s, one
    # to one, loopback). With two seconds, and 1 MiB at least, a request took as long as request_queue_time: some nodes
    # kept the slow flows they began with until the end. 16 nodes, 560 MB, 50 Mbit/s, last node: 1.15-1.43 of the bound
    # in 8 runs so, 1.10 and 1.11 with a tenth. Where a flow carries less than 160 kB/s the least binds. 32 nodes, 1.07
    # GB, 20 Mbit/s, how far the last node and the last but one were behind the median when that had a fifth: with two
    # or three blocks and requests for 2 s 35 and 28 % (a block took them 0.8 s, so 2 s were two blocks again; what they
    # lacked then they lacked at the end), with one or two blocks 20 and 6 %, with one block 4 and 3 %, and with
    # requests for 3 s 2 and 1 % (one run each).
    "send_buffer_watermark": 8 * MIB,
    "send_buffer_low_watermark": KIB,
    "send_buffer_watermark_factor": 10,
    # React in 0.1 s: connecting and unchoking wait for a tick.
    "tick_interval": 100,
    # A 200,000-piece burst must not lose alerts before the event loop comes round.
    "alert_queue_size": 100_000,
}

_DISK: dict[str, Any] = {
    # Reading for others while we write. Effect: see send_buffer_watermark.
    "aio_threads": 2,
    # A recheck takes half the time (1.5 GB/s with one).
    "hashing_threads": 2,
    # Bytes that wait for the disk at most; beyond it the peers are slowed down. 256 MiB took 130 MiB more memory and
    # was no faster (4.3 s for 2 GiB from one seeder, either way).
    "max_queued_disk_bytes": 64 * MIB,
    # A snapshot of many shards is open whole.
    "file_pool_size": 512,
    # The .torrent of 500 GB is about 1 MB; a snapshot of very many files has a larger info dictionary.
    "max_metadata_size": 64 * MIB,
    "max_piece_count": 1 << 21,
    # We start and stop torrents; the engine does not.
    "auto_manage_interval": 3600,
}
