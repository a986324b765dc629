"""The pull-through mirror: a cache that brings from upstream what it is asked for, each file once, whoever asks.

A file is pulled when somebody first asks for its bytes, and goes on being pulled for `LINGER` seconds after the last
who wanted it has left: a client that comes back resumes. What was pulled stays on disk for the next time.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Self

from p2pmodel.config.settings import Settings
from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import Reference, RepoId
from p2pmodel.errors import P2PModelError, RepoNotFound
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.arrival import PulledFile, PulledFileReader
from p2pmodel.node.hub.cache_budget import CacheBudget
from p2pmodel.node.hub.upstream import METADATA_TTL, UpstreamRevisions
from p2pmodel.node.reporter import Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.arrivals import is_tainted, show
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.eviction import Key, renew_served
from p2pmodel.store.state.sync_log import SyncLog

ALL = Admission()

LINGER = 30.0
"""Seconds for which a pull goes on when nobody wants it any more."""

PART_SIZE = 4 << 20
"""Longest request to upstream: files that are asked for at the same time take turns after each."""


class PullThrough:
    """`async with` opens and closes it; closing stops the pulls, and the next run resumes them.

    `max_bytes` bounds the cache: what was served longest ago makes room for what is asked for. `rules` say which
    repositories there are for clients. Every file pulled is recorded in `log` before it is published.
    """

    def __init__(
        self,
        cache: HubCache,
        settings: Settings,
        reporter: Reporter,
        *,
        metadata_ttl: float = METADATA_TTL,
        max_bytes: int | None = None,
        rules: Admission = ALL,
        log: SyncLog | None = None,
        linger: float = LINGER,
    ) -> None:
        self.cache = cache
        part_size = min(PART_SIZE, settings.origin.part_size)
        origin_settings = settings.origin.model_copy(update={"part_size": part_size})
        self.origin = Origin(settings.mirrors, origin_settings, on_note=reporter.note)
        self._reporter = reporter
        self._rules = rules
        self._log = log
        self._linger = linger
        self._upstream = UpstreamRevisions(cache, self.origin, reporter, ttl=metadata_ttl)
        self._wanted: dict[Key, _SharedPull] = {}
        self._room = CacheBudget(cache, max_bytes, reporter)

    async def __aenter__(self) -> Self:
        if self._log is not None:
            await asyncio.to_thread(self._log.check_end)
        await self._room.make({})
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.origin)
            stack.push_async_callback(self._upstream.close)
            stack.push_async_callback(self._stop)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def manifest(self, ref: Reference) -> Manifest:
        """What `ref` consists of upstream, or was last known to. Raises what upstream answers, and RepoNotFound for
        what the rules do not admit."""
        self.check(ref.repo)
        return await self._upstream.manifest(ref)

    def check(self, repo: RepoId) -> None:
        """Raise RepoNotFound unless the rules admit `repo`, whether it is in the cache or not."""
        if not self._rules.admits(repo):
            raise RepoNotFound(f"{repo} is not among the repositories of this mirror")

    def repo(self, manifest: Manifest) -> RepoCache:
        """Where the files of `manifest` go."""
        return self.cache.repo(manifest.repo)

    def tainted(self, manifest: Manifest, file: ManifestFile) -> bool:
        """Whether clients may hold wrong bytes of `file`, so that a part of it may not be served. Touches the disk."""
        return is_tainted(self.repo(manifest), file)

    def show(self, manifest: Manifest, file: ManifestFile) -> None:
        """`file`, whose blob is here, was asked for as part of `manifest`: it belongs into that snapshot. Blocks."""
        repo = self.repo(manifest)
        show(repo, manifest, file)
        renew_served(repo, file)

    def serving(self, manifest: Manifest, file: ManifestFile) -> AbstractContextManager[None]:
        """While the context lasts, `file` is not removed to make room."""
        return self._room.keeping((manifest.repo, file.etag))

    async def expect(self, manifest: Manifest, file: ManifestFile) -> None:
        """Whoever asks for headers alone may want no more than that: nothing is pulled for them."""

    @asynccontextmanager
    async def reader(self, manifest: Manifest, file: ManifestFile) -> AsyncIterator[PulledFileReader]:
        """Pull `file` unless that is under way; yields a view of what has come. Raises what the pull fails with."""
        key = manifest.repo, file.etag
        wanted = self._wanted.get(key)
        if wanted is None:
            repo = self.repo(manifest)
            arrival = PulledFile(self.origin, repo, manifest, file, make_room=self._make_room, log=self._log)
            wanted = self._wanted[key] = _SharedPull(arrival, asyncio.create_task(self._run(key, arrival)))
        with wanted.by_one_more(self._linger):
            async with wanted.arrival.reader() as reader:
                yield reader

    async def _make_room(self) -> None:
        await self._room.make({key: wanted.arrival.file.size for key, wanted in self._wanted.items()})

    async def _run(self, key: Key, arrival: PulledFile) -> None:
        try:
            await arrival.run()
        except P2PModelError as error:
            self._reporter.note(f"{arrival.file.path} of {key[0]} did not come: {error}")
        finally:
            del self._wanted[key]

    async def _stop(self) -> None:
        tasks = [wanted.task for wanted in self._wanted.values()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


class _SharedPull:
    """An arrival, the task that runs it, and how many want it."""

    def __init__(self, arrival: PulledFile, task: asyncio.Task[None]) -> None:
        self.arrival = arrival
        self.task = task
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def by_one_more(self, linger: float) -> Iterator[None]:
        """One more wants it; `linger` seconds after the last has left, the task is cancelled."""
        self._count += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._timer = asyncio.get_running_loop().call_later(linger, self.task.cancel)
