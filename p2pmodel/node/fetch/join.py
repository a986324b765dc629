"""How a download joins the swarm: the pieces that this node has, the request to the engine, the order of pieces."""

import asyncio
from collections.abc import Callable

from p2pmodel.coordinator.client.urls import announcing_as
from p2pmodel.core import notes
from p2pmodel.core.sizes import human
from p2pmodel.node.fetch.pieces.leaseholder import Leaseholder, NoLeases
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.reporter import stoppable
from p2pmodel.node.snapshot.inventory import Inventory, take_inventory
from p2pmodel.store.file_links import FileLinks
from p2pmodel.swarm.engine import AddTorrent, SwarmTorrent


async def own_pieces(context: DownloadContext) -> Inventory:
    """The pieces that are here: staged, in blobs, or in other revisions, which is noted."""
    known = await context.known_pieces()
    with stoppable(context.stats.count_checked) as count:
        found = await asyncio.to_thread(
            take_inventory, context.repo, context.metainfo, known=known, wanted=context.plan.files, on_bytes=count
        )
    size = context.stats.size(found.reused)
    if size:
        text = f"{human(size)} are the same in other revisions of {context.repo.repo} in this cache: copied"
        context.reporter.note(notes.info("reused", text, bytes=size))
    return found


def torrent_request(
    context: DownloadContext,
    inventory: Inventory,
    links: FileLinks,
    only: frozenset[int] | None,
    leases: Leaseholder | NoLeases,
) -> AddTorrent:
    """The request to join the swarm with what `inventory` has, for `only` some pieces (None: all), in the role that
    `leases` have at the trackers."""
    plan, metainfo, role = context.plan, context.metainfo, leases.role
    return AddTorrent(
        metainfo=metainfo.raw,
        save_path=context.repo.folder,
        files={index: str(links.path(i)) for i, index in enumerate(metainfo.file_indexes)},
        have=inventory.have,
        wanted=frozenset(metainfo.file_indexes[i] for i in plan.files),
        trackers=tuple(announcing_as(role, t) for t in plan.trackers) if role else plan.trackers,
        peers=plan.peers,
        web_seeds=leases.first_web_seeds(),
        pieces=only,
    )


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
