"""The source of a seeder's private snapshot, at its own coordinator and at others."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import publish_source, repeat
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.tasks import companions
from p2pmodel.node.private.membership import SwarmMembership
from p2pmodel.service.roles.private_source import PrivateSource


class PrivateOffer:
    """Names `source` to leaseholders once it serves: at the seeder's own coordinator, which has `sources` and is
    reached at `urls`, and at `coordinators`."""

    def __init__(
        self,
        source: PrivateSource,
        sources: Sources,
        urls: Sequence[str],
        coordinators: Sequence[Coordinator],
        note: Callable[[str], None],
    ) -> None:
        self._source = source
        self._sources = sources
        self._urls = tuple(urls)
        self._coordinators = tuple(coordinators)
        self._note = note

    @asynccontextmanager
    async def offering(self, manifest: Manifest, membership: SwarmMembership) -> AsyncIterator[None]:
        """Serve and list the snapshot while the context lasts."""
        async with self._source.offering(manifest, membership), companions() as start:
            info_hash = membership.info_hash
            own = [await self._at(url, manifest) for url in self._urls]
            for each in own:
                self._sources.add(info_hash, each, for_ever=True)
            for coordinator in self._coordinators:
                name = partial(self._name, coordinator, info_hash, manifest)
                start(repeat(coordinator, name, self._note))
            try:
                yield
            finally:
                for each in own:
                    self._sources.drop(info_hash, each.endpoint)

    async def _name(self, coordinator: Coordinator, info_hash: str, manifest: Manifest) -> None:
        await publish_source(coordinator, info_hash, await self._at(coordinator.url, manifest))

    async def _at(self, url: str, manifest: Manifest) -> Source:
        return await asyncio.to_thread(self._source.source, url, manifest)
