"""Make a node's sources from its settings, the engine and the mirrors, and track its open origins."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Self

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.config.sections.swarm import LOOPBACK
from p2pmodel.config.settings import Settings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.core.pace import Pace
from p2pmodel.core.tasks import companions
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.bandwidth import SharedLimits
from p2pmodel.node.host_stats import link_speed
from p2pmodel.node.local_address import PRIVATE_PORT, engine_count, free_port
from p2pmodel.node.reporter import Reporter
from p2pmodel.origin.mirrors.mirror import DiscoveredMirror, MirrorCounters, MirrorStatus
from p2pmodel.origin.origin import Origin
from p2pmodel.swarm.engine import Engine, EngineSettings
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.split.engine import SplitEngine
from p2pmodel.swarm.torrents import Metainfo

FRESH = 60.0
"""Seconds without a request after which the estimates of an open origin may be older than the recorded ones."""


def engine_of(settings: Settings) -> Engine:
    """The engine of this node; not started. It listens on loopback unless `swarm.listen` is set."""
    address, private = ListenAddress.parse(settings.swarm.listen or LOOPBACK), settings.private.port
    found = EngineSettings(
        host=address.host,
        port=address.port,
        upload_limit=settings.swarm.upload_limit,
        download_limit=settings.swarm.download_limit,
        private_port=free_port(address.host, PRIVATE_PORT) if private is None else private,
        zone=settings.swarm.zone,
        peer_timeout=settings.swarm.peer_timeout,
        ca_file=settings.coordinator_ca_file,
    )
    count = engine_count(settings.swarm, cores=len(os.sched_getaffinity(0)), link=link_speed())
    return LibtorrentEngine(found) if count == 1 else SplitEngine(found, count, LibtorrentEngine)


class LazyEngine:
    """An engine that starts when it is first needed: a fetch from the mirrors alone opens no port for peers.

    It ends with `stack`; without one it runs already. `limits` keep its rate limits from its start on.
    """

    def __init__(self, engine: Engine, stack: AsyncExitStack | None, limits: SharedLimits | None = None) -> None:
        self._engine = engine
        self._stack = stack
        self._limits = limits
        self._starting = asyncio.Lock()

    async def started(self) -> Engine:
        """The engine, running until the stack closes."""
        async with self._starting:
            if self._stack is not None:
                await self._stack.enter_async_context(self._engine)
                if self._limits is not None:
                    start = await self._stack.enter_async_context(companions())
                    start(self._limits.run())
                self._stack = None
        return self._engine


def mirrors_with_webseeds(
    mirrors: Sequence[MirrorSettings], metainfo: Metainfo | None, egress: Egress = PUBLIC
) -> list[MirrorSettings]:
    """The configured mirrors, then those that the torrent lists as web seeds, which get no tokens. `egress` is the rule
    for their addresses."""
    found = list(mirrors)
    known = {mirror.endpoint for mirror in found}
    for endpoint in endpoints_of(metainfo) if metainfo else ():
        if endpoint not in known:
            known.add(endpoint)
            found.append(DiscoveredMirror(name=f"webseed {endpoint}", endpoint=endpoint, egress=egress))
    return found


def endpoints_of(metainfo: Metainfo) -> list[str]:
    """Endpoints of a torrent's web seed URLs `{endpoint}/{repo}/resolve/[{commit}/]`."""
    tail = f"/{metainfo.manifest.repo}/resolve/"
    found = []
    for url in metainfo.webseeds:
        endpoint, separator, _ = url.partition(tail)
        if separator:
            found.append(endpoint)
    return found


class OriginRegistry:
    """The open origins of a node's fetches, and the totals of the closed ones: each fetch has its own origin."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._open: list[Origin] = []
        self._closed: dict[str, MirrorCounters] = {}

    @contextmanager
    def watching(self, origin: Origin) -> Iterator[None]:
        """Track `origin` while the context lasts."""
        self._open.append(origin)
        try:
            yield
        finally:
            self._open.remove(origin)
            self._closed = _added(self._closed, origin.counters())

    def statuses(self) -> Mapping[str, MirrorStatus]:
        """By endpoint, the status of each mirror at the origin that used mirrors last; without idle origins."""
        fresh = [origin for origin in self._open if self._now() - origin.active_at < FRESH]
        ordered = sorted(fresh, key=lambda origin: origin.active_at)
        return {status.endpoint: status for origin in ordered for status in origin.statuses()}

    def counters(self) -> Mapping[str, MirrorCounters]:
        """By name, the totals of each mirror over all origins."""
        found = self._closed
        for origin in self._open:
            found = _added(found, origin.counters())
        return found


class FetchOrigin:
    """The mirrors of one fetch. `async with` closes them.

    All steps of the fetch share one connection pool and one state of the mirrors. A torrent with further web seeds
    starts new ones. `pace` bounds what the mirrors send together.
    """

    def __init__(
        self,
        settings: Settings,
        registry: OriginRegistry,
        reporter: Reporter,
        http: HttpPool | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._settings = settings
        self._http = http
        self._pace = pace
        self._registry = registry
        self._reporter = reporter
        self._stack = AsyncExitStack()
        self._mirrors: list[MirrorSettings] = []
        self._origin: Origin | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def opened(self, metainfo: Metainfo | None = None) -> Origin | None:
        """The configured mirrors and the web seeds of the torrent; None where HF_HUB_OFFLINE forbids them.

        A set of other mirrors than before closes the previous one.
        """
        if self._settings.offline:
            return None
        mirrors = mirrors_with_webseeds(self._settings.mirrors, metainfo, self._settings.origin.egress)
        if self._origin is None or mirrors != self._mirrors:
            await self._close()
            origin = Origin(
                mirrors, self._settings.origin, on_note=self._reporter.note, http=self._http, pace=self._pace
            )
            self._origin, self._mirrors = await self._stack.enter_async_context(origin), mirrors
            self._stack.enter_context(self._registry.watching(origin))
        return self._origin

    async def _close(self) -> None:
        self._origin = None
        await self._stack.aclose()


def _added(before: Mapping[str, MirrorCounters], more: Mapping[str, MirrorCounters]) -> dict[str, MirrorCounters]:
    return {name: before.get(name, MirrorCounters()) + more.get(name, MirrorCounters()) for name in {**before, **more}}
