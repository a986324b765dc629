"""The pull-through mirror: a cache that downloads from upstream the files that clients request, each once.

A download begins with the first request for bytes of a file, and goes on for `LINGER` seconds after the last client
has left. A client that returns resumes. Downloaded bytes stay on disk for the next download.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Self

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.sizes import counted, human
from p2pmodel.errors import RepoNotFound
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.shared_downloads import SharedDownload, SharedDownloads
from p2pmodel.node.hub.upstream import METADATA_TTL, UpstreamRevisions
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.signature_check import CheckedListings, SignatureCheck
from p2pmodel.node.snapshot.file_download import download_file
from p2pmodel.node.snapshot.lock import owning
from p2pmodel.node.snapshot.reuse.presumed_ranges import FileReuse
from p2pmodel.origin.origin import Origin
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import BlobKey, HubCache, RepoCache
from p2pmodel.store.eviction import make_room
from p2pmodel.store.files.space import allocated, check_space
from p2pmodel.store.growing_file import GrowingFile, GrowingFileReader
from p2pmodel.store.publish import blob_lock, publish_blob, publish_snapshot
from p2pmodel.store.snapshots.snapshot_list import shows
from p2pmodel.store.state.revisions import revisions_at
from p2pmodel.store.state.sync_log import SyncLog

ALL = Admission()

LINGER = 30.0
"""Seconds for which a download goes on without clients."""

LOCK_PATIENCE = 30.0
"""Seconds to wait for the hub's lock of a blob that another process is downloading."""

PART_SIZE = 4 << 20
"""Bytes of the longest request to upstream: concurrent downloads take turns after each request."""


class PullThrough:
    """`async with` opens and closes it; closing stops the downloads, and the next run resumes them.

    `max_bytes` limits the cache: the files served longest ago are evicted. `rules` admit repositories. Every downloaded
    file is recorded in `log` before it is published.
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
        self._note = reporter.note
        self._rules = rules
        self._log = log
        self._linger = linger
        listings = CheckedListings(self.origin, SignatureCheck(settings, reporter))
        self._upstream = UpstreamRevisions(cache, listings, reporter, ttl=metadata_ttl, admit=self.check)
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
        """The manifest of `ref` upstream, or the last known one. Raises what upstream answers, and RepoNotFound for
        repositories that the rules do not admit."""
        if self._rules.denies(ref.repo):
            raise _not_admitted(ref.repo)
        manifest = await self._upstream.manifest(ref)
        self.check(manifest.repo, ref.repo)
        return manifest

    def check(self, repo: RepoId, asked: RepoId) -> None:
        """Raise RepoNotFound unless the rules admit `repo`, requested as `asked`, also if it is in the cache."""
        if not self._rules.admits(repo, asked):
            raise _not_admitted(asked)

    def repo(self, manifest: Manifest) -> RepoCache:
        """Where the files of `manifest` go."""
        return self.cache.repo(manifest.repo)

    def cache_hit(self, manifest: Manifest, file: ManifestFile) -> None:
        """Link `file`, which is in the cache, into the snapshot of `manifest`, and mark it as served. Blocks."""
        repo = self.repo(manifest)
        _add_to_snapshot(repo, manifest, file)
        repo.served.renew(file)

    def serving(self, manifest: Manifest, file: ManifestFile) -> AbstractContextManager[None]:
        """Do not evict `file` while the context lasts."""
        return self._budget.in_use((manifest.repo, file.etag))

    async def expect(self, manifest: Manifest, file: ManifestFile) -> None:
        """Nothing: a request for headers alone downloads nothing."""

    @asynccontextmanager
    async def reader(self, manifest: Manifest, file: ManifestFile) -> AsyncIterator[GrowingFileReader]:
        """Download `file` unless that is under way; yields a reader. Raises what the download fails with."""
        repo = self.repo(manifest)
        shared = self._downloads.get(repo.key(file)) or self._downloads.start(manifest, GrowingFile(repo, file))
        with shared.client(self._linger), await shared.growing.open() as reader:
            yield reader

    async def _download(self, shared: SharedDownload) -> None:
        repo, file = shared.repo, shared.file
        async with owning(repo, file, patience=LOCK_PATIENCE), blob_lock(repo, file, patience=LOCK_PATIENCE):
            if await asyncio.to_thread(repo.usable, file) is None:
                await self._budget.make(self._downloads.sizes())
                await asyncio.to_thread(self._check_space, shared)
                await asyncio.to_thread(repo.staged.list, shared.manifest)
                await download_file(
                    self.origin,
                    shared.manifest,
                    shared.growing,
                    repo.staged.path_of(file),
                    publish=lambda: _publish_pulled(repo, shared.manifest, file),
                    log=self._log,
                    reuse=FileReuse(self.origin, repo, shared.manifest, self._note),
                )

    def _check_space(self, shared: SharedDownload) -> None:
        staged = allocated(shared.repo.staged.path_of(shared.file))
        check_space(shared.repo.folder, max(0, shared.file.size - staged))


def _not_admitted(asked: RepoId) -> RepoNotFound:
    return RepoNotFound(f"this mirror does not admit {asked}")


class CacheBudget:
    """The size limit of the cache, and the files in it that are being served: at most `max_bytes`; None: no limit."""

    def __init__(self, cache: HubCache, max_bytes: int | None, reporter: Reporter) -> None:
        self._cache = cache
        self._max_bytes = max_bytes
        self._reporter = reporter
        self._in_use: Counter[BlobKey] = Counter()
        self._turn = asyncio.Lock()

    @contextmanager
    def in_use(self, key: BlobKey) -> Iterator[None]:
        """The content of `key` is not evicted while the context lasts."""
        self._in_use[key] += 1
        try:
            yield
        finally:
            self._in_use[key] -= 1
            if not self._in_use[key]:
                del self._in_use[key]

    async def make(self, growing: Mapping[BlobKey, int]) -> None:
        """Evict the files served longest ago until all of `growing` (sizes by key) fits. Raises as `make_room`."""
        if self._max_bytes is None:
            return
        async with self._turn:
            gone = await asyncio.to_thread(
                make_room, self._cache, self._max_bytes, growing, lambda key: key in self._in_use
            )
        if gone:
            size = human(sum(size for _, _, size in gone))
            repos = ", ".join(sorted({str(repo) for repo, _, _ in gone}))
            self._reporter.note(
                notes.info(
                    "files_evicted",
                    f"evicted {counted(len(gone), 'file')} of {repos} ({size}), served longest ago",
                    files=len(gone),
                )
            )


def _publish_pulled(repo: RepoCache, manifest: Manifest, file: ManifestFile) -> None:
    """Publish `file`, which is assembled at its staged path and verified, as a blob and in the snapshot."""
    publish_blob(repo, file, repo.staged.path_of(file))
    repo.served.set(file)
    _add_to_snapshot(repo, manifest, file)


@translated()
def _add_to_snapshot(repo: RepoCache, manifest: Manifest, file: ManifestFile) -> None:
    """Link `file`, which has its blob in the cache, into its snapshot, and point the refs of this commit at it."""
    if not shows(repo, manifest.commit, file):
        publish_snapshot(repo, manifest, [file], revisions_at(repo, manifest.commit))
