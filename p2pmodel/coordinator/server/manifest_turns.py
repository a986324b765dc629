"""Turns to send a manifest: it may be long, and what is received at the same time is kept in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

AT_ONCE = 8
"""Manifests that are received at the same time."""
OF_ONE_ADDRESS = 2


class ManifestTurns:
    """Bounds the manifests in transit: AT_ONCE together, OF_ONE_ADDRESS of one address."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(AT_ONCE)
        self._by_address: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, address: str) -> AsyncIterator[None]:
        """Wait for a turn of a client at `address`, and keep it while the context lasts."""
        own = self._by_address.setdefault(address, asyncio.Semaphore(OF_ONE_ADDRESS))
        async with own, self._all:
            yield
