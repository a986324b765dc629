"""The seeder role: a coordinator, and one snapshot seeded to the swarm and over HTTP to leaseholders."""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from p2pmodel.config.sections.coordinator import TrackerSettings
from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator, configured, files_of
from p2pmodel.coordinator.client.publishing import keep_published, publish
from p2pmodel.coordinator.server.app import PublicAddress, coordinator_app
from p2pmodel.coordinator.server.catalog.aliases import Aliases
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.catalog.signatures import SignatureStore
from p2pmodel.coordinator.server.credentials import LOCAL
from p2pmodel.coordinator.server.private_swarms import PrivateSwarms
from p2pmodel.coordinator.server.probes import ConnectionProbes
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tokens import announce_url
from p2pmodel.coordinator.tracker.sources import Source, Sources
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.pace import Pace
from p2pmodel.core.progress.views import RateLimits
from p2pmodel.core.tasks import companions
from p2pmodel.errors import InvalidInput
from p2pmodel.http.exposition import SentBytes
from p2pmodel.node.backends import engine_of
from p2pmodel.node.bandwidth import SharedLimits
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.job import NodeContext
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.local_address import local_address, peer_addresses
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.seed.seed import SeedRequest, SeedResult, SeedRun
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.leaf_hashes import LeafHashes
from p2pmodel.service.hub.library import SeededLibrary
from p2pmodel.service.hub.published_snapshots import PublishedCache
from p2pmodel.service.roles.client_access import authoriser_of, clients_of
from p2pmodel.service.roles.coordinator import CoordinatorRole, serving_coordinator
from p2pmodel.service.roles.own_address import SourceAddress
from p2pmodel.service.roles.private_source import PrivateOffer, PrivateSource
from p2pmodel.service.roles.reload import LIMITS, SCRUB, Reload
from p2pmodel.store.cache import HubCache
from p2pmodel.store.scrub import Scrubber
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.metainfo import Format
from p2pmodel.trust.content_policy import ContentPolicy

SOURCE = "/source"
"""Path of the HTTP source for leaseholders, below the coordinator's URL."""
GRACE = 0.6
"""Grace of the source of private snapshots: leaseholders ask other sources."""


@dataclass(frozen=True, slots=True)
class SeederAddresses:
    """The addresses of a running seeder: its coordinator's URLs, the preferred one first, and its address for peers.

    `publish_token_file` is the file with the token that the coordinator made for other seeders of this user.
    """

    coordinators: tuple[str, ...]
    peer: ListenAddress
    publish_token_file: Path | None = None

    @property
    def coordinator(self) -> str:
        """The preferred URL of its coordinator."""
        return self.coordinators[0]


