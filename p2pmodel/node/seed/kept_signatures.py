"""The signatures of a torrent that a node publishes, for a coordinator that has lost them or never had them.

They come with the torrent, and from the coordinators that have them. A node that publishes the torrent alone would
offer it unsigned, and nodes that require a signature would refuse it.
"""

import asyncio
from collections.abc import Sequence

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import PUBLISH_TIMEOUT
from p2pmodel.coordinator.client.signatures import find_signatures, publish_signature
from p2pmodel.errors import NotFound
from p2pmodel.node.snapshot.evidence.signatures import publishable
from p2pmodel.swarm.metainfo import Metainfo
from p2pmodel.trust.signatures.statement import SignedStatement

ASK_TIMEOUT = 5.0


class KeptSignatures:
    """Those of one torrent; `known` came with it. None of them is trusted: each node verifies what it uses."""

    def __init__(self, metainfo: Metainfo, known: Sequence[SignedStatement] = ()) -> None:
        self._metainfo = metainfo
        self._known = tuple(known)

    async def known(self) -> tuple[SignedStatement, ...]:
        """What is published with the torrent."""
        return await self._publishable(self._known)

    async def learn(self, coordinators: Sequence[Coordinator]) -> bool:
        """Take what `coordinators` have, and return whether that is anything."""
        manifest = self._metainfo.manifest
        found = await find_signatures(manifest.repo, manifest.commit, coordinators, ASK_TIMEOUT)
        self._known = await self._publishable((*self._known, *found))
        return bool(found)

    async def keep_at(self, coordinator: Coordinator) -> None:
        """Learn from `coordinator`, and publish what is known where it has nothing. Raises as `publish_signature`."""
        if await self.learn([coordinator]):
            return
        for signed in await self.known():
            try:
                await publish_signature(coordinator, signed, timeout=PUBLISH_TIMEOUT)
            except NotFound:  # it is of an earlier version
                return

    async def _publishable(self, statements: Sequence[SignedStatement]) -> tuple[SignedStatement, ...]:
        known = self._metainfo
        return await asyncio.to_thread(publishable, statements, known.manifest, [known.info_hash])
