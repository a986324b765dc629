"""The libtorrent session settings of a node in a cluster, each with its reason.

A setting without a figure has no measured effect by itself; it is set for the stated reason.
"""

import ipaddress
import math
import os
import resource
import socket
from typing import Any

from p2pmodel.core.content.layout import KIB, MIB
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.engine import EngineSettings
from p2pmodel.swarm.libtorrent.connections import client_name

MAX_CONNECTIONS = 2000
"""Connections to peers, of all torrents together."""
RESOLVER_CACHE_SECONDS = 30
"""Seconds for which the address of a tracker's name is kept."""
SILENT = 3
"""Multiples of the peer timeout after which a peer that sends nothing at all is disconnected."""
STOP_ANNOUNCE_SECONDS = 2
"""Seconds that leaving a swarm waits for a tracker."""


def session_settings(settings: EngineSettings, alert_mask: int, peer_id: str) -> Any:
    """libtorrent's settings pack for `settings`. Raises InvalidInput if the host is no IP address."""
    host = _host(settings.host)
    pack: dict[str, Any] = {
        "listen_interfaces": _interfaces(host, settings.port),
        # Connect from the listen address, so that a node has one address for peers and trackers.
        "outgoing_interfaces": "" if host.is_unspecified else str(host),
        "upload_rate_limit": settings.upload_limit,
        "download_rate_limit": settings.download_limit,
        "alert_mask": alert_mask,
        # The whole peer id, not only its prefix: nodes that share the mirrors must know it.
        "peer_fingerprint": bytes.fromhex(peer_id).decode(),
        # Client name for peers; libtorrent's own name if empty.
        "handshake_client_version": client_name(settings.zone) if settings.zone else "",
    }
    pack |= _timeouts(settings.peer_timeout)
    shared = {
        name: value // settings.engines for name, value in ({"connections_limit": _connections()} | _SHARED).items()
    }
    return pack | _NETWORK | shared | _TRANSFER | _DISK | _threads(settings.engines) | dict(settings.extra)


def _threads(engines: int) -> dict[str, int]:
    """The threads of one of `engines` that hash pieces.

    One hashes 1.6 GB/s. On three cores or fewer all the other work of an engine is slower than that, and a second
    thread only takes turns with the first: four times as many context switches (median of 10 runs in turn, 2 cores).
    """
    return {"hashing_threads": 2 if len(os.sched_getaffinity(0)) > 3 * engines else 1}


