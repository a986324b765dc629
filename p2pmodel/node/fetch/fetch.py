"""The fetch use case: find a snapshot, bring it here through the swarm or from the mirrors alone, serve it."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.assembly_messages import assembly_digest, manifest_text
from p2pmodel.coordinator.client.publishing import report_wrong
from p2pmodel.coordinator.client.urls import announce_url, in_zone
from p2pmodel.core.manifest import Manifest, ManifestFile, Selection
from p2pmodel.core.pace import Pace
from p2pmodel.core.progress import Timings
from p2pmodel.core.tasks import companions
from p2pmodel.core.views import RateLimits
from p2pmodel.errors import EntryNotFound, WrongTorrent
from p2pmodel.node.assembly.assembly import AssemblyDownload, AssemblyOutcome
from p2pmodel.node.backends import engine_of, mirrors_with_webseeds
from p2pmodel.node.bandwidth import SharedLimits
from p2pmodel.node.fetch.download import Download
from p2pmodel.node.fetch.plan import DownloadPlan
from p2pmodel.node.origin_registry import OriginRegistry
from p2pmodel.node.reporter import PhaseClock, Progress, Reporter
from p2pmodel.node.seed.web_seed import WebSeed
from p2pmodel.node.snapshot.lock import one_at_a_time
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy
from p2pmodel.node.snapshot.resolve import ResolvedTarget, Target, TorrentTarget, find_reference, find_torrent
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.space import check_writable
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.torrents import Metainfo

FOR_EVER = math.inf
MEETING_AFTER_ASSEMBLY = 5.0
"""Seconds in which those who pulled a snapshot together have met again in its swarm."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What to fetch and how long to serve it afterwards (`seed_seconds`, `seed_ratio`; None: no such bound).

    With neither bound the fetch ends when the snapshot is ready; `FOR_EVER` has no end. `also` selects further files.
    `peers` are connected to beside the trackers'.
    """

    target: Target
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    also: tuple[Selection, ...] = ()
    seed_seconds: float | None = None
    seed_ratio: float | None = None
    peers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class FetchResult:
    """A snapshot that is ready, and where its bytes came from."""

    manifest: Manifest
    path: Path
    timings: Timings
    progress: Progress


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What all fetches of one long-lived node share: an engine that runs, the cache with its locks, and what of their
    files can be read already."""

    engine: Engine
    cache: HubCache
    growing: GrowingFiles = field(default_factory=GrowingFiles)
    origins: OriginRegistry = field(default_factory=OriginRegistry)
    """Those of its fetches, to look at."""
    pace: Pace = field(default_factory=Pace)
    """Bounds what its fetches pull from seeders over HTTP, all together."""
    web_seed: WebSeed | None = None
    """Where what is complete is pulled from under leases."""

    def shared(self, limits: RateLimits) -> SharedLimits:
        """What has all of it obey `limits`."""
        return SharedLimits(
            self.engine, limits, upload=self.web_seed.pace if self.web_seed else None, download=self.pace
        )


