"""The seeder role: a coordinator, and one snapshot seeded to the swarm and over HTTP to leaseholders."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

from aiohttp import web

from p2pmodel.config.settings import HttpSettings, Settings
from p2pmodel.coordinator.client.publishing import keep_published, publish
from p2pmodel.coordinator.client.urls import announce_url
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog import Catalog
from p2pmodel.coordinator.server.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.sources import Source, Sources
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.core.pace import Pace
from p2pmodel.core.tasks import companions
from p2pmodel.core.views import RateLimits
from p2pmodel.http import limits
from p2pmodel.http.access import RequestGuard
from p2pmodel.http.sent_bytes import SentBytes
from p2pmodel.http.server import serving
from p2pmodel.node.backends import engine_of
from p2pmodel.node.bandwidth import SharedLimits
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.seed.seed import SeedRequest, SeedResult, SeedRun
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.library import SeededLibrary
from p2pmodel.service.hub.published_snapshots import PublishedCache
from p2pmodel.store.cache import HubCache
from p2pmodel.store.scrub import Scrubber

SOURCE = "/source"
"""Path of the HTTP source for leaseholders, below the coordinator's URL without its token."""


@dataclass(frozen=True, slots=True)
class CoordinatorRole:
    """The coordinator of a seeder: its address, the URL that other machines use, and its token."""

    listen: ListenAddress
    public_url: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class SeederAddresses:
    """The addresses of a running seeder: its coordinator's URL with the token masked, and its address for peers."""

    coordinator: str
    peer: ListenAddress


class Seeder:
    """One run of `p2pmodel seed`. The snapshot's torrents name this coordinator and the configured ones."""

    def __init__(self, request: SeedRequest, settings: Settings, reporter: Reporter) -> None:
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._seeding = SeedRun(request, settings, reporter)
        ref = request.ref
        self._refs = () if ref.pinned else (ref.revision,)

    async def build(self) -> SeedResult:
        """Mirror and verify the snapshot, build its torrents, and publish them to the configured coordinators."""
        seeded = await self._seeding.prepare([announce_url(url) for url in self._settings.coordinators])
        for url in self._settings.coordinators:
            for raw in seeded.torrents.values():
                await publish(url, raw, self._refs)
        return seeded

    async def run(self, role: CoordinatorRole, on_ready: Callable[[SeedResult, SeederAddresses], None]) -> None:
        """Seed until cancelled; `on_ready` is called once everything is served."""
        catalog, sources = Catalog(), Sources(time.monotonic)
        cache = HubCache(self._settings.cache_dir)
        library, sent = SeededLibrary(PublishedCache(cache)), SentBytes()
        async with AsyncExitStack() as stack:
            app = coordinator_app(
                Tracker(), catalog, token=role.token, sources=sources, origin_budget=self._settings.swarm.origin_budget
            )
            swarm, pace = self._settings.swarm, Pace()  # SharedLimits sets its rate below
            app.add_subapp(SOURCE, _source(cache, library, sent, pace, token=role.token, http=self._settings.http))
            bound = await stack.enter_async_context(self._serving(app, role))
            # Before the mirroring, which may take hours: the engine's port may be taken.
            engine = await stack.enter_async_context(engine_of(self._settings))
            base = role.public_url or bound
            url, shown = (f"{base}/{role.token}", f"{base}/<token>") if role.token else (base, base)
            seeded = await self._seeding.prepare([announce_url(u) for u in (url, *self._settings.coordinators)])
            library.seeded.add((seeded.manifest.repo, seeded.manifest.commit))
            peer, token, zone = str(ListenAddress(*engine.address)), role.token or "", self._settings.swarm.zone
            for raw in seeded.torrents.values():
                publication = read_publication(raw)
                await catalog.publish(publication, self._refs)
                sources.add(publication.info_hash, Source(SOURCE, token, peer, zone), for_ever=True)
            source = Source(base + SOURCE, token, peer, zone)
            async with companions() as start:
                rates = RateLimits(swarm.upload_limit, swarm.download_limit)
                start(SharedLimits(engine, rates, upload=pace).run())
                start(self._scrub(cache))
                for raw in seeded.torrents.values():
                    start(
                        keep_published(
                            self._settings.coordinators, raw, self._refs, source=source, on_note=self._reporter.note
                        )
                    )
                served = SeederAddresses(shown, ListenAddress(*engine.address))
                await self._seeding.serve(seeded, engine, lambda: on_ready(seeded, served), sent)

    async def _scrub(self, cache: HubCache) -> None:
        if self._settings.state_dir is not None:
            folder = self._settings.state_dir / "scrub"
            await Scrubber(cache, self._settings.store, folder, note=self._reporter.note).run()

    def _serving(self, app: web.Application, role: CoordinatorRole) -> AbstractAsyncContextManager[str]:
        http = self._settings.http
        guard = RequestGuard.of(http, secured=role.token is not None, forms=True, url=role.public_url)
        return serving(
            *(app, role.listen.host, role.listen.port),
            guard=guard,
            limits=limits.connections(http),
            note=self._reporter.note,
        )


def _source(
    cache: HubCache, library: SeededLibrary, sent: SentBytes, pace: Pace, *, token: str | None, http: HttpSettings
) -> web.Application:
    """The HTTP source for leaseholders."""
    app = hub_endpoint(cache, token=token, library=library, pace=pace, http=http.unpaced)
    app.middlewares.insert(0, sent.middleware())
    return app
