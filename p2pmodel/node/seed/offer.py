"""Offering a snapshot that came from the mirrors to the coordinators, so that the next node need not go there."""

import asyncio
from collections.abc import Callable, Sequence

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.publishing import keep_published, publish
from p2pmodel.coordinator.client.urls import announce_url, public_name
from p2pmodel.core.manifest import Manifest
from p2pmodel.errors import P2PModelError
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.torrent_builder import TorrentBuilder
from p2pmodel.store.cache import RepoCache
from p2pmodel.swarm.torrents import Metainfo, parse


async def torrent_to_offer(
    repo: RepoCache, manifest: Manifest, settings: Settings, reporter: Reporter
) -> Metainfo | None:
    """The torrent of a snapshot, made from its blobs; None if nobody would be told of it, or not all of it is here."""
    if not settings.coordinators or not manifest.total_size:
        return None
    if await asyncio.to_thread(repo.missing, manifest.files):
        return None
    torrents = await TorrentBuilder(repo, manifest, reporter).build(
        (),
        trackers=[announce_url(url) for url in settings.coordinators],
        endpoints=[mirror.endpoint for mirror in settings.mirrors],
    )
    return await asyncio.to_thread(parse, torrents["v2"])


async def keep_offered(
    coordinators: Sequence[str], torrent: bytes, revisions: Sequence[str], on_note: Callable[[str], None]
) -> None:
    """Publish `torrent` until cancelled; the names of the snapshot only once: later they may mean another commit."""
    for url in coordinators:
        try:
            await publish(url, torrent, revisions)
        except P2PModelError as error:
            on_note(f"coordinator {public_name(url)}: not published: {error}")
    await keep_published(coordinators, torrent, on_note=on_note)
