"""Clients that were given a torrent, or left its swarm, a moment ago, and may be about to ask for leases.

Nodes that start together reach the coordinator one after another. The first one would count as alone, join the seeders
in the swarm, and take their uplink from all that come after it.
"""

from collections.abc import Callable

from cachetools import TTLCache

WITHIN = 5.0
"""Seconds in which such a client is expected."""
_MOST = 4096


class ExpectedClients:
    """The clients of all torrents, by IP address. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._given: TTLCache[tuple[str, str], None] = TTLCache(_MOST, WITHIN, timer=clock)

    def given(self, info_hash: str, client: str) -> None:
        """The client was given the torrent, or had leases until now."""
        self._given[info_hash, client] = None

    def joined(self, info_hash: str, client: str) -> None:
        """The client, or another one at its address, asks for leases."""
        self._given.pop((info_hash, client), None)

    def any(self, info_hash: str) -> bool:
        """Whether a client is expected to ask for leases of the torrent."""
        return any(named == info_hash for named, _ in self._given)
