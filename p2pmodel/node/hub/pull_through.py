"""The pull-through mirror: a cache that brings from upstream what it is asked for, each file once, whoever asks.

A file is pulled when somebody first asks for its bytes, and goes on being pulled for `LINGER` seconds after the last
who wanted it has left: a client that comes back resumes. What was pulled stays on disk for the next time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from typing import Self

from p2pmodel.config.settings import Settings
from p2pmodel.core.layout import piece_length_for
from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import Reference, RepoId
from p2pmodel.core.tasks import in_thread
from p2pmodel.errors import RepoNotFound
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.cache_budget import CacheBudget
from p2pmodel.node.hub.shared_downloads import SharedDownload, SharedDownloads
from p2pmodel.node.hub.upstream import METADATA_TTL, UpstreamRevisions
from p2pmodel.node.reporter import Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.files.space import allocated, check_space
from p2pmodel.store.growing_file import GrowingFile, GrowingFileReader, GrowingFileSink
from p2pmodel.store.publish import blob_lock
from p2pmodel.store.pulled_files import add_to_snapshot, publish_pulled
from p2pmodel.store.state.sync_log import SyncLog

ALL = Admission()

LINGER = 30.0
"""Seconds for which a pull goes on when nobody wants it any more."""

LOCK_PATIENCE = 30.0
"""Seconds to wait for the hub's lock of a blob that another process is downloading."""

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
        self._rules = rules
        self._log = log
        self._linger = linger
        self._upstream = UpstreamRevisions(cache, self.origin, reporter, ttl=metadata_ttl)
        self._downloads = SharedDownloads(self._download, reporter)
        self._budget = CacheBudget(cache, max_bytes, reporter)

    async def __aenter__(self) -> Self:
        if self._log is not None:
            await asyncio.to_thread(self._log.check_end)
        await self._budget.make({})
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.origin)
            stack.push_async_callback(self._upstream.close)
            stack.push_async_callback(self._downloads.close)
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
        return self.repo(manifest).recently_corrupt(file)

    def show(self, manifest: Manifest, file: ManifestFile) -> None:
        """`file`, whose blob is here, was asked for as part of `manifest`: it belongs into that snapshot. Blocks."""
        repo = self.repo(manifest)
        add_to_snapshot(repo, manifest, file)
        repo.served.renew(file)

    def serving(self, manifest: Manifest, file: ManifestFile) -> AbstractContextManager[None]:
        """While the context lasts, `file` is not removed to make room."""
        return self._budget.keeping((manifest.repo, file.etag))

    async def expect(self, manifest: Manifest, file: ManifestFile) -> None:
        """Whoever asks for headers alone may want no more than that: nothing is pulled for them."""

    @asynccontextmanager
    async def reader(self, manifest: Manifest, file: ManifestFile) -> AsyncIterator[GrowingFileReader]:
        """Download `file` unless that is under way; yields a reader. Raises what the download fails with."""
        repo = self.repo(manifest)
        shared = self._downloads.get(repo.key(file)) or self._downloads.start(manifest, GrowingFile(repo, file))
        with shared.client(self._linger), await shared.growing.open() as reader:
            yield reader

    async def _download(self, shared: SharedDownload) -> None:
        repo, file = shared.repo, shared.file
        async with blob_lock(repo, file, patience=LOCK_PATIENCE):
            if await asyncio.to_thread(repo.blob, file) is None:
                await self._budget.make(self._downloads.sizes())
                await asyncio.to_thread(self._check_space, shared)
                await self._pull(shared)

    async def _pull(self, shared: SharedDownload) -> None:
        repo, manifest, file = shared.repo, shared.manifest, shared.file
        path, length = repo.partial_path(file), piece_length_for(manifest.total_size)
        opened = in_thread(lambda: PartialFile.open(path, file, length), PartialFile.close)
        with ExitStack() as stack:
            async with await opened as partial:
                writer = stack.enter_context(shared.growing.written(path, partial.available))
                sources = await self.origin.pull(manifest, file, GrowingFileSink(partial, writer))
                writer.verified()
            if self._log is not None:
                await asyncio.to_thread(self._log.record, manifest, file, path, sources)
            await asyncio.to_thread(publish_pulled, repo, manifest, file)

    def _check_space(self, shared: SharedDownload) -> None:
        staged = allocated(shared.repo.partial_path(shared.file))
        check_space(shared.repo.folder, max(0, shared.file.size - staged))
