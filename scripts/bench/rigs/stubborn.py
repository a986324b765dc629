"""A node that is revoked and does not obey: it goes on with the certificate that it has. Run as a program.

Usage: python -m scripts.bench.rigs.stubborn URL TOKEN-FILE INFO-HASH FOLDER OWN-ADDRESS PEER...   (PEER: ADDRESS:PORT)

It joins the private swarm as any node does, downloads slowly, and connects to each peer again twice a second, for ever.
Ten times a second it prints one JSON line: `payload`, the bytes that it has got, and `withdrawn`, whether its
coordinator has put it out. AUTHORITY in the environment is the file of the coordinator's authority.
"""

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path

import libtorrent as lt
from aiohttp import ClientSession

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.errors import P2PModelError
from p2pmodel.node.private.membership import SwarmMembership
from p2pmodel.node.reporter import Reporter
from p2pmodel.swarm.libtorrent.private_torrents import FFDHE2048
from p2pmodel.swarm.torrents import parse
from p2pmodel.tls import NO_FILES, TlsFiles
from scripts.bench.rigs.intruder import client_settings

LIMIT = 300_000
"""Bytes a second."""
REPORTS = 0.1
CONNECTS = 5
"""Reports from one try to connect to the next."""


async def run(arguments: list[str]) -> None:
    """Join, and go on until killed."""
    url, token_file, info_hash, folder, own, *peers = arguments
    token, authority = (await asyncio.to_thread(Path(token_file).read_text)).strip(), os.environ.get("AUTHORITY")
    coordinator = Coordinator(url, token, files=TlsFiles(Path(authority)) if authority else NO_FILES)
    async with ClientSession(headers=coordinator.headers) as http:
        raw = await _bytes_of(http, coordinator, info_hash)
    membership = SwarmMembership([coordinator], Reporter())
    await membership.join(parse(raw), [own], timeout=30)
    session = lt.session(client_settings(own) | {"download_rate_limit": LIMIT})
    limited = lt.ip_filter()  # libtorrent exempts private addresses from the limit
    limited.add_rule("0.0.0.0", "255.255.255.255", 1 << int(lt.session.global_peer_class_id))
    session.set_peer_class_filter(limited)
    params = lt.load_torrent_buffer(raw)
    params.trackers, params.url_seeds, params.save_path = [], [], folder
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    handle = session.add_torrent(params)
    handle.set_ssl_certificate_buffer(membership.certificate.certificate, membership.certificate.key, FFDHE2048)
    leaving = asyncio.create_task(membership.watch())
    for count in itertools.count():
        for peer in peers if count % CONNECTS == 0 else ():
            host, _, port = peer.rpartition(":")
            handle.connect_peer((host, int(port)))
        out = leaving.done() and isinstance(leaving.exception(), P2PModelError)
        found = {"payload": handle.status().total_payload_download, "withdrawn": out}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        await asyncio.sleep(REPORTS)


async def _bytes_of(http: ClientSession, coordinator: Coordinator, info_hash: str) -> bytes:
    """The .torrent."""
    async with http.get(f"{coordinator.url}/catalog/torrents/{info_hash}.torrent", ssl=coordinator.tls) as answer:
        return await answer.read()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:]))
