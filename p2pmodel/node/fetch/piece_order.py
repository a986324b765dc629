"""In which order the pieces of a transfer come."""

import asyncio

from p2pmodel.swarm.engine import SwarmTorrent

LOOK_EVERY = 0.2
ALONE_FOR = 0.4
"""Seconds in which no other downloader was seen: peers that start together have met by then, and what they ask of the
one seeder before that should differ."""


async def keep_order(torrent: SwarmTorrent) -> None:
    """Until cancelled: pieces in their order while all peers are seeds, rarest first while anybody else downloads.

    In order, files are whole one after another and are hashed and brought onto the disk while the rest arrives. But
    where several download together, the same order for all of them means that nobody has what another lacks.
    """
    alone, in_order = 0.0, False
    while True:
        await asyncio.sleep(LOOK_EVERY)
        status = torrent.status()
        alone = alone + LOOK_EVERY if 0 < status.peers == status.seeds else 0.0
        if in_order != (alone >= ALONE_FOR):
            in_order = not in_order
            torrent.take_in_order(in_order)
