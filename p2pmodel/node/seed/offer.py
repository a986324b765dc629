"""Offer a snapshot that came from the mirrors to the coordinators, so that the next node need not use the mirrors."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator, configured
from p2pmodel.coordinator.client.publishing import keep_published, publish
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.errors import P2PModelError
from p2pmodel.node.private.authority import authority_of
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.signatures import KeptSignatures, signed
from p2pmodel.node.snapshot.torrents.torrent_builder import TorrentBuilder
from p2pmodel.store.cache import RepoCache
from p2pmodel.swarm.torrents import Metainfo, parse
from p2pmodel.trust.signatures.statement import SignedStatement


async def torrent_to_offer(
    repo: RepoCache, manifest: Manifest, settings: Settings, reporter: Reporter
) -> Metainfo | None:
    """Build the torrent of a snapshot from its blobs.

    None where this node publishes at no coordinator, or if the snapshot is incomplete.
    """
    if not publishes_at(settings) or not manifest.total_size:
        return None
    if await asyncio.to_thread(repo.lacking, manifest.files):
        return None
    authority = await asyncio.to_thread(authority_of, manifest.repo, settings.private)
    proves = settings.trust.signing_key is not None
    torrents = await TorrentBuilder(repo, manifest, reporter, authority=authority, proves=proves).build(
        (),
        trackers=[coordinator.announce_url for coordinator in configured(settings)],
        endpoints=settings.webseeds(manifest.repo),
    )
    return await asyncio.to_thread(parse, torrents["v2"])


def publishes_at(settings: Settings) -> tuple[Coordinator, ...]:
    """The coordinators of which this node has the token of a publisher."""
    return tuple(coordinator for coordinator in configured(settings) if coordinator.publisher)


async def keep_offered(
    coordinators: Sequence[Coordinator],
    metainfo: Metainfo,
    revisions: Sequence[str],
    reporter: Reporter,
    *,
    signing: Path | None = None,
    known: Sequence[SignedStatement] = (),
) -> None:
    """Publish a torrent until cancelled; `revisions` only once: later they may point at another commit. `signing`: the
    key that signs it; `known`: statements of others, which are published, too."""
    torrent = metainfo.raw
    try:
        own = await signed(metainfo.manifest, [metainfo.info_hash], signing)
    except P2PModelError as error:
        reporter.note(notes.warning("publish_failed", f"not published: {error}", info_hash=metainfo.info_hash))
        return
    kept = KeptSignatures(metainfo, (*own, *known))
    await kept.learn(coordinators)
    signatures = await kept.known()
    for coordinator in coordinators:
        try:
            await publish(coordinator, torrent, revisions, signatures=signatures)
        except P2PModelError as error:
            reporter.note(
                notes.warning(
                    "publish_failed",
                    f"coordinator {coordinator}: not published: {error}",
                    coordinator=str(coordinator),
                )
            )
    await keep_published(coordinators, torrent, signatures=signatures, on_note=reporter.note)