class Seeder:
    """One run of `p2pmodel seed`. The snapshot's torrents name this coordinator and the configured ones."""

    def __init__(
        self, request: SeedRequest, settings: Settings, reporter: Reporter, *, reload: Reload | None = None
    ) -> None:
        self._reload = reload
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._seeding = SeedRun(request, settings, reporter)
        ref = request.ref
        self._refs = () if ref.pinned else (ref.revision,)
        self._coordinators = configured(settings)

    async def build(self) -> SeedResult:
        """Mirror and verify the snapshot, build its torrents, and publish them to the configured coordinators."""
        await asyncio.to_thread(self._seeding.authority)
        await self._assemble(None)
        seeded = await self._seeding.prepare([each.announce_url for each in self._coordinators])
        for coordinator in self._coordinators:
            for form, raw in seeded.torrents.items():
                await publish(coordinator, raw, self._refs, signatures=seeded.signatures[form])
        return seeded

    async def run(self, role: CoordinatorRole, on_ready: Callable[[SeedResult, SeederAddresses], None]) -> None:
        """Seed until cancelled; `on_ready` is called once everything is served."""
        quotas = self._settings.quotas
        catalog, signatures = Catalog(max_owner=quotas.torrents_per_publisher), SignatureStore()
        sources = Sources(time.monotonic, max_address=quotas.sources_per_address)
        cache = HubCache(self._settings.cache_dir, self._settings.state_dir)
        library, sent = SeededLibrary(PublishedCache(cache)), SentBytes()
        own_swarms = await asyncio.to_thread(self._own_swarms, catalog, role.listen.port)
        self._check_private(role, await asyncio.to_thread(self._seeding.authority))
        swarm, pace = self._settings.swarm, Pace()  # SharedLimits sets its rate below
        token, address = secrets.token_urlsafe(24), PublicAddress()
        async with AsyncExitStack() as stack:
            rights = authoriser_of(self._settings, self._reload)
            clients = await stack.enter_async_context(clients_of(self._settings, f"seed-{role.listen.port}", rights))
            app = coordinator_app(
                _tracker(self._settings.tracker),
                catalog,
                credentials=role.credentials,
                sources=sources,
                origin_budget=swarm.origin_budget,
                address=address,
                quotas=quotas,
                signatures=signatures,
                certificates=role.requires_certificates,
                private=own_swarms,
                clients=clients,
                aliases=Aliases(catalog, note=self._reporter.note),
            )
            app.add_subapp(SOURCE, _source(cache, library, sent, pace, token=token, http=self._settings.http))
            coordinator = await stack.enter_async_context(
                serving_coordinator(app, role, address, self._settings, note=self._reporter.note)
            )
            # Before the mirroring, which may take hours: the engine's port may be taken.
            engine = await stack.enter_async_context(engine_of(self._settings))
            await self._assemble(engine)
            own = [announce_url(url, role.credentials.member or "") for url in coordinator.urls]
            seeded = await self._seeding.prepare([*own, *(each.announce_url for each in self._coordinators)])
            bound = ListenAddress(*engine.address)
            peer = next((each.at(bound.port) for each in swarm.advertised), bound)
            for form, raw in seeded.torrents.items():
                await signatures.publish(LOCAL, *seeded.signatures[form])
                await catalog.publish(read_publication(raw), self._refs)
            _list(seeded, library, sources, Source(SOURCE, token, str(peer), swarm.zone))
            source = _OwnSource(coordinator.urls, role.listen, token=token, peer=peer, zone=swarm.zone)
            own_source = await stack.enter_async_context(self._private_source(cache, bound, pace, sent))
            offer = PrivateOffer(own_source, sources, coordinator.urls, self._coordinators, self._reporter.note)
            async with companions() as start:
                start(self._shared_limits(engine, pace, own_swarms).run())
                start(self._scrub(cache))
                for form in seeded.torrents:
                    start(self._keep_published(seeded, form, None if seeded.private else source))
                served = SeederAddresses(coordinator.urls, peer_addresses(swarm, bound)[0], coordinator.token_file)
                await self._seeding.serve(
                    seeded,
                    engine,
                    lambda: on_ready(seeded, served),
                    sent,
                    coordinators=self._admitting(role, coordinator.url),
                    offering=offer.offering,
                )

    def _own_swarms(self, catalog: Catalog, port: int) -> PrivateSwarms:
        """The private swarms of its coordinator. A free port is another one after a restart, with other nodes."""
        folder = self._settings.state_dir / "private-swarms" / str(port) if self._settings.state_dir and port else None
        return PrivateSwarms.of(catalog, self._settings.private, folder=folder, note=self._reporter.note)

    async def _assemble(self, engine: Engine | None) -> None:
        """If asked to, fetch the snapshot as a node does: from peers, or in an assembly with other nodes. A fetch of
        another process into the same cache is waited for. `prepare` finds the files there, and compares them with the
        mirrors' list."""
        if not self._request.assemble:
            return
        settings, limits = self._settings, self._settings.swarm
        if settings.trust.signing_key is not None:  # a publisher that signs vouches itself
            settings = settings.model_copy(update={"trust": settings.trust.model_copy(update={"rules": ()})})
        async with companions() as start:
            context = None
            if engine is not None:
                cache = HubCache(settings.cache_dir, settings.state_dir, policy=ContentPolicy(settings.contents.rules))
                context = NodeContext(engine, cache, pace=Pace(limits.download_limit))
                start(context.shared(RateLimits(limits.upload_limit, limits.download_limit)).run())
            await Fetch(FetchRequest(self._request.ref), settings, self._reporter, context=context).run(lambda _: None)

    def _private_source(self, cache: HubCache, bound: ListenAddress, pace: Pace, sent: SentBytes) -> PrivateSource:
        address = SourceAddress(bound, self._settings.swarm.zone, self._settings.swarm.advertised)
        return PrivateSource(cache, address, self._settings, pace, sent, grace=GRACE, note=self._reporter.note)

    async def _keep_published(self, seeded: SeedResult, form: Format, source: "_OwnSource | None") -> None:
        await keep_published(
            self._coordinators,
            seeded.torrents[form],
            self._refs,
            source=source.seen_from if source else None,
            signatures=seeded.signatures[form],
            on_note=self._reporter.note,
            strict=True,
        )

    def _check_private(self, role: CoordinatorRole, authority: str | None) -> None:
        """Raise InvalidInput for a private swarm that no node could join."""
        if authority is None:
            return
        if self._settings.private.ca_key is None and not self._coordinators:
            raise InvalidInput(
                "a private swarm needs a coordinator with the key of its authority",
                hint="set private.ca_key, or name that coordinator with --coordinator",
            )
        if self._settings.private.ca_key is not None and role.credentials.member is None:
            raise InvalidInput(
                "the coordinator of a private swarm admits members alone, and has no token for them",
                hint="give --token-file",
            )

    def _admitting(self, role: CoordinatorRole, url: str) -> tuple[Coordinator, ...]:
        """The coordinators that admit this seeder to its private swarm: its own at `url`, and the configured ones."""
        if self._settings.private.ca_key is None:
            return self._coordinators
        own = Coordinator(url, role.credentials.member or "", files=files_of(self._settings))
        return (own, *self._coordinators)

    def _shared_limits(self, engine: Engine, pace: Pace, swarms: PrivateSwarms) -> SharedLimits:
        swarm = self._settings.swarm
        shared = SharedLimits(engine, RateLimits(swarm.upload_limit, swarm.download_limit), upload=pace)
        if self._reload is not None:
            self._reload.setting("private.revoked", apply=lambda now: swarms.revoke(now.private))
            self._reload.setting(
                *LIMITS,
                apply=lambda now: shared.change(upload=now.swarm.upload_limit, download=now.swarm.download_limit),
            )
        return shared

    async def _scrub(self, cache: HubCache) -> None:
        if self._settings.state_dir is not None:
            folder = self._settings.state_dir / "scrub"
            scrubber = Scrubber(cache, self._settings.store, folder, note=self._reporter.note)
            if self._reload is not None:
                self._reload.setting(*SCRUB, apply=lambda now: scrubber.change(now.store))
            await scrubber.run()


