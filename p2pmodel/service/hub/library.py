"""Where a hub endpoint's snapshots come from: the cache alone, or the cache with an upstream behind it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from cachetools import LRUCache

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.names import Reference, RepoId
from p2pmodel.errors import (
    IntegrityError,
    InvalidInput,
    NotFound,
    P2PModelError,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
)
from p2pmodel.service.hub.published import PublishedCache, PublishedSnapshot
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.growing_file import GrowingFileReader

_KEEP_SNAPSHOTS = 64
PATIENCE = 8.0
"""Seconds in which it must be known what a revision is: hub clients wait 10."""


@dataclass(frozen=True, slots=True)
class OpenedContent:
    """A file to serve from. `ready(offset)`: wait for that byte, and how far may be read from there; None if all is
    there. `ranges`: whether a part of it may be served."""

    file: BinaryIO | None
    ready: Callable[[int], Awaitable[int]] | None = None
    ranges: bool = True


class Library(Protocol):
    """What the endpoint needs to know. Raises what hub clients understand: RepoNotFound, RevisionNotFound, ..."""

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """The snapshot of `repo` at a branch, tag, pull request or commit."""

    async def refs(self, repo: str) -> dict[str, str]:
        """Ref names and commits."""

    def opened(
        self, snapshot: PublishedSnapshot, file: ManifestFile, *, body: bool
    ) -> AbstractAsyncContextManager[OpenedContent]:
        """`file` for one answer; without `body` only its headers are wanted."""


class CacheLibrary:
    """What the cache holds, and nothing else."""

    def __init__(self, published: PublishedCache) -> None:
        self._published = published

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """As `Library`."""
        kept = self._published.kept(repo, revision)  # a thread's turn costs more than to serve a small file
        return kept if kept is not None else await asyncio.to_thread(self._published.snapshot, repo, revision)

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
        """As `Library`. Unavailable if the blob is not here, whatever is wanted of it."""
        with await asyncio.to_thread(snapshot.open, file) as blob:
            yield OpenedContent(blob)


class SeededLibrary(CacheLibrary):
    """Of what the cache holds, the `seeded` commits alone."""

    def __init__(self, published: PublishedCache) -> None:
        super().__init__(published)
        self.seeded: set[tuple[RepoId, str]] = set()

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """As `Library`."""
        found = await super().snapshot(repo, revision)
        if (found.manifest.repo, found.manifest.commit) not in self.seeded:
            raise RepoNotFound(f"{found.manifest.repo}@{found.manifest.commit} is not seeded here")
        return found

    async def refs(self, repo: str) -> dict[str, str]:
        """As `Library`."""
        held = await super().refs(repo)
        return {name: commit for name, commit in held.items() if (RepoId(repo), commit) in self.seeded}


class ContentSupply(Protocol):
    """Who brings what the cache lacks: a pull-through mirror, or the node of a daemon."""

    async def manifest(self, ref: Reference) -> Manifest:
        """What `ref` consists of. Raises as `Library.snapshot` does."""

    def check(self, repo: RepoId) -> None:
        """Raise RepoNotFound unless `repo` may be asked for."""

    def repo(self, manifest: Manifest) -> RepoCache:
        """Where the files of `manifest` go."""

    def tainted(self, manifest: Manifest, file: ManifestFile) -> bool:
        """Whether a part of `file` may not be served. Blocks."""

    def show(self, manifest: Manifest, file: ManifestFile) -> None:
        """`file`, which is here, was asked for as part of `manifest`. Blocks."""

    def serving(self, manifest: Manifest, file: ManifestFile) -> AbstractContextManager[None]:
        """While the context lasts, `file` is not removed."""

    async def expect(self, manifest: Manifest, file: ManifestFile) -> None:
        """Somebody asked for the headers of `file`, and is about to want it."""

    def reader(self, manifest: Manifest, file: ManifestFile) -> AbstractAsyncContextManager[GrowingFileReader]:
        """Bring `file`; yields a view of what has come."""


class UpstreamLibrary:
    """What upstream has: the cache first, and what it lacks as it arrives."""

    def __init__(self, upstream: ContentSupply, published: PublishedCache) -> None:
        self._upstream = upstream
        self._published = published
        self._snapshots: LRUCache[tuple[RepoId, str], PublishedSnapshot] = LRUCache(_KEEP_SNAPSHOTS)

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """As `Library`; and Unavailable, AccessDenied and so on as upstream answers."""
        manifest = await self._upstream.manifest(_reference(repo, revision))
        key = manifest.repo, manifest.commit
        kept = self._snapshots.get(key)
        if kept is None:
            files = {file.path: file for file in manifest.files}
            kept = self._snapshots[key] = PublishedSnapshot(
                self._upstream.repo(manifest), manifest, files, complete_list=True
            )
        return kept

    async def refs(self, repo: str) -> dict[str, str]:
        """As `Library`: those known here; if there are none, what upstream's main is."""
        reference = _reference(repo, "main")
        self._upstream.check(reference.repo)
        try:
            return await asyncio.to_thread(self._published.refs, repo)
        except NotFound:
            return {reference.revision: (await self._upstream.manifest(reference)).commit}

    @asynccontextmanager
    async def opened(
        self, snapshot: PublishedSnapshot, file: ManifestFile, *, body: bool
    ) -> AsyncIterator[OpenedContent]:
        """As `Library`. Headers are known without the bytes; these are sent only to who wants them."""
        if not body:
            await self._upstream.expect(snapshot.manifest, file)
            yield OpenedContent(None)
            return
        with self._upstream.serving(snapshot.manifest, file):
            ranges = not await asyncio.to_thread(self._upstream.tainted, snapshot.manifest, file)
            blob = await asyncio.to_thread(self._from_cache, snapshot, file)
            if blob is None:
                async with self._upstream.reader(snapshot.manifest, file) as reader:
                    yield OpenedContent(reader.file, reader.ready, ranges)
                return
            with blob:
                yield OpenedContent(blob, ranges=ranges)

    def _from_cache(self, snapshot: PublishedSnapshot, file: ManifestFile) -> BinaryIO | None:
        """The blob, shown in its snapshot; None if it is not here, or was just removed to make room."""
        with ExitStack() as stack:
            try:
                blob = stack.enter_context(snapshot.open(file))
                self._upstream.show(snapshot.manifest, file)
            except (Unavailable, IntegrityError):
                return None
            stack.pop_all()
            return blob


class NodeLibrary(UpstreamLibrary):
    """What a node can get, and whatever its cache holds while nobody can be asked."""

    def __init__(self, supply: ContentSupply, published: PublishedCache, *, patience: float = PATIENCE) -> None:
        super().__init__(supply, published)
        self._held = CacheLibrary(published)
        self._patience = patience

    async def snapshot(self, repo: str, revision: str) -> PublishedSnapshot:
        """As `Library`; Unavailable while those who are asked take their time: they go on being asked."""
        try:
            async with asyncio.timeout(self._patience):
                return await super().snapshot(repo, revision)
        except TimeoutError:
            error: P2PModelError = Unavailable(f"nobody has said yet what {repo} is", hint="ask again")
        except (Unavailable, NotFound) as refused:
            error = refused
        try:
            return await self._held.snapshot(repo, revision)
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