class Fetch:
    """One fetch. `on_ready` is called once, when the snapshot is complete and visible.

    `home` is the node it is a part of; without one it starts an engine of its own when it needs one.
    """

    def __init__(
        self, request: FetchRequest, settings: Settings, reporter: Reporter, *, home: NodeContext | None = None
    ) -> None:
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._home = home
        self._cache = home.cache if home else HubCache(settings.cache_dir)
        self._growing = home.growing if home else GrowingFiles()
        self._began = time.monotonic()
        self._clock = PhaseClock("finding")
        self._latest = Progress("finding")
        self._watched = Reporter(self._see, reporter.note, reporter.insight)

    async def run(self, on_ready: Callable[[FetchResult], None], found: ResolvedTarget | None = None) -> None:
        """Fetch, call `on_ready`, then serve as long as the request says. `found` is what `find` said."""
        await asyncio.to_thread(check_writable, self._settings.cache_dir)
        self._watched.progress(Progress("finding"))
        async with AsyncExitStack() as stack:
            engine = self._engine(stack)
            found = found or await self._find(engine)
            if found.metainfo is not None:
                await self._from_swarm(found, found.metainfo, engine, on_ready)
            elif found.coordinators and self._may_share:
                await self._from_assembly(found, engine, on_ready)
            else:
                await self._from_mirrors(found, on_ready)

    async def find(self) -> ResolvedTarget:
        """What the request's target is, and who has it."""
        async with AsyncExitStack() as stack:
            return await self._find(self._engine(stack))

    async def plan(self) -> tuple[Manifest, list[ManifestFile]]:
        """What `run` would bring here: the manifest, and the files that are not in the cache yet."""
        found = await self.find()
        repo = self._cache.repo(found.manifest.repo)
        return found.manifest, await asyncio.to_thread(repo.missing, self._selected(found.manifest))

    def _engine(self, stack: AsyncExitStack) -> "_LazyEngine":
        return _LazyEngine(self._home.engine, None) if self._home else _LazyEngine(engine_of(self._settings), stack)

    @property
    def _serves(self) -> bool:
        return bool(self._request.seed_seconds or self._request.seed_ratio)

    async def _find(self, engine: "_LazyEngine") -> ResolvedTarget:
        target = self._request.target
        if isinstance(target, TorrentTarget):
            peers = self._request.peers
            return await find_torrent(target, self._settings, engine.started, self._watched, peers=peers)
        async with self._origin(None) as origin:
            return await find_reference(
                target,
                self._settings,
                self._cache,
                origin,
                self._watched,
                to_serve=self._serves,
                to_share=self._may_share,
            )

    @property
    def _may_share(self) -> bool:
        """Whether this node would pull a snapshot that has no torrent together with others: they need all of it."""
        return not (self._settings.offline or self._request.include or self._request.exclude)

    async def _from_assembly(
        self, found: ResolvedTarget, engine: "_LazyEngine", on_ready: Callable[[FetchResult], None]
    ) -> None:
        repo = self._cache.repo(found.manifest.repo)
        async with self._origin(None) as origin, one_at_a_time(repo, found.manifest.commit, self._watched):
            assert origin is not None
            assembly = AssemblyDownload(
                found.manifest,
                found.refs,
                repo=repo,
                origin=origin,
                coordinators=found.coordinators,
                engine=engine.started,
                settings=self._settings.swarm,
                reporter=self._watched,
                growing=self._growing,
            )
            outcome = await assembly.run()
        if outcome.metainfo and not (outcome.complete and not self._serves):
            await self._from_swarm(found, outcome.metainfo, engine, on_ready, outcome)
        elif outcome.complete:
            on_ready(self._fetched(found.manifest))
        else:
            await self._from_mirrors(found, on_ready, outcome)

    async def _from_mirrors(
        self, found: ResolvedTarget, on_ready: Callable[[FetchResult], None], before: AssemblyOutcome | None = None
    ) -> None:
        repo = self._cache.repo(found.manifest.repo)
        files = self._selected(found.manifest)
        async with self._origin(None) as origin, one_at_a_time(repo, found.manifest.commit, self._watched):
            mirroring = MirrorCopy(
                origin,
                repo,
                found.manifest,
                self._watched,
                pulled_before=before.pulled_bytes if before else 0,
                traded_before=before.traded_bytes if before else 0,
                growing=self._growing,
            )
            await mirroring.run(files, found.refs)
        on_ready(self._fetched(found.manifest))
        if self._serves:
            self._reporter.note(
                "nobody seeds this snapshot: there is no swarm to serve it to ('p2pmodel seed' makes one)"
            )

    async def _from_swarm(
        self,
        found: ResolvedTarget,
        metainfo: Metainfo,
        engine: "_LazyEngine",
        on_ready: Callable[[FetchResult], None],
        assembled: AssemblyOutcome | None = None,
    ) -> None:
        """`assembled`: the assembly that made the torrent just now, if any."""
        try:
            await self._transfer(found, metainfo, await engine.started(), on_ready, assembled)
        except WrongTorrent as error:
            coordinators = _leasing(metainfo, self._settings)
            name = assembly_digest(manifest_text(metainfo.manifest))
            timeout = self._settings.swarm.coordinator_timeout
            withdrawn = await report_wrong(coordinators, name, metainfo.info_hash, timeout)
            if self._settings.offline or (assembled is None and not withdrawn):
                raise
            self._reporter.note(
                f"{error.what}: no seeder has confirmed the torrent; downloading from the mirrors alone"
            )
            await self._from_mirrors(found, on_ready)

    async def _transfer(
        self,
        found: ResolvedTarget,
        metainfo: Metainfo,
        engine: Engine,
        on_ready: Callable[[FetchResult], None],
        assembled: AssemblyOutcome | None,
    ) -> None:
        repo = self._cache.repo(found.manifest.repo)
        async with (
            self._origin(metainfo) as origin,
            self._paced(engine) as pace,
            Download(
                self._plan(found, metainfo, assembled, pace),
                engine=engine,
                repo=repo,
                origin=origin,
                reporter=self._watched,
                growing=self._growing,
                web_seed=self._home.web_seed if self._home else None,
            ) as transfer,
        ):
            async with one_at_a_time(repo, found.manifest.commit, self._watched):
                await transfer.download()
            on_ready(self._fetched(found.manifest))
            if self._serves:
                await transfer.seed(seconds=self._request.seed_seconds, ratio=self._request.seed_ratio)
            elif assembled is not None:
                await transfer.hand_on()

    def _plan(
        self, found: ResolvedTarget, metainfo: Metainfo, assembled: AssemblyOutcome | None, pace: Pace
    ) -> DownloadPlan:
        chosen = set(self._selected(found.manifest))
        trackers = dict.fromkeys((*metainfo.trackers, *map(announce_url, self._settings.coordinators)))
        return DownloadPlan(
            metainfo=metainfo,
            files=frozenset(i for i, file in enumerate(found.manifest.files) if file in chosen),
            refs=found.refs,
            trackers=tuple(in_zone(url, self._settings.swarm.zone) for url in trackers),
            peers=self._request.peers,
            coordinators=_leasing(metainfo, self._settings),
            coordinator_timeout=self._settings.swarm.coordinator_timeout,
            origin_settings=self._settings.origin,
            zone=self._settings.swarm.zone,
            pace=pace,
            peer_timeout=self._settings.swarm.peer_timeout,
            stall_timeout=self._settings.swarm.stall_timeout,
            mirrored=assembled.pulled if assembled else frozenset(),
            traded=assembled.traded if assembled else frozenset(),
            meeting=MEETING_AFTER_ASSEMBLY if assembled else None,
        )

    @asynccontextmanager
    async def _paced(self, engine: Engine) -> AsyncIterator[Pace]:
        """What bounds the bytes that come over HTTP, together with those that `engine` brings."""
        if self._home:
            yield self._home.pace
            return
        swarm = self._settings.swarm
        pace = Pace(swarm.download_limit)
        async with companions() as start:
            start(SharedLimits(engine, RateLimits(swarm.upload_limit, swarm.download_limit), download=pace).run())
            yield pace

    @asynccontextmanager
    async def _origin(self, metainfo: Metainfo | None) -> AsyncIterator[Origin | None]:
        """The mirrors, with those that the torrent names; None where HF_HUB_OFFLINE forbids them."""
        if self._settings.offline:
            yield None
            return
        mirrors = mirrors_with_webseeds(self._settings.mirrors, metainfo)
        origins = self._home.origins if self._home else OriginRegistry()
        async with Origin(mirrors, self._settings.origin, on_note=self._reporter.note) as origin:
            with origins.watching(origin):
                yield origin

    def _selected(self, manifest: Manifest) -> tuple[ManifestFile, ...]:
        request = self._request
        return selected(manifest, (Selection(request.include, request.exclude), *request.also))

    def _fetched(self, manifest: Manifest) -> FetchResult:
        path = self._cache.repo(manifest.repo).snapshot(manifest.commit)
        spent = self._clock.seconds
        timings = Timings(
            total=time.monotonic() - self._began,
            find=spent("finding"),
            download=spent("downloading", "mirroring"),
            verify=spent("checking", "verifying", "publishing"),
        )
        return FetchResult(manifest, path, timings, self._latest)

    def _see(self, progress: Progress) -> None:
        self._latest = progress
        self._clock.enter(progress.phase)
        self._reporter.progress(progress)


