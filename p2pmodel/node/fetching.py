"""The fetch use case: find a snapshot, bring it here through the swarm or from the mirrors alone, serve it."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from p2pmodel.domain.birth_messages import birth_name, manifest_text
from p2pmodel.domain.manifest import Manifest, ManifestFile, Selection
from p2pmodel.domain.progress import Timings
from p2pmodel.domain.transfers import Limits
from p2pmodel.errors import EntryNotFound, WrongTorrent
from p2pmodel.node.arriving import Arriving
from p2pmodel.node.birthing import Birthing, Outcome
from p2pmodel.node.coordinators import announce_url, in_zone, report_wrong
from p2pmodel.node.finding import Found, Target, TorrentTarget, find_reference, find_torrent
from p2pmodel.node.locking import one_at_a_time
from p2pmodel.node.mirroring import Mirroring
from p2pmodel.node.origins import Origins
from p2pmodel.node.outlet import Outlet
from p2pmodel.node.progress import PhaseClock, Progress, Reporter
from p2pmodel.node.sharing import SharedLimits
from p2pmodel.node.sources import engine_of, mirrors_with_webseeds
from p2pmodel.node.tasks import companions
from p2pmodel.node.transfer import Transfer
from p2pmodel.node.transfer_plan import TransferPlan
from p2pmodel.origin.origin import Origin
from p2pmodel.origin.pace import Pace
from p2pmodel.settings import Settings
from p2pmodel.store.cache import HubCache
from p2pmodel.store.space import check_writable
from p2pmodel.swarm.engine import Engine
from p2pmodel.swarm.torrents import Metainfo

FOR_EVER = math.inf
MEETING_OF_THE_BORN = 5.0
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
class Fetched:
    """A snapshot that is ready, and where its bytes came from."""

    manifest: Manifest
    path: Path
    timings: Timings
    progress: Progress


@dataclass(frozen=True, slots=True)
class Home:
    """What all fetches of one long-lived node share: an engine that runs, the cache with its locks, and what of their
    files can be read already."""

    engine: Engine
    cache: HubCache
    arriving: Arriving = field(default_factory=Arriving)
    origins: Origins = field(default_factory=Origins)
    """Those of its fetches, to look at."""
    pace: Pace = field(default_factory=Pace)
    """Bounds what its fetches pull from seeders over HTTP, all together."""
    outlet: Outlet | None = None
    """Where what is complete is pulled from under leases."""

    def shared(self, limits: Limits) -> SharedLimits:
        """What has all of it obey `limits`."""
        return SharedLimits(self.engine, limits, upload=self.outlet.pace if self.outlet else None, download=self.pace)


class Fetching:
    """One fetch. `on_ready` is called once, when the snapshot is complete and visible.

    `home` is the node it is a part of; without one it starts an engine of its own when it needs one.
    """

    def __init__(
        self, request: FetchRequest, settings: Settings, reporter: Reporter, *, home: Home | None = None
    ) -> None:
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._home = home
        self._cache = home.cache if home else HubCache(settings.cache_dir)
        self._arriving = home.arriving if home else Arriving()
        self._began = time.monotonic()
        self._clock = PhaseClock("finding")
        self._latest = Progress("finding")
        self._watched = Reporter(self._see, reporter.note, reporter.insight)

    async def run(self, on_ready: Callable[[Fetched], None], found: Found | None = None) -> None:
        """Fetch, call `on_ready`, then serve as long as the request says. `found` is what `find` said."""
        await asyncio.to_thread(check_writable, self._settings.cache_dir)
        self._watched.progress(Progress("finding"))
        async with AsyncExitStack() as stack:
            engine = self._engine(stack)
            found = found or await self._find(engine)
            if found.metainfo is not None:
                await self._from_swarm(found, found.metainfo, engine, on_ready)
            elif found.coordinators and self._may_share:
                await self._from_a_birth(found, engine, on_ready)
            else:
                await self._from_mirrors(found, on_ready)

    async def find(self) -> Found:
        """What the request's target is, and who has it."""
        async with AsyncExitStack() as stack:
            return await self._find(self._engine(stack))

    async def plan(self) -> tuple[Manifest, list[ManifestFile]]:
        """What `run` would bring here: the manifest, and the files that are not in the cache yet."""
        found = await self.find()
        repo = self._cache.repo(found.manifest.repo)
        return found.manifest, await asyncio.to_thread(repo.missing, self._selected(found.manifest))

    def _engine(self, stack: AsyncExitStack) -> "_OnDemand":
        return _OnDemand(self._home.engine, None) if self._home else _OnDemand(engine_of(self._settings), stack)

    @property
    def _serves(self) -> bool:
        return bool(self._request.seed_seconds or self._request.seed_ratio)

    async def _find(self, engine: "_OnDemand") -> Found:
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

    async def _from_a_birth(self, found: Found, engine: "_OnDemand", on_ready: Callable[[Fetched], None]) -> None:
        repo = self._cache.repo(found.manifest.repo)
        async with self._origin(None) as origin, one_at_a_time(repo, found.manifest.commit, self._watched):
            assert origin is not None
            birthing = Birthing(
                found.manifest,
                found.refs,
                repo=repo,
                origin=origin,
                coordinators=found.coordinators,
                engine=engine.started,
                settings=self._settings.swarm,
                reporter=self._watched,
                arriving=self._arriving,
            )
            outcome = await birthing.run()
        if outcome.metainfo and not (outcome.complete and not self._serves):
            await self._from_swarm(found, outcome.metainfo, engine, on_ready, outcome)
        elif outcome.complete:
            on_ready(self._fetched(found.manifest))
        else:
            await self._from_mirrors(found, on_ready, outcome)

    async def _from_mirrors(
        self, found: Found, on_ready: Callable[[Fetched], None], before: Outcome | None = None
    ) -> None:
        repo = self._cache.repo(found.manifest.repo)
        files = self._selected(found.manifest)
        async with self._origin(None) as origin, one_at_a_time(repo, found.manifest.commit, self._watched):
            mirroring = Mirroring(
                origin,
                repo,
                found.manifest,
                self._watched,
                pulled_before=before.pulled_bytes if before else 0,
                traded_before=before.traded_bytes if before else 0,
                arriving=self._arriving,
            )
            await mirroring.run(files, found.refs)
        on_ready(self._fetched(found.manifest))
        if self._serves:
            self._reporter.note(
                "nobody seeds this snapshot: there is no swarm to serve it to ('p2pmodel seed' makes one)"
            )

    async def _from_swarm(
        self,
        found: Found,
        metainfo: Metainfo,
        engine: "_OnDemand",
        on_ready: Callable[[Fetched], None],
        birth: Outcome | None = None,
    ) -> None:
        """`birth`: of which the torrent has just come."""
        try:
            await self._transfer(found, metainfo, await engine.started(), on_ready, birth)
        except WrongTorrent as error:
            coordinators = _leasing(metainfo, self._settings)
            name = birth_name(manifest_text(metainfo.manifest))
            timeout = self._settings.swarm.coordinator_timeout
            withdrawn = await report_wrong(coordinators, name, metainfo.info_hash, timeout)
            if self._settings.offline or (birth is None and not withdrawn):
                raise
            self._reporter.note(f"{error.what}: nobody vouched for it; taking it from the mirrors alone")
            await self._from_mirrors(found, on_ready)

    async def _transfer(
        self,
        found: Found,
        metainfo: Metainfo,
        engine: Engine,
        on_ready: Callable[[Fetched], None],
        birth: Outcome | None,
    ) -> None:
        repo = self._cache.repo(found.manifest.repo)
        async with (
            self._origin(metainfo) as origin,
            self._paced(engine) as pace,
            Transfer(
                self._plan(found, metainfo, birth, pace),
                engine=engine,
                repo=repo,
                origin=origin,
                reporter=self._watched,
                arriving=self._arriving,
                outlet=self._home.outlet if self._home else None,
            ) as transfer,
        ):
            async with one_at_a_time(repo, found.manifest.commit, self._watched):
                await transfer.download()
            on_ready(self._fetched(found.manifest))
            if self._serves:
                await transfer.seed(seconds=self._request.seed_seconds, ratio=self._request.seed_ratio)
            elif birth is not None:
                await transfer.hand_on()

    def _plan(self, found: Found, metainfo: Metainfo, birth: Outcome | None, pace: Pace) -> TransferPlan:
        chosen = set(self._selected(found.manifest))
        trackers = dict.fromkeys((*metainfo.trackers, *map(announce_url, self._settings.coordinators)))
        return TransferPlan(
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
            mirrored=birth.pulled if birth else frozenset(),
            traded=birth.traded if birth else frozenset(),
            meeting=MEETING_OF_THE_BORN if birth else None,
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
            start(SharedLimits(engine, Limits(swarm.upload_limit, swarm.download_limit), download=pace).run())
            yield pace

    @asynccontextmanager
    async def _origin(self, metainfo: Metainfo | None) -> AsyncIterator[Origin | None]:
        """The mirrors, with those that the torrent names; None where HF_HUB_OFFLINE forbids them."""
        if self._settings.offline:
            yield None
            return
        mirrors = mirrors_with_webseeds(self._settings.mirrors, metainfo)
        origins = self._home.origins if self._home else Origins()
        async with Origin(mirrors, self._settings.origin, on_note=self._reporter.note) as origin:
            with origins.watching(origin):
                yield origin

    def _selected(self, manifest: Manifest) -> tuple[ManifestFile, ...]:
        request = self._request
        return selected(manifest, (Selection(request.include, request.exclude), *request.also))

    def _fetched(self, manifest: Manifest) -> Fetched:
        path = self._cache.repo(manifest.repo).snapshot(manifest.commit)
        spent = self._clock.seconds
        timings = Timings(
            total=time.monotonic() - self._began,
            find=spent("finding"),
            download=spent("downloading", "mirroring"),
            verify=spent("checking", "verifying", "publishing"),
        )
        return Fetched(manifest, path, timings, self._latest)

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


class _OnDemand:
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
