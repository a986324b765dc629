"""The order in which the engine requests pieces: in order while no other peer downloads, else rarest first."""

import asyncio
from collections.abc import Callable

from p2pmodel.swarm.engine import SwarmTorrent

ORDER_CHECK_EVERY = 0.2
ALONE_FOR = 0.4
"""Seconds without another downloader after which pieces are requested in order. Peers that start together are connected
by then; what they ask of the one seeder before that should differ."""


async def keep_order(torrent: SwarmTorrent, *, has_web_seeds: Callable[[], bool]) -> None:
    """Until cancelled, request pieces in order while all peers are seeds, or web seeds are used, and rarest first while
    others download.

    In order, files become whole one after another, and are hashed and written while the rest arrives. But where several
    nodes download together, one order for all of them leaves no peer with a piece that another lacks.
    """
    alone, in_order = 0.0, False
    while True:
        if in_order != (has_web_seeds() or alone >= ALONE_FOR):
            in_order = not in_order
            torrent.set_sequential(in_order)
        await asyncio.sleep(ORDER_CHECK_EVERY)
        status = torrent.status()
        alone = alone + ORDER_CHECK_EVERY if 0 < status.peers == status.seeds else 0.0
