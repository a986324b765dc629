"""The HTTP source of private snapshots: over TLS, for members of their swarms alone.

Invariants: no byte of content leaves without a certificate for its commit that the authority of its torrent has signed,
that has not expired, and that no coordinator has withdrawn, at an address that coordinators admit. A client that is put
out is cut off in the middle of a response. The certificate of this node is that of its own membership, so clients know
that they talk to a member, too.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.publishing import publish_source, repeat
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.network.rights import Right
from p2pmodel.core.pace import Pace
from p2pmodel.core.tasks import companions
from p2pmodel.errors import AccessDenied
from p2pmodel.http import limits
from p2pmodel.http.admission.access import RequestGuard
from p2pmodel.http.admission.authorization import RIGHT
from p2pmodel.http.admission.peer_identity import client_certificate
from p2pmodel.http.connections import reset
from p2pmodel.http.exposition import SentBytes, Traffic
from p2pmodel.http.server import serving
from p2pmodel.node.local_address import PRIVATE_SOURCE_PORT, free_port
from p2pmodel.node.private.membership import SwarmMembership
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.endpoint_access import EndpointAccess
from p2pmodel.service.hub.leaf_hashes import LeafHashes
from p2pmodel.service.hub.library import SeededLibrary
from p2pmodel.service.hub.published_snapshots import PublishedCache
from p2pmodel.service.roles.own_address import SourceAddress
from p2pmodel.store.cache import HubCache
from p2pmodel.tls import MutualTls, server_of

RENEWED_BEFORE = 30.0
"""Seconds before its certificate expires from which on a connection ends with its response: the client has a new
certificate by then, and connects again with it."""
NEWCOMER_EVERY, NEWCOMER_LOOKS = 0.05, 20
"""Seconds between looks at a client that is not admitted, and how many: the coordinator's word on a new member may come
later than the member itself."""
OTHER_COMMIT = "the certificate of this client is for another commit"

MEMBER = Right("member", "a certificate of the private swarm", ask_mirror=True)
"""The right of a client, until it is known of which snapshot it is."""


@dataclass(frozen=True, slots=True)
class _SwarmClient:
    """A client in an open connection."""

    commit: str
    address: str
    serial: str


_CLIENT = web.RequestKey("CLIENT", _SwarmClient)


class MemberAdmission:
    """Which clients get private snapshots; as `EndpointAdmission`. `members`: by commit, what this node offers."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.members: dict[str, SwarmMembership] = {}
        self._clock = clock
        self._open: dict[asyncio.BaseTransport, _SwarmClient] = {}

    def tls_of(self, commit: str) -> MutualTls | None:
        """The contexts of this node's membership for a commit that it offers."""
        membership = self.members.get(commit)
        return membership.tls if membership is not None else None

    def middleware(self) -> Middleware:
        """Admits requests of members."""

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            client = self._client(request)
            for _ in range(NEWCOMER_LOOKS):
                if not self._refusal(client):
                    break
                await asyncio.sleep(NEWCOMER_EVERY)
            if refusal := self._refusal(client):
                raise AccessDenied(f"this client is not a member of the private swarm: {refusal}")
            request[RIGHT], request[_CLIENT] = MEMBER, client
            self._follow(request.transport, client)
            return await handler(request)

        return admit

    async def end_before_expiry(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the connection end with this response if the certificate of its client expires soon. For
        `on_response_prepare`."""
        certificate = client_certificate(request)
        if certificate is not None and certificate.expires - self._clock() < RENEWED_BEFORE:
            response.headers["Connection"] = "close"
            response.force_close()

    async def check(self, request: web.Request, manifest: Manifest, asked_as: str) -> Right:  # noqa: ARG002
        """The right of a member of the swarm of `manifest`. Raises AccessDenied for a member of another one."""
        if request[_CLIENT].commit != manifest.commit:
            raise AccessDenied(OTHER_COMMIT)
        return MEMBER

    def judge(self) -> None:
        """Cut off the clients that are no members any more."""
        for transport, client in list(self._open.items()):
            if transport.is_closing():
                del self._open[transport]
            elif self._refusal(client):
                del self._open[transport]
                reset(transport)

    def _follow(self, transport: asyncio.Transport | None, client: _SwarmClient) -> None:
        """Let `judge` cut off the client from now on."""
        self._open = {each: known for each, known in self._open.items() if not each.is_closing()}
        if transport is not None:
            self._open[transport] = client

    def _refusal(self, client: _SwarmClient) -> str:
        """Why a client is no member now; "" if it is one."""
        membership = self.members.get(client.commit)
        return (
            "this node offers it no more" if membership is None else membership.refusal(client.address, client.serial)
        )

    def _client(self, request: web.Request) -> _SwarmClient:
        """The client of `request`, by a certificate for a commit that this node offers. Raises AccessDenied."""
        transport, certificate = request.transport, client_certificate(request)
        if transport is None or certificate is None:
            raise AccessDenied("this source needs a certificate of the private swarm")
        # The handshake has verified the certificate by the authority of the membership with the context that it chose.
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        chosen = (each for each, of in self.members.items() if tls is not None and tls.context is of.tls.server)
        commit = next((each for each in chosen if each in certificate.names), None)
        if commit is None:
            raise AccessDenied(OTHER_COMMIT)
        if certificate.expires <= self._clock():
            raise AccessDenied("the certificate of this client has expired")
        peer = transport.get_extra_info("peername")
        return _SwarmClient(commit, str(peer[0]) if isinstance(peer, tuple) else "", certificate.serial)


class PrivateSource:
    """The source of this node. It listens from the first snapshot that is offered on, or `listen`, until its context
    ends. `address` is that of the node's other sources; `pace` and `sent` are shared with them."""

    def __init__(
        self,
        cache: HubCache,
        address: SourceAddress,
        settings: Settings,
        pace: Pace,
        sent: SentBytes,
        *,
        grace: float,
        note: Callable[[str], None],
        traffic: Traffic | None = None,
    ) -> None:
        self._address = address
        self._settings = settings
        self._admission = MemberAdmission()
        self._library = SeededLibrary(PublishedCache(cache))
        access, http = EndpointAccess(self._admission), settings.http
        self._app = hub_endpoint(
            cache, library=self._library, pace=pace, http=http.unpaced, access=access, leaves=LeafHashes(pace)
        )
        self._app.middlewares.insert(0, sent.middleware())
        self._app.on_response_prepare.append(self._admission.end_before_expiry)
        if traffic is not None:
            traffic.watch(self._app, "private_source")
        self._grace = grace
        self._note = note
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._url = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def listen(self) -> None:
        """Return once members can connect. Raises LocalResource."""
        async with self._opening:
            if not self._url:
                host, http = self._address.peer.host, self._settings.http
                port = self._settings.private.source_port
                port = free_port(host, PRIVATE_SOURCE_PORT) if port is None else port
                guard, bounds = RequestGuard.of(http, secured=True, forms=True), limits.connections(http)
                tls = server_of(self._admission.tls_of)
                self._url = await self._stack.enter_async_context(
                    serving(
                        *(self._app, host, port),
                        guard=guard,
                        grace=self._grace,
                        limits=bounds,
                        tls=tls,
                        note=self._note,
                    )
                )

    @asynccontextmanager
    async def offering(self, manifest: Manifest, membership: SwarmMembership) -> AsyncIterator[None]:
        """Serve the files of `manifest`, all of which are in the cache, to members, while the context lasts."""
        await self.listen()
        key, members = (manifest.repo, manifest.commit), self._admission.members
        members[manifest.commit] = membership
        self._library.seeded.add(key)
        try:
            with membership.watched(self._admission.judge):
                yield
        finally:
            self._library.seeded.discard(key)
            if members.get(manifest.commit) is membership:
                del members[manifest.commit]
            self._admission.judge()

    def offers(self, manifest: Manifest) -> bool:
        """Whether the snapshot is offered here."""
        return (manifest.repo, manifest.commit) in self._library.seeded

    def source(self, coordinator: str, manifest: Manifest) -> Source:
        """The source of an offered snapshot, as clients of `coordinator` reach it. Blocks."""
        port = self._admission.members[manifest.commit].port
        return self._address.source(self._url, coordinator, port=port)


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
