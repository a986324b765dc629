"""Where a hub endpoint's snapshots come from: the cache alone, or the cache with an upstream behind it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from p2pmodel.domain.manifest import ManifestFile
from p2pmodel.domain.names import Reference, RepoId
from p2pmodel.errors import IntegrityError, InvalidInput, NotFound, RepoNotFound, RevisionNotFound, Unavailable
from p2pmodel.node.pull_through import PullThrough
from p2pmodel.service.published import Published, Snapshot

_KEEP_SNAPSHOTS = 64


@dataclass(frozen=True, slots=True)
class Opened:
    """A file to serve from. `ready(offset)`: wait for that byte, and how far may be read from there; None if all is
    there. `ranges`: whether a part of it may be served."""

    file: BinaryIO | None
    ready: Callable[[int], Awaitable[int]] | None = None
    ranges: bool = True


class Library(Protocol):
    """What the endpoint needs to know. Raises what hub clients understand: RepoNotFound, RevisionNotFound, ..."""

    async def snapshot(self, repo: str, revision: str) -> Snapshot:
        """The snapshot of `repo` at a branch, tag, pull request or commit."""

    async def refs(self, repo: str) -> dict[str, str]:
        """Ref names and commits."""

    def opened(self, snapshot: Snapshot, file: ManifestFile, *, body: bool) -> AbstractAsyncContextManager[Opened]:
        """`file` for one answer; without `body` only its headers are wanted."""


class CacheLibrary:
    """What the cache holds, and nothing else."""

    def __init__(self, published: Published) -> None:
        self._published = published

    async def snapshot(self, repo: str, revision: str) -> Snapshot:
        """As `Library`."""
        kept = self._published.kept(repo, revision)  # a thread's turn costs more than to serve a small file
        return kept if kept is not None else await asyncio.to_thread(self._published.snapshot, repo, revision)

    async def refs(self, repo: str) -> dict[str, str]:
        """As `Library`."""
        return await asyncio.to_thread(self._published.refs, repo)

    @asynccontextmanager
    async def opened(self, snapshot: Snapshot, file: ManifestFile, *, body: bool) -> AsyncIterator[Opened]:  # noqa: ARG002
        """As `Library`. Unavailable if the blob is not here, whatever is wanted of it."""
        with await asyncio.to_thread(snapshot.open, file) as blob:
            yield Opened(blob)


class SeededLibrary(CacheLibrary):
    """Of what the cache holds, the `seeded` commits alone."""

    def __init__(self, published: Published) -> None:
        super().__init__(published)
        self.seeded: set[tuple[RepoId, str]] = set()

    async def snapshot(self, repo: str, revision: str) -> Snapshot:
        """As `Library`."""
        found = await super().snapshot(repo, revision)
        if (found.manifest.repo, found.manifest.commit) not in self.seeded:
            raise RepoNotFound(f"{found.manifest.repo}@{found.manifest.commit} is not seeded here")
        return found

    async def refs(self, repo: str) -> dict[str, str]:
        """As `Library`."""
        held = await super().refs(repo)
        return {name: commit for name, commit in held.items() if (RepoId(repo), commit) in self.seeded}


class UpstreamLibrary:
    """What upstream has: the cache first, and what it lacks as it arrives."""

    def __init__(self, upstream: PullThrough, published: Published) -> None:
        self._upstream = upstream
        self._published = published
        self._snapshots: dict[tuple[RepoId, str], Snapshot] = {}

    async def snapshot(self, repo: str, revision: str) -> Snapshot:
        """As `Library`; and Unavailable, AccessDenied and so on as upstream answers."""
        manifest = await self._upstream.manifest(_reference(repo, revision))
        key = manifest.repo, manifest.commit
        kept = self._snapshots.get(key)
        if kept is None:
            files = {file.path: file for file in manifest.files}
            kept = self._snapshots[key] = Snapshot(self._upstream.repo(manifest), manifest, files, complete_list=True)
            for oldest in list(self._snapshots)[:-_KEEP_SNAPSHOTS]:
                del self._snapshots[oldest]
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
    async def opened(self, snapshot: Snapshot, file: ManifestFile, *, body: bool) -> AsyncIterator[Opened]:
        """As `Library`. Headers are known without the bytes; these are pulled only for who wants them."""
        if not body:
            yield Opened(None)
            return
        with self._upstream.serving(snapshot.manifest, file):
            ranges = not await asyncio.to_thread(self._upstream.tainted, snapshot.manifest, file)
            blob = await asyncio.to_thread(self._from_cache, snapshot, file)
            if blob is None:
                async with self._upstream.reader(snapshot.manifest, file) as reader:
                    yield Opened(reader.file, reader.ready, ranges)
                return
            with blob:
                yield Opened(blob, ranges=ranges)

    def _from_cache(self, snapshot: Snapshot, file: ManifestFile) -> BinaryIO | None:
        """The blob, shown in its snapshot; None if it is not here, or was just removed to make room."""
        with ExitStack() as stack:
            try:
                blob = stack.enter_context(snapshot.open(file))
                self._upstream.show(snapshot.manifest, file)
            except (Unavailable, IntegrityError):
                return None
            stack.pop_all()
            return blob


def _reference(repo: str, revision: str) -> Reference:
    try:
        name = RepoId(repo)
    except InvalidInput as error:
        raise RepoNotFound(error.what) from None
    try:
        return Reference(name, revision)
    except InvalidInput as error:
        raise RevisionNotFound(error.what) from None
