"""Offer a snapshot that came from the mirrors to the coordinators, so that the next node need not use the mirrors."""

import asyncio
from collections.abc import Sequence

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.publishing import keep_published, publish
from p2pmodel.coordinator.client.urls import announce_url, public_name
from p2pmodel.core import notes
from p2pmodel.core.manifest import Manifest
from p2pmodel.errors import P2PModelError
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.torrent_builder import TorrentBuilder
from p2pmodel.store.cache import RepoCache
from p2pmodel.swarm.torrents import Metainfo, parse


async def torrent_to_offer(
    repo: RepoCache, manifest: Manifest, settings: Settings, reporter: Reporter
) -> Metainfo | None:
    """Build the torrent of a snapshot from its blobs; None without coordinators, or if the snapshot is incomplete."""
    if not settings.coordinators or not manifest.total_size:
        return None
    if await asyncio.to_thread(repo.lacking, manifest.files):
        return None
    torrents = await TorrentBuilder(repo, manifest, reporter).build(
        (),
        trackers=[announce_url(url) for url in settings.coordinators],
        endpoints=[mirror.endpoint for mirror in settings.mirrors],
    )
    return await asyncio.to_thread(parse, torrents["v2"])


async def keep_offered(
    coordinators: Sequence[str], torrent: bytes, revisions: Sequence[str], reporter: Reporter
) -> None:
    """Publish `torrent` until cancelled; `revisions` only once: later they may point at another commit."""
    for url in coordinators:
        try:
            await publish(url, torrent, revisions)
        except P2PModelError as error:
            reporter.note(
                notes.warning(
                    "publish_failed",
                    f"coordinator {public_name(url)}: not published: {error}",
                    coordinator=public_name(url),
                )
            )
    await keep_published(coordinators, torrent, on_note=reporter.note)
