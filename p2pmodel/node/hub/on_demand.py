"""Content that clients of a node's hub endpoint request: transfers of the node download it on demand.

Invariants, to re-check when editing:
1. Once `expect` has returned, the blob of the file is in the cache, or its hub lock is held, by this process or by
   another that downloads it. The lock is held until the blob is there or the transfer has failed. A client with the
   same cache waits for the lock, finds the blob, and requests no byte.
2. Every lock is released: when the blob is there, when the transfer fails, pauses or is cancelled, and on closing.
3. A transfer that the user has paused stays paused, whatever clients request.
4. A file that a client waits for does not wait for the transfers of others: its own transfer goes first, and a small
   file comes past the queue.
"""

import asyncio
import glob
import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Self

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import Manifest, ManifestFile, Selection
from p2pmodel.core.content.names import Reference, RepoId, transfer_id
from p2pmodel.core.progress.views import TransferView
from p2pmodel.core.tasks import SingleFlight
from p2pmodel.errors import NotFound, NotYet, P2PModelError, Unavailable, restored
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.hub.manifest_source import ManifestSource
from p2pmodel.node.hub.shared_downloads import SharedDownload, SharedDownloads
from p2pmodel.node.hub.small_files import SmallFiles
from p2pmodel.node.hub.upstream import UpstreamRevisions
from p2pmodel.node.node import Node
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.voucher import CACHE, differing
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.growing_file import GrowingFileReader
from p2pmodel.store.state.revisions import revisions_at

LARGE = 16 * MIB
"""Bytes above which a file belongs to a group of its kind. All smaller files (settings, tokenizers) are one group."""


def group_of(manifest: Manifest, file: ManifestFile) -> Selection:
    """The files to download when `file` is requested: all small ones, or those with names that differ only in numbers.

    The groups of a manifest are disjoint and few: requests for all its files, one by one, make few selections.
    """
    large = {_numbered(each.path) for each in manifest.files if each.size > LARGE}
    own = _numbered(file.path)
    if own in large:
        return Selection(include=(own,))
    return Selection(exclude=tuple(sorted(large)))


def _numbered(path: str) -> str:
    """A pattern for `path` in which every digit matches any digit."""
    return re.sub("[0-9]", "[0-9]", glob.escape(path))


METADATA_TTL = 60.0
"""Seconds for which a branch counts as unchanged: the clients of one job request it within moments."""

POLL = 0.2
"""Seconds between two looks at a transfer, which reports its progress as often."""
OPEN_WITHIN = 5.0
"""Seconds in which a part of the file must be readable; else the client gets "try again". With the wait for the first
byte this is less than the 10 s timeout of hub clients. Requested pieces go before those not yet requested from peers:
peers are asked 3 s ahead, and received pieces are written within about a second."""