def selected(manifest: Manifest, selections: Sequence[Selection]) -> tuple[ManifestFile, ...]:
    """Files that any of `selections` takes. Raises EntryNotFound if these are none."""
    files = manifest.select_any(selections)
    if not files and (manifest.files or any(selection.include for selection in selections)):
        raise EntryNotFound(
            f"no file of {manifest.repo} matches --include/--exclude", hint="check the patterns with --dry-run"
        )
    return files


def _leasing(metainfo: Metainfo, settings: Settings) -> tuple[str, ...]:
    """Base URLs of the coordinators of a torrent: those configured, then those whose trackers it names."""
    announced = [url.removesuffix("/announce") for url in metainfo.trackers if url.endswith("/announce")]
    return tuple(dict.fromkeys(url.rstrip("/") for url in (*settings.coordinators, *announced)))


class _LazyEngine:
    """An engine that starts when it is first needed: a fetch from the mirrors alone opens no port for peers.

    Without a `stack` that is to end it, it runs already.
    """

    def __init__(self, engine: Engine, stack: AsyncExitStack | None) -> None:
        self._engine = engine
        self._stack = stack
        self._starting = asyncio.Lock()

    async def started(self) -> Engine:
        """The engine, running until the stack closes."""
        async with self._starting:
            if self._stack is not None:
                await self._stack.enter_async_context(self._engine)
                self._stack = None
        return self._engine
