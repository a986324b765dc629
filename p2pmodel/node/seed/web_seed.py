"""A node that has all of a snapshot becomes a source of it: leaseholders pull from it over HTTP, as from a seeder.

In the swarm everybody asks a peer for whatever it has. Who has everything and is alone in that would send it one and a
half times or more; as a source it sends about one copy, however many come.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from p2pmodel.coordinator.client.publishing import keep_published
from p2pmodel.coordinator.client.urls import announce_url, announcing_as
from p2pmodel.coordinator.sources import Source
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.tasks import companions
from p2pmodel.node.bandwidth import HttpTraffic
from p2pmodel.swarm.engine import SwarmTorrent
from p2pmodel.swarm.torrents import Metainfo

LEFT_ALONE = 10.0
"""Seconds without a byte sent after which nobody is about to take the snapshot from us in the swarm."""
LOOK_EVERY = 0.5


class WebSeed(Protocol):
    """What serves snapshots of this node over HTTP."""

    def offering(self, manifest: Manifest) -> AbstractContextManager[Callable[[], int]]:
        """While the context lasts, the files of `manifest`, all of which are in the cache, are served. Yields what
        tells how many bytes of them went out."""

    def source(self, coordinator: str) -> Source:
        """Where that is, for those who reach `coordinator`. Blocks."""

    @property
    def pace(self) -> HttpTraffic:
        """All that it sends."""


class WebSeedOffer:
    """One snapshot of this node as a source. `uploaded` tells what the swarm took; `trackers` are those it is at."""

    def __init__(
        self,
        outlet: WebSeed,
        torrent: SwarmTorrent,
        metainfo: Metainfo,
        *,
        coordinators: Sequence[str],
        trackers: Sequence[str],
        uploaded: Callable[[], int],
        on_note: Callable[[str], None],
    ) -> None:
        self._outlet = outlet
        self._torrent = torrent
        self._metainfo = metainfo
        self._coordinators = coordinators
        self._trackers = trackers
        self._uploaded = uploaded
        self._on_note = on_note
        self._known_at: set[str] = set()
        self.sent: Callable[[], int] = lambda: 0
        """Bytes that leaseholders took."""

    async def run(self) -> None:
        """Wait until it is left alone; then be a source until cancelled."""
        await self._left_alone()
        with self._outlet.offering(self._metainfo.manifest) as self.sent:
            async with companions() as start:
                for coordinator in self._coordinators:
                    start(self._publish(coordinator))
                await asyncio.Event().wait()

    async def _left_alone(self) -> None:
        sent, idle = self._uploaded(), 0.0
        while idle < LEFT_ALONE:
            await asyncio.sleep(LOOK_EVERY)
            idle = idle + LOOK_EVERY if self._uploaded() == sent else 0.0
            sent = self._uploaded()

    async def _publish(self, coordinator: str) -> None:
        await keep_published(
            [coordinator],
            self._metainfo.raw,
            source=await asyncio.to_thread(self._outlet.source, coordinator),
            on_note=self._on_note,
            on_published=lambda: self._is_known_at(coordinator),
        )

    def _is_known_at(self, coordinator: str) -> None:
        """Not before: the tracker lists no source to leaseholders, so only the coordinator can name its endpoint."""
        if coordinator not in self._known_at:
            self._known_at.add(coordinator)
            self._torrent.announce_to(tuple(map(self._as_what_we_are, self._trackers)))

    def _as_what_we_are(self, tracker: str) -> str:
        at_source = any(tracker.partition("?")[0] == announce_url(coordinator) for coordinator in self._known_at)
        return announcing_as("source", tracker) if at_source else tracker
