"""Whether leaseholders can use the sources of a coordinator: each is tried when it is named, and while it is needed.

A source that cannot be connected to is dropped at once, and its peer is an ordinary one when it says that it is alive:
it then exchanges with peers that it connects to itself, as a node that accepts no connections must. One that says
nothing is listed to no peer: peers that keep its address would all download from it when it starts again. Only a source
at the address of the node that names it is tried, so no member makes the coordinator connect to a third machine; others
are taken as they are named.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.network.addresses import ListenAddress, parsed_address
from p2pmodel.errors import Unavailable

EVERY = 5.0
"""Seconds between attempts while leaseholders need a source."""


class SourceWatch:
    """Puts reachable sources into `sources`, and takes others out. `tracker` has the probes, and the peers' roles."""

    def __init__(self, sources: Sources, tracker: Tracker) -> None:
        self._sources = sources
        self._tracker = tracker

    async def add(self, info_hash: str, source: Source, client: str, *, by: str, trusted: bool = False) -> None:
        """Take a source that the node at the IP address `client` names. Raises Unavailable if it cannot be reached."""
        address = _own_address(source.endpoint, client)
        if failure := await self._failure(address, client):
            self._drop(info_hash, source, alive=True)
            raise Unavailable(
                f"leaseholders cannot connect to the source {source.endpoint} ({failure})",
                hint="open that TCP port to the other nodes, or set swarm.advertise (--advertise)",
            )
        self._tracker.source_began(bytes.fromhex(info_hash)[:20], source.peer)
        self._sources.add(info_hash, source, by=by, trusted=trusted, client=client if address else "")

    async def follow(self, info_hash: str, changed: Callable[[], None]) -> None:
        """Try the sources of a torrent again and again until cancelled; call `changed` when one is dropped."""
        while True:
            if await self._look(info_hash):
                changed()
            await asyncio.sleep(EVERY)

    async def _look(self, info_hash: str) -> bool:
        named = self._sources.named(info_hash)
        tried = ((source, client, _own_address(source.endpoint, client)) for source, client in named)
        failures = await asyncio.gather(*(self._failed(*each) for each in tried))
        dropped = [source for source in failures if source is not None]
        for source in dropped:
            self._drop(info_hash, source, alive=False)
        return bool(dropped)

    async def _failed(self, source: Source, client: str, address: ListenAddress | None) -> Source | None:
        return source if await self._failure(address, client) else None

    async def _failure(self, address: ListenAddress | None, client: str) -> str:
        probes = self._tracker.probes
        return await probes.failure(address, client, again=True) if probes and address else ""

    def _drop(self, info_hash: str, source: Source, *, alive: bool) -> None:
        (self._sources.drop if alive else self._sources.lose)(info_hash, source.endpoint)
        self._tracker.source_ended(bytes.fromhex(info_hash)[:20], source.peer, alive=alive)


def _own_address(endpoint: str, client: str) -> ListenAddress | None:
    """Where a source is served, if that is the address of the node that names it."""
    parts = urlsplit(endpoint)
    host = parsed_address(parts.hostname or "")
    if host is None or host != parsed_address(client):
        return None
    return ListenAddress(str(host), parts.port or (443 if parts.scheme == "https" else 80))
