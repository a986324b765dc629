"""The HTTP sources of a node: they serve its snapshots to leaseholders of their swarms, as /source of a seeder does.

Each snapshot has a token of its own: leases of one open no other.
"""

import hmac
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.rights import Right
from p2pmodel.core.pace import Pace
from p2pmodel.errors import AccessDenied
from p2pmodel.http import limits
from p2pmodel.http.admission.access import WRONG_TOKEN, RequestGuard, is_token
from p2pmodel.http.admission.authorization import RIGHT
from p2pmodel.http.exposition import HEALTH, SentBytes, Traffic
from p2pmodel.http.server import serving
from p2pmodel.node.local_address import SOURCE_PORT, free_port
from p2pmodel.node.private.membership import PublicSwarm, SwarmMembership
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.endpoint_access import EndpointAccess, refusal
from p2pmodel.service.hub.leaf_hashes import LeafHashes
from p2pmodel.service.hub.library import SeededLibrary
from p2pmodel.service.hub.published_snapshots import PublishedCache
from p2pmodel.service.roles.own_address import SourceAddress
from p2pmodel.service.roles.private_source import PrivateSource
from p2pmodel.store.cache import HubCache

LEASEHOLDER = Right("leaseholder", "the token of a lease", ask_mirror=True)
"""The right of a request with a token, until it is known of which snapshot it is."""


class SourceTickets:
    """The tokens of one run; as `EndpointAdmission`."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, manifest: Manifest) -> str:
        """The token of a snapshot."""
        return hmac.new(self._secret, f"{manifest.repo}@{manifest.commit}".encode(), sha256).hexdigest()[:40]

    def middleware(self) -> Middleware:
        """Admits requests with a token; `check` compares it."""

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path != HEALTH:
                if "Authorization" not in request.headers:
                    return refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", code="RepoNotFound")
                request[RIGHT] = LEASEHOLDER
            return await handler(request)

        return admit

    async def check(self, request: web.Request, manifest: Manifest, asked_as: str) -> Right:  # noqa: ARG002
        """The right of a leaseholder of the snapshot. Raises AccessDenied for the token of another one."""
        if is_token(request.headers.get("Authorization", ""), self.of(manifest)):
            return LEASEHOLDER
        request[WRONG_TOKEN] = True
        raise AccessDenied("Invalid credentials in Authorization header")


class WebSeedLibrary:
    """A `WebSeed` over HTTP. Requests need the token of their snapshot, which coordinators send to its leaseholders;
    `private` serves the snapshots of private swarms."""

    def __init__(
        self,
        library: SeededLibrary,
        pace: Pace,
        sent: SentBytes,
        *,
        url: str,
        tickets: SourceTickets,
        address: SourceAddress,
        private: PrivateSource,
    ) -> None:
        self._library = library
        self.pace = pace
        self._url = url
        self._tickets = tickets
        self._address = address
        self._sent = sent
        self._private = private

    @asynccontextmanager
    async def offering(self, manifest: Manifest, membership: PublicSwarm | SwarmMembership) -> AsyncIterator[None]:
        """As `WebSeed.offering`."""
        if isinstance(membership, SwarmMembership):
            async with self._private.offering(manifest, membership):
                yield
            return
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
        """As `WebSeed.source`."""
        if self._private.offers(manifest):
            return self._private.source(coordinator, manifest)
        return self._address.source(self._url, coordinator, token=self._tickets.of(manifest))


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
    with `tls`. That of private snapshots opens with the first one that is offered."""
    tickets = SourceTickets()
    library, pace, sent = SeededLibrary(PublishedCache(cache)), Pace(settings.swarm.upload_limit), SentBytes()
    http = settings.http
    app = hub_endpoint(
        cache, library=library, pace=pace, http=http.unpaced, access=EndpointAccess(tickets), leaves=LeafHashes(pace)
    )
    app.middlewares.insert(0, sent.middleware())
    traffic.watch(app, "source")
    swarm = settings.swarm
    port = free_port(peer.host, SOURCE_PORT) if swarm.source_port is None else swarm.source_port
    guard, bounds = RequestGuard.of(http, secured=True, forms=True), limits.connections(http)
    address = SourceAddress(peer, swarm.zone, swarm.advertised)
    async with (
        PrivateSource(cache, address, settings, pace, sent, grace=grace, note=note, traffic=traffic) as private,
        serving(app, peer.host, port, guard=guard, grace=grace, limits=bounds, tls=tls, note=note) as url,
    ):
        yield WebSeedLibrary(library, pace, sent, url=url, tickets=tickets, address=address, private=private)