@dataclass(frozen=True, slots=True)
class _OwnSource:
    """The source of this seeder. `urls` are its coordinator's base URLs, `listen` what that listens on."""

    urls: tuple[str, ...]
    listen: ListenAddress
    token: str
    peer: ListenAddress
    zone: str

    def seen_from(self, coordinator: Coordinator) -> Source:
        """The source for clients of another coordinator. A listener on all addresses is reached at this machine's
        address of the route to it, if that is one of `urls`. Blocks."""
        url, peer = self.urls[0], self.peer
        near = local_address(coordinator.url) if self.listen.unspecified or peer.unspecified else None
        if near and self.listen.unspecified:
            url = next((each for each in self.urls if urlsplit(each).hostname == near), url)
        if peer.unspecified:
            peer = ListenAddress(near or urlsplit(url).hostname or peer.host, peer.port)
        return Source(url + SOURCE, self.token, str(peer), self.zone)


def _tracker(settings: TrackerSettings) -> Tracker:
    return Tracker(settings=settings, probes=ConnectionProbes(enabled=settings.probe_peers))


def _list(seeded: SeedResult, library: SeededLibrary, sources: Sources, source: Source) -> None:
    """Serve and name a public snapshot. A private one would go to each holder of the source's token here."""
    if not seeded.private:
        library.seeded.add((seeded.manifest.repo, seeded.manifest.commit))
        for raw in seeded.torrents.values():
            sources.add(read_publication(raw).info_hash, source, for_ever=True)


def _source(
    cache: HubCache, library: SeededLibrary, sent: SentBytes, pace: Pace, *, token: str, http: HttpSettings
) -> web.Application:
    """The HTTP source for leaseholders."""
    app = hub_endpoint(cache, token=token, library=library, pace=pace, http=http.unpaced, leaves=LeafHashes(pace))
    app.middlewares.insert(0, sent.middleware())
    return app
