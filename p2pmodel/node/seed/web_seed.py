"""Serve a complete snapshot as a web seed: leaseholders download it over HTTP, as from a seeder.

In the swarm, every peer requests from a peer whatever it has. A lone complete peer would send the snapshot one and a
half times or more; as a web seed it sends about one copy, however many peers come.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import publish, publish_source, repeat
from p2pmodel.coordinator.client.urls import announcing_as
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.tasks import companions
from p2pmodel.errors import NotFound
from p2pmodel.node.bandwidth import HttpTraffic
from p2pmodel.node.private.membership import PublicSwarm, SwarmMembership
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.signatures import KeptSignatures
from p2pmodel.swarm.engine import SwarmTorrent
from p2pmodel.swarm.torrents import Metainfo
from p2pmodel.trust.signatures.statement import SignedStatement

IDLE_FOR = 10.0
"""Seconds without an uploaded byte after which no peer is about to download the snapshot in the swarm."""
CHECK_EVERY = 0.5


class WebSeed(Protocol):
    """Serves snapshots of this node over HTTP."""

    def offering(
        self, manifest: Manifest, membership: PublicSwarm | SwarmMembership
    ) -> AbstractAsyncContextManager[None]:
        """Serve the files of `manifest`, all of which are in the cache, while the context lasts: in a private swarm to
        its members alone."""

    def sent(self, manifest: Manifest) -> int:
        """Bytes of the files of `manifest` that were sent."""

    def source(self, coordinator: str, manifest: Manifest) -> Source:
        """The endpoint for leaseholders of `manifest`, as clients of `coordinator` reach it. Blocks."""

    @property
    def pace(self) -> HttpTraffic:
        """All that it sends."""


class WebSeedOffer:
    """One snapshot of this node as a web seed.

    `trackers` are those that `torrent` announces to; `signatures` came with it.
    """

    def __init__(
        self,
        web_seed: WebSeed,
        torrent: SwarmTorrent,
        metainfo: Metainfo,
        reporter: Reporter,
        *,
        coordinators: Sequence[Coordinator],
        trackers: Sequence[str],
        signatures: Sequence[SignedStatement] = (),
        membership: PublicSwarm | SwarmMembership | None = None,
    ) -> None:
        self._membership = membership or PublicSwarm()
        self._signatures = KeptSignatures(metainfo, signatures)
        self._web_seed = web_seed
        self._torrent = torrent
        self._metainfo = metainfo
        self._reporter = reporter
        self._coordinators = coordinators
        self._trackers = trackers
        self._published_at: set[Coordinator] = set()
        self._offering = False

    @property
    def sent(self) -> int:
        """Bytes that leaseholders have downloaded; 0 before it is offered."""
        return self._web_seed.sent(self._metainfo.manifest) if self._offering else 0

    async def run(self) -> None:
        """Wait until no peer downloads in the swarm; then be a web seed until cancelled."""
        await self._idle()
        async with self._web_seed.offering(self._metainfo.manifest, self._membership):
            self._offering = True
            if publishers := [each for each in self._coordinators if each.publisher]:
                await self._signatures.learn(publishers)
            async with companions() as start:
                for coordinator in self._coordinators:
                    start(self._publish(coordinator))
                await asyncio.Event().wait()

    async def _idle(self) -> None:
        uploaded, idle = self._torrent.status().uploaded, 0.0
        while idle < IDLE_FOR:
            await asyncio.sleep(CHECK_EVERY)
            before, uploaded = uploaded, self._torrent.status().uploaded
            idle = idle + CHECK_EVERY if uploaded == before else 0.0

    async def _publish(self, coordinator: Coordinator) -> None:
        source = await asyncio.to_thread(self._web_seed.source, coordinator.url, self._metainfo.manifest)
        await repeat(coordinator, partial(self._name_source, coordinator, source), self._reporter.note)

    async def _name_source(self, coordinator: Coordinator, source: Source) -> None:
        """Name the source of the torrent. A publisher publishes the torrent, too, where the catalog has lost it, and
        its signatures."""
        try:
            await publish_source(coordinator, self._metainfo.info_hash, source)
        except NotFound:
            if not coordinator.publisher:
                raise
            signatures = await self._signatures.known()
            await publish(coordinator, self._metainfo.raw, source=source, signatures=signatures)
        else:
            if coordinator.publisher:
                await self._signatures.keep_at(coordinator)
        self._published(coordinator)

    def _published(self, coordinator: Coordinator) -> None:
        """Announce as a source, not before: the tracker lists no source to leaseholders, so only the coordinator can
        name its endpoint."""
        if coordinator not in self._published_at:
            self._published_at.add(coordinator)
            self._torrent.set_trackers(tuple(map(self._with_role, self._trackers)))

    def _with_role(self, tracker: str) -> str:
        is_source = any(tracker.partition("?")[0] == each.announce_url for each in self._published_at)
        return announcing_as("source", tracker) if is_source else tracker
