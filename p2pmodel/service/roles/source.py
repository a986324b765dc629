"""The HTTP source of a node: it serves the node's snapshots to leaseholders of their swarms, as /source of a seeder."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.network.addresses import AdvertisedAddress, ListenAddress
from p2pmodel.core.pace import Pace
from p2pmodel.http import limits
from p2pmodel.http.admission.access import RequestGuard
from p2pmodel.http.sent_bytes import SentBytes
from p2pmodel.http.server import serving
from p2pmodel.http.traffic import Traffic
from p2pmodel.node.local_address import SOURCE_PORT, free_port, local_address, reachable_hosts
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.endpoint_access import EndpointAccess
from p2pmodel.service.hub.library import SeededLibrary
from p2pmodel.service.hub.published_snapshots import PublishedCache
from p2pmodel.service.hub.source_tickets import SourceTickets
from p2pmodel.store.cache import HubCache


class WebSeedLibrary:
    """A `WebSeed` over HTTP. Requests need the token of their snapshot, which coordinators send to its leaseholders."""

    def __init__(
        self,
        library: SeededLibrary,
        pace: Pace,
        sent: SentBytes,
        *,
        url: str,
        tickets: SourceTickets,
        peer: ListenAddress,
        zone: str,
        advertised: Sequence[AdvertisedAddress] = (),
    ) -> None:
        self._library = library
        self.pace = pace
        self._url = url
        self._tickets = tickets
        self._peer = peer
        self._zone = zone
        self._advertised = advertised
        self._sent = sent

    @contextmanager
    def offering(self, manifest: Manifest) -> Iterator[None]:
        """As `WebSeed.offering`."""
        key = manifest.repo, manifest.commit
        self._library.seeded.add(key)
        try:
            yield
        finally:
            self._library.seeded.discard(key)

    def sent(self, manifest: Manifest) -> int:
        """As `WebSeed.sent`."""
        return self._sent.of(str(manifest.repo), manifest.commit)

    def source(self, coordinator: str, manifest: Manifest) -> Source:
        """As `WebSeed.source`. A node that advertises no address and listens on all gives its local address of the
        route to `coordinator`."""
        token = self._tickets.of(manifest)
        peer = next((each.at(self._peer.port) for each in self._advertised), self._peer)
        if peer == self._peer and not peer.unspecified:
            return Source(self._url, token, str(peer), self._zone)
        if peer.unspecified:
            peer = ListenAddress(local_address(coordinator) or reachable_hosts(peer.host)[0], peer.port)
        parts = urlsplit(self._url)
        url = f"{parts.scheme}://{ListenAddress(peer.host, parts.port or 0)}"
        return Source(url, token, str(peer), self._zone)


@asynccontextmanager
async def serving_source(
    cache: HubCache,
    peer: ListenAddress,
    settings: Settings,
    *,
    grace: float,
    note: Callable[[str], None],
    traffic: Traffic,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[WebSeedLibrary]:
    """Serve the source on the host of `peer`, the node's address for peers, at the port `swarm.source_port`. Over HTTPS
    with `tls`."""
    tickets = SourceTickets()
    library, pace, sent = SeededLibrary(PublishedCache(cache)), Pace(settings.swarm.upload_limit), SentBytes()
    http = settings.http
    app = hub_endpoint(cache, library=library, pace=pace, http=http.unpaced, access=EndpointAccess(tickets))
    app.middlewares.insert(0, sent.middleware())
    traffic.watch(app, "source")
    swarm = settings.swarm
    port = free_port(peer.host, SOURCE_PORT) if swarm.source_port is None else swarm.source_port
    guard, bounds = RequestGuard.of(http, secured=True, forms=True), limits.connections(http)
    async with serving(app, peer.host, port, guard=guard, grace=grace, limits=bounds, tls=tls, note=note) as url:
        yield WebSeedLibrary(
            library, pace, sent, url=url, tickets=tickets, peer=peer, zone=swarm.zone, advertised=swarm.advertised
        )