class HubContent:
    """`async with` opens and closes it; closing releases the locks. The transfers of the node go on."""

    def __init__(self, node: Node, reporter: Reporter, *, ttl: float = METADATA_TTL) -> None:
        self.cache = node.context.cache
        self._node = node
        self._reporter = reporter
        self.manifests = ManifestSource(node.settings, reporter, node.context.pace)
        self._upstream = UpstreamRevisions(self.cache, self.manifests, reporter, ttl=ttl)
        self._starting: SingleFlight[tuple[str, Selection], None] = SingleFlight()
        self._requested: set[tuple[str, Selection]] = set()
        """Transfer ids, each with a selection that was requested of the transfer."""
        self._downloads = SharedDownloads(self._download, reporter)
        self._small_files = SmallFiles(self.manifests.origin, node.version)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.manifests)
            if self.manifests.origin is not None:
                stack.enter_context(self._node.context.origins.watching(self.manifests.origin))
            stack.push_async_callback(self._upstream.close)
            stack.push_async_callback(self._starting.close)
            stack.push_async_callback(self._stop)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def manifest(self, ref: Reference) -> Manifest:
        """The manifest of `ref` from a coordinator, else a mirror, else the cache or a running transfer."""
        try:
            return await self._upstream.manifest(ref)
        except (Unavailable, NotFound):
            known = self._node.found(ref)
            if known is None:
                raise
            return known.manifest

    def check(self, repo: RepoId, asked: RepoId) -> None:
        """Every repository is admitted."""

    def repo(self, manifest: Manifest) -> RepoCache:
        """Where the files of `manifest` go."""
        return self.cache.repo(manifest.repo)

    def cache_hit(self, manifest: Manifest, file: ManifestFile) -> None:
        """Nothing: the transfers make the snapshots."""

    def serving(self, manifest: Manifest, file: ManifestFile) -> AbstractContextManager[None]:  # noqa: ARG002
        """The snapshot stays in the cache while the context lasts."""
        return self._node.context.readers.reading(manifest.repo, manifest.commit)

    async def expect(self, manifest: Manifest, file: ManifestFile) -> None:
        """Download `file`, which a client will request soon, unless it is in the cache. Invariant 1 holds on return."""
        if await asyncio.to_thread(self.repo(manifest).usable, file) is None:
            self._want(manifest, file)

    @asynccontextmanager
    async def reader(self, manifest: Manifest, file: ManifestFile) -> AsyncIterator[GrowingFileReader]:
        """A reader of `file` while it is downloaded. Raises NotYet if nothing is readable soon, or the error of its
        transfer."""
        shared = self._want(manifest, file)
        try:
            async with asyncio.timeout(OPEN_WITHIN):
                reader = await shared.growing.open()
        except TimeoutError:
            view = self._view(_transfer_of(shared))
            reason = (
                "other transfers go first" if view is not None and view.state == "queued" else "no byte received yet"
            )
            raise NotYet(f"{file.path} of {manifest.repo} is being downloaded: {reason}", hint="try again") from None
        with reader:
            yield reader

    def _want(self, manifest: Manifest, file: ManifestFile) -> SharedDownload:
        repo, locks = self.repo(manifest), self.cache.locks
        shared = self._downloads.get(repo.key(file))
        if shared is not None:
            return shared
        # On the event loop on purpose: this takes less time than a thread, and no cancellation can lose the lock.
        with translated():
            locked = locks.try_acquire(manifest.repo, file)
        release = partial(locks.release, manifest.repo, file) if locked else _ignore
        return self._downloads.start(manifest, self._node.context.growing.file(repo, file), release)

    async def _download(self, shared: SharedDownload) -> None:
        with self._node.clients.waiting(_transfer_of(shared)):
            await self._start(shared)
            if shared.file.size <= LARGE:
                await self._small_files.bring(shared, lambda: self._view(_transfer_of(shared)))
            await self._published(shared)

    async def _start(self, shared: SharedDownload) -> None:
        """Request the file, and the others of its group, of the node's transfer of this snapshot."""
        what = _transfer_of(shared), group_of(shared.manifest, shared.file)
        view = self._view(_transfer_of(shared))
        if view is not None and view.state == "paused":
            raise Unavailable(f"the transfer of {view.repo} is paused", hint=f"p2pmodel resume {view.repo}")
        if view is None or view.state == "failed" or view.complete:
            self._requested.discard(what)
        if what not in self._requested:
            await self._starting.join(what, lambda: self._request(shared.manifest, what))

    async def _request(self, manifest: Manifest, what: tuple[str, Selection]) -> None:
        selection = what[1]
        ref, node = Reference(manifest.repo, manifest.commit), self._node
        request = FetchRequest(ref, include=selection.include, exclude=selection.exclude)
        found = node.found(ref)
        if found is None or found.metainfo is None:
            found = await self._find(manifest, to_share=selection == Selection())
        names = await asyncio.to_thread(revisions_at, self.repo(manifest), manifest.commit)
        await node.start(request, found=replace(found, refs=tuple(names)))
        self._requested.add(what)

    async def _find(self, manifest: Manifest, *, to_share: bool) -> ResolvedTarget:
        """The torrent of `manifest`, which is known. Without a voucher for it the mirrors are used."""
        known = ResolvedTarget(manifest, None, vouched_by=CACHE)
        if not self._node.settings.coordinators:
            return known
        try:
            found = await self.manifests.find(
                Reference(manifest.repo, manifest.commit), self._reporter, to_share=to_share
            )
        except P2PModelError:
            return known
        return found if not differing(found.manifest, manifest) else known

    async def _published(self, shared: SharedDownload) -> None:
        """Return once the blob is in the cache. Raises the reason if the transfer ends without it."""
        while True:
            version, view = self._node.version.value, self._view(_transfer_of(shared))
            if await asyncio.to_thread(shared.repo.usable, shared.file) is not None:
                return
            if view is None:
                raise Unavailable(f"the transfer of {shared.repo.repo} was cancelled", hint="try again to start it")
            if view.error is not None:
                raise restored(view.error.code, view.error.message, hint=view.error.hint)
            if view.state == "paused" or view.complete:
                raise NotYet(f"the transfer of {view.repo} has stopped", hint="try again")
            await self._node.version.beyond(version, timeout=POLL)

    def _view(self, ident: str) -> TransferView | None:
        try:
            return self._node.transfer(ident)
        except NotFound:
            return None

    async def _stop(self) -> None:
        await self._downloads.close()


def _transfer_of(shared: SharedDownload) -> str:
    return transfer_id(shared.manifest.repo, shared.manifest.commit)


def _ignore() -> None:
    """Release nothing."""
