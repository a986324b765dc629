"""The seeder role: a coordinator, and one snapshot seeded beside it."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from p2pmodel.domain.addresses import ListenAddress
from p2pmodel.node.coordinators import announce_url, keep_published, publish
from p2pmodel.node.progress import Reporter
from p2pmodel.node.seeding import Seeded, Seeding, SeedRequest
from p2pmodel.node.sources import engine_of
from p2pmodel.node.tasks import companions
from p2pmodel.service.catalog import Catalog
from p2pmodel.service.coordinator import coordinator_app
from p2pmodel.service.publication import read_publication
from p2pmodel.service.server import serving
from p2pmodel.service.tracker import Tracker
from p2pmodel.settings import Settings


@dataclass(frozen=True, slots=True)
class CoordinatorRole:
    """Where this seeder's own tracker and catalog listen, under which URL others reach them, and their token."""

    listen: ListenAddress
    public_url: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """Where a seeder can be reached: its coordinator's URL, the token in it masked, and its address for peers."""

    coordinator: str
    peer: ListenAddress


class Seeder:
    """One run of `p2pmodel seed`. The snapshot's torrents name this coordinator and the configured ones."""

    def __init__(self, request: SeedRequest, settings: Settings, reporter: Reporter) -> None:
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._seeding = Seeding(request, settings, reporter)
        ref = request.ref
        self._refs = () if ref.pinned else (ref.revision,)

    async def build(self) -> Seeded:
        """Mirror, verify, build, publish to the configured coordinators, and be done."""
        seeded = await self._seeding.prepare([announce_url(url) for url in self._settings.coordinators])
        for url in self._settings.coordinators:
            for raw in seeded.torrents.values():
                await publish(url, raw, self._refs)
        return seeded

    async def run(self, role: CoordinatorRole, on_ready: Callable[[Seeded, Served], None]) -> None:
        """Seed until cancelled; `on_ready` is called once everything is served."""
        catalog = Catalog()
        async with AsyncExitStack() as stack:
            app = coordinator_app(Tracker(), catalog, token=role.token)
            bound = await stack.enter_async_context(serving(app, role.listen.host, role.listen.port))
            # Before the work of hours, not after it: its port may be taken.
            engine = await stack.enter_async_context(engine_of(self._settings))
            base = role.public_url or bound
            url, shown = (f"{base}/{role.token}", f"{base}/<token>") if role.token else (base, base)
            seeded = await self._seeding.prepare([announce_url(u) for u in (url, *self._settings.coordinators)])
            for raw in seeded.torrents.values():
                await catalog.publish(read_publication(raw), self._refs)
            async with companions() as start:
                for raw in seeded.torrents.values():
                    start(keep_published(self._settings.coordinators, raw, self._refs, on_note=self._reporter.note))
                served = Served(shown, ListenAddress(*engine.address))
                await self._seeding.serve(seeded, engine, lambda: on_ready(seeded, served))
