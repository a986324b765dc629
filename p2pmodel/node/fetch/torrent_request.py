"""The torrent of a download as the engine gets it."""

from p2pmodel.coordinator.client.urls import announcing_as
from p2pmodel.node.fetch.plan import DownloadContext
from p2pmodel.node.snapshot.inventory import Inventory
from p2pmodel.store.file_links import FileLinks
from p2pmodel.swarm.engine import AddTorrent


def torrent_request(
    context: DownloadContext,
    inventory: Inventory,
    links: FileLinks,
    only: frozenset[int] | None,
    *,
    shuns_seeders: bool,
) -> AddTorrent:
    """The request to join the swarm with what `inventory` has, for `only` some pieces (None: all).

    `shuns_seeders`: the trackers name no seeders.
    """
    plan, metainfo = context.plan, context.metainfo
    return AddTorrent(
        metainfo=metainfo.raw,
        save_path=context.repo.folder,
        files={index: str(links.path(i)) for i, index in enumerate(metainfo.file_indexes)},
        have=inventory.have,
        wanted=frozenset(metainfo.file_indexes[i] for i in plan.files),
        trackers=tuple(announcing_as("leaseholder", t) for t in plan.trackers) if shuns_seeders else plan.trackers,
        peers=plan.peers,
        pieces=only,
    )
