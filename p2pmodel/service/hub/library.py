"""The snapshots of a hub endpoint: from the cache alone, or from the cache with an upstream behind it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from cachetools import LRUCache

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import (
    IntegrityError,
    InvalidInput,
    NotFound,
    P2PModelError,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
)
from p2pmodel.service.hub.published_snapshots import PublishedCache, PublishedSnapshot
from p2pmodel.store.growing_file import GrowingFileReader

_KEEP_SNAPSHOTS = 64

PATIENCE = 8.0
"""Seconds in which a revision must be resolved: hub clients wait 10."""


@dataclass(frozen=True, slots=True)
class OpenedContent:
    """An opened file. `ready(offset)` waits for that byte and returns the end of the readable bytes; None: all are.
    `ranges`: whether parts of it may be served."""

    file: BinaryIO | None
    ready: Callable[[int], Awaitable[int]] | None = None
    ranges: bool = True


class Library(Protocol):
    """What the endpoint serves. Raises errors that hub clients understand: RepoNotFound, RevisionNotFound, ..."""

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """The snapshot of `repo` at a branch, tag, pull request or commit."""

    async def refs(self, repo: str) -> dict[str, str]:
        """Ref names of `repo`, and the commits they point to."""

    def opened(
        self, snapshot: PublishedSnapshot, file: ManifestFile, *, body: bool
    ) -> AbstractAsyncContextManager[OpenedContent]:
        """`file` for one answer; without `body` for its headers alone."""


class CacheLibrary:
    """The snapshots in the cache, and nothing else."""

    def __init__(self, published: PublishedCache) -> None:
        self._published = published

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """As `Library`."""
        recent = self._published.recent(repo, revision)  # a thread costs more than serving a small file
        return recent if recent is not None else await asyncio.to_thread(self._published.snapshot, repo, revision)

    async def refs(self, repo: str) -> dict[str, str]:
        """As `Library`."""
        return await asyncio.to_thread(self._published.refs, repo)

    @asynccontextmanager
    async def opened(
        self,
        snapshot: PublishedSnapshot,
        file: ManifestFile,
        *,
        body: bool,  # noqa: ARG002
    ) -> AsyncIterator[OpenedContent]:
        """As `Library`. Raises Unavailable if the blob is not in the cache, also for headers alone."""
        with await asyncio.to_thread(snapshot.open, file) as blob:
            yield OpenedContent(blob)


class SeededLibrary(CacheLibrary):
    """The `seeded` commits of the cache alone."""

    def __init__(self, published: PublishedCache) -> None:
        super().__init__(published)
        self.seeded: set[tuple[RepoId, str]] = set()

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """As `Library`."""
        found = await super().snapshot(repo, revision)
        if (found.manifest.repo, found.manifest.commit) not in self.seeded:
            raise RepoNotFound(f"{found.manifest.repo}@{found.manifest.commit} is not seeded by this node")
        return found

    async def refs(self, repo: str) -> dict[str, str]:
        """As `Library`."""
        refs = await super().refs(repo)
        held = await asyncio.to_thread(self._published.held, RepoId(repo))
        seeded = {name: commit for name, commit in refs.items() if (held, commit) in self.seeded}
        if not seeded:  # an empty list would be an answer without a right: there is no snapshot to ask for it
            raise RepoNotFound(f"{held} is not seeded by this node")
        return seeded


class ContentSupply(Protocol):
    """Downloads what the cache lacks: a pull-through mirror, or the node of a daemon."""

    async def manifest(self, ref: Reference) -> Manifest:
        """The manifest of `ref`. Raises as `Library.snapshot`."""

    def check(self, repo: RepoId, asked: RepoId) -> None:
        """Raise RepoNotFound unless `repo`, requested as `asked`, is admitted."""

    def cache_hit(self, manifest: Manifest, file: ManifestFile) -> None:
        """`file`, which is in the cache, was requested as part of `manifest`. Blocks."""

    def serving(self, manifest: Manifest, file: ManifestFile) -> AbstractContextManager[None]:
        """Do not evict `file` while the context lasts."""

    async def expect(self, manifest: Manifest, file: ManifestFile) -> None:
        """A client requested the headers of `file`: its bytes are likely to be next."""

    def reader(self, manifest: Manifest, file: ManifestFile) -> AbstractAsyncContextManager[GrowingFileReader]:
        """Download `file`; yields a reader that follows the download."""


class UpstreamLibrary:
    """The snapshots of upstream: files from the cache, and missing files while they are downloaded."""

    def __init__(self, upstream: ContentSupply, published: PublishedCache) -> None:
        self._upstream = upstream
        self._published = published
        self._snapshots: LRUCache[tuple[RepoId, str], PublishedSnapshot] = LRUCache(_KEEP_SNAPSHOTS)

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """As `Library`. Also raises Unavailable, AccessDenied and so on, as upstream answers."""
        manifest = await self._upstream.manifest(_reference(repo, revision))
        key = manifest.repo, manifest.commit
        snapshot = self._snapshots.get(key)
        if snapshot is None:
            files = {file.path: file for file in manifest.files}
            snapshot = self._snapshots[key] = PublishedSnapshot(
                self._published.repo(manifest.repo), manifest, files, complete_list=True
            )
        return snapshot

    async def refs(self, repo: str) -> dict[str, str]:
        """As `Library`: the refs in the cache; if there are none, upstream's main."""
        reference = _reference(repo, "main")
        held = await asyncio.to_thread(self._published.held, reference.repo)
        self._upstream.check(held, reference.repo)
        try:
            return await asyncio.to_thread(self._published.refs, repo)
        except NotFound:
            return {reference.revision: (await self._upstream.manifest(reference)).commit}

    @asynccontextmanager
    async def opened(
        self, snapshot: PublishedSnapshot, file: ManifestFile, *, body: bool
    ) -> AsyncIterator[OpenedContent]:
        """As `Library`. Headers need no bytes: only a request for the body downloads."""
        if not body:
            await self._upstream.expect(snapshot.manifest, file)
            yield OpenedContent(None)
            return
        with self._upstream.serving(snapshot.manifest, file):
            ranges = not await asyncio.to_thread(snapshot.cache.recently_corrupt, file)
            blob = await asyncio.to_thread(self._from_cache, snapshot, file)
            if blob is None:
                async with self._upstream.reader(snapshot.manifest, file) as reader:
                    yield OpenedContent(reader.file, reader.ready, ranges)
                return
            with blob:
                yield OpenedContent(blob, ranges=ranges)

    def _from_cache(self, snapshot: PublishedSnapshot, file: ManifestFile) -> BinaryIO | None:
        """The blob, linked into its snapshot; None if it is not in the cache, or was evicted a moment ago."""
        with ExitStack() as stack:
            try:
                blob = stack.enter_context(snapshot.open(file))
                self._upstream.cache_hit(snapshot.manifest, file)
            except (Unavailable, IntegrityError):
                return None
            stack.pop_all()
            return blob


class NodeLibrary(UpstreamLibrary):
    """The snapshots that a node can download, and those in its cache while no source answers."""

    def __init__(self, supply: ContentSupply, published: PublishedCache, *, patience: float = PATIENCE) -> None:
        super().__init__(supply, published)
        self._cached = CacheLibrary(published)
        self._patience = patience

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """As `Library`. Raises Unavailable after `patience` seconds; the requests to the sources go on."""
        try:
            async with asyncio.timeout(self._patience):
                return await super().snapshot(repo, revision)
        except TimeoutError:
            error: P2PModelError = Unavailable(f"no source has answered yet for {repo}", hint="try again")
        except (Unavailable, NotFound) as refused:
            error = refused
        try:
            return await self._cached.snapshot(repo, revision)
        except NotFound:
            raise error from None


def _reference(repo: str, revision: str) -> Reference:
    try:
        name = RepoId(repo)
    except InvalidInput as error:
        raise RepoNotFound(error.what) from None
    try:
        return Reference(name, revision)
    except InvalidInput as error:
        raise RevisionNotFound(error.what) from None
