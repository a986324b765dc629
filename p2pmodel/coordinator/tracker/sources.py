"""Sources of a coordinator: the seeders from which leaseholders download over HTTP."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from cachetools import TTLCache

from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import InvalidInput

Role = Literal["", "source", "leaseholder", "crossing"]
"""`source`: a seeder from which leaseholders download over HTTP, under leases. The tracker does not list the two to
each other: what a leaseholder downloads from the seeder without a lease, others would download, too."""

SOURCE_HEADER = "P2PModel-Source"
"""In a PUT /catalog: endpoint of the seeder that publishes."""
SOURCE_TOKEN_HEADER = "P2PModel-Source-Token"  # noqa: S105 - the name of a header
SOURCE_PEER_HEADER = "P2PModel-Source-Peer"
SOURCE_ZONE_HEADER = "P2PModel-Source-Zone"
MAX_SOURCES = 64
"""Most seeders of one torrent."""
_MOST_GONE = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A seeder of one snapshot.

    `endpoint` serves it as a hub does and requires `token`; a seeder that is its own coordinator gives a path. `peer`
    is its address in the swarm, as ADDRESS:PORT, and `zone` its rack or site.
    """

    endpoint: str
    token: str = ""
    peer: str = ""
    zone: str = ""

    def headers(self) -> dict[str, str]:
        """HTTP headers for a PUT /catalog."""
        return {
            SOURCE_HEADER: self.endpoint,
            SOURCE_TOKEN_HEADER: self.token,
            SOURCE_PEER_HEADER: self.peer,
            SOURCE_ZONE_HEADER: self.zone,
        }

    def peer_seen_from(self, coordinator: str) -> str:
        """The seeder's address for peers that reach the coordinator at that URL; "" if it has none.

        A seeder that listens on all addresses has no single address; the one at which it serves HTTP is used then.
        """
        try:
            address = ListenAddress.parse(self.peer)
            host = urlsplit(self.seen_from(coordinator)).hostname
        except (InvalidInput, ValueError):
            return ""
        there = ListenAddress(host, address.port) if host else address
        if address.unspecified or (address.loopback and not there.loopback):
            return str(there)
        return self.peer

    def seen_from(self, coordinator: str) -> str:
        """The endpoint's URL for peers that reach the coordinator at that URL."""
        return coordinator.rstrip("/") + self.endpoint if self.endpoint.startswith("/") else self.endpoint


@dataclass(frozen=True, slots=True)
class _Entry:
    source: Source
    expires: float
    by: str
    client: str


class Sources:
    """Seeders by info-hash; a seeder that does not publish again within `ttl` seconds is dropped.

    One that has gone is expected back for as long.
    """

    def __init__(self, clock: Callable[[], float], *, ttl: float = 150.0, max_address: int = MAX_SOURCES) -> None:
        self._clock = clock
        self._ttl = ttl
        self._max_address = max_address
        self._known: dict[str, dict[str, _Entry]] = {}
        self._gone: TTLCache[str, None] = TTLCache(_MOST_GONE, ttl, timer=clock)
        """Torrents of which a seeder has gone."""

    def add(
        self,
        info_hash: str,
        source: Source,
        *,
        by: str = "",
        trusted: bool = False,
        for_ever: bool = False,
        client: str = "",
    ) -> None:
        """Add a seeder that the address `by` names, or renew it. `client` is the IP address of a seeder that is at it.

        Beyond MAX_SOURCES, or the most of one address, the address with the most seeders loses the one that expires
        first. An endpoint stays with the address that named it first, until it expires or a `trusted` client names it.
        """
        known = self._known.setdefault(info_hash, {})
        held = known.get(source.endpoint)
        if held is not None and held.by != by and held.expires > self._clock() and not trusted:
            return
        known[source.endpoint] = _Entry(source, float("inf") if for_ever else self._clock() + self._ttl, by, client)
        counts = Counter(entry.by for entry in known.values())
        if counts[by] > self._max_address:
            self._drop(known, by)
        elif len(known) > MAX_SOURCES:
            self._drop(known, max(counts, key=lambda address: counts[address]))

    def _drop(self, known: "dict[str, _Entry]", by: str) -> None:
        named = [endpoint for endpoint, entry in known.items() if entry.by == by]
        del known[min(named, key=lambda endpoint: known[endpoint].expires)]

    def drop(self, info_hash: str, endpoint: str) -> None:
        """Forget the seeder at `endpoint`, until it names itself again."""
        self._known.get(info_hash, {}).pop(endpoint, None)

    def lose(self, info_hash: str, endpoint: str) -> None:
        """Forget the seeder at `endpoint`: it has gone, and may come back."""
        self.drop(info_hash, endpoint)
        self._gone[info_hash] = None

    def lost(self, info_hash: str) -> bool:
        """Whether a seeder of the torrent has gone, and may come back."""
        return info_hash in self._gone

    def named(self, info_hash: str) -> list[tuple[Source, str]]:
        """The seeders of a torrent that are at the address of the client that named them, and that address."""
        return [(entry.source, entry.client) for entry in self._known.get(info_hash, {}).values() if entry.client]

    def of(self, info_hash: str) -> tuple[Source, ...]:
        """The seeders of a torrent, sorted by endpoint."""
        now = self._clock()
        known = {endpoint: entry for endpoint, entry in self._known.get(info_hash, {}).items() if entry.expires > now}
        if known:
            self._known[info_hash] = known
        else:
            self._known.pop(info_hash, None)
        return tuple(known[endpoint].source for endpoint in sorted(known))