def _connections() -> int:
    """Connections to peers at most: half of the open files, since HTTP connections and files need the rest."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, files // 2))


def _timeouts(seconds: float) -> dict[str, Any]:
    owed = max(math.ceil(seconds), 2)
    return {
        # Seconds after which the blocks of a stalled peer are requested elsewhere.
        "piece_timeout": owed,
        "request_timeout": owed,
        # Seconds without any message after which a peer is disconnected; it counts no longer as one that has pieces.
        # p2pmodel sends a keep-alive after half of that, other clients after a minute or two: they connect again.
        "peer_timeout": SILENT * owed,
    }


def private_interfaces(settings: EngineSettings, port: int) -> str:
    """The addresses to listen on over TLS, at `port`, for peers of private torrents."""
    return ",".join(f"{each}s" for each in _interfaces(_host(settings.host), port).split(","))


def _interfaces(host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    """The addresses to listen on; `[::]` stands for those of IPv4, too, as for other programs on Linux.

    On a wildcard address libtorrent listens on each address of the host, with port 0 on each at another port: so one
    free port is taken here.
    """
    if host.is_unspecified and port == 0:
        with socket.socket(socket.AF_INET6 if host.version == 6 else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((str(host), 0))
            port = probe.getsockname()[1]
    bracketed = f"[{host}]" if host.version == 6 else str(host)
    both = host.is_unspecified and host.version == 6
    return f"{bracketed}:{port},0.0.0.0:{port}" if both else f"{bracketed}:{port}"


def _host(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        hint = "give an address of this machine, or 0.0.0.0 or [::] for all of them"
        raise InvalidInput(f"cannot listen on '{text}': it is not an IP address", hint=hint) from None


_NETWORK: dict[str, Any] = {
    # Peers come from the configured trackers only.
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # uTP reaches 8-12 MB/s where TCP reaches 500, at six times the CPU.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    # The configured port or an error: peers would not find another port.
    "max_retry_port_bind": 0,
    "listen_system_port_fallback": False,
    # Several nodes behind one address (containers, tests) are several peers.
    "allow_multiple_connections_per_ip": True,
    # Our coordinators may be on loopback or private addresses, at any path; their URLs come from our own settings.
    "ssrf_mitigation": False,
    # A coordinator's name may get another address; libtorrent would announce to the old one for 20 minutes.
    "resolver_cache_timeout": RESOLVER_CACHE_SECONDS,
    # Two peers without a use for each other now may have one later, and a reconnect costs seconds.
    "close_redundant_connections": False,
    # All nodes of a cluster start together: connect to all peers in the first second.
    "connection_speed": 500,
    # A firewall that drops packets is noticed within ten seconds; libtorrent's default is 15 s.
    "peer_connect_timeout": 4,
    "torrent_connect_boost": 200,
    "smooth_connects": False,
    "listen_queue_size": 512,
    # Nodes restart; a peer that was down briefly must be found again.
    "min_reconnect_time": 2,
    "max_failcount": 10,
    "min_announce_interval": 4,
    # The filter is for peers of private torrents.
    "apply_ip_filter_to_trackers": False,
    # Leaving waits for the trackers' answers; a dead one must not delay it.
    "stop_tracker_timeout": STOP_ANNOUNCE_SECONDS,
    # Announce to every coordinator, not only the first that answers: their peer lists must agree.
    "announce_to_all_trackers": True,
    "announce_to_all_tiers": True,
    "max_concurrent_http_announces": 50,
}

_TRANSFER: dict[str, Any] = {
    # Unchoke every peer: a cluster has no strangers. With 8 slots reassigned every 2 s, 32 nodes, 64 MB, 10 Mbit/s, one
    # run each: half the nodes after 1.23 T* instead of 1.27, the last after 1.32 instead of 1.28.
    "unchoke_slots_limit": -1,
    # Outstanding requests, in seconds of the peer's rate. Well above the time of a request on a full link (see
    # send_buffer_watermark_factor), else a flow that starts slowly requests too little to speed up; not so long that
    # slow peers hold many blocks. See send_buffer_low_watermark for its effect.
    "request_queue_time": 3,
    "max_out_request_queue": 500,
    "max_allowed_in_request_queue": 2000,
    # Rarest first from the first piece: all peers start together, and random picks would coincide.
    "initial_picker_threshold": 0,
    # A `have` for a piece that the peer has is redundant. Each one makes libtorrent scan all files of a v2 torrent
    # (bt_peer_connection::on_have, hash_picker::pick_hashes): most of its CPU time for thousands of files.
    "send_redundant_have": False,
    # Our requests wait behind the pieces in our own send buffer. So it holds a tenth of a second (factor: percent of a
    # second's bytes), at least one block, and at most what 10 Gbit/s need (with aio_threads: 540 -> 630-670 MB/s, one
    # to one, loopback). With two seconds and at least 1 MiB a request took as long as request_queue_time. Some nodes
    # kept their slow initial flows until the end: 16 nodes, 560 MB, 50 Mbit/s, last node after 1.15-1.43 of the bound
    # in 8 runs, against 1.10 and 1.11 with a tenth.
    # Below 160 kB/s per flow the minimum applies. Lag of the last two nodes behind the median when that had a fifth, 32
    # nodes, 1.07 GB, 20 Mbit/s, one run each:
    #   two or three blocks, requests for 2 s   35 and 28 % (a block took 0.8 s; the lag stayed until the end)
    #   one or two blocks                       20 and 6 %
    #   one block                               4 and 3 %
    #   one block, requests for 3 s             2 and 1 %
    "send_buffer_watermark": 8 * MIB,
    "send_buffer_low_watermark": KIB,
    "send_buffer_watermark_factor": 10,
    # React within 0.1 s: connects and unchokes wait for a tick.
    "tick_interval": 100,
    # Web seeds: libtorrent requests that much at a time, and a piece that a load needs waits as long. A receiver takes
    # as much CPU time with 1 as with 16 MiB (0.8 GB from nginx, 4 runs), the seeder a millisecond more a request.
    "urlseed_max_request_bytes": 8 * MIB,
    # A burst of 200,000 pieces must not lose alerts before the event loop reads them.
    "alert_queue_size": 100_000,
}

_DISK: dict[str, Any] = {
    # Read for peers during writes. Effect: see send_buffer_watermark.
    "aio_threads": 2,
    # The .torrent of 500 GB has about 1 MB; a snapshot of very many files has a larger info dictionary.
    "max_metadata_size": 64 * MIB,
    "max_piece_count": 1 << 21,
    # We start and stop torrents; the engine does not.
    "auto_manage_interval": 3600,
}

_SHARED: dict[str, int] = {
    # Maximum bytes that wait for the disk; beyond it peers are slowed down. 256 MiB took 130 MiB more memory and were
    # no faster (4.3 s for 2 GiB from one seeder, both).
    "max_queued_disk_bytes": 64 * MIB,
    # Keep all files of a snapshot with many shards open.
    "file_pool_size": 512,
}
"""What the engines of one node have together."""
